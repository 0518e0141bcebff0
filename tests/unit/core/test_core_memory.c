/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every single allocation of core/ fails once: -ENOMEM, and nothing has changed. */

#include <errno.h>

#include "base/cleanup.h"
#include "core/reconcile.h"
#include "tests/lib/core/failing_alloc.h"
#include "tests/lib/core/oracle.h"

static const Uuid own = { { 0xaa } };

/* Calls @expression, of type int, with each of its allocations failing in turn, until none fails; @unchanged
 * holds after each failure. */
#define TRY_ALL(expression, unchanged) \
        do { \
                for (int n = 0;; n++) { \
                        int r; \
\
                        failing_alloc_arm(n); \
                        r = (expression); \
                        if (!failing_alloc_done()) { \
                                assert_int_equal(r, 0); \
                                assert_true(n > 0); \
                                break; \
                        } \
                        assert_int_equal(r, -ENOMEM); \
                        assert_true(unchanged); \
                } \
        } while (0)

static void test_claims(void **state) {
        CLEANUP(claim_table_freep) ClaimTable *t = NULL;
        CLEANUP(freep) Conflict *conflicts = NULL;
        ApMatrix m = { ap_mask_up_to(3), ap_mask_up_to(3), {} },
                 more = { ap_mask_up_to(9), ap_mask_up_to(9), {} };
        char name[] = "payments";
        Claim c = { .layer = CLAIM_LAYER_MDEV, .uuid = own, .name = name, .matrix = m };
        ClaimQuery q = { .matrix = &more, .layers = CLAIM_LAYER_BIT(CLAIM_LAYER_MDEV) };
        size_t n_conflicts = 0;

        for (int n = 0;; n++) {
                failing_alloc_arm(n);
                t = claim_table_new();
                if (!failing_alloc_done())
                        break;
                assert_null(t);
        }

        TRY_ALL(claim_table_put(t, &c),
                claim_check(t, &q) == CLAIM_FREE && !claim_table_get(t, c.layer, own));

        c.matrix = more;
        c.name = NULL;
        TRY_ALL(claim_table_put(t, &c),
                ap_matrix_equal(&claim_table_get(t, c.layer, own)->matrix, &m) &&
                        strcmp(claim_table_get(t, c.layer, own)->name, "payments") == 0 &&
                        !claim_owner(t, c.layer, (Apqn) { 9, 9 }));

        TRY_ALL(claim_conflicts(t, &q, &conflicts, &n_conflicts), !conflicts && n_conflicts == 0);
        assert_int_equal(n_conflicts, 100);

        /* the look-up grows, or stays as it is: both are right */
        for (unsigned i = 0; i < 300; i++) {
                Claim many = { .layer = CLAIM_LAYER_EXCLUSIVE };

                memcpy(many.uuid.b, &i, sizeof i);
                for (int n = 0;; n++) {
                        failing_alloc_arm(n);
                        (void) claim_table_put(t, &many);
                        if (!failing_alloc_done())
                                break;
                }
                for (unsigned j = 0; j <= i; j += 37) {
                        memcpy(many.uuid.b, &j, sizeof j);
                        assert_non_null(claim_table_get(t, CLAIM_LAYER_EXCLUSIVE, many.uuid));
                }
        }
}

static void test_snapshots(void **state) {
        Rng rng = rng_new();
        CLEANUP(snapshot_freep)
        Snapshot *s = random_snapshot(&rng, 6), *before = snapshot_copy(s), *copy = NULL;
        HostMdev m = { .uuid = own };

        s->n_cards = 1;
        s->cards = calloc(1, sizeof *s->cards);
        for (int n = 0;; n++) {
                failing_alloc_arm(n);
                copy = snapshot_copy(s);
                if (!failing_alloc_done())
                        break;
                assert_null(copy);
        }
        assert_true(snapshots_agree(copy, before));
        TRY_ALL(snapshot_put_mdev(s, &m), snapshots_agree(s, before));
}

static void test_plans(void **state) {
        Rng rng = rng_new();
        CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, 6), *before = NULL;
        CLEANUP(plan_clear)
        Plan p = {}, copy = {}, back = {}, undo = {}, finish = {}, modify = {}, stop = {}, heal = {},
             rest = {};
        CLEANUP(freep) char *text = NULL;
        ApMatrix m = { ap_mask_up_to(1), ap_mask_up_to(1), {} },
                 other = { ap_mask_up_to(0), ap_mask_up_to(0), {} };
        Recovery recovery = _RECOVERY_MAX;
        Wanted w = { own, &m, true, true };
        bool foreign = false;

        s->n_mdevs = 0;
        s->has_ap_config = true;
        memset(s->queue_override, 0, sizeof s->queue_override);
        s->apmask = s->aqmask = AP_MASK_ALL;
        before = snapshot_copy(s);

        TRY_ALL(plan_start(s, own, &m, true, &p), !p.steps);
        assert_int_equal(p.n_steps, 3);
        TRY_ALL(plan_copy(&p, &copy), !copy.steps);
        TRY_ALL(plan_serialize(&p, &text), !text);
        TRY_ALL(plan_parse(text, &back), !back.steps);
        TRY_ALL(reconcile_plan(&w, DRIFT_LOST, s, &heal), !heal.steps);

        /* made, but not assigned */
        p.n_steps = 2;
        TRY_ALL(plan_apply(&p, s), snapshots_agree(s, before));
        p.n_steps = 3;
        TRY_ALL(plan_undo(&p, s, &undo, &foreign), !undo.steps && !foreign);
        TRY_ALL(plan_finish(&p, s, &finish, &foreign), !finish.steps && !foreign);
        TRY_ALL(reconcile_intent(&p, false, s, &recovery, &rest, &foreign),
                !rest.steps && recovery == _RECOVERY_MAX);
        TRY_ALL(plan_modify(s, own, &other, true, &modify), !modify.steps);
        TRY_ALL(plan_stop(s, own, &stop), !stop.steps);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_claims),
                cmocka_unit_test(test_snapshots),
                cmocka_unit_test(test_plans),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
