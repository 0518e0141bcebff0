/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vfio_user - the server of the vfio-user protocol 0.0: the PCI function for QEMU's vfio-user-pci and others. */

#include <stdbool.h>
#include <stdint.h>

#include "drivers/virtio-tpm/pci.h"
#include "drivers/virtio-tpm/server.h"

typedef struct VfioUserState {
        uint32_t negotiated, reserved;
        PciState pci;
} VfioUserState;

typedef struct VfioUser {
        VfioUserState *s;
        Memory *memory;
        Pci pci;
        Front front;
} VfioUser;

/* @resume: *@s is what an earlier process left. */
void vfio_user_init(VfioUser *v, VfioUserState *s, Memory *memory, Device *device, bool resume);
void vfio_user_done(VfioUser *v);

/* Gives back the descriptor that an earlier process had stored under @name; takes it if it knows it. */
bool vfio_user_restore_fd(VfioUser *v, const char *name, int fd);
