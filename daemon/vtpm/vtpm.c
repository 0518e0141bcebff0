/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of TPMs, read from the disk at the start; requests of one TPM, one after the other. */

#include "vtpm/vtpm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "vtpm/vtpm_internal.h"
#include "vtpm/vtpm_tree.h"

#define MAX_TPMS_DEFAULT 1024
#define UID_BASE_DEFAULT 1900000000
#define WORK_MAX         1024

/* ---- the table ---- */

Tpm *vtpm_find_uuid(Manager *m, Uuid uuid) {
        for (size_t i = 0; i < m->n_tpms; i++)
                if (uuid_equal(m->tpms[i]->record.uuid, uuid))
                        return m->tpms[i];
        return NULL;
}

Tpm *vtpm_find_name(Manager *m, const char *name) {
        for (size_t i = 0; i < m->n_tpms; i++)
                if (strcmp(m->tpms[i]->record.name, name) == 0)
                        return m->tpms[i];
        return NULL;
}

static void tpm_free(Tpm *t) {
        (void) vtpm_watch_end(t->watch);
        vtpm_record_clear(&t->record);
        free(t->device_socket);
        free(t->swtpm_socket);
        free(t->problem);
        free(t);
}

static void take_out(Tpm *t) {
        Manager *m = t->m;

        for (size_t i = 0; i < m->n_tpms; i++)
                if (m->tpms[i] == t) {
                        memmove(m->tpms + i, m->tpms + i + 1, (m->n_tpms - i - 1) * sizeof *m->tpms);
                        m->n_tpms--;
                        return;
                }
}

static void put_in(Tpm *t) {
        Manager *m = t->m;
        size_t i = m->n_tpms++;

        for (; i > 0 && strcmp(m->tpms[i - 1]->record.name, t->record.name) > 0; i--)
                m->tpms[i] = m->tpms[i - 1];
        m->tpms[i] = t;
}

int vtpm_add(Manager *m, VtpmRecord *r, VtpmState state, Tpm **ret) {
        Tpm **tpms = reallocarray(m->tpms, m->n_tpms + 1, sizeof *tpms);
        char uuid[UUID_STRING_SIZE];
        Tpm *t;

        if (!tpms)
                return -ENOMEM;
        m->tpms = tpms;
        t = calloc(1, sizeof *t);
        if (!t)
                return -ENOMEM;

        t->m = m;
        t->state = state;
        uuid_format(r->uuid, uuid);
        if (asprintf(&t->device_socket, "/%s/" VTPM_SOCKETS_DIR "/%s/" VTPM_DEVICE_SOCKET, m->run_path,
                     uuid) < 0)
                t->device_socket = NULL;
        if (asprintf(&t->swtpm_socket, "/%s/" VTPM_SOCKETS_DIR "/%s/" VTPM_SWTPM_SOCKET, m->run_path, uuid) <
            0)
                t->swtpm_socket = NULL;
        if (!t->device_socket || !t->swtpm_socket) {
                tpm_free(t);
                return -ENOMEM;
        }

        t->record = *r;
        *r = (VtpmRecord) {};
        put_in(t);
        *ret = t;
        return 0;
}

void vtpm_rename(Tpm *t) {
        take_out(t);
        put_in(t);
}

void vtpm_tell(Manager *m, Uuid uuid, VtpmChange change) {
        if (m->event_cb && !m->closing)
                m->event_cb(m->userdata, uuid, change);
}

void vtpm_set_state(Tpm *t, VtpmState state, const char *problem) {
        free(t->problem);
        t->problem = problem ? strdup(problem) : NULL;
        t->problems[0] = t->problem;
        t->state = state;
        if (state != VTPM_STARTING && state != VTPM_RUNNING && state != VTPM_STOPPING &&
            state != VTPM_DEGRADED)
                t->model = TPM_MODEL_NONE;
        if ((state == VTPM_RUNNING || state == VTPM_DEGRADED) && t->model == TPM_MODEL_VIRTIO)
                t->watch = vtpm_watch_begin(t->watch, t);
        else
                t->watch = vtpm_watch_end(t->watch);
        vtpm_tell(t->m, t->record.uuid, VTPM_CHANGED);
}

void vtpm_drop(Tpm *t) {
        Uuid uuid = t->record.uuid;
        Manager *m = t->m;

        take_out(t);
        for (Op *op = t->first; op; op = op->next_of_tpm) {
                op->t = NULL;
                if (!op->answered)
                        vtpm_op_finish(op, VTPM_NO_SUCH, "there is no such TPM any more");
        }
        tpm_free(t);
        vtpm_tell(m, uuid, VTPM_REMOVED);
}

int vtpm_open_sockets(Tpm *t, bool make) {
        char uuid[UUID_STRING_SIZE];

        uuid_format(t->record.uuid, uuid);
        if (make)
                return vtpm_dir_open(t->m->sockets_fd, uuid, 0700); /* its group is the launcher's affair */
        return ret_errno(openat(t->m->sockets_fd, uuid, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
}

/* ---- requests ---- */

static void op_free(Op *op) {
        for (Op **p = &op->m->ops; *p; p = &(*p)->next)
                if (*p == op) {
                        *p = op->next;
                        break;
                }
        sd_event_source_disable_unref(op->turn);
        sd_event_source_disable_unref(op->timer);
        (void) vtpm_talk_cancel(op->talk);
        vtpm_record_clear(&op->record);
        fd_close(op->fd);
        if (op->data)
                explicit_bzero(op->data, op->size);
        free(op->data);
        free(op->directory);
        free(op->guest);
        free(op->counters);
        free(op);
}

/* The next request of the same TPM begins. */
static void op_leave(Op *op) {
        Tpm *t = op->t;

        if (!t)
                return;
        for (Op **p = &t->first, *before = NULL; *p; before = *p, p = &(*p)->next_of_tpm)
                if (*p == op) {
                        *p = op->next_of_tpm;
                        if (t->last == op)
                                t->last = before;
                        t->n_ops--;
                        break;
                }
        if (t->first && !t->first->answered)
                (void) sd_event_source_set_enabled(t->first->turn, SD_EVENT_ONESHOT);
}

static void op_answer(Op *op) {
        op_leave(op);
        if (op->counters_done)
                op->counters_done(op->userdata, op->r, op->verdict, op->text, op->counters, op->n_counters);
        else if (op->done)
                op->done(op->userdata, op->r, op->verdict, op->text, op->uuid);
        op_free(op);
}

static int on_turn(sd_event_source *s, void *userdata) {
        Op *op = userdata;

        if (op->answered)
                op_answer(op);
        else if (op->kind == OP_START || op->kind == OP_STOP || op->kind == OP_RESET ||
                 op->kind == OP_COUNTERS || op->kind == OP_RECOVER)
                vtpm_op_begin_run(op);
        else
                vtpm_op_begin_store(op);
        return 0;
}

Op *vtpm_op_new(Manager *m, OpKind kind, vtpm_done_t done, void *userdata) {
        Op *op = calloc(1, sizeof *op);

        if (!op)
                return NULL;
        *op = (Op) {
                .m = m, .kind = kind, .done = done, .userdata = userdata, .fd = -1, .after = VTPM_DEFINED
        };
        if (sd_event_add_defer(m->event, &op->turn, on_turn, op) < 0 ||
            sd_event_source_set_enabled(op->turn, SD_EVENT_OFF) < 0) {
                sd_event_source_disable_unref(op->turn);
                free(op);
                return NULL;
        }
        op->next = m->ops;
        m->ops = op;
        return op;
}

int vtpm_op_submit(Op *op, Tpm *t) {
        if (t && t->n_ops >= VTPM_QUEUE_MAX)
                return vtpm_op_refuse(op, VTPM_LIMIT, "too much is asked of TPM '%s' at once",
                                      t->record.name);

        op->t = t;
        if (t) {
                op->uuid = t->record.uuid;
                if (t->last)
                        t->last->next_of_tpm = op;
                else
                        t->first = op;
                t->last = op;
                t->n_ops++;
        }
        if (!t || t->first == op)
                (void) sd_event_source_set_enabled(op->turn, SD_EVENT_ONESHOT);
        return 0;
}

static void __attribute__((format(printf, 3, 0)))
op_set(Op *op, VtpmVerdict verdict, const char *format, va_list ap) {
        op->answered = true;
        op->verdict = verdict;
        (void) vsnprintf(op->text, sizeof op->text, format, ap);
        (void) sd_event_source_set_enabled(op->turn, SD_EVENT_ONESHOT);
}

void vtpm_op_finish(Op *op, VtpmVerdict verdict, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        op_set(op, verdict, format, ap);
        va_end(ap);
}

void vtpm_op_fail(Op *op, int r) {
        vtpm_op_finish(op, VTPM_UNAVAILABLE, "%s", strerror(-r));
        op->r = r;
}

int vtpm_op_refuse(Op *op, VtpmVerdict verdict, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        op_set(op, verdict, format, ap);
        va_end(ap);
        op->kind = OP_REFUSED;
        return 0;
}

/* ---- questions ---- */

static int vtpm_get(Vtpm *v, Uuid uuid, VtpmView *ret) {
        Tpm *t = vtpm_find_uuid(MANAGER(v), uuid);

        if (!t)
                return -ENOENT;

        *ret = (VtpmView) {
                .uuid = uuid,
                .state = t->state,
                .model = t->model,
                .uid = t->record.uid,
                .device_socket = t->device_socket,
                .swtpm_socket = t->swtpm_socket,
                .problems = t->problems,
        };
        vtpm_record_to_spec(&t->record, &ret->spec);
        return 0;
}

static int vtpm_find(Vtpm *v, const char *name, Uuid *ret) {
        Tpm *t = vtpm_find_name(MANAGER(v), name);
        Uuid uuid;

        if (!t && uuid_parse(name, &uuid) >= 0)
                t = vtpm_find_uuid(MANAGER(v), uuid);
        if (!t)
                return -ENOENT;

        *ret = t->record.uuid;
        return 0;
}

static int vtpm_list(Vtpm *v, Uuid **ret, size_t *ret_n) {
        Manager *m = MANAGER(v);
        Uuid *list;

        list = malloc((m->n_tpms + 1) * sizeof *list);
        if (!list)
                return -ENOMEM;
        for (size_t i = 0; i < m->n_tpms; i++)
                list[i] = m->tpms[i]->record.uuid;

        *ret = list;
        *ret_n = m->n_tpms;
        return 0;
}

static const char *const *vtpm_problems(Vtpm *v) {
        return (const char *const *) MANAGER(v)->problems;
}

/* ---- start and end ---- */

__attribute__((format(printf, 2, 3))) static void add_problem(Manager *m, const char *format, ...) {
        char **problems = reallocarray(m->problems, m->n_problems + 2, sizeof *problems);
        char *text;
        va_list ap;
        int n;

        if (!problems)
                return;
        m->problems = problems;
        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                return;

        log_full(LOG_WARNING, LOG_ID_BAD_RECORD, NULL, "%s", text);
        m->problems[m->n_problems++] = text;
        m->problems[m->n_problems] = NULL;
}

/* A TPM that cannot be used is left as it is, and nothing gets its uuid or its user. */
static void add_foreign(Manager *m, int dir_fd, Uuid uuid, const char *what) {
        uid_t *uids = reallocarray(m->foreign_uids, m->n_foreign + 1, sizeof *uids);
        char text[UUID_STRING_SIZE];
        Uuid *uuids;
        struct stat st = {};

        if (uids)
                m->foreign_uids = uids;
        uuids = reallocarray(m->foreign_uuids, m->n_foreign + 1, sizeof *uuids);
        if (uuids)
                m->foreign_uuids = uuids;
        if (uids && uuids) {
                (void) fstatat(dir_fd, "state", &st, AT_SYMLINK_NOFOLLOW);
                uids[m->n_foreign] = st.st_uid;
                uuids[m->n_foreign++] = uuid;
        }
        add_problem(m, "'" VTPM_STATE_DIR "/" VTPM_TPMS_DIR "/%s/tpm.json' %s; that TPM is left alone",
                    uuid_format(uuid, text), what);
}

static bool has_user(const Manager *m, uid_t uid) {
        for (size_t i = 0; i < m->n_tpms; i++)
                if (m->tpms[i]->record.uid == uid)
                        return true;
        return false;
}

static int load_one(Manager *m, const char *name, Uuid uuid) {
        CLEANUP(vtpm_record_clear) VtpmRecord record = {};
        CLEANUP(fd_closep) int fd = -1;
        CLEANUP(freep) char *text = NULL;
        const char *wrong = NULL;
        Tpm *t;
        int r;

        fd = openat(m->tpms_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) {
                add_foreign(m, -1, uuid, strerror(errno));
                return 0;
        }
        r = vtpm_record_load(fd, "tpm.json", &record, &text);
        if (r == -ENOMEM)
                return r;
        if (r < 0)
                wrong = text ? text : strerror(-r);
        else if (!uuid_equal(record.uuid, uuid))
                wrong = "is another TPM's";
        else if (vtpm_find_name(m, record.name))
                wrong = "has the name of another TPM";
        else if (record.uid <= m->uid_base)
                wrong = "names a user that no TPM can have";
        else if (has_user(m, record.uid))
                wrong = "has the user of another TPM";
        if (wrong) {
                add_foreign(m, fd, uuid, wrong);
                return 0;
        }
        return vtpm_add(m, &record, VTPM_DEFINED, &t);
}

void vtpm_load(Manager *m, Uuid uuid) {
        char name[UUID_STRING_SIZE];

        uuid_format(uuid, name);
        if (vtpm_find_uuid(m, uuid) || faccessat(m->tpms_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
                return;
        if (load_one(m, name, uuid) >= 0 && vtpm_find_uuid(m, uuid))
                vtpm_tell(m, uuid, VTPM_ADDED);
}

/* The uuid of what a job has left, beside the TPMs. */
static bool is_leftover(const char *name, Uuid *ret) {
        static const char *const prefixes[] = { VTPM_NEW_PREFIX, VTPM_GONE_PREFIX };

        for (size_t i = 0; i < ELEMENTS(prefixes); i++)
                if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0 &&
                    uuid_parse(name + strlen(prefixes[i]), ret) >= 0)
                        return true;
        return false;
}

static int for_each(int dir_fd, Manager *m, int (*each)(Manager *m, const char *name)) {
        CLEANUP(closedirp) DIR *d = NULL;
        int fd, r = 0;

        fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        d = fd >= 0 ? fdopendir(fd) : NULL;
        if (!d)
                return -errno;
        for (struct dirent *e; r >= 0 && (errno = 0, e = readdir(d));)
                r = each(m, e->d_name);
        return r;
}

static int load_entry(Manager *m, const char *name) {
        Uuid uuid;

        return uuid_parse(name, &uuid) >= 0 ? load_one(m, name, uuid) : 0;
}

/* What such a job may yet make has its name and its user already. */
static int reserve(Manager *m, const char *name, Uuid uuid) {
        CLEANUP(vtpm_job_request_clear) VtpmJobRequest q = {};
        CLEANUP(fd_closep) int fd = -1;
        Tpm *t;

        fd = openat(m->jobs_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || vtpm_job_request_load(fd, &q) < 0 || !q.record.name ||
            !uuid_equal(q.record.uuid, uuid))
                return 0; /* it has not begun */
        if (q.kind != VTPM_JOB_DEFINE && q.kind != VTPM_JOB_RESTORE && q.kind != VTPM_JOB_IMPORT &&
            q.kind != VTPM_JOB_CLEAN)
                return 0;
        if (vtpm_find_uuid(m, uuid) || vtpm_find_name(m, q.record.name) || has_user(m, q.record.uid))
                return 0;
        return vtpm_add(m, &q.record, VTPM_CREATING, &t);
}

/* Jobs of a daemon before us may still be at work; they are waited for before anything else is done with their TPM. */
static int clean_entry(Manager *m, const char *name) {
        Uuid uuid;
        int r;

        if (uuid_parse(name, &uuid) < 0)
                return 0;
        r = reserve(m, name, uuid);
        return r < 0 ? r : vtpm_clean(m, uuid);
}

static int clean_leftover(Manager *m, const char *name) {
        Uuid uuid;

        return is_leftover(name, &uuid) ? vtpm_clean(m, uuid) : 0;
}

static int load_all(Manager *m) {
        int r;

        r = for_each(m->tpms_fd, m, load_entry);
        if (r >= 0)
                r = for_each(m->jobs_fd, m, clean_entry);
        return r < 0 ? r : for_each(m->tpms_fd, m, clean_leftover);
}

static int open_directories(Manager *m, const VtpmConfig *c) {
        m->root_fd = fcntl(c->root_fd, F_DUPFD_CLOEXEC, 3);
        if (m->root_fd < 0)
                return -errno;
        if ((m->state_fd = file_open_dir(m->root_fd, c->state_dir)) < 0)
                return m->state_fd;
        if ((m->tpms_fd = vtpm_dir_open(m->state_fd, VTPM_TPMS_DIR, 0700)) < 0)
                return m->tpms_fd;
        if ((m->run_fd = file_open_dir(m->root_fd, c->run_dir)) < 0)
                return m->run_fd;
        /* QEMU passes through here */
        if ((m->sockets_fd = vtpm_dir_open(m->run_fd, VTPM_SOCKETS_DIR, 0711)) < 0)
                return m->sockets_fd;
        m->jobs_fd = vtpm_dir_open(m->run_fd, VTPM_JOBS_DIR, 0700);
        return m->jobs_fd;
}

static void find_group(Manager *m, const char *name) {
        const struct group *g;

        if (!name || !*name)
                return;
        g = getgrnam(name);
        if (g)
                m->group = g->gr_gid;
        else
                add_problem(m, "there is no group '%s': QEMU cannot get to its TPMs unless it runs as root",
                            name);
}

static void manager_free(Vtpm *v) {
        Manager *m = MANAGER(v);

        m->closing = true;
        m->worker = worker_free(m->worker);
        m->runner = vtpm_runner_free(m->runner);
        while (m->ops)
                op_free(m->ops);
        for (size_t i = 0; i < m->n_tpms; i++)
                tpm_free(m->tpms[i]);
        free(m->tpms);
        for (size_t i = 0; i < m->n_problems; i++)
                free(m->problems[i]);
        free(m->problems);
        free(m->foreign_uids);
        free(m->foreign_uuids);
        free(m->run_path);
        fd_close(m->jobs_fd);
        fd_close(m->sockets_fd);
        fd_close(m->run_fd);
        fd_close(m->tpms_fd);
        fd_close(m->state_fd);
        fd_close(m->root_fd);
        sd_event_unref(m->event);
        free(m);
}

static const VtpmOps vtpm_ops = {
        .define = vtpm_define,
        .start = vtpm_start,
        .stop = vtpm_stop,
        .reset = vtpm_reset,
        .undefine = vtpm_undefine,
        .set_guest = vtpm_set_guest,
        .backup = vtpm_backup,
        .restore = vtpm_restore,
        .import = vtpm_import,
        .counters = vtpm_counters,
        .get = vtpm_get,
        .find = vtpm_find,
        .list = vtpm_list,
        .problems = vtpm_problems,
        .free = manager_free,
};

int vtpm_new(sd_event *event, const VtpmConfig *config, vtpm_event_t event_cb, void *userdata, Vtpm **ret) {
        Manager *m = calloc(1, sizeof *m);
        int r;

        if (!m)
                return -ENOMEM;
        *m = (Manager) {
                .vtpm.ops = &vtpm_ops,
                .event = sd_event_ref(event),
                .root_fd = -1,
                .state_fd = -1,
                .tpms_fd = -1,
                .run_fd = -1,
                .sockets_fd = -1,
                .jobs_fd = -1,
                .uid_base = config->uid_base ? config->uid_base : UID_BASE_DEFAULT,
                .max_tpms = config->max_tpms ? config->max_tpms : MAX_TPMS_DEFAULT,
                .run_path = strdup(config->run_dir),
                .problems = calloc(1, sizeof *m->problems),
                .event_cb = event_cb,
                .userdata = userdata,
        };
        r = m->run_path && m->problems ? open_directories(m, config) : -ENOMEM;
        if (r >= 0)
                r = worker_new(event, WORK_MAX, &m->worker);
        if (r >= 0)
                r = config->units ? vtpm_unit_new(event, config->units, &vtpm_runner_events, m, &m->runner)
                                  : vtpm_child_new(event, m->root_fd, m->run_fd, config->launcher,
                                                   &vtpm_runner_events, m, &m->runner);
        if (r >= 0) {
                find_group(m, config->group);
                r = load_all(m);
        }
        for (size_t i = 0; r >= 0 && i < m->n_tpms; i++)
                r = vtpm_adopt(m->tpms[i]);
        if (r < 0) {
                manager_free(&m->vtpm);
                return r;
        }

        *ret = &m->vtpm;
        return 0;
}

Vtpm *vtpm_free(Vtpm *v) {
        if (v)
                v->ops->free(v);
        return NULL;
}
