/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* process - a real swtpm, a real device process under the descriptor store, and a Vmm connected to it; all at the ends of socket
 * pairs, so that nothing has to be waited for. */

#include <stdbool.h>
#include <sys/types.h>

#include "lib/vtpm/vmm.h"

typedef struct Process {
        char directory[64];
        pid_t swtpm, store;
        int ready_fd;      /* what the store prints */
        pid_t device;      /* the last one that was ready */
        unsigned n_killed; /* how often the store says that it has killed it at a system call */
        char line[64];
        unsigned n_line;
        Vmm vmm;
} Process;

/* Whether there is a swtpm; the tests are skipped without. */
bool process_possible(void);

/* Whether the store may trace the device. */
bool process_traceable(void);

/* @program and @fdstore are paths; @option is one more option, or NULL. */
void process_start(Process *p, const char *program, const char *fdstore, bool vhost, const char *option);

/* Does nothing with one that does not run. */
void process_stop(Process *p);

/* Waits until a device process is ready that was not before; or, with @ms of 0, tells whether one is. */
bool process_ready(Process *p, int ms);

/* The value of @name in the device's own account of itself. Static buffer. */
const char *process_value(const Process *p, const char *name);

/* Waits until the store has been told everything: what is killed before then loses the VMM. */
void process_settle(const Process *p);

/* What there is to be known of a wait that was in vain: processes, ring, the device's account; on stderr. */
void process_tell(Process *p);

/* An end of a connection to swtpm's data channel without a device, for comparison: @p has only ->swtpm then. */
int process_straight(Process *p);

/* TPMs that are started from now on have the keys of @p's, which is ready and stays; NULL, as at first: each has its own. */
void process_same_keys(const Process *p);

/* A number from /proc/PID/status of the device. */
long process_status(const Process *p, const char *name);

/* The memory of the device in KiB, each page divided by the number of processes that have it. */
long process_pss(const Process *p);
