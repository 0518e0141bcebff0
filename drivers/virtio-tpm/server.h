/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* server - one VMM's connection: takes it, reads its messages, hands them to a front end, sends the answers. Also tells a machine that
 * was switched on from one that goes on: a VMM is a machine for as long as its process lives. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "drivers/virtio-tpm/device.h"
#include "drivers/virtio-tpm/loop.h"
#include "drivers/virtio-tpm/wire.h"

typedef struct Front {
        const char *name;
        size_t header_size;
        int64_t (*whole_size)(const uint8_t *header);
        bool (*brings_fds)(const uint8_t *header); /* Wire's */

        /* One message, in @w->s->rx; writes the answer, if there is one, to @w->s->tx. @again: an earlier process may have handled
         * it already and died before it answered. Negative: the connection is to be dropped. */
        int (*handle)(void *userdata, Wire *w, bool again);

        /* The connection is gone: everything that came over it is to be forgotten. */
        void (*closed)(void *userdata);
        void *userdata;
} Front;

typedef struct ServerState {
        uint32_t connected;
        int32_t machine; /* process id of the VMM that the TPM has been switched on for */
        WireState wire;
} ServerState;

typedef struct Server {
        ServerState *s;
        Loop *loop;
        Device *device;
        const Front *front;
        uid_t peer_uid; /* whom to let in besides root; (uid_t) -1: anyone who may connect */
        int listen_fd, client_fd, machine_fd;
        bool again, once; /* once: stop the loop when the VMM is gone */
        Wire wire;
        LoopSource listener, client;
} Server;

/* @v has its options set, the rest is zero. */
void server_init(Server *v, ServerState *s, Loop *loop, Device *device, const Front *front);
void server_done(Server *v);

/* Takes the descriptor. 0 or -errno. */
int server_listen(Server *v, int fd);

/* Serves @fd, which it takes. 0 or -errno. */
int server_accept(Server *v, int fd);

/* Goes on with the connection of an earlier process; @machine_fd may be -1. 0 or -errno. */
int server_resume(Server *v, int client_fd, int machine_fd);

/* Whether the process may end here without harm to the connection: no message is half read or half answered. */
bool server_is_between_messages(const Server *v);
