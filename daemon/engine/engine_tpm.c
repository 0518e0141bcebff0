/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TPMs: requests about them, into guests and out of them, and their reset with the machine. */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/engine_guest_internal.h"

/* ---- calls that may outlive the engine ---- */

struct GuestCall {
        GuestCall *next;
        Engine *engine; /* NULL: gone */
        guest_called_t done;
        vtpm_counters_t counters; /* instead */
        void *userdata;
        void *owned; /* free() */
};

GuestCall *guest_call_new(Engine *e, guest_called_t done, void *userdata) {
        GuestCall *c = calloc(1, sizeof *c);

        if (!c)
                return NULL;
        *c = (GuestCall) { .next = e->guests->calls, .engine = e, .done = done, .userdata = userdata };
        e->guests->calls = c;
        return c;
}

static void call_unlink(GuestCall *c) {
        GuestCall **p = c->engine ? &c->engine->guests->calls : NULL;

        while (p && *p != c)
                p = &(*p)->next;
        if (p)
                *p = c->next;
}

static void call_free(GuestCall *c) {
        free(c->owned);
        free(c);
}

void guest_call_done(void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid) {
        GuestCall *c = userdata;

        call_unlink(c);
        if (c->engine)
                c->done(c->engine, c->userdata, r, verdict, text, uuid);
        call_free(c);
}

int guest_call_made(GuestCall *c, int r) {
        if (r < 0 && c) {
                call_unlink(c);
                call_free(c);
        }
        return r;
}

void guest_calls_orphan(Engine *e) {
        for (GuestCall *c = e->guests->calls; c; c = c->next)
                c->engine = NULL;
        e->guests->calls = NULL;
}

/* ---- verdicts ---- */

Verdict engine_verdict_of_vtpm(VtpmVerdict v) {
        static const Verdict verdicts[] = {
                [VTPM_DONE] = VERDICT_OK,
                [VTPM_NO_SUCH] = VERDICT_NO_SUCH_TPM,
                [VTPM_EXISTS] = VERDICT_EXISTS,
                [VTPM_BAD_STATE] = VERDICT_BAD_STATE,
                [VTPM_IN_USE] = VERDICT_IN_USE,
                [VTPM_INVALID] = VERDICT_INVALID,
                [VTPM_LIMIT] = VERDICT_LIMIT_HIT,
                [VTPM_TOOL] = VERDICT_TPM,
                [VTPM_UNAVAILABLE] = VERDICT_BACKEND,
                [VTPM_BAD_RECORD] = VERDICT_BAD_RECORD,
                [VTPM_TIMEOUT] = VERDICT_STUCK,
        };
        static_assert(ELEMENTS(verdicts) == _VTPM_VERDICT_MAX, "each is one of ours");

        return verdicts[v];
}

int guest_refuse_vtpm(Refusal *reterr, VtpmVerdict verdict, const char *text) {
        return refuse(reterr, engine_verdict_of_vtpm(verdict), 0, "%s", text ?: "the TPM cannot be had");
}

/* ---- requests ---- */

typedef struct TpmRequest {
        engine_done_t done;
        void *userdata;
        char caller[ENGINE_CALLER_SIZE];
} TpmRequest;

static void on_requested(Engine *e, void *userdata, int r, VtpmVerdict verdict, const char *text,
                         Uuid uuid) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        const TpmRequest *q = userdata;

        if (r >= 0 && verdict != VTPM_DONE)
                r = guest_refuse_vtpm(&refusal, verdict, text);
        guest_discharge(e, q->caller);
        q->done(q->userdata, r, r > 0 ? &refusal : NULL, uuid);
}

/* 0: *ret is to be handed to vtpm. */
static int request_new(Engine *e, const EngineCaller *c, engine_done_t done, void *userdata, GuestCall **ret,
                       Refusal *reterr) {
        GuestCall *call;
        TpmRequest *q;
        int r;

        if (!e->guests->vtpm)
                return refuse(reterr, VERDICT_BACKEND, 0, "there are no TPMs on this host");
        r = guest_admit(e, c, reterr);
        if (r != 0)
                return r;
        q = calloc(1, sizeof *q);
        call = q ? guest_call_new(e, on_requested, q) : NULL;
        if (!call) {
                free(q);
                guest_discharge(e, c && c->id ? c->id : "");
                return -ENOMEM;
        }
        q->done = done;
        q->userdata = userdata;
        (void) snprintf(q->caller, sizeof q->caller, "%s", c && c->id ? c->id : "");
        call->owned = q;
        *ret = call;
        return 0;
}

static int request_made(Engine *e, const EngineCaller *c, GuestCall *call, int r, Refusal *reterr) {
        r = guest_call_made(call, r);
        if (r < 0)
                guest_discharge(e, c && c->id ? c->id : "");
        if (r == -EBUSY)
                return refuse(reterr, VERDICT_LIMIT_HIT, r,
                              "too many changes of TPMs are under way; wait for some of them");
        return r;
}

int engine_define_tpm(Engine *e, const VtpmSpec *spec, const EngineCaller *c, engine_done_t done,
                      void *userdata, Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r = request_new(e, c, done, userdata, &call, reterr);

        return r != 0 ? r : request_made(e, c, call, v->ops->define(v, spec, guest_call_done, call), reterr);
}

int engine_start_tpm(Engine *e, Uuid uuid, TpmModel model, const EngineCaller *c, engine_done_t done,
                     void *userdata, Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r;

        if (model == TPM_MODEL_NONE)
                model = TPM_MODEL_VIRTIO;
        r = request_new(e, c, done, userdata, &call, reterr);
        return r != 0 ? r
                      : request_made(e, c, call, v->ops->start(v, uuid, model, guest_call_done, call),
                                     reterr);
}

/* Who runs with it, or is about to. */
static const Guest *user_of(Engine *e, Uuid uuid) {
        const Guest *g = hold_of_tpm(e, uuid);
        Uuid tpm;

        for (size_t i = 0; i < e->guests->n && !g; i++) {
                const Guest *other = e->guests->by_uuid[i];

                if (other->active && guest_socket_tpm(other->live.tpm_socket, &tpm) >= 0 &&
                    uuid_equal(tpm, uuid))
                        g = other;
        }
        return g;
}

int engine_stop_tpm(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata,
                    Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        const Guest *g = user_of(e, uuid);
        GuestCall *call;
        int r;

        if (g)
                return refuse(reterr, VERDICT_IN_USE, 0, "guest '%s' runs with this TPM; shut it down first",
                              g->name);
        r = request_new(e, c, done, userdata, &call, reterr);
        return r != 0 ? r : request_made(e, c, call, v->ops->stop(v, uuid, guest_call_done, call), reterr);
}

int engine_undefine_tpm(Engine *e, Uuid uuid, bool wipe, const EngineCaller *c, engine_done_t done,
                        void *userdata, Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        const Guest *g = guests_other_naming(e, &e->guests->tpms, uuid, NULL);
        GuestCall *call;
        int r;

        for (size_t i = 0; i < e->guests->n && !g; i++)
                if (e->guests->by_uuid[i]->op && uuid_equal(e->guests->by_uuid[i]->op->what, uuid))
                        g = e->guests->by_uuid[i];
        if (g)
                return refuse(reterr, VERDICT_IN_USE, 0,
                              "guest '%s' names this TPM in its configuration; detach it first", g->name);
        r = request_new(e, c, done, userdata, &call, reterr);
        return r != 0 ? r
                      : request_made(e, c, call, v->ops->undefine(v, uuid, wipe, guest_call_done, call),
                                     reterr);
}

int engine_backup_tpm(Engine *e, Uuid uuid, int fd, const EngineCaller *c, engine_done_t done,
                      void *userdata, Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r = request_new(e, c, done, userdata, &call, reterr);

        return r != 0 ? r
                      : request_made(e, c, call, v->ops->backup(v, uuid, fd, guest_call_done, call), reterr);
}

int engine_restore_tpm(Engine *e, int fd, const VtpmSpec *spec, const EngineCaller *c, engine_done_t done,
                       void *userdata, Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r = request_new(e, c, done, userdata, &call, reterr);

        return r != 0 ? r
                      : request_made(e, c, call, v->ops->restore(v, fd, spec, guest_call_done, call),
                                     reterr);
}

int engine_import_tpm(Engine *e, const char *directory, const VtpmSpec *spec, const EngineCaller *c,
                      engine_done_t done, void *userdata, Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r = request_new(e, c, done, userdata, &call, reterr);

        return r != 0 ? r
                      : request_made(e, c, call, v->ops->import(v, directory, spec, guest_call_done, call),
                                     reterr);
}

static void on_counters(void *userdata, int r, VtpmVerdict verdict, const char *text,
                        const VtpmCounter *counters, size_t n) {
        GuestCall *c = userdata;
        const TpmRequest *q = c->owned;

        call_unlink(c);
        if (c->engine) {
                guest_discharge(c->engine, q->caller);
                c->counters(c->userdata, r, verdict, text, counters, n);
        }
        call_free(c);
}

int engine_tpm_counters(Engine *e, Uuid uuid, const EngineCaller *c, vtpm_counters_t done, void *userdata,
                        Refusal *reterr) {
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r = request_new(e, c, NULL, NULL, &call, reterr);

        if (r != 0)
                return r;
        call->counters = done;
        call->userdata = userdata;
        return request_made(e, c, call, v->ops->counters(v, uuid, on_counters, call), reterr);
}

/* ---- into guests and out of them ---- */

typedef enum TpmPhase {
        TPM_BEGIN,
        TPM_MEANT, /* the TPM is meant for the guest */
        TPM_EDITED,
        TPM_UNMEAN,
        TPM_END,
} TpmPhase;

int guest_may_have_tpm(Engine *e, const Guest *g, const char *name, const VtpmView *v, Refusal *reterr) {
        const Guest *holder = hold_of_tpm(e, v->uuid);

        if (holder && holder != g)
                return refuse(reterr, VERDICT_IN_USE, 0,
                              "TPM '%s' is held by guest '%s', which %s; shut that down first", v->spec.name,
                              holder->name,
                              holder->hold.phase == HOLD_RUNNING ? "runs with it" : "is being started");
        if (v->spec.guest && !guest_is(g, v->spec.guest) && strcmp(v->spec.guest, name) != 0)
                return refuse(reterr, VERDICT_IN_USE, 0,
                              "TPM '%s' is meant for guest '%s'; detach it there first", v->spec.name,
                              v->spec.guest);
        return 0;
}

static int check_attach(GuestOp *op, VtpmView *ret, Refusal *reterr) {
        Guest *g = op->guest;
        Engine *e = g->engine;
        Vtpm *v = e->guests->vtpm;
        char text[UUID_STRING_SIZE];
        const Guest *other;
        Uuid uuid;
        int r;

        if (!v || v->ops->get(v, op->what, ret) < 0)
                return refuse(reterr, VERDICT_NO_SUCH_TPM, 0, "there is no TPM %s",
                              uuid_format(op->what, text));
        if (ret->state == VTPM_CREATING)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "TPM '%s' is still being made", ret->spec.name);
        if (!g->persistent)
                return refuse(
                        reterr, VERDICT_UNSUPPORTED, 0,
                        "guest '%s' has no persistent configuration, and a TPM cannot be plugged in while it runs",
                        g->name);
        if (g->config.foreign_tpm)
                return refuse(
                        reterr, VERDICT_EXISTS, 0,
                        "guest '%s' has a TPM that is not ours; remove it from its configuration first",
                        g->name);
        if (guest_socket_tpm(g->config.tpm_socket, &uuid) >= 0 && !uuid_equal(uuid, op->what))
                return refuse(reterr, VERDICT_EXISTS, 0, "guest '%s' has TPM %s; detach that first", g->name,
                              uuid_format(uuid, text));
        if (g->config.tpm &&
            (guest_declared_tpm(e, g->config.tpm, &uuid) < 0 || !uuid_equal(uuid, op->what)))
                return refuse(
                        reterr, VERDICT_EXISTS, 0,
                        "the metadata of guest '%s' name TPM '%s', and it can have one only; detach that first",
                        g->name, g->config.tpm);
        r = guest_may_have_tpm(e, g, g->name, ret, reterr);
        if (r != 0)
                return r;
        other = guests_other_naming(e, &e->guests->tpms, op->what, g);
        if (other)
                return refuse(reterr, VERDICT_IN_USE, 0, "guest '%s' names TPM '%s' in its configuration",
                              other->name, ret->spec.name);
        return 0;
}

static void on_meant(Engine *e, void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        GuestOp *op = userdata;

        op->busy = false;
        if (r >= 0 && verdict != VTPM_DONE)
                r = guest_refuse_vtpm(&refusal, verdict, text);
        if (op->phase == TPM_MEANT)
                op->changed = r == 0;
        if (r != 0) {
                guest_op_refuse(op, r, &refusal);
                op->phase = TPM_END;
        }
        guest_stir(op->guest);
}

static void change_meant(GuestOp *op, const char *guest, TpmPhase next) {
        Engine *e = op->guest->engine;
        Vtpm *v = e->guests->vtpm;
        GuestCall *call = guest_call_new(e, on_meant, op);
        int r;

        op->phase = next;
        op->busy = true;
        r = guest_call_made(call, call ? v->ops->set_guest(v, op->what, guest, op->guest->uuid,
                                                           guest_call_done, call)
                                       : -ENOMEM);
        if (r < 0)
                on_meant(e, op, r, VTPM_DONE, NULL, op->what);
}

static void begin_attach(GuestOp *op) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        VtpmView view;
        int r;

        r = check_attach(op, &view, &refusal);
        if (r != 0) {
                guest_op_refuse(op, r, &refusal);
                return guest_op_end(op);
        }
        if (!view.spec.guest)
                return change_meant(op, op->guest->name, TPM_MEANT);
        op->phase = TPM_MEANT;
        guest_stir(op->guest);
}

static void edit_attach(GuestOp *op) {
        Vtpm *v = op->guest->engine->guests->vtpm;
        char text[UUID_STRING_SIZE];
        VtpmView view;

        if (v->ops->get(v, op->what, &view) < 0) {
                op->r = refuse(&op->refusal, VERDICT_NO_SUCH_TPM, 0, "TPM %s is gone",
                               uuid_format(op->what, text));
                return guest_op_end(op);
        }
        const VirtEdit edit = { .kind = VIRT_ATTACH_TPM,
                                .name = view.spec.name,
                                .model = op->model,
                                .socket = view.device_socket };

        guest_op_edit(op, &edit, view.swtpm_socket, TPM_EDITED);
}

/* The one it has, is to have, or is meant for it. */
static int find_attached(Guest *g, Uuid *ret) {
        Engine *e = g->engine;
        Vtpm *v = e->guests->vtpm;
        CLEANUP(freep) Uuid *list = NULL;
        VtpmView view;
        size_t n = 0;

        if (guest_socket_tpm(g->config.tpm_socket, ret) >= 0 ||
            (g->config.tpm && guest_declared_tpm(e, g->config.tpm, ret) >= 0) ||
            guest_socket_tpm(g->live.tpm_socket, ret) >= 0)
                return 0;
        if (!v || v->ops->list(v, &list, &n) < 0)
                return -ENOENT;
        for (size_t i = 0; i < n; i++)
                if (v->ops->get(v, list[i], &view) >= 0 && view.spec.guest && guest_is(g, view.spec.guest)) {
                        *ret = list[i];
                        return 0;
                }
        return -ENOENT;
}

static void begin_detach(GuestOp *op) {
        const VirtEdit edit = { .kind = VIRT_DETACH_TPM };
        Guest *g = op->guest;

        if (find_attached(g, &op->what) < 0 && !g->config.tpm) {
                op->r = refuse(&op->refusal, VERDICT_BAD_STATE, 0, "guest '%s' has no TPM of ours", g->name);
                return guest_op_end(op);
        }
        guest_op_edit(op, &edit, NULL, TPM_EDITED);
}

static void edited(GuestOp *op) {
        Guest *g = op->guest;
        bool attach = op->kind == VIRT_ATTACH_TPM, failed = op->r != 0, is_wired;
        Uuid wired;

        if (op->unsure)
                return guest_op_look(op);
        is_wired = guest_socket_tpm(g->config.tpm_socket, &wired) >= 0 && uuid_equal(wired, op->what);
        if (failed && !op->done) /* libvirt had not answered: it is as it is */
                failed = attach != is_wired;
        if (!failed && op->next_start && attach)
                guest_op_note(op, "takes effect at the next start of '%s'", g->name);
        else if (!failed && op->next_start)
                guest_op_note(op, "guest '%s' has it until it ends", g->name);

        /* whom it is meant for follows the XML */
        op->phase = failed == attach ? TPM_UNMEAN : TPM_END;
        guest_stir(g);
}

static void unmean(GuestOp *op) {
        Vtpm *v = op->guest->engine->guests->vtpm;
        VtpmView view;

        if ((op->kind == VIRT_DETACH_TPM || op->changed) && v && v->ops->get(v, op->what, &view) >= 0 &&
            view.spec.guest && guest_is(op->guest, view.spec.guest))
                return change_meant(op, NULL, TPM_END);
        guest_op_end(op);
}

void guest_tpm_run(GuestOp *op) {
        bool attach = op->kind == VIRT_ATTACH_TPM;

        switch ((TpmPhase) op->phase) {
        case TPM_BEGIN:
                return attach ? begin_attach(op) : begin_detach(op);
        case TPM_MEANT:
                return edit_attach(op);
        case TPM_EDITED:
                return edited(op);
        case TPM_UNMEAN:
                return unmean(op);
        case TPM_END:
                return guest_op_end(op);
        }
}

int engine_attach_tpm(Engine *e, Uuid guest, Uuid tpm, TpmModel model, const EngineCaller *c,
                      engine_noted_t done, void *userdata, Refusal *reterr) {
        return guest_op_begin(e, guest, VIRT_ATTACH_TPM, tpm, true, model, c, done, userdata, reterr);
}

int engine_detach_tpm(Engine *e, Uuid guest, const EngineCaller *c, engine_noted_t done, void *userdata,
                      Refusal *reterr) {
        return guest_op_begin(e, guest, VIRT_DETACH_TPM, (Uuid) {}, true, TPM_MODEL_NONE, c, done, userdata,
                              reterr);
}

static void on_renamed(Engine *e, void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid) {
        if (r < 0 || verdict != VTPM_DONE)
                log_warning("A TPM is still meant for a guest by its old name: %s", text ?: strerror(-r));
}

static void tpm_follow_name(Guest *g, Uuid tpm, bool wired) {
        Vtpm *v = g->engine->guests->vtpm;
        GuestCall *call;
        VtpmView view;

        if (v->ops->get(v, tpm, &view) < 0 ||
            !guest_name_is_due(g, wired, view.spec.guest, view.spec.guest_uuid))
                return;
        call = guest_call_new(g->engine, on_renamed, NULL);
        if (call)
                (void) guest_call_made(call,
                                       v->ops->set_guest(v, tpm, g->name, g->uuid, guest_call_done, call));
}

void guest_tpm_follow_name(Guest *g) {
        Vtpm *v = g->engine->guests->vtpm;
        CLEANUP(freep) Uuid *list = NULL;
        Uuid wired = {};
        size_t n = 0;

        if (!v)
                return;
        if (guest_socket_tpm(g->config.tpm_socket, &wired) >= 0)
                tpm_follow_name(g, wired, true);
        if (g->old_name && v->ops->list(v, &list, &n) < 0)
                return;
        for (size_t i = 0; i < n; i++)
                if (!uuid_equal(list[i], wired))
                        tpm_follow_name(g, list[i], false);
}

/* ---- the machine was reset ---- */

static void on_reset(Engine *e, void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid) {
        Guest *g = hold_of_tpm(e, uuid);

        if (!g)
                return;
        free(TAKE(g->reset_error));
        if (r >= 0 && verdict == VTPM_DONE)
                g->reset_missed = false; /* whatever came before */
        else
                g->reset_error = strdup(r < 0 ? strerror(-r) : text ?: "it does not answer");
        guest_stir(g);
}

void guest_reset_tpm(Guest *g) {
        Engine *e = g->engine;
        Vtpm *v = e->guests->vtpm;
        GuestCall *call;
        int r;

        if (!v || g->hold.phase == HOLD_RELEASING || uuid_is_null(g->hold.tpm) ||
            g->hold.model != TPM_MODEL_VIRTIO)
                return;
        call = guest_call_new(e, on_reset, NULL);
        r = guest_call_made(call, call ? v->ops->reset(v, g->hold.tpm, guest_call_done, call) : -ENOMEM);
        if (r < 0)
                on_reset(e, NULL, r, VTPM_DONE, NULL, g->hold.tpm);
}
