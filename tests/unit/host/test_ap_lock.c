/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "host/ap_lock.h"
#include "tests/lib/core/test.h"

#define LOCK "s390apconfig.lock"

static int dir_fd = -1;
static char dir[] = "/tmp/guestcrypt-lock-XXXXXX";

static int setup(void **state) {
        assert_non_null(mkdtemp(dir));
        dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return dir_fd < 0;
}

static int teardown(void **state) {
        (void) close(dir_fd);
        return rmdir(dir); /* fails if a temporary file is left */
}

static void put(const char *content, long age_s) {
        int fd = openat(dir_fd, LOCK, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        struct timespec t[2];

        assert_int_equal(write(fd, content, strlen(content)), strlen(content));
        (void) clock_gettime(CLOCK_REALTIME, &t[0]);
        t[0].tv_sec -= age_s;
        t[1] = t[0];
        assert_int_equal(futimens(fd, t), 0);
        (void) close(fd);
}

static pid_t dead_pid(void) {
        pid_t pid = fork();

        if (pid == 0)
                _exit(0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        return pid;
}

static void test_take(void **state) {
        char text[32] = "", want[32];
        pid_t holder = -1;
        struct stat st;
        int fd;

        assert_int_equal(ap_lock_try(dir_fd, getpid(), &holder), 0);
        assert_int_equal(holder, -1);
        fd = openat(dir_fd, LOCK, O_RDONLY | O_CLOEXEC);
        assert_true(read(fd, text, sizeof text - 1) > 0);
        (void) fstat(fd, &st);
        (void) close(fd);
        (void) snprintf(want, sizeof want, "%d\n", (int) getpid());
        assert_string_equal(text, want);
        assert_int_equal(st.st_mode & 0777, 0644);
        assert_int_equal(st.st_nlink, 1);
        assert_int_equal(ap_lock_release(dir_fd, getpid()), 0);
        assert_int_equal(faccessat(dir_fd, LOCK, F_OK, 0), -1);
        assert_int_equal(ap_lock_release(dir_fd, getpid()), 0);
}

static void test_others(void **state) {
        static const struct {
                const char *content;
                long age_s;
                int r;
        } cases[] = {
                { "1\n", 0, 1 },   { "1\n", 100000, 1 }, /* alive, however old */
                { "", 0, 1 },      { "", 119, 1 },       { "", 125, 0 },         { "0\n", 0, 1 },
                { "0\n", 125, 0 }, { "-5\n", 0, 1 },     { "banana\n", 125, 0 }, { "99999999999\n", 0, 1 },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                pid_t holder = -1;

                put(cases[i].content, cases[i].age_s);
                assert_int_equal(ap_lock_try(dir_fd, getpid(), &holder), cases[i].r);
                if (cases[i].r == 1) {
                        assert_int_equal(holder, cases[i].content[0] == '1' ? 1 : 0);
                        assert_int_equal(ap_lock_release(dir_fd, getpid()), 0); /* not ours */
                        assert_int_equal(faccessat(dir_fd, LOCK, F_OK, 0), 0);
                }
                assert_int_equal(unlinkat(dir_fd, LOCK, 0), 0);
        }
}

static void test_stale(void **state) {
        char text[32];
        pid_t holder;

        (void) snprintf(text, sizeof text, "%d\n", (int) dead_pid());
        put(text, 0);
        assert_int_equal(ap_lock_try(dir_fd, getpid(), &holder), 0);
        assert_int_equal(ap_lock_release(dir_fd, getpid()), 0);

        /* our pid, which somebody had before us */
        (void) snprintf(text, sizeof text, "%d\n", (int) getpid());
        put(text, 0);
        assert_int_equal(ap_lock_try(dir_fd, getpid(), &holder), 0);
        assert_int_equal(ap_lock_release(dir_fd, getpid()), 0);
}

static void test_absurd(void **state) {
        pid_t holder = -1;

        assert_int_equal(mkdirat(dir_fd, LOCK, 0755), 0);
        assert_int_equal(ap_lock_try(dir_fd, getpid(), &holder), -EBADMSG);
        assert_int_equal(unlinkat(dir_fd, LOCK, AT_REMOVEDIR), 0);
        assert_int_equal(symlinkat("/etc/passwd", dir_fd, LOCK), 0);
        assert_int_equal(ap_lock_try(dir_fd, getpid(), &holder), -ELOOP);
        assert_int_equal(unlinkat(dir_fd, LOCK, 0), 0);
        assert_int_equal(holder, -1);
}

/* Many processes, a dead holder to begin with: never two at a time. */
static void test_race(void **state) {
        pid_t pids[6];
        char text[32];

        (void) snprintf(text, sizeof text, "%d\n", (int) dead_pid());
        put(text, 0);
        for (size_t i = 0; i < ELEMENTS(pids); i++) {
                pids[i] = fork();
                if (pids[i] > 0)
                        continue;
                for (unsigned had = 0; had < 200;) {
                        pid_t holder;
                        int r = ap_lock_try(dir_fd, getpid(), &holder);

                        if (r < 0)
                                _exit(1);
                        if (r > 0) {
                                (void) sched_yield();
                                continue;
                        }
                        if (mkdirat(dir_fd, "alone", 0700) < 0) /* somebody else is in here */
                                _exit(2);
                        if (unlinkat(dir_fd, "alone", AT_REMOVEDIR) < 0)
                                _exit(3);
                        had++;
                        if (ap_lock_release(dir_fd, getpid()) < 0)
                                _exit(4);
                }
                _exit(0);
        }
        for (size_t i = 0; i < ELEMENTS(pids); i++) {
                int status;

                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_int_equal(status, 0);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_take),   cmocka_unit_test(test_others), cmocka_unit_test(test_stale),
                cmocka_unit_test(test_absurd), cmocka_unit_test(test_race),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
