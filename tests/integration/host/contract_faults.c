/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "contract.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static const int errnos[] = { EADDRINUSE, EADDRNOTAVAIL, EBUSY, EIO, ENOSPC, EINTR };

/* The plans whose every write is made to fail. */
typedef void (*make_t)(Bench *b, const Snapshot *s, Plan *ret);

static void make_start(Bench *b, const Snapshot *s, Plan *ret) {
        const ApMatrix m = { IDS(2, 3), IDS(6, 0x10), IDS(6, 0x10) };

        assert_int_equal(plan_start(s, uuid_of(1), &m, false, ret), 0);
}

static void make_start_from_host(Bench *b, const Snapshot *s, Plan *ret) {
        const ApMatrix m = { IDS(1, 2), IDS(6, 0x1b), {} };

        assert_int_equal(plan_start(s, uuid_of(1), &m, true, ret), 0);
        assert_int_equal(ret->steps[0].type, PLAN_MASKS);
}

static void make_modify(Bench *b, const Snapshot *s, Plan *ret) {
        const ApMatrix m = { IDS(3, 5), IDS(6, 0x47), IDS(0x1b) };

        assert_int_equal(plan_modify(s, uuid_of(100), &m, false, ret), 0);
}

static void make_stop(Bench *b, const Snapshot *s, Plan *ret) {
        assert_int_equal(plan_stop(s, uuid_of(100), ret), 0);
}

static void make_masks(Bench *b, const Snapshot *s, Plan *ret) {
        ApMask ap = s->apmask, aq = s->aqmask;

        ap_mask_clear(&ap, 1);
        ap_mask_set(&ap, 2);
        ap_mask_clear(&aq, 0x1b);
        ap_mask_clear(&aq, 0x20);
        assert_int_equal(plan_masks(s, &ap, &aq, ret), 0);
}

static void make_override(Bench *b, const Snapshot *s, Plan *ret) {
        const ApMatrix m = { IDS(2), IDS(6, 0x10), {} };

        assert_int_equal(plan_start(s, uuid_of(1), &m, true, ret), 0);
        assert_int_equal(ret->steps[0].type, PLAN_OVERRIDE);
}

static void make_override_back(Bench *b, const Snapshot *s, Plan *ret) {
        const PlanStep step = { .type = PLAN_OVERRIDE, .override = { { 4, 0x1b }, true, false } };

        *ret = (Plan) {};
        assert_int_equal(plan_append(ret, &step), 0);
}

void make_mtty(Bench *b, const Snapshot *s, Plan *ret) {
        PlanStep step = { .type = PLAN_CREATE };

        *ret = (Plan) { .uuid = uuid_of(1) };
        (void) strcpy(step.create.parent, s->parents[1].name);
        (void) strcpy(step.create.type, s->types[1].id);
        assert_int_equal(plan_append(ret, &step), 0);
}

/* Without masks, as on hosts that use driver overrides; 04.001b is given to vfio_ap by one. */
static void to_overrides(Bench *b) {
        bench_ctl(b, "clear");
        assert_int_equal(bench_write(b, "bus/ap/apmask", "+0-255"), 0);
        assert_int_equal(bench_write(b, "bus/ap/devices/04.001b/driver_override", "vfio_ap"), 0);
        assert_int_equal(bench_write(b, "bus/ap/drivers/cex4queue/unbind", "04.001b"), 0);
        assert_int_equal(bench_write(b, "bus/ap/drivers_probe", "04.001b"), 0);
}

/* Tries @make's plan with write number 1, 2, ... failing, until no write is left to fail. */
static void fail_each_write(Bench *b, make_t make, int error, unsigned *ret_writes) {
        for (unsigned i = 0;; i++) {
                Snapshot *s = bench_snapshot(b);
                char *before = bench_state(b), *after;
                Answer a = {};
                Plan p;

                make(b, s, &p);
                bench_ctl(b, "fault write * %d 1 skip=%u", error, i);
                bench_execute(b, &p, 1, &a);
                bench_ctl(b, "clear");
                assert_int_equal(a.r, 0);
                after = bench_state(b);

                if (a.outcomes[0].verdict == HOST_DONE) {
                        assert_string_not_equal(before, after);
                        (void) snapshot_free(s);
                        s = bench_snapshot(b);
                        assert_int_equal(plan_progress(&p, s), PLAN_FINISHED);
                        assert_true(same_snapshot(s, a.snapshot));
                        *ret_writes = i;
                        i = UINT32_MAX - 1;
                } else {
                        assert_int_equal(a.outcomes[0].verdict, HOST_KERNEL);
                        assert_int_equal(a.outcomes[0].error, -error);
                        assert_true(a.outcomes[0].step < p.n_steps);
                        assert_string_equal(before, after);
                        assert_non_null(a.snapshot);
                        assert_int_equal(plan_progress(&p, a.snapshot), PLAN_NOT_BEGUN);
                }
                plan_clear(&p);
                answer_clear(&a);
                (void) snapshot_free(s);
                free(before);
                free(after);
                if (i == UINT32_MAX - 1)
                        return;
        }
}

typedef struct FaultCase {
        const char *name;
        make_t make;
        bool started; /* mdev 100 is there */
        bool override;
        unsigned writes[2]; /* with ap_config, without */
} FaultCase;

static const FaultCase fault_cases[] = {
        { "start", make_start, false, false, { 2, 7 } },
        { "start from host", make_start_from_host, false, false, { 3, 6 } },
        { "modify", make_modify, true, false, { 1, 6 } },
        { "stop", make_stop, true, false, { 1, 1 } },
        { "masks", make_masks, false, false, { 3, 3 } },
        { "mtty", make_mtty, false, false, { 1, 1 } },
        { "override", make_override, false, true, { 8, 0 } },
        { "override back", make_override_back, false, true, { 4, 0 } },
};

static Bench *fault_bench(const FaultCase *c, uint64_t step_timeout_us) {
        const ApMatrix m = { IDS(2, 3), IDS(6, 0x10), IDS(6) };
        Bench *b = bench_new(use_child, "small", dialect);

        b->config.step_timeout_us = step_timeout_us;
        bench_host(b);
        if (c->override)
                to_overrides(b);
        if (c->started)
                start(b, 100, &m, false);
        return b;
}

void test_faults(void **state) {
        for (size_t i = 0; i < ELEMENTS(fault_cases); i++) {
                const FaultCase *c = &fault_cases[i];

                if (c->override && strcmp(dialect, "7.2") != 0)
                        continue;
                for (size_t j = 0; j < ELEMENTS(errnos); j++) {
                        Bench *b = fault_bench(c, 5000000);
                        unsigned writes;

                        print_message("%s, %s\n", c->name, strerrorname_np(errnos[j]));
                        fail_each_write(b, c->make, errnos[j], &writes);
                        assert_int_equal(writes, c->writes[strcmp(dialect, "6.1") == 0]);
                        assert_int_equal(bench_counter(b, "overruns"), 0);
                        bench_free(b);
                }
        }
}

/* From write number i on everything fails: what cannot be undone is said to be broken, never undone. */
void test_broken(void **state) {
        for (size_t i = 0; i < ELEMENTS(fault_cases); i++) {
                const FaultCase *c = &fault_cases[i];

                if (c->override && strcmp(dialect, "7.2") != 0)
                        continue;
                for (unsigned skip = 0; skip < c->writes[strcmp(dialect, "6.1") == 0]; skip++) {
                        Bench *b = fault_bench(c, 5000000);
                        Snapshot *s = bench_snapshot(b);
                        char *before = bench_state(b), *after;
                        Answer a = {};
                        Plan p;

                        c->make(b, s, &p);
                        bench_ctl(b, "fault write * EIO 1000 skip=%u", skip);
                        bench_execute(b, &p, 1, &a);
                        bench_ctl(b, "clear");
                        after = bench_state(b);
                        assert_int_equal(a.r, 0);
                        if (strcmp(before, after) == 0)
                                assert_int_equal(a.outcomes[0].verdict, HOST_KERNEL);
                        else
                                assert_int_equal(a.outcomes[0].verdict, HOST_BROKEN);
                        assert_int_equal(a.outcomes[0].error, -EIO);
                        if (skip == 0)
                                assert_int_equal(a.outcomes[0].verdict, HOST_KERNEL);

                        plan_clear(&p);
                        answer_clear(&a);
                        (void) snapshot_free(s);
                        free(before);
                        free(after);
                        bench_free(b);
                }
        }
}

pid_t lock_holder(Bench *b) {
        char text[32] = "";
        int fd = openat(b->lock_fd, "s390apconfig.lock", O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return 0;
        (void) !read(fd, text, sizeof text - 1);
        (void) close(fd);
        return (pid_t) atoi(text);
}

/* Each write in turn does not return. */
void test_hangs(void **state) {
        for (size_t i = 0; i < ELEMENTS(fault_cases); i++) {
                const FaultCase *c = &fault_cases[i];
                unsigned n = c->writes[strcmp(dialect, "6.1") == 0];

                if (c->override && strcmp(dialect, "7.2") != 0)
                        continue;
                for (unsigned skip = 0; skip < n; skip = skip == 0 && n > 2 ? n - 1 : skip + 1) {
                        const ApMatrix other = { IDS(4), IDS(0x47), {} };
                        Bench *b = fault_bench(c, use_child ? 1500000 : 50000);
                        Snapshot *s = bench_snapshot(b);
                        const char *what = NULL;
                        Answer a = {};
                        Plan p[2];

                        c->make(b, s, &p[0]);
                        p[1] = (Plan) {};
                        if (!c->override)
                                assert_int_equal(plan_start(s, uuid_of(7), &other, false, &p[1]), 0);
                        bench_ctl(b, "fault write * hang 1 skip=%u", skip);
                        bench_execute(b, p, 2, &a);
                        assert_int_equal(a.r, 0);
                        assert_int_equal(a.outcomes[0].verdict, HOST_STUCK);
                        assert_int_equal(a.outcomes[1].verdict, HOST_SKIPPED);
                        assert_null(a.snapshot);
                        if (b->host->ops->stuck(b->host, &what) > 0) {
                                assert_non_null(strstr(what, "write of "));
                                assert_non_null(strstr(what, " s"));
                        }
                        answer_clear(&a);

                        /* the host can be looked at meanwhile, and the lock is not left behind */
                        assert_int_equal(lock_holder(b), 0);
                        bench_ctl(b, "clear");
                        (void) snapshot_free(bench_snapshot(b));

                        bench_ctl(b, "release");
                        while (use_child && b->host->ops->stuck(b->host, NULL) > 0)
                                assert_true(sd_event_run(b->event, 10 * 1000000) > 0);
                        (void) snapshot_free(s);
                        s = bench_snapshot(b);
                        assert_null(snapshot_find_mdev(s, uuid_of(7)));
                        if (!c->override) {
                                plan_clear(&p[1]);
                                assert_int_equal(plan_start(s, uuid_of(7), &other, false, &p[1]), 0);
                                run_done(b, &p[1]);
                        }
                        plan_clear(&p[0]);
                        plan_clear(&p[1]);
                        (void) snapshot_free(s);
                        bench_free(b);
                }
        }
}
