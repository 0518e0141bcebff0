/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"

#define ESCAPE_SIZE 6 /* \uXXXX */

static char *escape(char *to, unsigned unit) {
        char text[ESCAPE_SIZE + 1];

        (void) snprintf(text, sizeof text, "\\u%04x", unit & 0xffff);
        memcpy(to, text, ESCAPE_SIZE);
        return to + ESCAPE_SIZE;
}

/* The sequence of @n bytes, as escapes of UTF-16. */
static char *escape_sequence(char *to, const char *s, size_t n) {
        uint32_t c = (unsigned char) s[0] & (0xffu >> (n + 1));

        for (size_t i = 1; i < n; i++)
                c = c << 6 | ((unsigned char) s[i] & 0x3f);
        if (c < 0x10000)
                return escape(to, c);
        c -= 0x10000;
        return escape(escape(to, 0xd800 + (c >> 10)), 0xdc00 + (c & 0x3ff));
}

/* json-c 0.18 takes bytes above 0x7f for control characters where char is signed, and refuses them if it is to be strict.
 * Outside of strings, where they have no place, it refuses their escapes as well. */
static int to_ascii(const char *text, size_t size, char **ret, size_t *ret_size) {
        size_t n_bytes = 0;
        char *ascii, *p;

        for (size_t i = 0; i < size; i++)
                n_bytes += (unsigned char) text[i] >= 0x80;
        /* two bytes become six, four become twelve */
        ascii = p = malloc(size + 2 * n_bytes + 1);
        if (!ascii)
                return -ENOMEM;

        for (size_t i = 0, n; i < size; i += n) {
                char sequence[5] = {};

                memcpy(sequence, text + i, MIN(size - i, sizeof sequence - 1));
                n = utf8_length(sequence);
                if (n == 0) {
                        free(ascii);
                        return -EBADMSG;
                }
                if (n > 1)
                        p = escape_sequence(p, sequence, n);
                else
                        *p++ = *sequence;
        }
        *p = '\0';
        *ret = ascii;
        *ret_size = (size_t) (p - ascii);
        return 0;
}

int json_read(const char *text, size_t size, int depth, json_object **ret) {
        CLEANUP(json_putp) json_object *o = NULL;
        CLEANUP(freep) char *ascii = NULL;
        json_tokener *t;
        size_t end;
        bool good;
        int r;

        r = to_ascii(text, size, &ascii, &size);
        if (r < 0)
                return r;
        if (size > INT32_MAX)
                return -EBADMSG;

        t = json_tokener_new_ex(depth);
        if (!t)
                return -ENOMEM;
        json_tokener_set_flags(t, JSON_TOKENER_STRICT);
        o = json_tokener_parse_ex(t, ascii, (int) size);
        good = json_tokener_get_error(t) == json_tokener_success;
        end = json_tokener_get_parse_end(t);
        json_tokener_free(t);
        if (!good || end + strspn(ascii + end, " \t\r\n") != size)
                return -EBADMSG;

        *ret = TAKE(o);
        return 0;
}
