/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A look at the host and a write to the disk cost the same for one operation and for a hundred. A client that
 * does not wait for each answer sends many at once, but the bus brings them one by one: what they need in
 * common is done when nothing has come for a moment, or after enough time. Clients that wait for their answers, to one request or to
 * ten, would only lose that moment: where it was the same number several times, no more are waited for. */

#include <errno.h>

#include "base/cleanup.h"
#include "engine/engine_internal.h"

#define GATHER_US (5 * UINT64_C(1000)) /* whoever sends all the time does not keep others waiting */
#define LINGER_US UINT64_C(50)         /* from one request to the next, by way of the bus */
#define ALIKE_MIN 3

void gather_end(Engine *e) {
        e->gather_alike = e->gathered == e->gather_usual ? e->gather_alike + 1 : 0;
        e->gather_usual = e->gathered;
        e->gathered = 0;
        e->gather_idle = sd_event_source_disable_unref(e->gather_idle);
        e->gather_linger = sd_event_source_disable_unref(e->gather_linger);
        e->gather_timer = sd_event_source_disable_unref(e->gather_timer);
        if (e->look_wanted) {
                e->look_wanted = false;
                engine_look(e);
        }
        op_commit(e);
}

static int on_lingered(sd_event_source *s, uint64_t usec, void *userdata) {
        gather_end(userdata);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        gather_end(userdata);
        return 0;
}

/* Nothing more lies ready. */
static int on_idle(sd_event_source *s, void *userdata) {
        Engine *e = userdata;
        int r = -ECANCELED;

        if (e->gather_alike < ALIKE_MIN || e->gathered < e->gather_usual)
                r = sd_event_add_time_relative(e->event, &e->gather_linger, CLOCK_MONOTONIC, LINGER_US, 1,
                                               on_lingered, e);
        if (r >= 0)
                r = sd_event_source_set_priority(e->gather_linger, SD_EVENT_PRIORITY_NORMAL + 1);
        if (r < 0)
                gather_end(e);
        return 0;
}

static void gather(Engine *e) {
        int r;

        e->gathered++;
        if (e->gather_idle) {
                e->gather_linger = sd_event_source_disable_unref(e->gather_linger);
                r = sd_event_source_set_enabled(e->gather_idle, SD_EVENT_ONESHOT);
        } else {
                r = sd_event_add_defer(e->event, &e->gather_idle, on_idle, e);
                if (r >= 0)
                        r = sd_event_source_set_priority(e->gather_idle, SD_EVENT_PRIORITY_NORMAL + 1);
                if (r >= 0)
                        r = sd_event_add_time_relative(e->event, &e->gather_timer, CLOCK_MONOTONIC,
                                                       GATHER_US, 1, on_timer, e);
        }
        if (r < 0)
                gather_end(e);
}

void gather_look(Engine *e) {
        e->look_wanted = true;
        gather(e);
}

void gather_commit(Engine *e) {
        if (!e->committing) /* else it goes with the next one anyway */
                gather(e);
}
