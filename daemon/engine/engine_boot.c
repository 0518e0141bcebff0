/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is to run once the host has booted, or we have started: the masks that we are to keep, then the matrices that start by themselves. */

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/engine_internal.h"

static const EngineCaller own_caller = {}; /* not counted */

static void settle(Engine *e) {
        if (e->settled)
                return;
        e->settled = true;
        state_emit_manager(e);
        guests_settled(e);
}

static void on_autostarted(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        Engine *e = userdata;
        Matrix *m = state_find(e, uuid);
        const char *why = refusal ? refusal->text : text_error(r);

        e->n_autostarting--;
        if (m && r == 0)
                log_info("Matrix '%s' is started", m->rec.name);
        else if (m && (!m->autostart_error || strcmp(m->autostart_error, why) != 0)) {
                log_full(LOG_WARNING, LOG_ID_AUTOSTART, m->rec.name,
                         "Cannot start matrix '%s' automatically, trying again when the host changes: %s",
                         m->rec.name, why);
                free(m->autostart_error);
                m->autostart_error = strdup(why);
                state_show(e, m);
        }
        if (e->n_autostarting == 0)
                settle(e);
}

static int on_autostart(sd_event_source *source, void *userdata) {
        Engine *e = userdata;
        size_t i = state_place(e, e->autostart_next);

        for (unsigned n = 0; i < e->n_matrices && n < ENGINE_BEGUN_MAX; i++) {
                Matrix *m = e->by_uuid[i];
                Op *op;

                if (m->mark != MARK_PENDING || m->op || m->unresolved)
                        continue;
                op = op_new(INTENT_START, m->rec.uuid, &own_caller, on_autostarted, e);
                if (!op)
                        continue;
                op->pending = true;
                e->n_autostarting++;
                n++;
                op_begin(e, op);
        }

        if (i < e->n_matrices) {
                e->autostart_next = e->by_uuid[i]->rec.uuid;
                return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        }
        e->autostart_source = sd_event_source_disable_unref(e->autostart_source);
        if (--e->n_autostarting == 0)
                settle(e);
        return 0;
}

/* Each is tried when the host has become such that it may succeed; what fails is tried again after the
 * next change. */
static void autostart(Engine *e) {
        int r;

        e->autostart_next = (Uuid) {};
        r = sd_event_add_defer(e->event, &e->autostart_source, on_autostart, e);
        if (r >= 0)
                e->n_autostarting++;
        else
                log_error("Cannot start matrices automatically: %s", strerror(-r));
}

bool boot_masks_differ(const Engine *e) {
        return e->loaded.keep_masks && e->snapshot->ap &&
               (!ap_mask_equal(&e->loaded.apmask, &e->snapshot->apmask) ||
                !ap_mask_equal(&e->loaded.aqmask, &e->snapshot->aqmask));
}

static void on_boot_masks(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        Engine *e = userdata;

        if (r != 0)
                log_warning(
                        "Cannot set the host masks that we are to keep, trying again when the host changes: %s",
                        refusal ? refusal->text : text_error(r));
        e->n_autostarting--;
        autostart(e);
}

/* The masks first, then all that is to start. */
static void start_pending(Engine *e) {
        Refusal refusal = {};

        if (e->masks_pending && !boot_masks_differ(e))
                boot_masks_are_set(e);
        if (e->masks_pending) {
                e->n_autostarting++;
                if (engine_set_host_masks(e, &e->loaded.apmask, &e->loaded.aqmask, &own_caller,
                                          on_boot_masks, e, &refusal) == 0)
                        return;
                e->n_autostarting--;
                refusal_clear(&refusal);
        }
        autostart(e);
}

void boot_masks_are_set(Engine *e) {
        if (!e->masks_pending)
                return;
        e->masks_pending = false;
        op_commit_mark(e, (Uuid) {}, MARK_NONE);
}

typedef struct BootJob {
        Work work;
        Engine *engine;
        int marks_fd;
        bool masks;
        size_t n;
        Uuid pending[];
} BootJob;

static int boot_run(Work *w) {
        const BootJob *job = CONTAINER_OF(w, BootJob, work);
        int r = 0;

        for (size_t i = 0; i < job->n && r >= 0; i++)
                r = marks_set(job->marks_fd, job->pending[i], MARK_PENDING);
        if (r >= 0 && job->masks)
                r = marks_set(job->marks_fd, (Uuid) {}, MARK_PENDING);
        return r < 0 ? r : marks_set_booted(job->marks_fd);
}

static void boot_ended(Work *w, int r) {
        BootJob *job = CONTAINER_OF(w, BootJob, work);
        Engine *e = job->engine;

        free(job);
        e->n_autostarting--;
        if (r < 0)
                log_error("Cannot write marks below the runtime directory: %s", strerror(-r));
        if (!e->closing)
                start_pending(e);
}

/* Once a boot: what is to be done goes on a list that a crash leaves as it is. What is defined from now on is not on
 * it. */
static void boot(Engine *e) {
        BootJob *job;

        e->boot_done = true;
        if (marks_is_booted(e->marks_fd) != 0)
                return start_pending(e);

        job = calloc(1, sizeof *job + e->n_matrices * sizeof *job->pending);
        if (!job) {
                log_error("Out of memory, starting nothing automatically");
                return settle(e);
        }
        job->work = (Work) { .run = boot_run, .done = boot_ended };
        job->engine = e;
        job->marks_fd = e->marks_fd;
        job->masks = e->masks_pending = boot_masks_differ(e);
        for (size_t i = 0; i < e->n_matrices; i++) {
                Matrix *m = e->by_uuid[i];

                if (!m->rec.autostart || m->mark != MARK_NONE || !m->visible)
                        continue;
                m->mark = MARK_PENDING;
                job->pending[job->n++] = m->rec.uuid;
                op_commit_mark(e, m->rec.uuid, MARK_PENDING); /* after what recovery has still to write */
        }

        e->n_autostarting++;
        if (worker_submit(e->worker, &job->work) < 0)
                boot_ended(&job->work, -EBUSY);
}

static bool is_bound(const Snapshot *s) {
        return s->ap && s->vfio_ap && s->bindings_complete;
}

void boot_step(Engine *e) {
        if (!is_bound(
                    e->snapshot)) { /* a host without AP has nothing to wait for; one with it calls again */
                if (!e->snapshot->ap)
                        settle(e);
                return;
        }
        if (!e->boot_done)
                boot(e);
        else if (e->n_autostarting > 0)
                return; /* again when these have ended */
        else if (e->start_wanted)
                start_pending(e);
        e->start_wanted = false;
}

void boot_free(Engine *e) {
        e->autostart_source = sd_event_source_disable_unref(e->autostart_source);
}
