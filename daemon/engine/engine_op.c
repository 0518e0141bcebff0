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

#define FILES_MAX           32 /* written in one go: what is to be durable waits for them */
#define FILES_DELAY_US      (20 * UINT64_C(1000))
#define FILES_PUT_OFF_MAX   250 /* times */
#define LAZY_DELAY_US       (50 * UINT64_C(1000))
#define LAZY_RETRY_US       (5 * UINT64_C(1000000)) /* while the disk takes nothing */
#define CHECKPOINT_DELAY_US (5 * UINT64_C(1000000))

struct CommitJob {
        Work work;
        Engine *engine;
        Store *store;
        int marks_fd;
        bool reopen, checkpoint;
        bool files; /* only these, which are late: answers do not wait for them */
        StoreEntry *entries;
        size_t n_entries, allocated_entries;
        Mark *marks;
        size_t n_marks, allocated_marks;
        /* of what has ended; its marks come before the ends of its intents, since a crash between leaves
         * those to recovery */
        size_t n_first_entries, n_first_marks;
        size_t n_failed_marks; /* so many are left, from the first on: they could not be written */
        OpQueue ops;
        int marks_result; /* of the operations' own */
        int marks_error;  /* of any */
};

static void end_intent(Engine *e, Op *op);
static void write_files(Engine *e);
static void files_soon(Engine *e);
static void take_back_mark(Engine *e, const Op *op);
static void exec_pump(Engine *e);

/* ---- queues ---- */

static void push(OpQueue *q, Op *op) {
        op->next = NULL;
        if (q->last)
                q->last->next = op;
        else
                q->first = op;
        q->last = op;
        q->n++;
}

static Op *pop(OpQueue *q) {
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

/* Releases what it held, answers. @refusal is taken over. */
static void op_finish(Engine *e, Op *op, int r, Refusal *refusal) {
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
        push(&e->commit, op);
        state_show_begun_soon(e);
        gather_commit(e);
}

static void wait_for_scan(Engine *e, Op *op) {
        op->phase = OP_FRESH;
        op->arrived = e->n_scans;
        push(&e->fresh, op);
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
        for (Op *op; (op = pop(&waiting));) {
                if (op->arrived >= e->n_scans || e->scanning) { /* came after the scan had begun */
                        push(&e->fresh, op);
                        continue;
                }
                op->fresh = true;
                decide(e, op);
                decided = true;
        }
        if (decided && e->gather_idle)
                gather_end(e);
}

/* ---- the disk ---- */

static void commit_job_free(CommitJob *job) {
        for (size_t i = 0; i < job->n_entries; i++)
                store_entry_clear(&job->entries[i]);
        free(job->entries);
        free(job->marks);
        free(job);
}

/* Takes @entry over, also on error. */
static int job_add_entry(CommitJob *job, StoreEntry *entry) {
        if (job->n_entries == job->allocated_entries) {
                size_t n = job->allocated_entries * 2 + 16;
                StoreEntry *grown = reallocarray(job->entries, n, sizeof *grown);

                if (!grown) {
                        store_entry_clear(entry);
                        return -ENOMEM;
                }
                job->entries = grown;
                job->allocated_entries = n;
        }
        job->entries[job->n_entries++] = *entry;
        *entry = (StoreEntry) {};
        return 0;
}

static int job_add_mark(CommitJob *job, Uuid uuid, MarkKind kind) {
        if (job->n_marks == job->allocated_marks) {
                size_t n = job->allocated_marks * 2 + 16;
                Mark *grown = reallocarray(job->marks, n, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                job->marks = grown;
                job->allocated_marks = n;
        }
        job->marks[job->n_marks++] = (Mark) { .uuid = uuid, .kind = kind };
        return 0;
}

static int job_add_intent(const Engine *e, CommitJob *job, const Op *op) {
        StoreEntry entry = { .type = STORE_INTENT, .op = op->id, .uuid = op->uuid };
        const Matrix *m = state_find(e, op->uuid);
        int r;

        r = intent_to_line(op->kind, op->uuid, op->has_record ? &op->record : NULL, &op->plan, &entry.text);
        if (r < 0)
                return r;
        r = job_add_entry(job, &entry);
        if (r < 0)
                return r;

        /* before the first write, so that a live mdev of ours is never without its mark; but what waits
         * for its autostart stays on that list until it is started */
        if (op->kind == INTENT_START && m && m->mark == MARK_PENDING)
                return 0;
        if (op->kind == INTENT_DEFINE || op->kind == INTENT_START)
                return job_add_mark(job, op->uuid, MARK_LIVE);
        if (op->kind == INTENT_CREATE)
                return job_add_mark(job, op->uuid, MARK_MDEV);
        return 0;
}

static int job_add_final(const Engine *e, CommitJob *job, const Op *op) {
        StoreEntry entry = { .op = op->id, .uuid = op->uuid }, masks;
        int r;

        if (request_keeps_masks(e, op->kind, &op->plan, &masks)) {
                r = job_add_entry(job, &masks);
                if (r < 0)
                        return r;
        }

        switch (op->kind) {
        case INTENT_DEFINE:
        case INTENT_MODIFY:
                entry.type = STORE_PUT;
                r = record_copy(&op->record, &entry.record);
                if (r < 0)
                        return r;
                break;
        case INTENT_UNDEFINE:
                entry.type = STORE_DELETE;
                break;
        case INTENT_CREATE: /* durably, since attributes do not show on the host that they were written */
                entry.type = STORE_END;
                break;
        case INTENT_STOP: /* of what is not live any more */
                return job_add_mark(job, op->uuid, MARK_NONE);
        case INTENT_MASKS:
                entry.type = STORE_MASKS;
                entry.apmask = op->apmask;
                entry.aqmask = op->aqmask;
                entry.keep = true;
                break;
        default: /* START, HEAL: with the masks that they took */
                if (op->plan.n_steps == 0)
                        return 0;
                entry.type = STORE_END;
        }

        r = job_add_entry(job, &entry);
        if (r < 0 || op->kind != INTENT_UNDEFINE)
                return r;
        return job_add_mark(job, op->uuid, MARK_NONE);
}

/* What could not be written is kept for later; the first reason is the result. */
static int job_set_marks(CommitJob *job, size_t from, size_t to) {
        int result = 0;

        for (size_t i = from; i < to; i++) {
                int r = marks_set(job->marks_fd, job->marks[i].uuid, job->marks[i].kind);

                if (r < 0) {
                        job->marks[job->n_failed_marks++] = job->marks[i];
                        job->marks_error = r;
                        result = result ?: r;
                }
        }

        return result;
}

static int commit_run(Work *w) {
        CommitJob *job = CONTAINER_OF(w, CommitJob, work);
        int r = 0;

        if (job->files) {
                job->files = store_write_files(job->store, FILES_MAX) > 0;
                return 0;
        }

        (void) job_set_marks(job, 0, job->n_first_marks);
        if (job->reopen)
                r = store_reopen(job->store);
        if (r >= 0 && job->n_entries > 0)
                r = store_commit(job->store, job->entries, job->n_entries);
        if (r >= 0 && job->checkpoint)
                r = store_checkpoint(job->store);
        if (r >= 0)
                job->marks_result = job_set_marks(job, job->n_first_marks, job->n_marks);
        return r;
}

static int on_checkpoint(sd_event_source *s, uint64_t usec, void *userdata);

static void undo_unstored(Engine *e, Op *op, int error) {
        bool foreign = false;
        int r;

        op->r = refuse_store(&op->refusal, error);
        r = plan_undo(&op->plan, e->snapshot, &op->undo, &foreign);
        if (r < 0) { /* stays open: recovery does it */
                (void) recover_add(e, op, NULL);
                return finish_refused(e, op, op->r, &op->refusal);
        }
        if (op->undo.n_steps == 0) {
                end_intent(e, op);
                take_back_mark(e, op);
                return finish_refused(e, op, op->r, &op->refusal);
        }

        op->phase = OP_UNDO;
        push(&e->exec, op);
        exec_pump(e);
}

static void op_stored(Engine *e, Op *op, int r) {
        CLEANUP(refusal_clear) Refusal refusal = {};

        if (r < 0 && op->phase == OP_FINAL && op->plan.n_steps > 0)
                return undo_unstored(e, op, r);
        if (r < 0)
                return finish_refused(e, op, refuse_store(&refusal, r), &refusal);

        if (op->phase == OP_INTENT) {
                op->phase = OP_HOST;
                push(&e->exec, op);
                return;
        }

        r = request_apply(e, op);
        op_finish(e, op, MIN(r, 0), NULL);
}

/* What has ended is still to be written, and before what has ended since. Operations look after their own
 * entries. */
static void commit_again(Engine *e, CommitJob *job) {
        CLEANUP(freep) StoreEntry *since = TAKE(e->lazy);
        size_t n_since = e->n_lazy;

        e->n_lazy = e->allocated_lazy = 0;
        for (size_t i = 0; i < job->n_first_entries; i++)
                op_commit_lazily(e, &job->entries[i]);
        for (size_t i = 0; i < n_since; i++)
                op_commit_lazily(e, &since[i]);
}

/* A mark that stays where it should have gone would make a stopped matrix a lost one for the next daemon. */
static void marks_again(Engine *e, const CommitJob *job) {
        for (size_t i = 0; i < job->n_failed_marks; i++) {
                const Mark *mark = &job->marks[i];
                bool newer = false;

                for (size_t k = 0; k < e->n_lazy_marks; k++)
                        newer |= uuid_equal(e->lazy_marks[k].uuid, mark->uuid);
                if (!newer)
                        op_commit_mark(e, mark->uuid, mark->kind);
        }
}

static void commit_done(Work *w, int r) {
        CommitJob *job = CONTAINER_OF(w, CommitJob, work);
        Engine *e = job->engine;
        bool stored = r >= 0;

        e->committing = NULL;
        if (r < 0 && !e->store_failed)
                log_full(LOG_ERR, LOG_ID_STORE, NULL,
                         "Cannot write the state directory, refusing changes until it can be: %s",
                         strerror(-r));
        else if (r >= 0 && e->store_failed && job->n_entries > 0)
                log_full(LOG_NOTICE, LOG_ID_STORE, NULL, "The state directory can be written again");
        if (job->n_entries > 0 || r < 0) {
                if (e->store_failed != (r < 0)) {
                        e->store_failed = r < 0;
                        state_emit_manager(e);
                }
        }
        if (job->n_failed_marks > 0 && !e->marks_failed)
                log_error("Cannot write marks below the runtime directory, trying again: %s",
                          strerror(-job->marks_error));
        e->marks_failed = job->n_failed_marks > 0;
        if (r >= 0)
                r = job->marks_result;

        if (!stored && !e->closing)
                commit_again(e, job);
        if (!e->closing)
                marks_again(e, job);
        for (Op *op; (op = pop(&job->ops));)
                if (e->closing)
                        (void) op_free(op);
                else if (!stored || r >= 0)
                        op_stored(e, op, r);
                else if (op->phase == OP_FINAL && op->kind != INTENT_STOP) /* the mark is late, no more */
                        op_stored(e, op, 0);
                else {
                        end_intent(e, op);
                        take_back_mark(e, op);
                        op_stored(e, op, r);
                }

        if (!e->closing && job->n_entries > 0 && !e->checkpoint_timer)
                (void) sd_event_add_time_relative(e->event, &e->checkpoint_timer, CLOCK_MONOTONIC,
                                                  CHECKPOINT_DELAY_US, 0, on_checkpoint, e);
        if (!e->closing) {
                exec_pump(e);
                op_commit(e);
                if (job->files && e->n_ops == 0)
                        write_files(e);
                else if (job->files)
                        files_soon(e);
                else if (stored && job->n_entries > 0)
                        files_soon(e);
        }
        commit_job_free(job);
}

static CommitJob *commit_job_new(Engine *e) {
        CommitJob *job = calloc(1, sizeof *job);

        if (!job)
                return NULL;

        job->work = (Work) { .run = commit_run, .done = commit_done };
        job->engine = e;
        job->store = e->store;
        job->marks_fd = e->marks_fd;
        job->reopen = e->store_failed;

        /* what has ended comes before what begins */
        job->entries = TAKE(e->lazy);
        job->n_entries = job->n_first_entries = e->n_lazy;
        job->allocated_entries = e->allocated_lazy;
        e->n_lazy = e->allocated_lazy = 0;
        job->marks = TAKE(e->lazy_marks);
        job->n_marks = job->n_first_marks = e->n_lazy_marks;
        job->allocated_marks = e->allocated_lazy_marks;
        e->n_lazy_marks = e->allocated_lazy_marks = 0;
        e->lazy_timer = sd_event_source_disable_unref(e->lazy_timer);
        return job;
}

static void commit_submit(Engine *e, CommitJob *job) {
        e->committing = job;
        if (worker_submit(e->worker, &job->work) < 0) { /* cannot be: two jobs of ours at most, at the end */
                e->committing = NULL;
                commit_done(&job->work, -EBUSY);
        }
}

static void write_files(Engine *e) {
        CommitJob *job;

        if (e->committing || e->closing)
                return files_soon(e);
        job = calloc(1, sizeof *job);
        if (!job)
                return files_soon(e);

        job->work = (Work) { .run = commit_run, .done = commit_done };
        job->engine = e;
        job->store = e->store;
        job->files = true;
        commit_submit(e, job);
}

static int on_files(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;

        e->files_timer = sd_event_source_disable_unref(e->files_timer);
        /* while there is still more coming, or somebody waits for an answer; but not for ever */
        if ((e->files_since || e->n_ops > 0) && e->files_put_off++ < FILES_PUT_OFF_MAX)
                files_soon(e);
        else {
                e->files_put_off = 0;
                write_files(e);
        }
        return 0;
}

/* When there has been a pause. */
static void files_soon(Engine *e) {
        e->files_since = e->files_timer;
        if (!e->files_timer && !e->closing)
                (void) sd_event_add_time_relative(e->event, &e->files_timer, CLOCK_MONOTONIC, FILES_DELAY_US,
                                                  0, on_files, e);
}

void op_commit(Engine *e) {
        CommitJob *job;

        if (e->committing || !e->commit.first || e->closing)
                return;

        job = commit_job_new(e);
        if (!job) {
                while (e->commit.first)
                        op_finish(e, pop(&e->commit), -ENOMEM, NULL);
                return;
        }

        while (e->commit.first && job->ops.n < ENGINE_COMMIT_MAX) {
                Op *op = pop(&e->commit);
                int r = op->phase == OP_INTENT ? job_add_intent(e, job, op) : job_add_final(e, job, op);

                if (r < 0)
                        op_finish(e, op, r, NULL);
                else
                        push(&job->ops, op);
        }
        commit_submit(e, job);
}

static void commit_leftovers(Engine *e, bool checkpoint) {
        CommitJob *job;

        if (e->committing)
                return;
        job = commit_job_new(e);
        if (!job)
                return;
        job->checkpoint = checkpoint;
        commit_submit(e, job);
}

static int on_lazy(sd_event_source *s, uint64_t usec, void *userdata);

static void lazy_soon(Engine *e) {
        uint64_t delay = e->store_failed || e->marks_failed ? LAZY_RETRY_US : LAZY_DELAY_US;

        if (!e->lazy_timer && !e->closing)
                (void) sd_event_add_time_relative(e->event, &e->lazy_timer, CLOCK_MONOTONIC, delay, 0,
                                                  on_lazy, e);
}

static int on_lazy(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;

        e->lazy_timer = sd_event_source_disable_unref(e->lazy_timer);
        commit_leftovers(
                e, false); /* if a commit is under way, its successor takes them or the next timer does */
        if (e->n_lazy > 0 || e->n_lazy_marks > 0)
                lazy_soon(e);
        return 0;
}

static int on_checkpoint(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;

        e->checkpoint_timer = sd_event_source_disable_unref(e->checkpoint_timer);
        if (e->committing || e->n_ops > 0) /* not idle: later */
                (void) sd_event_add_time_relative(e->event, &e->checkpoint_timer, CLOCK_MONOTONIC,
                                                  CHECKPOINT_DELAY_US, 0, on_checkpoint, e);
        else
                commit_leftovers(e, true);
        return 0;
}

/* Losing one is harmless: recovery then finds the intent open and what it wanted in place. */
void op_commit_lazily(Engine *e, StoreEntry *entry) {
        if (e->n_lazy == e->allocated_lazy) {
                size_t n = e->allocated_lazy * 2 + 16;
                StoreEntry *grown = reallocarray(e->lazy, n, sizeof *grown);

                if (!grown) {
                        store_entry_clear(entry);
                        return;
                }
                e->lazy = grown;
                e->allocated_lazy = n;
        }
        e->lazy[e->n_lazy++] = *entry;
        *entry = (StoreEntry) {};
        lazy_soon(e);
}

void op_commit_mark(Engine *e, Uuid uuid, MarkKind kind) {
        if (e->n_lazy_marks == e->allocated_lazy_marks) {
                size_t n = e->allocated_lazy_marks * 2 + 16;
                Mark *grown = reallocarray(e->lazy_marks, n, sizeof *grown);

                if (!grown)
                        return;
                e->lazy_marks = grown;
                e->allocated_lazy_marks = n;
        }
        e->lazy_marks[e->n_lazy_marks++] = (Mark) { .uuid = uuid, .kind = kind };
        lazy_soon(e);
}

static void end_intent(Engine *e, Op *op) {
        StoreEntry entry = { .type = STORE_END, .op = op->id, .uuid = op->uuid };

        if (op->id)
                op_commit_lazily(e, &entry);
        op->id = 0;
}

/* The mark that was set before the first write, when nothing came of it. */
static void take_back_mark(Engine *e, const Op *op) {
        const Matrix *m = state_find(e, op->uuid);

        if (op->kind == INTENT_DEFINE || op->kind == INTENT_CREATE)
                op_commit_mark(e, op->uuid, MARK_NONE);
        else if (op->kind == INTENT_START)
                op_commit_mark(e, op->uuid, m ? m->mark : MARK_NONE);
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

        if (op->phase == OP_UNDO) {
                end_intent(e, op);
                take_back_mark(e, op);
                return finish_refused(e, op, op->r, &op->refusal);
        }

        if (is_to_be_stored(e, op)) {
                op->phase = OP_FINAL;
                return push(&e->commit, op);
        }

        end_intent(e, op);
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

        end_intent(e, op);
        if (op->phase == OP_HOST && again && ++op->tries < ENGINE_TRIES_MAX) {
                take_back_mark(e, op);
                request_release(e, op);
                plan_clear(&op->plan);
                op->fresh = false;
                return wait_for_scan(e, op);
        }

        take_back_mark(e, op);
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
                return push(&e->exec, op);
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

        end_intent(e, op);
        take_back_mark(e, op);
        r = refuse(&refusal, VERDICT_BACKEND, error,
                   "the host's devices cannot be changed now: %s; nothing was changed", text_error(error));
        finish_refused(e, op, r, &refusal);
}

static void on_executed(void *userdata, int r, const HostOutcome *outcomes, size_t n, Snapshot *after) {
        Engine *e = userdata;
        CLEANUP(freep) Op **ops = TAKE(e->executing);
        size_t n_ops = e->n_executing;
        int k = 0;

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
        exec_pump(e);
        engine_stirred(e);
        if (after)
                recover_step(e);
}

static void exec_pump(Engine *e) {
        CLEANUP(freep) Plan *plans = NULL;
        size_t n;
        int r;

        if (e->executing || !e->exec.first || e->closing)
                return;

        n = MIN(e->exec.n, (size_t) ENGINE_BATCH_MAX);
        plans = calloc(n, sizeof *plans);
        e->executing = calloc(n, sizeof *e->executing);
        if (!plans || !e->executing) {
                free(TAKE(e->executing));
                while (e->exec.first)
                        not_executed(e, pop(&e->exec), -ENOMEM);
                return;
        }

        for (size_t i = 0; i < n; i++) {
                e->executing[i] = pop(&e->exec);
                plans[i] = e->executing[i]->phase == OP_UNDO ? e->executing[i]->undo : e->executing[i]->plan;
        }
        e->n_executing = n;

        (void) state_vouch(e, false);
        r = e->host->ops->execute(e->host, plans, n, on_executed, e);
        if (r < 0)
                on_executed(e, r, NULL, 0, NULL);
}

/* ---- the end of the engine ---- */

static void drop_all(OpQueue *q) {
        for (Op *op; (op = pop(q));)
                (void) op_free(op);
}

void op_drain(Engine *e) {
        CommitJob *job;

        /* intents that were not begun on the host are simply dropped; the others are for the next start */
        drop_all(&e->fresh);
        drop_all(&e->commit);
        drop_all(&e->exec);
        for (size_t i = 0; i < e->n_executing; i++)
                (void) op_free(e->executing[i]);
        free(e->executing);

        if (e->store) { /* behind the one that is under way, if there is one: that has not what came since */
                job = commit_job_new(e);
                if (job) {
                        job->checkpoint = true;
                        commit_submit(e, job);
                }
        }
        e->worker = worker_free(e->worker);

        e->lazy_timer = sd_event_source_disable_unref(e->lazy_timer);
        e->checkpoint_timer = sd_event_source_disable_unref(e->checkpoint_timer);
        e->files_timer = sd_event_source_disable_unref(e->files_timer);
        for (size_t i = 0; i < e->n_lazy; i++)
                store_entry_clear(&e->lazy[i]);
        free(e->lazy);
        free(e->lazy_marks);
        free(e->callers);
}
