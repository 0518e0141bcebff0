/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "host/ap_lock.h"
#include "host/host.h"
#include "host/host_execute.h"
#include "host/host_job.h"
#include "host/host_scan.h"

/* Each job runs whole in one turn of the loop, since a simulated host answers at once. Where it answers
 * "never", the job ends when the deadline passes, as it would in the child. What hangs is not heard of
 * again: stuck() only grows. */
typedef struct HostDirect {
        Host host;
        HostConfig config;
        Sysfs *sysfs;
        int lock_fd;
        sd_event *event;
        sd_event_source *timer;
        HostJobs jobs;
        HostJob *running; /* waits for the lock, for go_on(), or for the deadline of what hangs */
        bool hangs;
        bool locked;
        uint64_t lock_until, held_until;
        Snapshot *previous; /* the last scan */
        Snapshot *partial;  /* what was read before what can hang */
        HostKnown *known;
        size_t n_known;
        unsigned n_stuck;
        uint64_t stuck_since;
        char stuck_what[640];
        char what[600]; /* the access being made */
} HostDirect;

#define DIRECT(h) CONTAINER_OF(h, HostDirect, host)

static uint64_t now_us(const HostDirect *h) {
        uint64_t t = 0;

        (void) sd_event_now(h->event, CLOCK_MONOTONIC, &t);
        return t;
}

static int direct_wake(HostDirect *h, uint64_t after_us) {
        int r;

        r = sd_event_source_set_time_relative(h->timer, after_us);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(h->timer, SD_EVENT_ONESHOT);
}

static int direct_begin(void *userdata, const HostAccess *a) {
        HostDirect *h = userdata;

        (void) snprintf(h->what, sizeof h->what, "%s", a->what);
        return 0;
}

static int direct_risky(void *userdata, const Snapshot *s) {
        HostDirect *h = userdata;

        (void) snprintf(h->what, sizeof h->what, "reading mdev details");
        (void) snapshot_free(h->partial);
        h->partial = snapshot_copy(s);
        return h->partial ? 0 : -ENOMEM;
}

static HostScanner direct_scanner(HostDirect *h) {
        return (HostScanner) {
                .sysfs = h->sysfs,
                .root_fd = h->config.root_fd,
                .previous = h->previous,
                .known = h->known,
                .n_known = h->n_known,
                .risky = direct_risky,
                .userdata = h,
        };
}

/* Ends the running job. The host may be gone when this returns. */
static void direct_finish(HostDirect *h, int r, Snapshot *s) {
        HostJob *j = TAKE(h->running);
        Snapshot *copy = s ? snapshot_copy(s) : NULL;

        if (h->locked) {
                (void) ap_lock_release(h->lock_fd, getpid());
                h->locked = false;
        }
        h->partial = snapshot_free(h->partial);
        if (copy) {
                (void) snapshot_free(h->previous);
                h->previous = copy;
        }
        if (h->jobs.first)
                (void) direct_wake(h, 0);

        host_job_finish(j, r, s);
}

/* The deadline of what hangs has passed. */
static void direct_give_up(HostDirect *h) {
        Snapshot *s = NULL;
        int r = 0;

        h->hangs = false;
        if (h->n_stuck++ == 0) {
                h->stuck_since = now_us(h);
                (void) snprintf(h->stuck_what, sizeof h->stuck_what, "%s", h->what);
        }

        if (!h->running->execute) {
                s = TAKE(h->partial);
                if (s)
                        s->detail_stuck = true;
                else
                        r = -ETIME;
        } else if (h->running->n_plans > 0 && h->running->outcomes[0].verdict == HOST_SKIPPED)
                r = -ETIME; /* the scan before the first plan */

        h->previous = snapshot_free(h->previous); /* a new child knows nothing of what this one did */
        direct_finish(h, r, s);
}

static int direct_hangs(HostDirect *h, uint64_t timeout_us) {
        h->hangs = true;
        return direct_wake(h, timeout_us);
}

static int direct_execute(HostDirect *h) {
        HostExecution x = { .scanner = direct_scanner(h),
                            .root_fd = h->config.root_fd,
                            .begin = direct_begin,
                            .userdata = h };
        HostJob *j = h->running;
        Snapshot *after = NULL;
        pid_t holder = 0;
        int r;

        r = h->locked ? 0 : ap_lock_try(h->lock_fd, getpid(), &holder);
        if (r > 0 && now_us(h) < h->lock_until)
                return direct_wake(h, AP_LOCK_POLL_US);
        if (r > 0) {
                for (size_t i = 0; i < j->n_plans; i++)
                        j->outcomes[i] = (HostOutcome) { .verdict = HOST_LOCKED, .holder = holder };
                direct_finish(h, 0, NULL);
                return 0;
        }
        if (r == 0 && !h->locked)
                h->held_until = now_us(h) + HOST_HOLD_US;
        h->locked = r == 0;
        if (h->locked && j->held && now_us(h) < h->held_until)
                return direct_wake(h, h->held_until - now_us(h));
        if (h->locked && !j->held) {
                (void) snprintf(h->what, sizeof h->what, "scan");
                r = host_execute(&x, j->plans, j->n_plans, j->outcomes, &after);
                if (r == SYSFS_NEVER)
                        return direct_hangs(h, h->config.step_timeout_us);
        }
        direct_finish(h, r, after);
        return 0;
}

static int direct_scan_now(HostDirect *h) {
        HostScanner scanner = direct_scanner(h);
        Snapshot *s = NULL;
        int r;

        (void) snprintf(h->what, sizeof h->what, "scan");
        r = host_scan(&scanner, h->running->depth, &s);
        if (r == SYSFS_NEVER)
                return direct_hangs(h, h->config.scan_timeout_us);

        direct_finish(h, r, s);
        return 0;
}

static int direct_on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        HostDirect *h = userdata;

        if (h->hangs) {
                direct_give_up(h);
                return 0;
        }
        if (!h->running) {
                h->running = host_jobs_take(&h->jobs);
                if (!h->running)
                        return 0;
                h->lock_until = now_us(h) + h->config.lock_timeout_us;
        }

        return h->running->execute ? direct_execute(h) : direct_scan_now(h);
}

static int direct_submitted(HostDirect *h, int r) {
        return r < 0 || h->running ? r : direct_wake(h, 0);
}

static int direct_scan(Host *host, HostScan depth, host_scanned_t done, void *userdata) {
        HostDirect *h = DIRECT(host);

        return direct_submitted(h, host_jobs_add_scan(&h->jobs, depth, done, userdata));
}

static int submit_plans(HostDirect *h, const Plan *plans, size_t n, bool held, host_executed_t done,
                        void *userdata) {
        return direct_submitted(h, host_jobs_add_execute(&h->jobs, plans, n, held, done, userdata));
}

static int direct_submit(Host *host, const Plan *plans, size_t n, host_executed_t done, void *userdata) {
        return submit_plans(DIRECT(host), plans, n, false, done, userdata);
}

static int direct_prepare(Host *host, const Plan *plans, size_t n, host_executed_t done, void *userdata) {
        return submit_plans(DIRECT(host), plans, n, true, done, userdata);
}

static void direct_go_on(Host *host) {
        HostDirect *h = DIRECT(host);

        host_jobs_go_on(&h->jobs);
        if (!h->running || !h->running->held)
                return;
        h->running->held = false;
        if (h->locked)
                (void) direct_wake(h, 0);
}

static int direct_know(Host *host, const HostKnown *known, size_t n) {
        HostDirect *h = DIRECT(host);
        int r;

        r = host_known_copy(known, n, &h->known);
        if (r < 0)
                return r;

        h->n_known = n;
        return 0;
}

static unsigned direct_stuck(Host *host, const char **ret_what) {
        HostDirect *h = DIRECT(host);

        if (ret_what && h->n_stuck > 0) {
                (void) snprintf(h->what, sizeof h->what, "%.*s for %llu s", (int) sizeof h->what - 40,
                                h->stuck_what, (unsigned long long) (now_us(h) - h->stuck_since) / 1000000);
                *ret_what = h->what;
        }
        return h->n_stuck;
}

static void direct_free(Host *host) {
        HostDirect *h = DIRECT(host);

        if (h->locked)
                (void) ap_lock_release(h->lock_fd, getpid());
        (void) sd_event_source_disable_unref(h->timer);
        (void) sd_event_unref(h->event);
        host_jobs_clear(&h->jobs);
        (void) host_job_free(h->running);
        (void) snapshot_free(h->previous);
        (void) snapshot_free(h->partial);
        free(h->known);
        (void) fd_close(h->lock_fd);
        (void) fd_close(h->config.root_fd);
        free(h);
}

static const HostOps direct_ops = {
        .scan = direct_scan,
        .execute = direct_submit,
        .prepare = direct_prepare,
        .go_on = direct_go_on,
        .know = direct_know,
        .stuck = direct_stuck,
        .free = direct_free,
};

int host_direct_new(sd_event *event, const HostConfig *config, Sysfs *sysfs, int lock_dir_fd, Host **ret) {
        HostDirect *h = calloc(1, sizeof *h);
        int r;

        if (!h)
                return -ENOMEM;
        h->host.ops = &direct_ops;
        h->config = *config;
        h->sysfs = sysfs;
        h->event = sd_event_ref(event);
        h->lock_fd = fcntl(lock_dir_fd, F_DUPFD_CLOEXEC, 3);
        h->config.root_fd = config->root_fd < 0 ? -1 : fcntl(config->root_fd, F_DUPFD_CLOEXEC, 3);
        if (h->lock_fd < 0 || (config->root_fd >= 0 && h->config.root_fd < 0)) {
                r = -errno;
                direct_free(&h->host);
                return r;
        }
        r = sd_event_add_time_relative(event, &h->timer, CLOCK_MONOTONIC, 0, 1, direct_on_timer, h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
        if (r < 0) {
                direct_free(&h->host);
                return r;
        }

        *ret = &h->host;
        return 0;
}
