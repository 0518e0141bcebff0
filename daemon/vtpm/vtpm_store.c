/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Requests that make, change and remove TPMs on disk. What needs rights is done by a job; what may block, by the worker. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "store/store.h"
#include "vtpm/vtpm_internal.h"
#include "vtpm/vtpm_tree.h"

#define JOB_US       (180 * UINT64_C(1000000)) /* longer than what it waits for itself */
#define COPY_US      (30 * UINT64_C(1000000))  /* to or from a client's descriptor */
#define COPY_AT_ONCE 4096                      /* a pipe that is ready takes that much without blocking */

/* ---- jobs ---- */

static int save_request(Op *op, int job_fd) {
        VtpmJobRequest q = { .kind = op->job, .directory = op->directory, .uid_base = op->m->uid_base };
        int r;

        if (op->t)
                q.record = op->t->record;
        if (unlinkat(job_fd, "result.json", 0) < 0 && errno != ENOENT)
                return -errno;
        r = vtpm_job_request_save(job_fd, &q);
        if (r >= 0 && op->job == VTPM_JOB_RESTORE)
                r = file_write_synced(job_fd, "backup", (char *) op->data, op->size);
        return r;
}

static void jobs_next(Manager *m);

static void on_job_done(void *userdata, int r, const char *text) {
        CLEANUP(fd_closep) int job_fd = -1;
        CLEANUP(freep) char *words = NULL;
        char uuid[UUID_STRING_SIZE];
        Op *op = userdata;
        Manager *m = op->m;

        uuid_format(op->uuid, uuid);
        job_fd = openat(m->jobs_fd, uuid, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (job_fd >= 0 && vtpm_job_result_load(job_fd, &op->verdict, &words) >= 0)
                (void) snprintf(op->text, sizeof op->text, "%s", words);
        else {
                op->job_died = true;
                op->verdict = r == -ETIME ? VTPM_TIMEOUT : VTPM_TOOL;
                (void) snprintf(op->text, sizeof op->text, "%s", r < 0 ? strerror(-r) : text);
        }
        if (op->verdict == VTPM_DONE && op->job == VTPM_JOB_BACKUP) {
                CLEANUP(freep) char *data = NULL;

                r = file_read_at(job_fd, "backup", VTPM_BACKUP_MAX, &data, &op->size);
                op->data = (uint8_t *) TAKE(data);
                if (r < 0) {
                        op->verdict = VTPM_UNAVAILABLE;
                        (void) snprintf(op->text, sizeof op->text, "the backup: %s", strerror(-r));
                }
        }
        (void) vtpm_tree_remove(m->jobs_fd, uuid);

        m->jobs_running--;
        op->job_runs = false;
        op->job_done(op);
        jobs_next(m);
}

static int job_start(Op *op) {
        CLEANUP(fd_closep) int job_fd = -1;
        char uuid[UUID_STRING_SIZE];
        int r;

        job_fd = vtpm_dir_open(op->m->jobs_fd, uuid_format(op->uuid, uuid), 0700);
        r = job_fd < 0 ? job_fd : save_request(op, job_fd);
        if (r >= 0)
                r = op->m->runner->ops->start(op->m->runner, VTPM_ROLE_JOB, op->uuid, JOB_US, on_job_done,
                                              op);
        return r;
}

/* The oldest that can begin: one job for each TPM at a time. */
static Op *job_take(Manager *m) {
        for (Op **p = &m->jobs; *p; p = &(*p)->next_job) {
                Op *op = *p, *other;

                for (other = m->ops; other; other = other->next)
                        if (other->job_runs && uuid_equal(other->uuid, op->uuid))
                                break;
                if (!other) {
                        *p = op->next_job;
                        return op;
                }
        }
        return NULL;
}

static void jobs_next(Manager *m) {
        Op *op;
        int r;

        while (!m->closing && m->jobs_running < VTPM_JOBS_MAX && (op = job_take(m))) {
                r = job_start(op);
                if (r >= 0) {
                        op->job_runs = true;
                        m->jobs_running++;
                        continue;
                }
                op->verdict = VTPM_UNAVAILABLE;
                (void) snprintf(op->text, sizeof op->text, "cannot start a job: %s", strerror(-r));
                op->job_done(op);
        }
}

void vtpm_op_run_job(Op *op, VtpmJobKind job, void (*job_done)(Op *op)) {
        Op **p = &op->m->jobs;

        op->job = job;
        op->job_done = job_done;
        op->next_job = NULL;
        while (*p)
                p = &(*p)->next_job;
        *p = op;
        jobs_next(op->m);
}

void vtpm_op_renew(Op *op, void (*job_done)(Op *op)) {
        vtpm_op_run_job(op, VTPM_JOB_RENEW, job_done);
}

/* The job may know better, for instance where the key came from. */
static void take_as_made(Tpm *t) {
        CLEANUP(vtpm_record_clear) VtpmRecord record = {};
        CLEANUP(freep) char *text = NULL;
        char path[VTPM_PATH_SIZE], uuid[UUID_STRING_SIZE];

        (void) snprintf(path, sizeof path, "%s/tpm.json", uuid_format(t->record.uuid, uuid));
        if (vtpm_record_load(t->m->tpms_fd, path, &record, &text) >= 0)
                t->record.key = record.key;
        vtpm_set_state(t, VTPM_DEFINED, NULL);
}

/* A job of a daemon before us has ended, too: is the TPM there, or not? */
static void on_cleaned(Op *op) {
        char name[UUID_STRING_SIZE];
        Tpm *t = op->t;

        if (op->verdict != VTPM_DONE)
                log_warning("What a job has left cannot be removed: %s", op->text);
        vtpm_op_finish(op, VTPM_DONE, "%s", "");
        if (!t)
                vtpm_load(op->m, op->uuid);
        else if (faccessat(op->m->tpms_fd, uuid_format(op->uuid, name), F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
                 errno == ENOENT) {
                op->t = NULL;
                t->first = op->next_of_tpm;
                vtpm_drop(t);
        } else if (t->state == VTPM_CREATING)
                take_as_made(t);
}

int vtpm_clean(Manager *m, Uuid uuid) {
        Op *op = vtpm_op_new(m, OP_CLEAN, NULL, NULL);

        if (!op)
                return -ENOMEM;
        op->uuid = uuid;
        return vtpm_op_submit(op, vtpm_find_uuid(m, uuid));
}

/* ---- new ones ---- */

/* Its words are @op's already. */
static void op_finish_as_told(Op *op) {
        char text[VTPM_TEXT_MAX];

        memcpy(text, op->text, sizeof text);
        vtpm_op_finish(op, op->verdict, "%s", text);
}

static void on_created(Op *op) {
        Tpm *t = op->t;

        op_finish_as_told(op);
        if (op->verdict == VTPM_DONE) {
                take_as_made(t);
                return;
        }

        op->t = NULL;
        t->first = op->next_of_tpm;
        vtpm_drop(t);
        if (op->verdict == VTPM_EXISTS)
                vtpm_load(op->m, op->uuid); /* made for a daemon that did not live to see it */
        else if (op->job_died && vtpm_clean(op->m, op->uuid) < 0)
                log_warning("What the job has left stays until the next start");
}

static bool uid_is_taken(Manager *m, uid_t uid) {
        for (size_t i = 0; i < m->n_tpms; i++)
                if (m->tpms[i]->record.uid == uid)
                        return true;
        for (size_t i = 0; i < m->n_foreign; i++)
                if (m->foreign_uids[i] == uid)
                        return true;
        return false;
}

static bool is_foreign(Manager *m, Uuid uuid) {
        for (size_t i = 0; i < m->n_foreign; i++)
                if (uuid_equal(m->foreign_uuids[i], uuid))
                        return true;
        return false;
}

/* One that would be taken for it, or it for that, by who asks for "a name or UUID"; or NULL. */
static const Tpm *find_mistakable(Manager *m, const VtpmRecord *r) {
        Uuid uuid;

        if (uuid_parse(r->name, &uuid) >= 0 && vtpm_find_uuid(m, uuid))
                return vtpm_find_uuid(m, uuid);
        for (size_t i = 0; i < m->n_tpms; i++)
                if (uuid_parse(m->tpms[i]->record.name, &uuid) >= 0 && uuid_equal(uuid, r->uuid))
                        return m->tpms[i];
        return NULL;
}

/* Gives op->record a uuid and a user, and the TPM a place in the table; @job makes it. 0 or -errno, op is answered or goes on. */
static int create(Op *op, VtpmJobKind job) {
        Manager *m = op->m;
        VtpmRecord *record = &op->record;
        const Tpm *other;
        Tpm *t;
        int r;

        if (uuid_is_null(record->uuid)) {
                r = uuid_random(&record->uuid);
                if (r < 0)
                        return r;
        }
        op->uuid = record->uuid;
        if (vtpm_find_name(m, record->name))
                return vtpm_op_refuse(op, VTPM_EXISTS, "there is a TPM '%s' already", record->name);
        if (vtpm_find_uuid(m, record->uuid))
                return vtpm_op_refuse(op, VTPM_EXISTS, "there is a TPM with that uuid already");
        other = find_mistakable(m, record);
        if (other)
                return vtpm_op_refuse(op, VTPM_EXISTS,
                                      "its name is the UUID of TPM '%s', or the other way round",
                                      other->record.name);
        if (is_foreign(m, record->uuid))
                return vtpm_op_refuse(op, VTPM_BAD_RECORD,
                                      "a TPM with that uuid is there, but cannot be read");
        if (m->n_tpms >= m->max_tpms)
                return vtpm_op_refuse(op, VTPM_LIMIT, "there are %zu TPMs already, and no more are allowed",
                                      m->n_tpms);

        for (record->uid = m->uid_base + 1; uid_is_taken(m, record->uid);)
                record->uid++;
        r = vtpm_add(m, record, VTPM_CREATING, &t);
        if (r < 0)
                return r;
        op->job = job;
        (void) vtpm_op_submit(op, t);
        vtpm_tell(m, op->uuid, VTPM_ADDED);
        return 0;
}

/* Reads @spec into op->record. */
static int take_spec(Op *op, const VtpmSpec *spec) {
        CLEANUP(freep) char *text = NULL;
        int r;

        r = vtpm_record_from_spec(spec, &op->record, &text);
        if (r == VTPM_INVALID) {
                (void) vtpm_op_refuse(op, VTPM_INVALID, "%s", text);
                return 1;
        }
        return r;
}

/* A call that broke before it was accepted leaves nothing. */
static int give_back(Op *op, int r) {
        if (r < 0)
                vtpm_op_fail(op, r); /* answered from the loop: the call itself is accepted all the same */
        return 0;
}

int vtpm_define(Vtpm *v, const VtpmSpec *spec, vtpm_done_t done, void *userdata) {
        Op *op = vtpm_op_new(MANAGER(v), OP_DEFINE, done, userdata);
        int r;

        if (!op)
                return -ENOMEM;
        r = take_spec(op, spec);
        return r != 0 ? give_back(op, r) : give_back(op, create(op, VTPM_JOB_DEFINE));
}

int vtpm_import(Vtpm *v, const char *directory, const VtpmSpec *spec, vtpm_done_t done, void *userdata) {
        Op *op = vtpm_op_new(MANAGER(v), OP_IMPORT, done, userdata);
        int r;

        if (!op)
                return -ENOMEM;
        if (directory[0] != '/')
                return vtpm_op_refuse(op, VTPM_INVALID, "the directory has to be an absolute path");
        if (spec->ephemeral || (spec->encrypted && !spec->key_file))
                return vtpm_op_refuse(op, VTPM_INVALID,
                                      "a state that is imported is kept, and has the key that it has");
        op->directory = strdup(directory);
        r = op->directory ? take_spec(op, spec) : -ENOMEM;
        return r != 0 ? give_back(op, r) : give_back(op, create(op, VTPM_JOB_IMPORT));
}

/* ---- a client's descriptor ---- */

/* A client that neither reads nor writes must not keep the worker. */
static int wait_for(int fd, short events, uint64_t until) {
        uint64_t now = clock_now_us();
        struct pollfd p = { .fd = fd, .events = events };
        int n;

        if (now >= until)
                return -ETIME;
        n = poll(&p, 1, (int) ((until - now) / 1000 + 1));
        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        return n > 0 ? 0 : -ETIME;
}

static int run_write(Work *w) {
        Op *op = CONTAINER_OF(w, Op, work);
        uint64_t until = clock_now_us() + COPY_US;
        size_t done = 0;
        int r;

        while (done < op->size) {
                ssize_t n;

                r = wait_for(op->fd, POLLOUT, until);
                if (r < 0)
                        return r;
                n = write(op->fd, op->data + done, MIN(op->size - done, (size_t) COPY_AT_ONCE));
                if (n < 0 && errno != EINTR && errno != EAGAIN)
                        return -errno;
                done += n > 0 ? (size_t) n : 0;
        }
        return fsync(op->fd) < 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP ? -errno : 0;
}

static int run_read(Work *w) {
        Op *op = CONTAINER_OF(w, Op, work);
        uint64_t until = clock_now_us() + COPY_US;
        ssize_t n;
        int r;

        op->data = malloc(VTPM_BACKUP_MAX + 1);
        if (!op->data)
                return -ENOMEM;
        do {
                r = wait_for(op->fd, POLLIN, until);
                if (r < 0)
                        return r;
                n = read(op->fd, op->data + op->size, VTPM_BACKUP_MAX + 1 - op->size);
                if (n < 0 && errno != EINTR && errno != EAGAIN)
                        return -errno;
                op->size += n > 0 ? (size_t) n : 0;
        } while (n != 0 && op->size <= VTPM_BACKUP_MAX);
        return 0;
}

static void submit_work(Op *op, int (*run)(Work *w), void (*done)(Work *w, int r)) {
        int r;

        op->work = (Work) { .run = run, .done = done };
        r = worker_submit(op->m->worker, &op->work);
        if (r < 0)
                vtpm_op_finish(op, VTPM_LIMIT, "too much is asked of the disk at once");
}

/* ---- backup and restore ---- */

static void on_written(Work *w, int r) {
        Op *op = CONTAINER_OF(w, Op, work);

        if (r < 0)
                vtpm_op_finish(op, r == -ETIME ? VTPM_TIMEOUT : VTPM_UNAVAILABLE,
                               "cannot write the backup: %s", strerror(-r));
        else
                vtpm_op_finish(op, VTPM_DONE, "%s", "");
}

static void on_backed_up(Op *op) {
        if (op->verdict == VTPM_DONE)
                submit_work(op, run_write, on_written);
        else
                op_finish_as_told(op);
}

static Op *request(Vtpm *v, Uuid uuid, OpKind kind, vtpm_done_t done, void *userdata, Tpm **ret_t) {
        Op *op = vtpm_op_new(MANAGER(v), kind, done, userdata);

        *ret_t = vtpm_find_uuid(MANAGER(v), uuid);
        if (op)
                op->uuid = uuid;
        return op;
}

int vtpm_backup(Vtpm *v, Uuid uuid, int fd, vtpm_done_t done, void *userdata) {
        Tpm *t;
        Op *op = request(v, uuid, OP_BACKUP, done, userdata, &t);

        if (!op)
                return -ENOMEM;
        if (!t)
                return vtpm_op_refuse(op, VTPM_NO_SUCH, "there is no such TPM");
        op->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return op->fd < 0 ? give_back(op, -errno) : vtpm_op_submit(op, t);
}

/* What the client gave back is known: is it a TPM? */
static void on_read(Work *w, int r) {
        Op *op = CONTAINER_OF(w, Op, work);
        CLEANUP(vtpm_record_clear) VtpmRecord record = {}, wish = op->record;
        CLEANUP(vtpm_backup_clear) VtpmBackup b = {};
        CLEANUP(freep) char *text = NULL;
        const char *wrong = NULL;

        op->record = (VtpmRecord) {};
        if (op->m->closing)
                return;
        if (r < 0) {
                vtpm_op_finish(op, r == -ETIME ? VTPM_TIMEOUT : VTPM_UNAVAILABLE,
                               "cannot read the backup: %s", strerror(-r));
                return;
        }

        r = vtpm_backup_read(op->data, op->size, &b, &wrong);
        if (r >= 0)
                r = vtpm_record_from_json((char *) vtpm_backup_find(&b, "tpm.json")->data, &record, &text);
        if (r == -EBADMSG)
                vtpm_op_finish(op, VTPM_BAD_RECORD, "%s%s", text ? "its tpm.json " : "",
                               text ? text : wrong);
        else if (r < 0)
                vtpm_op_fail(op, r);
        if (r < 0)
                return;

        if (wish.name) {
                free(record.name);
                record.name = TAKE(wish.name);
        }
        if (wish.guest) {
                free(record.guest);
                record.guest = TAKE(wish.guest);
                record.guest_uuid = (Uuid) {};
        }
        if (!uuid_is_null(wish.uuid))
                record.uuid = wish.uuid;
        record.owner = wish.owner;
        op->record = record;
        record = (VtpmRecord) {};
        r = create(op, VTPM_JOB_RESTORE);
        if (r < 0)
                vtpm_op_fail(op, r);
}

int vtpm_restore(Vtpm *v, int fd, const VtpmSpec *spec, vtpm_done_t done, void *userdata) {
        Op *op = vtpm_op_new(MANAGER(v), OP_RESTORE, done, userdata);

        if (!op)
                return -ENOMEM;
        if (spec->name && !record_name_is_valid(spec->name))
                return vtpm_op_refuse(op, VTPM_INVALID, "that is no name for a TPM");
        if (spec->guest && !record_guest_is_valid(spec->guest))
                return vtpm_op_refuse(op, VTPM_INVALID, "that is no name of a guest");

        op->record.uuid = spec->uuid;
        op->record.owner = spec->owner;
        op->record.name = spec->name ? strdup(spec->name) : NULL;
        op->record.guest = spec->guest ? strdup(spec->guest) : NULL;
        if ((spec->name && !op->record.name) || (spec->guest && !op->record.guest))
                return give_back(op, -ENOMEM);
        op->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return op->fd < 0 ? give_back(op, -errno) : vtpm_op_submit(op, NULL);
}

/* ---- changes ---- */

static void on_removed(Op *op) {
        Tpm *t = op->t;

        op_finish_as_told(op);
        if (op->verdict != VTPM_DONE)
                return;
        op->t = NULL;
        t->first = op->next_of_tpm;
        vtpm_drop(t);
}

int vtpm_undefine(Vtpm *v, Uuid uuid, bool wipe, vtpm_done_t done, void *userdata) {
        Tpm *t;
        Op *op = request(v, uuid, OP_UNDEFINE, done, userdata, &t);

        if (!op)
                return -ENOMEM;
        if (!t)
                return vtpm_op_refuse(op, VTPM_NO_SUCH, "there is no such TPM");
        op->wipe = wipe;
        return vtpm_op_submit(op, t);
}

static int run_set_guest(Work *w) {
        Op *op = CONTAINER_OF(w, Op, work);
        char uuid[UUID_STRING_SIZE];
        CLEANUP(fd_closep)
        int fd = openat(op->m->tpms_fd, uuid_format(op->uuid, uuid),
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        return fd < 0 ? -errno : file_replace(fd, "tpm.json", (char *) op->data, op->size);
}

static void on_guest_set(Work *w, int r) {
        Op *op = CONTAINER_OF(w, Op, work);
        Tpm *t = op->t;

        if (r < 0) {
                vtpm_op_finish(op, VTPM_UNAVAILABLE, "cannot write the definition: %s", strerror(-r));
                return;
        }
        vtpm_op_finish(op, VTPM_DONE, "%s", "");
        if (!t)
                return;
        free(t->record.guest);
        t->record.guest = TAKE(op->guest);
        t->record.guest_uuid = op->guest_uuid;
        vtpm_tell(op->m, op->uuid, VTPM_CHANGED);
}

static void begin_set_guest(Op *op) {
        CLEANUP(vtpm_record_clear) VtpmRecord copy = {};
        char *json = NULL;
        int r;

        r = vtpm_record_copy(&op->t->record, &copy);
        if (r >= 0) {
                free(copy.guest);
                copy.guest = op->guest;
                copy.guest_uuid = op->guest_uuid;
                r = vtpm_record_to_json(&copy, &json);
                copy.guest = NULL;
        }
        if (r < 0) {
                vtpm_op_fail(op, r);
                return;
        }
        op->data = (uint8_t *) json;
        op->size = strlen(json);
        submit_work(op, run_set_guest, on_guest_set);
}

int vtpm_set_guest(Vtpm *v, Uuid uuid, const char *guest, Uuid guest_uuid, vtpm_done_t done,
                   void *userdata) {
        Tpm *t;
        Op *op = request(v, uuid, OP_SET_GUEST, done, userdata, &t);

        if (!op)
                return -ENOMEM;
        if (!t)
                return vtpm_op_refuse(op, VTPM_NO_SUCH, "there is no such TPM");
        if (guest && !record_guest_is_valid(guest))
                return vtpm_op_refuse(op, VTPM_INVALID, "that is no name of a guest");
        op->guest = guest ? strdup(guest) : NULL;
        op->guest_uuid = guest ? guest_uuid : (Uuid) {};
        return guest && !op->guest ? give_back(op, -ENOMEM) : vtpm_op_submit(op, t);
}

/* ---- their turn ---- */

static bool is_at_rest(const Tpm *t) {
        return t->state == VTPM_DEFINED || t->state == VTPM_FAILED;
}

void vtpm_op_begin_store(Op *op) {
        Tpm *t = op->t;

        switch (op->kind) {
        case OP_DEFINE:
        case OP_IMPORT:
                vtpm_op_run_job(op, op->job, on_created);
                break;
        case OP_RESTORE:
                if (t)
                        vtpm_op_run_job(op, op->job, on_created);
                else
                        submit_work(op, run_read, on_read);
                break;
        case OP_CLEAN:
                vtpm_op_run_job(op, VTPM_JOB_CLEAN, on_cleaned);
                break;
        case OP_SET_GUEST:
                begin_set_guest(op);
                break;
        case OP_BACKUP:
                if (!is_at_rest(t))
                        vtpm_op_finish(op, VTPM_BAD_STATE,
                                       "TPM '%s' is %s; it can be backed up while it does not run",
                                       t->record.name, vtpm_state_name(t->state));
                else
                        vtpm_op_run_job(op, VTPM_JOB_BACKUP, on_backed_up);
                break;
        case OP_UNDEFINE:
                if (!is_at_rest(t))
                        vtpm_op_finish(op, VTPM_BAD_STATE, "TPM '%s' is %s; stop it first", t->record.name,
                                       vtpm_state_name(t->state));
                else if (!op->wipe && !t->record.ephemeral)
                        vtpm_op_finish(
                                op, VTPM_BAD_STATE,
                                "TPM '%s' has state, which would be lost for good: say that it is to be wiped",
                                t->record.name);
                else
                        vtpm_op_run_job(op, VTPM_JOB_REMOVE, on_removed);
                break;
        default:
                vtpm_op_fail(op, -EINVAL);
        }
}
