/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host - the machine's AP bus and mediated devices, as the engine sees them: scans and plans that are
 * carried out, all asynchronous. Two implementations: host_child (the real /sys, in a disposable child
 * process with a deadline) and host_direct (in-process, over any Sysfs; for tests and the simulator). One
 * contract suite runs on both.
 *
 * Completions run from the event loop, exactly once for each accepted call, never before the call has
 * returned. */

#include <systemd/sd-event.h>

#include "core/plan.h"
#include "core/snapshot.h"

typedef struct Host Host;

/* How one plan ended. */
typedef enum HostVerdict {
        HOST_DONE,
        HOST_REFUSED, /* plan_check() said no under the lock, nothing was written: `plan`, `apqn` */
        HOST_KERNEL,  /* the kernel refused a step, all before it is undone and verified: `error`, `step`,
                         `apqn` */
        HOST_STUCK, /* a write did not return in time, or the child was killed in it: what it did is unknown,
                       * nothing was undone. Scan, then plan_progress() */
        HOST_BROKEN, /* a step failed and undoing failed too (`error` of the step): the host is in between */
        HOST_LOCKED, /* the AP lock was not had in time, `holder` is the pid in it; nothing was written */
        HOST_SKIPPED, /* an earlier plan of the batch got STUCK; nothing was written */
        _HOST_VERDICT_MAX
} HostVerdict;

typedef struct HostOutcome {
        HostVerdict verdict;
        PlanVerdict plan; /* REFUSED */
        bool has_apqn;
        Apqn apqn;    /* REFUSED, and the one queue that a KERNEL refusal is about if there is only one */
        int error;    /* KERNEL, BROKEN: negative errno of the write */
        size_t step;  /* its index in the plan */
        pid_t holder; /* LOCKED */
} HostOutcome;

typedef enum HostScan {
        HOST_SCAN_BASIC,  /* all that is read without risk of hanging: masks, queues, parents, types, mdevs,
                             ap_config */
        HOST_SCAN_DETAIL, /* also queue status (use) and the kernel's guest matrices. If they hang the result
                           * is BASIC with detail_stuck set */
} HostScan;

/* @snapshot is the callee's to free, NULL if r < 0. */
typedef void (*host_scanned_t)(void *userdata, int r, Snapshot *snapshot);

/* r < 0: nothing could be tried (no child, or -EHOSTDOWN: too many hang; no memory: no outcomes). Else
 * @outcomes has one entry a plan and @after is the host as it was scanned at the end under the same lock
 * (the callee's to free; NULL after STUCK or if that scan failed). @outcomes is the host's, valid during
 * the call. */
typedef void (*host_executed_t)(void *userdata, int r, const HostOutcome *outcomes, size_t n,
                                Snapshot *after);

/* Something changed on the host (uevents, coalesced over 20 ms), or may have: scan. */
typedef void (*host_changed_t)(void *userdata);

/* Above 512 queues `matrix` and `guest_matrix` exceed a page: old kernels write past it, new ones cut.
 * The margin is for what others may assign between the check and the reading. */
#define HOST_MATRIX_QUEUES_MAX 500

/* A matrix that the caller vouches for, since it is one of its own mdevs. Counts only where the kernel
 * gives no safe way to read it (before 6.10, many queues): below HOST_MATRIX_QUEUES_MAX queues it makes
 * reading safe, above it is taken as it is. */
typedef struct HostKnown {
        Uuid uuid;
        ApMatrix matrix;
} HostKnown;

#define HOST_HOLD_US \
        100000 /* what was seen of the host is not to be older, nor others to be kept from the lock */

typedef struct HostOps {
        int (*scan)(Host *h, HostScan depth, host_scanned_t done, void *userdata);
        /* Carries out @n plans in order under one holding of the AP lock and one scan; the state between is
         * tracked and verified. A plan that ends other than DONE does not stop the others (but STUCK does).
         * The plans are copied; none at all is a scan under the lock. -EBUSY: too many waiting. */
        int (*execute)(Host *h, const Plan *plans, size_t n, host_executed_t done, void *userdata);
        /* The same for plans that must not yet be carried out: the lock is taken and the host looked at, then go_on() is waited for before
         * anything is written. Where that does not come within HOST_HOLD_US, the lock is given back and all plans are SKIPPED. One at
         * a time. */
        int (*prepare)(Host *h, const Plan *plans, size_t n, host_executed_t done, void *userdata);
        void (*go_on)(Host *h);
        /* Replaces what the caller vouches for; for jobs accepted from now on. 0 or -ENOMEM. */
        int (*know)(Host *h, const HostKnown *known, size_t n);
        /* Number of child processes that hang and were left behind; *ret_what (may be NULL) describes the
         * oldest, e.g. "write of devices/vfio_ap/matrix/U/remove for 73 s", valid until the next call. */
        unsigned (*stuck)(Host *h, const char **ret_what);
        void (*free)(Host *h);
} HostOps;

struct Host {
        const HostOps *ops;
};

typedef struct HostConfig {
        int root_fd;              /* the root below which are sys/, run/lock/ */
        uint64_t lock_timeout_us; /* for the AP lock; default 10 s */
        uint64_t step_timeout_us; /* for one write; default 5 s */
        uint64_t scan_timeout_us; /* for a scan; default 10 s */
} HostConfig;

/* What the child finds open. */
#define HOST_CHILD_SOCKET_FD 3
#define HOST_CHILD_ROOT_FD   4
#define HOST_CHILD_PAGE_FD   5 /* host_page.h */

/* The real one: starts @program (path of this binary, run as "PROGRAM --host-child", which is to call
 * host_child_main() with the descriptors above). When this process ends, a child in the middle of a plan
 * stops before its next write, undoes nothing and gives the AP lock back; so what recovery sees is at rest
 * once a first job (execute with no plan will do) has had the lock. host_free() does the same. @changed is
 * called from the loop. 0 or -errno. */
int host_child_new(sd_event *event, const HostConfig *config, const char *program, host_changed_t changed,
                   void *userdata, Host **ret);

/* The child's main: serves the socket @fd until it is closed. Returns the exit status. */
int host_child_main(int fd, int root_fd, int page_fd);

typedef struct Sysfs Sysfs;
/* In-process. @sysfs stays the caller's. @lock_dir_fd: directory that stands for /run/lock. A Sysfs call
 * that returns SYSFS_NEVER makes the whole job STUCK after @step_timeout_us of the loop's time. */
int host_direct_new(sd_event *event, const HostConfig *config, Sysfs *sysfs, int lock_dir_fd, Host **ret);

/* Accepts NULL; returns NULL. Pending completions are not called any more. */
Host *host_free(Host *h);
