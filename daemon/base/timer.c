/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/timer.h"

#include <time.h>

int timer_after(sd_event *event, sd_event_source **ret, uint64_t us, sd_event_time_handler_t on,
                void *userdata) {
        return sd_event_add_time_relative(event, ret, CLOCK_MONOTONIC, us, us / 20 ?: 1, on, userdata);
}
