/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Questions about guests: from what is known, or asked of libvirt first. */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine_guest_internal.h"

static const char *state_name(const Guest *g) {
        static const char *const names[] = {
                [VIRT_STATE_UNKNOWN] = "unknown",   [VIRT_STATE_SHUTOFF] = "shutoff",
                [VIRT_STATE_RUNNING] = "running",   [VIRT_STATE_PAUSED] = "paused",
                [VIRT_STATE_SHUTDOWN] = "shutdown", [VIRT_STATE_CRASHED] = "crashed",
        };
        static_assert(ELEMENTS(names) == _VIRT_STATE_MAX, "every state has a name");

        return names[g->state];
}

static const char *tpm_name(Engine *e, const VirtWiring *w, char buf[static UUID_STRING_SIZE]) {
        Vtpm *v = e->guests->vtpm;
        VtpmView view;
        Uuid uuid;

        if (w->tpm_model == TPM_MODEL_NONE || guest_socket_tpm(w->tpm_socket, &uuid) < 0)
                return "";
        if (!v || v->ops->get(v, uuid, &view) < 0)
                return uuid_format(uuid, buf);
        return view.spec.name;
}

int engine_get_guest(Engine *e, Uuid uuid, EngineGuest *ret) {
        static const char *const none[] = { NULL };
        Guest *g = guest_find(e, uuid);

        if (!g || !guest_is_visible(g))
                return -ENOENT;
        *ret = (EngineGuest) {
                .uuid = uuid,
                .name = g->name,
                .state = state_name(g),
                .persistent = g->persistent,
                .active = g->active,
                .matrix = g->config.n_mdevs > 0 ? guest_mdev_name(e, g->config.mdevs[0], g->texts[0]) : "",
                .live_matrix = g->live.n_mdevs > 0 ? guest_mdev_name(e, g->live.mdevs[0], g->texts[1]) : "",
                .tpm = tpm_name(e, &g->config, g->texts[2]),
                .live_tpm = tpm_name(e, &g->live, g->texts[3]),
                .tpm_model = g->config.tpm_model,
                .live_tpm_model = g->live.tpm_model,
                .problems = g->problems ? (const char *const *) g->problems : none,
        };
        return 0;
}

int engine_find_guest(Engine *e, const char *name, Uuid *ret) {
        const Guest *g = NULL;
        Uuid uuid;

        for (size_t i = 0; i < e->guests->n && !g; i++)
                if (guest_is_visible(e->guests->by_uuid[i]) &&
                    strcmp(e->guests->by_uuid[i]->name, name) == 0)
                        g = e->guests->by_uuid[i];
        if (!g && uuid_parse(name, &uuid) >= 0)
                g = guest_find(e, uuid);
        if (!g || !guest_is_visible(g))
                return -ENOENT;
        *ret = g->uuid;
        return 0;
}

static void question_free(Guests *gs, GuestQuestion *q) {
        GuestQuestion **p = &gs->questions;

        while (*p != q)
                p = &(*p)->next;
        *p = q->next;
        sd_event_source_disable_unref(q->timer);
        free(q);
}

void guest_questions_free(Guests *gs) {
        while (gs->questions)
                question_free(gs, gs->questions);
}

static int on_question_late(sd_event_source *s, uint64_t usec, void *userdata) {
        GuestQuestion *q = userdata;

        TAKE(q->done)(q->userdata, -ETIME);
        return 0;
}

static void on_question_answered(void *userdata, int r, const VirtOutcome *outcome) {
        GuestQuestion *q = userdata;

        if (q->done)
                q->done(q->userdata, r);
        question_free(q->engine->guests, q);
}

int engine_ask_guest(Engine *e, const char *name, void (*done)(void *userdata, int r), void *userdata) {
        Guests *gs = e->guests;
        GuestQuestion *q;
        int r;

        if (!gs->virt)
                return -EHOSTDOWN;
        q = malloc(sizeof *q);
        if (!q)
                return -ENOMEM;

        *q = (GuestQuestion) { .engine = e, .done = done, .userdata = userdata, .next = gs->questions };
        gs->questions = q;
        r = sd_event_add_time_relative(e->event, &q->timer, CLOCK_MONOTONIC,
                                       gs->up ? GUEST_QUESTION_US : GUEST_CONNECT_US, 1, on_question_late,
                                       q);
        if (r >= 0)
                r = gs->virt->ops->find(gs->virt, name, on_question_answered, q);
        if (r < 0) {
                question_free(gs, q);
                return r;
        }
        return 0;
}

static int compare_names(const void *a, const void *b) {
        const Guest *const *x = a, *const *y = b;
        int r = strcmp((*x)->name, (*y)->name);

        return r != 0 ? r : uuid_compare((*x)->uuid, (*y)->uuid);
}

int engine_list_guests(Engine *e, Uuid **ret, size_t *ret_n) {
        CLEANUP(freep) Guest **guests = calloc(e->guests->n + 1, sizeof *guests);
        Uuid *list = calloc(e->guests->n + 1, sizeof *list);
        size_t n = 0;

        if (!guests || !list) {
                free(list);
                return -ENOMEM;
        }
        for (size_t i = 0; i < e->guests->n; i++)
                if (guest_is_visible(e->guests->by_uuid[i]))
                        guests[n++] = e->guests->by_uuid[i];
        qsort(guests, n, sizeof *guests, compare_names);
        for (size_t i = 0; i < n; i++)
                list[i] = guests[i]->uuid;
        *ret = list;
        *ret_n = n;
        return 0;
}
