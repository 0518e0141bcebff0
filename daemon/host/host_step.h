/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_step - one step of a plan, done or undone on the host. Doing writes only if the step's `before` holds
 * at that moment and looks afterwards whether its `after` does; undoing goes by what it finds, so that it is
 * right however far doing got. Blocks. */

#include "host/host_execute.h"

/* Not the kernel's: the step's `before` does not hold, or somebody else was faster. */
#define STEP_CHANGED (-ESTALE)
/* A guest has the mdev. */
#define STEP_IN_USE (-EBUSY - 4096)

typedef struct StepContext {
        const HostExecution *execution;
        Sysfs *sysfs;
        Snapshot *s; /* the host before the plan */
        size_t plan, step;
        ApMatrix assigned;  /* attribute by attribute: what the mdev has of us by now */
        bool assigning;     /* and that `assigned` means something */
        uint64_t looked_us; /* when the mdev was last seen to have what it should, as HostMdev's read_us */
        bool made;          /* we have made the mdev */
        bool removed;       /* we have removed it */
        bool wrote;         /* a write was made */
        bool step_wrote;    /* the caller resets it: one was made since */
        bool stopped;       /* begin() said so */
        bool changed;       /* the caller's: the host is not as the plan or its absence would have it */
} StepContext;

/* 0, STEP_CHANGED, STEP_IN_USE, -errno of the write, SYSFS_NEVER, or what begin() said. */
int step_do(StepContext *c, const Plan *p, const PlanStep *step);
int step_undo(StepContext *c, const Plan *p, const PlanStep *step);
