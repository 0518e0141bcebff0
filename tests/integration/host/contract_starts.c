/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Many starts in one batch, which the child carries out with several threads: each one's outcome is its own. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "contract.h"
#include "host/host_page.h"

#define STARTS  24
#define HELPERS (HOST_PAGE_LANES - 1)

typedef struct Starts {
        Bench *b;
        Snapshot *s; /* before */
        Plan plans[STARTS];
        Apqn queues[STARTS];
        Answer a;
} Starts;

static bool parallel(void) {
        return use_child && strcmp(dialect, "6.1") != 0;
}

/* One queue each, of those that are bound to vfio_ap. */
static void starts_new(Starts *t, uint64_t step_timeout_us) {
        size_t n = 0;

        *t = (Starts) { .b = bench_new(use_child, "z16", dialect) };
        t->b->config.step_timeout_us = step_timeout_us;
        bench_host(t->b);
        t->s = bench_snapshot(t->b);
        for (unsigned a = 0; a < AP_IDS && n < STARTS; a++) {
                AP_MASK_FOREACH(d, &t->s->queue_vfio[a]) {
                        ApMatrix m = {};

                        ap_mask_set(&m.adapters, (uint8_t) a);
                        ap_mask_set(&m.domains, (uint8_t) d);
                        if (n == STARTS)
                                break;
                        t->queues[n] = (Apqn) { (uint8_t) a, (uint8_t) d };
                        assert_int_equal(plan_start(t->s, uuid_of((unsigned) n), &m, false, &t->plans[n]),
                                         0);
                        n++;
                }
        }
        assert_int_equal(n, STARTS);
}

static void starts_free(Starts *t) {
        for (size_t i = 0; i < STARTS; i++)
                plan_clear(&t->plans[i]);
        answer_clear(&t->a);
        (void) snapshot_free(t->s);
        bench_free(t->b);
}

static size_t starts_count(const Starts *t, HostVerdict verdict) {
        size_t n = 0;

        for (size_t i = 0; i < t->a.n; i++)
                n += t->a.outcomes[i].verdict == verdict;
        return n;
}

/* What is live is what was told to be done, and the snapshot that came along shows it. */
static void assert_told_truly(Starts *t, bool snapshot) {
        Snapshot *now = bench_snapshot(t->b);

        if (snapshot) {
                assert_non_null(t->a.snapshot);
                assert_true(same_snapshot(now, t->a.snapshot));
        }
        for (size_t i = 0; i < STARTS; i++) {
                const HostMdev *m = snapshot_find_mdev(now, t->plans[i].uuid);

                if (t->a.outcomes[i].verdict == HOST_DONE) {
                        assert_non_null(m);
                        if (strcmp(dialect, "6.1") == 0) /* it cannot always be read there */
                                continue;
                        assert_true(m->matrix_known && ap_matrix_has(&m->matrix, t->queues[i]));
                        assert_int_equal(plan_progress(&t->plans[i], now), PLAN_FINISHED);
                } else if (t->a.outcomes[i].verdict != HOST_STUCK)
                        assert_null(m);
        }
        (void) snapshot_free(now);
}

/* Twice, with all stopped between: what the threads keep open is not that of mdevs that have gone. */
void test_starts(void **state) {
        Starts t;

        starts_new(&t, 5000000);
        for (unsigned round = 0; round < 2; round++) {
                Plan stops[STARTS] = {};

                bench_execute(t.b, t.plans, STARTS, &t.a);
                assert_done(&t.a);
                assert_told_truly(&t, true);

                for (size_t i = 0; i < STARTS; i++)
                        assert_int_equal(plan_stop(t.a.snapshot, t.plans[i].uuid, &stops[i]), 0);
                bench_execute(t.b, stops, STARTS, &t.a);
                assert_done(&t.a);
                assert_int_equal(t.a.snapshot->n_mdevs, 0);
                for (size_t i = 0; i < STARTS; i++)
                        plan_clear(&stops[i]);
        }
        starts_free(&t);
}

/* Somebody has taken the queue of one in the middle; another one has its twin in the batch. */
void test_starts_refused(void **state) {
        char path[128], value[16];
        Starts t;

        starts_new(&t, 5000000);
        assert_int_equal(
                bench_write(t.b, "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create",
                            "b0b0b0b0-0000-4000-8000-000000000001"),
                0);
        for (unsigned i = 0; i < 2; i++) {
                (void) snprintf(path, sizeof path,
                                "devices/vfio_ap/matrix/b0b0b0b0-0000-4000-8000-000000000001/%s",
                                i == 0 ? "assign_adapter" : "assign_domain");
                (void) snprintf(value, sizeof value, "%u",
                                i == 0 ? t.queues[9].adapter : t.queues[9].domain);
                assert_int_equal(bench_write(t.b, path, value), 0);
        }
        plan_clear(&t.plans[20]);
        assert_int_equal(plan_copy(&t.plans[3], &t.plans[20]), 0);
        t.plans[20].uuid = uuid_of(1000);
        t.queues[20] = t.queues[3];

        bench_execute(t.b, t.plans, STARTS, &t.a);
        assert_int_equal(t.a.r, 0);
        assert_int_equal(starts_count(&t, HOST_DONE), STARTS - 2);
        for (size_t i = 9; i <= 20; i += 11) {
                const HostOutcome *o = &t.a.outcomes[i];

                if (strcmp(dialect, "6.1") == 0 && o->verdict == HOST_KERNEL) { /* it was not seen before */
                        assert_int_equal(o->error, -EADDRINUSE);
                        continue;
                }
                assert_int_equal(o->verdict, HOST_REFUSED);
                assert_int_equal(o->plan, PLAN_OVERLAP);
                assert_int_equal(o->apqn.adapter, t.queues[i].adapter);
                assert_int_equal(o->apqn.domain, t.queues[i].domain);
        }
        assert_told_truly(&t, true);
        starts_free(&t);
}

/* The kernel refuses one write: the plan that made it is undone, and no other. */
void test_starts_faults(void **state) {
        static const struct {
                const char *attribute, *old;
                unsigned skip;
        } cases[] = {
                { "create", "create", 0 },           { "create", "create", 11 },
                { "create", "create", STARTS - 1 },  { "ap_config", "assign_domain", 0 },
                { "ap_config", "assign_domain", 7 },
        };

        for (size_t k = 0; k < ELEMENTS(cases); k++) {
                bool first = true;
                Starts t;

                starts_new(&t, 5000000);
                bench_ctl(t.b, "fault write %s EIO 1 skip=%u",
                          strcmp(dialect, "6.1") == 0 ? cases[k].old : cases[k].attribute, cases[k].skip);
                bench_execute(t.b, t.plans, STARTS, &t.a);
                assert_int_equal(t.a.r, 0);
                assert_int_equal(starts_count(&t, HOST_DONE), STARTS - 1);
                for (size_t i = 0; i < STARTS; i++) {
                        const HostOutcome *o = &t.a.outcomes[i];

                        if (o->verdict == HOST_DONE)
                                continue;
                        assert_true(first);
                        first = false;
                        assert_int_equal(o->verdict, HOST_KERNEL);
                        assert_int_equal(o->error, -EIO);
                        assert_int_equal(o->step, strcmp(cases[k].attribute, "create") != 0);
                }
                assert_told_truly(&t, true);
                starts_free(&t);
        }
}

/* One write hangs: that plan is stuck and named. The other threads go on meanwhile; where there are none, what comes after is skipped.
 * All create by the same file: before Linux 6.2, FUSE carries out one write after the other to it, so that they hang, too. */
void test_starts_hang(void **state) {
        static const char *const attributes[] = { "create", "ap_config" };

        for (size_t k = 0; k < ELEMENTS(attributes); k++) {
                const char *what = NULL;
                size_t n_done, n_skipped, n_stuck;
                Starts t;

                if (strcmp(dialect, "6.1") == 0 && k == 1)
                        break;
                starts_new(&t, use_child ? 3000000 : 50000);
                bench_ctl(t.b, "fault write %s hang 1 skip=6", attributes[k]);
                bench_execute(t.b, t.plans, STARTS, &t.a);
                assert_int_equal(t.a.r, 0);
                n_done = starts_count(&t, HOST_DONE);
                n_skipped = starts_count(&t, HOST_SKIPPED);
                n_stuck = starts_count(&t, HOST_STUCK);
                assert_int_equal(n_done + n_skipped + n_stuck, STARTS);
                if (parallel() && k == 0 && n_stuck > 1) {
                        assert_true(n_stuck <= HELPERS + 1);
                        assert_true(n_done >= 6 - HELPERS && n_done <= 6);
                } else if (parallel()) {
                        assert_int_equal(n_stuck, 1);
                        assert_int_equal(n_skipped, 0);
                } else {
                        assert_int_equal(n_stuck, 1);
                        assert_int_equal(n_done, 6);
                }
                assert_null(t.a.snapshot);
                if (use_child) {
                        assert_int_equal(t.b->host->ops->stuck(t.b->host, &what), 1);
                        assert_non_null(strstr(what, attributes[k]));
                }
                assert_told_truly(&t, false);

                bench_ctl(t.b, "release");
                while (use_child && t.b->host->ops->stuck(t.b->host, NULL) > 0)
                        assert_true(sd_event_run(t.b->event, 10 * 1000000) > 0);
                assert_told_truly(&t, false);
                starts_free(&t);
        }
}

/* More than threads hang: nothing is left to go on, and the rest is skipped. */
void test_starts_hang_all(void **state) {
        Starts t;

        if (!parallel())
                skip();
        starts_new(&t, 4000000);
        bench_ctl(t.b, "fault write ap_config hang %d skip=2", HELPERS + 1);
        bench_execute(t.b, t.plans, STARTS, &t.a);
        assert_int_equal(t.a.r, 0);
        assert_int_equal(starts_count(&t, HOST_STUCK), HELPERS + 1);
        assert_int_equal(starts_count(&t, HOST_DONE), 2);
        assert_int_equal(starts_count(&t, HOST_SKIPPED), STARTS - HELPERS - 3);
        assert_told_truly(&t, false);
        bench_ctl(t.b, "release");
        while (t.b->host->ops->stuck(t.b->host, NULL) > 0)
                assert_true(sd_event_run(t.b->event, 10 * 1000000) > 0);
        starts_free(&t);
}
