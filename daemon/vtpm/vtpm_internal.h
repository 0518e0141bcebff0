/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The parts of vtpm among themselves: vtpm.c (the table of TPMs, requests in turn), vtpm_store.c (requests that change what is on disk),
 * vtpm_run.c (what runs). */

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/worker.h"
#include "vtpm/vtpm.h"
#include "vtpm/vtpm_backup.h"
#include "vtpm/vtpm_process.h"
#include "vtpm/vtpm_record.h"
#include "vtpm/vtpm_runner.h"
#include "vtpm/vtpm_talk.h"

#define VTPM_QUEUE_MAX    16                       /* requests of one TPM that wait */
#define VTPM_JOBS_MAX     4                        /* at once: swtpm_setup is all computing */
#define VTPM_RESTARTS_MAX 5                        /* of its processes, ... */
#define VTPM_RESTARTS_US  (60 * UINT64_C(1000000)) /* ... in this time */
#define VTPM_TEXT_MAX     640

typedef struct Manager Manager;
typedef struct Tpm Tpm;
typedef struct Op Op;
typedef struct VtpmWatch VtpmWatch;

typedef enum OpKind {
        OP_DEFINE,
        OP_RESTORE,
        OP_IMPORT,
        OP_START,
        OP_STOP,
        OP_RESET,
        OP_UNDEFINE,
        OP_SET_GUEST,
        OP_BACKUP,
        OP_COUNTERS,
        OP_RECOVER, /* ours: a process has ended, or was found to have */
        OP_CLEAN,   /* ours: what a job has left */
        OP_REFUSED, /* was never begun */
        _OP_MAX
} OpKind;

/* A request from its acceptance to its answer. */
struct Op {
        Manager *m;
        Op *next, *next_of_tpm, *next_job;
        OpKind kind;
        Tpm *t; /* NULL: of none (yet) */
        Uuid uuid;
        vtpm_done_t done;
        vtpm_counters_t counters_done;
        void *userdata;
        sd_event_source *turn; /* begins or answers it, from the loop */
        bool answered;
        int r;
        VtpmVerdict verdict;
        char text[VTPM_TEXT_MAX];

        /* its own */
        TpmModel model;
        bool wipe;
        int fd;
        VtpmRecord record;
        char *directory, *guest;
        Uuid guest_uuid;
        uint8_t *data;
        size_t size;
        VtpmJobKind job;
        bool job_runs;
        bool job_died; /* it left no word */
        void (*job_done)(Op *op);
        VtpmTalk *talk;
        sd_event_source *timer;
        unsigned tries;
        Work work;
        bool swtpm_new, device_new; /* recovery: begun by it; the device without what it had */
        VtpmState after;            /* stop: what it is then, ... */
        VtpmVerdict why_verdict;    /* ... and, after something else than a request to stop, why */
        char why[VTPM_TEXT_MAX];
        VtpmCounter *counters;
        size_t n_counters;
};

struct Tpm {
        Manager *m;
        VtpmRecord record;
        VtpmState state;
        TpmModel model;
        bool swtpm_up, device_up, device_kept; /* kept: it ended, and its descriptors are here */
        bool failed, lost; /* the device's TPM, as was seen last; and it was given no other swtpm since */
        VtpmWatch *watch;  /* of a virtio device that runs */
        char *device_socket, *swtpm_socket;
        char *problem;
        const char *problems[2];
        Op *first, *last; /* the first one is under way */
        size_t n_ops;
        uint64_t restarts_since;
        unsigned restarts;
};

struct Manager {
        Vtpm vtpm;
        sd_event *event;
        int root_fd, state_fd, tpms_fd, run_fd, sockets_fd, jobs_fd;
        char *run_path; /* of RUN, from the root on */
        gid_t group;
        uid_t uid_base;
        unsigned max_tpms;
        bool closing;
        VtpmRunner *runner;
        Worker *worker;
        vtpm_event_t event_cb;
        void *userdata;

        Tpm **tpms; /* in order of name */
        size_t n_tpms;
        uid_t *foreign_uids; /* of what could not be read: not given away */
        Uuid *foreign_uuids;
        size_t n_foreign;
        char **problems; /* NULL-terminated */
        size_t n_problems;

        Op *ops;
        Op *jobs; /* that wait, the oldest first */
        unsigned jobs_running;
};

#define MANAGER(v) CONTAINER_OF(v, Manager, vtpm)

/* ---- vtpm.c ---- */

Tpm *vtpm_find_uuid(Manager *m, Uuid uuid);
Tpm *vtpm_find_name(Manager *m, const char *name);
/* Takes @r. */
int vtpm_add(Manager *m, VtpmRecord *r, VtpmState state, Tpm **ret);
/* One that has appeared on disk, if it has. */
void vtpm_load(Manager *m, Uuid uuid);
/* Requests that wait are answered: there is no such TPM. */
void vtpm_drop(Tpm *t);
void vtpm_rename(Tpm *t); /* keeps the order */
/* @problem NULL: there is none. Tells everybody. */
void vtpm_set_state(Tpm *t, VtpmState state, const char *problem);
void vtpm_tell(Manager *m, Uuid uuid, VtpmChange change);

/* A request that is accepted: begins in its turn. 0 or -errno (@op is gone then). */
Op *vtpm_op_new(Manager *m, OpKind kind, vtpm_done_t done, void *userdata);
int vtpm_op_submit(Op *op, Tpm *t);
/* Answered, from the loop. */
void vtpm_op_finish(Op *op, VtpmVerdict verdict, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
void vtpm_op_fail(Op *op, int r); /* -errno */
/* For a request that comes to nothing: accepts it, to be answered so. */
int vtpm_op_refuse(Op *op, VtpmVerdict verdict, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* The TPM's directory of sockets; made if @make. A descriptor or -errno. */
int vtpm_open_sockets(Tpm *t, bool make);

/* ---- vtpm_store.c ---- */

int vtpm_define(Vtpm *v, const VtpmSpec *spec, vtpm_done_t done, void *userdata);
int vtpm_restore(Vtpm *v, int fd, const VtpmSpec *spec, vtpm_done_t done, void *userdata);
int vtpm_import(Vtpm *v, const char *directory, const VtpmSpec *spec, vtpm_done_t done, void *userdata);
int vtpm_undefine(Vtpm *v, Uuid uuid, bool wipe, vtpm_done_t done, void *userdata);
int vtpm_set_guest(Vtpm *v, Uuid uuid, const char *guest, Uuid guest_uuid, vtpm_done_t done, void *userdata);
int vtpm_backup(Vtpm *v, Uuid uuid, int fd, vtpm_done_t done, void *userdata);
/* Removes what jobs that died have left of @uuid. */
int vtpm_clean(Manager *m, Uuid uuid);

void vtpm_op_begin_store(Op *op);
/* Runs a job for @op; then @job_done() with op->verdict and op->text. */
void vtpm_op_run_job(Op *op, VtpmJobKind job, void (*job_done)(Op *op));
/* A new state for an ephemeral TPM. */
void vtpm_op_renew(Op *op, void (*job_done)(Op *op));

/* ---- vtpm_run.c ---- */

int vtpm_start(Vtpm *v, Uuid uuid, TpmModel model, vtpm_done_t done, void *userdata);
int vtpm_stop(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata);
int vtpm_reset(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata);
int vtpm_counters(Vtpm *v, Uuid uuid, vtpm_counters_t done, void *userdata);

void vtpm_op_begin_run(Op *op);
extern const VtpmRunnerEvents vtpm_runner_events;
/* At our start: is it running? */
int vtpm_adopt(Tpm *t);
/* What the device says of its TPM, a word of its own, and whether a VMM has it. */
void vtpm_seen(Tpm *t, const char *tpm, bool connected);

/* ---- vtpm_watch.c ---- */

/* Has vtpm_seen() called for each change, never before it has returned; @w: what was begun before, or NULL. Connects anew by itself. */
VtpmWatch *vtpm_watch_begin(VtpmWatch *w, Tpm *t);
/* Accepts NULL; returns NULL. */
VtpmWatch *vtpm_watch_end(VtpmWatch *w);
