/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* worker - one thread that runs jobs in order and hands them back to the loop. The only place with a
 * lock. */

#include <systemd/sd-event.h>

typedef struct Work Work;
typedef struct Worker Worker;

struct Work {
        int (*run)(Work *w); /* worker thread; sees only what the job owns; 0 or -errno */
        /* loop thread, once per accepted job, never before worker_submit() has returned */
        void (*done)(Work *w, int r);
        Work *next; /* the worker's, until done */
        int result;
};

/* At most @max jobs wait or run. 0 or -errno. */
int worker_new(sd_event *event, size_t max, Worker **ret);

/* Takes @w in order; -EBUSY: full, @w stays the caller's. Loop thread only. */
int worker_submit(Worker *worker, Work *w);

/* Waits until all accepted jobs have run, runs their done(), ends the thread. Accepts NULL; returns NULL. */
Worker *worker_free(Worker *worker);
