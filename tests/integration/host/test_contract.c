/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What every implementation of Host must do, on every kernel: "test_contract direct|child [DIALECT]". */

#include "contract.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

bool use_child;
const char *dialect;

Uuid uuid_of(unsigned n) {
        Uuid u = { { [0] = 0xc0, [1] = 0xde } };

        u.b[14] = (uint8_t) (n >> 8);
        u.b[15] = (uint8_t) n;
        return u;
}

ApMask mask_of(const int *ids) {
        ApMask m = {};

        for (; *ids >= 0; ids++)
                ap_mask_set(&m, (uint8_t) *ids);
        return m;
}

int setup(void **state) {
        *state = bench_new(use_child, "small", dialect);
        return 0;
}

int teardown(void **state) {
        Bench *b = *state;

        assert_int_equal(bench_counter(b, "overruns"),
                         0); /* no test may make an old kernel write past its page */
        bench_free(b);
        return 0;
}

void assert_done(const Answer *a) {
        assert_int_equal(a->r, 0);
        for (size_t i = 0; i < a->n; i++)
                assert_int_equal(a->outcomes[i].verdict, HOST_DONE);
        assert_non_null(a->snapshot);
}

void run_done(Bench *b, const Plan *p) {
        Answer a = {};

        bench_execute(b, p, 1, &a);
        assert_done(&a);
        answer_clear(&a);
}

void start(Bench *b, unsigned n, const ApMatrix *m, bool from_host) {
        Snapshot *s = bench_snapshot(b);
        Plan p = {};

        assert_int_equal(plan_start(s, uuid_of(n), m, from_host, &p), 0);
        run_done(b, &p);
        plan_clear(&p);
        (void) snapshot_free(s);
}

bool same_snapshot(const Snapshot *a, const Snapshot *b) {
        if (!ap_mask_equal(&a->apmask, &b->apmask) || !ap_mask_equal(&a->aqmask, &b->aqmask) ||
            a->n_mdevs != b->n_mdevs || a->n_types != b->n_types ||
            memcmp(a->queue_vfio, b->queue_vfio, sizeof a->queue_vfio) != 0 ||
            memcmp(a->queue_override, b->queue_override, sizeof a->queue_override) != 0 ||
            memcmp(a->queue_alien, b->queue_alien, sizeof a->queue_alien) != 0 ||
            a->default_domain != b->default_domain)
                return false;
        for (size_t i = 0; i < a->n_types; i++)
                if (a->types[i].available != b->types[i].available)
                        return false;
        for (size_t i = 0; i < a->n_mdevs; i++)
                if (!uuid_equal(a->mdevs[i].uuid, b->mdevs[i].uuid) ||
                    a->mdevs[i].type != b->mdevs[i].type ||
                    a->mdevs[i].matrix_known != b->mdevs[i].matrix_known ||
                    !ap_matrix_equal(&a->mdevs[i].matrix, &b->mdevs[i].matrix))
                        return false;
        return true;
}
static void test_scan(void **state) {
        Bench *b = *state;
        Answer a = {};
        const Snapshot *s;

        bench_scan(b, HOST_SCAN_DETAIL, &a);
        assert_int_equal(a.r, 0);
        s = a.snapshot;
        assert_true(s->ap && s->vfio_ap && s->bindings_complete && !s->detail_stuck);
        assert_int_equal(s->has_ap_config, strcmp(dialect, "6.1") != 0);
        assert_int_equal(s->has_override, strcmp(dialect, "7.2") == 0);
        assert_int_equal(s->max_adapter, 63);
        assert_int_equal(s->max_domain, 84);
        assert_int_equal(s->n_cards, 6);
        assert_int_equal(s->cards[4].mode, CARD_MODE_EP11);
        assert_string_equal(s->cards[4].type, "CEX8P");
        assert_true(s->cards[4].online && s->cards[4].config && !s->cards[4].chkstop);
        assert_int_equal(ap_mask_count(&s->queue_present[3]), 4);
        assert_int_equal(ap_mask_count(&s->queue_vfio[3]), 4);
        assert_int_equal(ap_mask_count(&s->queue_vfio[1]), 0);
        assert_int_equal(ap_mask_count(&s->host_control), 5);
        assert_int_equal(s->n_parents, 2);
        assert_string_equal(s->parents[0].name, "matrix");
        assert_string_equal(s->parents[0].path, "devices/vfio_ap/matrix");
        assert_string_equal(s->types[0].device_api, "vfio-ap");
        assert_int_equal(s->types[0].available, 65536);
        assert_int_equal(s->n_mdevs, 0);
        answer_clear(&a);
}

/* Whoever has set it and whatever its queue is bound to: a first scan and one in detail see each override. */
static void test_overrides(void **state) {
        Bench *b = *state;
        Snapshot *s;
        Answer a = {};

        if (strcmp(dialect, "7.2") != 0)
                return;

        assert_int_equal(bench_write(b, "bus/ap/apmask", "+0-255"), 0);
        s = bench_snapshot(b);
        assert_int_equal(s->default_domain, 6);
        assert_false(snapshot_find_override(s, &(Apqn) {}));
        (void) snapshot_free(s);

        assert_int_equal(bench_write(b, "bus/ap/devices/02.0010/driver_override", "vfio_ap"), 0);
        assert_int_equal(bench_write(b, "bus/ap/devices/03.0010/driver_override", "cex4queue"), 0);
        assert_int_equal(bench_write(b, "bus/ap/devices/04.0010/driver_override", "vfio_ap"), 0);
        assert_int_equal(bench_write(b, "bus/ap/drivers/cex4queue/unbind", "04.0010"), 0);
        for (unsigned first = 0; first < 2; first++) {
                if (first)
                        bench_host(b); /* which has seen nothing yet */
                bench_scan(b, first ? HOST_SCAN_BASIC : HOST_SCAN_DETAIL, &a);
                assert_int_equal(a.r, 0);
                for (unsigned i = 2; i < 5; i++) {
                        assert_int_equal(ap_mask_test(&a.snapshot->queue_override[i], 0x10), i != 3);
                        assert_int_equal(ap_mask_test(&a.snapshot->queue_alien[i], 0x10), i == 3);
                        assert_false(ap_mask_test(&a.snapshot->queue_vfio[i], 0x10));
                }
                answer_clear(&a);
        }

        assert_int_equal(bench_write(b, "bus/ap/devices/02.0010/driver_override", "\n"), 0);
        bench_scan(b, HOST_SCAN_DETAIL, &a);
        assert_int_equal(a.r, 0);
        assert_false(ap_mask_test(&a.snapshot->queue_override[2], 0x10));
        assert_true(ap_mask_test(&a.snapshot->queue_alien[3], 0x10));
        answer_clear(&a);
}

static void test_life(void **state) {
        Bench *b = *state;
        const ApMatrix first = { IDS(2, 3), IDS(6, 0x10), IDS(6) },
                       second = { IDS(3, 4), IDS(6, 0x47), IDS(6, 0x11) };
        char *before = bench_state(b), *after;
        Snapshot *s;
        Answer a = {};
        Plan p;

        start(b, 1, &first, false);
        s = bench_snapshot(b);
        assert_true(snapshot_find_mdev(s, uuid_of(1))->matrix_known);
        assert_true(ap_matrix_equal(&snapshot_find_mdev(s, uuid_of(1))->matrix, &first));

        assert_int_equal(plan_modify(s, uuid_of(1), &second, false, &p), 0);
        bench_execute(b, &p, 1, &a);
        assert_done(&a);
        plan_clear(&p);
        (void) snapshot_free(s);
        s = bench_snapshot(b);
        assert_true(same_snapshot(s, a.snapshot));
        assert_true(ap_matrix_equal(&snapshot_find_mdev(s, uuid_of(1))->matrix, &second));

        assert_int_equal(plan_stop(s, uuid_of(1), &p), 0);
        run_done(b, &p);
        plan_clear(&p);
        after = bench_state(b);
        assert_string_equal(before, after);

        free(before);
        free(after);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* Plans in one batch see each other; a refused one stops no other. */
static void test_batch(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} }, n = { IDS(2, 3), IDS(6), {} }, o = { IDS(4), IDS(6), {} },
                       host = { IDS(0), IDS(6), {} };
        Snapshot *s = bench_snapshot(b), *now;
        Plan p[4];
        Answer a = {};

        assert_int_equal(plan_start(s, uuid_of(1), &m, false, &p[0]), 0);
        assert_int_equal(plan_start(s, uuid_of(2), &n, false, &p[1]), 0);
        assert_int_equal(plan_start(s, uuid_of(3), &o, false, &p[2]), 0);
        assert_int_equal(plan_start(s, uuid_of(4), &host, false, &p[3]), 0);
        bench_execute(b, p, 4, &a);
        assert_int_equal(a.r, 0);
        assert_int_equal(a.outcomes[0].verdict, HOST_DONE);
        assert_int_equal(a.outcomes[1].verdict, HOST_REFUSED);
        assert_int_equal(a.outcomes[1].plan, PLAN_OVERLAP);
        assert_true(a.outcomes[1].has_apqn);
        assert_int_equal(a.outcomes[1].apqn.adapter, 2);
        assert_int_equal(a.outcomes[1].apqn.domain, 6);
        assert_int_equal(a.outcomes[2].verdict, HOST_DONE);
        assert_int_equal(a.outcomes[3].verdict, HOST_REFUSED);
        assert_int_equal(a.outcomes[3].plan, PLAN_HOST_OWNED);

        now = bench_snapshot(b);
        assert_int_equal(now->n_mdevs, 2);
        assert_true(same_snapshot(now, a.snapshot));
        for (size_t i = 0; i < 4; i++)
                plan_clear(&p[i]);
        answer_clear(&a);
        (void) snapshot_free(now);
        (void) snapshot_free(s);
}
static void test_in_use(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };
        char uuid[UUID_STRING_SIZE], *before, *after;
        Snapshot *s;
        Answer a = {};
        Plan p;

        start(b, 1, &m, false);
        s = bench_snapshot(b);
        assert_int_equal(plan_stop(s, uuid_of(1), &p), 0);
        bench_ctl(b, "guest %s on", uuid_format(uuid_of(1), uuid));
        before = bench_state(b);
        bench_execute(b, &p, 1, &a);
        assert_int_equal(a.r, 0);
        assert_int_equal(a.outcomes[0].verdict, HOST_REFUSED);
        assert_int_equal(a.outcomes[0].plan, PLAN_IN_USE);
        assert_int_equal(b->host->ops->stuck(b->host, NULL), 0);
        after = bench_state(b);
        assert_string_equal(before, after);

        bench_scan(b, HOST_SCAN_DETAIL, &a);
        assert_int_equal(a.snapshot->mdevs[0].use, MDEV_USE_GUEST);
        assert_true(a.snapshot->mdevs[0].guest_known);
        assert_true(ap_mask_equal(&a.snapshot->mdevs[0].guest_adapters, &m.adapters));

        bench_ctl(b, "guest %s off", uuid);
        bench_scan(b, HOST_SCAN_DETAIL, &a);
        assert_int_equal(a.snapshot->mdevs[0].use, MDEV_USE_FREE);
        run_done(b, &p);
        free(before);
        free(after);
        plan_clear(&p);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* The adapter that is asked first is not with the guest, although it could be. */
static void test_in_use_by_another_adapter(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2, 3), IDS(6, 0x10), {} };
        char uuid[UUID_STRING_SIZE], path[256];
        Answer a = {};

        start(b, 1, &m, false);
        assert_true(bench_write(b, "bus/ap/drivers/vfio_ap/unbind", "02.0010") >= 0);
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/unassign_domain",
                        uuid_format(uuid_of(1), uuid));
        assert_true(bench_write(b, path, "16") >= 0);
        bench_ctl(b, "guest %s on", uuid);

        bench_scan(b, HOST_SCAN_DETAIL, &a);
        assert_int_equal(a.snapshot->mdevs[0].use, MDEV_USE_GUEST);
        bench_ctl(b, "guest %s off", uuid);
        answer_clear(&a);
}

void lock_put(Bench *b, const char *content, long age_s) {
        int fd = openat(b->lock_fd, "s390apconfig.lock", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        struct timespec now, times[2];

        assert_true(fd >= 0);
        assert_int_equal(write(fd, content, strlen(content)), strlen(content));
        (void) clock_gettime(CLOCK_REALTIME, &now);
        now.tv_sec -= age_s;
        times[0] = times[1] = now;
        assert_int_equal(futimens(fd, times), 0);
        (void) close(fd);
}

pid_t somebody(void) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        (void) pause();
        }
        return pid;
}

static void test_lock(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };
        Snapshot *s = bench_snapshot(b);
        char text[32], *before = bench_state(b), *after;
        pid_t holder, dead;
        Answer a = {};
        Plan p[2];

        assert_int_equal(plan_start(s, uuid_of(1), &m, false, &p[0]), 0);
        assert_int_equal(plan_start(s, uuid_of(2), &m, false, &p[1]), 0);

        /* a living holder that never lets go */
        holder = somebody();
        (void) snprintf(text, sizeof text, "%d\n", (int) holder);
        lock_put(b, text, 1000);
        bench_execute(b, p, 2, &a);
        assert_int_equal(a.r, 0);
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(a.outcomes[i].verdict, HOST_LOCKED);
                assert_int_equal(a.outcomes[i].holder, holder);
        }
        after = bench_state(b);
        assert_string_equal(before, after);
        assert_int_equal(faccessat(b->lock_fd, "s390apconfig.lock", F_OK, 0), 0);

        /* it dies */
        (void) kill(holder, SIGKILL);
        dead = waitpid(holder, NULL, 0);
        assert_int_equal(dead, holder);
        run_done(b, &p[0]);
        assert_int_equal(faccessat(b->lock_fd, "s390apconfig.lock", F_OK, 0), -1);
        plan_clear(&p[0]);
        (void) snapshot_free(s);
        s = bench_snapshot(b);
        assert_int_equal(plan_stop(s, uuid_of(1), &p[0]), 0);

        /* one that has not written its pid yet; and one that never will */
        lock_put(b, "", 0);
        bench_execute(b, p, 1, &a);
        assert_int_equal(a.outcomes[0].verdict, HOST_LOCKED);
        assert_int_equal(a.outcomes[0].holder, 0);
        assert_int_equal(unlinkat(b->lock_fd, "s390apconfig.lock", 0), 0);
        lock_put(b, "0\n", 130);
        run_done(b, &p[0]);
        assert_int_equal(faccessat(b->lock_fd, "s390apconfig.lock", F_OK, 0), -1);

        plan_clear(&p[0]);
        plan_clear(&p[1]);
        answer_clear(&a);
        (void) snapshot_free(s);
        free(before);
        free(after);
}

/* Somebody else takes the queue, or changes the masks, just before one of our writes. */
static void foreign_mdev(Bench *b) {
        char uuid[UUID_STRING_SIZE], path[256];

        assert_int_equal(
                bench_write(b, "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create",
                            uuid_format(uuid_of(200), uuid)),
                0);
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/assign_adapter", uuid);
        assert_int_equal(bench_write(b, path, "2"), 0);
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/assign_domain", uuid);
        assert_int_equal(bench_write(b, path, "6"), 0);
}

static void test_interference(void **state) {
        const ApMatrix m = { IDS(1, 2), IDS(6), {} };

        if (use_child) /* the moment cannot be chosen from outside */
                skip();
        for (unsigned at = 1; at <= 4; at++) {
                Bench *b = bench_new(false, "small", dialect);
                Snapshot *s = bench_snapshot(b), *now;
                Answer a = {};
                Plan p;

                assert_int_equal(plan_start(s, uuid_of(1), &m, true, &p), 0);
                b->writes = 0;
                b->hook_at = at;
                b->hook = foreign_mdev;
                bench_execute(b, &p, 1, &a);
                assert_int_equal(a.r, 0);
                now = bench_snapshot(b);
                if (at == 4 && now->has_ap_config) { /* we were faster: no fourth write of ours */
                        assert_int_equal(a.outcomes[0].verdict, HOST_DONE);
                        assert_int_equal(now->n_mdevs, 1);
                } else {
                        assert_int_equal(a.outcomes[0].verdict, HOST_KERNEL);
                        assert_int_equal(a.outcomes[0].error, -EADDRINUSE);
                        assert_int_equal(now->n_mdevs, 1);
                        assert_true(uuid_equal(now->mdevs[0].uuid, uuid_of(200)));
                        assert_true(ap_mask_equal(&now->apmask, &s->apmask));
                        assert_true(same_snapshot(now, a.snapshot));
                }
                plan_clear(&p);
                answer_clear(&a);
                (void) snapshot_free(s);
                (void) snapshot_free(now);
                bench_free(b);
        }
}

/* Somebody else's bits stay as he set them, whether we succeed or undo. */
static void foreign_mask(Bench *b) {
        assert_int_equal(bench_write(b, "bus/ap/aqmask", "-80"), 0);
}

static void test_mask_interference(void **state) {
        const ApMatrix m = { IDS(1, 2), IDS(6), {} };

        if (use_child)
                skip();
        for (unsigned at = 1; at <= 3; at++) {
                Bench *b = bench_new(false, "small", dialect);
                Snapshot *s = bench_snapshot(b), *now;
                Answer a = {};
                Plan p;

                assert_int_equal(plan_start(s, uuid_of(1), &m, true, &p), 0);
                b->writes = 0;
                b->hook_at = at;
                b->hook = foreign_mask;
                if (at == 3)
                        bench_ctl(b, "fault write * EIO 1 skip=3"); /* the hook's is one more */
                bench_execute(b, &p, 1, &a);
                now = bench_snapshot(b);
                assert_int_equal(a.outcomes[0].verdict, at == 3 ? HOST_KERNEL : HOST_DONE);
                assert_false(ap_mask_test(&now->aqmask, 80));
                assert_int_equal(ap_mask_test(&now->apmask, 1), at == 3);
                plan_clear(&p);
                answer_clear(&a);
                (void) snapshot_free(s);
                (void) snapshot_free(now);
                bench_free(b);
        }
}

/* A plan made for a host that has changed since. */
static void test_changed(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(1), IDS(6), {} }, n = { IDS(2), IDS(6), {} };
        Snapshot *s = bench_snapshot(b);
        Answer a = {};
        Plan p[2];

        assert_int_equal(plan_start(s, uuid_of(1), &m, true, &p[0]), 0);
        assert_int_equal(plan_start(s, uuid_of(2), &n, false, &p[1]), 0);
        assert_int_equal(bench_write(b, "bus/ap/apmask", "-0"), 0);
        bench_execute(b, p, 2, &a);
        assert_int_equal(a.outcomes[0].verdict, HOST_REFUSED);
        assert_int_equal(a.outcomes[0].plan, PLAN_CHANGED);
        assert_int_equal(a.outcomes[1].verdict, HOST_DONE);

        assert_int_equal(bench_write(b, "devices/vfio_ap/matrix/c0de0000-0000-0000-0000-000000000002/remove",
                                     "1"),
                         0);
        bench_ctl(b, "rmmod");
        bench_execute(b, &p[1], 1, &a);
        assert_int_equal(a.outcomes[0].verdict, HOST_REFUSED);
        assert_int_equal(a.outcomes[0].plan, PLAN_NO_PARENT);
        assert_false(a.snapshot->vfio_ap);
        plan_clear(&p[0]);
        plan_clear(&p[1]);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* A queue whose reset does not end: details hang, all else works. */
static void test_details_hang(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };
        Answer a = {};

        b->config.scan_timeout_us = 3000000;
        bench_host(b);
        start(b, 1, &m, false);
        if (strcmp(dialect, "6.1") == 0)
                bench_ctl(b, "fault read matrix hang;fault read status hang");
        else
                bench_ctl(b, "fault read status hang");
        bench_scan(b, HOST_SCAN_DETAIL, &a);
        assert_int_equal(a.r, 0);
        assert_true(a.snapshot->detail_stuck);
        assert_false(a.snapshot->detailed);
        assert_int_equal(a.snapshot->n_mdevs, 1);
        assert_int_equal(a.snapshot->mdevs[0].matrix_known, strcmp(dialect, "6.1") != 0);

        bench_ctl(b, "clear;release");
        answer_clear(&a);
}

/* More queues than fit a page of text. */
static void test_large(void **state) {
        Bench *b = bench_new(use_child, "z16", dialect);
        bool old = strcmp(dialect, "6.1") == 0;
        ApMatrix m = { IDS(2, 3, 4, 5, 6, 7, 8, 9), ap_mask_up_to(84), {} };
        const HostKnown known[] = { { uuid_of(9), {} }, { uuid_of(1), m } };
        Answer a = {};
        Snapshot *s;
        Plan p;

        b->config.step_timeout_us = b->config.scan_timeout_us = 10000000;
        bench_host(b);
        start(b, 1, &m, false);
        bench_host(b); /* one that remembers nothing */
        s = bench_snapshot(b);
        assert_int_equal(s->mdevs[0].matrix_known, !old);
        if (!old)
                assert_true(ap_matrix_equal(&s->mdevs[0].matrix, &m));
        (void) snapshot_free(s);

        assert_int_equal(b->host->ops->know(b->host, known, 2), 0);
        bench_scan(b, HOST_SCAN_DETAIL, &a);
        assert_true(a.snapshot->mdevs[0].matrix_known);
        assert_true(ap_matrix_equal(&a.snapshot->mdevs[0].matrix, &m));
        assert_false(a.snapshot->mdevs[0].guest_known);
        assert_int_equal(a.snapshot->mdevs[0].use, MDEV_USE_FREE);

        ap_mask_set(&m.adapters, 10);
        assert_int_equal(plan_modify(a.snapshot, uuid_of(1), &m, false, &p), 0);
        run_done(b, &p);
        plan_clear(&p);
        assert_int_equal(bench_counter(b, "overruns"), 0);
        answer_clear(&a);
        bench_free(b);
}

/* Two types of a parent share its ports. */
static void test_mtty(void **state) {
        Bench *b = *state;
        Snapshot *s = bench_snapshot(b), *now;
        uint32_t available = s->types[1].available;
        Answer a = {};
        Plan p;

        make_mtty(b, s, &p);
        bench_execute(b, &p, 1, &a);
        assert_done(&a);
        now = bench_snapshot(b);
        assert_true(same_snapshot(now, a.snapshot));
        assert_true(now->types[1].available < available);
        assert_false(now->mdevs[0].ap);
        plan_clear(&p);

        assert_int_equal(plan_stop(now, uuid_of(1), &p), 0);
        run_done(b, &p);
        plan_clear(&p);
        answer_clear(&a);
        (void) snapshot_free(now);
        (void) snapshot_free(s);
}

static void test_queue(void **state) {
        Bench *b = *state;
        Answer a[80] = {};
        size_t n = 0;
        int r;

        do {
                r = b->host->ops->scan(b->host, HOST_SCAN_BASIC, on_scanned, &a[n]);
                assert_true(r == 0 || r == -EBUSY);
                assert_true(n < ELEMENTS(a));
        } while (r == 0 && ++n);
        for (size_t i = 0; i < n; i++) {
                bench_wait(b, &a[i]);
                assert_int_equal(a[i].r, 0);
                answer_clear(&a[i]);
        }
        /* those that wait when the host goes are never heard of */
        assert_int_equal(b->host->ops->scan(b->host, HOST_SCAN_BASIC, on_scanned, &a[0]), 0);
        bench_host(b);
        (void) snapshot_free(bench_snapshot(b));
        assert_false(a[0].done);
}

static void free_in_callback(void *userdata, int r, Snapshot *s) {
        Bench *b = userdata;

        b->host = host_free(b->host);
        (void) snapshot_free(s);
}

static void test_free_in_callback(void **state) {
        Bench *b = *state;
        Answer a = {};

        assert_int_equal(b->host->ops->scan(b->host, HOST_SCAN_BASIC, free_in_callback, b), 0);
        assert_int_equal(b->host->ops->scan(b->host, HOST_SCAN_BASIC, on_scanned, &a), 0);
        while (b->host)
                assert_true(sd_event_run(b->event, 10 * 1000000) > 0);
        assert_false(a.done);
        bench_host(b);
}

static void test_child_dies(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(1, 2), IDS(6), {} };
        Snapshot *s;
        Answer a = {};
        pid_t pid;
        Plan p[2];

        if (!use_child)
                skip();
        s = bench_snapshot(b);
        assert_int_equal(plan_start(s, uuid_of(1), &m, true, &p[0]), 0);
        assert_int_equal(plan_start(s, uuid_of(2), &m, false, &p[1]), 0);
        bench_ctl(b, "fault write create hang 1");
        b->config.step_timeout_us = 20000000;
        bench_host(b);
        assert_int_equal(b->host->ops->execute(b->host, p, 2, on_executed, &a), 0);
        do
                (void) sd_event_run(b->event, 1000);
        while (bench_counter(b, "pending") == 0);
        pid = lock_holder(b);
        assert_true(pid > 0 && pid != getpid());
        assert_int_equal(kill(pid, SIGKILL), 0);
        bench_ctl(b, "release");
        bench_wait(b, &a);
        assert_int_equal(a.r, 0);
        assert_int_equal(a.outcomes[0].verdict, HOST_STUCK);
        assert_int_equal(a.outcomes[1].verdict, HOST_SKIPPED);
        assert_int_equal(lock_holder(b), 0);

        /* the next job gets a new child and sees how far it got */
        (void) snapshot_free(s);
        s = bench_snapshot(b);
        assert_int_not_equal(plan_progress(&p[0], s), PLAN_NOT_BEGUN);
        assert_int_equal(b->host->ops->stuck(b->host, NULL), 0);
        plan_clear(&p[0]);
        plan_clear(&p[1]);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* The daemon goes while its child is in the middle of a plan: no further write, nothing undone, the lock
 * given back. */
static void test_daemon_dies(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(1, 2), IDS(6), {} };
        unsigned long writes;
        Answer a = {};
        Snapshot *s;
        Plan p;

        if (!use_child)
                skip();
        s = bench_snapshot(b);
        assert_int_equal(plan_start(s, uuid_of(1), &m, true, &p), 0);
        bench_ctl(b, "fault write create hang 1");
        assert_int_equal(b->host->ops->execute(b->host, &p, 1, on_executed, &a), 0);
        do
                (void) sd_event_run(b->event, 1000);
        while (bench_counter(b, "pending") == 0);
        b->host = host_free(b->host);
        writes = bench_counter(b, "writes");
        bench_ctl(b, "clear;release");

        /* the next one waits at the lock for the old child */
        b->config.lock_timeout_us = 10000000;
        bench_host(b);
        bench_execute(b, &p, 0, &a);
        assert_int_equal(a.r, 0);
        assert_int_equal(bench_counter(b, "writes"), writes);
        assert_int_equal(plan_progress(&p, a.snapshot), PLAN_PARTIAL);
        assert_int_equal(a.snapshot->n_mdevs, 1);
        assert_false(ap_mask_test(&a.snapshot->apmask, 1));
        plan_clear(&p);
        answer_clear(&a);
        (void) snapshot_free(s);
}

/* One mdev that cannot be read hides no other; one that waits to be removed keeps what it had. */
static void test_unreadable(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} }, n = { IDS(3), IDS(6), {} };
        bool old = strcmp(dialect, "6.1") == 0;
        Snapshot *s;

        start(b, 1, &m, false);
        start(b, 2, &n, false);
        if (!old) {
                bench_ctl(b, "fault read %s EIO", "c0de0000-0000-0000-0000-000000000001/ap_config");
                s = bench_snapshot(b);
                assert_int_equal(s->n_mdevs, 2);
                assert_false(s->mdevs[0].matrix_known);
                assert_true(s->mdevs[1].matrix_known);
                (void) snapshot_free(s);
                bench_ctl(b, "clear");
                (void) snapshot_free(bench_snapshot(b));
        }

        bench_ctl(b, "fault read ap_config ENOENT;fault read matrix ENOENT");
        s = bench_snapshot(b);
        assert_int_equal(s->n_mdevs, 2);
        assert_true(s->mdevs[0].matrix_known);
        assert_true(ap_matrix_equal(&s->mdevs[0].matrix, &m));
        (void) snapshot_free(s);

        /* without the masks nothing can be said at all */
        bench_ctl(b, "clear;fault read apmask EIO");
        {
                Answer a = {};

                bench_scan(b, HOST_SCAN_BASIC, &a);
                assert_int_equal(a.r, -EIO);
                assert_null(a.snapshot);
                answer_clear(&a);
        }
}

/* A machine full of mdevs: one batch makes them, scans stay in proportion. */
static void test_many(void **state) {
        const size_t n = use_child ? 1000 : 4000;
        Bench *b = bench_new(use_child, "z16", dialect);
        Snapshot *s = bench_snapshot(b);
        Plan *p = calloc(n, sizeof *p);
        struct timespec t0, t1;
        Answer a = {};

        b->config.step_timeout_us = b->config.scan_timeout_us = 60000000;
        bench_host(b);
        for (size_t i = 0; i < n; i++) {
                PlanStep step = { .type = PLAN_CREATE };

                p[i].uuid = uuid_of((unsigned) i);
                (void) strcpy(step.create.parent, "matrix");
                (void) strcpy(step.create.type, "vfio_ap-passthrough");
                assert_int_equal(plan_append(&p[i], &step), 0);
        }
        bench_execute(b, p, n, &a);
        assert_done(&a);
        assert_int_equal(a.snapshot->n_mdevs, n);

        for (unsigned i = 0; i < 2; i++) {
                (void) clock_gettime(CLOCK_MONOTONIC, &t0);
                bench_scan(b, HOST_SCAN_BASIC, &a);
                (void) clock_gettime(CLOCK_MONOTONIC, &t1);
                assert_int_equal(a.r, 0);
                assert_int_equal(a.snapshot->n_mdevs, n);
                print_message("scan of %zu mdevs: %.1f ms\n", n,
                              (double) (t1.tv_sec - t0.tv_sec) * 1e3 +
                                      (double) (t1.tv_nsec - t0.tv_nsec) / 1e6);
        }
        for (size_t i = 0; i < n; i++)
                plan_clear(&p[i]);
        free(p);
        answer_clear(&a);
        (void) snapshot_free(s);
        bench_free(b);
}

int main(int argc, char **argv) {
        static const char *const dialects[] = { "6.1", "6.12", "7.2" };
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_scan, setup, teardown),
                cmocka_unit_test_setup_teardown(test_overrides, setup, teardown),
                cmocka_unit_test_setup_teardown(test_life, setup, teardown),
                cmocka_unit_test_setup_teardown(test_batch, setup, teardown),
                cmocka_unit_test(test_faults),
                cmocka_unit_test(test_broken),
                cmocka_unit_test(test_hangs),
                cmocka_unit_test_setup_teardown(test_in_use, setup, teardown),
                cmocka_unit_test_setup_teardown(test_in_use_by_another_adapter, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
                cmocka_unit_test_setup_teardown(test_prepare, setup, teardown),
                cmocka_unit_test_setup_teardown(test_prepared_stopped, setup, teardown),
                cmocka_unit_test_setup_teardown(test_prepared_late, setup, teardown),
                cmocka_unit_test_setup_teardown(test_prepared_left, setup, teardown),
                cmocka_unit_test(test_interference),
                cmocka_unit_test(test_mask_interference),
                cmocka_unit_test_setup_teardown(test_changed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_details_hang, setup, teardown),
                cmocka_unit_test(test_large),
                cmocka_unit_test_setup_teardown(test_mtty, setup, teardown),
                cmocka_unit_test_setup_teardown(test_leaving, setup, teardown),
                cmocka_unit_test_setup_teardown(test_queue, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_in_callback, setup, teardown),
                cmocka_unit_test_setup_teardown(test_child_dies, setup, teardown),
                cmocka_unit_test_setup_teardown(test_daemon_dies, setup, teardown),
                cmocka_unit_test_setup_teardown(test_uevents, setup, teardown),
                cmocka_unit_test_setup_teardown(test_quiet, setup, teardown),
                cmocka_unit_test_setup_teardown(test_recent, setup, teardown),
                cmocka_unit_test_setup_teardown(test_while_locked, setup, teardown),
                cmocka_unit_test_setup_teardown(test_unreadable, setup, teardown),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_starts),
                cmocka_unit_test(test_starts_refused),
                cmocka_unit_test(test_starts_faults),
                cmocka_unit_test(test_starts_hang),
                cmocka_unit_test(test_starts_hang_all),
        };
        int failed = 0, r;

        if (argc > 1 && strcmp(argv[1], "--host-child") == 0)
                return host_child_main(HOST_CHILD_SOCKET_FD, HOST_CHILD_ROOT_FD, HOST_CHILD_PAGE_FD);
        if (argc < 2)
                return 2;
        use_child = strcmp(argv[1], "child") == 0;
        if (use_child) {
                r = bench_has_fuse();
                if (r >= 0)
                        r = bench_prepare();
                if (r < 0) {
                        (void) printf("SKIP: no FUSE or no namespaces of one's own here: %s\n",
                                      strerror(-r));
                        return 77;
                }
        }
        if (argc > 3)
                cmocka_set_test_filter(argv[3]);
        for (size_t i = 0; i < ELEMENTS(dialects); i++) {
                if (argc > 2 && strcmp(argv[2], dialects[i]) != 0)
                        continue;
                dialect = dialects[i];
                (void) printf("kernel %s\n", dialect);
                failed += cmocka_run_group_tests(tests, NULL, NULL);
        }
        return failed > 0;
}
