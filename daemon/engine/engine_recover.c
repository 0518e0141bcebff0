/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was under way when the daemon died or the kernel did not answer; what runs already; what is to
 * run. recover_step() is run after each new snapshot and only ever compares what is wanted with what is
 * there. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "core/reconcile.h"
#include "engine/engine_internal.h"

#define BEGUN_PER_TURN 128 /* operations: about 2 ms */

/* ---- intents of unknown outcome ---- */

static const ApMatrix *intent_target(const Intent *i) {
        for (size_t k = 0; k < i->plan.n_steps; k++)
                if (i->plan.steps[k].type == PLAN_ASSIGN)
                        return &i->plan.steps[k].assign.after;
        return i->has_record ? &i->record.matrix : NULL;
}

bool recover_vouch(const Intent *i, ApMatrix *ret) {
        unsigned n = 0;

        for (size_t k = 0; k < i->plan.n_steps; k++) {
                const PlanStep *step = &i->plan.steps[k];
                const ApMatrix *found[2] = {};

                if (step->type == PLAN_ASSIGN) {
                        found[0] = &step->assign.before;
                        found[1] = &step->assign.after;
                } else if (step->type == PLAN_REMOVE && step->remove.ap)
                        found[0] = &step->remove.before;
                for (size_t f = 0; f < ELEMENTS(found); f++)
                        if (found[f] && ap_matrix_n_queues(found[f]) > n) {
                                n = ap_matrix_n_queues(found[f]);
                                *ret = *found[f];
                        }
        }
        return n > 0 && n < HOST_MATRIX_QUEUES_MAX;
}

/* Until it is known what came of it, nobody else may have what it wanted. */
static int claim_unresolved(Engine *e, Unresolved *u) {
        const ApMatrix *target = intent_target(&u->intent);
        Claim c = { .operation = true, .name = u->intent.has_record ? u->intent.record.name : NULL };
        Matrix *m = state_find(e, u->intent.uuid);
        int r;

        if (m)
                m->unresolved++;
        if (!target)
                return 0;

        r = uuid_random(&u->shadow);
        if (r < 0)
                return r;
        c.uuid = u->shadow;
        c.matrix = *target;
        c.layer = CLAIM_LAYER_MDEV;
        r = claim_table_put(e->claims, &c);
        if (r < 0 || !u->intent.has_record)
                return r;
        c.layer = state_definition_layer(&u->intent.record);
        return claim_table_put(e->claims, &c);
}

static void unclaim_unresolved(Engine *e, const Unresolved *u) {
        Matrix *m = state_find(e, u->intent.uuid);

        for (ClaimLayer layer = CLAIM_LAYER_HOST + 1; layer < _CLAIM_LAYER_MAX; layer++)
                claim_table_drop(e->claims, layer, u->shadow);
        if (m && m->unresolved > 0)
                m->unresolved--;
}

/* Of a matrix that was not there yet when they were found. */
static unsigned count_unresolved(const Engine *e, Uuid uuid) {
        unsigned n = 0;

        for (size_t i = 0; i < e->n_unresolved; i++)
                n += uuid_equal(e->unresolved[i].intent.uuid, uuid);
        return n;
}

/* Takes @intent and @text over. */
static int add_unresolved(Engine *e, uint64_t id, Intent *intent, char *text) {
        Unresolved *grown = reallocarray(e->unresolved, e->n_unresolved + 1, sizeof *grown);
        Unresolved *u;

        if (!grown) {
                intent_clear(intent);
                free(text);
                return -ENOMEM;
        }
        e->unresolved = grown;
        u = &e->unresolved[e->n_unresolved++];
        *u = (Unresolved) { .id = id, .intent = *intent, .text = text };
        *intent = (Intent) {};
        return claim_unresolved(e, u);
}

int recover_add(Engine *e, const Op *op, char *text) {
        CLEANUP(intent_clear)
        Intent intent = { .kind = op->kind, .uuid = op->uuid, .has_record = op->has_record };
        int r;

        r = plan_copy(&op->plan, &intent.plan);
        if (r >= 0 && op->has_record)
                r = record_copy(&op->record, &intent.record);
        if (r < 0) {
                free(text);
                return r;
        }
        return add_unresolved(e, op->id, &intent, text);
}

static void drop_unresolved(Engine *e, size_t i) {
        Unresolved *u = &e->unresolved[i];
        Matrix *m;

        unclaim_unresolved(e, u);
        m = state_find(e, u->intent.uuid);
        intent_clear(&u->intent);
        free(u->text);
        memmove(u, u + 1, (e->n_unresolved - i - 1) * sizeof *u);
        e->n_unresolved--;
        if (m)
                state_show(e, m);
        state_emit_manager(e);
}

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

struct Resolving {
        Engine *engine;
        size_t n;
        uint64_t *ids;
};

static void resolving_free(Resolving *r) {
        free(r->ids);
        free(r);
}

void recover_free(Engine *e) {
        for (size_t i = 0; i < e->n_unresolved; i++) {
                intent_clear(&e->unresolved[i].intent);
                free(e->unresolved[i].text);
        }
        free(e->unresolved);
        if (e->healing)
                healing_free(e->healing);
        if (e->resolving)
                resolving_free(e->resolving);
        e->autostart_source = sd_event_source_disable_unref(e->autostart_source);
}

int recover_load(Engine *e) {
        int r = 0;

        for (size_t i = 0; i < e->loaded.n_intents && r >= 0; i++) {
                Intent intent;

                r = intent_from_line(e->loaded.intents[i].text, &intent);
                if (r == -EBADMSG) {
                        log_full(LOG_WARNING, LOG_ID_BAD_RECORD, NULL,
                                 "The journal's intent %" PRIu64 " cannot be understood, ignoring it",
                                 e->loaded.intents[i].op);
                        r = 0;
                        continue;
                }
                if (r >= 0)
                        r = add_unresolved(e, e->loaded.intents[i].op, &intent, NULL);
        }
        return r;
}

/* ---- resolving them ---- */

static void end_lazily(Engine *e, const Unresolved *u) {
        StoreEntry entry = { .type = STORE_END, .op = u->id, .uuid = u->intent.uuid };

        op_commit_lazily(e, &entry);
}

/* It came to nothing, or was undone. */
static void forget(Engine *e, Unresolved *u) {
        Matrix *m = state_find(e, u->intent.uuid);

        if (u->intent.kind == INTENT_DEFINE || u->intent.kind == INTENT_CREATE)
                op_commit_mark(e, u->intent.uuid, MARK_NONE);
        else if (u->intent.kind == INTENT_START && m) {
                if (m->mark == MARK_LIVE && !snapshot_find_mdev(e->snapshot, m->rec.uuid))
                        m->mark = MARK_NONE;
                op_commit_mark(e, u->intent.uuid, m->mark);
        }
        if (u->intent.kind == INTENT_CREATE)
                state_drop_own_mdev(e, u->intent.uuid);
        end_lazily(e, u);
}

/* All of it is in place on the host: write and remember the rest. */
static int finish(Engine *e, Unresolved *u) {
        StoreEntry entry = { .op = u->id, .uuid = u->intent.uuid }, masks;
        EngineKey key = { .object = ENGINE_MATRIX, .uuid = u->intent.uuid };
        Matrix *m = state_find(e, u->intent.uuid);
        CLEANUP(record_clear) Record copy = {};
        int r = 0;

        if (request_keeps_masks(e, u->intent.kind, &u->intent.plan, &masks)) {
                e->loaded.apmask = masks.apmask;
                e->loaded.aqmask = masks.aqmask;
                op_commit_lazily(e, &masks);
        }
        switch (u->intent.kind) {
        case INTENT_DEFINE:
        case INTENT_MODIFY:
                if (!u->intent.has_record)
                        return -EBADMSG;
                entry.type = STORE_PUT;
                r = record_copy(&u->intent.record, &entry.record);
                if (r >= 0)
                        r = record_copy(&u->intent.record, &copy);
                if (r >= 0 && m) {
                        state_unclaim(e, m);
                        r = state_replace(e, m, &copy);
                } else if (r >= 0) {
                        r = state_add(e, &copy, &m);
                        if (r >= 0) {
                                m->unresolved = count_unresolved(e, m->rec.uuid);
                                m->visible = true;
                                m->mark = MARK_LIVE;
                                op_commit_mark(e, m->rec.uuid, MARK_LIVE);
                                r = state_claim_definition(e, m);
                                state_emit_matrix(e, m, ENGINE_ADDED);
                        }
                }
                if (r < 0) {
                        store_entry_clear(&entry);
                        return r;
                }
                break;
        case INTENT_UNDEFINE:
                entry.type = STORE_DELETE;
                op_commit_mark(e, u->intent.uuid, MARK_NONE);
                if (m) {
                        state_unclaim(e, m);
                        state_remove(e, m);
                        state_emit(e, &key, ENGINE_REMOVED);
                }
                break;
        case INTENT_MASKS: {
                const PlanStep *step = u->intent.plan.n_steps > 0 ? &u->intent.plan.steps[0] : NULL;

                entry.type = step && step->type == PLAN_MASKS ? STORE_MASKS : STORE_END;
                if (entry.type == STORE_MASKS) {
                        entry.keep = e->loaded.keep_masks = true;
                        entry.apmask = e->loaded.apmask = step->masks.apmask_after;
                        entry.aqmask = e->loaded.aqmask = step->masks.aqmask_after;
                }
                break;
        }
        case INTENT_START:
        case INTENT_HEAL:
                entry.type = STORE_END;
                if (m)
                        m->mark = MARK_LIVE;
                op_commit_mark(e, u->intent.uuid, m ? MARK_LIVE : MARK_NONE);
                break;
        case INTENT_HOST:
                entry.type = STORE_END;
                break;
        case INTENT_CREATE:
                entry.type = STORE_END;
                r = state_add_own_mdev(e, u->intent.uuid);
                op_commit_mark(e, u->intent.uuid, MARK_MDEV);
                break;
        default: /* STOP, REMOVE */
                entry.type = STORE_END;
                if (m)
                        m->mark = MARK_NONE;
                state_drop_own_mdev(e, u->intent.uuid);
                op_commit_mark(e, u->intent.uuid, MARK_NONE);
        }
        op_commit_lazily(e, &entry);
        return r;
}

static Unresolved *find_unresolved(Engine *e, uint64_t id) {
        for (size_t i = 0; i < e->n_unresolved; i++)
                if (e->unresolved[i].id == id)
                        return &e->unresolved[i];
        return NULL;
}

static void on_undone(void *userdata, int r, const HostOutcome *outcomes, size_t n, Snapshot *after) {
        Resolving *resolving = userdata;
        Engine *e = resolving->engine;

        for (size_t i = 0; i < resolving->n; i++) {
                Unresolved *u = find_unresolved(e, resolving->ids[i]);

                if (!u)
                        continue;
                u->busy = false;
                u->tried = r < 0 || outcomes[i].verdict != HOST_DONE;
                if (u->tried && !u->text &&
                    asprintf(
                            &u->text,
                            "an interrupted '%s' could not be undone yet; it is tried again when the host changes",
                            intent_kind_name(u->intent.kind)) < 0)
                        u->text = NULL;
        }
        e->resolving = NULL;
        resolving_free(resolving);

        if (after) {
                if (state_take_snapshot(e, after) < 0)
                        log_error("Out of memory while taking over the state of the host");
                recover_step(e); /* finds them undone, and forgets them */
        } else
                engine_host_changed(e);
}

/* Those that are to be undone, in one batch. */
static void undo_all(Engine *e) {
        CLEANUP(freep) Plan *plans = NULL;
        Resolving *resolving;
        size_t n = 0;
        int r;

        if (e->resolving) /* the rest when that has ended */
                return;

        plans = calloc(e->n_unresolved + 1, sizeof *plans);
        resolving = calloc(1, sizeof *resolving);
        if (resolving)
                resolving->ids = calloc(e->n_unresolved + 1, sizeof *resolving->ids);
        if (!plans || !resolving || !resolving->ids) {
                if (resolving)
                        resolving_free(resolving);
                return;
        }
        resolving->engine = e;

        for (size_t i = e->n_unresolved; i-- > 0 && n < ENGINE_BATCH_MAX;) { /* the last one first */
                Unresolved *u = &e->unresolved[i];
                Recovery what;
                bool foreign;

                if (u->busy || u->tried)
                        continue;
                r = reconcile_intent(&u->intent.plan, intent_wants_finish(u->intent.kind), e->snapshot,
                                     &what, &plans[n], &foreign);
                if (r < 0 || what != RECOVERY_UNDO)
                        continue;
                u->busy = true;
                resolving->ids[n++] = u->id;
        }
        resolving->n = n;

        e->resolving = n > 0 ? resolving : NULL;
        r = n > 0 ? e->host->ops->execute(e->host, plans, n, on_undone, resolving) : 0;
        for (size_t i = 0; i < n; i++)
                plan_clear(&plans[i]);
        if (r < 0)
                on_undone(resolving, r, NULL, 0, NULL);
        else if (n == 0)
                resolving_free(resolving);
}

/* Whether what is on the host says how @u ended. */
static bool resolve(Engine *e, Unresolved *u) {
        CLEANUP(plan_clear) Plan undo = {};
        char uuid[UUID_STRING_SIZE];
        bool foreign = false;
        Recovery what;
        int r;

        r = reconcile_intent(&u->intent.plan, intent_wants_finish(u->intent.kind), e->snapshot, &what, &undo,
                             &foreign);
        if (r < 0)
                return false;
        if (what == RECOVERY_UNDO && undo.n_steps > 0)
                return false;

        if (what == RECOVERY_FINISH)
                (void) finish(e, u);
        else
                forget(e, u);
        log_full(LOG_NOTICE, LOG_ID_RECOVERED, u->intent.has_record ? u->intent.record.name : NULL,
                 "Interrupted operation '%s' of %s %s%s", intent_kind_name(u->intent.kind),
                 uuid_format(u->intent.uuid, uuid), what == RECOVERY_FINISH ? "is finished" : "is undone",
                 foreign ? "; what somebody else has changed since was left alone" : "");
        return true;
}

/* The kernel still works on it: a child that hangs, ours or that of the daemon before us, goes on changing the host. */
static bool may_resolve(Engine *e) {
        return !e->unquiet && e->host->ops->stuck(e->host, NULL) == 0;
}

static void resolve_all(Engine *e) {
        if (e->n_unresolved == 0 || e->scan_error < 0 || !may_resolve(e))
                return;

        for (size_t i = 0; i < e->n_unresolved;)
                if (!e->unresolved[i].busy && resolve(e, &e->unresolved[i]))
                        drop_unresolved(e, i);
                else
                        i++;
        undo_all(e);
}

/* ---- adoption ---- */

/* A definition of ours that is live without our doing, or whose mark we lost with /run, is ours all the
 * same. */
static void adopt(Engine *e) {
        for (size_t i = 0; i < e->snapshot->n_mdevs; i++) {
                Matrix *m = state_find(e, e->snapshot->mdevs[i].uuid);

                if (!m || m->mark == MARK_LIVE || m->op || m->unresolved || !m->visible)
                        continue;
                log_info("Matrix '%s' is live already, adopting it", m->rec.name);
                m->mark = MARK_LIVE;
                op_commit_mark(e, m->rec.uuid, MARK_LIVE);
                state_show(e, m);
        }
}

/* ---- autostart ---- */

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

static const EngineCaller own_caller = {}; /* not counted */

static int on_autostart(sd_event_source *source, void *userdata) {
        Engine *e = userdata;
        size_t i = state_place(e, e->autostart_next);

        for (unsigned n = 0; i < e->n_matrices && n < BEGUN_PER_TURN; i++) {
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

bool recover_masks_differ(const Engine *e) {
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

        if (e->masks_pending && !recover_masks_differ(e))
                recover_masks_are_set(e);
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

void recover_masks_are_set(Engine *e) {
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
        job->masks = e->masks_pending = recover_masks_differ(e);
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

/* Whether each interrupted operation has been looked at: what is still open then waits for the kernel. */
static bool is_recovered(const Engine *e) {
        for (size_t i = 0; i < e->n_unresolved; i++)
                if (e->unresolved[i].busy)
                        return false;
        return true;
}

void recover_ready(Engine *e) {
        void (*cb)(void *userdata) = TAKE(e->ready_cb);

        if (cb)
                cb(e->ready_userdata);
}

void recover_step(Engine *e) {
        if (e->closing || e->resting || e->scan_error < 0)
                return;

        for (size_t i = 0; i < e->n_unresolved && e->host_differs; i++)
                e->unresolved[i].tried = false;
        e->start_wanted |= e->host_differs;
        e->host_differs = false; /* each change is one reason to try again */
        resolve_all(e);
        if (!is_recovered(e))
                return;

        adopt(e);
        recover_ready(e);
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

/* ---- Reconcile() ---- */

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

        for (; i < e->n_matrices && h->waiting < waiting + BEGUN_PER_TURN; i++) {
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

        for (size_t i = 0; i < e->n_unresolved; i++)
                e->unresolved[i].tried = false;
        resolve_all(e);

        if (r >= 0 && recover_masks_differ(e)) {
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
