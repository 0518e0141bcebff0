/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libvirt's hook. While it waits for our answer libvirt answers nothing about this guest, so that nothing here asks it: what
 * the hook read from the guest's XML, and what is known, must do. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/timer.h"
#include "engine/engine_guest_internal.h"

typedef enum HookKind {
        HOOK_ANSWER, /* nothing to do */
        HOOK_PREPARE,
        HOOK_ADOPT,
        HOOK_END,
} HookKind;

typedef enum HookPhase {
        HOOK_BEGIN,
        HOOK_MATRIX, /* the hold is on disk */
        HOOK_TPM,
        HOOK_TPM_RESET,
        HOOK_UNDO,
} HookPhase;

struct HookOp {
        HookOp *next;
        Guest *guest;
        HookKind kind;
        HookPhase phase;
        bool busy;        /* something will call us */
        bool cancelled;   /* the guest has ended meanwhile */
        bool replace_tpm; /* it runs, but not as this guest needs it */
        char *name, *matrix_name, *tpm_name;
        VirtWiring wiring; /* mdevs, tpm_model, tpm_socket */
        Uuid matrix, tpm;
        int r;
        Refusal refusal;
        sd_event_source *timer;
        char caller[ENGINE_CALLER_SIZE];
        engine_done_t done;
        void *userdata;
};

HookOp *hook_free(HookOp *h) {
        HookOp *next = h->next;

        sd_event_source_disable_unref(h->timer);
        virt_wiring_clear(&h->wiring);
        free(h->name);
        free(h->matrix_name);
        free(h->tpm_name);
        refusal_clear(&h->refusal);
        free(h);
        return next;
}

static void hook_answer(HookOp *h) {
        Guest *g = h->guest;
        engine_done_t done = TAKE(h->done);

        if (!done)
                return;
        guest_discharge(g->engine, h->caller);
        if (h->r > 0)
                log_warning("Guest '%s' is not started: %s", g->name, h->refusal.text);
        done(h->userdata, h->r, h->r > 0 ? &h->refusal : NULL, g->uuid);
}

static void hook_end(HookOp *h) {
        Guest *g = h->guest;

        hook_answer(h);
        g->hooks = hook_free(h);
        g->engine->guests->n_waiting--;
        guest_stir(g);
}

/* ---- prepare: what it needs ---- */

static bool names_ours(Engine *e, const HookOp *h) {
        for (size_t i = 0; i < h->wiring.n_mdevs; i++)
                if (engine_is_ours(e, h->wiring.mdevs[i]))
                        return true;
        return h->matrix_name;
}

static int resolve_matrix(Engine *e, HookOp *h, Refusal *reterr) {
        const Matrix *declared = h->matrix_name ? guest_declared_matrix(e, h->matrix_name) : NULL;
        const VirtWiring *w = &h->wiring;
        char text[UUID_STRING_SIZE];
        const Matrix *m;

        if (!names_ours(e, h))
                return 0;
        if (h->matrix_name && !declared)
                return refuse(reterr, VERDICT_NO_SUCH_MATRIX, 0,
                              "the metadata of guest '%s' name matrix '%s', which does not exist", h->name,
                              h->matrix_name);
        if (w->n_mdevs > 1)
                return refuse(reterr, VERDICT_UNSUPPORTED, 0,
                              "guest '%s' has %zu vfio-ap devices, and libvirt starts it with one only",
                              h->name, w->n_mdevs);
        if (w->n_mdevs == 1 && declared && !uuid_equal(w->mdevs[0], declared->rec.uuid))
                return refuse(
                        reterr, VERDICT_EXISTS, 0,
                        "the metadata of guest '%s' name matrix '%s', but its vfio-ap device is '%s', and it "
                        "can have one only",
                        h->name, h->matrix_name, guest_mdev_name(e, w->mdevs[0], text));
        if (w->n_mdevs == 0 && !e->guests->virt)
                return refuse(
                        reterr, VERDICT_BACKEND, 0,
                        "matrix '%s' is not attached to guest '%s', and libvirt cannot be asked to do so "
                        "(LibvirtURI=)",
                        h->matrix_name, h->name);
        if (w->n_mdevs == 0 && guest_cannot_have_ap(h->guest))
                return refuse(reterr, VERDICT_UNSUPPORTED, 0,
                              "the CPU of guest '%s' does not have %s, without which it gets no AP queues",
                              h->name, h->guest->lacks);

        h->matrix = w->n_mdevs == 1 ? w->mdevs[0] : declared->rec.uuid;
        m = state_find(e, h->matrix);
        return m ? guest_may_have_matrix(e, h->guest, h->name, m, reterr) : 0;
}

static int resolve_tpm(Engine *e, HookOp *h, Refusal *reterr) {
        const VirtWiring *w = &h->wiring;
        Vtpm *v = e->guests->vtpm;
        Guest *g = h->guest;
        VtpmView view;
        Uuid declared;

        if (w->tpm_model == TPM_MODEL_NONE && !h->tpm_name)
                return 0;
        if (!v)
                return refuse(reterr, VERDICT_NO_SUCH_TPM, 0,
                              "guest '%s' has a TPM of ours, but there are none here", h->name);
        if (h->tpm_name && guest_declared_tpm(e, h->tpm_name, &declared) < 0)
                return refuse(reterr, VERDICT_NO_SUCH_TPM, 0,
                              "the metadata of guest '%s' name TPM '%s', which does not exist", h->name,
                              h->tpm_name);

        if (w->tpm_model == TPM_MODEL_NONE) { /* not yet in the XML that it would be started with */
                bool up = e->guests->up && !g->take_error[TAKE_UP_TPM];

                g->taken[TAKE_UP_TPM] = 0;
                return refuse(reterr, VERDICT_BAD_STATE, 0,
                              "TPM '%s' is not attached to guest '%s' yet%s%s; %s", h->tpm_name, h->name,
                              g->take_error[TAKE_UP_TPM] ? ": " : "", g->take_error[TAKE_UP_TPM] ?: "",
                              up ? "this is being done now, start it again"
                                 : "attach it with 'guestcryptctl guest-attach-tpm'");
        }

        if (guest_socket_tpm(w->tpm_socket, &h->tpm) < 0 || v->ops->get(v, h->tpm, &view) < 0) {
                h->tpm = (Uuid) {};
                return refuse(reterr, VERDICT_NO_SUCH_TPM, 0, "the TPM of guest '%s' at '%s' does not exist",
                              h->name, w->tpm_socket ?: "?");
        }
        if (h->tpm_name && !uuid_equal(declared, h->tpm))
                return refuse(
                        reterr, VERDICT_EXISTS, 0,
                        "the metadata of guest '%s' name TPM '%s', but its TPM is '%s'; detach that first",
                        h->name, h->tpm_name, view.spec.name);
        return guest_may_have_tpm(e, g, h->name, &view, reterr);
}

/* ---- prepare: undone ---- */

static void undo(HookOp *h) {
        h->phase = HOOK_UNDO;
        hold_release(h->guest);
        guest_stir(h->guest);
}

/* h->r and h->refusal say why. */
static void undo_or_end(HookOp *h) {
        if (h->guest->hold.phase == HOLD_PREPARED)
                undo(h);
        else
                hook_end(h);
}

static void refuse_and_undo(HookOp *h, int r, const Refusal *refusal) {
        if (h->r == 0)
                h->r = r > 0 && refusal
                               ? refuse(&h->refusal, refusal->verdict, refusal->error, "%s", refusal->text)
                               : r;
        undo_or_end(h);
}

/* Whether it is of no use any more; then it is on its way back. */
static bool given_up(HookOp *h) {
        if (h->r == 0 && h->cancelled)
                h->r = refuse(&h->refusal, VERDICT_BAD_STATE, 0,
                              "guest '%s' has ended while it was prepared", h->name);
        if (h->r == 0)
                return false;
        undo_or_end(h);
        return true;
}

static void prepare_end(HookOp *h) {
        if (!given_up(h))
                hook_end(h);
}

/* ---- prepare: step by step ---- */

static void on_held(void *userdata, int r) {
        HookOp *h = userdata;
        Refusal refusal = {};

        h->busy = false;
        if (r >= 0) {
                h->phase = HOOK_MATRIX;
                return guest_stir(h->guest);
        }
        r = refuse(&refusal, VERDICT_BACKEND, r, "what guest '%s' holds cannot be written: %s", h->name,
                   strerror(-r));
        refuse_and_undo(h, r, &refusal);
        refusal_clear(&refusal);
}

static bool tpm_is_up(Engine *e, Uuid tpm, TpmModel model, bool *ret_replace) {
        Vtpm *v = e->guests->vtpm;
        VtpmView view;

        *ret_replace = false;
        if (!v || v->ops->get(v, tpm, &view) < 0)
                return false;
        *ret_replace = view.state == VTPM_DEGRADED || (view.state == VTPM_RUNNING && view.model != model);
        return view.state == VTPM_RUNNING || view.state == VTPM_DEGRADED;
}

/* From here on others see that it has them. */
static void hold_it(HookOp *h) {
        Guest *g = h->guest;
        Engine *e = g->engine;
        Hold old = g->hold, hold = { .guest = g->uuid, .phase = HOLD_PREPARED };

        if (!uuid_is_null(h->matrix)) {
                hold.matrix = h->matrix;
                hold.matrix_started = !snapshot_find_mdev(e->snapshot, h->matrix) ||
                                      (uuid_equal(old.matrix, h->matrix) && old.matrix_started);
        }
        if (!uuid_is_null(h->tpm)) {
                hold.tpm = h->tpm;
                hold.model = h->wiring.tpm_model;
                hold.tpm_started = !tpm_is_up(e, h->tpm, hold.model, &h->replace_tpm) || h->replace_tpm ||
                                   (uuid_equal(old.tpm, h->tpm) && old.tpm_started);
        }
        hold_begin(g, &hold);
        h->busy = true;
        hold_save(g, on_held, h);
}

static void prepare_begin(HookOp *h) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        Guest *g = h->guest;
        Engine *e = g->engine;
        int r;

        if (given_up(h))
                return;
        if (g->hold.phase == HOLD_PREPARED || g->hold.phase == HOLD_RUNNING)
                hold_release(g); /* of a run whose end we were not told of */
        if (!hold_is_settled(g))
                return;
        if (names_ours(e, h) && !e->settled)
                return;

        r = resolve_matrix(e, h, &refusal);
        if (r == 0)
                r = resolve_tpm(e, h, &refusal);
        if (r != 0)
                return refuse_and_undo(h, r, &refusal);
        if (uuid_is_null(h->matrix) && uuid_is_null(h->tpm))
                return prepare_end(h);

        if (g->hold.phase == HOLD_RELEASING &&
            ((!uuid_is_null(g->hold.matrix) && !uuid_equal(g->hold.matrix, h->matrix)) ||
             (!uuid_is_null(g->hold.tpm) && !uuid_equal(g->hold.tpm, h->tpm)))) {
                r = refuse(&refusal, VERDICT_IN_USE, 0,
                           "what was started for the last run of guest '%s' is still there: %s", h->name,
                           g->stop_error ?: "it is being stopped");
                return refuse_and_undo(h, r, &refusal);
        }
        if (hold_is_stopping(e, h->matrix, h->tpm)) /* or being started automatically */
                return;
        hold_it(h);
}

static void on_matrix_started(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        HookOp *h = userdata;
        Engine *e = h->guest->engine;
        const Matrix *m = state_find(e, uuid);

        h->busy = false;
        if (r != 0 && snapshot_find_mdev(e->snapshot, uuid)) { /* somebody else was faster */
                h->guest->hold.matrix_started = false;
                hold_save(h->guest, NULL, NULL);
                r = 0;
        }
        if (r == 0)
                h->phase = HOOK_TPM;
        else if (!(r == VERDICT_BAD_STATE && m && m->op))
                return refuse_and_undo(h, r, refusal);
        guest_stir(h->guest);
}

static void prepare_matrix(HookOp *h) {
        Engine *e = h->guest->engine;
        const Matrix *m = state_find(e, h->matrix);
        int r;

        if (given_up(h))
                return;
        if (m && m->op)
                return;
        if (uuid_is_null(h->matrix) || !m || snapshot_find_mdev(e->snapshot, h->matrix)) {
                h->phase = HOOK_TPM;
                return guest_stir(h->guest);
        }
        h->busy = true;
        r = hold_start_matrix(e, h->matrix, on_matrix_started, h);
        if (r < 0)
                on_matrix_started(h, r, NULL, h->matrix);
}

static void on_tpm(Engine *e, void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        HookOp *h = userdata;

        h->busy = false;
        if (r == 0 && verdict != VTPM_DONE)
                r = guest_refuse_vtpm(&refusal, verdict, text);
        if (r != 0)
                return refuse_and_undo(h, r, &refusal);
        if (h->replace_tpm) /* has been stopped */
                h->replace_tpm = false;
        else if (h->phase == HOOK_TPM && !h->guest->hold.tpm_started &&
                 h->wiring.tpm_model == TPM_MODEL_VIRTIO)
                h->phase = HOOK_TPM_RESET; /* whoever had it before */
        else
                return prepare_end(h);
        guest_stir(h->guest);
}

static void prepare_tpm(HookOp *h) {
        Engine *e = h->guest->engine;
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r = -ENOMEM;

        if (given_up(h))
                return;
        if (uuid_is_null(h->tpm))
                return prepare_end(h);

        h->busy = true;
        call = guest_call_new(e, on_tpm, h);
        if (call && h->phase == HOOK_TPM_RESET)
                r = v->ops->reset(v, h->tpm, guest_call_done, call);
        else if (call && h->replace_tpm)
                r = v->ops->stop(v, h->tpm, guest_call_done, call);
        else if (call)
                r = v->ops->start(v, h->tpm, h->wiring.tpm_model, guest_call_done, call);
        r = guest_call_made(call, r);
        if (r < 0)
                on_tpm(e, h, r, VTPM_DONE, NULL, h->tpm);
}

static void prepare_run(HookOp *h) {
        switch (h->phase) {
        case HOOK_BEGIN:
                return prepare_begin(h);
        case HOOK_MATRIX:
                return prepare_matrix(h);
        case HOOK_TPM:
        case HOOK_TPM_RESET:
                return prepare_tpm(h);
        case HOOK_UNDO:
                if (hold_is_settled(h->guest))
                        hook_end(h);
        }
}

/* ---- the others ---- */

void hook_run(Guest *g) {
        HookOp *h = g->hooks;

        if (!h || h->busy)
                return;
        switch (h->kind) {
        case HOOK_PREPARE:
                return prepare_run(h);
        case HOOK_ADOPT:
                g->ended = false;
                hold_adopt(g, &h->wiring, true);
                return hook_end(h);
        case HOOK_END:
                if (h->phase == HOOK_BEGIN) {
                        h->phase = HOOK_UNDO;
                        guest_has_ended(g);
                        hold_release(g);
                }
                if (!hold_is_settled(g))
                        return;
                return hook_end(h);
        case HOOK_ANSWER:
                return hook_end(h);
        }
}

static int on_late(sd_event_source *s, uint64_t usec, void *userdata) {
        HookOp *h = userdata;
        Guest *g = h->guest;

        h->timer = sd_event_source_disable_unref(h->timer);
        if (h->kind == HOOK_PREPARE && h->r == 0)
                h->r = refuse(&h->refusal, VERDICT_STUCK, 0,
                              "%s; see 'guestcryptctl status', and start guest '%s' again",
                              h->phase == HOOK_BEGIN && !g->engine->settled
                                      ? "guestcryptd has not finished looking at the host"
                                      : "what is needed is not ready in time",
                              h->name);
        if (h->kind != HOOK_PREPARE || h->r != 0)
                hook_answer(h); /* what is under way goes on, or is undone, without anybody waiting */
        guest_stir(g);
        return 0;
}

static HookKind kind_of(const char *operation) {
        static const struct {
                const char *operation;
                HookKind kind;
        } kinds[] = {
                { "prepare", HOOK_PREPARE }, { "start", HOOK_ADOPT },  { "started", HOOK_ADOPT },
                { "reconnect", HOOK_ADOPT }, { "attach", HOOK_ADOPT }, { "stopped", HOOK_END },
                { "release", HOOK_END },
        };

        for (size_t i = 0; i < ELEMENTS(kinds); i++)
                if (strcmp(kinds[i].operation, operation) == 0)
                        return kinds[i].kind;
        return HOOK_ANSWER;
}

static int copy_text(const char *s, char **ret) {
        *ret = s ? strdup(s) : NULL;
        return s && !*ret ? -ENOMEM : 0;
}

static int hook_new(Guest *g, const EngineHook *h, const EngineCaller *c, engine_done_t done, void *userdata,
                    HookOp **ret) {
        HookOp *op = calloc(1, sizeof *op);
        const VirtWiring w = {
                .uuid = h->guest,
                .mdevs = (Uuid *) h->mdevs,
                .n_mdevs = h->n_mdevs,
                .tpm_model = h->tpm_model,
                .tpm_socket = (char *) h->tpm_socket,
        };

        if (!op) {
                guest_discharge(g->engine, c && c->id ? c->id : "");
                return -ENOMEM;
        }
        op->guest = g;
        op->kind = kind_of(h->operation);
        op->done = done;
        op->userdata = userdata;
        (void) snprintf(op->caller, sizeof op->caller, "%s", c && c->id ? c->id : "");
        if (copy_text(h->name ?: g->name, &op->name) < 0 || copy_text(h->matrix, &op->matrix_name) < 0 ||
            copy_text(h->tpm, &op->tpm_name) < 0 || virt_wiring_copy(&w, &op->wiring) < 0 ||
            timer_after(g->engine->event, &op->timer,
                        op->kind == HOOK_PREPARE && h->tpm_model != TPM_MODEL_NONE ? HOOK_TPM_DEADLINE_US
                                                                                   : HOOK_DEADLINE_US,
                        on_late, op) < 0) {
                (void) hook_free(op);
                guest_discharge(g->engine, c && c->id ? c->id : "");
                return -ENOMEM;
        }
        *ret = op;
        return 0;
}

static bool is_preparing(const Guest *g) {
        for (const HookOp *h = g->hooks; h; h = h->next)
                if (h->kind == HOOK_PREPARE && !h->cancelled)
                        return true;
        return false;
}

int engine_hook(Engine *e, const EngineHook *h, const EngineCaller *c, engine_done_t done, void *userdata,
                Refusal *reterr) {
        HookOp *op, **last;
        Guest *g;
        int r;

        if (!h->operation || uuid_is_null(h->guest) || h->tpm_model >= _TPM_MODEL_MAX)
                return refuse(reterr, VERDICT_INVALID, 0,
                              "a hook call needs its operation and the guest's UUID");
        if ((strcmp(h->operation, "restore") == 0 || strcmp(h->operation, "migrate") == 0) &&
            h->tpm_model == TPM_MODEL_VIRTIO)
                return refuse(
                        reterr, VERDICT_UNSUPPORTED, 0,
                        "guest '%s' has a virtio TPM, whose state is not in a saved or migrated guest: %s",
                        h->name ?: "?",
                        h->operation[0] == 'r'
                                ? "start it from its disk with 'virsh start --force-boot', or drop the image with "
                                  "'virsh managedsave-remove'"
                                : "shut it down, move it, and start it there");

        g = guest_get(e, h->guest, h->name);
        if (!g)
                return -ENOMEM;
        if (kind_of(h->operation) == HOOK_PREPARE && is_preparing(g))
                return refuse(reterr, VERDICT_BAD_STATE, 0, "guest '%s' is being prepared already", g->name);
        r = guest_admit(e, c, reterr);
        if (r == 0)
                r = hook_new(g, h, c, done, userdata, &op);
        if (r != 0) {
                guest_stir(g); /* may be nothing */
                return r;
        }

        for (last = &g->hooks; *last; last = &(*last)->next)
                if (op->kind == HOOK_END)
                        (*last)->cancelled = true;
        *last = op;
        e->guests->n_waiting++;
        guest_stir(g);
        return 0;
}
