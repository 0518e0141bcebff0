/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/claim.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/lib/core/oracle.h"

static const unsigned all_layers = (1u << _CLAIM_LAYER_MAX) - 1;

static ApMatrix matrix(const char *adapters, const char *domains) {
        ApMatrix m = {};

        assert_int_equal(ap_mask_parse_list(adapters, &m.adapters), 0);
        assert_int_equal(ap_mask_parse_list(domains, &m.domains), 0);
        return m;
}

static Uuid uuid(uint8_t n) {
        return (Uuid) { { [15] = n } };
}

static void put(ClaimTable *t, ClaimLayer layer, uint8_t n, const char *adapters, const char *domains) {
        Claim c = { .layer = layer, .uuid = uuid(n), .matrix = matrix(adapters, domains) };

        assert_int_equal(claim_table_put(t, &c), 0);
}

static ClaimVerdict check(const ClaimTable *t, unsigned layers, uint8_t self, bool alternative,
                          const char *adapters, const char *domains) {
        ApMatrix m = matrix(adapters, domains);

        return claim_check(t, &(ClaimQuery) { &m, layers, uuid(self), alternative });
}

static void set_host(ClaimTable *t, const char *apmask, const char *aqmask, uint8_t max_adapter,
                     uint8_t max_domain) {
        CLEANUP(snapshot_freep) Snapshot *s = snapshot_new();

        s->ap = true;
        s->max_adapter = max_adapter;
        s->max_domain = max_domain;
        assert_int_equal(ap_mask_parse_list(apmask, &s->apmask), 0);
        assert_int_equal(ap_mask_parse_list(aqmask, &s->aqmask), 0);
        claim_table_set_host(t, s);
}

static void test_empty(void **state) {
        CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();
        CLEANUP(freep) Conflict *c = NULL;
        ApMatrix m = { AP_MASK_ALL, AP_MASK_ALL, AP_MASK_ALL };
        size_t n = 99;

        assert_int_equal(claim_check(t, &(ClaimQuery) { &m, all_layers }), CLAIM_FREE);
        assert_int_equal(claim_conflicts(t, &(ClaimQuery) { &m, all_layers }, &c, &n), 0);
        assert_int_equal(n, 0);
        assert_non_null(c);
        assert_null(claim_table_get(t, CLAIM_LAYER_MDEV, uuid(1)));
        claim_table_drop(t, CLAIM_LAYER_MDEV, uuid(1));
        claim_table_clear(t, CLAIM_LAYER_EXCLUSIVE);
        assert_null(claim_table_free(NULL));
}

static void test_order_of_verdicts(void **state) {
        CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();

        set_host(t, "0-255", "0-255", 63, 84);
        put(t, CLAIM_LAYER_EXCLUSIVE, 1, "1-2", "1-3");
        assert_int_equal(check(t, all_layers, 0, false, "1,64", "1"), CLAIM_NO_SUCH_ID);
        assert_int_equal(check(t, all_layers, 0, false, "1", "1,85"), CLAIM_NO_SUCH_ID);
        assert_int_equal(check(t, all_layers, 0, false, "1", "1,84"), CLAIM_HOST_OWNED);
        assert_int_equal(check(t, all_layers & ~1u, 0, false, "1,63", "1,84"), CLAIM_OVERLAP);
        assert_int_equal(check(t, all_layers & ~1u, 0, false, "3", "1"), CLAIM_FREE);

        set_host(t, "5", "5", 63, 84);
        assert_int_equal(check(t, all_layers, 0, false, "5", "4"), CLAIM_FREE);
        assert_int_equal(check(t, all_layers, 0, false, "1,5", "1,5"), CLAIM_HOST_OWNED);
        assert_int_equal(check(t, all_layers, 0, false, "1", "1,5"), CLAIM_OVERLAP);
}

static void test_control_domains(void **state) {
        CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();
        CLEANUP(freep) Conflict *c = NULL;
        ApMatrix m = matrix("3-4", "6");
        char buf[UUID_STRING_SIZE];
        size_t n;

        set_host(t, "9", "9", 63, 84);
        ap_mask_set(&m.control, 84);
        assert_int_equal(claim_check(t, &(ClaimQuery) { &m, 0 }), CLAIM_FREE);
        ap_mask_set(&m.control, 85);
        assert_int_equal(claim_check(t, &(ClaimQuery) { &m, 0 }), CLAIM_NO_SUCH_ID);

        assert_int_equal(claim_conflicts(t, &(ClaimQuery) { &m, 0 }, &c, &n), 0);
        assert_int_equal(n, 1);
        assert_true(c->apqn.adapter == 3 && c->apqn.domain == 85);
        assert_int_equal(c->verdict, CLAIM_NO_SUCH_ID);
        assert_string_equal(conflict_owner_kind(c), "host");
        assert_string_equal(conflict_owner(c, buf), "");
}

/* Both meet at one queue; one of them goes: the other still has it. */
static void test_shared_cells(void **state) {
        CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();

        for (uint8_t first = 1; first <= 2; first++) {
                put(t, CLAIM_LAYER_ALTERNATIVE, 1, "1-2", "1-2");
                put(t, CLAIM_LAYER_ALTERNATIVE, 2, "2-3", "2-3");

                /* to itself a claim is free where it is alone, not where it shares */
                assert_int_equal(check(t, all_layers, 1, false, "1-2", "1"), CLAIM_FREE);
                assert_int_equal(check(t, all_layers, 1, false, "2", "2"), CLAIM_OVERLAP);
                assert_int_equal(check(t, all_layers, 2, false, "2", "2"), CLAIM_OVERLAP);
                assert_int_equal(check(t, all_layers, 2, false, "3", "2-3"), CLAIM_FREE);
                assert_int_equal(check(t, all_layers, 2, false, "2-3", "3"), CLAIM_FREE);

                claim_table_drop(t, CLAIM_LAYER_ALTERNATIVE, uuid(first));
                assert_int_equal(check(t, all_layers, 0, false, "2", "2"), CLAIM_OVERLAP);
                assert_int_equal(check(t, all_layers, 3 - first, false, "2", "2"), CLAIM_FREE);
                assert_true(uuid_equal(claim_owner(t, CLAIM_LAYER_ALTERNATIVE, (Apqn) { 2, 2 })->uuid,
                                       uuid(3 - first)));

                claim_table_drop(t, CLAIM_LAYER_ALTERNATIVE, uuid(3 - first));
                assert_int_equal(check(t, all_layers, 0, false, "0-255", "0-255"), CLAIM_FREE);
        }
}

static void test_alternative(void **state) {
        const unsigned start = CLAIM_LAYER_BIT(CLAIM_LAYER_MDEV) | CLAIM_LAYER_BIT(CLAIM_LAYER_EXCLUSIVE);
        CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();

        /* live before it is defined as alternative, and the other way round */
        put(t, CLAIM_LAYER_MDEV, 1, "1", "1");
        put(t, CLAIM_LAYER_MDEV, 3, "3", "3");
        assert_int_equal(check(t, start, 0, true, "1", "1"), CLAIM_OVERLAP);
        put(t, CLAIM_LAYER_ALTERNATIVE, 1, "1", "1");
        put(t, CLAIM_LAYER_ALTERNATIVE, 2, "2", "2");
        put(t, CLAIM_LAYER_MDEV, 2, "2", "2");

        assert_int_equal(check(t, start, 0, true, "1-2", "1-2"), CLAIM_FREE);
        assert_int_equal(check(t, start, 0, true, "1-3", "1-3"), CLAIM_OVERLAP);
        assert_int_equal(check(t, start, 0, false, "1", "1"), CLAIM_OVERLAP);
        assert_int_equal(check(t, start, 1, false, "1", "1"), CLAIM_FREE);
        assert_int_equal(check(t, start, 2, false, "1-2", "1-2"), CLAIM_OVERLAP);
        assert_true(uuid_equal(claim_owner(t, CLAIM_LAYER_MDEV, (Apqn) { 2, 2 })->uuid, uuid(2)));

        claim_table_drop(t, CLAIM_LAYER_ALTERNATIVE, uuid(1));
        assert_int_equal(check(t, start, 0, true, "1", "1"), CLAIM_OVERLAP);
        claim_table_clear(t, CLAIM_LAYER_ALTERNATIVE);
        assert_int_equal(check(t, start, 0, true, "2", "2"), CLAIM_OVERLAP);
        claim_table_clear(t, CLAIM_LAYER_MDEV);
        assert_int_equal(check(t, start, 0, true, "0-255", "0-255"), CLAIM_FREE);
}

static void test_everything(void **state) {
        CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();
        Claim c = { .layer = CLAIM_LAYER_MDEV, .uuid = uuid(9), .everything = true };

        set_host(t, "1", "0-255", 255, 255);
        assert_int_equal(claim_table_put(t, &c), 0);
        assert_int_equal(check(t, all_layers & ~1u, 0, false, "1", "7"), CLAIM_FREE);
        assert_int_equal(check(t, all_layers, 0, false, "2", "7"), CLAIM_OVERLAP);
        assert_int_equal(check(t, all_layers, 9, false, "2", "7"), CLAIM_FREE);
        assert_null(claim_owner(t, CLAIM_LAYER_MDEV, (Apqn) { 1, 7 }));
        assert_true(uuid_equal(claim_owner(t, CLAIM_LAYER_MDEV, (Apqn) { 2, 7 })->uuid, uuid(9)));

        /* readable after all */
        c.everything = false;
        c.matrix = matrix("5", "5");
        assert_int_equal(claim_table_put(t, &c), 0);
        assert_int_equal(check(t, all_layers, 0, false, "2", "7"), CLAIM_FREE);
        assert_int_equal(check(t, all_layers, 0, false, "5", "5"), CLAIM_OVERLAP);
}

static void test_owner_texts(void **state) {
        static const struct {
                const char *name, *owner, *kind;
                ClaimLayer layer;
                bool operation;
        } cases[] = {
                { "live mdev", NULL, "mdev", CLAIM_LAYER_MDEV, false },
                { "live mdev with name", "payments", "mdev", CLAIM_LAYER_MDEV, false },
                { "definition", "payments", "definition", CLAIM_LAYER_EXCLUSIVE, false },
                { "alternative definition", "payments", "definition", CLAIM_LAYER_ALTERNATIVE, false },
                { "definition of mdevctl", NULL, "mdevctl", CLAIM_LAYER_MDEVCTL, false },
                { "operation", "payments", "operation", CLAIM_LAYER_EXCLUSIVE, true },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();
                CLEANUP(freep) Conflict *conflicts = NULL;
                char name[] = "payments", buf[UUID_STRING_SIZE];
                Claim c = { .layer = cases[i].layer,
                            .uuid = uuid(7),
                            .name = cases[i].owner ? name : NULL,
                            .operation = cases[i].operation,
                            .matrix = matrix("5", "71") };
                size_t n;

                assert_int_equal(claim_table_put(t, &c), 0);
                name[0] = 'X'; /* it is a copy */
                assert_int_equal(claim_conflicts(t, &(ClaimQuery) { &c.matrix, all_layers }, &conflicts, &n),
                                 0);
                assert_case(cases[i].name, n == 1);
                assert_case(cases[i].name, strcmp(conflict_owner_kind(conflicts), cases[i].kind) == 0);
                assert_case(cases[i].name,
                            strcmp(conflict_owner(conflicts, buf),
                                   cases[i].owner ? cases[i].owner
                                                  : "00000000-0000-0000-0000-000000000007") == 0);
        }
}

static void compare_conflicts(const ClaimTable *t, const Oracle *o, const ClaimQuery *q) {
        CLEANUP(freep) Conflict *c = NULL;
        NaiveMask adapters = naive_of(&q->matrix->adapters), domains = naive_of(&q->matrix->domains);
        NaiveMask control = naive_of(&q->matrix->control);
        size_t n, i = 0;
        bool first = true,
             ids_only = ap_mask_is_empty(&q->matrix->adapters) || ap_mask_is_empty(&q->matrix->domains);

        assert_int_equal(claim_conflicts(t, q, &c, &n), 0);
        assert_int_equal(n > 0, claim_check(t, q) != CLAIM_FREE);
        if (ids_only) {
                for (; i < n; i++)
                        assert_int_equal(c[i].verdict, CLAIM_NO_SUCH_ID);
                return;
        }

        for (unsigned a = 0; a < AP_IDS; a++) {
                if (!adapters.has[a])
                        continue;
                for (unsigned d = 0; d < AP_IDS; d++) {
                        bool wanted = domains.has[d], no_such;

                        no_such = (wanted && (a > o->max_adapter || d > o->max_domain)) ||
                                  (first && control.has[d] && d > o->max_domain);
                        for (ClaimLayer l = 0; l < _CLAIM_LAYER_MAX; l++) {
                                bool missing = no_such && l == CLAIM_LAYER_HOST;

                                if (!missing && (!wanted || !oracle_layer_taken(o, q, l, a, d)))
                                        continue;

                                assert_true(i < n);
                                assert_int_equal(c[i].apqn.adapter, a);
                                assert_int_equal(c[i].apqn.domain, d);
                                assert_int_equal(c[i].layer, l);
                                assert_int_equal(c[i].verdict, missing                 ? CLAIM_NO_SUCH_ID
                                                               : l == CLAIM_LAYER_HOST ? CLAIM_HOST_OWNED
                                                                                       : CLAIM_OVERLAP);
                                if (l == CLAIM_LAYER_HOST)
                                        assert_null(c[i].claim);
                                else
                                        assert_true(c[i].claim->layer == l &&
                                                    oracle_counts(o, q, c[i].claim, a, d));
                                i++;
                        }
                }
                first = false;
        }
        assert_int_equal(i, n);
}

static void compare_suggestion(const ClaimTable *t, const Oracle *o, const ClaimQuery *q, Rng *rng) {
        NaiveMask adapters = naive_of(&q->matrix->adapters), domains = naive_of(&q->matrix->domains);
        ApMask installed_adapters = random_mask(rng, 14, 2), installed_domains = random_mask(rng, 14, 2), as,
               ds;
        NaiveMask got_a, got_d, ia = naive_of(&installed_adapters), id = naive_of(&installed_domains);

        claim_suggest(t, q, &installed_adapters, &installed_domains, &as, &ds);
        got_a = naive_of(&as);
        got_d = naive_of(&ds);

        for (unsigned i = 0; i < AP_IDS; i++) {
                bool free_adapter = ia.has[i] && i <= o->max_adapter,
                     free_domain = id.has[i] && i <= o->max_domain;

                for (unsigned j = 0; j < AP_IDS; j++) {
                        free_adapter = free_adapter && !(domains.has[j] && oracle_taken(o, q, i, j));
                        free_domain = free_domain && !(adapters.has[j] && oracle_taken(o, q, j, i));
                }
                assert_int_equal(got_a.has[i], free_adapter);
                assert_int_equal(got_d.has[i], free_domain);
        }
}

static void compare_owner(const ClaimTable *t, const Oracle *o, Apqn apqn) {
        for (ClaimLayer l = 0; l < _CLAIM_LAYER_MAX; l++) {
                ClaimQuery q = { .layers = 1u << l };
                const Claim *c = claim_owner(t, l, apqn);

                if (l == CLAIM_LAYER_HOST)
                        assert_null(c);
                else if (!oracle_layer_taken(o, &q, l, apqn.adapter, apqn.domain))
                        assert_null(c);
                else
                        assert_true(c && c->layer == l &&
                                    oracle_counts(o, &q, c, apqn.adapter, apqn.domain));
        }
}

static ApMatrix some_matrix(Rng *rng) {
        ApMatrix m;

        switch (rng_below(rng, 20)) {
        case 0:
                return random_matrix(rng, AP_IDS, 2);
        case 1:
                m = random_matrix(rng, 12, 2);
                m.domains = (ApMask) {};
                return m;
        case 2:
                m = random_matrix(rng, 12, 2);
                m.adapters = (ApMask) {};
                return m;
        default:
                return random_matrix(rng, 12, 2 + rng_below(rng, 4));
        }
}

static void change(ClaimTable *t, Oracle *o, Rng *rng) {
        ClaimLayer layer = 1 + rng_below(rng, _CLAIM_LAYER_MAX - 1);
        Claim c = { .layer = layer, .uuid = random_uuid(rng, 9), .everything = rng_one_in(rng, 25) };

        switch (rng_below(rng, 20)) {
        case 0:
                if (rng_one_in(rng, 4)) {
                        claim_table_clear(t, layer);
                        oracle_clear(o, layer);
                }
                break;
        case 1: {
                CLEANUP(snapshot_freep) Snapshot *s = snapshot_new();
                NaiveMask apmask, aqmask;

                s->ap = !rng_one_in(rng, 6);
                s->max_adapter = (uint8_t) (rng_one_in(rng, 2) ? 255 : 10 + rng_below(rng, 3));
                s->max_domain = (uint8_t) (rng_one_in(rng, 2) ? 255 : 10 + rng_below(rng, 3));
                s->apmask = random_mask(rng, 12, 3);
                s->aqmask = random_mask(rng, 12, 3);
                claim_table_set_host(t, s);
                apmask = naive_of(&s->apmask);
                aqmask = naive_of(&s->aqmask);
                for (unsigned a = 0; a < AP_IDS; a++)
                        for (unsigned d = 0; d < AP_IDS; d++)
                                o->host[a][d] = apmask.has[a] && aqmask.has[d];
                o->max_adapter = s->ap ? s->max_adapter : 255;
                o->max_domain = s->ap ? s->max_domain : 255;
                break;
        }
        case 2 ... 8:
                claim_table_drop(t, layer, c.uuid);
                oracle_drop(o, layer, c.uuid);
                break;
        default:
                c.matrix = some_matrix(rng);
                assert_int_equal(claim_table_put(t, &c), 0);
                oracle_put(o, &c);
                break;
        }
}

static void test_against_oracle(void **state) {
        Rng rng = rng_new();

        for (int round = 0; round < 20; round++) {
                CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();
                Oracle o = { .max_adapter = 255, .max_domain = 255 };

                for (int step = 0; step < 120; step++) {
                        ApMatrix m = some_matrix(&rng);
                        ClaimQuery q = {
                                .matrix = &m,
                                .layers = rng_one_in(&rng, 2) ? all_layers : rng_below(&rng, all_layers + 1),
                                .self = rng_one_in(&rng, 3) ? (Uuid) {} : random_uuid(&rng, 9),
                                .alternative = rng_one_in(&rng, 2),
                        };

                        change(t, &o, &rng);
                        if (rng_one_in(&rng, 3) && o.n_claims > 0) /* what a definition asks about itself */
                                m = o.claims[rng_below(&rng, (unsigned) o.n_claims)].matrix;

                        assert_int_equal(claim_check(t, &q), oracle_check(&o, &q));
                        for (size_t i = 0; i < o.n_claims; i++) {
                                const Claim *c = claim_table_get(t, o.claims[i].layer, o.claims[i].uuid);

                                assert_true(c && ap_matrix_equal(&c->matrix, &o.claims[i].matrix));
                        }
                        for (int i = 0; i < 10; i++)
                                compare_owner(t, &o,
                                              (Apqn) { (uint8_t) rng_below(&rng, 13),
                                                       (uint8_t) rng_below(&rng, 13) });
                        if (step % 4 == 0)
                                compare_conflicts(t, &o, &q);
                        if (step % 16 == 0)
                                compare_suggestion(t, &o, &q, &rng);
                }
        }
}

/* 10,000 claims, two layers that share, dropped in another order: nothing stays behind. */
static void test_many(void **state) {
        enum { N = 10000 };
        CLEANUP(claim_table_freep) ClaimTable *t = claim_table_new();
        ApMatrix all = { AP_MASK_ALL, AP_MASK_ALL, {} };
        ClaimQuery q = { .matrix = &all, .layers = all_layers };

        for (unsigned i = 0; i < N; i++) {
                Claim c = { .layer = i % 2 ? CLAIM_LAYER_EXCLUSIVE : CLAIM_LAYER_MDEVCTL };

                memcpy(c.uuid.b, &i, sizeof i);
                ap_mask_set(&c.matrix.adapters, (uint8_t) (i / 200));
                ap_mask_set(&c.matrix.domains, (uint8_t) (i % 200));
                if (i % 20 == 0)
                        ap_mask_set(&c.matrix.domains, 255); /* shared with others of its layer */
                assert_int_equal(claim_table_put(t, &c), 0);
        }
        for (unsigned i = 0; i < N; i++) {
                unsigned k = i * 7919 % N;
                Uuid u = {};

                memcpy(u.b, &k, sizeof k);
                assert_int_equal(claim_check(t, &q), CLAIM_OVERLAP);
                assert_non_null(claim_table_get(t, k % 2 ? CLAIM_LAYER_EXCLUSIVE : CLAIM_LAYER_MDEVCTL, u));
                claim_table_drop(t, k % 2 ? CLAIM_LAYER_EXCLUSIVE : CLAIM_LAYER_MDEVCTL, u);
        }
        assert_int_equal(claim_check(t, &q), CLAIM_FREE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_empty),
                cmocka_unit_test(test_order_of_verdicts),
                cmocka_unit_test(test_control_domains),
                cmocka_unit_test(test_shared_cells),
                cmocka_unit_test(test_alternative),
                cmocka_unit_test(test_everything),
                cmocka_unit_test(test_owner_texts),
                cmocka_unit_test(test_against_oracle),
                cmocka_unit_test(test_many),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
