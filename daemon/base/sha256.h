/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sha256 - of a whole buffer (FIPS 180-4). Pure. */

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

void sha256(const void *data, size_t size, uint8_t ret[static SHA256_SIZE]);
