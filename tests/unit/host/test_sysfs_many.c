/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Many attributes read at once, straight and ahead of those who want them one by one, on a directory that stands for /sys. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "host/host_prefetch.h"
#include "host/sysfs.h"
#include "tests/lib/core/test.h"

#define N_TYPES 150 /* more than go together */

typedef struct Fixture {
        char dir[64];
        int fd;
        Sysfs *sysfs;
} Fixture;

static void type_path(unsigned i, char path[static 64]) {
        (void) snprintf(path, 64, "type%u/available_instances", i);
}

static void attribute_set(const Fixture *f, const char *path, const char *content) {
        CLEANUP(fd_closep) int fd = openat(f->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, content, strlen(content)), (ssize_t) strlen(content));
}

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof *f);

        assert_non_null(f);
        (void) snprintf(f->dir, sizeof f->dir, "/tmp/test-sysfs-many-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
        f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(f->fd >= 0);
        assert_int_equal(mkdirat(f->fd, "bus", 0700), 0);
        assert_int_equal(mkdirat(f->fd, "bus/ap", 0700), 0);
        attribute_set(f, "bus/ap/apmask", "0xff\n");
        attribute_set(f, "bus/ap/uevent", ""); /* not one that is kept open for writing */
        for (unsigned i = 0; i < N_TYPES; i++) {
                char path[64], content[32];

                (void) snprintf(path, sizeof path, "type%u", i);
                assert_int_equal(mkdirat(f->fd, path, 0700), 0);
                type_path(i, path);
                (void) snprintf(content, sizeof content, "%u\n", i);
                attribute_set(f, path, content);
        }
        assert_int_equal(sysfs_real_new(f->fd, &f->sysfs), 0);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        Fixture *f = *state;
        char command[128];

        (void) sysfs_free(f->sysfs);
        (void) fd_close(f->fd);
        (void) snprintf(command, sizeof command, "rm -r %s", f->dir);
        assert_int_equal(system(command), 0);
        free(f);
        return 0;
}

/* The first time each is opened, the second time their descriptors are there; then they have changed. */
static void test_read_many(void **state) {
        Fixture *f = *state;
        char paths[N_TYPES][64], content[N_TYPES][32];
        SysfsRead reads[N_TYPES];

        for (unsigned round = 0; round < 3; round++) {
                for (unsigned i = 0; i < N_TYPES; i++) {
                        type_path(i, paths[i]);
                        memset(content[i], 'x', sizeof content[i]);
                        reads[i] = (SysfsRead) { .path = paths[i],
                                                 .buf = content[i],
                                                 .size = sizeof content[i],
                                                 .result = 12345 };
                        if (round == 2)
                                attribute_set(f, paths[i], "changed\n");
                }
                sysfs_read_many(f->sysfs, reads, N_TYPES);
                for (unsigned i = 0; i < N_TYPES; i++) {
                        char want[32];

                        (void) snprintf(want, sizeof want, round == 2 ? "changed\n" : "%u\n", i);
                        assert_int_equal(reads[i].result, (ssize_t) strlen(want));
                        assert_string_equal(content[i], want);
                }
        }
}

/* One that cannot be read says so, and spoils no other. */
static void test_read_many_errors(void **state) {
        Fixture *f = *state;

        for (unsigned round = 0; round < 2; round++) {
                char a[32], b[32], c[32], d[2];
                SysfsRead reads[] = {
                        { .path = "type1/available_instances", .buf = a, .size = sizeof a },
                        { .path = "type1/ap_config", .buf = b, .size = sizeof b },
                        { .path = "bus/ap/apmask", .buf = c, .size = sizeof c },
                        { .path = "type100/available_instances", .buf = d, .size = sizeof d },
                };

                sysfs_read_many(f->sysfs, reads, ELEMENTS(reads));
                assert_int_equal(reads[0].result, 2);
                assert_string_equal(a, "1\n");
                assert_int_equal(reads[1].result, -ENOENT);
                assert_int_equal(reads[2].result, 5);
                assert_string_equal(c, "0xff\n");
                assert_int_equal(reads[3].result, -EOVERFLOW);
        }
        sysfs_read_many(f->sysfs, NULL, 0);
}

static void assert_reads(Sysfs *s, const char *path, const char *want) {
        char buf[32];

        assert_int_equal(s->ops->read(s, path, buf, sizeof buf), (ssize_t) strlen(want));
        assert_string_equal(buf, want);
}

/* What was read ahead is given out once; all else is read when it is wanted. */
static void test_prefetch(void **state) {
        Fixture *f = *state;
        CLEANUP(host_prefetch_freep) HostPrefetch *p = NULL;
        char buf[32];
        Sysfs *s;

        assert_int_equal(host_prefetch_new(f->sysfs, &p), 0);
        s = host_prefetch_sysfs(p);
        assert_reads(s, "bus/ap/apmask", "0xff\n");

        host_prefetch_add(p, "bus/ap/apmask");
        host_prefetch_add(p, "bus/ap/no_such");
        host_prefetch_add(p, "type1/available_instances");
        assert_reads(s, "bus/ap/apmask", "0xff\n"); /* not loaded yet */
        host_prefetch_load(p);
        attribute_set(f, "bus/ap/apmask", "0x11\n");
        attribute_set(f, "bus/ap/no_such", "here\n");
        assert_int_equal(s->ops->read(s, "type1/available_instances", buf, 2), -EOVERFLOW);
        assert_reads(s, "bus/ap/apmask", "0xff\n");
        assert_reads(s, "bus/ap/apmask", "0x11\n");
        assert_int_equal(s->ops->read(s, "bus/ap/no_such", buf, sizeof buf), -ENOENT);
        assert_reads(s, "bus/ap/no_such", "here\n");
        assert_reads(s, "type1/available_instances", "1\n");
}

/* A write may change anything, and so does the next round. */
static void test_prefetch_forgets(void **state) {
        Fixture *f = *state;
        CLEANUP(host_prefetch_freep) HostPrefetch *p = NULL;
        Sysfs *s;

        assert_int_equal(host_prefetch_new(f->sysfs, &p), 0);
        s = host_prefetch_sysfs(p);
        host_prefetch_add(p, "bus/ap/apmask");
        host_prefetch_load(p);
        attribute_set(f, "bus/ap/apmask", "0x22\n");
        assert_int_equal(s->ops->write(s, "bus/ap/uevent", "change", 6), 0);
        assert_reads(s, "bus/ap/apmask", "0x22\n");

        host_prefetch_clear(p);
        host_prefetch_add(p, "bus/ap/apmask");
        host_prefetch_load(p);
        host_prefetch_clear(p);
        attribute_set(f, "bus/ap/apmask", "0x33\n");
        assert_reads(s, "bus/ap/apmask", "0x33\n");
}

static void test_prefetch_full(void **state) {
        Fixture *f = *state;
        CLEANUP(host_prefetch_freep) HostPrefetch *p = NULL;
        Sysfs *s;

        assert_int_equal(host_prefetch_new(f->sysfs, &p), 0);
        s = host_prefetch_sysfs(p);
        for (unsigned i = 0; i < N_TYPES; i++) {
                char path[64];

                assert_int_equal(host_prefetch_is_full(p), i >= HOST_PREFETCH_MAX);
                type_path(i, path);
                host_prefetch_add(p, path);
        }
        host_prefetch_load(p);
        for (unsigned i = N_TYPES; i-- > 0;) {
                char path[64], want[32];

                type_path(i, path);
                (void) snprintf(want, sizeof want, "%u\n", i);
                assert_reads(s, path, want);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_read_many, setup, teardown),
                cmocka_unit_test_setup_teardown(test_read_many_errors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_prefetch, setup, teardown),
                cmocka_unit_test_setup_teardown(test_prefetch_forgets, setup, teardown),
                cmocka_unit_test_setup_teardown(test_prefetch_full, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
