/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/snapshot.h"

#include "base/cleanup.h"
#include "tests/lib/core/oracle.h"

/* put, drop and find against an array that is searched. */
static void test_mdevs(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = snapshot_new();
        bool there[200] = {};
        uint32_t type[200] = {};
        Rng rng = rng_new();

        for (int round = 0; round < 3000; round++) {
                Uuid u = random_uuid(&rng, 200);
                unsigned i = u.b[15];
                HostMdev m = { .uuid = u, .type = rng_below(&rng, 1000) };

                if (rng_one_in(&rng, 2)) {
                        assert_int_equal(snapshot_put_mdev(s, &m), 0);
                        there[i] = true;
                        type[i] = m.type;
                } else {
                        snapshot_drop_mdev(s, u);
                        there[i] = false;
                }

                for (unsigned j = 0; j < 200; j++) {
                        HostMdev *found;

                        u.b[15] = (uint8_t) j;
                        found = snapshot_find_mdev(s, u);
                        assert_int_equal(found != NULL, there[j]);
                        if (found)
                                assert_int_equal(found->type, type[j]);
                }
        }
}

static void test_put_from_itself(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = snapshot_new();
        HostMdev m = { .uuid = { { 7 } }, .type = 3 };

        assert_int_equal(snapshot_put_mdev(s, &m), 0);
        assert_int_equal(snapshot_put_mdev(s, &s->mdevs[0]), 0);
        assert_int_equal(s->n_mdevs, 1);
        assert_int_equal(s->mdevs[0].type, 3);
}

static void test_copy(void **state) {
        Rng rng = rng_new();

        for (int i = 0; i < 50; i++) {
                CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, 8);
                CLEANUP(snapshot_freep) Snapshot *copy = NULL;

                s->n_cards = 1;
                s->cards = calloc(1, sizeof *s->cards);
                s->cards->id = 5;
                copy = snapshot_copy(s);
                assert_non_null(copy);
                assert_true(snapshots_agree(s, copy));
                assert_true(copy->types != s->types && copy->cards != s->cards);
                assert_int_equal(copy->cards->id, 5);
                assert_string_equal(copy->parents[1].name, s->parents[1].name);
                s->types[0].available--;
                assert_false(snapshots_agree(s, copy));
        }
        assert_null(snapshot_free(NULL));
}

static void test_find(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = snapshot_new(), *empty = snapshot_new();
        static const char *const parents[] = { "matrix", "mtty", "zz" };

        assert_null(snapshot_find_parent(empty, "matrix"));
        assert_null(snapshot_find_type(empty, "matrix", "x"));
        assert_null(snapshot_find_mdev(empty, (Uuid) {}));

        s->n_parents = 3;
        s->parents = calloc(3, sizeof *s->parents);
        s->n_types = 6;
        s->types = calloc(6, sizeof *s->types);
        for (uint32_t i = 0; i < 3; i++) {
                strcpy(s->parents[i].name, parents[i]);
                for (uint32_t j = 0; j < 2; j++) {
                        s->types[2 * i + j].parent = i;
                        strcpy(s->types[2 * i + j].id, j ? "type-2" : "type-1");
                }
        }

        for (size_t i = 0; i < 3; i++) {
                assert_ptr_equal(snapshot_find_parent(s, parents[i]), &s->parents[i]);
                assert_ptr_equal(snapshot_find_type(s, parents[i], "type-1"), &s->types[2 * i]);
                assert_ptr_equal(snapshot_find_type(s, parents[i], "type-2"), &s->types[2 * i + 1]);
                assert_null(snapshot_find_type(s, parents[i], "type-3"));
        }
        assert_null(snapshot_find_parent(s, "n"));
        assert_null(snapshot_find_type(s, "n", "type-1"));
        assert_null(snapshot_find_type(s, "", ""));
}

static void test_host_owned(void **state) {
        static const struct {
                const char *name;
                bool has_override, adapter_masked, other_masked, override, vfio, owned;
        } cases[] = {
                { "default", false, false, false, false, false, true },
                { "adapter masked away", false, true, false, false, true, false },
                { "masks count although it is not bound", false, true, false, false, false, false },
                { "kernel with overrides, none here", true, false, false, false, false, true },
                { "given by override", true, false, false, true, true, false },
                { "override, but still on the host's driver", true, false, false, true, false, true },
                { "on vfio_ap, but the override is gone", true, false, false, false, true, true },
                { "kernel without overrides goes by the masks", false, false, false, true, true, true },
                { "masks in use: they alone count", true, false, true, true, true, true },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                CLEANUP(snapshot_freep) Snapshot *s = snapshot_new();
                ApMask owned;

                s->has_override = cases[i].has_override;
                s->apmask = s->aqmask = AP_MASK_ALL;
                ap_mask_set(&s->queue_present[5], 1);
                if (cases[i].adapter_masked)
                        ap_mask_clear(&s->apmask, 5);
                if (cases[i].other_masked)
                        ap_mask_clear(&s->aqmask, 200);
                if (cases[i].override)
                        ap_mask_set(&s->queue_override[5], 1);
                if (cases[i].vfio)
                        ap_mask_set(&s->queue_vfio[5], 1);

                owned = snapshot_host_owned(s, 5);
                assert_case(cases[i].name, ap_mask_test(&owned, 1) == cases[i].owned);
                assert_case(cases[i].name, ap_mask_test(&owned, 2) == !cases[i].adapter_masked);
                assert_case(cases[i].name, ap_mask_test(&owned, 200) ==
                                                   (!cases[i].adapter_masked && !cases[i].other_masked));
        }
}

/* The kernel's rule, queue by queue. */
static void test_guest_matrix(void **state) {
        Rng rng = rng_new();

        for (int round = 0; round < 500; round++) {
                CLEANUP(snapshot_freep) Snapshot *s = random_snapshot(&rng, 8);
                ApMatrix m = random_matrix(&rng, 9, 2);
                NaiveMask adapters = naive_of(&m.adapters), domains = naive_of(&m.domains), has_a, has_d;
                ApMask got_a, got_d;

                s->host_adapters = random_mask(&rng, 9, 2);
                s->host_domains = random_mask(&rng, 9, 2);
                has_a = naive_of(&s->host_adapters);
                has_d = naive_of(&s->host_domains);
                snapshot_guest_matrix(s, &m, &got_a, &got_d);

                for (unsigned a = 0; a < AP_IDS; a++) {
                        bool in = adapters.has[a] && has_a.has[a];
                        GuestLoss why = adapters.has[a] && !in ? GUEST_LOSS_NO_ADAPTER : GUEST_LOSS_NONE;
                        uint8_t where = 99;

                        for (unsigned d = 0; in && d < AP_IDS; d++) {
                                if (!domains.has[d] || !has_d.has[d])
                                        continue;
                                if (!naive_of(&s->queue_present[a]).has[d])
                                        why = GUEST_LOSS_NO_QUEUE;
                                else if (!naive_of(&s->queue_vfio[a]).has[d])
                                        why = GUEST_LOSS_NOT_BOUND;
                                if (why != GUEST_LOSS_NONE) {
                                        assert_int_equal(snapshot_guest_loss(s, &m, (uint8_t) a, &where),
                                                         why);
                                        assert_int_equal(where, d);
                                        in = false;
                                }
                        }
                        where = 99;
                        assert_int_equal(snapshot_guest_loss(s, &m, (uint8_t) a, &where), why);
                        if (why == GUEST_LOSS_NONE || why == GUEST_LOSS_NO_ADAPTER)
                                assert_int_equal(where, 99);
                        assert_int_equal(ap_mask_test(&got_a, (uint8_t) a), in);
                        assert_int_equal(ap_mask_test(&got_d, (uint8_t) a), domains.has[a] && has_d.has[a]);
                }
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_mdevs),      cmocka_unit_test(test_put_from_itself),
                cmocka_unit_test(test_copy),       cmocka_unit_test(test_find),
                cmocka_unit_test(test_host_owned), cmocka_unit_test(test_guest_matrix),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
