/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* plan - an ordered list of changes to a host with their inverses, and what must be true before the first
 * of them. core/ makes it, the journal keeps it, host/ carries it out. Pure but for its memory. */

#include "core/claim.h"
#include "core/snapshot.h"

/* The kernel's names of the one parent and type for AP (vfio_ap_drv.c, vfio_ap_ops.c). */
#define PLAN_AP_PARENT "matrix"
#define PLAN_AP_TYPE   "vfio_ap-passthrough"

#define PLAN_ATTR_NAME_SIZE  64
#define PLAN_ATTR_VALUE_SIZE 256
#define PLAN_STEPS_MAX       300

typedef enum PlanStepType {
        PLAN_MASKS,    /* apmask and aqmask from `before` to `after`; inverse: back */
        PLAN_OVERRIDE, /* driver override of one queue and its rebinding; inverse: back */
        PLAN_CREATE,   /* an mdev of parent and type; inverse: remove */
        PLAN_ASSIGN,   /* the matrix of an mdev from `before` to `after`; inverse: back */
        PLAN_ATTR,     /* one attribute of an mdev made by this plan; no inverse but its removal */
        PLAN_REMOVE,   /* an mdev that no guest has; inverse: create and assign `before` */
        _PLAN_STEP_MAX
} PlanStepType;

typedef struct PlanStep {
        PlanStepType type;
        union {
                struct {
                        ApMask apmask_before, aqmask_before, apmask_after, aqmask_after;
                } masks;
                struct {
                        Apqn apqn;
                        /* true: given to vfio_ap by override; false: no override. Before: true if it is
                         * there by half; true to true finishes that */
                        bool before, after;
                } override;
                struct {
                        char parent[SNAPSHOT_NAME_SIZE], type[SNAPSHOT_NAME_SIZE];
                } create;
                struct {
                        ApMatrix before, after;
                } assign;
                struct {
                        char name[PLAN_ATTR_NAME_SIZE], value[PLAN_ATTR_VALUE_SIZE];
                } attr;
                struct {
                        char parent[SNAPSHOT_NAME_SIZE], type[SNAPSHOT_NAME_SIZE];
                        bool ap;
                        ApMatrix before;
                } remove;
        };
} PlanStep;

typedef struct Plan {
        Uuid uuid; /* the mdev that it is about; null if none */
        PlanStep *steps;
        size_t n_steps;
} Plan;

/* A plan owns its steps. */
void plan_clear(Plan *p);
int plan_copy(const Plan *p, Plan *ret);
/* 0, -ENOMEM or -E2BIG. */
int plan_append(Plan *p, const PlanStep *step);

typedef enum PlanVerdict {
        PLAN_OK,
        PLAN_CHANGED,      /* the host is not as the plan assumes */
        PLAN_OVERLAP,      /* another mdev has one of its queues; *ret_apqn */
        PLAN_HOST_OWNED,   /* the host's drivers would still have one; *ret_apqn */
        PLAN_IN_USE,       /* a guest has the mdev that it removes */
        PLAN_NO_INSTANCES, /* the type has no instance left */
        PLAN_NO_PARENT,    /* parent or type is gone */
        _PLAN_VERDICT_MAX
} PlanVerdict;

/* Whether @p may be carried out on a host that is as @s: every `before` holds, no live mdev but the
 * plan's own overlaps what it assigns, nothing it assigns stays with the host's drivers, nothing it gives
 * back to them is assigned. Each step is judged on the host as the steps before it leave it. An mdev
 * whose matrix cannot be read is not judged: the claims count it. *ret_apqn is set for OVERLAP and
 * HOST_OWNED only. */
PlanVerdict plan_check(const Plan *p, const Snapshot *s, Apqn *ret_apqn);

/* What @s is like after @p. For tests, for reports and for the simulated outcome of several plans in a
 * row. 0 or -ENOMEM (@s is unchanged). Steps that plan_check() would refuse may have no effect. */
int plan_apply(const Plan *p, Snapshot *s);

/* How far a plan that was in flight got, judged by the host alone. */
typedef enum PlanProgress {
        PLAN_NOT_BEGUN, /* every `before` holds */
        PLAN_FINISHED,  /* every `after` holds; never of a plan with attributes, since they cannot be seen */
        PLAN_PARTIAL,   /* something between */
        _PLAN_PROGRESS_MAX
} PlanProgress;
PlanProgress plan_progress(const Plan *p, const Snapshot *s);

/* The steps that bring a host from @s back to before @p: for recovery. Steps whose `before` already holds
 * are left out. Never undoes what is neither before nor after (somebody else has changed it since): such
 * a step is left out and *ret_foreign is set; so is one that somebody else has built upon (it would give
 * queues to the host's drivers that another mdev has now, say). What a step of several writes left half
 * done is ours. plan_check() accepts the result on @s, but for IN_USE, NO_INSTANCES and NO_PARENT. 0,
 * -ENOMEM or -E2BIG. */
int plan_undo(const Plan *p, const Snapshot *s, Plan *ret, bool *ret_foreign);

/* The same the other way: what is left to do of @p. Attributes are written anew, since nothing shows
 * whether they were. */
int plan_finish(const Plan *p, const Snapshot *s, Plan *ret, bool *ret_foreign);

/* One line of bytes for the journal, hex and spaces, without newline (free()); and back. -ENOMEM;
 * -EBADMSG: not one. */
int plan_serialize(const Plan *p, char **ret);
int plan_parse(const char *s, Plan *ret);

/* Plans for what the engine does. @s is the host as known; Errors: -ENOMEM, -E2BIG, and what each says. */

/* Make mdev @uuid with @m on the host. With @from_host, queues of @m that the host's drivers own are
 * taken from them: by masks (the adapters of @m leave apmask), or by driver overrides where one is in
 * force already. */
int plan_start(const Snapshot *s, Uuid uuid, const ApMatrix *m, bool from_host, Plan *ret);
/* Change live mdev @uuid to @m. -ENOENT: it is not there; -ENODATA: its present matrix is not known. */
int plan_modify(const Snapshot *s, Uuid uuid, const ApMatrix *m, bool from_host, Plan *ret);
/* Remove it. -ENOENT. */
int plan_stop(const Snapshot *s, Uuid uuid, Plan *ret);
/* Masks to these. */
int plan_masks(const Snapshot *s, const ApMask *apmask, const ApMask *aqmask, Plan *ret);
