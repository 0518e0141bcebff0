/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

/* What stands above is in the record before what stands below, at whatever instruction the process ends. */
#define RECORD() __asm__ volatile("" ::: "memory")

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

        do
                n = recvmsg(w->fd, &m, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return errno == EAGAIN ? 0 : -errno;

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

/* Looks at what is there. To look for descriptors, too, takes longer, which counts for a doorbell. */
static ssize_t look(Wire *w) {
        WireState *s = w->s;
        ssize_t n;

        n = w->brings_fds ? recv(w->fd, s->rx, sizeof s->rx, MSG_PEEK | MSG_DONTWAIT) : -1;
        if (n >= (ssize_t) w->header_size && !w->brings_fds(s->rx))
                return n;
        return receive_some(w, 0, sizeof s->rx, MSG_PEEK);
}

/* The usual case, a message that is there as a whole. 1, 0 if there is nothing, -EAGAIN if there is less, or -errno. */
static int receive_whole(Wire *w) {
        WireState *s = w->s;
        int64_t whole;
        ssize_t n;

        n = look(w);
        if (n <= 0)
                return (int) n;

        whole = n < (ssize_t) w->header_size ? INT64_MAX : whole_size(w);
        if (whole < 0)
                return (int) whole;
        if (whole > n) {
                close_fds(w); /* they come again with the bytes */
                return -EAGAIN;
        }

        /* a look into the socket ends behind bytes that came with descriptors */
        w->drained = whole == n && n < (ssize_t) sizeof s->rx && w->n_fds == 0;
        s->rx_fds = w->n_fds;
        s->peeked = 1; /* before its size: what has a size and was not peeked at has been taken out */
        RECORD();
        s->rx_size = (uint32_t) whole;
        RECORD();
        return 1;
}

int wire_receive(Wire *w) {
        WireState *s = w->s;
        int64_t whole;
        ssize_t n;
        int r;

        w->drained = false;
        if (s->rx_size == 0) {
                r = receive_whole(w);
                if (r != -EAGAIN)
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

/* Whether the message of rx is the next one in the socket. They differ by their numbers, or it makes no difference. */
static bool is_in_socket(const Wire *w) {
        static uint8_t bytes[WIRE_MESSAGE_MAX];
        const WireState *s = w->s;

        return recv(w->fd, bytes, s->rx_size, MSG_PEEK | MSG_DONTWAIT) == (ssize_t) s->rx_size &&
               memcmp(bytes, s->rx, s->rx_size) == 0;
}

bool wire_recover(Wire *w) {
        WireState *s = w->s;

        if (s->peeked && s->rx_size > 0) {
                bool there = is_in_socket(w);

                if (there && s->tx_size > 0)
                        (void) recv(w->fd, s->rx, s->rx_size, MSG_DONTWAIT); /* only this was left to do */
                /* else it comes again, with its descriptors; perhaps not to us, who may end before */
                s->again = there && s->tx_size == 0;
                RECORD();
                s->rx_size = s->rx_fds = 0;
                RECORD();
        }
        s->peeked = 0;

        /* one that was taken out in pieces stands there as a whole: it was perhaps handled, but not answered */
        if (s->rx_size > 0 && s->tx_size > 0)
                s->rx_size = s->rx_fds = 0;
        return s->again || s->rx_size > 0;
}

void wire_answer(Wire *w, size_t size) {
        w->s->tx_sent = 0;
        RECORD();
        w->s->tx_size = (uint32_t) size;
        RECORD();
}

int wire_done(Wire *w) {
        WireState *s = w->s;
        int r = 0;

        if (s->peeked) {
                ssize_t n = recv(w->fd, s->rx, s->rx_size, MSG_DONTWAIT);

                if (n < 0)
                        r = -errno;
                else if (n != (ssize_t) s->rx_size)
                        r = -EPROTO;
        }
        wire_consume(w);
        return r;
}

void wire_consume(Wire *w) {
        close_fds(w);
        w->s->again = 0;
        RECORD();
        w->s->rx_size = w->s->rx_fds = 0;
        RECORD();
        w->s->peeked = 0;
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
