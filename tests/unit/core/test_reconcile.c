/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/reconcile.h"

#include "base/cleanup.h"
#include "tests/lib/core/oracle.h"

static const Uuid own = { { 0xaa } };

static ApMatrix matrix(uint8_t adapter, uint8_t domain) {
        ApMatrix m = {};

        ap_mask_set(&m.adapters, adapter);
        ap_mask_set(&m.domains, domain);
        return m;
}

static Snapshot *host(void) {
        Snapshot *s = snapshot_new();

        s->ap = s->vfio_ap = s->has_ap_config = true;
        s->n_parents = s->n_types = 1;
        s->parents = calloc(1, sizeof *s->parents);
        s->types = calloc(1, sizeof *s->types);
        strcpy(s->parents->name, "matrix");
        strcpy(s->types->id, "vfio_ap-passthrough");
        strcpy(s->types->device_api, "vfio-ap");
        s->types->available = 10;
        return s;
}

static void test_drift(void **state) {
        static const struct {
                const char *name;
                bool started, live, ap, known, same;
                Drift drift;
                size_t n_steps;
        } cases[] = {
                { "neither wanted nor there", false, false, false, false, false, DRIFT_NONE, 0 },
                { "as wanted", true, true, true, true, true, DRIFT_NONE, 0 },
                { "lost", true, false, false, false, false, DRIFT_LOST, 2 },
                { "changed", true, true, true, true, false, DRIFT_CHANGED, 1 },
                { "unreadable", true, true, true, false, false, DRIFT_UNKNOWN, 0 },
                { "of another kind", true, true, false, false, false, DRIFT_UNKNOWN, 0 },
                { "stray", false, true, true, true, true, DRIFT_STRAY, 0 },
                { "stray and unreadable", false, true, true, false, true, DRIFT_STRAY, 0 },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                CLEANUP(snapshot_freep) Snapshot *s = host();
                CLEANUP(plan_clear) Plan p = {};
                ApMatrix wanted = matrix(5, 1), is = cases[i].same ? wanted : matrix(6, 1);
                Wanted w = { own, &wanted, cases[i].started, false };
                Drift drift;
                Apqn q;

                if (cases[i].live) {
                        HostMdev m = {
                                .uuid = own, .ap = cases[i].ap, .matrix_known = cases[i].known, .matrix = is
                        };

                        assert_int_equal(snapshot_put_mdev(s, &m), 0);
                }

                drift = reconcile_one(&w, s);
                assert_case(cases[i].name, drift == cases[i].drift);
                assert_int_equal(reconcile_plan(&w, drift, s, &p), 0);
                assert_case(cases[i].name, p.n_steps == cases[i].n_steps);
                assert_case(cases[i].name, uuid_equal(p.uuid, own));

                /* what it heals is healed */
                assert_case(cases[i].name, plan_check(&p, s, &q) == PLAN_OK);
                assert_int_equal(plan_apply(&p, s), 0);
                if (p.n_steps > 0)
                        assert_case(cases[i].name, reconcile_one(&w, s) == DRIFT_NONE);
        }
}

/* Control domains alone are a drift too. */
static void test_control_drift(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        ApMatrix wanted = matrix(5, 1);
        HostMdev m = { .uuid = own, .ap = true, .matrix_known = true, .matrix = wanted };
        Wanted w = { own, &wanted, true, false };

        ap_mask_set(&m.matrix.control, 7);
        assert_int_equal(snapshot_put_mdev(s, &m), 0);
        assert_int_equal(reconcile_one(&w, s), DRIFT_CHANGED);
}

/* After a boot the masks are as they were before we took something from the host's drivers. */
static void test_from_host(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan without = {}, with = {};
        ApMatrix wanted = matrix(5, 1);
        Wanted w = { own, &wanted, true, false };
        Apqn q = {};

        s->apmask = s->aqmask = AP_MASK_ALL;
        assert_int_equal(reconcile_plan(&w, DRIFT_LOST, s, &without), 0);
        assert_int_equal(plan_check(&without, s, &q), PLAN_HOST_OWNED);
        w.from_host = true;
        assert_int_equal(reconcile_plan(&w, DRIFT_LOST, s, &with), 0);
        assert_int_equal(plan_check(&with, s, &q), PLAN_OK);
}

static void test_intent(void **state) {
        static const struct {
                const char *name;
                size_t done;
                bool finish, alien;
                Recovery recovery;
                size_t n_steps;
        } cases[] = {
                { "not begun", 0, false, false, RECOVERY_FORGET, 0 },
                { "not begun, better finished", 0, true, false, RECOVERY_FORGET, 0 },
                { "made", 1, false, false, RECOVERY_UNDO, 1 },
                { "made, better finished", 1, true, false, RECOVERY_UNDO, 1 },
                { "all done", 2, false, false, RECOVERY_FINISH, 0 },
                { "all done, better finished", 2, true, false, RECOVERY_FINISH, 0 },
                { "changed by others", 2, false, true, RECOVERY_UNDO, 0 },
                { "changed by others, better finished", 2, true, true, RECOVERY_UNDO, 0 },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                CLEANUP(snapshot_freep) Snapshot *s = host();
                CLEANUP(plan_clear) Plan p = {}, way = {};
                ApMatrix m = matrix(5, 1);
                Recovery recovery = _RECOVERY_MAX;
                bool foreign = !cases[i].alien;

                assert_int_equal(plan_start(s, own, &m, false, &p), 0);
                assert_int_equal(plan_apply(&(Plan) { own, p.steps, cases[i].done }, s), 0);
                if (cases[i].alien)
                        ap_mask_set(&snapshot_find_mdev(s, own)->matrix.domains, 9);

                assert_int_equal(reconcile_intent(&p, cases[i].finish, s, &recovery, &way, &foreign), 0);
                assert_case(cases[i].name, recovery == cases[i].recovery);
                assert_case(cases[i].name, foreign == cases[i].alien);
                assert_case(cases[i].name, way.n_steps == cases[i].n_steps);
                if (way.n_steps > 0) {
                        assert_case(cases[i].name,
                                    way.steps[0].type == (cases[i].finish ? PLAN_ASSIGN : PLAN_REMOVE));
                        assert_int_equal(plan_apply(&way, s), 0);
                        assert_case(cases[i].name,
                                    plan_progress(&p, s) ==
                                            (cases[i].finish ? PLAN_FINISHED : PLAN_NOT_BEGUN));
                }
        }
}

/* Removed means stopped, also after the mdev was emptied by an undoing that was cut short. */
static void test_stop_intent(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = {}, none = {}, way = {};
        ApMatrix m = matrix(5, 1);
        HostMdev mdev = { .uuid = own, .ap = true, .matrix_known = true, .matrix = m };
        Recovery recovery;
        bool foreign;

        assert_int_equal(snapshot_put_mdev(s, &mdev), 0);
        assert_int_equal(plan_stop(s, own, &p), 0);
        assert_int_equal(reconcile_intent(&p, true, s, &recovery, &none, &foreign), 0);
        assert_int_equal(recovery, RECOVERY_FORGET);

        snapshot_find_mdev(s, own)->matrix = (ApMatrix) {};
        assert_int_equal(reconcile_intent(&p, true, s, &recovery, &way, &foreign), 0);
        assert_true(recovery == RECOVERY_UNDO && !foreign && way.n_steps == 1);
        assert_int_equal(way.steps[0].type, PLAN_REMOVE);

        snapshot_drop_mdev(s, own);
        assert_int_equal(reconcile_intent(&p, true, s, &recovery, &none, &foreign), 0);
        assert_int_equal(recovery, RECOVERY_FINISH);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_drift),       cmocka_unit_test(test_control_drift),
                cmocka_unit_test(test_from_host),   cmocka_unit_test(test_intent),
                cmocka_unit_test(test_stop_intent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
