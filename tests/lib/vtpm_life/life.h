/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* life - TPMs of a daemon below a root directory of the test's own, with real programs; calls that wait for their answer. */

#include <stdbool.h>
#include <sys/types.h>

#include "vtpm/vtpm.h"

#define LIFE_GROUP "games" /* QEMU's, for the test */

typedef struct Life {
        char root[64];
        int root_fd;
        sd_event *event;
        Vtpm *vtpm;
        /* the last answer */
        int r;
        VtpmVerdict verdict;
        char text[1024];
        Uuid uuid;
        VtpmCounter counters[64];
        size_t n_counters;
        unsigned waits; /* calls not yet answered */
        unsigned n_events, n_refused;
} Life;

/* Whether this machine has what it takes. */
bool life_possible(void);
/* Goes on in a process, with namespaces of its own, whose end, however it comes, ends all that it has started and removes its files.
 * False: that cannot be had here. */
bool life_enclose(void);

void life_init(Life *l, const char *launcher);
/* All that runs is ended, and all files are removed. */
void life_done(Life *l);

/* A manager; the daemon would be started. 0 or -errno. */
int life_open(Life *l);
/* It ends, and what runs goes on. */
void life_close(Life *l);

/* One turn of the loop, if there is something to do. */
void life_pump(void *life);
/* Runs the loop until the condition holds; ends the test, and says why, if that takes too long. */
#define LIFE_PUMP_UNTIL(l, condition) \
        for (uint64_t _end = life_patience(); !(condition); life_pump_until(l, _end, #condition))
uint64_t life_patience(void);
void life_pump_until(Life *l, uint64_t end, const char *what);
/* Runs the loop until nothing is waited for. */
void life_wait(Life *l);
void life_answer(void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid);

/* Each: the verdict, or -errno. */
int life_define(Life *l, const VtpmSpec *spec);
int life_start(Life *l, Uuid uuid, TpmModel model);
int life_stop(Life *l, Uuid uuid);
int life_reset(Life *l, Uuid uuid);
int life_undefine(Life *l, Uuid uuid, bool wipe);
int life_backup(Life *l, Uuid uuid, int fd);
int life_restore(Life *l, int fd, const VtpmSpec *spec);
int life_import(Life *l, const char *directory, const VtpmSpec *spec);
int life_set_guest(Life *l, Uuid uuid, const char *guest);
int life_counters(Life *l, Uuid uuid);
uint64_t life_counter(const Life *l, const char *name);

VtpmView life_view(Life *l, Uuid uuid);
/* Runs the loop until the TPM is in that state; fails the test after some seconds. */
void life_until(Life *l, Uuid uuid, VtpmState state);

/* PATH below the root. Static buffers, four of them in turn. */
const char *life_path(const Life *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What is in RUN/tpm/UUID, and in STATE/tpms/UUID. */
const char *life_run_file(const Life *l, Uuid uuid, const char *name);
const char *life_state_file(const Life *l, Uuid uuid, const char *name);
/* From a pid file; 0: there is none, or it has ended. */
pid_t life_pid(const Life *l, Uuid uuid, const char *name);

/* SIGKILL, and has ended when this returns: until then it would still be taken for one that runs. */
void life_kill(const Life *l, Uuid uuid, const char *name);

/* A connection to a socket; -errno. */
int life_connect(const char *path);
/* As another user, in a process of his own: what connecting, or opening, says: 0 or -errno. */
int life_connect_as(uid_t uid, gid_t gid, const char *path);
int life_open_as(uid_t uid, const char *path);

/* A file of that content. */
void life_write(const char *path, const char *data, size_t size);
