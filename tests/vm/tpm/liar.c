/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* liar - guestcrypt-tpm, but for what it says to a driver that asks for so many random bytes: each LIE is one that a driver has to
 * survive. Made by putting these functions in front of the ring's own (the linker's --wrap). */
#include <errno.h>
#include <string.h>

#include "drivers/virtio-tpm/codec.h"
#include "drivers/virtio-tpm/ring.h"

#define CC_GET_RANDOM   0x17b
#define GET_RANDOM_SIZE 12

/* The stage "lies" of guest/stages.sh counts on these. */
typedef enum Lie {
        USED_NONE = 33,
        USED_HALF_A_HEADER,
        USED_LESS,
        USED_MORE_THAN_ROOM,
        USED_HUGE,
        SIZE_NONE,
        SIZE_MORE,
        SIZE_HUGE,
        ANOTHER_HEAD,
        TWICE,
        NOTHING_BUT_AN_INTERRUPT,
} Lie;

/* What the request that is answered now asks for; 0: the truth. */
static unsigned lie;

int __real_ring_put(const Memory *m, const RingChain *chain, const uint8_t *response, uint32_t size);
int __wrap_ring_put(const Memory *m, const RingChain *chain, const uint8_t *response, uint32_t size);
int __real_ring_complete(Ring *ring, const Memory *m, uint16_t head, uint32_t used);
int __wrap_ring_complete(Ring *ring, const Memory *m, uint16_t head, uint32_t used);

int __wrap_ring_put(const Memory *m, const RingChain *chain, const uint8_t *response, uint32_t size) {
        uint8_t copy[VIRTIO_TPM_MESSAGE_MAX];

        lie = 0;
        if (chain->command_size == GET_RANDOM_SIZE && codec_code(chain->command) == CC_GET_RANDOM)
                lie = chain->command[VIRTIO_TPM_HEADER_SIZE + 1];

        if (size < VIRTIO_TPM_HEADER_SIZE || size > sizeof copy)
                return -EINVAL;
        memcpy(copy, response, size);
        if (lie == SIZE_NONE)
                codec_put32(copy + VIRTIO_TPM_HEADER_AT_SIZE, 0);
        else if (lie == SIZE_MORE)
                codec_put32(copy + VIRTIO_TPM_HEADER_AT_SIZE, size + 1);
        else if (lie == SIZE_HUGE)
                codec_put32(copy + VIRTIO_TPM_HEADER_AT_SIZE, UINT32_MAX);
        return __real_ring_put(m, chain, copy, size);
}

int __wrap_ring_complete(Ring *ring, const Memory *m, uint16_t head, uint32_t used) {
        int r;

        switch (lie) {
        case USED_NONE:
                return __real_ring_complete(ring, m, head, 0);
        case USED_HALF_A_HEADER:
                return __real_ring_complete(ring, m, head, VIRTIO_TPM_HEADER_SIZE - 1);
        case USED_LESS:
                return __real_ring_complete(ring, m, head, used - 1);
        case USED_MORE_THAN_ROOM:
                return __real_ring_complete(ring, m, head, VIRTIO_TPM_MESSAGE_MAX + 1);
        case USED_HUGE:
                return __real_ring_complete(ring, m, head, UINT32_MAX);
        case ANOTHER_HEAD:
                return __real_ring_complete(ring, m, (uint16_t) (head + ring->size), used);
        case TWICE:
                r = __real_ring_complete(ring, m, head, used);
                return r < 0 ? r : __real_ring_complete(ring, m, head, used);
        case NOTHING_BUT_AN_INTERRUPT:
                return 0;
        default:
                return __real_ring_complete(ring, m, head, used);
        }
}
