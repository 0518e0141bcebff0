/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was under way when the daemon died or the kernel did not answer, and what runs already. recover_step() is run
 * after each new snapshot and only ever compares what is wanted with what is there. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "core/reconcile.h"
#include "engine/engine_internal.h"

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
        if (e->resolving)
                resolving_free(e->resolving);
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

static void try_again(Engine *e) {
        for (size_t i = 0; i < e->n_unresolved; i++)
                e->unresolved[i].tried = false;
}

void recover_now(Engine *e) {
        try_again(e);
        resolve_all(e);
}

void recover_step(Engine *e) {
        if (e->closing || e->resting || e->scan_error < 0)
                return;

        if (e->host_differs)
                try_again(e);
        e->start_wanted |= e->host_differs;
        e->host_differs = false; /* each change is one reason to try again */
        resolve_all(e);
        if (!is_recovered(e))
                return;

        adopt(e);
        recover_ready(e);
        boot_step(e);
}
