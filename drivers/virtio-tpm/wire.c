/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

static int receive_some(Wire *w, size_t want) {
        union {
                char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
                struct cmsghdr header;
        } control;
        struct iovec iov = { .iov_base = w->s->rx + w->s->rx_size, .iov_len = want - w->s->rx_size };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes };
        int r = 0, fd;
        ssize_t n;

        n = recvmsg(w->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
                size_t count = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS
                                       ? (c->cmsg_len - CMSG_LEN(0)) / sizeof fd
                                       : 0;

                for (size_t i = 0; i < count; i++) {
                        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
                        if (w->n_fds < WIRE_FDS_MAX)
                                w->fds[w->n_fds++] = fd;
                        else {
                                fd_close(fd);
                                r = -EPROTO;
                        }
                }
        }
        w->s->rx_fds = w->n_fds;
        if (r < 0 || (m.msg_flags & MSG_CTRUNC))
                return -EPROTO;
        if (n == 0)
                return w->s->rx_size > 0 ? -EPROTO : -EPIPE;

        w->s->rx_size += (uint32_t) n;
        return 1;
}

int wire_receive(Wire *w) {
        WireState *s = w->s;
        int64_t whole;
        int r;

        while (s->rx_size < w->header_size) {
                r = receive_some(w, w->header_size);
                if (r <= 0)
                        return r;
        }

        whole = w->whole_size(s->rx);
        if (whole < 0)
                return (int) whole;
        if (whole < (int64_t) w->header_size || whole > WIRE_MESSAGE_MAX)
                return -EPROTO;

        while (s->rx_size < whole) {
                r = receive_some(w, (size_t) whole);
                if (r <= 0)
                        return r;
        }
        return 1;
}

void wire_consume(Wire *w) {
        for (unsigned i = 0; i < w->n_fds; i++)
                w->fds[i] = fd_close(w->fds[i]);
        w->n_fds = 0;
        w->s->rx_size = w->s->rx_fds = 0;
}

int wire_send(Wire *w) {
        WireState *s = w->s;

        while (s->tx_sent < s->tx_size) {
                ssize_t n = send(w->fd, s->tx + s->tx_sent, s->tx_size - s->tx_sent,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0)
                        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
                s->tx_sent += (uint32_t) n;
        }

        s->tx_size = s->tx_sent = 0;
        return 1;
}

int wire_take_fd(Wire *w, unsigned i) {
        return i < w->n_fds ? TAKE_FD(w->fds[i]) : -1;
}
