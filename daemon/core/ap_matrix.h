/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* ap_matrix - adapters, usage domains and control domains of one mediated device; its queues are the
 * cross product of the first two. Pure. */

#include "core/ap_mask.h"

#define APQN_STRING_SIZE      8                         /* "05.0047" and NUL */
#define AP_MATRIX_STRING_SIZE (3 * AP_MASK_STRING_SIZE) /* three masks, two commas, NUL */

typedef struct Apqn {
        uint8_t adapter, domain;
} Apqn;

typedef struct ApMatrix {
        ApMask adapters, domains, control;
} ApMatrix;

/* As the kernel prints it, "05.0047". Returns @buf. */
char *apqn_format(Apqn q, char buf[static APQN_STRING_SIZE]);

bool ap_matrix_equal(const ApMatrix *a, const ApMatrix *b);

/* Number of queues, 0..65536. */
unsigned ap_matrix_n_queues(const ApMatrix *m);

static inline bool ap_matrix_has(const ApMatrix *m, Apqn q) {
        return ap_mask_test(&m->adapters, q.adapter) && ap_mask_test(&m->domains, q.domain);
}

/* The text of the kernel's ap_config: three masks, commas between, as read (one newline at the end is
 * accepted). All three must be there. -EINVAL or -ERANGE as ap_mask_parse(); *ret is untouched on error. */
int ap_matrix_parse(const char *s, ApMatrix *ret);

/* Three full-length masks without newline, fit for one write to ap_config. Returns @buf. */
char *ap_matrix_format(const ApMatrix *m, char buf[static AP_MATRIX_STRING_SIZE]);
