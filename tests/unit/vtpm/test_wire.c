/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages that come at any moment, and processes that are killed at any moment. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "drivers/virtio-tpm/wire.h"

#define HEADER 4

static const uint8_t message[] = { 12, 0, 0, 0, 'm', 'e', 's', 's', 'a', 'g', 'e', '!' };

static WireState state;
static int fds[2];
static unsigned n_looks;
static bool comes_late; /* the message, when the device has just seen that there is none */

ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);

ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags) {
        ssize_t n = __real_recvmsg(fd, m, flags);

        n_looks++;
        if (n < 0 && comes_late) {
                int saved = errno;

                comes_late = false;
                assert_int_equal(send(fds[1], message, sizeof message, 0), sizeof message);
                errno = saved;
        }
        return n;
}

static int64_t whole_size(const uint8_t *header) {
        return header[0];
}

static bool brings_fds(const uint8_t *header) {
        return header[1] > 0;
}

static Wire begin(void) {
        n_looks = 0;
        return (Wire) { .s = &state, .fd = fds[0], .header_size = HEADER, .whole_size = whole_size };
}

static int setup(void **unused) {
        memset(&state, 0, sizeof state);
        comes_late = false;
        return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
}

static int teardown(void **unused) {
        (void) close(fds[0]);
        (void) close(fds[1]);
        return 0;
}

/* What lies in the socket. */
static size_t waiting(void) {
        uint8_t bytes[64];
        ssize_t n = recv(fds[0], bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);

        return n < 0 ? 0 : (size_t) n;
}

/* It is there as a whole as soon as it is there: nothing of it is taken out before it has been handled, or a process that is killed
 * meanwhile would take it with it. */
static void test_late(void **unused) {
        Wire w = begin();

        comes_late = true;
        assert_int_equal(wire_receive(&w), 0);
        assert_int_equal(n_looks, 1);
        assert_int_equal(state.rx_size, 0);
        assert_int_equal(waiting(), sizeof message);

        assert_int_equal(wire_receive(&w), 1);
        assert_int_equal(waiting(), sizeof message);
        assert_int_equal(wire_done(&w), 0);
        assert_int_equal(waiting(), 0);
}

/* However many processes are killed with it in hand, each is told that there was one before. */
static void test_killed_again(void **unused) {
        for (unsigned n = 1; n < 4; n++) {
                Wire w = begin();

                assert_int_equal(send(fds[1], message, sizeof message, 0), sizeof message);
                assert_false(wire_recover(&w));
                assert_int_equal(wire_receive(&w), 1);
                for (unsigned i = 0; i < n; i++) {
                        w = begin();
                        assert_true(wire_recover(&w));
                        if (i % 2 > 0)
                                assert_int_equal(wire_receive(&w), 1);
                }
                assert_int_equal(wire_receive(&w), 1);
                assert_memory_equal(state.rx, message, sizeof message);
                assert_int_equal(wire_done(&w), 0);

                /* the next one is another */
                w = begin();
                assert_false(wire_recover(&w));
        }
}

/* What has been taken out, and is not answered yet, is not expected to come again, nor is what comes next taken for it. */
static void test_killed_behind(void **unused) {
        Wire w = begin();
        uint8_t bytes[sizeof message];

        assert_int_equal(send(fds[1], message, sizeof message, 0), sizeof message);
        assert_int_equal(wire_receive(&w), 1);
        w = begin();
        assert_true(wire_recover(&w));
        assert_int_equal(wire_receive(&w), 1);
        wire_answer(&w, 5);
        assert_int_equal(recv(fds[0], bytes, sizeof bytes, 0), sizeof bytes);
        for (unsigned i = 0; i < 2; i++) {
                w = begin();
                assert_false(wire_recover(&w));
        }
        assert_int_equal(wire_send(&w), 1);
        assert_int_equal(recv(fds[1], bytes, sizeof bytes, 0), 5);
        assert_int_equal(wire_receive(&w), 0);
}

static void send_with_fd(const uint8_t *bytes, int fd) {
        union {
                char bytes[CMSG_SPACE(sizeof fd)];
                struct cmsghdr header;
        } control = { .header = { .cmsg_len = CMSG_LEN(sizeof fd),
                                  .cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS } };
        struct iovec iov = { .iov_base = (void *) bytes, .iov_len = bytes[0] };
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
        };

        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        assert_int_equal(sendmsg(fds[1], &m, 0), bytes[0]);
}

/* Where the front end knows which messages bring descriptors, the others are looked at without: whatever they bring is closed. All stay
 * where they are until they have been handled. */
static void test_descriptors(void **unused) {
        static const uint8_t with[] = { 6, 1, 0, 0, 'f', 'd' };
        Wire w = begin();
        int ends[2], fd;
        char c;

        w.brings_fds = brings_fds;
        for (unsigned i = 0; i < 3; i++) {
                const uint8_t *bytes = i == 1 ? with : message;

                assert_int_equal(pipe(ends), 0);
                if (i == 0)
                        assert_int_equal(send(fds[1], bytes, bytes[0], 0), bytes[0]);
                else
                        send_with_fd(bytes, ends[1]);
                assert_int_equal(close(ends[1]), 0);

                n_looks = 0;
                assert_int_equal(wire_receive(&w), 1);
                assert_int_equal(n_looks, i == 1);
                assert_memory_equal(state.rx, bytes, bytes[0]);
                assert_int_equal(waiting(), bytes[0]);
                fd = wire_take_fd(&w, 0);
                assert_int_equal(fd >= 0, i == 1);
                assert_int_equal(state.rx_fds, i == 1);
                assert_int_equal(wire_done(&w), 0);
                assert_int_equal(waiting(), 0);

                if (fd >= 0) {
                        assert_int_equal(write(fd, "w", 1), 1);
                        assert_int_equal(read(ends[0], &c, 1), 1);
                        assert_int_equal(close(fd), 0);
                }
                assert_int_equal(read(ends[0], &c, 1), 0); /* there is no other */
                assert_int_equal(close(ends[0]), 0);
        }
}

/* In pieces, as nobody sends it. */
static void test_pieces(void **unused) {
        Wire w = begin();

        for (size_t i = 0; i < sizeof message; i++) {
                assert_int_equal(wire_receive(&w), 0);
                assert_int_equal(send(fds[1], message + i, 1, 0), 1);
        }
        assert_int_equal(wire_receive(&w), 1);
        assert_memory_equal(state.rx, message, sizeof message);
        assert_int_equal(wire_done(&w), 0);
        assert_int_equal(waiting(), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_late, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed_behind, setup, teardown),
                cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
