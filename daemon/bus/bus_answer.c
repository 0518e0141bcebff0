/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is too much for one turn of the loop goes in slices, and so do signals. Calls come first; but while they keep
 * coming, there is a slice now and then all the same. Of one caller one answer is worked on at a time, and of all
 * callers a few, so that what they can make us hold is limited and none of them has to wait for all that another one
 * asked for. */

#include <errno.h>
#include <string.h>

#include "base/timer.h"
#include "bus/bus_internal.h"

#define SLICE_PERIOD_US (20 * UINT64_C(1000)) /* while calls keep coming */
#define SIGNAL_DELAY_US (1 * UINT64_C(1000))  /* in which the bus delivers replies */

const char *bus_sender(sd_bus_message *m) {
        return sd_bus_message_get_sender(m) ?: "peer";
}

int bus_admit(Bus *b, sd_bus_message *m, sd_bus_error *error) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        int r;

        r = engine_admit(b->engine, bus_sender(m), &refusal);
        return r > 0 ? bus_error_set_verdict(error, (Verdict) r, &refusal) : r;
}

int bus_answer_init(Answer *a, Bus *b, sd_bus_message *m, sd_bus_error *error) {
        int r;

        r = bus_admit(b, m, error);
        if (r < 0)
                return r;

        a->bus = b;
        a->call = sd_bus_message_ref(m);
        a->counted = true;
        a->link = b->answers_tail;
        *b->answers_tail = a;
        b->answers_tail = &a->next;
        return 0;
}

void bus_answer_discharge(Answer *a) {
        if (a->counted)
                engine_discharge(a->bus->engine, bus_sender(a->call));
        a->counted = false;
}

void bus_answer_free(Answer *a) {
        Bus *b = a->bus;

        for (size_t i = 0; i < ELEMENTS(b->active); i++)
                if (b->active[i] == a)
                        b->active[i] = NULL;
        if (b->quiet == a)
                bus_signal_release(b);

        *a->link = a->next;
        if (a->next)
                a->next->link = a->link;
        else
                b->answers_tail = a->link;

        bus_answer_discharge(a);
        (void) sd_bus_slot_unref(a->slot);
        (void) sd_bus_message_unref(a->call);
        a->free(a);
}

void bus_answer_free_all(Bus *b) {
        while (b->answers)
                bus_answer_free(b->answers);
        b->turn_source = sd_event_source_disable_unref(b->turn_source);
        b->turn_timer = sd_event_source_disable_unref(b->turn_timer);
}

static bool may_begin(const Bus *b, const Answer *a) {
        if (!a->ready)
                return false;
        for (size_t i = 0; i < ELEMENTS(b->active); i++)
                if (b->active[i] && strcmp(bus_sender(b->active[i]->call), bus_sender(a->call)) == 0)
                        return false; /* @a itself, or its caller's turn is taken */

        return !a->is_quiet || (!b->quiet && !bus_signal_is_due(b));
}

static int on_caller(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Answer *a = userdata;
        Bus *b = a->bus;

        a->slot = sd_bus_slot_unref(a->slot);
        if (sd_bus_message_is_method_error(m, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
                bus_answer_free(a);
        (void) bus_wake(b);
        return 1;
}

/* Who has gone gets no long answer. If the bus cannot be asked it is as if he were there. */
static void ask_for_caller(Answer *a) {
        const char *name = sd_bus_message_get_sender(a->call);

        if (name)
                (void) sd_bus_call_method_async(a->bus->bus, &a->slot, "org.freedesktop.DBus",
                                                "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                                "GetNameOwner", on_caller, a, "s", name);
}

static void begin_some(Bus *b) {
        Answer *a = b->answers;

        for (size_t i = 0; i < ELEMENTS(b->active); i++) {
                if (b->active[i])
                        continue;
                while (a && !may_begin(b, a))
                        a = a->next;
                if (!a)
                        return;
                b->active[i] = a;
                if (a->is_quiet)
                        b->quiet = a;
                if (a->is_long)
                        ask_for_caller(a);
        }
}

static void step(Answer *a) {
        CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        r = a->step(a, &error);
        if (r == 0)
                return;
        if (r < 0)
                (void) sd_bus_reply_method_errno(a->call, r, &error);
        bus_answer_free(a);
}

/* What is not active waits for what is, or for signals. */
static bool can_go_on(const Bus *b) {
        for (size_t i = 0; i < ELEMENTS(b->active); i++)
                if (b->active[i] && !b->active[i]->slot)
                        return true;

        return b->signals && !b->quiet;
}

static void turn(Bus *b) {
        (void) sd_event_source_set_enabled(b->turn_source, SD_EVENT_OFF);
        (void) sd_event_source_set_enabled(b->turn_timer, SD_EVENT_OFF);
        b->awake = b->waking = false;

        bus_signal_some(b);
        begin_some(b);
        for (size_t i = 0; i < ELEMENTS(b->active); i++) {
                Answer *a = b->active[b->next_active];

                b->next_active = (b->next_active + 1) % ELEMENTS(b->active);
                if (a && !a->slot) {
                        step(a);
                        break;
                }
        }

        begin_some(b);
        if (can_go_on(b))
                (void) bus_wake(b);
}

static int on_turn(sd_event_source *s, void *userdata) {
        turn(userdata);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Bus *b = userdata;

        if (b->awake)
                turn(b);
        else {
                b->waking = false;
                (void) bus_wake(b); /* else the next signal does */
        }
        return 0;
}

static int wake_after(Bus *b, uint64_t us) {
        int r;

        if (!b->turn_timer)
                return timer_after(b->event, &b->turn_timer, us, on_timer, b);
        r = sd_event_source_set_time_relative(b->turn_timer, us);
        return r < 0 ? r : sd_event_source_set_enabled(b->turn_timer, SD_EVENT_ONESHOT);
}

static int wake_idle(Bus *b) {
        int r;

        if (!b->turn_source) {
                r = sd_event_add_defer(b->event, &b->turn_source, on_turn, b);
                if (r < 0)
                        return r;
                r = sd_event_source_set_priority(b->turn_source, SD_EVENT_PRIORITY_NORMAL + 2);
                if (r < 0)
                        return r;
        }
        return sd_event_source_set_enabled(b->turn_source, SD_EVENT_ONESHOT);
}

int bus_wake(Bus *b) {
        int r;

        if (b->awake)
                return 0;

        r = wake_after(b, SLICE_PERIOD_US);
        if (r >= 0)
                r = wake_idle(b);
        if (r < 0)
                return r;

        b->awake = b->waking = true;
        return 0;
}

int bus_wake_soon(Bus *b) {
        int r;

        if (b->waking)
                return 0;

        r = wake_after(b, SIGNAL_DELAY_US);
        if (r < 0)
                return r;

        b->waking = true;
        return 0;
}

int bus_answer_ready(Answer *a) {
        a->ready = true;
        return bus_wake(a->bus);
}
