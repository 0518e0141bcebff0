/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* device - the virtio device itself: one queue, one TPM, the request between them. Knows no transport: a front end sets registers,
 * kicks, and is asked to raise interrupts.
 *
 * The request in flight is recorded before the TPM sees a byte of it, and stays recorded until the guest has the answer: whoever goes
 * on with DeviceState after a crash runs no command twice. */

#include <stdbool.h>
#include <stdint.h>

#include "drivers/virtio-tpm/memory.h"
#include "drivers/virtio-tpm/ring.h"
#include "drivers/virtio-tpm/tpm.h"

#define DEVICE_LATENCY_BUCKETS 24 /* of 2^n microseconds */
#define DEVICE_DENIED_MAX      64

typedef enum DevicePhase {
        DEVICE_IDLE,
        DEVICE_QUEUED,  /* taken from the ring, waits for the TPM to be ready */
        DEVICE_SENDING, /* the TPM may or may not have seen it: TpmState.sent */
        DEVICE_SENT,
        DEVICE_DONE, /* the response is here */
} DevicePhase;

typedef struct DeviceCounters {
        uint64_t commands, bytes_in, bytes_out, malformed, denied, failed, too_large, dropped, late;
        uint64_t driver_resets, machine_resets, connections, restarts, broken_rings;
        uint64_t latency_sum_ns, latency_max_ns, latency[DEVICE_LATENCY_BUCKETS];
} DeviceCounters;

typedef struct DeviceState {
        uint64_t features; /* negotiated */
        uint32_t status;   /* VIRTIO_CONFIG_S_* */
        uint32_t running;  /* the front end wants the ring worked off */
        uint32_t broken;   /* and it is not fit for it, until a reset */
        uint32_t phase;
        uint32_t attached;  /* the ring waits for the answer to the request in flight */
        uint32_t resumable; /* a detached one may be asked for again, by the same index and bytes */
        uint32_t answering; /* its answer is being put into the ring, at used index used_at */
        uint32_t used_at;
        uint32_t response_size;
        uint32_t
                unsure; /* a process ended while it sent the request in flight: the TPM may never have seen it */
        uint64_t since;
        Ring ring;
        DeviceCounters counters;
        RingChain chain;
        uint8_t response[VIRTIO_TPM_MESSAGE_MAX];
} DeviceState;

typedef struct Device Device;

typedef struct DeviceOps {
        void (*used)(void *userdata);   /* interrupt the driver: a request was answered */
        void (*broken)(void *userdata); /* tell it: needs reset */
} DeviceOps;

struct Device {
        DeviceState *s;
        Memory *memory;
        Tpm *tpm;
        const DeviceOps *ops;
        void *userdata;
        uint64_t offered; /* feature bits */
        uint32_t denied[DEVICE_DENIED_MAX];
        unsigned n_denied;
        bool draining;                /* take nothing new */
        void (*idle)(void *userdata); /* nothing is in flight; may be NULL */
        void *idle_userdata;
        LoopTimer more; /* the ring has more than one round should handle */
        RingChain scratch;
};

/* For tpm_init(), with the Device as userdata. */
extern const TpmOps device_tpm_ops;

/* @d has its tpm, memory and offered set. */
void device_init(Device *d, DeviceState *s, Loop *loop);
void device_set_front(Device *d, const DeviceOps *ops, void *userdata);

/* Makes of what an earlier process left in *@d->s, at whatever instruction it ended, something to go on with; needs the memory. */
void device_restore(Device *d);

/* And goes on; needs the TPM. */
void device_resume(Device *d);

/* The driver reset the device: the ring is forgotten, the TPM notices nothing. */
void device_reset(Device *d);

/* A machine was switched on, or really reset: the TPM is, too, before the next command. */
void device_machine_reset(Device *d);

/* Starts or goes on with the ring; -EINVAL, -EFAULT: it is none, the device stays stopped. */
int device_start(Device *d);

/* Nothing of the guest's memory is touched until the next device_start(): what is in flight stays so, its answer waits. */
void device_hold(Device *d);

/* Stops without a reset. What is in flight goes on, detached. Returns the index at which the ring is to be started again. */
uint16_t device_stop(Device *d);

/* There may be something in the ring. */
void device_kick(Device *d);

void device_set_draining(Device *d, bool draining);
bool device_is_idle(const Device *d);
