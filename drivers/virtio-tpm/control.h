/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* control - a stream socket on which the owner asks. A request is a line, perhaps with descriptors; the answer is lines of NAME=VALUE
 * and a last line "ok" or "error TEXT".
 *
 *   status    what the device does, and its counters; never what passes through it
 *   drain     takes no further requests; answers once none is in flight
 *   resume    takes requests again
 *   watch     whether the guest has its TPM: "tpm" and "connected" of the status, now and whenever they have changed
 *   reset     the machine was really reset: so is the TPM, before its next command
 *   tpm       with one descriptor: another swtpm's control channel (with two: and its data channel), used from the next reset on
 */

#include <stdbool.h>

#include "drivers/virtio-tpm/device.h"
#include "drivers/virtio-tpm/loop.h"
#include "drivers/virtio-tpm/server.h"

#define CONTROL_CLIENTS_MAX 6
#define CONTROL_LINE_MAX    64

typedef struct ControlClient {
        struct Control *control;
        LoopSource source;
        int fds[2];
        unsigned n_fds;
        bool waits; /* for the drain */
        bool watches;
        size_t size;
        char line[CONTROL_LINE_MAX];
} ControlClient;

typedef struct Control {
        Loop *loop;
        Device *device;
        Server *server;
        int listen_fd;
        LoopSource listener;
        const char *tpm; /* as was told last */
        bool connected;
        ControlClient clients[CONTROL_CLIENTS_MAX];
} Control;

void control_init(Control *c, Loop *loop, Device *device, Server *server);
void control_done(Control *c);

/* Takes the descriptor. 0 or -errno. */
int control_listen(Control *c, int fd);
