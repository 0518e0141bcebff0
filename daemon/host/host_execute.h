/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_execute - carries out plans on a host whose AP lock the caller holds. Blocks. */

#include "base/gang.h"
#include "core/plan.h"
#include "host/host.h"
#include "host/host_scan.h"
#include "host/sysfs.h"

/* The next access is about to be made; it may hang. */
typedef struct HostAccess {
        size_t plan, step;
        const char *what;      /* "write of devices/vfio_ap/matrix/UUID/remove" */
        uint64_t allowance_us; /* how much longer than other accesses it may rightly take */
} HostAccess;

/* For another thread that works on plans. */
typedef struct HostHelper {
        Sysfs *sysfs; /* a real one of its own; NULL: it cannot be had */
        void *userdata;
} HostHelper;

typedef struct HostExecution {
        HostScanner scanner;
        int root_fd; /* below it dev/vfio */
        /* Both may be NULL. Called by whichever thread works on the plan, with its own userdata. Negative: stop at once, undo nothing,
         * return it (the daemon has died). */
        int (*begin)(void *userdata, const HostAccess *a);
        int (*ended)(void *userdata, size_t plan, const HostOutcome *o);
        /* May be NULL, without gang. The caller's thread has nothing to do until they have ended, or goes on. As begin(). */
        int (*waits)(void *userdata, bool waits);
        /* May be NULL. The host has been looked at and nothing written. 1: nothing is to be. Negative: as begin(). */
        int (*looked)(void *userdata);
        void *userdata;
        Gang *gang;                /* for starts that follow each other in a batch; may be NULL */
        const HostHelper *helpers; /* one for each of its members */
} HostExecution;

/* Scans, then carries out @n plans in order. Each one's outcome is in @outcomes, which tells the truth at
 * any moment: a plan not yet begun is SKIPPED, one that has begun and not ended is STUCK. *ret_after: see
 * host_executed_t; NULL if the scan at the end failed. 0, or negative if the first scan failed (all are
 * SKIPPED), if begin(), ended() or looked() said so, or SYSFS_NEVER. */
int host_execute(const HostExecution *x, const Plan *plans, size_t n, HostOutcome *outcomes,
                 Snapshot **ret_after);
