/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is the matter with a guest, with a matrix because of guests, and with libvirt: lines for people, each of which
 * says what to do. Found out anew each time, from what is known now. */

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine_guest_internal.h"

const Guest *guest_named(Engine *e, const char *name) {
        for (size_t i = 0; i < e->guests->n; i++)
                if (e->guests->by_uuid[i]->known && guest_is(e->guests->by_uuid[i], name))
                        return e->guests->by_uuid[i];
        return NULL;
}

static int add_rival(Engine *e, const Guest *g, Uuid mdev, char ***lines) {
        const Guest *other = guests_other_naming(e, &e->guests->mdevs, mdev, g);
        const Matrix *m = state_find(e, mdev);
        char text[UUID_STRING_SIZE];
        int r = 0;

        if (other)
                r = strv_addf(lines, "%s '%s' is also named by guest '%s'; detach it from one of them",
                              m ? "matrix" : "mediated device", guest_mdev_name(e, mdev, text),
                              guest_name(other));
        if (r >= 0 && m && m->rec.guest && !guest_is(g, m->rec.guest))
                r = strv_addf(lines, "matrix '%s' is meant for guest '%s'; detach it from this guest",
                              m->rec.name, m->rec.guest);
        return r;
}

static int add_matrix(Engine *e, const Guest *g, const VirtWiring *w, char ***lines) {
        const Matrix *m = w->matrix ? guest_declared_matrix(e, w->matrix) : NULL;
        char text[UUID_STRING_SIZE];
        int r = 0;

        if (w->n_mdevs > 1)
                r = strv_addf(
                        lines,
                        "its configuration has %zu vfio-ap devices, and libvirt starts it with one only",
                        w->n_mdevs);
        for (size_t i = 0; i < w->n_mdevs && r >= 0; i++)
                r = add_rival(e, g, w->mdevs[i], lines);
        if (r < 0 || !w->matrix)
                return r;

        if (!m)
                return strv_addf(
                        lines,
                        "its metadata names matrix '%s', which does not exist; define it, or correct "
                        "the metadata",
                        w->matrix);
        if (w->n_mdevs == 0)
                return add_rival(e, g, m->rec.uuid, lines);
        if (!guest_wiring_has(w, m->rec.uuid))
                return strv_addf(lines,
                                 "its metadata names matrix '%s', but its device is '%s'; detach that, or "
                                 "correct the metadata",
                                 w->matrix, guest_mdev_name(e, w->mdevs[0], text));
        return 0;
}

/* The TPM that @w names, wired or declared, if there is one of ours. */
static int add_tpm(Engine *e, const Guest *g, const VirtWiring *w, char ***lines) {
        bool is_wired = w->tpm_model != TPM_MODEL_NONE;
        Vtpm *v = e->guests->vtpm;
        Uuid wired, declared;
        const Guest *other;
        VtpmView view;
        int r = 0;

        if (!is_wired && !w->tpm)
                return 0;
        if (!v)
                return strv_addf(lines, "it names a TPM, but there are none on this host");

        if (w->tpm && guest_declared_tpm(e, w->tpm, &declared) < 0)
                return strv_addf(
                        lines,
                        "its metadata names TPM '%s', which does not exist; define it, or correct the "
                        "metadata",
                        w->tpm);
        if (is_wired && (guest_socket_tpm(w->tpm_socket, &wired) < 0 || v->ops->get(v, wired, &view) < 0))
                return strv_addf(lines,
                                 "its TPM at '%s' does not exist; detach it, or define or restore a TPM of "
                                 "that UUID",
                                 w->tpm_socket ?: "?");
        if (w->tpm && is_wired && !uuid_equal(wired, declared))
                r = strv_addf(
                        lines,
                        "its metadata names TPM '%s', but its TPM is '%s'; detach that, or correct the "
                        "metadata",
                        w->tpm, view.spec.name);
        if (r >= 0 && w->foreign_tpm)
                r = strv_addf(lines, "it has another TPM, which is not ours; a guest can have one only");
        if (r < 0)
                return r;

        if (!is_wired)
                wired = declared;
        if (v->ops->get(v, wired, &view) < 0)
                return 0;
        other = guests_other_naming(e, &e->guests->tpms, wired, g);
        if (other)
                r = strv_addf(lines, "TPM '%s' is also named by guest '%s'; detach it from one of them",
                              view.spec.name, guest_name(other));
        if (r >= 0 && view.spec.guest && !guest_is(g, view.spec.guest))
                r = strv_addf(lines, "TPM '%s' is meant for guest '%s'; detach it from this guest",
                              view.spec.name, view.spec.guest);
        return r;
}

static int add_wiring(Engine *e, const Guest *g, const VirtWiring *w, char ***lines) {
        int r = 0;

        for (char **p = w->problems; p && *p && r >= 0; p++)
                r = strv_addf(lines, "%s", *p);
        if (r >= 0)
                r = add_matrix(e, g, w, lines);
        if (r >= 0 && g->lacks && (w->n_mdevs > 0 || w->matrix))
                r = strv_addf(lines,
                              "its CPU does not have %s, without which it gets no AP queues; use CPU mode "
                              "host-passthrough or host-model, or require these features",
                              g->lacks);
        if (r >= 0)
                r = add_tpm(e, g, w, lines);
        return r;
}

/* What runs does not have what it is said to run with. */
static int add_lost(Engine *e, const Guest *g, char ***lines) {
        Vtpm *v = e->guests->vtpm;
        VtpmView view;
        Uuid tpm;

        if (!g->active || !v || g->hooks || guest_socket_tpm(g->live.tpm_socket, &tpm) < 0 ||
            v->ops->get(v, tpm, &view) < 0)
                return 0;
        if (view.state == VTPM_DEFINED || view.state == VTPM_FAILED || view.state == VTPM_DEGRADED)
                return strv_addf(lines, "its TPM '%s' is %s%s%s; it has none until its next start",
                                 view.spec.name,
                                 view.state == VTPM_DEFINED  ? "not running"
                                 : view.state == VTPM_FAILED ? "failed"
                                                             : "degraded",
                                 view.problems && view.problems[0] ? ": " : "",
                                 view.problems && view.problems[0] ? view.problems[0] : "");
        return 0;
}

static bool has_line(char *const *lines, const char *line) {
        for (; lines && *lines; lines++)
                if (strcmp(*lines, line) == 0)
                        return true;
        return false;
}

static int add_once(char ***lines, char *const *more) {
        int r = 0;

        for (; more && *more && r >= 0; more++)
                if (!has_line(*lines, *more))
                        r = strv_addf(lines, "%s", *more);
        return r;
}

char **guest_problems(Engine *e, Guest *g) {
        char **lines = calloc(1, sizeof *lines), **live = NULL;
        static const char *const what[] = { [TAKE_UP_MATRIX] = "matrix", [TAKE_UP_TPM] = "TPM" };
        int r = lines ? 0 : -ENOMEM;

        if (r >= 0 && g->hold.unseen)
                r = strv_addf(
                        &lines,
                        "libvirt has not called our hook for it: install the hook and reload libvirtd, "
                        "else nothing is prepared for its next start");
        if (r >= 0)
                r = add_wiring(e, g, &g->config, &lines);
        if (r >= 0)
                r = add_wiring(e, g, &g->live, &live);
        if (r >= 0)
                r = add_once(&lines, live); /* what both say is said once */
        strv_free(live);
        for (TakeUp t = 0; t < _TAKE_UP_MAX && r >= 0; t++)
                if (g->take_error[t])
                        r = strv_addf(&lines, "the %s that its metadata names cannot be attached: %s",
                                      what[t], g->take_error[t]);
        if (r >= 0 && g->stop_error)
                r = strv_addf(
                        &lines,
                        "what was started for it is still there and is stopped as soon as that can be: "
                        "%s",
                        g->stop_error);
        if (r >= 0 && g->reset_error)
                r = strv_addf(&lines, "its machine was reset, but its TPM could not be: %s; start it anew",
                              g->reset_error);
        else if (r >= 0 && g->reset_missed)
                r = strv_addf(&lines,
                              "if its machine was reset while libvirt could not be heard, its TPM was not; "
                              "rebooting or starting it anew makes sure");
        if (r >= 0)
                r = add_lost(e, g, &lines);
        return r < 0 ? strv_free(lines) : lines;
}

/* ---- of a matrix ---- */

int guests_matrix_problems(Engine *e, const Matrix *m, char ***lines) {
        Guests *gs = e->guests;
        const GuestRef *ref;
        const Guest *meant;
        size_t n;
        int r = 0;

        if (!gs || gs->n + (m->rec.guest != NULL) == 0)
                return 0;
        ref = guests_naming(e, &gs->mdevs, m->rec.uuid, &n);
        if (n > 1)
                r = strv_addf(lines, "guests '%s' and '%s'%s name it; detach it from all but one",
                              guest_name(ref[0].guest), guest_name(ref[1].guest),
                              n > 2 ? " and others" : "");
        if (r < 0 || !m->rec.guest)
                return r;

        for (size_t i = 0; i < n && r >= 0; i++)
                if (!guest_is(ref[i].guest, m->rec.guest))
                        r = strv_addf(lines, "is meant for guest '%s', but guest '%s' names it",
                                      m->rec.guest, guest_name(ref[i].guest));
        if (r < 0 || !gs->listed)
                return r;

        meant = guest_named(e, m->rec.guest);
        if (!meant)
                return strv_addf(lines, "is meant for guest '%s', which libvirt does not have",
                                 m->rec.guest);
        for (size_t i = 0; i < n; i++)
                if (ref[i].guest == meant)
                        return 0;
        if (meant->op)
                return 0;
        return strv_addf(lines,
                         "is meant for guest '%s', whose configuration does not name it; attach it, or "
                         "detach it from that guest",
                         m->rec.guest);
}

int guests_need_not_held(Engine *e, Uuid uuid, Uuid but, const char *what, const char *name,
                         Refusal *reterr) {
        const Guest *g = e->guests->n > 0 ? hold_of_matrix(e, uuid) : NULL;
        const char *how = "is running with";

        if (!g || uuid_equal(g->uuid, but))
                return 0;
        if (g->hold.phase != HOLD_RUNNING)
                how = "is being started with";
        else if (g->active && !guest_wiring_has(&g->live, uuid)) /* it was unplugged */
                how = "runs, and is configured with";
        return refuse(reterr, VERDICT_IN_USE, 0, "guest '%s' %s %s '%s'; shut it down or detach it first",
                      guest_name(g), how, what, name);
}

int guests_need_not_named(Engine *e, const Matrix *m, Refusal *reterr) {
        const Guest *g;
        int r;

        if (e->guests->n == 0)
                return 0;
        r = guests_need_not_held(e, m->rec.uuid, (Uuid) {}, "matrix", m->rec.name, reterr);
        if (r != 0)
                return r;
        g = guests_other_naming(e, &e->guests->mdevs, m->rec.uuid, NULL);
        if (!g)
                return 0;
        return refuse(reterr, VERDICT_IN_USE, 0,
                      "guest '%s' names matrix '%s' in its configuration; detach it first", guest_name(g),
                      m->rec.name);
}

/* ---- of the whole ---- */

int guests_general_problems(Engine *e, char ***lines) {
        Guests *gs = e->guests;
        const char *const *p;
        int r = 0;

        if (gs->virt && !gs->up && gs->wanted)
                r = strv_addf(lines, "libvirt cannot be reached: %s", gs->why ?: "no connection yet");
        if (r >= 0 && gs->hold_failed)
                r = strv_addf(lines, "what guests hold cannot be written below the runtime directory");
        if (!gs->vtpm)
                return r;
        for (p = gs->vtpm->ops->problems(gs->vtpm); p && *p && r >= 0; p++)
                r = strv_addf(lines, "%s", *p);
        return r;
}
