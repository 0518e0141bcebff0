/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Matrices into guests and out of them. To attach: the definition is meant for the guest, on disk; what runs is started; and
 * last libvirt changes the XML, which is what decides: whatever has failed before, or then, is undone. To detach: the XML
 * first, the rest follows it. A crash between leaves a definition that is meant for a guest which does not name it, and
 * that is said. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/engine_guest_internal.h"

typedef enum AttachPhase {
        ATTACH_BEGIN,
        ATTACH_MEANT, /* the definition is meant for the guest */
        ATTACH_HELD,  /* so says its hold, if it runs */
        ATTACH_LIVE,
        ATTACH_EDITED, /* libvirt has answered */
        ATTACH_UNHOLD, /* to be stopped */
        ATTACH_UNMEAN, /* to be meant for nobody */
        ATTACH_END,
} AttachPhase;

/* ---- operations on guests ---- */

int guest_admit(Engine *e, const EngineCaller *c, Refusal *reterr) {
        return c && c->id && c->id[0] ? engine_admit(e, c->id, reterr) : 0;
}

void guest_discharge(Engine *e, const char *caller) {
        if (caller[0])
                engine_discharge(e, caller);
}

GuestOp *guest_op_free(GuestOp *op) {
        if (!op)
                return NULL;
        refusal_clear(&op->refusal);
        strv_free(op->notes);
        free(op);
        return NULL;
}

int guest_op_begin(Engine *e, Uuid guest, VirtEditKind kind, Uuid what, bool live, TpmModel model,
                   const EngineCaller *c, engine_noted_t done, void *userdata, Refusal *reterr) {
        Guests *gs = e->guests;
        char text[UUID_STRING_SIZE];
        Guest *g;
        GuestOp *op;
        int r;

        if (!gs->virt)
                return refuse(reterr, VERDICT_BACKEND, 0, "no libvirt is to be asked (LibvirtURI=)");
        gs->wanted = true;
        if (!gs->up)
                return refuse(reterr, VERDICT_BACKEND, 0, "libvirt cannot be reached: %s",
                              gs->why ?: "no connection yet");
        g = guest_find(e, guest);
        if (!g || !g->known)
                return refuse(reterr, VERDICT_NO_SUCH_GUEST, 0, "libvirt has no guest %s",
                              uuid_format(guest, text));
        if (g->op)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "another change of guest '%s' is under way%s",
                              g->name, g->op->unsure ? ", and libvirt has not answered it" : "");

        r = guest_admit(e, c, reterr);
        if (r != 0)
                return r;
        op = calloc(1, sizeof *op);
        if (!op) {
                guest_discharge(e, c && c->id ? c->id : "");
                return -ENOMEM;
        }
        op->guest = g;
        op->kind = kind;
        op->what = what;
        op->live = live;
        op->model = model;
        op->done = done;
        op->userdata = userdata;
        (void) snprintf(op->caller, sizeof op->caller, "%s", c && c->id ? c->id : "");
        g->op = op;
        gs->n_waiting++;
        guest_stir(g);
        return 0;
}

void guest_op_note(GuestOp *op, const char *format, ...) {
        CLEANUP(freep) char *text = NULL;
        va_list ap;
        int r;

        va_start(ap, format);
        r = vasprintf(&text, format, ap);
        va_end(ap);
        if (r < 0)
                text = NULL;
        else
                (void) strv_addf(&op->notes, "%s", text);
}

/* Why it fails: the first reason is the one that is told. */
void guest_op_refuse(GuestOp *op, int r, const Refusal *refusal) {
        if (op->r == 0)
                op->r = r > 0 && refusal
                                ? refuse(&op->refusal, refusal->verdict, refusal->error, "%s", refusal->text)
                                : r;
}

static void op_answer(GuestOp *op) {
        static char *none[] = { NULL };
        engine_noted_t done = TAKE(op->done);

        if (!done)
                return;
        guest_discharge(op->guest->engine, op->caller);
        done(op->userdata, op->r, op->r > 0 ? &op->refusal : NULL,
             (const char *const *) (op->r == 0 && op->notes ? op->notes : none));
}

void guest_op_end(GuestOp *op) {
        Guest *g = op->guest;
        Engine *e = g->engine;
        Matrix *m = state_find(e, op->what);

        op_answer(op);
        g->op = guest_op_free(op);
        e->guests->n_waiting--;
        if (m)
                state_show(e, m);
        guest_stir(g);
}

static void refuse_edit(GuestOp *op, const VirtOutcome *o) {
        static const Verdict verdicts[] = {
                [VIRT_DONE] = VERDICT_OK,
                [VIRT_NO_SUCH_GUEST] = VERDICT_NO_SUCH_GUEST,
                [VIRT_REFUSED] = VERDICT_EXISTS,
                [VIRT_UNSUPPORTED] = VERDICT_UNSUPPORTED,
                [VIRT_CHANGED] = VERDICT_BAD_STATE,
                [VIRT_LIBVIRT] = VERDICT_LIBVIRT,
                [VIRT_UNAVAILABLE] = VERDICT_BACKEND,
        };
        static const char *const defaults[] = {
                [VIRT_NO_SUCH_GUEST] = "libvirt does not have it any more",
                [VIRT_REFUSED] = "it has another one",
                [VIRT_UNSUPPORTED] = "it cannot have one",
                [VIRT_CHANGED] =
                        "somebody else keeps changing its configuration; nothing was changed, try again",
                [VIRT_LIBVIRT] = "libvirt refuses",
                [VIRT_UNAVAILABLE] = "libvirt does not answer",
        };

        op->r = refuse(&op->refusal, verdicts[o->verdict], 0, "guest '%s': %s%s", op->guest->name,
                       o->text ?: defaults[o->verdict],
                       o->unknown ? "; what it has done is looked at when it answers again" : "");
}

static void on_edited(void *userdata, int r, const VirtOutcome *o) {
        GuestOp *op = userdata;

        op->busy = false;
        if (r < 0)
                op->r = r;
        else if (o->verdict != VIRT_DONE) {
                refuse_edit(op, o);
                op->unsure = o->verdict == VIRT_UNAVAILABLE && o->unknown;
        } else {
                op->next_start = o->next_start;
                if (op->kind == VIRT_ATTACH_TPM)
                        op->model = o->model;
        }
        if (op->unsure) /* the caller need not wait for libvirt to come back */
                op_answer(op);
        guest_stir(op->guest);
}

static void not_asked(GuestOp *op, int r) {
        if (r == -EBUSY)
                r = refuse(&op->refusal, VERDICT_BACKEND, r, "too many changes of guests wait for libvirt");
        op->r = r;
        op->busy = false;
        guest_stir(op->guest);
}

void guest_op_edit(GuestOp *op, const VirtEdit *edit, const char *swtpm_socket, unsigned next) {
        Guests *gs = op->guest->engine->guests;
        bool live = op->live && op->guest->active && !op->guest->ended; /* if it has been held, that is */
        int r;

        op->phase = next;
        op->busy = true;
        r = gs->virt->ops->edit(gs->virt, op->guest->uuid, edit, swtpm_socket, live, on_edited, op);
        if (r != 0)
                not_asked(op, r);
}

static void on_looked(void *userdata, int r, const VirtOutcome *o) {
        GuestOp *op = userdata;

        op->busy = false;
        if (r >= 0 && (o->verdict == VIRT_DONE || o->verdict == VIRT_NO_SUCH_GUEST))
                op->unsure = false;
        else
                guests_again(op->guest->engine);
        guest_stir(op->guest);
}

void guest_op_look(GuestOp *op) {
        Guests *gs = op->guest->engine->guests;

        if (!gs->up || !gs->listed || gs->again_timer) /* looked at again when that is so */
                return;
        op->busy = true;
        if (gs->virt->ops->refresh(gs->virt, op->guest->uuid, on_looked, op) < 0) {
                op->busy = false;
                guests_again(op->guest->engine);
        }
}

/* ---- may it? ---- */

int guest_may_have_matrix(Engine *e, const Guest *g, const char *name, const Matrix *m, Refusal *reterr) {
        const Guest *holder = hold_of_matrix(e, m->rec.uuid);

        if (holder && holder != g)
                return refuse(
                        reterr, VERDICT_IN_USE, 0,
                        "matrix '%s' is held by guest '%s', which %s; detach it there, or shut that down, first",
                        m->rec.name, holder->name,
                        holder->hold.phase == HOLD_RUNNING ? "runs with it" : "is being started");
        if (m->rec.guest && !guest_is(g, m->rec.guest) && strcmp(m->rec.guest, name) != 0)
                return refuse(
                        reterr, VERDICT_IN_USE, 0, "matrix '%s' is meant for guest '%s'%s", m->rec.name,
                        m->rec.guest,
                        !e->guests->listed || guest_named(e, m->rec.guest)
                                ? "; detach it there first"
                                : ", which libvirt does not have; define that guest, or the matrix anew");
        return 0;
}

/* An emulated CPU never has AP: such a guest is somebody's test, who is told, but not kept from it. */
bool guest_cannot_have_ap(const Guest *g) {
        const VirtWiring *w = guest_wiring(g);

        return g->lacks && w->type && strcmp(w->type, "kvm") == 0;
}

static int check_attach(GuestOp *op, const Matrix *m, Refusal *reterr) {
        Guest *g = op->guest;
        Engine *e = g->engine;
        const VirtWiring *wirings[] = { &g->config, &g->live };
        char text[UUID_STRING_SIZE];
        const Guest *other;
        int r;

        if (!m || !m->visible)
                return refuse(reterr, VERDICT_NO_SUCH_MATRIX, 0, "there is no matrix %s",
                              uuid_format(op->what, text));
        if (!g->persistent && !(g->active && op->live))
                return refuse(
                        reterr, VERDICT_UNSUPPORTED, 0,
                        "guest '%s' has no persistent configuration, so that a matrix can only be plugged in while "
                        "it runs",
                        g->name);
        if (guest_cannot_have_ap(g))
                return refuse(
                        reterr, VERDICT_UNSUPPORTED, 0,
                        "the CPU of guest '%s' does not have %s, without which it gets no AP queues; use CPU mode "
                        "host-passthrough or host-model, or require these features",
                        g->name, g->lacks);
        for (size_t i = 0; i < ELEMENTS(wirings); i++) {
                const VirtWiring *w = wirings[i];

                for (size_t k = 0; k < w->n_mdevs; k++)
                        if (!uuid_equal(w->mdevs[k], op->what))
                                return refuse(
                                        reterr, VERDICT_EXISTS, 0,
                                        "guest '%s' has '%s', and can have one matrix only; detach that first",
                                        g->name, guest_mdev_name(e, w->mdevs[k], text));
                if (w->matrix && guest_declared_matrix(e, w->matrix) != m)
                        return refuse(
                                reterr, VERDICT_EXISTS, 0,
                                "the metadata of guest '%s' name matrix '%s', and it can have one only; detach "
                                "that first",
                                g->name, w->matrix);
        }
        if (!uuid_is_null(g->hold.matrix) && !uuid_equal(g->hold.matrix, op->what))
                return refuse(reterr, VERDICT_EXISTS, 0,
                              "guest '%s' still runs with '%s'; detach that first", g->name,
                              guest_mdev_name(e, g->hold.matrix, text));

        r = guest_may_have_matrix(e, g, g->name, m, reterr);
        if (r != 0)
                return r;
        other = guests_other_naming(e, &e->guests->mdevs, op->what, g);
        if (other)
                return refuse(reterr, VERDICT_IN_USE, 0, "guest '%s' names matrix '%s' in its configuration",
                              other->name, m->rec.name);
        return 0;
}

/* ---- the record: whom it is meant for ---- */

static void on_meant(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        GuestOp *op = userdata;

        op->busy = false;
        if (op->phase == ATTACH_MEANT) {
                op->changed = r == 0;
                guest_op_refuse(op, r, refusal);
                if (r != 0)
                        op->phase = ATTACH_END;
        } else if (r != 0) { /* the matrix says so */
                log_warning("Whom a matrix is meant for cannot be changed: %s",
                            refusal ? refusal->text : strerror(-r));
                guest_op_refuse(op, r, refusal);
        }
        guest_stir(op->guest);
}

static int set_meant(Engine *e, Uuid matrix, const char *guest, Uuid guest_uuid, engine_done_t done,
                     void *userdata) {
        Op *op = op_new(INTENT_MODIFY, matrix, NULL, done, userdata);

        if (op && guest)
                op->record.guest = strdup(guest);
        if (!op || (guest && !op->record.guest)) {
                (void) op_free(op);
                return -ENOMEM;
        }
        op->record.guest_uuid = guest ? guest_uuid : (Uuid) {};
        op->keep_matrix = op->set_guest = true;
        op->autostart = -1;
        op->fresh = true; /* nothing about the host is decided */
        op_begin(e, op);
        return 0;
}

static void change_meant(GuestOp *op, const char *guest, AttachPhase next) {
        int r;

        op->phase = next;
        op->busy = true;
        r = set_meant(op->guest->engine, op->what, guest, op->guest->uuid, on_meant, op);
        if (r < 0)
                on_meant(op, r, NULL, op->what);
}

static void on_renamed(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        if (r != 0)
                log_warning("A matrix is still meant for a guest by its old name: %s",
                            refusal ? refusal->text : strerror(-r));
}

bool guest_name_is_due(const Guest *g, bool wired, const char *meant, Uuid meant_uuid) {
        if (!meant)
                return false;
        if (uuid_equal(meant_uuid, g->uuid))
                return !guest_is(g, meant); /* it has got another name, perhaps while nobody looked */
        if (wired)
                return strcmp(meant, g->name) == 0; /* by its name alone, or another guest had that before */
        /* never attached, so that nothing but the name says who it was */
        return uuid_is_null(meant_uuid) && g->old_name && strcmp(meant, g->old_name) == 0 &&
               !guest_is(g, meant);
}

static void follow_name(Guest *g, const Matrix *m, bool wired) {
        if (guest_name_is_due(g, wired, m->rec.guest, m->rec.guest_uuid))
                (void) set_meant(g->engine, m->rec.uuid, g->name, g->uuid, on_renamed, NULL);
}

void guest_follow_name(Guest *g) {
        Engine *e = g->engine;

        for (size_t i = 0; i < g->config.n_mdevs; i++) {
                const Matrix *m = state_find(e, g->config.mdevs[i]);

                if (m)
                        follow_name(g, m, true);
        }
        for (size_t i = 0; g->old_name && i < e->n_matrices; i++)
                if (!guest_wiring_has(&g->config, e->by_uuid[i]->rec.uuid))
                        follow_name(g, e->by_uuid[i], false);
        guest_tpm_follow_name(g);
        free(TAKE(g->old_name));
}

/* ---- attach ---- */

static void begin_attach(GuestOp *op) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        const Matrix *m = state_find(op->guest->engine, op->what);
        int r;

        r = check_attach(op, m, &refusal);
        if (r != 0) {
                guest_op_refuse(op, r, &refusal);
                return guest_op_end(op);
        }
        /* one that is not kept has it while it runs, and nobody could take it from it after that */
        if (!m->rec.guest && op->guest->persistent)
                return change_meant(op, op->guest->name, ATTACH_MEANT);
        op->phase = ATTACH_MEANT;
        guest_stir(op->guest);
}

static void undo_attach(GuestOp *op) {
        op->phase = ATTACH_UNHOLD;
        guest_stir(op->guest);
}

static void on_held(void *userdata, int r) {
        GuestOp *op = userdata;
        Refusal refusal = {};

        op->busy = false;
        op->phase = ATTACH_HELD;
        if (r < 0) {
                r = refuse(&refusal, VERDICT_BACKEND, r, "what guest '%s' holds cannot be written: %s",
                           op->guest->name, strerror(-r));
                guest_op_refuse(op, r, &refusal);
                refusal_clear(&refusal);
                op->phase = ATTACH_UNHOLD;
        }
        guest_stir(op->guest);
}

static void hold_it(GuestOp *op) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        Guest *g = op->guest;
        Engine *e = g->engine;
        const Matrix *m;
        int r;

        if (hold_is_stopping(e, op->what, (Uuid) {}))
                return;
        /* another guest may have taken it meanwhile */
        m = state_find(e, op->what);
        r = m ? guest_may_have_matrix(e, g, g->name, m, &refusal) : 0;
        if (r != 0) {
                guest_op_refuse(op, r, &refusal);
                return undo_attach(op);
        }
        op->phase = ATTACH_HELD;
        if (!g->active || g->ended || !op->live || g->hold.phase == HOLD_RELEASING ||
            uuid_equal(g->hold.matrix, op->what))
                return guest_stir(g);
        g->hold.matrix = op->what;
        g->hold.matrix_started = !snapshot_find_mdev(e->snapshot, op->what);
        g->hold.phase = HOLD_RUNNING;
        op->held = op->busy = true;
        hold_save(g, on_held, op);
}

static void on_started(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        GuestOp *op = userdata;

        op->busy = op->starting = false;
        op->phase = ATTACH_LIVE;
        if (r != 0 && !snapshot_find_mdev(op->guest->engine->snapshot, uuid)) {
                guest_op_refuse(op, r, refusal);
                op->phase = ATTACH_UNHOLD;
        }
        guest_stir(op->guest);
}

static void start_it(GuestOp *op) {
        Engine *e = op->guest->engine;
        int r;

        /* the guest may have ended since */
        op->held &= op->guest->hold.phase == HOLD_RUNNING && uuid_equal(op->guest->hold.matrix, op->what);
        if (!op->held || snapshot_find_mdev(e->snapshot, op->what)) {
                op->phase = ATTACH_LIVE;
                return guest_stir(op->guest);
        }
        op->busy = op->starting = true;
        r = hold_start_matrix(e, op->what, on_started, op);
        if (r < 0)
                on_started(op, r, NULL, op->what);
}

static void edit_attach(GuestOp *op) {
        const VirtEdit edit = { .kind = VIRT_ATTACH_MATRIX, .mdev = op->what };

        guest_op_edit(op, &edit, NULL, ATTACH_EDITED);
}

static void attached(GuestOp *op) {
        Guest *g = op->guest;

        if (op->unsure)
                return guest_op_look(op);
        if (op->r != 0 && !op->done &&
            (guest_wiring_has(&g->config, op->what) || guest_wiring_has(&g->live, op->what)))
                return guest_op_end(op); /* libvirt had done it after all */
        if (op->r != 0)
                return undo_attach(op);
        if (op->next_start)
                guest_op_note(op, "takes effect at the next start of '%s'", g->name);
        guest_op_end(op);
}

/* ---- detach ---- */

/* What of ours it has, in whatever way. */
static Uuid find_attached(Guest *g) {
        Engine *e = g->engine;
        const VirtWiring *wirings[] = { &g->config, &g->live };

        for (size_t i = 0; i < ELEMENTS(wirings); i++)
                if (wirings[i]->n_mdevs > 0)
                        return wirings[i]->mdevs[0];
        for (size_t i = 0; i < ELEMENTS(wirings); i++) {
                const Matrix *m = wirings[i]->matrix ? guest_declared_matrix(e, wirings[i]->matrix) : NULL;

                if (m)
                        return m->rec.uuid;
        }
        if (!uuid_is_null(g->hold.matrix))
                return g->hold.matrix;
        for (size_t i = 0; i < e->n_matrices; i++)
                if (e->by_uuid[i]->rec.guest && guest_is(g, e->by_uuid[i]->rec.guest))
                        return e->by_uuid[i]->rec.uuid;
        return (Uuid) {};
}

static void begin_detach(GuestOp *op) {
        Guest *g = op->guest;
        const VirtEdit edit = { .kind = VIRT_DETACH_MATRIX, .mdev = op->what = find_attached(g) };

        if (uuid_is_null(op->what) && !g->config.matrix && !g->live.matrix) {
                op->r = refuse(&op->refusal, VERDICT_BAD_STATE, 0, "guest '%s' has no matrix", g->name);
                return guest_op_end(op);
        }
        guest_op_edit(op, &edit, NULL, ATTACH_EDITED);
}

static void detached(GuestOp *op) {
        Guest *g = op->guest;

        if (op->unsure)
                return guest_op_look(op);
        if (op->r != 0 &&
            (op->done || guest_wiring_has(&g->config, op->what) || guest_wiring_has(&g->live, op->what)))
                return guest_op_end(op);
        if (op->next_start)
                guest_op_note(op, "guest '%s' has it until it ends", g->name);
        /* one that is only being started is started with the XML that the hook has read */
        op->held = uuid_equal(g->hold.matrix, op->what) && g->hold.phase == HOLD_RUNNING && g->active &&
                   !g->ended && !op->next_start && !guest_wiring_has(&g->live, op->what);
        op->phase = ATTACH_UNHOLD;
        guest_stir(g);
}

/* ---- taking it out of the hold, and the record ---- */

static void on_unheld(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        GuestOp *op = userdata;
        Guest *g = op->guest;

        op->busy = false;
        if (r != 0 && snapshot_find_mdev(g->engine->snapshot, uuid))
                /* stays in the hold: it is stopped when the guest ends */
                guest_op_note(op, "matrix is stopped when '%s' ends: %s", g->name,
                              refusal ? refusal->text : strerror(-r));
        else if (uuid_equal(g->hold.matrix, uuid) && g->hold.phase != HOLD_RELEASING)
                hold_drop_matrix(g);
        op->phase = ATTACH_UNMEAN;
        guest_stir(g);
}

static void unhold(GuestOp *op) {
        Guest *g = op->guest;
        Engine *e = g->engine;
        const Matrix *m = state_find(e, op->what);
        int r;

        if (!op->held || g->hold.phase == HOLD_RELEASING || !uuid_equal(g->hold.matrix, op->what)) {
                op->phase = ATTACH_UNMEAN;
                return guest_stir(g);
        }
        if (m && m->op)
                return;
        if (!g->hold.matrix_started || !m || !snapshot_find_mdev(e->snapshot, op->what))
                return on_unheld(op, 0, NULL, op->what);
        op->busy = true;
        r = hold_stop_matrix(e, op->what, g->uuid, on_unheld, op);
        if (r < 0)
                on_unheld(op, r, NULL, op->what);
}

static void unmean(GuestOp *op) {
        const Matrix *m = state_find(op->guest->engine, op->what);

        if (m && m->op)
                return;
        if (m && m->rec.guest && (op->kind == VIRT_DETACH_MATRIX || op->changed) &&
            guest_is(op->guest, m->rec.guest))
                return change_meant(op, NULL, ATTACH_END);
        guest_op_end(op);
}

static void matrix_run(GuestOp *op) {
        bool attach = op->kind == VIRT_ATTACH_MATRIX;

        switch ((AttachPhase) op->phase) {
        case ATTACH_BEGIN:
                return attach ? begin_attach(op) : begin_detach(op);
        case ATTACH_MEANT:
                return hold_it(op);
        case ATTACH_HELD:
                return start_it(op);
        case ATTACH_LIVE:
                return edit_attach(op);
        case ATTACH_EDITED:
                return attach ? attached(op) : detached(op);
        case ATTACH_UNHOLD:
                return unhold(op);
        case ATTACH_UNMEAN:
                return unmean(op);
        case ATTACH_END:
                return guest_op_end(op);
        }
}

static void on_known(void *userdata, int r, const VirtOutcome *o) {
        GuestOp *op = userdata;

        op->busy = false;
        if (r < 0)
                op->r = r;
        else if (o->verdict != VIRT_DONE)
                op->r = refuse(&op->refusal, VERDICT_BACKEND, 0,
                               "guest '%s': libvirt cannot be asked how it is%s%s", op->guest->name,
                               o->text ? ": " : "", o->text ?: "");
        else if (!op->guest->known)
                refuse_edit(op, &(VirtOutcome) { .verdict = VIRT_NO_SUCH_GUEST });
        guest_stir(op->guest);
}

/* libvirt tells of a guest after what happens to it: for who has just started it, it runs. But while its hook runs, libvirt
 * answers nothing about it. */
static void know_guest(GuestOp *op) {
        Guests *gs = op->guest->engine->guests;
        int r;

        op->known = op->busy = true;
        r = gs->virt->ops->refresh(gs->virt, op->guest->uuid, on_known, op);
        if (r < 0)
                not_asked(op, r);
}

void guest_op_run(Guest *g) {
        GuestOp *op = g->op;

        if (!op || op->busy)
                return;
        if (!op->known && !g->hooks)
                return know_guest(op);
        if (!op->known)
                return;
        if (op->phase == 0 && op->r != 0) /* nothing has begun */
                return guest_op_end(op);
        if (op->kind == VIRT_ATTACH_MATRIX || op->kind == VIRT_DETACH_MATRIX)
                matrix_run(op);
        else
                guest_tpm_run(op);
}

int engine_attach_matrix(Engine *e, Uuid guest, Uuid matrix, bool live, const EngineCaller *c,
                         engine_noted_t done, void *userdata, Refusal *reterr) {
        return guest_op_begin(e, guest, VIRT_ATTACH_MATRIX, matrix, live, TPM_MODEL_NONE, c, done, userdata,
                              reterr);
}

int engine_detach_matrix(Engine *e, Uuid guest, bool live, const EngineCaller *c, engine_noted_t done,
                         void *userdata, Refusal *reterr) {
        return guest_op_begin(e, guest, VIRT_DETACH_MATRIX, (Uuid) {}, live, TPM_MODEL_NONE, c, done,
                              userdata, reterr);
}

/* ---- what metadata wish ---- */

static void on_taken_up(void *userdata, int r, const Refusal *refusal, const char *const *notes) {
        Guest *g = userdata;
        TakeUp t = g->op->kind == VIRT_ATTACH_MATRIX ? TAKE_UP_MATRIX : TAKE_UP_TPM;

        free(g->take_error[t]);
        g->take_error[t] = r == 0 ? NULL : strdup(refusal ? refusal->text : strerror(-r));
        if (refusal && refusal->verdict == VERDICT_BACKEND) { /* not the wish's fault */
                g->take_again[t] = true;
                guests_again(g->engine);
        }
        if (r == 0)
                log_info("What the metadata of guest '%s' name is attached", g->name);
}

/* Of what the outcome of taking it up depends on: the same is tried once, or until libvirt can be asked. */
static uint64_t wish(const Guest *g, const char *name, Uuid what, TpmModel model) {
        const struct {
                Uuid what;
                TpmModel model;
                bool active, persistent;
        } parts = { .what = what, .model = model, .active = g->active, .persistent = g->persistent };
        uint64_t h = guest_digest_add(GUEST_DIGEST, name, strlen(name));

        h = guest_digest_add(h, &parts.what, sizeof parts.what);
        h = guest_digest_add(h, &parts.model, sizeof parts.model);
        h = guest_digest_add(h, &parts.active, sizeof parts.active);
        return guest_digest_add(h, &parts.persistent, sizeof parts.persistent);
}

static void take_up(Guest *g, TakeUp t, Uuid what, TpmModel model, uint64_t digest) {
        VirtEditKind kind = t == TAKE_UP_MATRIX ? VIRT_ATTACH_MATRIX : VIRT_ATTACH_TPM;
        Refusal refusal = {};
        int r;

        if (g->taken[t] == digest)
                return;
        g->taken[t] = digest;
        free(TAKE(g->take_error[t]));
        r = guest_op_begin(g->engine, g->uuid, kind, what, true, model, NULL, on_taken_up, g, &refusal);
        if (r != 0)
                g->take_error[t] = strdup(r > 0 ? refusal.text : strerror(-r));
        refusal_clear(&refusal);
}

static void forget_wish(Guest *g, TakeUp t) {
        g->taken[t] = 0;
        free(TAKE(g->take_error[t]));
}

void guest_take_up(Guest *g) {
        Engine *e = g->engine;
        const VirtWiring *w = guest_wiring(g);
        const Matrix *m = w->matrix ? guest_declared_matrix(e, w->matrix) : NULL;
        bool free_to = e->guests->up && e->guests->listed && g->known && !g->hooks;
        Uuid tpm;

        if (!m || w->n_mdevs > 0)
                forget_wish(g, TAKE_UP_MATRIX);
        else if (free_to && e->settled && !g->op)
                take_up(g, TAKE_UP_MATRIX, m->rec.uuid, TPM_MODEL_NONE,
                        wish(g, w->matrix, m->rec.uuid, TPM_MODEL_NONE));

        if (!w->tpm || w->tpm_model != TPM_MODEL_NONE || guest_declared_tpm(e, w->tpm, &tpm) < 0)
                forget_wish(g, TAKE_UP_TPM);
        else if (free_to && !g->op && g->persistent)
                take_up(g, TAKE_UP_TPM, tpm, w->tpm_wish, wish(g, w->tpm, tpm, w->tpm_wish));
}
