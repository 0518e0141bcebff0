/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

static void close_fds(Wire *w) {
        for (unsigned i = 0; i < w->n_fds; i++)
                w->fds[i] = fd_close(w->fds[i]);
        w->n_fds = 0;
}

/* Bytes for rx from position @at, and descriptors. The number of bytes, 0 if there are none now, -errno. */
static ssize_t receive_some(Wire *w, size_t at, size_t want, int flags) {
        union {
                char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
                struct cmsghdr header;
        } control;
        struct iovec iov = { .iov_base = w->s->rx + at, .iov_len = want };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes };
        int r = 0, fd;
        ssize_t n;

        n = recvmsg(w->fd, &m, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
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
        if (r < 0 || (m.msg_flags & MSG_CTRUNC))
                return -EPROTO;
        if (n == 0)
                return at > 0 ? -EPROTO : -EPIPE;
        return n;
}

static int64_t whole_size(Wire *w) {
        int64_t whole = w->whole_size(w->s->rx);

        return whole >= 0 && (whole < (int64_t) w->header_size || whole > WIRE_MESSAGE_MAX) ? -EPROTO
                                                                                            : whole;
}

/* Takes the bytes out of the socket that stand in rx already; their descriptors are here, too. */
static int take_out(Wire *w) {
        ssize_t n;

        n = recv(w->fd, w->s->rx, w->s->rx_size, MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        w->s->peeked = 0;
        return n == (ssize_t) w->s->rx_size ? 0 : -EPROTO;
}

/* The usual case, a message that is there as a whole: noted, then taken out. 1, 0 if it is not, or -errno. */
static int receive_whole(Wire *w) {
        WireState *s = w->s;
        int64_t whole;
        ssize_t n;
        int r;

        n = receive_some(w, 0, sizeof s->rx, MSG_PEEK);
        if (n <= 0)
                return (int) n;

        whole = n < (ssize_t) w->header_size ? INT64_MAX : whole_size(w);
        if (whole < 0)
                return (int) whole;
        if (whole > n) {
                close_fds(w); /* they come again with the bytes */
                return 0;
        }

        s->rx_fds = w->n_fds;
        s->rx_size = (uint32_t) whole;
        s->peeked = 1;
        r = take_out(w);
        return r < 0 ? r : 1;
}

int wire_receive(Wire *w) {
        WireState *s = w->s;
        int64_t whole;
        ssize_t n;
        int r;

        if (s->rx_size == 0) {
                r = receive_whole(w);
                if (r != 0)
                        return r;
        }

        /* in pieces: they have to be taken out, or they would keep us busy */
        for (;;) {
                whole = (int64_t) w->header_size;
                if (s->rx_size >= w->header_size)
                        whole = whole_size(w);
                if (whole < 0)
                        return (int) whole;
                if (s->rx_size >= w->header_size && s->rx_size == whole)
                        return 1;

                n = receive_some(w, s->rx_size, (size_t) whole - s->rx_size, 0);
                if (n <= 0)
                        return (int) n;
                s->rx_fds = w->n_fds;
                s->rx_size += (uint32_t) n;
        }
}

void wire_recover(Wire *w) {
        static uint8_t bytes[WIRE_MESSAGE_MAX];
        WireState *s = w->s;
        ssize_t n;

        if (!s->peeked)
                return;

        /* if it is still there it comes again, with its descriptors; a message differs from the next one, by its number */
        n = recv(w->fd, bytes, s->rx_size, MSG_PEEK | MSG_DONTWAIT);
        if (n == (ssize_t) s->rx_size && memcmp(bytes, s->rx, s->rx_size) == 0)
                s->rx_size = s->rx_fds = 0;
        s->peeked = 0;
}

void wire_consume(Wire *w) {
        close_fds(w);
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

int wire_fd_nonblock(int fd) {
        int flags = fcntl(fd, F_GETFL);

        return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -EINVAL : 0;
}
