/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/utf8.h"

size_t utf8_length(const char *text) {
        const unsigned char *s = (const unsigned char *) text;
        unsigned low = 0x80, high = 0xbf;
        size_t n;

        if (*s < 0x80)
                return 1;
        if (*s >= 0xc2 && *s <= 0xdf)
                n = 2;
        else if ((*s & 0xf0) == 0xe0)
                n = 3;
        else if (*s >= 0xf0 && *s <= 0xf4)
                n = 4;
        else
                return 0;

        if (*s == 0xe0)
                low = 0xa0;
        else if (*s == 0xed)
                high = 0x9f;
        else if (*s == 0xf0)
                low = 0x90;
        else if (*s == 0xf4)
                high = 0x8f;

        for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
                if (s[i] < low || s[i] > high)
                        return 0; /* the terminating NUL too */

        return n;
}
