/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* test - cmocka with what it needs, and numbers that are random but the same in every run. */

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For table tests: says which case it was. */
#define assert_case(name, condition) \
        do { \
                if (!(condition)) \
                        fail_msg("case '%s': %s", (name), #condition); \
        } while (0)

typedef struct Rng {
        uint64_t state;
} Rng;

/* The seed of this run: $SEED or always the same. */
static inline Rng rng_new(void) {
        const char *seed = getenv("SEED");

        return (Rng) { seed ? strtoull(seed, NULL, 0) : 20240229 };
}

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static inline uint64_t rng_next(Rng *r) {
        uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

static inline unsigned rng_below(Rng *r, unsigned n) {
        return (unsigned) (rng_next(r) >> 32) % n;
}

static inline bool rng_one_in(Rng *r, unsigned n) {
        return rng_below(r, n) == 0;
}
