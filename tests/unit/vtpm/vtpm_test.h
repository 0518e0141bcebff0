/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* what all of these tests begin with */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/codec.h"
#include "lib/vtpm/harness.h"

/* TPM2_GetRandom(16) */
static const uint8_t get_random[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16 };

#define FRONTS 2 /* each test runs with both */

static inline const char *front_name(unsigned vhost) {
        return vhost ? "vhost-user" : "vfio-user";
}
