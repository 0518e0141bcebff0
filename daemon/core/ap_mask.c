/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/ap_mask.h"

#include <errno.h>
#include <string.h>

#define MASK_DIGITS (AP_IDS / 4)

static const char hex_digits[] = "0123456789abcdef";

static int hex_value(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

bool ap_mask_equal(const ApMask *a, const ApMask *b) {
        return ((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3])) == 0;
}

unsigned ap_mask_count(const ApMask *m) {
        unsigned n = 0;

        for (size_t i = 0; i < AP_IDS / 64; i++)
                n += (unsigned) __builtin_popcountll(m->w[i]);
        return n;
}

ApMask ap_mask_up_to(uint8_t last) {
        ApMask m = {};

        for (unsigned i = 0; i <= last / 64u; i++)
                m.w[i] = UINT64_MAX;
        m.w[last / 64] <<= 63 - last % 64;
        return m;
}

int ap_mask_parse_n(const char *s, size_t n, ApMask *ret) {
        ApMask m = {};

        if (n >= 2 && s[0] == '0' && s[1] == 'x') {
                s += 2;
                n -= 2;
        }
        if (n == 0)
                return -EINVAL;

        for (size_t i = 0; i < n; i++) {
                int v = hex_value(s[i]);

                if (v < 0)
                        return -EINVAL;
                if (i < MASK_DIGITS)
                        m.w[i / 16] |= (uint64_t) v << (60 - 4 * (i % 16));
        }
        if (n > MASK_DIGITS)
                return -ERANGE;

        *ret = m;
        return 0;
}

int ap_mask_parse(const char *s, ApMask *ret) {
        size_t n = strlen(s);

        if (n > 0 && s[n - 1] == '\n')
                n--;
        return ap_mask_parse_n(s, n, ret);
}

char *ap_mask_format(const ApMask *m, char buf[static AP_MASK_STRING_SIZE]) {
        char *p = buf;

        *p++ = '0';
        *p++ = 'x';
        for (unsigned i = 0; i < MASK_DIGITS; i++)
                *p++ = hex_digits[m->w[i / 16] >> (60 - 4 * (i % 16)) & 15];
        *p = '\0';
        return buf;
}

/* One number at *@s, which is moved behind it. */
static int parse_id(const char **s, uint8_t *ret) {
        const char *p = *s;
        unsigned base = 10, n = 0;
        bool any = false;

        if (p[0] == '0' && p[1] == 'x') {
                base = 16;
                p += 2;
        } else if (p[0] == '0' && p[1] >= '0' && p[1] <= '9')
                return -EINVAL;

        for (int v; (v = hex_value(*p)) >= 0 && v < (int) base; p++) {
                any = true;
                n = n * base + (unsigned) v;
                if (n >= AP_IDS)
                        n = AP_IDS; /* stays above the limit, cannot wrap */
        }
        if (!any)
                return -EINVAL;
        if (n >= AP_IDS)
                return -ERANGE;

        *ret = (uint8_t) n;
        *s = p;
        return 0;
}

int ap_mask_parse_list(const char *s, ApMask *ret) {
        ApMask m = {};

        for (;;) {
                uint8_t first, last;
                int r;

                r = parse_id(&s, &first);
                if (r < 0)
                        return r;

                last = first;
                if (*s == '-') {
                        s++;
                        r = parse_id(&s, &last);
                        if (r < 0)
                                return r;
                        if (last < first)
                                return -ERANGE;
                }

                for (unsigned id = first; id <= last; id++)
                        ap_mask_set(&m, (uint8_t) id);

                if (*s == '\0')
                        break;
                if (*s++ != ',')
                        return -EINVAL;
        }

        *ret = m;
        return 0;
}

static char *format_id(char *p, unsigned id) {
        *p++ = '0';
        *p++ = 'x';
        *p++ = hex_digits[id >> 4];
        *p++ = hex_digits[id & 15];
        return p;
}

char *ap_mask_format_list(const ApMask *m, char buf[static AP_MASK_LIST_SIZE]) {
        char *p = buf;

        for (unsigned first = ap_mask_next(m, 0); first < AP_IDS;) {
                unsigned last = first;

                while (last + 1 < AP_IDS && ap_mask_test(m, (uint8_t) (last + 1)))
                        last++;

                if (p != buf)
                        *p++ = ',';
                p = format_id(p, first);
                if (last > first) {
                        *p++ = '-';
                        p = format_id(p, last);
                }
                first = ap_mask_next(m, last + 1);
        }

        *p = '\0';
        return buf;
}

int ap_mask_from_ids(const uint16_t *ids, size_t n, ApMask *ret) {
        ApMask m = {};

        if (n > AP_IDS)
                return -E2BIG;

        for (size_t i = 0; i < n; i++) {
                if (ids[i] >= AP_IDS)
                        return -ERANGE;
                if (ap_mask_test(&m, (uint8_t) ids[i]))
                        return -EEXIST;
                ap_mask_set(&m, (uint8_t) ids[i]);
        }

        *ret = m;
        return 0;
}

size_t ap_mask_to_ids(const ApMask *m, uint16_t ids[static AP_IDS]) {
        size_t n = 0;

        AP_MASK_FOREACH(id, m)
                ids[n++] = (uint16_t) id;
        return n;
}
