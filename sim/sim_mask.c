/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "sim/sim_mask.h"

bool sim_mask_empty(const SimMask *m) {
        return !(m->w[0] | m->w[1] | m->w[2] | m->w[3]);
}

bool sim_mask_full(const SimMask *m) {
        return (m->w[0] & m->w[1] & m->w[2] & m->w[3]) == UINT64_MAX;
}

bool sim_mask_equal(const SimMask *a, const SimMask *b) {
        return memcmp(a, b, sizeof *a) == 0;
}

SimMask sim_mask_and(const SimMask *a, const SimMask *b) {
        SimMask r;

        for (size_t i = 0; i < SIM_IDS / 64; i++)
                r.w[i] = a->w[i] & b->w[i];
        return r;
}

SimMask sim_mask_and_not(const SimMask *a, const SimMask *b) {
        SimMask r;

        for (size_t i = 0; i < SIM_IDS / 64; i++)
                r.w[i] = a->w[i] & ~b->w[i];
        return r;
}

unsigned sim_mask_next(const SimMask *m, unsigned from) {
        while (from < SIM_IDS) {
                uint64_t w = m->w[from / 64] << (from % 64);

                if (w)
                        return from + (unsigned) __builtin_clzll(w);
                from = (from / 64 + 1) * 64;
        }
        return SIM_IDS;
}

char *sim_mask_format(const SimMask *m, char buf[static SIM_MASK_TEXT_SIZE]) {
        char *p = buf;

        *p++ = '0';
        *p++ = 'x';
        for (size_t i = 0; i < SIM_IDS / 64; i++)
                for (int shift = 60; shift >= 0; shift -= 4)
                        *p++ = "0123456789abcdef"[(m->w[i] >> shift) & 15];
        *p = 0;
        return buf;
}

static unsigned digit(char c) {
        return isdigit((unsigned char) c) ? (unsigned) (c - '0')
                                          : (unsigned) (tolower((unsigned char) c) - 'a' + 10);
}

int sim_mask_parse_hex(const char *s, SimMask *ret) {
        SimMask m = {};

        if (s[0] == '0' && s[1] == 'x')
                s++;
        if (*s == 'x')
                s++;
        for (unsigned i = 0; i < SIM_IDS / 4 && isxdigit((unsigned char) *s); i++, s++)
                m.w[i / 16] |= (uint64_t) digit(*s) << (60 - i % 16 * 4);
        if (*s == '\n')
                s++;
        if (*s)
                return -EINVAL;
        *ret = m;
        return 0;
}

/* simple_strtoul() with base 0, as far as ids go: saturates far above SIM_IDS. NULL: no digit. */
static const char *parse_id(const char *s, unsigned *ret) {
        unsigned base = 10, v = 0;
        const char *start;

        if (s[0] == '0') {
                base = 8;
                if ((s[1] == 'x' || s[1] == 'X') && isxdigit((unsigned char) s[2])) {
                        base = 16;
                        s += 2;
                }
        }
        for (start = s; isxdigit((unsigned char) *s) && digit(*s) < base; s++)
                if (v < 1u << 20)
                        v = v * base + digit(*s);
        if (s == start)
                return NULL;
        *ret = v;
        return s;
}

int sim_mask_parse(const char *s, const SimMask *old, SimMask *ret) {
        SimMask m = *old;

        if (*s != '+' && *s != '-')
                return sim_mask_parse_hex(s, ret);

        while (*s) {
                char sign = *s++;
                unsigned from, to;

                if (sign != '+' && sign != '-')
                        return -EINVAL;
                s = parse_id(s, &from);
                if (!s || from >= SIM_IDS)
                        return -EINVAL;
                to = from;
                if (*s == '-') {
                        s = parse_id(s + 1, &to);
                        if (!s || to >= SIM_IDS || from > to)
                                return -EINVAL;
                }
                for (unsigned id = from; id <= to; id++)
                        sim_mask_set(&m, id, sign == '+');
                while (*s == ',' || *s == '\n')
                        s++;
        }
        *ret = m;
        return 0;
}

int sim_parse_number(const char *s, uint64_t *ret) {
        unsigned base = 10;
        uint64_t v = 0;
        bool any = false, overflow = false;

        if (*s == '+')
                s++;
        if (s[0] == '0') {
                base = 8;
                if ((s[1] == 'x' || s[1] == 'X') && isxdigit((unsigned char) s[2])) {
                        base = 16;
                        s += 2;
                }
        }
        for (; isxdigit((unsigned char) *s) && digit(*s) < base; s++) {
                any = true;
                if (__builtin_mul_overflow(v, (uint64_t) base, &v) ||
                    __builtin_add_overflow(v, (uint64_t) digit(*s), &v))
                        overflow = true;
        }
        if (overflow)
                return -ERANGE;
        if (*s == '\n')
                s++;
        if (!any || *s)
                return -EINVAL;
        *ret = v;
        return 0;
}
