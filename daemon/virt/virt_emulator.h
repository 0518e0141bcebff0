/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_emulator - which TPM devices a QEMU has. libvirt knows nothing of vfio-user, so that the program itself is asked. */

#include <stdbool.h>

typedef struct Emulator {
        bool vfio_user, crb, tis;
        char version[32]; /* "11.1.3", or "" */
} Emulator;

/* Runs "PATH -device help" and "PATH --version", unless the file is as it was when it was asked before. Blocks, for some
 * seconds at most. -errno; -ETIME: it did not end; -EBADMSG: it is no QEMU. */
int emulator_ask(const char *path, Emulator *ret);
