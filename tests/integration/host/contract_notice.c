/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What of others' doings is noticed at once, and what is not looked at again because nobody has touched it. */

#include "contract.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Changes by others are heard of. */
void test_uevents(void **state) {
        Bench *b = *state;
        char uuid[UUID_STRING_SIZE], path[256];

        if (!use_child)
                skip();
        b->changed = 0;
        assert_int_equal(
                bench_write(b, "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create",
                            uuid_format(uuid_of(1), uuid)),
                0);
        while (b->changed == 0)
                assert_true(sd_event_run(b->event, 10 * 1000000) > 0);
        /* four events of one cause are one change, or at most two */
        assert_true(b->changed <= 2);

        b->changed = 0;
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/remove", uuid);
        assert_int_equal(bench_write(b, path, "1"), 0);
        while (b->changed == 0)
                assert_true(sd_event_run(b->event, 10 * 1000000) > 0);
}

/* Whether a scan lists all types and mdevs, or goes by what it knows. */
static bool scan_lists(Bench *b) {
        Answer a = {};
        bool lists;

        bench_ctl(b, "fault read device_api EIO");
        bench_scan(b, HOST_SCAN_BASIC, &a);
        bench_ctl(b, "clear");
        assert_true(a.r == 0 || a.r == -EIO);
        lists = a.r < 0;
        answer_clear(&a);
        return lists;
}

static void settle(Bench *b) {
        while (scan_lists(b))
                (void) snapshot_free(bench_snapshot(b));
}

/* What nobody has touched is not listed again; what others do is seen by the next scan all the same. */
void test_quiet(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} }, n = { IDS(3), IDS(6), {} }, o = { IDS(3), IDS(0x10), {} };
        char uuid[UUID_STRING_SIZE], path[256], config[AP_MATRIX_STRING_SIZE];
        Snapshot *s;
        Answer a = {};
        Plan p;

        if (!use_child)
                skip();
        start(b, 1, &m, false);
        settle(b);
        start(b, 2, &n, false); /* our own doing */
        assert_false(scan_lists(b));
        s = bench_snapshot(b);
        assert_int_equal(s->n_mdevs, 2);
        (void) snapshot_free(s);

        assert_int_equal(
                bench_write(b, "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create",
                            uuid_format(uuid_of(3), uuid)),
                0);
        assert_true(scan_lists(b));
        s = bench_snapshot(b);
        assert_int_equal(s->n_mdevs, 3);
        settle(b);

        if (s->has_ap_config) { /* no event tells of an assignment */
                (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/ap_config", uuid);
                assert_int_equal(plan_start(s, uuid_of(4), &o, false, &p), 0);
                assert_int_equal(bench_write(b, path, ap_matrix_format(&o, config)), 0);
                bench_execute(b, &p, 1, &a);
                assert_int_equal(a.r, 0);
                assert_true(a.outcomes[0].verdict == HOST_REFUSED || a.outcomes[0].verdict == HOST_KERNEL);
                answer_clear(&a);
                plan_clear(&p);
                (void) snapshot_free(s);
                s = bench_snapshot(b);
                assert_int_equal(s->n_mdevs, 3);
                assert_true(ap_matrix_equal(&snapshot_find_mdev(s, uuid_of(3))->matrix, &o));
        }
        (void) snapshot_free(s);

        settle(b);
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/remove", uuid);
        assert_int_equal(bench_write(b, path, "1"), 0);
        s = bench_snapshot(b);
        assert_int_equal(s->n_mdevs, 2);
        (void) snapshot_free(s);

        /* as many as before, but others */
        settle(b);
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/remove",
                        uuid_format(uuid_of(1), uuid));
        assert_int_equal(bench_write(b, path, "1"), 0);
        assert_int_equal(
                bench_write(b, "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create",
                            uuid_format(uuid_of(5), uuid)),
                0);
        s = bench_snapshot(b);
        assert_int_equal(s->n_mdevs, 2);
        assert_null(snapshot_find_mdev(s, uuid_of(1)));
        assert_non_null(snapshot_find_mdev(s, uuid_of(5)));
        (void) snapshot_free(s);
}

/* What others do while a job waits for the AP lock is no news any more when it has it. */
void test_while_locked(void **state) {
        Bench *b = *state;
        CLEANUP(fd_closep) int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        char uuid[UUID_STRING_SIZE], text[64];
        struct inotify_event event;
        Answer a = {};

        if (!use_child)
                skip();
        b->config.lock_timeout_us = 60000000;
        bench_host(b);
        (void) snapshot_free(bench_snapshot(b));
        settle(b);
        (void) snprintf(text, sizeof text, "%d\n", (int) getpid());
        lock_put(b, text, 0);
        (void) snprintf(text, sizeof text, "/proc/self/fd/%d/s390apconfig.lock", b->lock_fd);
        assert_true(inotify_add_watch(watch, text, IN_OPEN) >= 0);

        assert_int_equal(b->host->ops->execute(b->host, NULL, 0, on_executed, &a), 0);
        while (read(watch, &event, sizeof event) < 0) { /* until it has tried */
                assert_int_equal(errno, EAGAIN);
                assert_true(sd_event_run(b->event, 10000) >= 0);
        }
        assert_int_equal(
                bench_write(b, "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create",
                            uuid_format(uuid_of(1), uuid)),
                0);
        assert_int_equal(unlinkat(b->lock_fd, "s390apconfig.lock", 0), 0);
        bench_wait(b, &a);
        assert_int_equal(a.r, 0);
        assert_int_equal(a.snapshot->n_mdevs, 1);
        answer_clear(&a);
}

/* A reading that a moment ago was right and is not any more: the kernel refuses, all is undone, and the next scan knows why. */
void test_recent(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} }, o = { IDS(3), IDS(0x10), {} };
        char uuid[UUID_STRING_SIZE], path[256], config[AP_MATRIX_STRING_SIZE];
        Snapshot *s;
        Answer a = {};
        Plan p;

        if (strcmp(dialect, "6.1") == 0)
                skip();
        start(b, 1, &m, false);
        s = bench_snapshot(b);
        assert_int_equal(plan_start(s, uuid_of(2), &o, false, &p), 0);
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/ap_config",
                        uuid_format(uuid_of(1), uuid));
        assert_int_equal(bench_write(b, path, ap_matrix_format(&o, config)), 0);
        bench_execute(b, &p, 1, &a);
        assert_int_equal(a.r, 0);
        assert_true(a.outcomes[0].verdict == HOST_REFUSED ||
                    (a.outcomes[0].verdict == HOST_KERNEL && a.outcomes[0].error == -EADDRINUSE));
        assert_int_equal(a.snapshot->n_mdevs, 1);
        assert_true(ap_matrix_equal(&a.snapshot->mdevs[0].matrix, &o));
        answer_clear(&a);
        plan_clear(&p);
        (void) snapshot_free(s);
}
