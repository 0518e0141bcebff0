/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A look at the host and a write to the disk cost the same for one operation and for a hundred. A client that
 * does not wait for each answer sends many at once, but the loop hands them over one by one: what they need
 * in common waits until turns of the loop bring no more of them. */

#include "base/cleanup.h"
#include "engine/engine_internal.h"

#define GATHER_QUIET_TURNS 2   /* without a new one: all that were there have come */
#define GATHER_TURNS_MAX   256 /* whoever sends all the time does not keep others waiting */

static int gather_end(Engine *e) {
        e->gather_turns = e->gather_quiet = 0;
        if (e->look_wanted) {
                e->look_wanted = false;
                engine_look(e);
        }
        op_commit(e);
        return 0;
}

static int on_gather(sd_event_source *s, void *userdata) {
        Engine *e = userdata;

        if (e->gather_seen == e->n_arrived)
                e->gather_quiet++;
        else
                e->gather_quiet = 0;
        e->gather_seen = e->n_arrived;
        if (e->gather_quiet >= GATHER_QUIET_TURNS || ++e->gather_turns >= GATHER_TURNS_MAX)
                return gather_end(e);

        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void gather(Engine *e) {
        int r;

        if (e->gather)
                r = sd_event_source_set_enabled(e->gather, SD_EVENT_ONESHOT);
        else
                r = sd_event_add_defer(e->event, &e->gather, on_gather, e);
        if (r < 0)
                (void) gather_end(e);
}

void gather_look(Engine *e) {
        e->look_wanted = true;
        gather(e);
}

void gather_commit(Engine *e) {
        if (!e->committing) /* else it goes with the next one anyway */
                gather(e);
}
