/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

HostJob *host_job_free(HostJob *j) {
        if (!j)
                return NULL;

        for (size_t i = 0; i < j->n_plans; i++)
                plan_clear(&j->plans[i]);
        free(j->plans);
        free(j->outcomes);
        free(j);
        return NULL;
}

static int jobs_append(HostJobs *jobs, HostJob *j) {
        if (jobs->last)
                jobs->last->next = j;
        else
                jobs->first = j;
        jobs->last = j;
        jobs->n++;
        return 0;
}

int host_jobs_add_scan(HostJobs *jobs, HostScan depth, host_scanned_t done, void *userdata) {
        HostJob *j;

        if (jobs->n >= HOST_JOBS_MAX)
                return -EBUSY;
        j = calloc(1, sizeof *j);
        if (!j)
                return -ENOMEM;

        *j = (HostJob) { .depth = depth, .scanned = done, .userdata = userdata };
        return jobs_append(jobs, j);
}

int host_jobs_add_execute(HostJobs *jobs, const Plan *plans, size_t n, bool held, host_executed_t done,
                          void *userdata) {
        HostJob *j;

        if (jobs->n >= HOST_JOBS_MAX)
                return -EBUSY;
        j = calloc(1, sizeof *j);
        if (!j)
                return -ENOMEM;

        *j = (HostJob) { .execute = true, .held = held, .executed = done, .userdata = userdata };
        j->plans = calloc(n + 1, sizeof *j->plans);
        j->outcomes = calloc(n + 1, sizeof *j->outcomes);
        if (!j->plans || !j->outcomes) {
                (void) host_job_free(j);
                return -ENOMEM;
        }
        for (; j->n_plans < n; j->n_plans++) {
                int r = plan_copy(&plans[j->n_plans], &j->plans[j->n_plans]);

                if (r < 0) {
                        (void) host_job_free(j);
                        return r;
                }
                j->outcomes[j->n_plans] = (HostOutcome) { .verdict = HOST_SKIPPED };
        }
        return jobs_append(jobs, j);
}

void host_jobs_go_on(HostJobs *jobs) {
        for (HostJob *j = jobs->first; j; j = j->next)
                j->held = false;
}

HostJob *host_jobs_take(HostJobs *jobs) {
        HostJob *j = jobs->first;

        if (!j)
                return NULL;

        jobs->first = j->next;
        if (!jobs->first)
                jobs->last = NULL;
        jobs->n--;
        j->next = NULL;
        return j;
}

void host_jobs_clear(HostJobs *jobs) {
        HostJob *j;

        while ((j = host_jobs_take(jobs)))
                (void) host_job_free(j);
}

void host_job_finish(HostJob *j, int r, Snapshot *s) {
        if (j->execute)
                j->executed(j->userdata, r, r < 0 ? NULL : j->outcomes, r < 0 ? 0 : j->n_plans, s);
        else
                j->scanned(j->userdata, r, s);
        (void) host_job_free(j);
}

static int known_compare(const void *a, const void *b) {
        return uuid_compare(((const HostKnown *) a)->uuid, ((const HostKnown *) b)->uuid);
}

int host_known_copy(const HostKnown *known, size_t n, HostKnown **ret) {
        HostKnown *copy = calloc(n + 1, sizeof *copy);

        if (!copy)
                return -ENOMEM;
        if (n > 0) {
                memcpy(copy, known, n * sizeof *copy);
                qsort(copy, n, sizeof *copy, known_compare);
        }

        free(*ret);
        *ret = copy;
        return 0;
}

Host *host_free(Host *h) {
        if (h)
                h->ops->free(h);
        return NULL;
}
