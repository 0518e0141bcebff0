/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

void plan_clear(Plan *p) {
        free(p->steps);
        *p = (Plan) {};
}

int plan_copy(const Plan *p, Plan *ret) {
        Plan copy = { .uuid = p->uuid };

        if (p->n_steps > 0) {
                copy.steps = malloc(p->n_steps * sizeof *copy.steps);
                if (!copy.steps)
                        return -ENOMEM;

                memcpy(copy.steps, p->steps, p->n_steps * sizeof *copy.steps);
                copy.n_steps = p->n_steps;
        }

        *ret = copy;
        return 0;
}

int plan_append(Plan *p, const PlanStep *step) {
        PlanStep *grown;

        if (p->n_steps >= PLAN_STEPS_MAX)
                return -E2BIG;

        grown = reallocarray(p->steps, p->n_steps + 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;

        p->steps = grown;
        p->steps[p->n_steps++] = *step;
        return 0;
}

static int append_masks(Plan *p, const Snapshot *s, const ApMask *apmask, const ApMask *aqmask) {
        PlanStep step = { .type = PLAN_MASKS };

        if (ap_mask_equal(&s->apmask, apmask) && ap_mask_equal(&s->aqmask, aqmask))
                return 0;

        step.masks.apmask_before = s->apmask;
        step.masks.aqmask_before = s->aqmask;
        step.masks.apmask_after = *apmask;
        step.masks.aqmask_after = *aqmask;
        return plan_append(p, &step);
}

static int append_assign(Plan *p, const ApMatrix *before, const ApMatrix *after) {
        PlanStep step = { .type = PLAN_ASSIGN };

        if (ap_matrix_equal(before, after))
                return 0;

        step.assign.before = *before;
        step.assign.after = *after;
        return plan_append(p, &step);
}

/* With an override in force the kernel refuses every change of the masks, and the other way round. */
static bool overrides_are_in_force(const Snapshot *s) {
        Apqn q;

        return s->has_override && snapshot_masks_are_full(s) && snapshot_find_override(s, &q);
}

static int append_overrides(Plan *p, const Snapshot *s, const ApMatrix *m) {
        AP_MASK_FOREACH(a, &m->adapters) {
                ApMask owned = snapshot_host_owned(s, (uint8_t) a);

                owned = ap_mask_and(&owned, &m->domains);
                AP_MASK_FOREACH(d, &owned) {
                        PlanStep step = { .type = PLAN_OVERRIDE };
                        int r;

                        step.override.apqn = (Apqn) { (uint8_t) a, (uint8_t) d };
                        step.override.before = ap_mask_test(&s->queue_override[a], (uint8_t) d);
                        step.override.after = true;
                        r = plan_append(p, &step);
                        if (r < 0)
                                return r;
                }
        }

        return 0;
}

static int append_from_host(Plan *p, const Snapshot *s, const ApMatrix *m) {
        ApMask apmask = s->apmask;

        if (overrides_are_in_force(s))
                return append_overrides(p, s, m);

        AP_MASK_FOREACH(a, &m->adapters) {
                ApMask owned = snapshot_host_owned(s, (uint8_t) a);

                if (ap_mask_intersects(&owned, &m->domains))
                        ap_mask_clear(&apmask, (uint8_t) a);
        }

        return append_masks(p, s, &apmask, &s->aqmask);
}

static void copy_name(char dest[static SNAPSHOT_NAME_SIZE], const char *name) {
        size_t n = strnlen(name, SNAPSHOT_NAME_SIZE - 1);

        memcpy(dest, name, n);
        dest[n] = '\0';
}

int plan_start(const Snapshot *s, Uuid uuid, const ApMatrix *m, bool from_host, Plan *ret) {
        CLEANUP(plan_clear) Plan p = { .uuid = uuid };
        PlanStep create = { .type = PLAN_CREATE };
        int r;

        if (from_host) {
                r = append_from_host(&p, s, m);
                if (r < 0)
                        return r;
        }

        copy_name(create.create.parent, PLAN_AP_PARENT);
        copy_name(create.create.type, PLAN_AP_TYPE);
        r = plan_append(&p, &create);
        if (r < 0)
                return r;

        r = append_assign(&p, &(ApMatrix) {}, m);
        if (r < 0)
                return r;

        *ret = p;
        p = (Plan) {};
        return 0;
}

int plan_modify(const Snapshot *s, Uuid uuid, const ApMatrix *m, bool from_host, Plan *ret) {
        CLEANUP(plan_clear) Plan p = { .uuid = uuid };
        const HostMdev *mdev = snapshot_find_mdev(s, uuid);
        int r;

        if (!mdev)
                return -ENOENT;
        if (!mdev->ap || !mdev->matrix_known)
                return -ENODATA;

        if (from_host) {
                r = append_from_host(&p, s, m);
                if (r < 0)
                        return r;
        }

        r = append_assign(&p, &mdev->matrix, m);
        if (r < 0)
                return r;

        *ret = p;
        p = (Plan) {};
        return 0;
}

int plan_stop(const Snapshot *s, Uuid uuid, Plan *ret) {
        Plan p = { .uuid = uuid };
        const HostMdev *mdev = snapshot_find_mdev(s, uuid);
        PlanStep step = { .type = PLAN_REMOVE };
        int r;

        if (!mdev)
                return -ENOENT;

        copy_name(step.remove.parent, snapshot_parent_of(s, mdev)->name);
        copy_name(step.remove.type, snapshot_type_of(s, mdev)->id);
        step.remove.ap = mdev->ap;
        if (mdev->ap && mdev->matrix_known)
                step.remove.before = mdev->matrix;

        r = plan_append(&p, &step);
        if (r < 0)
                return r;

        *ret = p;
        return 0;
}

int plan_masks(const Snapshot *s, const ApMask *apmask, const ApMask *aqmask, Plan *ret) {
        Plan p = {};
        int r;

        r = append_masks(&p, s, apmask, aqmask);
        if (r < 0)
                return r;

        *ret = p;
        return 0;
}
