/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* holds - what a guest has of ours while it runs, one small file per guest in a directory below /run: it outlives the
 * daemon, but not the host, as guests do. All functions block: file worker, but when the engine starts. */

#include <stdbool.h>
#include <stddef.h>

#include "base/uuid.h"
#include "core/tpm_model.h"

#define HOLD_NAME_MAX 256 /* bytes of the guest's name */

typedef enum HoldPhase {
        HOLD_NONE,
        HOLD_PREPARED,  /* libvirt was told that it may start */
        HOLD_RUNNING,   /* it was seen to run */
        HOLD_RELEASING, /* it has ended, what was started for it is being stopped; on disk as RUNNING */
        _HOLD_PHASE_MAX
} HoldPhase;

typedef struct Hold {
        Uuid guest;
        char name[HOLD_NAME_MAX + 1];
        HoldPhase phase;
        Uuid matrix;         /* null: none */
        bool matrix_started; /* for this guest, so that it is stopped after it */
        Uuid tpm;
        TpmModel model;
        bool tpm_started;
        bool unseen; /* found running: libvirt's hook had not told of it */
} Hold;

/* HOLD_NONE takes it away; taking away what is not there is no error. Atomic. 0 or -errno. */
int holds_set(int dir_fd, const Hold *h);

/* All that can be understood, in no order; free(*ret). *ret_bad: how many files cannot be. 0 or -errno. */
int holds_read(int dir_fd, Hold **ret, size_t *ret_n, size_t *ret_bad);
