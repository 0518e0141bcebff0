/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a plan means for a host: whether it may be carried out, what comes of it, how far it got and how to
 * get back. */

#include "core/plan.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

/* The host in the course of a plan. */
typedef struct World {
        const Snapshot *origin;
        Snapshot s;    /* a shallow copy: masks and queues are its own, all arrays are the origin's */
        bool live;     /* the plan's mdev is there, */
        HostMdev mdev; /* and is this; its entry in the origin does not count */
} World;

static void world_init(World *w, Uuid uuid, const Snapshot *s) {
        const HostMdev *mdev = snapshot_find_mdev(s, uuid);

        w->origin = s;
        w->s = *s;
        w->live = mdev;
        w->mdev = mdev ? *mdev : (HostMdev) { .uuid = uuid };
}

static bool type_is_ap(const HostType *t) {
        return strcmp(t->device_api, "vfio-ap") == 0;
}

/* What the kernel will still give of type @t. */
static uint32_t world_available(const World *w, const HostType *t) {
        const HostMdev *was = snapshot_find_mdev(w->origin, w->mdev.uuid);

        return t->available + (was && !w->live && &w->s.types[was->type] == t);
}

/* Any queue in both; the first one goes to *ret. */
static bool find_common(const ApMatrix *a, const ApMatrix *b, Apqn *ret) {
        ApMask adapters = ap_mask_and(&a->adapters, &b->adapters),
               domains = ap_mask_and(&a->domains, &b->domains);

        if (ap_mask_is_empty(&adapters) || ap_mask_is_empty(&domains))
                return false;

        *ret = (Apqn) { (uint8_t) ap_mask_next(&adapters, 0), (uint8_t) ap_mask_next(&domains, 0) };
        return true;
}

/* Whether a live mdev, the plan's own only if @with_own, has a queue of @m. One whose matrix cannot be read
 * is not judged here: the claims count it. */
static bool is_assigned(const World *w, const ApMatrix *m, bool with_own, Apqn *ret) {
        for (size_t i = 0; i < w->s.n_mdevs; i++) {
                const HostMdev *other = &w->s.mdevs[i];

                if (other->ap && other->matrix_known && !uuid_equal(other->uuid, w->mdev.uuid) &&
                    find_common(&other->matrix, m, ret))
                        return true;
        }

        return with_own && w->live && w->mdev.ap && w->mdev.matrix_known &&
               find_common(&w->mdev.matrix, m, ret);
}

static void set_bit(ApMask *m, uint8_t id, bool value) {
        if (value)
                ap_mask_set(m, id);
        else
                ap_mask_clear(m, id);
}

static void apply_masks(World *w, const PlanStep *step) {
        ApMask before[AP_IDS];

        for (unsigned a = 0; a < AP_IDS; a++)
                before[a] = snapshot_host_owned(&w->s, (uint8_t) a);

        w->s.apmask = step->masks.apmask_after;
        w->s.aqmask = step->masks.aqmask_after;

        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask after = snapshot_host_owned(&w->s, (uint8_t) a);
                ApMask lost = ap_mask_and_not(&before[a], &after), won = ap_mask_and_not(&after, &before[a]);

                w->s.queue_vfio[a] = ap_mask_and_not(&w->s.queue_vfio[a], &won);
                if (w->s.vfio_ap) {
                        lost = ap_mask_and(&lost, &w->s.queue_present[a]);
                        w->s.queue_vfio[a] = ap_mask_or(&w->s.queue_vfio[a], &lost);
                }
        }
}

static void apply_create(World *w, const PlanStep *step) {
        const HostType *type = snapshot_find_type(&w->s, step->create.parent, step->create.type);

        if (!type || w->live)
                return;

        w->live = true;
        w->mdev = (HostMdev) {
                .uuid = w->mdev.uuid,
                .type = (uint32_t) (type - w->s.types),
                .use = MDEV_USE_FREE,
                .ap = type_is_ap(type),
                .matrix_known = type_is_ap(type),
        };
}

/* A step that makes no sense on this host changes nothing. */
static void world_apply(World *w, const PlanStep *step) {
        switch (step->type) {
        case PLAN_MASKS:
                apply_masks(w, step);
                break;
        case PLAN_OVERRIDE: {
                Apqn q = step->override.apqn;

                if (ap_mask_test(&w->s.queue_present[q.adapter], q.domain)) {
                        set_bit(&w->s.queue_override[q.adapter], q.domain, step->override.after);
                        ap_mask_clear(&w->s.queue_alien[q.adapter], q.domain);
                        set_bit(&w->s.queue_vfio[q.adapter], q.domain, step->override.after);
                }
                break;
        }
        case PLAN_CREATE:
                apply_create(w, step);
                break;
        case PLAN_ASSIGN:
                if (w->live && w->mdev.ap) {
                        w->mdev.matrix = step->assign.after;
                        w->mdev.matrix_known = true;
                        w->mdev.guest_known = false; /* was read from the kernel */
                }
                break;
        case PLAN_REMOVE:
                w->live = false;
                break;
        default: /* attributes do not show in a snapshot */
                break;
        }
}

static PlanVerdict check_masks(const World *w, const PlanStep *step, Apqn *ret) {
        ApMask back[AP_IDS];
        ApMatrix hull = {}; /* of what goes back: one look at all mdevs is enough where none is near */
        World after = *w;
        Apqn overridden;

        if (!ap_mask_equal(&w->s.apmask, &step->masks.apmask_before) ||
            !ap_mask_equal(&w->s.aqmask, &step->masks.aqmask_before))
                return PLAN_CHANGED;
        if (snapshot_find_override(&w->s, &overridden)) /* the kernel lets nobody change the masks then */
                return PLAN_CHANGED;

        after.s.apmask = step->masks.apmask_after;
        after.s.aqmask = step->masks.aqmask_after;
        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask was = snapshot_host_owned(&w->s, (uint8_t) a),
                       will = snapshot_host_owned(&after.s, (uint8_t) a);

                back[a] = ap_mask_and_not(&will, &was);
                if (!ap_mask_is_empty(&back[a]))
                        ap_mask_set(&hull.adapters, (uint8_t) a);
                hull.domains = ap_mask_or(&hull.domains, &back[a]);
        }
        if (!is_assigned(w, &hull, true, ret))
                return PLAN_OK;

        AP_MASK_FOREACH(a, &hull.adapters) {
                ApMatrix row = { .domains = back[a] };

                ap_mask_set(&row.adapters, (uint8_t) a);
                if (is_assigned(w, &row, true, ret))
                        return PLAN_OVERLAP;
        }

        return PLAN_OK;
}

static PlanVerdict check_override(const World *w, const PlanStep *step, Apqn *ret) {
        Apqn q = step->override.apqn;
        bool override = ap_mask_test(&w->s.queue_override[q.adapter], q.domain);
        bool vfio = ap_mask_test(&w->s.queue_vfio[q.adapter], q.domain);
        bool alien = ap_mask_test(&w->s.queue_alien[q.adapter], q.domain);

        if (!snapshot_masks_are_full(&w->s) || !w->s.has_override)
                return PLAN_CHANGED;
        if (!ap_mask_test(&w->s.queue_present[q.adapter], q.domain)) {
                *ret = q;
                return step->override.after ? PLAN_HOST_OWNED : PLAN_CHANGED;
        }

        /* half given counts as given: this is how an interrupted plan leaves a queue */
        if (step->override.before ? !override && !vfio && !alien : override || alien)
                return PLAN_CHANGED;

        if (!step->override.after) {
                ApMatrix back = {};

                ap_mask_set(&back.adapters, q.adapter);
                ap_mask_set(&back.domains, q.domain);
                if (is_assigned(w, &back, true, ret))
                        return PLAN_OVERLAP;
        }

        return PLAN_OK;
}

static PlanVerdict check_create(const World *w, const PlanStep *step) {
        const HostType *type = snapshot_find_type(&w->s, step->create.parent, step->create.type);

        if (w->live)
                return PLAN_CHANGED;
        if (!type)
                return PLAN_NO_PARENT;
        return world_available(w, type) == 0 ? PLAN_NO_INSTANCES : PLAN_OK;
}

static PlanVerdict check_assign(const World *w, const PlanStep *step, Apqn *ret) {
        const ApMatrix *m = &step->assign.after;

        if (!w->live || !w->mdev.ap || !w->mdev.matrix_known ||
            !ap_matrix_equal(&w->mdev.matrix, &step->assign.before))
                return PLAN_CHANGED;

        AP_MASK_FOREACH(a, &m->adapters) {
                ApMask owned = snapshot_host_owned(&w->s, (uint8_t) a);

                owned = ap_mask_and(&owned, &m->domains);
                if (!ap_mask_is_empty(&owned)) {
                        *ret = (Apqn) { (uint8_t) a, (uint8_t) ap_mask_next(&owned, 0) };
                        return PLAN_HOST_OWNED;
                }
        }

        return is_assigned(w, m, false, ret) ? PLAN_OVERLAP : PLAN_OK;
}

static PlanVerdict check_remove(const World *w, const PlanStep *step) {
        if (!w->live || snapshot_type_of(&w->s, &w->mdev) !=
                                snapshot_find_type(&w->s, step->remove.parent, step->remove.type))
                return PLAN_CHANGED;
        if (w->mdev.use == MDEV_USE_GUEST)
                return PLAN_IN_USE;
        if (w->mdev.ap != step->remove.ap)
                return PLAN_CHANGED;
        if (w->mdev.ap && w->mdev.matrix_known && !ap_matrix_equal(&w->mdev.matrix, &step->remove.before))
                return PLAN_CHANGED;
        return PLAN_OK;
}

static PlanVerdict world_check(const World *w, const PlanStep *step, Apqn *ret) {
        switch (step->type) {
        case PLAN_MASKS:
                return check_masks(w, step, ret);
        case PLAN_OVERRIDE:
                return check_override(w, step, ret);
        case PLAN_CREATE:
                return check_create(w, step);
        case PLAN_ASSIGN:
                return check_assign(w, step, ret);
        case PLAN_REMOVE:
                return check_remove(w, step);
        default:
                return w->live ? PLAN_OK : PLAN_CHANGED;
        }
}

PlanVerdict plan_check(const Plan *p, const Snapshot *s, Apqn *ret_apqn) {
        World w;

        world_init(&w, p->uuid, s);
        for (size_t i = 0; i < p->n_steps; i++) {
                PlanVerdict verdict;
                Apqn q = {};

                verdict = world_check(&w, &p->steps[i], &q);
                if (verdict == PLAN_OVERLAP || verdict == PLAN_HOST_OWNED)
                        *ret_apqn = q;
                if (verdict != PLAN_OK)
                        return verdict;
                world_apply(&w, &p->steps[i]);
        }

        return PLAN_OK;
}

int plan_apply(const Plan *p, Snapshot *s) {
        const HostMdev *was = snapshot_find_mdev(s, p->uuid);
        uint32_t old_type = was ? was->type : 0;
        bool had = was;
        World w;
        int r;

        world_init(&w, p->uuid, s);
        for (size_t i = 0; i < p->n_steps; i++)
                world_apply(&w, &p->steps[i]);

        if (w.live) {
                r = snapshot_put_mdev(s, &w.mdev);
                if (r < 0)
                        return r;
        } else
                snapshot_drop_mdev(s, p->uuid);

        if (had)
                s->types[old_type].available++;
        if (w.live)
                s->types[w.mdev.type].available--;

        s->apmask = w.s.apmask;
        s->aqmask = w.s.aqmask;
        memcpy(s->queue_vfio, w.s.queue_vfio, sizeof s->queue_vfio);
        memcpy(s->queue_override, w.s.queue_override, sizeof s->queue_override);
        memcpy(s->queue_alien, w.s.queue_alien, sizeof s->queue_alien);
        return 0;
}

/* Recovery looks at things, not at steps: the masks, each overridden queue, the mdev. For each the plan says
 * what it is before the first and after the last step about it, and what it may be in between. */

/* One condition of the plan's mdev. */
typedef struct MdevState {
        bool live;
        const char *parent, *type; /* NULL: whatever they are */
        const ApMatrix *matrix;    /* NULL: whatever it is */
        bool removal;              /* an unreadable matrix will do, since it is to go */
} MdevState;

static const ApMatrix no_matrix;

static MdevState state_before(const PlanStep *step) {
        switch (step->type) {
        case PLAN_ASSIGN:
                return (MdevState) { .live = true, .matrix = &step->assign.before };
        case PLAN_REMOVE:
                return (MdevState) { .live = true,
                                     .parent = step->remove.parent,
                                     .type = step->remove.type,
                                     .matrix = step->remove.ap ? &step->remove.before : NULL,
                                     .removal = true };
        default:
                return (MdevState) {};
        }
}

static MdevState state_after(const PlanStep *step) {
        switch (step->type) {
        case PLAN_CREATE:
                return (MdevState) { .live = true,
                                     .parent = step->create.parent,
                                     .type = step->create.type,
                                     .matrix = &no_matrix };
        case PLAN_ASSIGN:
                return (MdevState) { .live = true, .matrix = &step->assign.after };
        default:
                return (MdevState) {};
        }
}

static bool state_holds(const MdevState *state, const World *w) {
        if (w->live != state->live)
                return false;
        if (!state->live)
                return true;
        if (state->type &&
            snapshot_type_of(&w->s, &w->mdev) != snapshot_find_type(&w->s, state->parent, state->type))
                return false;
        if (!state->matrix || !w->mdev.ap)
                return true;
        return w->mdev.matrix_known ? ap_matrix_equal(&w->mdev.matrix, state->matrix) : state->removal;
}

static bool mask_between(const ApMask *before, const ApMask *m, const ApMask *after) {
        ApMask all = ap_mask_or(before, after), common = ap_mask_and(before, after);
        ApMask alien = ap_mask_and_not(m, &all), missing = ap_mask_and_not(&common, m);

        return ap_mask_is_empty(&alien) && ap_mask_is_empty(&missing);
}

/* Without ap_config the kernel is told id by id, and may be left anywhere on the way. */
static bool matrix_between(const World *w, const ApMatrix *before, const ApMatrix *after) {
        const ApMatrix *m = &w->mdev.matrix;

        if (w->s.has_ap_config)
                return ap_matrix_equal(m, before) || ap_matrix_equal(m, after);
        return mask_between(&before->adapters, &m->adapters, &after->adapters) &&
               mask_between(&before->domains, &m->domains, &after->domains) &&
               mask_between(&before->control, &m->control, &after->control);
}

static bool is_mdev_step(const PlanStep *step) {
        return step->type == PLAN_CREATE || step->type == PLAN_ASSIGN || step->type == PLAN_REMOVE;
}

static bool has_attributes(const Plan *p) {
        for (size_t i = 0; i < p->n_steps; i++)
                if (p->steps[i].type == PLAN_ATTR)
                        return true;
        return false;
}

/* Whether the mdev is as @p or its undoing may have left it at some point, so that nobody else has changed
 * it. */
static bool mdev_is_ours(const Plan *p, const World *w) {
        for (size_t i = 0; i < p->n_steps; i++) {
                const PlanStep *step = &p->steps[i];
                MdevState before = state_before(step), after = state_after(step);

                if (!is_mdev_step(step))
                        continue;
                if (state_holds(&before, w) || state_holds(&after, w))
                        return true;
                if (!w->live || !w->mdev.ap)
                        continue;

                switch (step->type) {
                case PLAN_CREATE: /* what attributes did to its matrix cannot be told */
                        if (has_attributes(p) || !w->mdev.matrix_known)
                                return true;
                        break;
                case PLAN_ASSIGN:
                        if (w->mdev.matrix_known &&
                            matrix_between(w, &step->assign.before, &step->assign.after))
                                return true;
                        break;
                default: /* its undoing was interrupted between making and assigning */
                        if (step->remove.ap && matrix_between(w, &no_matrix, &step->remove.before))
                                return true;
                        break;
                }
        }

        return false;
}

static bool override_is(const Snapshot *s, Apqn q, bool given) {
        return ap_mask_test(&s->queue_override[q.adapter], q.domain) == given &&
               !ap_mask_test(&s->queue_alien[q.adapter], q.domain) &&
               ap_mask_test(&s->queue_vfio[q.adapter], q.domain) == given;
}

static bool same_thing(const PlanStep *a, const PlanStep *b) {
        if (is_mdev_step(a) && is_mdev_step(b))
                return true;
        if (a->type != b->type)
                return false;
        return a->type != PLAN_OVERRIDE || (a->override.apqn.adapter == b->override.apqn.adapter &&
                                            a->override.apqn.domain == b->override.apqn.domain);
}

/* The first or the last step of @p about the same thing as step @i. */
static const PlanStep *end_step(const Plan *p, size_t i, bool last) {
        for (size_t j = 0; j < p->n_steps; j++) {
                const PlanStep *step = &p->steps[last ? p->n_steps - 1 - j : j];

                if (same_thing(step, &p->steps[i]))
                        return step;
        }

        return &p->steps[i];
}

static bool is_at_end(const Plan *p, const World *w, bool last) {
        for (size_t i = 0; i < p->n_steps; i++) {
                const PlanStep *step = end_step(p, i, last);
                MdevState state;

                switch (step->type) {
                case PLAN_MASKS:
                        if (!ap_mask_equal(&w->s.apmask,
                                           last ? &step->masks.apmask_after : &step->masks.apmask_before) ||
                            !ap_mask_equal(&w->s.aqmask,
                                           last ? &step->masks.aqmask_after : &step->masks.aqmask_before))
                                return false;
                        break;
                case PLAN_OVERRIDE:
                        if (!override_is(&w->s, step->override.apqn,
                                         last ? step->override.after : step->override.before))
                                return false;
                        break;
                case PLAN_ATTR: /* nothing shows whether it was written: never the end */
                        if (last)
                                return false;
                        break;
                default:
                        state = last ? state_after(step) : state_before(step);
                        if (!state_holds(&state, w))
                                return false;
                        break;
                }
        }

        return true;
}

PlanProgress plan_progress(const Plan *p, const Snapshot *s) {
        World w;

        world_init(&w, p->uuid, s);
        if (is_at_end(p, &w, false))
                return PLAN_NOT_BEGUN;
        return is_at_end(p, &w, true) ? PLAN_FINISHED : PLAN_PARTIAL;
}

/* Way back or forward of one thing, one or a few steps. 0, -ENOMEM or -E2BIG; *ret_foreign if it is not ours
 * to move. */

/* One of the three that a mask is on its way: bits are cleared before others are set. */
static bool is_mask_of(const ApMask *m, const ApMask *before, const ApMask *after) {
        ApMask cleared = ap_mask_and(before, after);

        return ap_mask_equal(m, before) || ap_mask_equal(m, after) || ap_mask_equal(m, &cleared);
}

static int move_masks(const Plan *p, const World *w, const PlanStep *end, bool forward, Plan *ret,
                      bool *ret_foreign) {
        PlanStep step = { .type = PLAN_MASKS };
        bool our_apmask = false, our_aqmask = false;

        step.masks.apmask_before = w->s.apmask;
        step.masks.aqmask_before = w->s.aqmask;
        step.masks.apmask_after = forward ? end->masks.apmask_after : end->masks.apmask_before;
        step.masks.aqmask_after = forward ? end->masks.aqmask_after : end->masks.aqmask_before;
        if (ap_mask_equal(&w->s.apmask, &step.masks.apmask_after) &&
            ap_mask_equal(&w->s.aqmask, &step.masks.aqmask_after))
                return 0;

        /* two attributes: one may be written and the other not yet */
        for (size_t i = 0; i < p->n_steps; i++) {
                const PlanStep *m = &p->steps[i];

                if (m->type != PLAN_MASKS)
                        continue;
                our_apmask |= is_mask_of(&w->s.apmask, &m->masks.apmask_before, &m->masks.apmask_after);
                our_aqmask |= is_mask_of(&w->s.aqmask, &m->masks.aqmask_before, &m->masks.aqmask_after);
        }
        if (!our_apmask || !our_aqmask) {
                *ret_foreign = true;
                return 0;
        }

        return plan_append(ret, &step);
}

static int move_override(const World *w, const PlanStep *end, bool forward, Plan *ret) {
        PlanStep step = { .type = PLAN_OVERRIDE };

        step.override.apqn = end->override.apqn;
        step.override.after = forward ? end->override.after : end->override.before;
        if (override_is(&w->s, step.override.apqn, step.override.after))
                return 0;

        step.override.before =
                !step.override.after ||
                ap_mask_test(&w->s.queue_override[step.override.apqn.adapter], step.override.apqn.domain) ||
                ap_mask_test(&w->s.queue_alien[step.override.apqn.adapter], step.override.apqn.domain);
        return plan_append(ret, &step);
}

static int append_remove(const World *w, Plan *ret) {
        PlanStep step = { .type = PLAN_REMOVE };

        memcpy(step.remove.parent, snapshot_parent_of(&w->s, &w->mdev)->name, sizeof step.remove.parent);
        memcpy(step.remove.type, snapshot_type_of(&w->s, &w->mdev)->id, sizeof step.remove.type);
        step.remove.ap = w->mdev.ap;
        if (w->mdev.ap && w->mdev.matrix_known)
                step.remove.before = w->mdev.matrix;
        return plan_append(ret, &step);
}

/* Parent and type that the plan's mdev has, as far as the plan knows. */
static const PlanStep *step_with_type(const Plan *p) {
        for (size_t i = 0; i < p->n_steps; i++)
                if (p->steps[i].type == PLAN_CREATE || p->steps[i].type == PLAN_REMOVE)
                        return &p->steps[i];
        return NULL;
}

static int append_create(const Plan *p, Plan *ret) {
        const PlanStep *from = step_with_type(p);
        PlanStep step = { .type = PLAN_CREATE };

        if (from->type == PLAN_CREATE)
                step.create = from->create;
        else {
                memcpy(step.create.parent, from->remove.parent, sizeof step.create.parent);
                memcpy(step.create.type, from->remove.type, sizeof step.create.type);
        }
        return plan_append(ret, &step);
}

static int append_assign(const ApMatrix *before, const ApMatrix *after, Plan *ret) {
        PlanStep step = { .type = PLAN_ASSIGN };

        if (ap_matrix_equal(before, after))
                return 0;

        step.assign.before = *before;
        step.assign.after = *after;
        return plan_append(ret, &step);
}

static int append_attributes(const Plan *p, Plan *ret) {
        for (size_t i = 0; i < p->n_steps; i++) {
                int r;

                if (p->steps[i].type != PLAN_ATTR)
                        continue;
                r = plan_append(ret, &p->steps[i]);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int move_mdev(const Plan *p, const World *w, const PlanStep *end, bool forward, Plan *ret,
                     bool *ret_foreign) {
        MdevState target = forward ? state_after(end) : state_before(end);
        bool attributes = forward && target.live && has_attributes(p);
        int r;

        if (state_holds(&target, w) && !attributes)
                return 0;
        if (!mdev_is_ours(p, w)) {
                *ret_foreign = true;
                return 0;
        }
        if (!target.live)
                return append_remove(w, ret);

        if (!w->live) {
                r = append_create(p, ret);
                if (r >= 0 && target.matrix)
                        r = append_assign(&no_matrix, target.matrix, ret);
        } else if (!w->mdev.ap || !target.matrix)
                r = 0;
        else if (w->mdev.matrix_known)
                r = append_assign(&w->mdev.matrix, target.matrix, ret);
        else {
                *ret_foreign = true;
                return 0;
        }

        return r >= 0 && attributes ? append_attributes(p, ret) : r;
}

/* Moves everything that @p touches to where it was before it, or forward to where it is to be. */
static int plan_move(const Plan *p, const Snapshot *s, bool forward, Plan *ret, bool *ret_foreign) {
        CLEANUP(plan_clear) Plan moved = { .uuid = p->uuid };
        bool foreign = false;
        World w;
        int r;

        world_init(&w, p->uuid, s);

        for (size_t i = 0; i < p->n_steps; i++) {
                size_t index = forward ? i : p->n_steps - 1 - i;
                const PlanStep *step = &p->steps[index], *end = end_step(p, index, forward);
                CLEANUP(plan_clear) Plan part = { .uuid = p->uuid };
                bool refused = false;

                /* a thing is moved when it is met first, going this way */
                if (step->type == PLAN_ATTR || end_step(p, index, !forward) != step)
                        continue;

                if (step->type == PLAN_MASKS)
                        r = move_masks(p, &w, end, forward, &part, &foreign);
                else if (step->type == PLAN_OVERRIDE)
                        r = move_override(&w, end, forward, &part);
                else
                        r = move_mdev(p, &w, end, forward, &part, &foreign);
                if (r < 0)
                        return r;

                /* what others have built upon our change since keeps it from being moved: all of it or
                 * nothing */
                for (size_t j = 0; j < part.n_steps && !refused; j++) {
                        PlanVerdict verdict;
                        World next = w;
                        Apqn q;

                        for (size_t k = 0; k < j; k++)
                                world_apply(&next, &part.steps[k]);
                        verdict = world_check(&next, &part.steps[j], &q);
                        refused = verdict == PLAN_CHANGED || verdict == PLAN_OVERLAP ||
                                  verdict == PLAN_HOST_OWNED;
                }
                if (refused) {
                        foreign = true;
                        continue;
                }

                for (size_t j = 0; j < part.n_steps; j++) {
                        r = plan_append(&moved, &part.steps[j]);
                        if (r < 0)
                                return r;
                        world_apply(&w, &part.steps[j]);
                }
        }

        *ret = moved;
        *ret_foreign = foreign;
        moved = (Plan) {};
        return 0;
}

int plan_undo(const Plan *p, const Snapshot *s, Plan *ret, bool *ret_foreign) {
        return plan_move(p, s, false, ret, ret_foreign);
}

int plan_finish(const Plan *p, const Snapshot *s, Plan *ret, bool *ret_foreign) {
        return plan_move(p, s, true, ret, ret_foreign);
}
