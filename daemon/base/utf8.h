/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/* Length of the UTF-8 sequence that @s begins with (RFC 3629: shortest form, no surrogates), 0 if it is none. */
size_t utf8_length(const char *s);
