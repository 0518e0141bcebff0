/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Mdevs that somebody else removes while a guest has them. */

#include "contract.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/sysfs.h"

/* Somebody removes @n, which a guest has: the writer, 0 if it is this process. */
static pid_t removal_begin(Bench *b, const Snapshot *s, unsigned n) {
        char uuid[UUID_STRING_SIZE], path[sizeof s->parents->path + 64];
        pid_t pid = 0;

        bench_ctl(b, "guest %s on", uuid_format(uuid_of(n), uuid));
        (void) snprintf(path, sizeof path, "%s/%s/remove", snapshot_parent_of(s, &s->mdevs[0])->path, uuid);
        if (use_child)
                pid = fork();
        if (pid == 0) {
                int r = bench_write(b, path, "1");

                if (use_child)
                        _exit(r < 0);
                assert_int_equal(r, SYSFS_NEVER);
        }
        assert_true(pid >= 0);
        return pid;
}

static void removal_end(Bench *b, pid_t writer, unsigned n) {
        char uuid[UUID_STRING_SIZE];
        int status = 0;

        bench_ctl(b, "guest %s off", uuid_format(uuid_of(n), uuid));
        if (writer > 0)
                assert_int_equal(waitpid(writer, &status, 0), writer);
        assert_int_equal(status, 0);
}

/* The kernel lists it no more while it waits for the guest, and yet it is there, with all that it has. */
void test_leaving(void **state) {
        Bench *b = *state;
        const ApMatrix m = { IDS(2), IDS(6), {} };

        for (unsigned ap = 0; ap < 2; ap++) {
                Snapshot *s = bench_snapshot(b);
                const HostMdev *mdev;
                Answer a = {};
                pid_t writer;
                Plan p;

                if (ap)
                        start(b, 1, &m, false);
                else {
                        make_mtty(b, s, &p);
                        run_done(b, &p);
                        plan_clear(&p);
                }
                (void) snapshot_free(s);
                s = bench_snapshot(b);
                assert_int_equal(s->n_mdevs, 1);
                writer = removal_begin(b, s, 1);
                do {
                        answer_clear(&a);
                        bench_scan(b, HOST_SCAN_DETAIL, &a);
                        assert_int_equal(a.r, 0);
                        assert_int_equal(a.snapshot->n_mdevs, 1);
                        mdev = &a.snapshot->mdevs[0];
                } while (!mdev->leaving);
                assert_int_equal(mdev->type, s->mdevs[0].type);
                assert_int_equal(mdev->ap, ap);
                assert_int_equal(mdev->use, MDEV_USE_GUEST);
                assert_true(ap_matrix_equal(&mdev->matrix, &s->mdevs[0].matrix));
                assert_int_equal(mdev->matrix_known, s->mdevs[0].matrix_known);
                (void) snapshot_free(s);
                s = snapshot_copy(a.snapshot);

                assert_int_equal(plan_stop(s, uuid_of(1), &p), 0);
                bench_execute(b, &p, 1, &a);
                plan_clear(&p);
                assert_int_equal(a.outcomes[0].verdict, HOST_REFUSED);
                assert_int_equal(a.outcomes[0].plan, PLAN_IN_USE);
                if (ap && s->has_ap_config) {
                        assert_int_equal(plan_start(s, uuid_of(2), &m, false, &p), 0);
                        bench_execute(b, &p, 1, &a);
                        plan_clear(&p);
                        assert_int_equal(a.outcomes[0].verdict, HOST_REFUSED);
                        assert_int_equal(a.outcomes[0].plan, PLAN_OVERLAP);
                }
                assert_int_equal(b->host->ops->stuck(b->host, NULL), 0);
                (void) snapshot_free(s);

                removal_end(b, writer, 1);
                answer_clear(&a);
                bench_scan(b, HOST_SCAN_DETAIL, &a);
                assert_int_equal(a.snapshot->n_mdevs, 0);
                answer_clear(&a);
        }
}
