/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* wire - messages with descriptors on a stream socket: a header that says how long the rest is.
 *
 * Message and answer lie in memory that outlives the process. Never reads beyond a message, and takes one out of the socket only after
 * it has been handled: a process that is killed loses none, nor the descriptors that came with it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_MESSAGE_MAX (17 * 1024)
#define WIRE_FDS_MAX     8 /* of one message, in both protocols */

typedef struct WireState {
        uint32_t rx_size, rx_fds; /* how many descriptors came with it */
        uint32_t tx_size, tx_sent;
        uint32_t peeked; /* the message in rx is in the socket, too, or was until a moment ago */
        uint32_t again;  /* the next one there was begun by an earlier process */
        uint8_t rx[WIRE_MESSAGE_MAX], tx[WIRE_MESSAGE_MAX];
} WireState;

typedef struct Wire {
        WireState *s;
        int fd; /* not ours to close */
        size_t header_size;
        int64_t (*whole_size)(
                const uint8_t
                        *header); /* of a message, with header; negative errno: there is no such message */

        /* Whether descriptors may come with a message; those that come with another are closed unseen, and what is behind it may have to
         * wait for what comes next. NULL: with all. */
        bool (*brings_fds)(const uint8_t *header);
        int fds[WIRE_FDS_MAX]; /* taken ones are -1 */
        unsigned n_fds;
        bool drained; /* nothing was behind the message when it was received; without: perhaps there was */
} Wire;

/* Finds out what an earlier process, which may have ended anywhere, left of a message. True: the next message to be received may have
 * been handled before, as far as it came. */
bool wire_recover(Wire *w);

/* 1: a message is in s->rx; 0: not yet; -errno: the connection is of no more use (-EPIPE: it was closed). */
int wire_receive(Wire *w);

/* The message in rx is answered by @size bytes in s->tx, which are to be sent once it is done. */
void wire_answer(Wire *w, size_t size);

/* The message was handled: takes it out of the socket, and forgets it. 0 or -errno. */
int wire_done(Wire *w);

/* Forgets the message and closes those of its descriptors that nobody took. */
void wire_consume(Wire *w);

/* Sends what is left in s->tx. 1: all; 0: not yet; -errno. */
int wire_send(Wire *w);

/* Descriptor @i of the message, the caller's from now on; -1 if there is none. */
int wire_take_fd(Wire *w, unsigned i);

/* A descriptor that came as one to be written to, whatever it is, is not to make us wait. 0 or -EINVAL. */
int wire_fd_nonblock(int fd);
