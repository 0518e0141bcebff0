/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reconcile(): what has drifted from its definition is put right, where it is ours. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "core/reconcile.h"
#include "engine/engine_internal.h"

static const EngineCaller own_caller = {}; /* not counted */

struct Healing {
        Engine *engine;
        engine_reconciled_t done;
        void *userdata;
        EngineHealed *healed;
        char **texts;
        size_t n, waiting, allocated;
        sd_event_source *source;
        Uuid next; /* the matrix at which it goes on */
        char (*names)[STORE_NAME_MAX + 1];
};

static void healing_free(Healing *h) {
        sd_event_source_disable_unref(h->source);
        strv_free(h->texts);
        free(h->healed);
        free(h->names);
        free(h);
}

static void healing_end(Healing *h) {
        for (size_t i = 0; i < h->n; i++) {
                h->healed[i].name = h->names[i];
                h->healed[i].what = h->texts[i];
        }
        h->engine->healing = NULL;
        h->done(h->userdata, 0, NULL, h->healed, h->n);
        healing_free(h);
}

static void healing_add(Healing *h, Uuid uuid, const char *name, const char *what, const char *why) {
        if (h->n == h->allocated) /* as many as there could be were allocated */
                return;
        if (strv_addf(&h->texts, "%s%s%s", what, why ? ": " : "", why ?: "") < 0)
                return;
        h->healed[h->n].uuid = uuid;
        (void) snprintf(h->names[h->n], sizeof h->names[h->n], "%s", name);
        h->n++;
}

static void on_healed(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        Healing *h = userdata;
        const Matrix *m = state_find(h->engine, uuid);

        healing_add(h, uuid,
                    m                    ? m->rec.name
                    : uuid_is_null(uuid) ? "host masks"
                                         : "",
                    r == 0 ? "healed" : "could not be healed",
                    r == 0    ? NULL
                    : refusal ? refusal->text
                              : text_error(r));
        if (--h->waiting == 0)
                healing_end(h);
}

static void heal_matrix(Healing *h, Matrix *m) {
        Engine *e = h->engine;
        Op *op;

        h->waiting++;
        op = op_new(INTENT_HEAL, m->rec.uuid, &own_caller, on_healed, h);
        if (!op)
                return on_healed(h, -ENOMEM, NULL, m->rec.uuid);
        op->fresh = true;
        op_begin(e, op);
}

static int on_heal(sd_event_source *source, void *userdata) {
        Healing *h = userdata;
        Engine *e = h->engine;
        size_t i = state_place(e, h->next), waiting = h->waiting;

        for (; i < e->n_matrices && h->waiting < waiting + ENGINE_BEGUN_MAX; i++) {
                Matrix *m = e->by_uuid[i];
                Wanted wanted = state_wanted(m);
                Drift drift;

                if (m->op || m->unresolved || !m->visible)
                        continue;
                wanted.started |= m->mark == MARK_PENDING;
                drift = reconcile_one(&wanted, e->snapshot);
                if (drift == DRIFT_LOST || drift == DRIFT_CHANGED)
                        heal_matrix(h, m);
                else if (drift == DRIFT_UNKNOWN)
                        healing_add(h, m->rec.uuid, m->rec.name,
                                    "cannot be compared: this kernel does not show its matrix safely", NULL);
        }

        if (i < e->n_matrices) {
                h->next = e->by_uuid[i]->rec.uuid;
                return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        }
        if (--h->waiting == 0)
                healing_end(h);
        return 0;
}

static void heal_all(void *userdata, int r) {
        Healing *h = userdata;
        Engine *e = h->engine;
        Refusal refusal = {};

        h->waiting = 1; /* us */
        if (r < 0)
                healing_add(h, (Uuid) {}, "the host", "could not be scanned", text_error(r));

        recover_now(e);
        if (r >= 0 && boot_masks_differ(e)) {
                int k;

                h->waiting++;
                k = engine_set_host_masks(e, &e->loaded.apmask, &e->loaded.aqmask, &own_caller, on_healed, h,
                                          &refusal);
                if (k != 0)
                        on_healed(h, k, k > 0 ? &refusal : NULL, (Uuid) {});
                refusal_clear(&refusal);
        }
        if (r >= 0)
                r = sd_event_add_defer(e->event, &h->source, on_heal, h);
        if (r >= 0)
                return;
        if (--h->waiting == 0)
                healing_end(h);
}

int engine_reconcile(Engine *e, const EngineCaller *c, engine_reconciled_t done, void *userdata,
                     Refusal *reterr) {
        Healing *h;
        int r;

        if (e->healing)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "another Reconcile is under way");

        h = calloc(1, sizeof *h);
        if (!h)
                return -ENOMEM;
        h->engine = e;
        h->done = done;
        h->userdata = userdata;
        h->allocated = e->n_matrices + 2;
        h->healed = calloc(h->allocated, sizeof *h->healed);
        h->names = calloc(h->allocated, sizeof *h->names);
        e->healing = h;
        if (e->unquiet)
                engine_rest(e);
        r = h->healed && h->names ? engine_rescan(e, heal_all, h) : -ENOMEM;
        if (r < 0) {
                e->healing = NULL;
                healing_free(h);
        }
        return MIN(r, 0);
}

void heal_free(Engine *e) {
        if (e->healing)
                healing_free(e->healing);
}
