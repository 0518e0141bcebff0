/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/vtpm/fake_tpm.h"

#include <assert.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/virtio-tpm/codec.h"

#define BUSY_TIMES 2

static void hang_up(int *fd) {
        if (*fd >= 0)
                (void) close(*fd);
        *fd = -1;
}

int fake_tpm_init(FakeTpm *t) {
        int pair[2];

        *t = (FakeTpm) { .ctrl_fd = -1, .data_fd = -1, .response_size = 28 };
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -1;

        t->ctrl_fd = pair[0];
        return pair[1];
}

void fake_tpm_done(FakeTpm *t) {
        hang_up(&t->ctrl_fd);
        hang_up(&t->data_fd);
}

static void take_fd(FakeTpm *t, struct msghdr *m) {
        struct cmsghdr *c = CMSG_FIRSTHDR(m);

        if (!c || c->cmsg_type != SCM_RIGHTS)
                return;
        hang_up(&t->data_fd);
        memcpy(&t->data_fd, CMSG_DATA(c), sizeof t->data_fd);
        t->pending = false;
}

static void step_ctrl(FakeTpm *t) {
        char control[CMSG_SPACE(sizeof(int))];
        uint8_t request[64], reply[16] = {};
        struct iovec iov = { .iov_base = request, .iov_len = sizeof request };
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
        };
        size_t size = 4;
        ssize_t n;

        if (t->fault == FAKE_TPM_CTRL_HANGUP) {
                hang_up(&t->ctrl_fd);
                return;
        }

        n = recvmsg(t->ctrl_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 4) {
                if (n == 0)
                        hang_up(&t->ctrl_fd);
                return;
        }

        switch (codec_get32(request)) {
        case 0x01:
                size = 8;
                break;
        case 0x02:
                assert(n == 8);
                t->n_init++;
                break;
        case 0x10:
                t->n_datafd++;
                if (t->fault == FAKE_TPM_DATAFD_BUSY && t->n_datafd <= BUSY_TIMES) {
                        codec_put32(reply, 0x1f);
                        if (CMSG_FIRSTHDR(&m)) {
                                int fd;

                                memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
                                (void) close(fd);
                        }
                } else
                        take_fd(t, &m);
                break;
        case 0x11:
                assert(n == 8);
                size = 16;
                if (t->n_init > 0) { /* only before INIT */
                        size = 4;
                        codec_put32(reply, 0x0a);
                }
                break;
        default:
                codec_put32(reply, 0x0a);
        }
        if (t->fault == FAKE_TPM_CTRL_REFUSES && size != 8) {
                codec_put32(reply, 0x09);
                size = 4;
        }
        if (t->fault != FAKE_TPM_CTRL_SILENT)
                (void) !send(t->ctrl_fd, reply, size, MSG_NOSIGNAL);
}

static void respond(FakeTpm *t) {
        uint8_t response[VIRTIO_TPM_MESSAGE_MAX + 2] = {};
        size_t size = t->response_size, end;

        codec_put_error(response, 0);
        codec_put32(response + VIRTIO_TPM_HEADER_AT_SIZE, (uint32_t) size);
        for (size_t i = VIRTIO_TPM_HEADER_SIZE; i < size; i++)
                response[i] = (uint8_t) i;

        end = size;
        switch (t->fault) {
        case FAKE_TPM_HELD:
                return;
        case FAKE_TPM_HALF:
                end = size / 2;
                break;
        case FAKE_TPM_BYTEWISE:
                end = t->answered + 1;
                break;
        case FAKE_TPM_SHORT_SIZE:
                codec_put32(response + VIRTIO_TPM_HEADER_AT_SIZE, 9);
                break;
        case FAKE_TPM_LONG_SIZE:
                codec_put32(response + VIRTIO_TPM_HEADER_AT_SIZE, VIRTIO_TPM_MESSAGE_MAX + 1);
                break;
        case FAKE_TPM_TRAILING:
                end = size = size + 1;
                break;
        case FAKE_TPM_DATA_HANGUP:
                hang_up(&t->data_fd);
                return;
        default:
                break;
        }
        if (end > t->answered)
                (void) !send(t->data_fd, response + t->answered, end - t->answered, MSG_NOSIGNAL);
        t->answered = end;
        if (end == size)
                t->pending = false;
        if (t->fault == FAKE_TPM_LAST_WORD)
                hang_up(&t->data_fd);
}

static void step_data(FakeTpm *t) {
        uint8_t command[sizeof t->command];
        uint8_t answer[VIRTIO_TPM_HEADER_SIZE];
        ssize_t n;

        n = recv(t->data_fd, command, sizeof command, MSG_DONTWAIT);
        if (n == 0) {
                hang_up(&t->data_fd);
                return;
        }
        if (n > 0) {
                assert(!t->pending); /* one at a time */
                assert(codec_check_command(command, (size_t) n) == 0);
                if (codec_code(command) == 0x144 || codec_code(command) == 0x129) {
                        t->n_startups += codec_code(command) == 0x144;
                        t->n_locks += codec_code(command) == 0x129;
                        codec_put_error(answer, 0);
                        (void) !send(t->data_fd, answer, sizeof answer, MSG_NOSIGNAL);
                        return;
                }
                memcpy(t->command, command, (size_t) n);
                t->command_size = (size_t) n;
                t->n_commands++;
                t->pending = true;
                t->answered = 0;
        }
        if (t->pending)
                respond(t);
}

void fake_tpm_step(FakeTpm *t) {
        if (t->ctrl_fd >= 0)
                step_ctrl(t);
        if (t->data_fd >= 0)
                step_data(t);
}
