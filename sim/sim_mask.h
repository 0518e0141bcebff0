/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim_mask - 256 bits and numbers as the kernel parses them. Own code, not core/'s: the model has to be
 * wrong independently. Bit 0 is the most significant bit of word 0. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_IDS            256u
#define SIM_MASK_TEXT_SIZE 67 /* 0x, 64 digits, NUL */

typedef struct SimMask {
        uint64_t w[SIM_IDS / 64];
} SimMask;

static inline bool sim_mask_get(const SimMask *m, unsigned id) {
        return (m->w[id / 64] >> (63 - id % 64)) & 1;
}

static inline void sim_mask_set(SimMask *m, unsigned id, bool value) {
        uint64_t bit = UINT64_C(1) << (63 - id % 64);

        if (value)
                m->w[id / 64] |= bit;
        else
                m->w[id / 64] &= ~bit;
}

bool sim_mask_empty(const SimMask *m);
bool sim_mask_full(const SimMask *m);
bool sim_mask_equal(const SimMask *a, const SimMask *b);
SimMask sim_mask_and(const SimMask *a, const SimMask *b);
SimMask sim_mask_and_not(const SimMask *a, const SimMask *b);

/* The first id at or above @from, SIM_IDS if there is none. */
unsigned sim_mask_next(const SimMask *m, unsigned from);

#define SIM_MASK_FOREACH(id, m) \
        for (unsigned id = sim_mask_next(m, 0); id < SIM_IDS; id = sim_mask_next(m, id + 1))

char *sim_mask_format(const SimMask *m, char buf[static SIM_MASK_TEXT_SIZE]);

/* Absolute: optional 0x or x, up to 64 digits, left-aligned, optional newline. -EINVAL. */
int sim_mask_parse_hex(const char *s, SimMask *ret);

/* Absolute, or a list of +n -n +a-b changing @old. -EINVAL. */
int sim_mask_parse(const char *s, const SimMask *old, SimMask *ret);

/* kstrtoul() with base 0: octal and hex prefixes, a sign +, one newline. -EINVAL, -ERANGE. */
int sim_parse_number(const char *s, uint64_t *ret);
