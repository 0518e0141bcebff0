/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/vtpm_life/guest.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#define NO_SESSIONS   0x8001
#define SESSIONS      0x8002
#define RC_RETRY      0x922
#define PLATFORM      0x4000000c
#define OWNER         0x40000001
#define SHA256        0x000b
#define NV_ATTRIBUTES 0x00040004 /* written and read with the index's own, empty authorisation */

enum {
        CC_CLEAR_CONTROL = 0x127,
        CC_NV_DEFINE = 0x12a,
        CC_NV_WRITE = 0x137,
        CC_NV_READ = 0x14e,
        CC_NV_READ_PUBLIC = 0x169,
        CC_READ_PUBLIC = 0x173,
        CC_GET_RANDOM = 0x17b,
        CC_PCR_READ = 0x17e,
        CC_PCR_EXTEND = 0x182,
};

typedef struct Buffer {
        uint8_t bytes[1024];
        size_t size;
} Buffer;

static void put(Buffer *b, uint32_t value, unsigned size) {
        while (size-- > 0)
                b->bytes[b->size++] = (uint8_t) (value >> 8 * size);
}

static void begin(Buffer *b, uint32_t tag, uint32_t code) {
        b->size = 0;
        put(b, tag, 2);
        put(b, 0, 4);
        put(b, code, 4);
}

/* An empty password. */
static void put_authorisation(Buffer *b) {
        put(b, 9, 4);
        put(b, 0x40000009, 4);
        put(b, 0, 2);
        put(b, 0, 1);
        put(b, 0, 2);
}

static uint32_t get(const Buffer *b, size_t at, unsigned size) {
        uint32_t v = 0;

        for (unsigned i = 0; i < size; i++)
                v = v << 8 | b->bytes[at + i];
        return v;
}

static uint32_t run(Vmm *v, Buffer *b) {
        Buffer command = *b;
        size_t size = b->size;
        uint32_t r;
        int n;

        command.size = 2;
        put(&command, (uint32_t) size, 4);
        do { /* it may want to test itself first */
                n = vmm_command(v, command.bytes, size, b->bytes, sizeof b->bytes, VMM_PATIENCE_MS);
                if (n < 10)
                        vmm_tell(v);
                assert(n >= 10);
                r = get(b, 6, 4);
        } while (r == RC_RETRY);
        b->size = (size_t) n;
        return r;
}

void guest_open(Vmm *v, Life *l, Uuid uuid) {
        int fd = life_connect(life_run_file(l, uuid, "device.sock"));

        assert(fd >= 0);
        vmm_init(v, false, fd, life_pump,
                 l); /* the device tells its manager what it does, and waits for it */
        v->patient = true;
        assert(vmm_start(v) == 0);
}

uint32_t guest_random(Vmm *v) {
        Buffer b;

        begin(&b, NO_SESSIONS, CC_GET_RANDOM);
        put(&b, 16, 2);
        return run(v, &b);
}

uint32_t guest_extend(Vmm *v, unsigned pcr) {
        Buffer b;

        begin(&b, SESSIONS, CC_PCR_EXTEND);
        put(&b, pcr, 4);
        put_authorisation(&b);
        put(&b, 1, 4);
        put(&b, SHA256, 2);
        for (unsigned i = 0; i < 32; i++)
                put(&b, i, 1);
        return run(v, &b);
}

uint32_t guest_read_pcr(Vmm *v, unsigned pcr, uint8_t ret[static 32]) {
        uint32_t r;
        Buffer b;

        begin(&b, NO_SESSIONS, CC_PCR_READ);
        put(&b, 1, 4);
        put(&b, SHA256, 2);
        put(&b, 3, 1);
        for (unsigned i = 0; i < 3; i++)
                put(&b, pcr / 8 == i ? 1U << pcr % 8 : 0, 1);
        r = run(v, &b);
        if (r == 0)
                memcpy(ret, b.bytes + b.size - 32, 32); /* the digest is the last of it */
        return r;
}

uint32_t guest_key_name(Vmm *v, uint32_t handle, uint8_t ret[static GUEST_NAME_MAX], size_t *ret_size) {
        size_t at;
        uint32_t r;
        Buffer b;

        begin(&b, NO_SESSIONS, CC_READ_PUBLIC);
        put(&b, handle, 4);
        r = run(v, &b);
        if (r != 0)
                return r;
        at = 10 + 2 + get(&b, 10, 2); /* after the public part */
        *ret_size = get(&b, at, 2);
        assert(*ret_size <= GUEST_NAME_MAX);
        memcpy(ret, b.bytes + at + 2, *ret_size);
        return 0;
}

uint32_t guest_nv_public(Vmm *v, uint32_t index) {
        Buffer b;

        begin(&b, NO_SESSIONS, CC_NV_READ_PUBLIC);
        put(&b, index, 4);
        return run(v, &b);
}

uint32_t guest_clear_control(Vmm *v) {
        Buffer b;

        begin(&b, SESSIONS, CC_CLEAR_CONTROL);
        put(&b, PLATFORM, 4);
        put_authorisation(&b);
        put(&b, 0, 1);
        return run(v, &b);
}

uint32_t guest_nv_write(Vmm *v, uint32_t index, const char data[static 8]) {
        uint32_t r;
        Buffer b;

        begin(&b, SESSIONS, CC_NV_DEFINE);
        put(&b, OWNER, 4);
        put_authorisation(&b);
        put(&b, 0, 2);  /* the index's authorisation */
        put(&b, 14, 2); /* its public part */
        put(&b, index, 4);
        put(&b, SHA256, 2);
        put(&b, NV_ATTRIBUTES, 4);
        put(&b, 0, 2);
        put(&b, 8, 2);
        r = run(v, &b);
        if (r != 0)
                return r;

        begin(&b, SESSIONS, CC_NV_WRITE);
        put(&b, index, 4);
        put(&b, index, 4);
        put_authorisation(&b);
        put(&b, 8, 2);
        for (unsigned i = 0; i < 8; i++)
                put(&b, (uint8_t) data[i], 1);
        put(&b, 0, 2);
        return run(v, &b);
}

uint32_t guest_nv_read(Vmm *v, uint32_t index, char ret[static 8]) {
        uint32_t r;
        Buffer b;

        begin(&b, SESSIONS, CC_NV_READ);
        put(&b, index, 4);
        put(&b, index, 4);
        put_authorisation(&b);
        put(&b, 8, 2);
        put(&b, 0, 2);
        r = run(v, &b);
        if (r == 0) /* after the header, the parameters' size, and their own */
                memcpy(ret, b.bytes + 16, 8);
        return r;
}
