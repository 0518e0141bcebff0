/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a guest holds while it runs. It is on disk before anything is started for the guest, so that a daemon that is
 * started anew knows what to stop; and it is given up by the guest's UUID only, so that nobody gives up what another one
 * has. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/engine_guest_internal.h"

#define HOLDS_DIR   "guests"
#define GRACE_TICKS 2 /* libvirt may show a guest that it is about to start as shut off */

static bool is_held(const Hold *h) {
        return h->phase == HOLD_PREPARED || h->phase == HOLD_RUNNING;
}

Guest *hold_of_matrix(const Engine *e, Uuid matrix) {
        for (size_t i = 0; i < e->guests->n; i++)
                if (is_held(&e->guests->by_uuid[i]->hold) &&
                    uuid_equal(e->guests->by_uuid[i]->hold.matrix, matrix))
                        return e->guests->by_uuid[i];
        return NULL;
}

Guest *hold_of_tpm(const Engine *e, Uuid tpm) {
        for (size_t i = 0; i < e->guests->n; i++)
                if (is_held(&e->guests->by_uuid[i]->hold) &&
                    uuid_equal(e->guests->by_uuid[i]->hold.tpm, tpm))
                        return e->guests->by_uuid[i];
        return NULL;
}

/* ---- on disk ---- */

struct HoldJob {
        Work work;
        Engine *engine;
        int dir_fd;
        bool stale; /* it may have written them to a directory that is gone */
        size_t n;
        Hold holds[];
};

static void save_some(Engine *e);

static int job_run(Work *w) {
        HoldJob *job = CONTAINER_OF(w, HoldJob, work);
        int r = 0;

        for (size_t i = 0; i < job->n && r >= 0; i++)
                r = holds_set(job->dir_fd, &job->holds[i]);
        return r;
}

static bool is_same(const Hold *a, const Hold *b) {
        return a->phase == b->phase && uuid_equal(a->matrix, b->matrix) && uuid_equal(a->tpm, b->tpm) &&
               a->matrix_started == b->matrix_started && a->tpm_started == b->tpm_started &&
               a->model == b->model && a->unseen == b->unseen;
}

static void job_done(Work *w, int r) {
        HoldJob *job = CONTAINER_OF(w, HoldJob, work);
        Engine *e = job->engine;
        Guests *gs = e->guests;
        bool waited_for = false;

        gs->saving = NULL;
        if (e->closing) {
                free(job);
                return;
        }
        if (r < 0 && !gs->hold_failed)
                log_error("Cannot write what guests hold below the runtime directory, trying again: %s",
                          strerror(-r));
        if (gs->hold_failed != (r < 0)) {
                gs->hold_failed = r < 0;
                state_emit_manager(e);
        }

        for (size_t i = 0; i < job->n; i++) {
                Guest *g = guest_find(e, job->holds[i].guest);
                hold_saved_t saved;

                if (!g)
                        continue;
                if (!is_same(&g->hold,
                             &job->holds[i])) { /* changed meanwhile: whoever waits, waits for that */
                        waited_for |= g->hold_saved != NULL;
                        continue;
                }
                if (r >= 0 && !job->stale)
                        g->hold_dirty = false;
                saved = TAKE(g->hold_saved);
                if (saved)
                        saved(g->hold_userdata, r);
                guest_stir(g);
        }
        free(job);
        if (r < 0 && !waited_for)
                guests_again(e);
        else
                save_some(e);
}

/* All that are not on disk as they are, in one go. */
static void save_some(Engine *e) {
        Guests *gs = e->guests;
        HoldJob *job;
        size_t n = 0;

        for (size_t i = 0; i < gs->n; i++)
                n += gs->by_uuid[i]->hold_dirty;
        if (n == 0 || gs->saving)
                return;
        job = calloc(1, sizeof *job + n * sizeof *job->holds);
        if (!job)
                return guests_again(e);

        job->work = (Work) { .run = job_run, .done = job_done };
        job->engine = e;
        job->dir_fd = gs->holds_fd;
        for (size_t i = 0; i < gs->n; i++) {
                Guest *g = gs->by_uuid[i];

                if (!g->hold_dirty)
                        continue;
                (void) snprintf(g->hold.name, sizeof g->hold.name, "%s", g->name);
                job->holds[job->n++] = g->hold;
        }
        gs->saving = job;
        if (worker_submit(e->worker, &job->work) < 0) {
                gs->saving = NULL;
                free(job);
                guests_again(e);
        }
}

void hold_save(Guest *g, hold_saved_t saved, void *userdata) {
        char matrix[UUID_STRING_SIZE], tpm[UUID_STRING_SIZE];
        Guests *gs = g->engine->guests;

        for (size_t i = 0; i < gs->n; i++) /* who is about to stop what this one has */
                if (gs->by_uuid[i]->hold.phase == HOLD_RELEASING)
                        guest_stir(gs->by_uuid[i]);
        log_debug("Guest '%s' holds: phase %d, matrix %s%s, TPM %s%s", g->name, (int) g->hold.phase,
                  uuid_is_null(g->hold.matrix) ? "none" : uuid_format(g->hold.matrix, matrix),
                  g->hold.matrix_started ? " (started)" : "",
                  uuid_is_null(g->hold.tpm) ? "none" : uuid_format(g->hold.tpm, tpm),
                  g->hold.tpm_started ? " (started)" : "");
        g->hold_changes++;
        g->hold_dirty = true;
        gs->refs_stale = true;
        if (saved) {
                g->hold_saved = saved;
                g->hold_userdata = userdata;
        }
        guest_stir(g);
}

void hold_drain(Engine *e) {
        for (size_t i = 0; i < e->guests->n; i++)
                e->guests->by_uuid[i]->hold_saved = NULL;
        e->guests->saving = NULL; /* behind the one that is under way, if there is one */
        if (e->worker)
                save_some(e);
}

void hold_again(Engine *e, int run_fd) {
        CLEANUP(fd_closep) int fd = file_open_dir(run_fd, HOLDS_DIR);
        Guests *gs = e->guests;

        if (fd < 0 || dup3(fd, gs->holds_fd, O_CLOEXEC) < 0) {
                log_error("What guests hold cannot be written below the runtime directory any more: %s",
                          strerror(fd < 0 ? -fd : errno));
                return;
        }
        if (gs->saving)
                gs->saving->stale = true;
        for (size_t i = 0; i < gs->n; i++)
                gs->by_uuid[i]->hold_dirty |= gs->by_uuid[i]->hold.phase != HOLD_NONE;
        save_some(e);
}

/* ---- giving it up ---- */

int hold_start_matrix(Engine *e, Uuid matrix, engine_done_t done, void *userdata) {
        Op *op = op_new(INTENT_START, matrix, NULL, done, userdata);

        if (!op)
                return -ENOMEM;
        op_begin(e, op);
        return 0;
}

int hold_stop_matrix(Engine *e, Uuid matrix, Uuid guest, engine_done_t done, void *userdata) {
        Op *op = op_new(INTENT_STOP, matrix, NULL, done, userdata);

        if (!op)
                return -ENOMEM;
        op->for_guest = guest;
        op_begin(e, op);
        return 0;
}

static void set_phase(Guest *g, HoldPhase phase) {
        g->hold.phase = phase;
        g->grace = phase == HOLD_PREPARED ? GRACE_TICKS : 0;
        g->stop_later = g->check_later = false;
        free(TAKE(g->stop_error));
}

void hold_begin(Guest *g, const Hold *h) {
        g->hold = *h;
        set_phase(g, h->phase);
        free(TAKE(g->reset_error));
        g->reset_missed = false;
}

void hold_release(Guest *g) {
        if (!is_held(&g->hold))
                return;
        set_phase(g, HOLD_RELEASING);
        free(TAKE(g->reset_error));
        g->reset_missed = false;
        g->hold_changes++;
        guest_stir(g);
}

bool hold_is_settled(const Guest *g) {
        return g->hold.phase == HOLD_NONE ||
               (g->hold.phase == HOLD_RELEASING && !g->stopping_matrix && !g->stopping_tpm && g->stop_later);
}

static void stop_failed(Guest *g, const char *why) {
        char *copy = strdup(why);

        if (!g->stop_error)
                log_warning("What was started for guest '%s' cannot be stopped, trying again: %s", g->name,
                            why);
        if (copy) {
                free(g->stop_error);
                g->stop_error = copy;
        }
        g->stop_later = true;
        guests_again(g->engine);
}

static bool is_live(const Engine *e, Uuid matrix) {
        return snapshot_find_mdev(e->snapshot, matrix);
}

void hold_drop_matrix(Guest *g) {
        Matrix *m = state_find(g->engine, g->hold.matrix);

        g->hold.matrix = (Uuid) {};
        if (g->hold.phase == HOLD_RELEASING) /* release_run() goes on */
                return;
        g->hold.matrix_started = g->stop_later = false;
        free(TAKE(g->stop_error));
        if (uuid_is_null(g->hold.tpm))
                g->hold = (Hold) { .guest = g->uuid };
        hold_save(g, NULL, NULL);
        if (m) /* is meant for a guest that has it, or not any more */
                state_show(g->engine, m);
}

static void on_matrix_stopped(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        Guest *g = userdata;
        const Matrix *m = state_find(g->engine, uuid);

        g->stopping_matrix = false;
        if (r == 0 || (!is_live(g->engine, uuid) && !(m && m->op)))
                hold_drop_matrix(g);
        else
                stop_failed(g, refusal ? refusal->text : text_error(r));
        guests_stir_all(g->engine); /* somebody may wait for it */
}

static void on_tpm_stopped(Engine *e, void *userdata, int r, VtpmVerdict verdict, const char *text,
                           Uuid uuid) {
        Guest *g = userdata;

        g->stopping_tpm = false;
        if (r == 0 && (verdict == VTPM_DONE || verdict == VTPM_NO_SUCH || verdict == VTPM_BAD_STATE))
                g->hold.tpm = (Uuid) {};
        else
                stop_failed(g, r < 0 ? strerror(-r) : text ?: "its processes do not end");
        guests_stir_all(e);
}

static bool tpm_runs(const Engine *e, Uuid tpm) {
        Vtpm *v = e->guests->vtpm;
        VtpmView view;

        return v && v->ops->get(v, tpm, &view) >= 0 && view.state != VTPM_DEFINED &&
               view.state != VTPM_CREATING;
}

static void stop_tpm(Guest *g) {
        Vtpm *v = g->engine->guests->vtpm;
        GuestCall *call = guest_call_new(g->engine, on_tpm_stopped, g);
        int r;

        g->stopping_tpm = true;
        r = guest_call_made(call, call ? v->ops->stop(v, g->hold.tpm, guest_call_done, call) : -ENOMEM);
        if (r < 0)
                on_tpm_stopped(g->engine, g, r, VTPM_DONE, NULL, g->hold.tpm);
}

static void stop_matrix(Guest *g) {
        Engine *e = g->engine;
        const Matrix *m = state_find(e, g->hold.matrix);
        int r;

        if (m && m->op) /* again when that has ended */
                return;
        g->stopping_matrix = true;
        r = hold_stop_matrix(e, g->hold.matrix, g->uuid, on_matrix_stopped, g);
        if (r < 0)
                on_matrix_stopped(g, r, NULL, g->hold.matrix);
}

/* Who has it now stops what was started for us. */
static void hand_over(Guest *g) {
        Engine *e = g->engine;
        Guest *matrix = hold_of_matrix(e, g->hold.matrix), *tpm = hold_of_tpm(e, g->hold.tpm);

        if (matrix && !uuid_is_null(g->hold.matrix) && !g->stopping_matrix) {
                if (g->hold.matrix_started && !matrix->hold.matrix_started) {
                        matrix->hold.matrix_started = true;
                        hold_save(matrix, NULL, NULL);
                }
                g->hold.matrix = (Uuid) {};
        }
        if (tpm && !uuid_is_null(g->hold.tpm) && !g->stopping_tpm) {
                if (g->hold.tpm_started && !tpm->hold.tpm_started) {
                        tpm->hold.tpm_started = true;
                        hold_save(tpm, NULL, NULL);
                }
                g->hold.tpm = (Uuid) {};
        }
}

static void release_run(Guest *g) {
        Engine *e = g->engine;
        const Matrix *m = state_find(e, g->hold.matrix);
        bool known = e->scanned; /* whether it is there: a guest may have ended before we came */

        if (g->op && g->op->starting) /* what is to be stopped then */
                return;
        hand_over(g);
        if (!uuid_is_null(g->hold.matrix) && !g->stopping_matrix && known &&
            (!g->hold.matrix_started || !m || hold_of_matrix(e, g->hold.matrix) ||
             (!is_live(e, g->hold.matrix) && !m->op && !m->unresolved)))
                g->hold.matrix = (Uuid) {};
        if (!uuid_is_null(g->hold.tpm) && !g->stopping_tpm &&
            (!g->hold.tpm_started || !tpm_runs(e, g->hold.tpm)))
                g->hold.tpm = (Uuid) {};

        if (!g->stop_later) {
                if (!uuid_is_null(g->hold.tpm) && !g->stopping_tpm)
                        stop_tpm(g);
                if (!uuid_is_null(g->hold.matrix) && !g->stopping_matrix && known)
                        stop_matrix(g);
        }
        if (!uuid_is_null(g->hold.matrix) || !uuid_is_null(g->hold.tpm))
                return;
        g->hold = (Hold) { .guest = g->uuid };
        set_phase(g, HOLD_NONE);
        hold_save(g, NULL, NULL);
}

bool hold_is_stopping(const Engine *e, Uuid matrix, Uuid tpm) {
        const Matrix *m = state_find(e, matrix);

        for (size_t i = 0; i < e->guests->n; i++) {
                const Guest *g = e->guests->by_uuid[i];

                if ((g->stopping_matrix && uuid_equal(g->hold.matrix, matrix)) ||
                    (g->stopping_tpm && uuid_equal(g->hold.tpm, tpm)))
                        return true;
        }
        return m && m->op;
}

/* ---- adopting ---- */

void hold_adopt(Guest *g, const VirtWiring *w, bool seen) {
        Engine *e = g->engine;
        Hold h = g->hold;
        Uuid tpm;

        if (h.phase == HOLD_RELEASING)
                return; /* its last run is still being cleaned up; looked at again after that */
        for (size_t i = 0; i < w->n_mdevs && uuid_is_null(h.matrix); i++)
                if (engine_is_ours(e, w->mdevs[i]) && !hold_of_matrix(e, w->mdevs[i]))
                        h.matrix = w->mdevs[i];
        if (w->tpm_model != TPM_MODEL_NONE && guest_socket_tpm(w->tpm_socket, &tpm) >= 0 &&
            uuid_is_null(h.tpm) && !hold_of_tpm(e, tpm)) {
                h.tpm = tpm;
                h.model = w->tpm_model;
        }
        if (uuid_is_null(h.matrix) && uuid_is_null(h.tpm))
                return;

        h.unseen = !seen && (h.unseen || h.phase == HOLD_NONE);
        h.phase = HOLD_RUNNING;
        if (is_same(&h, &g->hold))
                return;
        if (g->hold.phase != HOLD_RUNNING)
                set_phase(g, HOLD_RUNNING);
        if (!g->active) /* libvirt tells it a little later than the hook */
                g->grace = GRACE_TICKS;
        g->hold = h;
        hold_save(g, NULL, NULL);
}

/* ---- has it ended, or lost its matrix? ---- */

static bool is_named(Engine *e, const VirtWiring *w, Uuid matrix) {
        const Matrix *m = w->matrix ? guest_declared_matrix(e, w->matrix) : NULL;

        return guest_wiring_has(w, matrix) || (m && uuid_equal(m->rec.uuid, matrix));
}

/* It runs, and somebody has taken the matrix out of it: neither has it any more nor will it have it at its next start. What
 * is only unplugged it may get again. */
static bool is_unplugged(const Guest *g) {
        return g->engine->scanned && g->hold.phase == HOLD_RUNNING && g->active && !g->stopping_matrix &&
               !g->stop_later && !uuid_is_null(g->hold.matrix) &&
               !is_named(g->engine, &g->config, g->hold.matrix) &&
               !is_named(g->engine, &g->live, g->hold.matrix);
}

/* Somebody may have given it to another guest, in the same way. */
static Guest *runs_with(Engine *e, Uuid matrix) {
        size_t n;
        const GuestRef *ref = guests_naming(e, &e->guests->mdevs, matrix, &n);

        for (size_t i = 0; i < n; i++)
                if (ref[i].guest->active && guest_wiring_has(&ref[i].guest->live, matrix))
                        return ref[i].guest;
        return NULL;
}

static void take_out(Guest *g) {
        Engine *e = g->engine;
        Uuid matrix = g->hold.matrix;
        bool started = g->hold.matrix_started;
        Guest *other = runs_with(e, matrix);
        const Matrix *m = state_find(e, matrix);
        char text[UUID_STRING_SIZE];

        if (m && m->op) /* again when that has ended */
                return;
        log_notice("Matrix '%s' was taken out of guest '%s', which runs%s", guest_mdev_name(e, matrix, text),
                   g->name, other || !started ? "" : ", stopping it");
        if (!other && started && m && is_live(e, matrix))
                return stop_matrix(g);
        hold_drop_matrix(g);
        if (!other)
                return;
        hold_adopt(other, &other->live, true);
        if (uuid_equal(other->hold.matrix, matrix)) {
                other->hold.matrix_started = started;
                hold_save(other, NULL, NULL);
        }
}

/* It could have been started again since. */
static void on_checked(void *userdata, int r, const VirtOutcome *outcome) {
        Guest *g = userdata;
        bool answered = r >= 0 && (outcome->verdict == VIRT_DONE || outcome->verdict == VIRT_NO_SUCH_GUEST);

        g->checking = false;
        if (!answered) {
                g->check_later = true;
                guests_again(g->engine);
        } else if (g->checked == g->hold_changes && !g->active && !g->hooks && is_held(&g->hold)) {
                log_notice("Guest '%s' has ended without our hook being told, giving up what it held",
                           g->name);
                hold_release(g);
        } else if (g->checked == g->hold_changes && !g->hooks && !g->op && is_unplugged(g))
                take_out(g);
        guest_stir(g);
}

/* libvirt is asked once more before anything is given up. */
static void check(Guest *g) {
        Guests *gs = g->engine->guests;

        if (g->checking || (g->active && !is_unplugged(g)) || g->hooks || g->op || !gs->up || !gs->listed)
                return;
        if (g->grace > 0 || g->check_later)
                return guests_again(g->engine);
        g->checking = true;
        g->checked = g->hold_changes;
        if (gs->virt->ops->refresh(gs->virt, g->uuid, on_checked, g) < 0) {
                g->checking = false;
                g->check_later = true;
                guests_again(g->engine);
        }
}

void hold_tick(Guest *g) {
        g->stop_later = g->check_later = false;
        if (g->grace > 0)
                g->grace--;
}

static bool names_ours(Engine *e, const VirtWiring *w) {
        Uuid tpm;

        for (size_t i = 0; i < w->n_mdevs; i++)
                if (engine_is_ours(e, w->mdevs[i]))
                        return true;
        return w->tpm_model != TPM_MODEL_NONE && guest_socket_tpm(w->tpm_socket, &tpm) >= 0;
}

void hold_run(Guest *g) {
        Engine *e = g->engine;

        if (g->hold.phase == HOLD_RELEASING)
                release_run(g);
        else if (g->active && !g->ended && !g->hooks && !g->op && names_ours(e, &g->live))
                hold_adopt(g, &g->live, g->plugged);
        if (g->hold.phase == HOLD_PREPARED && g->active && !g->ended && !g->hooks) {
                set_phase(g, HOLD_RUNNING);
                hold_save(g, NULL, NULL);
        }
        if (g->active)
                g->grace = 0;
        if (is_held(&g->hold))
                check(g);
        if (g->hold_dirty)
                save_some(e);
}

/* ---- the daemon's start ---- */

int hold_load(Engine *e, int run_fd) {
        CLEANUP(freep) Hold *holds = NULL;
        size_t n, bad;
        int r;

        e->guests->holds_fd = file_open_dir(run_fd, HOLDS_DIR);
        if (e->guests->holds_fd < 0)
                return e->guests->holds_fd;
        r = holds_read(e->guests->holds_fd, &holds, &n, &bad);
        if (r < 0)
                return r;
        if (bad > 0)
                log_warning("%zu of the files that say what guests hold cannot be understood, ignoring them",
                            bad);

        for (size_t i = 0; i < n; i++) {
                Guest *g = guest_get(e, holds[i].guest, holds[i].name);

                if (!g)
                        return -ENOMEM;
                g->hold = holds[i];
                g->grace = g->hold.phase == HOLD_PREPARED ? GRACE_TICKS : 0;
                g->announced = true;
                /* resets that came while we were away */
                g->reset_missed = g->hold.phase == HOLD_RUNNING && g->hold.model == TPM_MODEL_VIRTIO &&
                                  !uuid_is_null(g->hold.tpm);
                e->guests->wanted = true;
        }
        return 0;
}
