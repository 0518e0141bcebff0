/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* json - reads what others have written, alike with each version of json-c and as strictly as it can. */

#include <json-c/json.h>
#include <stddef.h>

static inline void json_putp(json_object **o) {
        (void) json_object_put(*o);
}

/* Reads the one value that the @size bytes at @text are, with nothing but white space around it, @depth as for
 * json_tokener_new_ex(). *ret is the caller's. -EBADMSG: it is not JSON, or not UTF-8; -ENOMEM. */
int json_read(const char *text, size_t size, int depth, json_object **ret);
