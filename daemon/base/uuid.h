/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* uuid - 16 bytes in the order in which they are printed (RFC 9562). Pure but for uuid_random(). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UUID_STRING_SIZE 37 /* 36 characters and NUL */

typedef struct Uuid {
        uint8_t b[16];
} Uuid;

/* The 36-character form, any case, nothing before or after. -EINVAL otherwise, *ret untouched. */
int uuid_parse(const char *s, Uuid *ret);

/* Lower case, as the kernel names mdev directories. Returns @buf. */
char *uuid_format(Uuid id, char buf[static UUID_STRING_SIZE]);

/* A new random (version 4) one. 0 or -errno of getrandom(2). */
int uuid_random(Uuid *ret);

bool uuid_is_null(Uuid id);
int uuid_compare(Uuid a, Uuid b);

static inline bool uuid_equal(Uuid a, Uuid b) {
        return uuid_compare(a, b) == 0;
}
