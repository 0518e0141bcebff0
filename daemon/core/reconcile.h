/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* reconcile - compares what our records want with what a host has. Pure. */

#include "core/plan.h"

/* What we have on disk about one matrix. */
typedef struct Wanted {
        Uuid uuid;
        const ApMatrix *matrix;
        bool started;   /* it is to be live: autostart, or it was started since the host booted */
        bool from_host; /* its queues may be taken from the host's drivers */
} Wanted;

typedef enum Drift {
        DRIFT_NONE,
        DRIFT_LOST,    /* to be live, but is not */
        DRIFT_CHANGED, /* live with another matrix */
        DRIFT_UNKNOWN, /* live, its matrix cannot be read */
        DRIFT_STRAY,   /* live although it is not to be */
        _DRIFT_MAX
} Drift;

Drift reconcile_one(const Wanted *w, const Snapshot *s);

/* The plan that heals @drift, made with the plan_*() functions: none for NONE and UNKNOWN and STRAY
 * (nothing is removed to heal). 0, with an empty plan if there is nothing to do, or -ENOMEM. */
int reconcile_plan(const Wanted *w, Drift drift, const Snapshot *s, Plan *ret);

/* What to do at start about an operation that the journal has as begun and not as ended. */
typedef enum Recovery {
        RECOVERY_FORGET, /* nothing has happened yet: drop the intent */
        RECOVERY_FINISH, /* all has happened: write the record */
        RECOVERY_UNDO,   /* carry out *ret_undo, then drop the intent */
        _RECOVERY_MAX
} Recovery;

/* @wants_finish: the operation is one that is better finished than undone (stop, undefine). Then
 * *ret_undo of UNDO is the rest of the plan instead of its inverse. 0 or -ENOMEM. */
int reconcile_intent(const Plan *p, bool wants_finish, const Snapshot *s, Recovery *ret, Plan *ret_undo,
                     bool *ret_foreign);
