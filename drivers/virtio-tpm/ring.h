/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* ring - a split virtqueue (virtio 1.x, little-endian) seen from the device. All in it is the guest's and hostile: each descriptor is
 * copied once and only the copy is used, a command is copied out before anybody looks at it, and nothing is written before. */

#include <stdbool.h>
#include <stdint.h>

#include "drivers/include/virtio_tpm.h"
#include "drivers/virtio-tpm/memory.h"

#define RING_SIZE_MAX     1024
#define RING_INDIRECT_MAX 1024
#define RING_SEGMENTS_MAX 1024

typedef struct Ring {
        uint64_t desc, avail, used; /* bus addresses */
        uint16_t size;
        uint16_t next_avail, next_used;
} Ring;

typedef struct RingSegment {
        uint64_t address;
        uint32_t size, reserved;
} RingSegment;

typedef struct RingChain {
        uint16_t head, index; /* the descriptor, and which request it was: the avail index */
        uint32_t malformed;   /* answer it, run nothing */
        uint32_t command_size, room, n_segments;
        uint8_t command[VIRTIO_TPM_MESSAGE_MAX];
        RingSegment segments[RING_SEGMENTS_MAX]; /* the first VIRTIO_TPM_MESSAGE_MAX bytes of the room */
} RingChain;

/* Whether the ring has a legal size and place. 0, -EINVAL or -EFAULT. */
int ring_check(const Ring *ring, const Memory *m);

/* Looks at the next request, without taking it. 1: in *@chain; 0: none; -EPROTO: the ring itself is broken, nothing in it can be
 * trusted any longer; -EFAULT: it is not mapped (now). */
int ring_peek(const Ring *ring, const Memory *m, bool indirect, RingChain *chain);

/* Takes it. */
void ring_take(Ring *ring, const RingChain *chain);

/* Writes a response of at most @chain->room bytes into the room. -EFAULT: nothing was written, the room is not mapped any longer. */
int ring_put(const Memory *m, const RingChain *chain, const uint8_t *response, uint32_t size);

/* Hands the chain back. -EFAULT: the ring is not mapped. */
int ring_complete(Ring *ring, const Memory *m, uint16_t head, uint32_t used);

/* Whether an earlier ring_complete() reached the guest, though its caller did not live to note it. */
bool ring_completed(const Ring *ring, const Memory *m);

/* Whether the driver wants to be told. */
bool ring_wants_interrupt(const Ring *ring, const Memory *m);
