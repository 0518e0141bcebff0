/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Plans that were interrupted: random hosts, random plans, every prefix, half steps, crashes while undoing,
 * and others who change the host meanwhile. */

#include "base/cleanup.h"
#include "core/plan.h"
#include "tests/lib/core/oracle.h"

enum { LIMIT = 6 };

static const Uuid own = { { 0xaa } }, alien = { { 0xcc } };

/* Some plan that may be carried out on @s. False: none came up. */
static bool random_plan(Rng *rng, Snapshot *s, Plan *ret) {
        ApMatrix m = random_matrix(rng, LIMIT, 2 + rng_below(rng, 2));
        ApMask masks[2] = { s->apmask, s->aqmask };
        Apqn q;

        if (s->n_mdevs > 0 && rng_one_in(rng, 2)) {
                Uuid uuid = s->mdevs[rng_below(rng, (unsigned) s->n_mdevs)].uuid;

                if (rng_one_in(rng, 2) || !snapshot_find_mdev(s, uuid)->ap)
                        assert_int_equal(plan_stop(s, uuid, ret), 0);
                else
                        assert_int_equal(plan_modify(s, uuid, &m, rng_one_in(rng, 2), ret), 0);
        } else if (rng_one_in(rng, 4)) {
                masks[rng_below(rng, 2)] = random_mask(rng, LIMIT, 2);
                masks[rng_below(rng, 2)] = random_mask(rng, LIMIT, 2);
                assert_int_equal(plan_masks(s, &masks[0], &masks[1], ret), 0);
        } else if (rng_one_in(rng, 5)) {
                PlanStep create = { .type = PLAN_CREATE, .create = { "mtty", "mtty-1" } };

                *ret = (Plan) { .uuid = own };
                assert_int_equal(plan_append(ret, &create), 0);
        } else
                assert_int_equal(plan_start(s, own, &m, !rng_one_in(rng, 4), ret), 0);

        if (ret->n_steps > 0 && plan_check(ret, s, &q) == PLAN_OK)
                return true;
        plan_clear(ret);
        return false;
}

static Snapshot *after_prefix(const Snapshot *s, const Plan *p, size_t n) {
        Plan prefix = { p->uuid, p->steps, n };
        Snapshot *copy = snapshot_copy(s);

        assert_int_equal(plan_apply(&prefix, copy), 0);
        return copy;
}

/* Undoes @p on @s and expects @before, and the same if undoing is interrupted anywhere. */
static void expect_undone(const Plan *p, const Snapshot *s, const Snapshot *before) {
        CLEANUP(plan_clear) Plan undo = {};
        bool foreign = true;
        Apqn q;

        assert_int_equal(plan_undo(p, s, &undo, &foreign), 0);
        assert_false(foreign);
        assert_int_equal(plan_check(&undo, s, &q), PLAN_OK);

        for (size_t n = 0; n <= undo.n_steps; n++) {
                CLEANUP(snapshot_freep) Snapshot *between = after_prefix(s, &undo, n);
                CLEANUP(plan_clear) Plan rest = {};

                assert_int_equal(plan_undo(p, between, &rest, &foreign), 0);
                assert_false(foreign);
                assert_int_equal(plan_check(&rest, between, &q), PLAN_OK);
                assert_int_equal(plan_apply(&rest, between), 0);
                assert_true(snapshots_agree(between, before));
        }
}

static void expect_finished(const Plan *p, const Snapshot *s, const Snapshot *after) {
        CLEANUP(snapshot_freep) Snapshot *copy = snapshot_copy(s);
        CLEANUP(plan_clear) Plan rest = {};
        bool foreign = true;
        Apqn q;

        assert_int_equal(plan_finish(p, s, &rest, &foreign), 0);
        assert_false(foreign);
        assert_int_equal(plan_check(&rest, s, &q), PLAN_OK);
        assert_int_equal(plan_apply(&rest, copy), 0);
        assert_true(snapshots_agree(copy, after));
}

static void test_prefixes(void **state) {
        Rng rng = rng_new();
        int plans = 0;

        for (int round = 0; round < 2000; round++) {
                CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, LIMIT);
                CLEANUP(snapshot_freep) Snapshot *after = NULL;
                CLEANUP(plan_clear) Plan p = {};

                if (!random_plan(&rng, s, &p))
                        continue;

                plans++;
                after = after_prefix(s, &p, p.n_steps);
                for (size_t n = 0; n <= p.n_steps; n++) {
                        CLEANUP(snapshot_freep) Snapshot *between = after_prefix(s, &p, n);

                        assert_int_equal(plan_progress(&p, between), n == 0           ? PLAN_NOT_BEGUN
                                                                     : n == p.n_steps ? PLAN_FINISHED
                                                                                      : PLAN_PARTIAL);
                        expect_undone(&p, between, s);
                        expect_finished(&p, between, after);
                }
        }
        assert_true(plans > 300);
}

/* One attribute of the two is written, the override but not the binding, some ids of a matrix: what a crash
 * within a step leaves. False: the step is a single write. */
static bool half_step(Rng *rng, const PlanStep *step, Uuid uuid, Snapshot *s) {
        HostMdev *mdev = snapshot_find_mdev(s, uuid);

        switch (step->type) {
        case PLAN_MASKS: {
                Plan half = { .steps = &(PlanStep) { .type = PLAN_MASKS, .masks = step->masks },
                              .n_steps = 1 };

                if (ap_mask_equal(&step->masks.apmask_before, &step->masks.apmask_after) ||
                    ap_mask_equal(&step->masks.aqmask_before, &step->masks.aqmask_after))
                        return false;
                if (rng_one_in(rng, 2))
                        half.steps->masks.apmask_after = half.steps->masks.apmask_before;
                else
                        half.steps->masks.aqmask_after = half.steps->masks.aqmask_before;
                assert_int_equal(plan_apply(&half, s), 0);
                return true;
        }
        case PLAN_OVERRIDE:
                if (rng_one_in(rng, 2))
                        ap_mask_set(&s->queue_override[step->override.apqn.adapter],
                                    step->override.apqn.domain);
                else
                        ap_mask_set(&s->queue_vfio[step->override.apqn.adapter], step->override.apqn.domain);
                return true;
        case PLAN_ASSIGN: {
                ApMask added, some;

                if (s->has_ap_config || !ap_mask_is_empty(&step->assign.before.adapters))
                        return false;
                added = ap_mask_and_not(&step->assign.after.adapters, &step->assign.before.adapters);
                some = random_mask(rng, LIMIT, 2);
                added = ap_mask_and(&added, &some);
                mdev->matrix.adapters = ap_mask_or(&mdev->matrix.adapters, &added);
                return !ap_mask_is_empty(&added) && !ap_matrix_equal(&mdev->matrix, &step->assign.after);
        }
        default:
                return false;
        }
}

static void test_half_steps(void **state) {
        int halves[_PLAN_STEP_MAX] = {};
        Rng rng = rng_new();

        for (int round = 0; round < 3000; round++) {
                CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, LIMIT);
                CLEANUP(snapshot_freep) Snapshot *after = NULL;
                CLEANUP(plan_clear) Plan p = {};

                if (!random_plan(&rng, s, &p))
                        continue;

                after = after_prefix(s, &p, p.n_steps);
                for (size_t n = 0; n < p.n_steps; n++) {
                        CLEANUP(snapshot_freep) Snapshot *between = after_prefix(s, &p, n);

                        if (!half_step(&rng, &p.steps[n], p.uuid, between))
                                continue;
                        halves[p.steps[n].type]++;
                        assert_int_equal(plan_progress(&p, between), PLAN_PARTIAL);
                        expect_undone(&p, between, s);
                        if (p.steps[n].type != PLAN_ASSIGN)
                                expect_finished(&p, between, after);
                }
        }
        assert_true(halves[PLAN_MASKS] > 10 && halves[PLAN_OVERRIDE] > 10 && halves[PLAN_ASSIGN] > 10);
}

/* After some of the plan somebody else changes something. Undoing and finishing never touch that. */
static void test_interference(void **state) {
        int seen[4] = {};
        Rng rng = rng_new();

        for (int round = 0; round < 4000; round++) {
                CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, LIMIT);
                CLEANUP(snapshot_freep) Snapshot *now = NULL, *then = NULL;
                CLEANUP(plan_clear) Plan p = {}, way = {};
                HostMdev *mdev, foreign_mdev = { .uuid = alien, .ap = true, .matrix_known = true };
                unsigned kind = rng_below(&rng, 4);
                bool foreign = false, forward = rng_one_in(&rng, 2);
                ApMatrix taken;
                PlanVerdict v;
                Apqn q;

                if (!random_plan(&rng, s, &p))
                        continue;
                now = after_prefix(s, &p, rng_below(&rng, (unsigned) p.n_steps + 1));
                mdev = snapshot_find_mdev(now, p.uuid);

                if (kind == 0) { /* the mdev gets an id that neither before nor after has */
                        if (!mdev || !mdev->ap)
                                continue;
                        ap_mask_set(&mdev->matrix.control, 200);
                } else if (kind == 1) { /* the masks */
                        ApMask *mask = rng_one_in(&rng, 2) ? &now->apmask : &now->aqmask;

                        if (ap_mask_test(mask, 200))
                                ap_mask_clear(mask, 200);
                        else
                                ap_mask_set(mask, 200);
                } else if (kind == 2) { /* a live mdev that is only changed is gone */
                        if (!mdev || p.steps[p.n_steps - 1].type != PLAN_ASSIGN ||
                            !snapshot_find_mdev(s, p.uuid))
                                continue;
                        now->types[mdev->type].available++;
                        snapshot_drop_mdev(now, p.uuid);
                } else { /* another mdev takes a queue that is free now */
                        unsigned a = rng_below(&rng, LIMIT), d = rng_below(&rng, LIMIT);
                        ApMask owned = snapshot_host_owned(now, (uint8_t) a);
                        bool busy = ap_mask_test(&owned, (uint8_t) d);

                        ap_mask_set(&foreign_mdev.matrix.adapters, (uint8_t) a);
                        ap_mask_set(&foreign_mdev.matrix.domains, (uint8_t) d);
                        for (size_t i = 0; i < now->n_mdevs; i++)
                                busy = busy || (now->mdevs[i].ap &&
                                                ap_matrix_has(&now->mdevs[i].matrix,
                                                              (Apqn) { (uint8_t) a, (uint8_t) d }));
                        if (busy)
                                continue;
                        assert_int_equal(snapshot_put_mdev(now, &foreign_mdev), 0);
                        now->types[0].available--;
                }
                seen[kind]++;
                mdev = snapshot_find_mdev(now, p.uuid);
                taken = mdev ? mdev->matrix : (ApMatrix) {};

                assert_int_equal((forward ? plan_finish : plan_undo)(&p, now, &way, &foreign), 0);
                v = plan_check(&way, now, &q);
                assert_int_equal(v, PLAN_OK);
                then = after_prefix(now, &way, way.n_steps);

                switch (kind) {
                case 0:
                        assert_true(foreign);
                        assert_non_null(snapshot_find_mdev(then, p.uuid));
                        assert_true(ap_matrix_equal(&snapshot_find_mdev(then, p.uuid)->matrix, &taken));
                        break;
                case 1:
                        assert_true(ap_mask_equal(&then->apmask, &now->apmask));
                        assert_true(ap_mask_equal(&then->aqmask, &now->aqmask));
                        break;
                case 2:
                        assert_true(foreign);
                        assert_null(snapshot_find_mdev(then, p.uuid));
                        break;
                default: {
                        const HostMdev *still = snapshot_find_mdev(then, alien);

                        assert_true(still && ap_matrix_equal(&still->matrix, &foreign_mdev.matrix));
                        for (size_t i = 0; i < then->n_mdevs; i++)
                                assert_true(&then->mdevs[i] == still || !then->mdevs[i].ap ||
                                            !(ap_mask_intersects(&then->mdevs[i].matrix.adapters,
                                                                 &still->matrix.adapters) &&
                                              ap_mask_intersects(&then->mdevs[i].matrix.domains,
                                                                 &still->matrix.domains)));
                        AP_MASK_FOREACH(a, &still->matrix.adapters) {
                                ApMask owned = snapshot_host_owned(then, (uint8_t) a);

                                assert_false(ap_mask_intersects(&owned, &still->matrix.domains));
                        }
                }
                }
        }
        for (size_t i = 0; i < 4; i++)
                assert_true(seen[i] > 20);
}

/* Attributes do not show: a plan that writes some has never ended for sure, and what it made is removed. */
static void test_attributes(void **state) {
        Rng rng = rng_new();
        CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, LIMIT);
        CLEANUP(snapshot_freep) Snapshot *after = NULL;
        CLEANUP(plan_clear) Plan p = { .uuid = own }, undo = {}, rest = {};
        PlanStep create = { .type = PLAN_CREATE, .create = { "mtty", "mtty-1" } };
        PlanStep attr = { .type = PLAN_ATTR, .attr = { "speed", "9600" } };
        bool foreign;

        assert_int_equal(plan_append(&p, &create), 0);
        assert_int_equal(plan_append(&p, &attr), 0);
        assert_int_equal(plan_progress(&p, s), PLAN_NOT_BEGUN);

        after = after_prefix(s, &p, 2);
        assert_int_equal(plan_progress(&p, after), PLAN_PARTIAL);
        expect_undone(&p, after, s);
        assert_int_equal(plan_undo(&p, after, &undo, &foreign), 0);
        assert_int_equal(undo.n_steps, 1);
        assert_int_equal(plan_finish(&p, after, &rest, &foreign), 0);
        assert_int_equal(rest.n_steps, 1);
        assert_string_equal(rest.steps[0].attr.name, "speed");
}

/* Where the kernel has no ap_config the matrix of what a plan made may be unreadable. */
static void test_unreadable(void **state) {
        Rng rng = rng_new();
        CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, LIMIT);
        CLEANUP(snapshot_freep) Snapshot *now = NULL;
        CLEANUP(plan_clear) Plan start = {}, modify = {}, stop = {}, way = {};
        ApMatrix none = {}, m = none;
        bool foreign;
        Apqn q;

        ap_mask_set(&m.control, 1);
        assert_int_equal(plan_start(s, own, &m, false, &start), 0);
        now = after_prefix(s, &start, 2);
        assert_int_equal(plan_modify(now, own, &none, false, &modify), 0);
        snapshot_find_mdev(now, own)->matrix_known = false;

        assert_int_equal(plan_progress(&start, now), PLAN_PARTIAL);
        expect_undone(&start, now, s);

        assert_int_equal(plan_undo(&modify, now, &way, &foreign), 0);
        assert_true(foreign && way.n_steps == 0);
        assert_int_equal(plan_stop(now, own, &stop), 0);
        assert_int_equal(plan_check(&stop, now, &q), PLAN_OK);
        assert_int_equal(plan_progress(&stop, now), PLAN_NOT_BEGUN);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_prefixes),     cmocka_unit_test(test_half_steps),
                cmocka_unit_test(test_interference), cmocka_unit_test(test_attributes),
                cmocka_unit_test(test_unreadable),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
