/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_change - the smallest change of what the host's drivers have, such that guests can have the queues of a matrix,
 * or the host has them back. Two means, of which the kernel takes only one at a time:
 *
 *   masks      a queue is the host's if its adapter's and its domain's bit are set: only whole adapters or whole domains
 *              can be given away. All kernels, also for queues that are not there yet.
 *   overrides  each queue by itself, but only queues that are there, and only while both masks are full.
 *
 * Pure. */

#include "core/plan.h"
#include "core/snapshot.h"

typedef enum HostMeans {
        HOST_MEANS_ANY, /* as a wish: whichever takes less; as a result: there is nothing to do */
        HOST_MEANS_MASKS,
        HOST_MEANS_OVERRIDES,
        _HOST_MEANS_MAX
} HostMeans;

typedef struct HostWish {
        ApMatrix matrix; /* control domains do not count */
        bool release;    /* give back to the host; else take from it */
        bool others;     /* queues that are not in the matrix may change sides with it */
        bool force;      /* the last usable queue of the default domain may be taken */
        bool no_masks; /* the kernel refuses masks although no override is to be seen (its counter leaks) */
        HostMeans means;
} HostWish;

typedef enum HostChangeVerdict {
        HOST_CHANGE_OK,
        HOST_CHANGE_BLOCKED, /* masks are needed, but this queue has an override; or nobody knows which */
        HOST_CHANGE_ALIEN, /* this queue has an override that is not vfio_ap's: somebody's wish, not ours to change */
        HOST_CHANGE_NOT_FULL, /* overrides are wanted, but a mask is not full */
        HOST_CHANGE_NO_MEANS, /* overrides are wanted, which this kernel does not have */
        HOST_CHANGE_ABSENT,   /* overrides are needed, but this queue is not there */
        HOST_CHANGE_OTHERS,   /* this queue and maybe others, none of the matrix, would change sides */
        HOST_CHANGE_LAST,     /* this is the last usable queue of the host's default domain */
        _HOST_CHANGE_VERDICT_MAX
} HostChangeVerdict;

typedef struct HostChange {
        HostMeans means;
        ApMask apmask, aqmask; /* as they are to be */
        /* Queues that are there and change sides, of the matrix and others; and those of the matrix that are not there
         * now, but will be as the others if they come (ids above the machine's maxima do not count). */
        ApMask moved[AP_IDS], others[AP_IDS], absent[AP_IDS];
        unsigned n_moved, n_others, n_absent;
        ApMask overrides[AP_IDS]; /* to be set or cleared */
} HostChange;

/* What @w comes to on the host @s. Also when refused *ret says as much as could be found out: for OTHERS and LAST all of
 * it. *ret_apqn and *ret_has_apqn: the queue that the verdict is about. */
HostChangeVerdict host_change(const Snapshot *s, const HostWish *w, HostChange *ret, Apqn *ret_apqn,
                              bool *ret_has_apqn);

/* The steps of it. 0, -ENOMEM, -E2BIG: more than PLAN_STEPS_MAX overrides. */
int host_change_plan(const Snapshot *s, const HostWish *w, const HostChange *c, Plan *ret);

/* Queues with domain @domain that the host's drivers can use: adapters which are online, configured, not checkstopped. */
ApMask host_usable(const Snapshot *s, uint8_t domain);
