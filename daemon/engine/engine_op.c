/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How an operation goes:
 *
 *   op_begin -> decide -+-> INTENT -> HOST -+-> FINAL -> answer  all that ends on the disk
 *       |        ^      |                   +----------> answer  start, stop, remove, heal
 *       +-> FRESH+      +--------------------> FINAL -> answer  no host change
 *
 * A host that is not as the plan assumes leads back to decide; a FINAL that cannot be stored to UNDO.
 * Commits and plans are handed over in batches: what comes while one is under way goes with the next. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/engine_internal.h"

/* ---- queues ---- */

void op_push(OpQueue *q, Op *op) {
        op->next = NULL;
        if (q->last)
                q->last->next = op;
        else
                q->first = op;
        q->last = op;
        q->n++;
}

Op *op_pop(OpQueue *q) {
        Op *op = q->first;

        if (op) {
                q->first = op->next;
                if (!q->first)
                        q->last = NULL;
                q->n--;
        }
        return op;
}

/* ---- beginning and end ---- */

Op *op_new(IntentKind kind, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata) {
        Op *op = calloc(1, sizeof *op);

        if (!op)
                return NULL;

        op->kind = kind;
        op->uuid = uuid;
        op->done = done;
        op->userdata = userdata;
        if (c && c->id)
                (void) snprintf(op->caller, sizeof op->caller, "%s", c->id);
        return op;
}

Op *op_free(Op *op) {
        if (!op)
                return NULL;

        record_clear(&op->record);
        plan_clear(&op->plan);
        plan_clear(&op->undo);
        refusal_clear(&op->refusal);
        for (size_t i = 0; i < op->n_attrs; i++) {
                free((char *) op->attrs[i].name);
                free((char *) op->attrs[i].value);
        }
        free(op->attrs);
        free(op);
        return NULL;
}

static CallerCount *find_caller(Engine *e, const char *id) {
        for (size_t i = 0; i < e->n_callers; i++)
                if (strcmp(e->callers[i].id, id) == 0)
                        return &e->callers[i];
        return NULL;
}

int engine_admit(Engine *e, const char *caller, Refusal *reterr) {
        char id[ENGINE_CALLER_SIZE];
        CallerCount *count;

        (void) snprintf(id, sizeof id, "%s", caller);
        count = find_caller(e, id);
        if (count && count->n >= e->config.max_calls)
                return refuse(
                        reterr, VERDICT_LIMIT_HIT, 0,
                        "the limit of calls of one client that wait for an answer, %u (MaxCallsPerCaller=), is "
                        "reached; wait for some of them",
                        count->n);

        if (!count) {
                if (e->n_callers == e->allocated_callers) {
                        size_t n = e->allocated_callers * 2 + 8;
                        CallerCount *grown = reallocarray(e->callers, n, sizeof *grown);

                        if (!grown)
                                return -ENOMEM;
                        e->callers = grown;
                        e->allocated_callers = n;
                }
                count = &e->callers[e->n_callers++];
                *count = (CallerCount) {};
                memcpy(count->id, id, sizeof count->id);
        }
        count->n++;
        return 0;
}

void engine_discharge(Engine *e, const char *caller) {
        char id[ENGINE_CALLER_SIZE];
        CallerCount *count;

        (void) snprintf(id, sizeof id, "%s", caller);
        count = find_caller(e, id);
        if (count && --count->n == 0)
                *count = e->callers[--e->n_callers];
}

int op_admit(Engine *e, Op *op, Refusal *reterr) {
        return op->caller[0] ? engine_admit(e, op->caller, reterr) : 0; /* "": our own */
}

void op_finish(Engine *e, Op *op, int r, Refusal *refusal) {
        Uuid uuid = op->uuid;
        Matrix *m;

        request_release(e, op);
        engine_discharge(e, op->caller);
        e->n_ops--;

        m = state_find(e, uuid);
        if (m)
                state_show(e, m);

        op->done(op->userdata, r, refusal, uuid);
        if (refusal)
                refusal_clear(refusal);
        (void) op_free(op);
}

static void finish_refused(Engine *e, Op *op, int r, Refusal *refusal) {
        op_finish(e, op, r, r > 0 ? refusal : NULL);
}

/* ---- decide ---- */

static void proceed(Engine *e, Op *op) {
        op->phase = op->plan.n_steps > 0 ? OP_INTENT : OP_FINAL;
        if (op->phase == OP_INTENT)
                op->id = ++e->last_op;
        op_push(&e->commit, op);
        state_show_begun_soon(e, op);
        gather_commit(e);
}

static void wait_for_scan(Engine *e, Op *op) {
        op->phase = OP_FRESH;
        op->arrived = e->n_scans;
        op_push(&e->fresh, op);
        gather_look(e);
}

/* What is known may be as old as the last scan, since assignments raise no event. A plan is checked again
 * under the lock; a refusal, and what touches nothing but the disk, is decided on a scan that began after
 * the request had come. */
static void decide(Engine *e, Op *op) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        int r;

        r = request_decide(e, op, &refusal);
        if (r == 0 && (op->fresh || op->plan.n_steps > 0))
                return proceed(e, op);
        if (r < 0 || op->fresh)
                return finish_refused(e, op, r, &refusal);

        request_release(e, op);
        if (r == VERDICT_IN_USE) /* only a scan in detail sees that the guest has gone */
                e->detail_wanted = true;
        wait_for_scan(e, op);
}

void op_begin(Engine *e, Op *op) {
        e->n_ops++;
        decide(e, op);
}

void op_decide_waiting(Engine *e) {
        OpQueue waiting = e->fresh;
        bool decided = false;

        if (e->mdevctl_reading || e->mdevctl_wanted)
                return;

        e->fresh = (OpQueue) {};
        for (Op *op; (op = op_pop(&waiting));) {
                if (op->arrived >= e->n_scans || e->scanning) { /* came after the scan had begun */
                        op_push(&e->fresh, op);
                        continue;
                }
                op->fresh = true;
                decide(e, op);
                decided = true;
        }
        if (decided && e->gather_idle)
                gather_end(e);
}
/* ---- from the disk ---- */

static void undo_unstored(Engine *e, Op *op, int error) {
        bool foreign = false;
        int r;

        op->r = refuse_store(e, error, &op->refusal);
        r = plan_undo(&op->plan, e->snapshot, &op->undo, &foreign);
        if (r < 0) { /* stays open: recovery does it */
                (void) recover_add(e, op, NULL);
                return finish_refused(e, op, op->r, &op->refusal);
        }
        if (op->undo.n_steps == 0) {
                op_end_intent(e, op);
                op_take_back_mark(e, op);
                return finish_refused(e, op, op->r, &op->refusal);
        }

        op->phase = OP_UNDO;
        op_push(&e->exec, op);
        op_execute(e);
}

void op_stored(Engine *e, Op *op, int r) {
        CLEANUP(refusal_clear) Refusal refusal = {};

        if (r < 0 && op->phase == OP_FINAL && op->plan.n_steps > 0)
                return undo_unstored(e, op, r);
        if (r < 0)
                return finish_refused(e, op, refuse_store(e, r, &refusal), &refusal);

        if (op->phase == OP_INTENT) {
                op->phase = OP_HOST;
                if (op->prepared)
                        op->prepared = false;
                else
                        op_push(&e->exec, op);
                return;
        }

        r = request_apply(e, op);
        op_finish(e, op, MIN(r, 0), NULL);
}

/* ---- the host ---- */

/* Whether more is to be on the disk before the answer than the intent: what the host does not show, or not any more after a
 * loss of power. */
static bool is_to_be_stored(const Engine *e, const Op *op) {
        StoreEntry masks;

        return op->kind == INTENT_DEFINE || op->kind == INTENT_MODIFY || op->kind == INTENT_UNDEFINE ||
               op->kind == INTENT_MASKS || op->kind == INTENT_CREATE ||
               request_keeps_masks(e, op->kind, &op->plan, &masks);
}

static void host_did_it(Engine *e, Op *op) {
        int r;

        for (size_t i = 0; i < op->plan.n_steps; i++)
                e->masks_refused &= op->plan.steps[i].type != PLAN_MASKS;

        if (op->phase == OP_UNDO) {
                op_end_intent(e, op);
                op_take_back_mark(e, op);
                return finish_refused(e, op, op->r, &op->refusal);
        }

        if (is_to_be_stored(e, op)) {
                op->phase = OP_FINAL;
                return op_push(&e->commit, op);
        }

        op_end_intent(e, op);
        r = request_apply(e, op);
        op_finish(e, op, MIN(r, 0), NULL);
}

static void host_refused(Engine *e, Op *op, const HostOutcome *outcome) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        bool again = outcome->plan == PLAN_CHANGED || outcome->plan == PLAN_OVERLAP ||
                     outcome->plan == PLAN_HOST_OWNED;
        int r;

        /* somebody else was faster: decided anew, the refusal knows who */
        again |= outcome->verdict == HOST_KERNEL &&
                 (outcome->error == -EADDRINUSE || outcome->error == -EADDRNOTAVAIL);

        /* an override that no scan has seen yet, or that went with its queue: what is possible without masks? */
        if (outcome->verdict == HOST_KERNEL && outcome->error == -EINVAL && !e->masks_refused &&
            outcome->step < op->plan.n_steps && op->plan.steps[outcome->step].type == PLAN_MASKS) {
                e->masks_refused = e->masks_doubtful = e->detail_wanted = true;
                again = true;
        }

        op_end_intent(e, op);
        if (op->phase == OP_HOST && again && ++op->tries < ENGINE_TRIES_MAX) {
                op_take_back_mark(e, op);
                request_release(e, op);
                plan_clear(&op->plan);
                op->fresh = false;
                return wait_for_scan(e, op);
        }

        op_take_back_mark(e, op);
        r = refuse_outcome(e, op, outcome, &refusal);
        if (r == VERDICT_IN_USE) { /* no event told of it: the property InUse is to say so too */
                e->detail_wanted = true;
                engine_host_changed(e);
        }
        finish_refused(e, op, r, &refusal);
}

static void host_unknown(Engine *e, Op *op, const HostOutcome *outcome) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        CLEANUP(freep) char *text = NULL;
        int r;

        r = refuse_outcome(e, op, outcome, &refusal);
        if (refusal.text)
                text = strdup(refusal.text);
        log_full(LOG_ERR, LOG_ID_STUCK, NULL, "%s", text ?: "A change of the host has an unknown outcome");

        if (recover_add(e, op, TAKE(text)) < 0)
                r = -ENOMEM;
        op->id = 0; /* stays open in the journal */
        finish_refused(e, op, r, &refusal);
}

static void op_executed(Engine *e, Op *op, const HostOutcome *outcome) {
        switch (outcome->verdict) {
        case HOST_DONE:
                return host_did_it(e, op);
        case HOST_REFUSED:
        case HOST_KERNEL:
        case HOST_LOCKED:
                if (op->phase == OP_UNDO)
                        return host_unknown(e, op, outcome);
                return host_refused(e, op, outcome);
        case HOST_SKIPPED:
                return op_push(&e->exec, op);
        default:
                return host_unknown(e, op, outcome);
        }
}

/* Its batch could not even be tried. What was to be undone is then still there. */
static void not_executed(Engine *e, Op *op, int error) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        int r;

        if (op->phase == OP_UNDO) {
                const HostOutcome outcome = { .verdict = HOST_BROKEN, .error = error };

                return host_unknown(e, op, &outcome);
        }

        op_end_intent(e, op);
        op_take_back_mark(e, op);
        r = refuse(&refusal, VERDICT_BACKEND, error,
                   "the host's devices cannot be changed now: %s; nothing was changed", text_error(error));
        finish_refused(e, op, r, &refusal);
}

void op_unprepare(Engine *e) {
        if (!e->held)
                return;

        e->held = false;
        for (size_t i = 0; i < e->n_executing; i++)
                e->executing[i]->prepared = false;
        e->n_executing = 0;
}

void op_go_on(Engine *e) {
        if (!e->held)
                return;

        e->held = false;
        e->host->ops->go_on(e->host);
}

static void on_executed(void *userdata, int r, const HostOutcome *outcomes, size_t n, Snapshot *after) {
        Engine *e = userdata;
        CLEANUP(freep) Op **ops = NULL;
        size_t n_ops;
        int k = 0;

        /* the disk took too long, or the lock was not had: as if they had not been handed over */
        op_unprepare(e);
        ops = TAKE(e->executing);
        n_ops = e->n_executing;
        e->n_executing = 0;
        if (after)
                k = state_take_snapshot(e, after);
        else
                engine_host_changed(e);
        if (k < 0)
                log_error("Out of memory while taking over the state of the host");

        for (size_t i = 0; i < n_ops; i++)
                if (r >= 0)
                        op_executed(e, ops[i], &outcomes[i]);
                else
                        not_executed(e, ops[i], r);

        op_commit(e);
        op_execute(e);
        engine_stirred(e);
        if (after)
                recover_step(e);
}

static int hand_over(Engine *e, int (*take)(Host *h, const Plan *plans, size_t n, host_executed_t done,
                                            void *userdata)) {
        CLEANUP(freep) Plan *plans = calloc(e->n_executing, sizeof *plans);

        if (!plans)
                return -ENOMEM;
        for (size_t i = 0; i < e->n_executing; i++)
                plans[i] = e->executing[i]->phase == OP_UNDO ? e->executing[i]->undo : e->executing[i]->plan;

        (void) state_vouch(e, false);
        return take(e->host, plans, e->n_executing, on_executed, e);
}

void op_execute(Engine *e) {
        size_t n;
        int r;

        if (e->executing || !e->exec.first || e->closing)
                return;

        n = MIN(e->exec.n, (size_t) ENGINE_BATCH_MAX);
        e->executing = calloc(n, sizeof *e->executing);
        if (!e->executing) {
                while (e->exec.first)
                        not_executed(e, op_pop(&e->exec), -ENOMEM);
                return;
        }

        while (e->n_executing < n)
                e->executing[e->n_executing++] = op_pop(&e->exec);
        r = hand_over(e, e->host->ops->execute);
        if (r < 0)
                on_executed(e, r, NULL, 0, NULL);
}

void op_prepare(Engine *e, const OpQueue *ops) {
        if (e->executing || e->exec.first || e->store_failed || e->closing)
                return;
        e->executing = calloc(ENGINE_BATCH_MAX, sizeof *e->executing);
        if (!e->executing)
                return;

        e->held = true;
        for (Op *op = ops->first; op && e->n_executing < ENGINE_BATCH_MAX; op = op->next)
                if (op->phase == OP_INTENT) {
                        op->prepared = true;
                        e->executing[e->n_executing++] = op;
                }
        if (e->n_executing == 0 || hand_over(e, e->host->ops->prepare) < 0) {
                op_unprepare(e);
                free(TAKE(e->executing));
        }
}

/* ---- the end of the engine ---- */

static void drop_all(OpQueue *q) {
        for (Op *op; (op = op_pop(q));)
                (void) op_free(op);
}

void op_drain(Engine *e) {
        /* intents that were not begun on the host are simply dropped; the others are for the next start */
        drop_all(&e->fresh);
        drop_all(&e->commit);
        drop_all(&e->exec);
        op_unprepare(e); /* these are the disk's */
        for (size_t i = 0; i < e->n_executing; i++)
                (void) op_free(e->executing[i]);
        free(e->executing);

        op_commit_drain(e);
        free(e->callers);
}
