/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fake_tpm - swtpm's two channels without swtpm, in the thread of the test: answers at the test's word, and wrongly if told so. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum FakeTpmFault {
        FAKE_TPM_GOOD,
        FAKE_TPM_HELD, /* takes commands, answers none until good again */
        FAKE_TPM_HALF, /* half a response, the rest when good again */
        FAKE_TPM_BYTEWISE,
        FAKE_TPM_SHORT_SIZE, /* a header that says 9 bytes */
        FAKE_TPM_LONG_SIZE,  /* one that says 4097 */
        FAKE_TPM_TRAILING,   /* a byte more than the header says */
        FAKE_TPM_DATA_HANGUP,
        FAKE_TPM_LAST_WORD, /* a good response, and a hang-up behind it */
        FAKE_TPM_CTRL_HANGUP,
        FAKE_TPM_CTRL_REFUSES,
        FAKE_TPM_CTRL_SILENT,
        FAKE_TPM_DATAFD_BUSY, /* SET_DATAFD fails, a few times */
} FakeTpmFault;

typedef struct FakeTpm {
        int ctrl_fd, data_fd;
        FakeTpmFault fault;
        bool pending;                                               /* a command waits for its answer */
        size_t answered;                                            /* of it */
        size_t response_size;                                       /* default 28 */
        unsigned n_init, n_commands, n_startups, n_locks, n_datafd; /* commands: the guest's */
        uint8_t command[8192];                                      /* the last one of the guest */
        size_t command_size;
} FakeTpm;

/* Returns the device's end of the control channel. */
int fake_tpm_init(FakeTpm *t);
void fake_tpm_done(FakeTpm *t);

/* Handles what has arrived. */
void fake_tpm_step(FakeTpm *t);
