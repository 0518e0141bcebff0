/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static int digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

static bool dash_before(size_t byte) {
        return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

int uuid_parse(const char *s, Uuid *ret) {
        Uuid id;

        if (strnlen(s, UUID_STRING_SIZE) != UUID_STRING_SIZE - 1)
                return -EINVAL;

        for (size_t i = 0; i < sizeof id.b; i++) {
                int high, low;

                if (dash_before(i) && *s++ != '-')
                        return -EINVAL;

                high = digit(*s++);
                low = digit(*s++);
                if (high < 0 || low < 0)
                        return -EINVAL;

                id.b[i] = (uint8_t) (high << 4 | low);
        }

        *ret = id;
        return 0;
}

char *uuid_format(Uuid id, char buf[static UUID_STRING_SIZE]) {
        static const char digits[] = "0123456789abcdef";
        char *p = buf;

        for (size_t i = 0; i < sizeof id.b; i++) {
                if (dash_before(i))
                        *p++ = '-';
                *p++ = digits[id.b[i] >> 4];
                *p++ = digits[id.b[i] & 15];
        }

        *p = '\0';
        return buf;
}

int uuid_random(Uuid *ret) {
        Uuid id;

        if (getrandom(id.b, sizeof id.b, 0) != sizeof id.b)
                return -errno;

        id.b[6] = (uint8_t) ((id.b[6] & 0x0f) | 0x40); /* version 4 */
        id.b[8] = (uint8_t) ((id.b[8] & 0x3f) | 0x80); /* variant of RFC 9562 */
        *ret = id;
        return 0;
}

bool uuid_is_null(Uuid id) {
        return uuid_equal(id, (Uuid) {});
}

int uuid_compare(Uuid a, Uuid b) {
        return memcmp(a.b, b.b, sizeof a.b);
}
