/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The owner's socket. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "unit/vtpm/vtpm_test.h"

static Harness h;
static int listener;
static struct sockaddr_un address;
static socklen_t address_size;

static int setup(void **state) {
        harness_init(&h, true);
        address = (struct sockaddr_un) { .sun_family = AF_UNIX };
        (void) snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "guestcrypt-test-%d",
                        (int) getpid());
        address_size =
                (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *) &address, address_size), 0);
        assert_int_equal(listen(listener, 16), 0);
        return control_listen(&h.service.control, listener);
}

static int teardown(void **state) {
        harness_done(&h);
        return 0;
}

static int dial(void) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        assert_int_equal(connect(fd, (struct sockaddr *) &address, address_size), 0);
        harness_pump(&h);
        return fd;
}

static const char *hear(int fd) {
        static char text[8192];
        ssize_t n;

        for (unsigned i = 0; i < 5; i++)
                harness_pump(&h);
        n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
                return NULL;
        text[n > 0 ? n : 0] = '\0';
        return text;
}

static const char *ask(int fd, const char *line) {
        assert_int_equal(send(fd, line, strlen(line), MSG_NOSIGNAL), strlen(line));
        return hear(fd);
}

static void test_status(void **state) {
        uint8_t response[64];
        const char *text;
        int fd = dial();

        assert_int_equal(vmm_start(&h.vmm), 0);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        text = ask(fd, "status\n");
        assert_non_null(strstr(text, "manager=none\n"));
        assert_non_null(strstr(text, "front=vhost-user\n"));
        assert_non_null(strstr(text, "connected=yes\n"));
        assert_non_null(strstr(text, "tpm=ready\n"));
        assert_non_null(strstr(text, "\ncommands=1\nbytes-in=12\nbytes-out=28\n"));
        assert_non_null(strstr(text, "machine-resets=1\n"));
        assert_string_equal(text + strlen(text) - 4, "\nok\n");
        (void) close(fd);
}

static void test_drain(void **state) {
        uint8_t response[64];
        uint32_t head, length;
        int fd = dial();

        assert_int_equal(vmm_start(&h.vmm), 0);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        h.tpm.fault = FAKE_TPM_HELD;
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        harness_pump(&h);
        assert_non_null(strstr(ask(fd, "status\n"), "request=busy\n"));
        h.service.device.s->unsure = 1;
        assert_non_null(strstr(ask(fd, "status\n"), "request=unsure\n"));
        assert_string_equal(ask(fd, "drain\n"), ""); /* not yet */
        h.tpm.fault = FAKE_TPM_GOOD;
        assert_string_equal(hear(fd), "ok\n");
        assert_int_equal(vmm_used(&h.vmm, &head, &length), 1);
        assert_string_equal(ask(fd, "drain\n"), "ok\n");
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 2);
        assert_string_equal(ask(fd, "resume\n"), "ok\n");
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
        (void) close(fd);
}

/* Hands over what is to be another swtpm's control channel, and closes it. */
static void send_tpm(int fd, int tpm_fd) {
        char control[CMSG_SPACE(sizeof(int))] = {};
        struct iovec iov = { .iov_base = (char *) "tpm\n", .iov_len = 4 };
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
        };

        CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &tpm_fd, sizeof tpm_fd);
        assert_int_equal(sendmsg(fd, &m, 0), 4);
        (void) close(tpm_fd);
}

/* Who watches is told what there is, and all that comes of it; who does not is not. */
static void test_watch(void **state) {
        static const char ready[] = "tpm=ready\nconnected=yes\nok\n";
        int fd = dial(), other = dial();

        assert_string_equal(ask(fd, "watch\n"), ready);
        assert_int_equal(vmm_start(&h.vmm), 0);
        assert_string_equal(hear(fd), ""); /* once is enough */
        assert_string_equal(ask(fd, "reset\n"),
                            "ok\ntpm=starting\nconnected=yes\nok\ntpm=ready\nconnected=yes\nok\n");
        assert_string_equal(ask(other, "watch\n"), ready);

        fake_tpm_done(&h.tpm);
        assert_string_equal(hear(fd), "tpm=failed\nconnected=yes\nok\n");
        (void) close(other); /* nor is it waited for */
        harness_reconnect(&h);
        assert_non_null(strstr(hear(fd), "tpm=failed\nconnected=no\nok\n"));
        (void) close(fd);
}

/* The machine's reset, and a new swtpm for one that died: only the reset brings it into use. */
static void test_reset(void **state) {
        uint8_t response[64];
        int fd = dial();

        assert_int_equal(vmm_start(&h.vmm), 0);
        send_tpm(fd, eventfd(0, EFD_CLOEXEC)); /* no TPM, nor a reason to lose the one that is there */
        assert_string_equal(hear(fd), "error not usable\n");
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        assert_string_equal(ask(fd, "reset\n"), "ok\n");
        assert_int_equal(h.tpm.n_init, 2);
        assert_string_equal(ask(fd, "tpm\n"), "error no descriptor\n");

        fake_tpm_done(&h.tpm);
        for (unsigned i = 0; i < 5; i++)
                harness_pump(&h);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         10);

        send_tpm(fd, fake_tpm_init(&h.tpm));
        assert_string_equal(hear(fd), "ok\n");
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         10);
        assert_int_equal(h.tpm.n_init, 0);
        assert_string_equal(ask(fd, "reset\n"), "ok\n");
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        assert_int_equal(h.tpm.n_init, 1);
        (void) close(fd);
}

/* Nonsense, floods, hang-ups. */
static void test_nonsense(void **state) {
        char flood[200];
        int fds[CONTROL_CLIENTS_MAX + 1], fd = dial();

        assert_string_equal(ask(fd, "\n"), "error unknown request\n");
        assert_string_equal(ask(fd, "statusx\nsta"), "error unknown request\n");
        assert_non_null(strstr(ask(fd, "tus\n"), "ok\n"));
        memset(flood, 'x', sizeof flood);
        flood[sizeof flood - 1] = '\0';
        assert_null(ask(fd, flood));
        (void) close(fd);

        for (unsigned i = 0; i <= CONTROL_CLIENTS_MAX; i++)
                fds[i] = dial();
        assert_null(hear(fds[CONTROL_CLIENTS_MAX])); /* too many */
        assert_non_null(strstr(ask(fds[0], "status\n"), "ok\n"));
        for (unsigned i = 0; i <= CONTROL_CLIENTS_MAX; i++)
                (void) close(fds[i]);
        harness_pump(&h);
        fd = dial();
        assert_non_null(strstr(ask(fd, "status\n"), "ok\n"));
        (void) close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_status, setup, teardown),
                cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
                cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
                cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
