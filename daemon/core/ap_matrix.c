/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/ap_matrix.h"

#include <errno.h>
#include <string.h>

char *apqn_format(Apqn q, char buf[static APQN_STRING_SIZE]) {
        static const char digits[] = "0123456789abcdef";

        buf[0] = digits[q.adapter >> 4];
        buf[1] = digits[q.adapter & 15];
        buf[2] = '.';
        buf[3] = '0';
        buf[4] = '0';
        buf[5] = digits[q.domain >> 4];
        buf[6] = digits[q.domain & 15];
        buf[7] = '\0';
        return buf;
}

bool ap_matrix_equal(const ApMatrix *a, const ApMatrix *b) {
        return ap_mask_equal(&a->adapters, &b->adapters) && ap_mask_equal(&a->domains, &b->domains) &&
               ap_mask_equal(&a->control, &b->control);
}

unsigned ap_matrix_n_queues(const ApMatrix *m) {
        return ap_mask_count(&m->adapters) * ap_mask_count(&m->domains);
}

int ap_matrix_parse(const char *s, ApMatrix *ret) {
        ApMatrix m;
        ApMask *fields[] = { &m.adapters, &m.domains, &m.control };
        size_t n;
        int r;

        for (size_t i = 0; i < 2; i++) {
                n = strcspn(s, ",");
                if (s[n] != ',')
                        return -EINVAL;
                r = ap_mask_parse_n(s, n, fields[i]);
                if (r < 0)
                        return r;
                s += n + 1;
        }

        r = ap_mask_parse(s, fields[2]);
        if (r < 0)
                return r;

        *ret = m;
        return 0;
}

char *ap_matrix_format(const ApMatrix *m, char buf[static AP_MATRIX_STRING_SIZE]) {
        enum { STEP = AP_MASK_STRING_SIZE }; /* a comma takes the place of each NUL but the last */

        (void) ap_mask_format(&m->adapters, buf);
        buf[STEP - 1] = ',';
        (void) ap_mask_format(&m->domains, buf + STEP);
        buf[2 * STEP - 1] = ',';
        (void) ap_mask_format(&m->control, buf + 2 * STEP);
        return buf;
}
