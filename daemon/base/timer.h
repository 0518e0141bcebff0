/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* timer - what is to be done once, after a while */

#include <stdint.h>
#include <systemd/sd-event.h>

/* Calls @on once after @us, at most a twentieth of that later; *ret is the caller's. By itself sd-event may be 250 ms late, and then
 * comes with whatever wakes the process first: what was put off for a quiet moment would be done when the next request is there.
 * 0 or -errno. */
int timer_after(sd_event *event, sd_event_source **ret, uint64_t us, sd_event_time_handler_t on,
                void *userdata);
