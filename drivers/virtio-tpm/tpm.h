/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* tpm - swtpm behind its control and data channels, driven without ever waiting for it.
 *
 * One exchange at a time. What must outlive the process is in TpmState. A TPM that broke (hung up, answered garbage) stays failed until
 * the machine is switched on anew: were it to come back earlier, the guest would run on with fresh PCRs. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/include/virtio_tpm.h"
#include "drivers/virtio-tpm/loop.h"

typedef enum TpmStep {
        TPM_OFF,        /* no power, nothing to wait for */
        TPM_CAPABILITY, /* from here: an answer on the control channel is due */
        TPM_DATAFD,
        TPM_BUFFERSIZE,
        TPM_INIT,
        TPM_STARTUP, /* from here: one on the data channel */
        TPM_LOCK,
        TPM_READY,
        TPM_FAILED,
        _TPM_STEP_MAX,
} TpmStep;

typedef struct TpmState {
        uint32_t step;
        uint32_t again; /* a power cycle is wanted once the present exchange is over */
        uint32_t sent; /* the present step's or command's bytes are on their way; without: for certain not */
        uint32_t busy; /* a response is due */
        uint32_t late; /* and its deadline has passed */
        uint32_t own_data; /* we made the data channel; else the parent did */
        uint32_t retries, reply_size, response_size;
        uint64_t deadline; /* loop_now() */
        uint8_t reply[16];
        uint8_t response[VIRTIO_TPM_MESSAGE_MAX];
} TpmState;

typedef struct TpmOps {
        void (*response)(void *userdata, const uint8_t *response, size_t size);
        void (*ready)(void *userdata); /* commands are taken */
        void (*late)(
                void *userdata); /* the command's deadline has passed; its response will be thrown away */
        void (*failed)(void *userdata); /* none will be, and there will be no response */
} TpmOps;

typedef struct TpmOptions {
        bool keep_platform; /* leave TPM2_Startup, and the platform hierarchy with its empty authorisation, to the guest */
        uint64_t deadline_ns; /* for one command */
} TpmOptions;

typedef struct Tpm {
        TpmState *s;
        Loop *loop;
        TpmOptions options;
        const TpmOps *ops;
        void *userdata;
        int ctrl_fd, data_fd;
        LoopSource ctrl, data;
        LoopTimer timer;
} Tpm;

/* @t is all zero but for options. */
void tpm_init(Tpm *t, TpmState *s, Loop *loop, const TpmOps *ops, void *userdata);
void tpm_done(Tpm *t);

/* Takes the descriptors, @data_fd may be -1: then the data channel is made with SET_DATAFD. Replaces the former ones, which fails the
 * TPM if it had power. @resume: they are those of the process before us (-1: lost, which fails it), and the state is to be gone on
 * with. 0 or -errno; -ENOTSOCK: nothing was replaced. */
int tpm_connect(Tpm *t, int ctrl_fd, int data_fd, bool resume);

/* Switches it off and on, as soon as the present command is over. ready() or failed() follows, perhaps from within. */
void tpm_power_cycle(Tpm *t);

bool tpm_ready(const Tpm *t); /* idle and able */
bool tpm_failed(const Tpm *t);
const char *tpm_step_name(const Tpm *t);

/* Sends a command of the guest; only if tpm_ready(). 0, or -errno: it is failed now, failed() is not called. */
int tpm_send(Tpm *t, const uint8_t *command, size_t size);
