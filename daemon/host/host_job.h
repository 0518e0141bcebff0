/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_job - one accepted call of a Host and the queue of those that wait; shared by the implementations. */

#include "host/host.h"

#define HOST_JOBS_MAX 64 /* that wait or run */

typedef struct HostJob HostJob;

struct HostJob {
        HostJob *next;
        bool execute;
        bool held; /* writes nothing before it may */
        HostScan depth;
        Plan *plans;
        HostOutcome *outcomes; /* one a plan */
        size_t n_plans;
        host_scanned_t scanned;
        host_executed_t executed;
        void *userdata;
};

typedef struct HostJobs {
        HostJob *first, *last;
        size_t n;
} HostJobs;

/* Append a job; the plans are copied. 0, -ENOMEM or -EBUSY. */
int host_jobs_add_scan(HostJobs *jobs, HostScan depth, host_scanned_t done, void *userdata);
int host_jobs_add_execute(HostJobs *jobs, const Plan *plans, size_t n, bool held, host_executed_t done,
                          void *userdata);

/* Lets the one that is held and waits be carried out as soon as it is its turn. */
void host_jobs_go_on(HostJobs *jobs);

/* Takes the first one out; the caller's. NULL if there is none. */
HostJob *host_jobs_take(HostJobs *jobs);

/* Drops all, calling nobody. */
void host_jobs_clear(HostJobs *jobs);

/* Calls whoever waits for @j and frees it. @s becomes the callee's. The host may be gone afterwards. */
void host_job_finish(HostJob *j, int r, Snapshot *s);
HostJob *host_job_free(HostJob *j);

/* Sorted by uuid, for host_scan. *ret is replaced. 0 or -ENOMEM. */
int host_known_copy(const HostKnown *known, size_t n, HostKnown **ret);
