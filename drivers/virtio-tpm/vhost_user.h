/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vhost_user - the back end of the vhost-user protocol, for VMMs that make the PCI function themselves. */

#include <stdbool.h>
#include <stdint.h>

#include "drivers/virtio-tpm/server.h"

#define VHOST_USER_SLOTS 32

typedef struct VhostUserRegion {
        uint64_t guest, size, user; /* the ring's addresses are in the VMM's own address space */
} VhostUserRegion;

typedef struct VhostUserState {
        uint64_t features, protocol;
        uint64_t desc, avail, used; /* user addresses */
        uint32_t size, base, rebase, enabled, kicked, have_address, n_regions, reserved;
        VhostUserRegion regions[VHOST_USER_SLOTS];
} VhostUserState;

typedef struct VhostUser {
        VhostUserState *s;
        Memory *memory;
        Device *device;
        Loop *loop;
        int call_fd, error_fd;
        LoopSource kick;
        Front front;
} VhostUser;

/* @resume: *@s is what an earlier process left. */
void vhost_user_init(VhostUser *v, VhostUserState *s, Memory *memory, Device *device, Loop *loop,
                     bool resume);
void vhost_user_done(VhostUser *v);

/* Gives back the descriptor that an earlier process had stored under @name; takes it if it knows it. */
bool vhost_user_restore_fd(VhostUser *v, const char *name, int fd);
