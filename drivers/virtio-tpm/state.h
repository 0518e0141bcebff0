/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* state - all that outlives the process, in one memory file that the service manager keeps. The parts work in it directly: there is
 * no moment at which it would have to be saved. */

#include "drivers/virtio-tpm/device.h"
#include "drivers/virtio-tpm/memory.h"
#include "drivers/virtio-tpm/server.h"
#include "drivers/virtio-tpm/tpm.h"
#include "drivers/virtio-tpm/vfio_user.h"
#include "drivers/virtio-tpm/vhost_user.h"

/* Changes whenever the layout does; a process that finds another one does not go on with it. */
#define STATE_VERSION 2

typedef enum FrontKind { FRONT_VFIO_USER, FRONT_VHOST_USER, _FRONT_KIND_MAX } FrontKind;

typedef struct State {
        uint32_t magic, version, size, front;
        uint32_t unsaid,
                reserved; /* the service manager does not have all descriptors that belong to this */
        ServerState server;
        union {
                VfioUserState vfio;
                VhostUserState vhost;
        };
        TpmState tpm;
        DeviceState device;
        MemoryTable memory; /* last: hardly ever used as a whole */
} State;

/* An empty one; its descriptor is in *ret_fd. 0 or -errno. */
int state_new(FrontKind front, State **ret, int *ret_fd);

/* What an earlier process left in @fd. -ESTALE: of another version or front end, or not to be gone on with. The descriptor stays the caller's. */
int state_adopt(FrontKind front, int fd, State **ret);

/* Accepts NULL, returns NULL. */
State *state_unmap(State *s);
