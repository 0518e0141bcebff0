/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/ring.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>

#include "base/cleanup.h"

enum { AVAIL_FLAGS = 0, AVAIL_INDEX = 2, AVAIL_RING = 4, USED_INDEX = 2, USED_RING = 4 };

int ring_check(const Ring *ring, const Memory *m) {
        uint64_t size = ring->size;
        int r;

        if (size == 0 || size > RING_SIZE_MAX || (size & (size - 1)) != 0)
                return -EINVAL;
        if (ring->desc % 16 != 0 || ring->avail % 2 != 0 || ring->used % 4 != 0)
                return -EINVAL;

        r = memory_check(m, ring->desc, size * sizeof(struct vring_desc), MEMORY_READ);
        if (r >= 0)
                r = memory_check(m, ring->avail, AVAIL_RING + size * sizeof(__virtio16), MEMORY_READ);
        if (r >= 0)
                r = memory_check(m, ring->used, USED_RING + size * sizeof(struct vring_used_elem),
                                 MEMORY_WRITE);
        return r;
}

static int desc_read(const Memory *m, uint64_t table, uint16_t i, struct vring_desc *ret) {
        struct vring_desc d;
        int r;

        r = memory_read(m, table + i * sizeof d, &d, sizeof d);
        if (r < 0)
                return r;

        *ret = (struct vring_desc) { .addr = le64toh(d.addr),
                                     .len = le32toh(d.len),
                                     .flags = le16toh(d.flags),
                                     .next = le16toh(d.next) };
        return 0;
}

/* A whole command is wanted: what is longer than any makes the chain malformed, but not its room. */
static void take_readable(const Memory *m, const struct vring_desc *d, RingChain *chain) {
        if (chain->room > 0 || d->len > VIRTIO_TPM_MESSAGE_MAX - chain->command_size ||
            memory_read(m, d->addr, chain->command + chain->command_size, d->len) < 0)
                chain->malformed = 1;
        else
                chain->command_size += d->len;
}

static void take_writable(const Memory *m, const struct vring_desc *d, RingChain *chain) {
        uint32_t more = VIRTIO_TPM_MESSAGE_MAX - chain->room;

        if (memory_check(m, d->addr, d->len, MEMORY_WRITE) < 0 ||
            (more > 0 && d->len > 0 && chain->n_segments >= RING_SEGMENTS_MAX)) {
                chain->malformed = 1;
                return;
        }

        more = MIN(more, d->len);
        if (more > 0)
                chain->segments[chain->n_segments++] = (RingSegment) { .address = d->addr, .size = more };
        chain->room += more;
}

/* Whether @d may refer to a table of descriptors. The standard wants VRING_DESC_F_WRITE ignored here. */
static bool indirect_ok(const struct vring_desc *d) {
        return !(d->flags & VRING_DESC_F_NEXT) && d->len > 0 && d->len % sizeof *d == 0 &&
               d->len / sizeof *d <= RING_INDIRECT_MAX && d->len - 1 <= UINT64_MAX - d->addr;
}

int ring_peek(const Ring *ring, const Memory *m, bool indirect, RingChain *chain) {
        uint64_t table = ring->desc;
        uint32_t table_size = ring->size;
        bool nested = false, writable = false;
        uint16_t index, head, i;
        struct vring_desc d;
        int r;

        r = memory_read16(m, ring->avail + AVAIL_INDEX, &index);
        if (r < 0)
                return r;
        if (index == ring->next_avail)
                return 0;
        if ((uint16_t) (index - ring->next_avail) > ring->size)
                return -EPROTO;

        __atomic_thread_fence(__ATOMIC_ACQUIRE); /* what the index announces is to be read after it */
        r = memory_read16(m, ring->avail + AVAIL_RING + 2 * (uint64_t) (ring->next_avail % ring->size),
                          &head);
        if (r < 0)
                return r;
        if (head >= ring->size)
                return -EPROTO;

        chain->head = head;
        chain->index = ring->next_avail;
        chain->malformed = chain->command_size = chain->room = chain->n_segments = 0;

        i = head;
        for (uint32_t n = 1;; n++) {
                if (n > table_size)
                        break; /* a loop */

                r = desc_read(m, table, i, &d);
                if (r < 0 && !nested)
                        return r;
                if (r < 0)
                        break;

                if (d.flags & VRING_DESC_F_INDIRECT) {
                        if (nested || !indirect || !indirect_ok(&d))
                                break;
                        nested = true;
                        table = d.addr;
                        table_size = d.len / (uint32_t) sizeof d;
                        i = 0;
                        n = 0;
                        continue;
                }

                if (d.flags & VRING_DESC_F_WRITE) {
                        writable = true;
                        take_writable(m, &d, chain);
                } else {
                        if (writable)
                                chain->malformed = 1;
                        take_readable(m, &d, chain);
                }

                if (!(d.flags & VRING_DESC_F_NEXT))
                        return 1;
                i = d.next;
                if (i >= table_size)
                        break;
        }

        chain->malformed = 1;
        return 1;
}

void ring_take(Ring *ring, const RingChain *chain) {
        ring->next_avail = (uint16_t) (chain->index + 1);
}

int ring_put(const Memory *m, const RingChain *chain, const uint8_t *response, uint32_t size) {
        uint32_t left = size;

        for (uint32_t i = 0; i < chain->n_segments; i++)
                if (memory_check(m, chain->segments[i].address, chain->segments[i].size, MEMORY_WRITE) < 0)
                        return -EFAULT;

        for (uint32_t i = 0; i < chain->n_segments && left > 0; i++) {
                uint32_t n = MIN(left, chain->segments[i].size);
                int r;

                r = memory_write(m, chain->segments[i].address, response + (size - left), n);
                if (r < 0)
                        return r;
                left -= n;
        }
        return 0;
}

int ring_complete(Ring *ring, const Memory *m, uint16_t head, uint32_t used) {
        struct vring_used_elem e = { .id = htole32(head), .len = htole32(used) };
        int r;

        r = memory_write(m, ring->used + USED_RING + sizeof e * (uint64_t) (ring->next_used % ring->size),
                         &e, sizeof e);
        if (r < 0)
                return r;

        __atomic_thread_fence(__ATOMIC_RELEASE);
        r = memory_write16(m, ring->used + USED_INDEX, (uint16_t) (ring->next_used + 1));
        if (r < 0)
                return r;

        ring->next_used++;
        return 0;
}

bool ring_completed(const Ring *ring, const Memory *m) {
        uint16_t index;

        return memory_read16(m, ring->used + USED_INDEX, &index) >= 0 &&
               index == (uint16_t) (ring->next_used + 1);
}

bool ring_wants_interrupt(const Ring *ring, const Memory *m) {
        uint16_t flags;

        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the driver enables, then looks at the index */
        return memory_read16(m, ring->avail + AVAIL_FLAGS, &flags) < 0 ||
               !(flags & VRING_AVAIL_F_NO_INTERRUPT);
}
