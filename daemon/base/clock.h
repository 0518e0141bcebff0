/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* clock - what time it is for those who wait without a loop. */

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC */
static inline uint64_t clock_now_us(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}
