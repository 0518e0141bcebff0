/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fuzz - for targets that read text: a NUL-terminated copy of the input, and a check that also counts
 * without assert(). */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition) \
        do { \
                if (!(condition)) { \
                        (void) fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
                        abort(); \
                } \
        } while (0)

static inline char *fuzz_text(const uint8_t *data, size_t size) {
        char *s = malloc(size + 1);

        FUZZ_CHECK(s);
        if (size > 0)
                memcpy(s, data, size);
        s[size] = '\0';
        return s;
}
