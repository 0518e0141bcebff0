/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* bench - a Host over a simulated machine, either in-process or through the child and a mounted file system,
 * and the view of somebody else on the same machine. */

#include <stdlib.h>
#include <systemd/sd-event.h>

#include "host/host.h"
#include "host/sysfs.h"
#include "sim/sim.h"
#include "tests/lib/core/test.h"

#define BENCH_STATE_SIZE (1 << 20)

typedef struct Bench {
        bool child;
        const char *dialect;
        char root[64];
        int root_fd, lock_fd;
        sd_event *event;
        Host *host;
        Sim *sim;     /* in-process */
        Sysfs *tap;   /* in-process: what the host uses */
        Sysfs *eye;   /* what somebody else sees */
        pid_t server; /* of the file system */
        HostConfig config;
        /* in-process: called before write number `hook_at` (0: none) */
        unsigned writes, hook_at;
        void (*hook)(struct Bench *b);
        unsigned changed; /* how often the host said so */
} Bench;

/* What an asynchronous call came to. The snapshot and outcomes are copies. */
typedef struct Answer {
        bool done;
        int r;
        Snapshot *snapshot;
        HostOutcome *outcomes;
        size_t n;
} Answer;

/* Once for the process, before the first bench: own mount and network namespaces. -errno: not possible here.
 */
int bench_prepare(void);
int bench_has_fuse(void);

Bench *bench_new(bool child, const char *profile, const char *dialect);
void bench_free(Bench *b);
void bench_host(Bench *b); /* drops the host and makes a new one */

void bench_ctl(Bench *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
unsigned long bench_counter(Bench *b, const char *name); /* of .sim/ctl */

/* Somebody else's write, in two parts of a path. Its result. */
int bench_write(Bench *b, const char *path, const char *text);

/* All that changes: masks, drivers and overrides of queues, mdevs and their matrices (free()). */
char *bench_state(Bench *b);

void answer_clear(Answer *a);
void bench_scan(Bench *b, HostScan depth, Answer *a);
void bench_execute(Bench *b, const Plan *plans, size_t n, Answer *a);
void on_scanned(void *userdata, int r, Snapshot *s);
void on_executed(void *userdata, int r, const HostOutcome *outcomes, size_t n, Snapshot *after);
void bench_wait(Bench *b, Answer *a);

Snapshot *bench_snapshot(Bench *b); /* of a BASIC scan that must work */
