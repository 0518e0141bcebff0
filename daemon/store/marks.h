/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* marks - what is live by our doing, one small file per mdev in a directory below /run: like the mdevs,
 * it does not survive a reboot, and unlike the daemon's memory, it survives the daemon. All functions
 * block: file worker, but when the engine starts. */

#include <stddef.h>

#include "base/uuid.h"

typedef enum MarkKind {
        MARK_NONE,
        MARK_PENDING, /* a definition to be started at this boot that never was yet */
        MARK_LIVE,    /* a definition that was started and not stopped */
        MARK_MDEV,    /* an mdev without definition that we made */
        _MARK_KIND_MAX
} MarkKind;

typedef struct Mark {
        Uuid uuid;
        MarkKind kind;
} Mark;

/* MARK_NONE takes it away; taking away what is not there is no error. Atomic. 0 or -errno. */
int marks_set(int dir_fd, Uuid uuid, MarkKind kind);

/* All of them, in no order; files that are no marks are ignored. free(*ret). 0 or -errno. */
int marks_read(int dir_fd, Mark **ret, size_t *ret_n);

/* Whether this boot's autostart list has been made (the marks of kind PENDING). */
int marks_is_booted(int dir_fd);
int marks_set_booted(int dir_fd);
