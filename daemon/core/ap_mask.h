/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* ap_mask - a set of 256 AP ids (adapters or domains). Id 0 is the most significant bit of word 0, as in the
 * hardware and in the kernel's masks. Pure: no I/O, no allocation, no logging. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AP_IDS              256
#define AP_MASK_STRING_SIZE 67               /* "0x", 64 digits, NUL */
#define AP_MASK_LIST_SIZE   (AP_IDS * 5 + 1) /* longest list: 128 times "0xNN-0xNN"/"0xNN," and NUL */

typedef struct ApMask {
        uint64_t w[AP_IDS / 64];
} ApMask;

#define AP_MASK_ALL ((ApMask) { { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX } })

static inline bool ap_mask_test(const ApMask *m, uint8_t id) {
        return m->w[id / 64] >> (63 - id % 64) & 1;
}

static inline void ap_mask_set(ApMask *m, uint8_t id) {
        m->w[id / 64] |= UINT64_C(1) << (63 - id % 64);
}

static inline void ap_mask_clear(ApMask *m, uint8_t id) {
        m->w[id / 64] &= ~(UINT64_C(1) << (63 - id % 64));
}

static inline bool ap_mask_is_empty(const ApMask *m) {
        return (m->w[0] | m->w[1] | m->w[2] | m->w[3]) == 0;
}

bool ap_mask_equal(const ApMask *a, const ApMask *b);

static inline ApMask ap_mask_and(const ApMask *a, const ApMask *b) {
        return (ApMask) { { a->w[0] & b->w[0], a->w[1] & b->w[1], a->w[2] & b->w[2], a->w[3] & b->w[3] } };
}

static inline ApMask ap_mask_or(const ApMask *a, const ApMask *b) {
        return (ApMask) { { a->w[0] | b->w[0], a->w[1] | b->w[1], a->w[2] | b->w[2], a->w[3] | b->w[3] } };
}

static inline ApMask ap_mask_and_not(const ApMask *a, const ApMask *b) {
        return (ApMask) { { a->w[0] & ~b->w[0], a->w[1] & ~b->w[1], a->w[2] & ~b->w[2],
                            a->w[3] & ~b->w[3] } };
}

static inline bool ap_mask_intersects(const ApMask *a, const ApMask *b) {
        return ((a->w[0] & b->w[0]) | (a->w[1] & b->w[1]) | (a->w[2] & b->w[2]) | (a->w[3] & b->w[3])) != 0;
}

unsigned ap_mask_count(const ApMask *m);

/* The smallest id >= @from in the set; AP_IDS if there is none. */
static inline unsigned ap_mask_next(const ApMask *m, unsigned from) {
        while (from < AP_IDS) {
                uint64_t rest = m->w[from / 64] << from % 64;

                if (rest != 0)
                        return from + (unsigned) __builtin_clzll(rest);
                from = (from / 64 + 1) * 64;
        }

        return AP_IDS;
}

#define AP_MASK_FOREACH(id, m) \
        for (unsigned id = ap_mask_next((m), 0); id < AP_IDS; id = ap_mask_next((m), id + 1))

/* The set of ids 0..@last. */
ApMask ap_mask_up_to(uint8_t last);

/* The kernel's absolute form: optional "0x", 1..64 hex digits, left-aligned (a short one is padded with
 * zeros on the right), one optional newline at the end. -EINVAL: not a mask; -ERANGE: too long. *ret is
 * untouched on error. */
int ap_mask_parse(const char *s, ApMask *ret);

/* The same of the @n bytes at @s, all of them digits but for the "0x": no newline. */
int ap_mask_parse_n(const char *s, size_t n, ApMask *ret);

/* "0x" and 64 lower-case digits. Returns @buf. */
char *ap_mask_format(const ApMask *m, char buf[static AP_MASK_STRING_SIZE]);

/* A person's list: numbers in decimal or with 0x, ranges, commas ("1,3,0x10-0x13"); ids may repeat. An
 * octal-looking "010" is refused, since the kernel would read it as 8. -EINVAL: not such a list, or
 * empty; -ERANGE: an id above 255 or a range that runs backwards. *ret is untouched on error. */
int ap_mask_parse_list(const char *s, ApMask *ret);

/* The inverse, "0x04,0x10-0x13"; "" for the empty set. Returns @buf. */
char *ap_mask_format_list(const ApMask *m, char buf[static AP_MASK_LIST_SIZE]);

/* From numbers as a client sends them. -E2BIG: more than 256; -ERANGE: one above 255; -EEXIST: one twice.
 * *ret is untouched on error. */
int ap_mask_from_ids(const uint16_t *ids, size_t n, ApMask *ret);

/* Writes the ids in ascending order; returns how many. */
size_t ap_mask_to_ids(const ApMask *m, uint16_t ids[static AP_IDS]);
