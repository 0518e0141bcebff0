/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is written to the state directory: intents and what has become of them, together with what waits meanwhile, in commits one after
 * the other on the worker; marks beside them; the definitions' own files and the checkpoint when there is time. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/timer.h"
#include "engine/engine_internal.h"

#define FILES_US            (5 * UINT64_C(1000)) /* in one go: what is to be durable waits for them */
#define FILES_AT_ONCE       8
#define JOURNAL_PATIENCE    ((size_t) 4 * STORE_JOURNAL_MAX)
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
        bool finals; /* among what it commits */
        bool marked; /* the operations' own marks were set, whatever came of the entries */
        bool anew; /* the first marks are all that there are to be, in a new directory; nothing begins without them */
        bool booted; /* ... with that one */
        bool files;  /* only these, which are late: answers do not wait for them */
        bool sync;   /* them, too */
        bool more;   /* are late */
        size_t files_min, journal_size;
        StoreEntry *entries;
        size_t n_entries, allocated_entries;
        Mark *marks;
        size_t n_marks, allocated_marks;
        /* of what has ended; its marks come before the ends of its intents, since a crash between leaves
         * those to recovery */
        size_t n_first_entries, n_first_marks;
        size_t n_failed_marks; /* so many are left, from the first on: they could not be written */
        OpQueue ops;
        int anew_result;
        int marks_result; /* of the operations' own */
        int marks_error;  /* of any */
};

static int on_checkpoint(sd_event_source *s, uint64_t usec, void *userdata);
static void write_files(Engine *e);
static void files_soon(Engine *e);
static void commit_leftovers(Engine *e, bool checkpoint);

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
        if (r >= 0 && op->adopts)
                return job_add_mark(job, op->uuid, MARK_LIVE);
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

static void job_set_own_marks(void *userdata) {
        CommitJob *job = userdata;
        int r = job_set_marks(job, job->n_first_marks, job->n_marks);

        job->marks_result = job->anew_result ?: r;
        job->marked = true;
}

static int commit_run(Work *w) {
        CommitJob *job = CONTAINER_OF(w, CommitJob, work);
        int r = 0;

        if (job->files) {
                uint64_t until = clock_now_us() + FILES_US;
                size_t n = 0;

                do {
                        job->more = store_write_files(job->store, FILES_AT_ONCE) > 0;
                        if (!job->more && job->sync)
                                job->more = store_sync_files(job->store, FILES_AT_ONCE) > 0;
                        n += FILES_AT_ONCE;
                } while (job->more && (n < job->files_min || clock_now_us() < until));
                return 0;
        }

        r = job_set_marks(job, 0, job->n_first_marks);
        if (r >= 0 && job->booted)
                r = marks_set_booted(job->marks_fd);
        job->anew_result = job->anew ? r : 0;
        r = 0;
        if (job->reopen)
                r = store_reopen(job->store);
        /* A daemon that is killed meanwhile leaves the intents to the next one with their marks, as one that is killed
         * after it does, and a loss of power takes the marks. But what a final entry says has to be durable first. */
        if (r >= 0 && job->n_entries > 0)
                r = store_commit_with(job->store, job->entries, job->n_entries,
                                      job->finals ? NULL : job_set_own_marks, job);
        if (r >= 0 && job->checkpoint)
                r = store_checkpoint(job->store);
        if (r >= 0 && !job->marked)
                job_set_own_marks(job);
        job->journal_size = store_journal_size(job->store);
        return r;
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

/* What the disk does after @job. While there is a checkpoint to be made, one step of it and what is to be answered take turns. Who changes
 * more than files can be written, and does not stop, waits for them in the end: a step is as long as three commits then. */
static void next(Engine *e, const CommitJob *job, bool stored) {
        if (!job->files) {
                e->checkpointing = (e->checkpointing || job->journal_size > STORE_JOURNAL_MAX) && stored &&
                                   !job->checkpoint;
                e->files_min = job->journal_size > JOURNAL_PATIENCE ? 3 * job->n_entries : 0;
                if (e->checkpointing)
                        write_files(e);
        } else if (e->checkpointing && !job->more)
                commit_leftovers(e, true);

        op_commit(e);
        if (job->more && (e->n_ops == 0 || e->checkpointing))
                write_files(e);
        else if (job->more || (stored && job->n_entries > 0))
                files_soon(e);
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
        if (job->anew && job->anew_result >= 0)
                e->marks_lost = false;
        if (r >= 0)
                r = job->marks_result;

        if (r < 0)
                op_unprepare(e);
        if (!stored && !e->closing)
                commit_again(e, job);
        if (!e->closing)
                marks_again(e, job);
        for (Op *op; (op = op_pop(&job->ops));)
                if (e->closing)
                        (void) op_free(op);
                else if (!stored || r >= 0) {
                        if (!stored && job->marked)
                                op_take_back_mark(e, op);
                        op_stored(e, op, r);
                } else if (op->phase == OP_FINAL && op->kind != INTENT_STOP) /* the mark is late, no more */
                        op_stored(e, op, 0);
                else {
                        op_end_intent(e, op);
                        op_take_back_mark(e, op);
                        op_stored(e, op, r);
                }

        if (!e->closing && job->n_entries > 0 && !e->checkpoint_timer)
                (void) timer_after(e->event, &e->checkpoint_timer, CHECKPOINT_DELAY_US, on_checkpoint, e);
        if (!e->closing) {
                op_go_on(e);
                op_execute(e);
                next(e, job, stored);
        }
        commit_job_free(job);
}

static int reserve_lazy_marks(Engine *e, size_t n) {
        Mark *grown = reallocarray(e->lazy_marks, e->n_lazy_marks + n, sizeof *grown);

        if (!grown)
                return -ENOMEM;
        e->lazy_marks = grown;
        e->allocated_lazy_marks = e->n_lazy_marks + n;
        return 0;
}

/* What an operation that is with the host has marked. */
static bool is_marked_by(const Op *op, IntentKind a, IntentKind b) {
        return op && op->phase > OP_INTENT && (op->kind == a || op->kind == b);
}

/* All marks that there are to be, by what is known. */
static void mark_all(Engine *e) {
        if (e->masks_pending)
                op_commit_mark(e, (Uuid) {}, MARK_PENDING);
        for (size_t i = 0; i < e->n_matrices; i++) {
                const Matrix *m = e->by_uuid[i];

                if (m->mark != MARK_NONE)
                        op_commit_mark(e, m->rec.uuid, m->mark);
                else if (is_marked_by(m->op, INTENT_DEFINE, INTENT_START))
                        op_commit_mark(e, m->rec.uuid, MARK_LIVE);
        }
        for (size_t i = 0; i < e->n_own_mdevs; i++)
                op_commit_mark(e, e->own_mdevs[i], MARK_MDEV);
        for (size_t i = 0; i < e->n_busy; i++)
                if (is_marked_by(e->busy[i], INTENT_CREATE, INTENT_CREATE))
                        op_commit_mark(e, e->busy[i]->uuid, MARK_MDEV);
}

/* The new directory gets the number of the old one, which jobs under way have. On the loop: it is in memory. */
void op_look_after_marks(Engine *e) {
        CLEANUP(fd_closep) int run_fd = -1, fd = -1;
        struct stat st;

        if (e->closing || fstat(e->marks_fd, &st) < 0 || st.st_nlink > 0)
                return;
        if (reserve_lazy_marks(e, 1 + e->n_matrices + e->n_own_mdevs + e->n_busy) < 0)
                return;
        run_fd = file_open_dir(e->root_fd, e->run_dir);
        if (run_fd < 0)
                return;
        fd = file_open_dir(run_fd, MARKS_DIR);
        if (fd < 0 || dup3(fd, e->marks_fd, O_CLOEXEC) < 0)
                return; /* marks cannot be written, which is told */

        log_warning(
                "Somebody has removed the runtime directory '/%s'; it is made anew, with the marks of what is live",
                e->run_dir);
        e->marks_lost = true;
        mark_all(e);
        hold_again(e, run_fd);
}

static CommitJob *commit_job_new(Engine *e) {
        CommitJob *job = calloc(1, sizeof *job);

        if (!job)
                return NULL;

        op_look_after_marks(e);
        job->work = (Work) { .run = commit_run, .done = commit_done };
        job->engine = e;
        job->store = e->store;
        job->marks_fd = e->marks_fd;
        job->anew = e->marks_lost;
        job->booted = e->marks_lost && e->boot_done;
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
        job->sync = e->checkpointing;
        job->files_min = e->files_min;
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
                (void) timer_after(e->event, &e->files_timer, FILES_DELAY_US, on_files, e);
}

void op_commit(Engine *e) {
        CommitJob *job;

        if (e->committing || !e->commit.first || e->closing)
                return;

        job = commit_job_new(e);
        if (!job) {
                while (e->commit.first)
                        op_finish(e, op_pop(&e->commit), -ENOMEM, NULL);
                return;
        }

        while (e->commit.first && job->ops.n < ENGINE_COMMIT_MAX) {
                Op *op = op_pop(&e->commit);
                int r = op->phase == OP_INTENT ? job_add_intent(e, job, op) : job_add_final(e, job, op);

                if (r < 0)
                        op_finish(e, op, r, NULL);
                else {
                        job->finals |= op->phase == OP_FINAL;
                        op_push(&job->ops, op);
                }
        }
        commit_submit(e, job);
        if (e->committing == job)
                op_prepare(e, &job->ops);
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
                (void) timer_after(e->event, &e->lazy_timer, delay, on_lazy, e);
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
                (void) timer_after(e->event, &e->checkpoint_timer, CHECKPOINT_DELAY_US, on_checkpoint, e);
        else {
                e->checkpointing = true;
                write_files(e);
        }
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

void op_end_intent(Engine *e, Op *op) {
        StoreEntry entry = { .type = STORE_END, .op = op->id, .uuid = op->uuid };

        if (op->id)
                op_commit_lazily(e, &entry);
        op->id = 0;
}

/* The mark that was set before the first write, when nothing came of it. */
void op_take_back_mark(Engine *e, const Op *op) {
        const Matrix *m = state_find(e, op->uuid);

        if (op->kind == INTENT_DEFINE || op->kind == INTENT_CREATE)
                op_commit_mark(e, op->uuid, MARK_NONE);
        else if (op->kind == INTENT_START)
                op_commit_mark(e, op->uuid, m ? m->mark : MARK_NONE);
}

void op_commit_drain(Engine *e) {
        CommitJob *job;

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
}
