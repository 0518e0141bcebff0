/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/reconcile.h"

#include <errno.h>

Drift reconcile_one(const Wanted *w, const Snapshot *s) {
        const HostMdev *mdev = snapshot_find_mdev(s, w->uuid);

        if (!mdev)
                return w->started ? DRIFT_LOST : DRIFT_NONE;
        if (!w->started)
                return DRIFT_STRAY;
        if (!mdev->ap || !mdev->matrix_known)
                return DRIFT_UNKNOWN;
        return ap_matrix_equal(&mdev->matrix, w->matrix) ? DRIFT_NONE : DRIFT_CHANGED;
}

int reconcile_plan(const Wanted *w, Drift drift, const Snapshot *s, Plan *ret) {
        switch (drift) {
        case DRIFT_LOST:
                return plan_start(s, w->uuid, w->matrix, w->from_host, ret);
        case DRIFT_CHANGED:
                return plan_modify(s, w->uuid, w->matrix, w->from_host, ret);
        default:
                *ret = (Plan) { .uuid = w->uuid };
                return 0;
        }
}

int reconcile_intent(const Plan *p, bool wants_finish, const Snapshot *s, Recovery *ret, Plan *ret_undo,
                     bool *ret_foreign) {
        bool foreign = false;
        Plan way = { .uuid = p->uuid };
        int r;

        switch (plan_progress(p, s)) {
        case PLAN_NOT_BEGUN:
                *ret = RECOVERY_FORGET;
                break;
        case PLAN_FINISHED:
                *ret = RECOVERY_FINISH;
                break;
        default:
                r = wants_finish ? plan_finish(p, s, &way, &foreign) : plan_undo(p, s, &way, &foreign);
                if (r < 0)
                        return r;
                *ret = RECOVERY_UNDO;
                break;
        }

        *ret_undo = way;
        *ret_foreign = foreign;
        return 0;
}
