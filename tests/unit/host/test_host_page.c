/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "host/host_page.h"
#include "tests/lib/core/test.h"

static HostNote step_note(size_t plan, size_t step) {
        HostNote n = { .phase = HOST_PHASE_STEP, .plan = plan, .step = step, .allowance_us = 7 };

        (void) snprintf(n.what, sizeof n.what, "write %zu of %zu", step, plan);
        return n;
}

static void make_pair(HostPage **ret_daemon, HostPage **ret_child) {
        int fd = -1;

        assert_int_equal(host_page_new(ret_daemon, &fd), 0);
        assert_int_equal(host_page_map(fd, ret_child), 0);
        assert_true(ftruncate(fd, 1) < 0); /* or the other side would die of SIGBUS */
        (void) fd_close(fd);
        host_page_reset(*ret_daemon, HOST_PAGE_PLANS_MAX);
}

/* What one side writes the other one reads, and each plan's outcome tells the truth at any moment. */
static void test_outcomes(void **state) {
        const HostOutcome refused = { .verdict = HOST_KERNEL,
                                      .has_apqn = true,
                                      .apqn = { 5, 0x47 },
                                      .error = -EADDRINUSE,
                                      .step = 3,
                                      .holder = 77 };
        CLEANUP(host_page_freep) HostPage *daemon = NULL;
        CLEANUP(host_page_freep) HostPage *child = NULL;
        HostNote note = step_note(1, 4), seen;
        HostOutcome o;
        uint64_t turn;

        make_pair(&daemon, &child);
        assert_int_equal(host_page_outcome(daemon, 1, &o), 0);
        assert_int_equal(o.verdict, HOST_SKIPPED);

        assert_int_equal(host_page_begin(child, 0, &note), 0);
        assert_int_equal(host_page_look(daemon, 0, &seen, &turn), 0);
        assert_int_equal(seen.phase, HOST_PHASE_STEP);
        assert_int_equal(seen.plan, 1);
        assert_int_equal(seen.allowance_us, 7);
        assert_true(seen.since_us > 0);
        assert_string_equal(seen.what, "write 4 of 1");
        assert_int_equal(host_page_outcome(daemon, 1, &o), 0);
        assert_int_equal(o.verdict, HOST_STUCK);
        assert_int_equal(o.step, 4);
        assert_int_equal(host_page_outcome(daemon, 0, &o), 0);
        assert_int_equal(o.verdict, HOST_SKIPPED);

        host_page_ended(child, 1, &refused);
        assert_int_equal(host_page_outcome(daemon, 1, &o), 0);
        assert_int_equal(o.verdict, HOST_KERNEL);
        assert_int_equal(o.error, -EADDRINUSE);
        assert_int_equal(o.step, 3);
        assert_int_equal(o.holder, 77);
        assert_true(o.has_apqn && o.apqn.adapter == 5 && o.apqn.domain == 0x47);

        host_page_reset(daemon, 2);
        assert_int_equal(host_page_outcome(daemon, 1, &o), 0);
        assert_int_equal(o.verdict, HOST_SKIPPED);
        assert_int_equal(o.error, 0);
}

static void test_nonsense(void **state) {
        const HostOutcome bad[] = {
                { .verdict = _HOST_VERDICT_MAX },
                { .plan = _PLAN_VERDICT_MAX },
                { .error = 1 },
                { .error = -4096 },
                { .holder = -1 },
        };
        HostNote note = { .phase = _HOST_PHASE_MAX };
        CLEANUP(host_page_freep) HostPage *daemon = NULL;
        CLEANUP(host_page_freep) HostPage *child = NULL;
        HostOutcome o = { .step = 9 };
        uint64_t turn;

        make_pair(&daemon, &child);
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                host_page_ended(child, i, &bad[i]);
                assert_int_equal(host_page_outcome(daemon, i, &o), -EBADMSG);
                assert_int_equal(o.step, 9);
        }
        assert_int_equal(host_page_outcome(daemon, HOST_PAGE_PLANS_MAX, &o), -EBADMSG);
        assert_int_equal(host_page_begin(child, 0, &note), 0);
        assert_int_equal(host_page_look(daemon, 0, &note, &turn), -EBADMSG);
}

/* Either the child's next access comes first or the stop. */
static void test_stop(void **state) {
        CLEANUP(host_page_freep) HostPage *daemon = NULL;
        CLEANUP(host_page_freep) HostPage *child = NULL;
        HostNote first = step_note(0, 0), second = step_note(0, 1), third = step_note(1, 0), seen;
        uint64_t turn;

        make_pair(&daemon, &child);
        assert_int_equal(host_page_begin(child, 0, &first), 0);
        assert_int_equal(host_page_look(daemon, 0, &seen, &turn), 0);
        assert_int_equal(host_page_begin(child, 0, &second), 0);
        assert_false(host_page_stop(daemon, 0, turn)); /* it went on */

        assert_int_equal(host_page_look(daemon, 0, &seen, &turn), 0);
        assert_int_equal(seen.step, 1);
        assert_true(host_page_stop(daemon, 0, turn));
        assert_int_equal(host_page_begin(child, 0, &third), -ECANCELED);
        assert_int_equal(host_page_begin(child, 0, &third), -ECANCELED);
        assert_false(host_page_stop(daemon, 0, turn));
}

typedef struct Racer {
        HostPage *page;
        _Atomic(size_t) begun;
} Racer;

static void *race(void *arg) {
        Racer *racer = arg;

        for (size_t i = 0;; i++) {
                HostNote n = step_note(i % HOST_PAGE_PLANS_MAX, i);

                if (host_page_begin(racer->page, 0, &n) < 0)
                        return NULL;
                racer->begun = i;
        }
}

/* While the child runs: a look never mixes two notes, and of what was stopped nothing begins. */
static void test_race(void **state) {
        for (unsigned i = 0; i < 50; i++) {
                CLEANUP(host_page_freep) HostPage *daemon = NULL;
                CLEANUP(host_page_freep) HostPage *child = NULL;
                HostNote start = step_note(0, 0), seen;
                char what[HOST_PAGE_WHAT_SIZE];
                uint64_t turn;
                Racer racer;
                pthread_t thread;
                int r;

                make_pair(&daemon, &child);
                racer = (Racer) { .page = child };
                assert_int_equal(host_page_begin(child, 0, &start), 0);
                assert_int_equal(pthread_create(&thread, NULL, race, &racer), 0);
                do {
                        r = host_page_look(daemon, 0, &seen, &turn);
                        assert_true(r == 0 || r == -EAGAIN);
                        if (r < 0)
                                continue;
                        (void) snprintf(what, sizeof what, "write %zu of %zu", seen.step, seen.plan);
                        assert_string_equal(seen.what, what);
                } while (r < 0 || seen.step < 10 * i || !host_page_stop(daemon, 0, turn));
                assert_int_equal(pthread_join(thread, NULL), 0);
                assert_true(racer.begun <= seen.step);
        }
}

/* Each lane has its own access; whichever is stopped, nothing begins in any. */
static void test_lanes(void **state) {
        for (unsigned late = 0; late < HOST_PAGE_LANES; late++) {
                CLEANUP(host_page_freep) HostPage *daemon = NULL;
                CLEANUP(host_page_freep) HostPage *child = NULL;
                const HostOutcome done = { .verdict = HOST_DONE };
                const HostNote rest = { .phase = HOST_PHASE_REST };
                uint64_t turns[HOST_PAGE_LANES], turn;
                HostOutcome o;
                HostNote seen;

                make_pair(&daemon, &child);
                host_page_reset(daemon, HOST_PAGE_LANES + 1);
                for (unsigned i = 0; i < HOST_PAGE_LANES; i++) {
                        const HostNote n = step_note(i, 5 + i);

                        assert_int_equal(host_page_look(daemon, i, &seen, &turn), 0);
                        assert_int_equal(seen.phase, HOST_PHASE_REST);
                        assert_int_equal(host_page_begin(child, i, &n), 0);
                }
                for (unsigned i = 0; i < HOST_PAGE_LANES; i++) {
                        assert_int_equal(host_page_look(daemon, i, &seen, &turns[i]), 0);
                        assert_int_equal(seen.plan, i);
                        assert_int_equal(seen.step, 5 + i);
                }

                /* another one ends and rests, which does not save the late one */
                host_page_ended(child, (late + 1) % HOST_PAGE_LANES, &done);
                assert_int_equal(host_page_begin(child, (late + 1) % HOST_PAGE_LANES, &rest), 0);
                assert_true(host_page_stop(daemon, late, turns[late]));
                for (unsigned i = 0; i < HOST_PAGE_LANES; i++) {
                        const HostNote n = step_note(HOST_PAGE_LANES, 0);

                        assert_int_equal(host_page_begin(child, i, &n), -ECANCELED);
                        assert_int_equal(host_page_outcome(daemon, i, &o), 0);
                        assert_int_equal(o.verdict,
                                         i == (late + 1) % HOST_PAGE_LANES ? HOST_DONE : HOST_STUCK);
                }
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_outcomes), cmocka_unit_test(test_nonsense),
                cmocka_unit_test(test_stop),     cmocka_unit_test(test_race),
                cmocka_unit_test(test_lanes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
