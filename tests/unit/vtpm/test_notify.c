/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the device process says to its service manager, and to one that listens slowly. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "drivers/virtio-tpm/notify.h"

#define NAMES        8
#define FILLERS_MAX  100000 /* no queue is as long */
#define FILLER       "STATUS="
#define WORDS_OF_ONE 2 /* to be removed, to be stored */

/* As much of a manager as there has to be. */
static struct {
        int fd;
        struct {
                char name[16];
                ino_t inode;
        } store[2 * NAMES];
        unsigned n_store, n_words;
} manager;

static Loop loop;
static uint32_t unsaid;

/* What the kernel says to the next @n messages. */
static struct {
        int error;
        unsigned n;
} trouble;

ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags) {
        if (trouble.n == 0)
                return __real_sendmsg(fd, m, flags);
        trouble.n--;
        errno = trouble.error;
        return -1;
}

static int setup(void **state) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char path[64];
        int n;

        n = snprintf(path, sizeof path, "@guestcrypt-notify-%d", (int) getpid());
        memcpy(address.sun_path + 1, path + 1, (size_t) n - 1);
        manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_true(manager.fd >= 0);
        assert_int_equal(bind(manager.fd, (struct sockaddr *) &address,
                              (socklen_t) (offsetof(struct sockaddr_un, sun_path) + (size_t) n)),
                         0);
        assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
        assert_int_equal(notify_open(), 0);
        assert_int_equal(loop_init(&loop), 0);
        notify_begin(&loop, &unsaid);
        return 0;
}

static int teardown(void **state) {
        notify_end();
        loop_done(&loop);
        (void) close(manager.fd);
        return 0;
}

static void forget(const char *name) {
        for (unsigned i = 0; i < manager.n_store;)
                if (strcmp(manager.store[i].name, name) == 0)
                        manager.store[i] = manager.store[--manager.n_store];
                else
                        i++;
}

static void keep(const char *name, int fd) {
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        assert_true(manager.n_store < sizeof manager.store / sizeof *manager.store);
        (void) snprintf(manager.store[manager.n_store].name, sizeof manager.store->name, "%s", name);
        manager.store[manager.n_store++].inode = st.st_ino;
        (void) close(fd);
}

/* One message. False: there is none. */
static bool listen_once(void) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr header;
        } control;
        char text[256], *name;
        struct iovec iov = { .iov_base = text, .iov_len = sizeof text - 1 };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes };
        struct cmsghdr *c;
        ssize_t n;
        int fd;

        n = recvmsg(manager.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0) {
                assert_int_equal(errno, EAGAIN);
                return false;
        }
        text[n] = '\0';
        if (strcmp(text, FILLER) == 0)
                return true;

        manager.n_words++;
        name = strstr(text, "FDNAME=");
        assert_non_null(name);
        name += strlen("FDNAME=");
        c = CMSG_FIRSTHDR(&m);
        if (strncmp(text, "FDSTOREREMOVE=1\n", 16) == 0) {
                assert_null(c);
                forget(name);
        } else {
                assert_int_equal(strncmp(text, "FDSTORE=1\nFDPOLL=0\n", 19), 0);
                assert_non_null(c);
                memcpy(&fd, CMSG_DATA(c), sizeof fd);
                keep(name, fd);
        }
        return true;
}

/* Whether that is what the manager has under @name, and once. */
static void assert_kept(const char *name, int fd) {
        unsigned n = 0;
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        for (unsigned i = 0; i < manager.n_store; i++)
                if (strcmp(manager.store[i].name, name) == 0) {
                        assert_int_equal(manager.store[i].inode, st.st_ino);
                        n++;
                }
        assert_int_equal(n, 1);
}

/* A queue with room for @room messages more. */
static void fill(unsigned room) {
        unsigned n = 0;

        while (notify_send(FILLER) == 0)
                assert_true(n++ < FILLERS_MAX);
        while (room-- > 0)
                assert_true(listen_once());
}

static int a_file(void) {
        int fd = memfd_create("kept", MFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

/* A manager that takes one message after the other, and the device comes to know each time that there is room for one. */
static void listen_slowly(void) {
        for (unsigned i = 0; listen_once(); i++) {
                assert_true(i < 2 * FILLERS_MAX);
                assert_int_equal(loop_once(&loop, 0), 0);
        }
        assert_int_equal(unsaid, 0);
}

static void test_slow(void **state) {
        for (unsigned room = 0; room < 3; room++) {
                int fds[NAMES];
                char name[16];

                manager.n_store = manager.n_words = 0;
                fill(room);
                for (unsigned i = 0; i < NAMES; i++) {
                        fds[i] = a_file();
                        (void) snprintf(name, sizeof name, "mem-%u", i);
                        assert_int_equal(notify_store(name, fds[i]), 0);
                }
                assert_int_equal(unsaid, 1);
                for (unsigned i = 0; i < FILLERS_MAX && unsaid; i++) {
                        assert_true(listen_once());
                        assert_int_equal(loop_once(&loop, 0), 0);
                        assert_true(manager.n_words <= NAMES * WORDS_OF_ONE); /* each is said once */
                }
                listen_slowly();
                assert_int_equal(manager.n_words, NAMES * WORDS_OF_ONE);
                for (unsigned i = 0; i < NAMES; i++) {
                        (void) snprintf(name, sizeof name, "mem-%u", i);
                        assert_kept(name, fds[i]);
                        (void) close(fds[i]);
                }
        }
}

/* What is said anew while half of it has been said: the last word counts. */
static void test_last_word(void **state) {
        int first = a_file(), second = a_file();

        manager.n_store = 0;
        for (unsigned room = 0; room < 2; room++) {
                fill(room);
                assert_int_equal(notify_store("kick", first), 0);
                assert_int_equal(notify_store("kick", second), 0);
                assert_int_equal(unsaid, 1);
                listen_slowly();
                assert_kept("kick", second);

                fill(room);
                assert_int_equal(notify_store("kick", first), 0);
                assert_int_equal(notify_discard("kick"), 0);
                assert_int_equal(unsaid, 1);
                listen_slowly();
                assert_int_equal(manager.n_store, 0);

                fill(room);
                assert_int_equal(notify_store("kick", first), 0);
                assert_int_equal(notify_discard("kick"), 0);
                assert_int_equal(notify_store("kick", second), 0);
                listen_slowly();
                assert_kept("kick", second);
        }
        (void) close(first);
        (void) close(second);
}

/* The store's copy does not depend on ours, which is closed while it waits. */
static void test_closed_meanwhile(void **state) {
        int fd = a_file(), copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        manager.n_store = 0;
        fill(1);
        assert_int_equal(notify_store("call", fd), 0);
        (void) close(fd);
        listen_slowly();
        assert_kept("call", copy);
        (void) close(copy);
}

static void until_said(void) {
        while (unsaid)
                assert_int_equal(loop_once(&loop, -1), 0);
}

/* A word that fails because the kernel is short of something is said again after a while; no event tells when. */
static void test_shortage(void **state) {
        static const int errors[] = { ENOBUFS, ENOMEM, ETOOMANYREFS };
        int first = a_file(), second = a_file();

        for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
                manager.n_store = manager.n_words = 0;
                trouble.error = errors[i];
                trouble.n = 2;
                assert_int_equal(notify_store("mem-0", first), 0);
                assert_int_equal(unsaid, 1);
                assert_string_equal(notify_manager(), "behind");
                assert_int_equal(notify_store("mem-1", second), 0);
                until_said();
                assert_string_equal(notify_manager(), "told");
                while (listen_once())
                        ;
                assert_kept("mem-0", first);
                assert_kept("mem-1", second);
                assert_int_equal(manager.n_words, 2 * WORDS_OF_ONE);
        }

        /* in the middle of what waited for room */
        manager.n_store = 0;
        fill(0);
        assert_int_equal(notify_store("mem-0", first), 0);
        assert_true(listen_once());
        trouble.n = 1;
        assert_int_equal(loop_once(&loop, 0), 0);
        assert_int_equal(trouble.n, 0);
        while (listen_once())
                ;
        until_said();
        while (listen_once())
                ;
        assert_kept("mem-0", first);
        (void) close(first);
        (void) close(second);
}

/* What the manager will never know: it counts as behind for ever, whatever it takes later. */
static void test_refused(void **state) {
        int fd = a_file();

        manager.n_store = 0;
        fill(0);
        assert_int_equal(notify_store("kick", fd), 0);
        assert_true(listen_once());
        trouble.error = EACCES;
        trouble.n = 1;
        assert_int_equal(loop_once(&loop, 0), 0);
        while (listen_once())
                ;
        assert_int_equal(unsaid, 1);
        assert_string_equal(notify_manager(), "behind");

        trouble.error = ECONNREFUSED;
        trouble.n = 1;
        assert_int_equal(notify_discard("mem-1"), -ECONNREFUSED);
        assert_int_equal(notify_store("call", fd), 0);
        assert_true(listen_once() && listen_once());
        assert_kept("call", fd);
        assert_int_equal(unsaid, 1);
        (void) close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_slow),
                cmocka_unit_test(test_last_word),
                cmocka_unit_test(test_closed_meanwhile),
                cmocka_unit_test(test_shortage),
                cmocka_unit_test(test_refused), /* last: there is no way back */
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
