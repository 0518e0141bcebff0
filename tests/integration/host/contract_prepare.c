/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is prepared is looked at under the lock, and carried out when the word comes. */

#include "contract.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* What is prepared has the lock and is not written before it may be; where that never comes, nothing is, and the lock is given back. A
 * word that comes too late, or when nothing waits for it, does no harm. */
void test_prepare(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };
        CLEANUP(freep) char *before = bench_state(b);
        unsigned long writes = bench_counter(b, "writes");
        CLEANUP(freep) char *after = NULL;
        Snapshot *s = bench_snapshot(b);
        unsigned tries = 0;
        Answer a = {};
        Plan p;

        assert_int_equal(plan_start(s, uuid_of(1), &m, false, &p), 0);
        b->host->ops->go_on(b->host);
        assert_int_equal(b->host->ops->prepare(b->host, &p, 1, on_executed, &a), 0);
        while (lock_holder(b) == 0)
                (void) sd_event_run(b->event, 1000);
        assert_false(a.done);
        bench_wait(b, &a);
        assert_int_equal(a.r, 0);
        assert_int_equal(a.n, 1);
        assert_int_equal(a.outcomes[0].verdict, HOST_SKIPPED);
        assert_int_equal(bench_counter(b, "writes"), writes);
        assert_int_equal(lock_holder(b), 0);
        after = bench_state(b);
        assert_string_equal(after, before);

        b->host->ops->go_on(b->host); /* too late */
        do {
                assert_true(tries++ < 20); /* on a machine that is that slow, this comes too late as well */
                answer_clear(&a);
                assert_int_equal(b->host->ops->prepare(b->host, &p, 1, on_executed, &a), 0);
                while (lock_holder(b) == 0)
                        (void) sd_event_run(b->event, 1000);
                assert_int_equal(bench_counter(b, "writes"), writes);
                b->host->ops->go_on(b->host);
                bench_wait(b, &a);
        } while (a.outcomes[0].verdict == HOST_SKIPPED);
        assert_int_equal(a.outcomes[0].verdict, HOST_DONE);
        assert_int_equal(a.snapshot->n_mdevs, 1);
        assert_true(ap_matrix_equal(&a.snapshot->mdevs[0].matrix, &m));
        assert_int_equal(lock_holder(b), 0);
        plan_clear(&p);

        /* before its turn */
        assert_int_equal(plan_stop(a.snapshot, uuid_of(1), &p), 0);
        answer_clear(&a);
        assert_int_equal(b->host->ops->prepare(b->host, &p, 1, on_executed, &a), 0);
        b->host->ops->go_on(b->host);
        bench_wait(b, &a);
        assert_int_equal(a.outcomes[0].verdict, HOST_DONE);
        free(after);
        after = bench_state(b);
        assert_string_equal(after, before);
        plan_clear(&p);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* A child that does not come back while it waits with what is prepared is given up like any other. */
void test_prepared_stopped(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };
        unsigned long writes = bench_counter(b, "writes");
        Snapshot *s;
        Answer a = {};
        pid_t pid;
        Plan p;

        if (!use_child)
                skip();
        b->config.scan_timeout_us = 500000;
        bench_host(b);
        s = bench_snapshot(b);
        assert_int_equal(plan_start(s, uuid_of(1), &m, false, &p), 0);
        assert_int_equal(b->host->ops->prepare(b->host, &p, 1, on_executed, &a), 0);
        while (lock_holder(b) == 0)
                (void) sd_event_run(b->event, 1000);
        pid = lock_holder(b);
        (void) usleep(30000); /* it has looked at the host */
        assert_int_equal(kill(pid, SIGSTOP), 0);
        b->host->ops->go_on(b->host);
        bench_wait(b, &a);
        assert_int_equal(a.r, -ETIME);
        assert_int_equal(kill(pid, SIGCONT), 0);
        while (lock_holder(b) == pid)
                (void) sd_event_run(b->event, 1000);
        assert_int_equal(bench_counter(b, "writes"), writes);
        plan_clear(&p);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* The time for the word begins when the lock is had, however long somebody else has kept it. */
void test_prepared_late(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };
        Snapshot *s = bench_snapshot(b);
        Answer a = {};
        pid_t holder;
        Plan p;

        b->config.lock_timeout_us = 5000000;
        bench_host(b);
        assert_int_equal(plan_start(s, uuid_of(1), &m, false, &p), 0);
        holder = somebody();
        for (unsigned tries = 0; tries == 0 || a.outcomes[0].verdict == HOST_SKIPPED; tries++) {
                uint64_t until = clock_now_us() + 2 * HOST_HOLD_US;
                char text[32];

                assert_true(tries < 20); /* on a machine that is that slow, the word is late */
                (void) snprintf(text, sizeof text, "%d\n", (int) holder);
                lock_put(b, text, 0);
                answer_clear(&a);
                assert_int_equal(b->host->ops->prepare(b->host, &p, 1, on_executed, &a), 0);
                while (clock_now_us() < until)
                        (void) sd_event_run(b->event, 1000);
                assert_false(a.done);
                assert_int_equal(lock_holder(b), holder);
                assert_int_equal(unlinkat(b->lock_fd, "s390apconfig.lock", 0), 0);
                while (lock_holder(b) == 0 && !a.done)
                        (void) sd_event_run(b->event, 1000);
                b->host->ops->go_on(b->host);
                bench_wait(b, &a);
        }
        assert_int_equal(a.r, 0);
        assert_int_equal(a.outcomes[0].verdict, HOST_DONE);
        assert_int_equal(kill(holder, SIGKILL), 0);
        assert_int_equal(waitpid(holder, NULL, 0), holder);
        plan_clear(&p);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* Who goes before the word comes takes nothing with him: nothing is written, and the lock is given back. */
void test_prepared_left(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };
        unsigned long writes = bench_counter(b, "writes");
        uint64_t until;
        Snapshot *s = bench_snapshot(b);
        Answer a = {};
        Plan p;

        assert_int_equal(plan_start(s, uuid_of(1), &m, false, &p), 0);
        assert_int_equal(b->host->ops->prepare(b->host, &p, 1, on_executed, &a), 0);
        while (lock_holder(b) == 0)
                (void) sd_event_run(b->event, 1000);
        b->host = host_free(b->host);
        assert_false(a.done);
        until = clock_now_us() + (use_child ? 30000000 : 0); /* it is another process */
        while (lock_holder(b) != 0 && clock_now_us() < until)
                (void) usleep(1000);
        assert_int_equal(lock_holder(b), 0);
        assert_int_equal(bench_counter(b, "writes"), writes);
        bench_host(b);
        run_done(b, &p);
        plan_clear(&p);
        (void) snapshot_free(s);
}
