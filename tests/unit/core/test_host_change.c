/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/host_change.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/lib/core/oracle.h"

#define LIMIT 4 /* ids: 256 pairs of masks can all be tried */

/* ---- the slow second opinion: every pair of masks there is, queue by queue ---- */

typedef struct Cost {
        bool possible, last;
        unsigned others, bits;
} Cost;

static bool bit(const ApMask *m, unsigned id) {
        return ap_mask_test(m, (uint8_t) id);
}

static bool owns(const Snapshot *s, const ApMask *apmask, const ApMask *aqmask, unsigned a, unsigned d) {
        bool given =
                (bit(&s->queue_override[a], d) || bit(&s->queue_alien[a], d)) && bit(&s->queue_vfio[a], d);

        return bit(apmask, a) && bit(aqmask, d) && !given;
}

static bool in_matrix(const ApMatrix *m, unsigned a, unsigned d) {
        return bit(&m->adapters, a) && bit(&m->domains, d);
}

static bool is_usable(const Snapshot *s, unsigned a, unsigned d) {
        for (size_t i = 0; i < s->n_cards; i++)
                if (s->cards[i].id == a)
                        return s->cards[i].online && s->cards[i].config && !s->cards[i].chkstop &&
                               bit(&s->queue_present[a], d) && !bit(&s->queue_vfio[a], d) &&
                               owns(s, &s->apmask, &s->aqmask, a, d);
        return false;
}

static Cost cost_of(const Snapshot *s, const HostWish *w, unsigned ap, unsigned aq) {
        ApMask apmask = s->apmask, aqmask = s->aqmask;
        bool had = false, has = false;
        Cost c = { .possible = true };

        for (unsigned i = 0; i < LIMIT; i++) {
                (ap >> i & 1 ? ap_mask_set : ap_mask_clear)(&apmask, (uint8_t) i);
                (aq >> i & 1 ? ap_mask_set : ap_mask_clear)(&aqmask, (uint8_t) i);
                c.bits += bit(&apmask, i) != bit(&s->apmask, i);
                c.bits += bit(&aqmask, i) != bit(&s->aqmask, i);
                /* a bit that says nothing today says whose a queue is that comes tomorrow */
                if ((bit(&apmask, i) != bit(&s->apmask, i) && bit(&apmask, i) != w->release) ||
                    (bit(&aqmask, i) != bit(&s->aqmask, i) && bit(&aqmask, i) != w->release))
                        c.possible = false;
        }
        for (unsigned a = 0; a < LIMIT; a++)
                for (unsigned d = 0; d < LIMIT; d++) {
                        bool was = owns(s, &s->apmask, &s->aqmask, a, d),
                             will = owns(s, &apmask, &aqmask, a, d);
                        bool wanted = in_matrix(&w->matrix, a, d);

                        if (wanted && will != w->release)
                                c.possible = false;
                        if (was != will && will != w->release)
                                c.possible = false;
                        if (was != will && !wanted && bit(&s->queue_present[a], d))
                                c.others++;
                        if ((int) d == s->default_domain && is_usable(s, a, d)) {
                                had = true;
                                has |= will;
                        }
                }
        c.last = had && !has && !w->release;
        return c;
}

static bool is_cheaper(const HostWish *w, const Cost *a, const Cost *b) {
        if (a->possible != b->possible)
                return a->possible;
        if (!w->force && a->last != b->last)
                return b->last;
        if (a->others != b->others)
                return a->others < b->others;
        return a->bits < b->bits;
}

static Cost cheapest(const Snapshot *s, const HostWish *w) {
        Cost best = {};

        for (unsigned ap = 0; ap < 1u << LIMIT; ap++)
                for (unsigned aq = 0; aq < 1u << LIMIT; aq++) {
                        Cost c = cost_of(s, w, ap, aq);

                        if (is_cheaper(w, &c, &best))
                                best = c;
                }
        return best;
}

static unsigned low_bits(const ApMask *m) {
        unsigned n = 0;

        for (unsigned i = 0; i < LIMIT; i++)
                n |= (unsigned) bit(m, i) << i;
        return n;
}

static unsigned n_absent(const Snapshot *s, const HostWish *w) {
        unsigned n = 0;

        for (unsigned a = 0; a < LIMIT; a++)
                for (unsigned d = 0; d < LIMIT; d++)
                        n += in_matrix(&w->matrix, a, d) && !bit(&s->queue_present[a], d);
        return n;
}

static Snapshot *random_host(Rng *rng) {
        Snapshot *s = random_snapshot(rng, LIMIT);

        s->cards = calloc(LIMIT, sizeof *s->cards);
        assert_non_null(s->cards);
        for (unsigned a = 0; a < LIMIT; a++)
                if (!rng_one_in(rng, 8))
                        s->cards[s->n_cards++] = (HostCard) { .id = (uint8_t) a,
                                                              .online = !rng_one_in(rng, 6),
                                                              .config = !rng_one_in(rng, 8),
                                                              .chkstop = rng_one_in(rng, 8) };
        s->default_domain = rng_one_in(rng, 4) ? -1 : (int16_t) rng_below(rng, LIMIT);
        if (s->has_override && snapshot_masks_are_full(s) && rng_one_in(rng, 3)) {
                uint8_t a = (uint8_t) rng_below(rng, LIMIT), d = (uint8_t) rng_below(rng, LIMIT);

                if (ap_mask_test(&s->queue_present[a], d) && !ap_mask_test(&s->queue_override[a], d))
                        ap_mask_set(&s->queue_alien[a], d);
        }
        return s;
}

static void check_moved(const Snapshot *s, const Snapshot *after, const HostWish *w, const HostChange *c) {
        unsigned moved = 0, others = 0;

        for (unsigned a = 0; a < LIMIT; a++)
                for (unsigned d = 0; d < LIMIT; d++) {
                        bool was = owns(s, &s->apmask, &s->aqmask, a, d),
                             will = owns(after, &after->apmask, &after->aqmask, a, d);
                        bool changes = was != will && bit(&s->queue_present[a], d);

                        assert_int_equal(bit(&c->moved[a], d), changes && in_matrix(&w->matrix, a, d));
                        assert_int_equal(bit(&c->others[a], d), changes && !in_matrix(&w->matrix, a, d));
                        moved += bit(&c->moved[a], d);
                        others += bit(&c->others[a], d);
                        assert_true(was == will || will == w->release);
                        if (in_matrix(&w->matrix, a, d) && !w->release)
                                assert_false(will);
                }
        assert_int_equal(c->n_moved, moved);
        assert_int_equal(c->n_others, others);
}

static void check_one(const Snapshot *s, const HostWish *w,
                      unsigned counts[static _HOST_CHANGE_VERDICT_MAX]) {
        CLEANUP(snapshot_freep) Snapshot *after = snapshot_copy(s);
        CLEANUP(plan_clear) Plan p = {};
        bool has_apqn, overridden, masks, overrides;
        HostChangeVerdict verdict;
        Cost best = cheapest(s, w);
        HostChange c;
        Apqn q = { 99, 99 }, any;

        overridden = snapshot_find_override(s, &any);
        masks = !overridden && !w->no_masks && w->means != HOST_MEANS_OVERRIDES;
        overrides = s->has_override && snapshot_masks_are_full(s) && w->means != HOST_MEANS_MASKS;
        verdict = host_change(s, w, &c, &q, &has_apqn);
        counts[verdict]++;
        if (!has_apqn)
                assert_int_equal(q.adapter, 99);

        switch (verdict) {
        case HOST_CHANGE_BLOCKED:
                assert_false(masks);
                if (overridden)
                        assert_true(has_apqn && (bit(&s->queue_override[q.adapter], q.domain) ||
                                                 bit(&s->queue_alien[q.adapter], q.domain) ||
                                                 bit(&s->queue_vfio[q.adapter], q.domain)));
                return;
        case HOST_CHANGE_ALIEN:
                assert_true(bit(&s->queue_alien[q.adapter], q.domain));
                assert_true(in_matrix(&w->matrix, q.adapter, q.domain));
                return;
        case HOST_CHANGE_ABSENT:
                assert_false(bit(&s->queue_present[q.adapter], q.domain));
                assert_true(in_matrix(&w->matrix, q.adapter, q.domain) && !masks);
                return;
        case HOST_CHANGE_NOT_FULL:
                assert_true(s->has_override && !snapshot_masks_are_full(s) &&
                            w->means == HOST_MEANS_OVERRIDES);
                return;
        case HOST_CHANGE_NO_MEANS:
                assert_true(!s->has_override && w->means == HOST_MEANS_OVERRIDES);
                return;
        case HOST_CHANGE_OTHERS:
                assert_false(w->others);
                assert_true(bit(&c.others[q.adapter], q.domain));
                break;
        case HOST_CHANGE_LAST:
                assert_true(!w->force && !w->release && q.domain == s->default_domain);
                assert_true(bit(&c.moved[q.adapter], q.domain) || bit(&c.others[q.adapter], q.domain));
                break;
        default:
                assert_true(w->others || c.n_others == 0);
                break;
        }

        /* what it comes to, also if it is refused: it does what is wanted, and nothing takes less */
        assert_int_equal(host_change_plan(s, w, &c, &p), 0);
        if (!w->release)
                assert_int_equal(plan_check(&p, s, &any), PLAN_OK);
        assert_int_equal(plan_apply(&p, after), 0);
        check_moved(s, after, w, &c);
        if (c.means == HOST_MEANS_MASKS) {
                Cost cost = cost_of(s, w, low_bits(&c.apmask), low_bits(&c.aqmask));

                assert_true(masks && cost.possible);
                assert_int_equal(cost.others, best.others);
                assert_int_equal(cost.bits, best.bits);
                assert_int_equal(cost.others, c.n_others);
                assert_true(cost.last == best.last || w->force);
                if (overrides && !w->release && c.n_others > 0) /* they would have taken none */
                        assert_true(n_absent(s, w) > 0);
        } else if (c.means == HOST_MEANS_OVERRIDES) {
                assert_true(overrides && c.n_others == 0);
                assert_true(!masks || w->release || best.others > 0);
        } else {
                assert_int_equal(p.n_steps, 0);
                assert_int_equal(c.n_moved, 0);
        }
}

static void test_against_all_masks(void **state) {
        unsigned counts[_HOST_CHANGE_VERDICT_MAX] = {};
        Rng rng = rng_new();

        for (unsigned i = 0; i < 6000; i++) {
                CLEANUP(snapshot_freep) Snapshot *s = random_host(&rng);
                HostWish w = {
                        .matrix = random_matrix(&rng, LIMIT, 2),
                        .release = rng_one_in(&rng, 3),
                        .others = rng_one_in(&rng, 2),
                        .force = rng_one_in(&rng, 2),
                        .no_masks = rng_one_in(&rng, 10),
                        .means = rng_one_in(&rng, 2) ? HOST_MEANS_ANY : (HostMeans) rng_below(&rng, 3),
                };

                check_one(s, &w, counts);
        }
        for (size_t i = 0; i < ELEMENTS(counts); i++)
                if (counts[i] < 10)
                        fail_msg("verdict %zu came only %u times", i, counts[i]);
}

/* ---- by hand ---- */

static Snapshot *machine(const char *adapters, const char *domains) {
        Snapshot *s = snapshot_new();
        ApMask a, d;

        assert_int_equal(ap_mask_parse_list(adapters, &a), 0);
        assert_int_equal(ap_mask_parse_list(domains, &d), 0);
        s->ap = s->vfio_ap = true;
        s->apmask = s->aqmask = AP_MASK_ALL;
        s->cards = calloc(AP_IDS, sizeof *s->cards);
        AP_MASK_FOREACH(id, &a) {
                s->queue_present[id] = d;
                s->cards[s->n_cards++] = (HostCard) { .id = (uint8_t) id, .online = true, .config = true };
        }
        return s;
}

static HostWish wish(const char *adapters, const char *domains) {
        HostWish w = {};

        assert_int_equal(ap_mask_parse_list(adapters, &w.matrix.adapters), 0);
        assert_int_equal(ap_mask_parse_list(domains, &w.matrix.domains), 0);
        return w;
}

static void test_smallest(void **state) {
        static const struct {
                const char *name, *adapters, *domains;
                bool override;
                HostChangeVerdict verdict;
                HostMeans means;
                unsigned moved, others;
                const char *gone_adapters, *gone_domains;
        } cases[] = {
                { "a whole adapter", "5", "6,0x10,0x1b,0x47", false, HOST_CHANGE_OK, HOST_MEANS_MASKS, 4, 0,
                  "5", "" },
                { "a whole domain", "0-5", "0x47", false, HOST_CHANGE_OK, HOST_MEANS_MASKS, 6, 0, "",
                  "0x47" },
                { "also on 7.2", "5", "6,0x10,0x1b,0x47", true, HOST_CHANGE_OK, HOST_MEANS_MASKS, 4, 0, "5",
                  "" },
                { "one queue", "5", "0x47", false, HOST_CHANGE_OTHERS, HOST_MEANS_MASKS, 1, 3, "5", "" },
                { "one queue on 7.2", "5", "0x47", true, HOST_CHANGE_OK, HOST_MEANS_OVERRIDES, 1, 0, "",
                  "" },
                { "most adapters", "1-5", "0x47", false, HOST_CHANGE_OTHERS, HOST_MEANS_MASKS, 5, 1, "",
                  "0x47" },
                { "one to come", "9", "0x47", true, HOST_CHANGE_OK, HOST_MEANS_MASKS, 0, 0, "9", "" },
                { "with one to come", "5,9", "0x47", true, HOST_CHANGE_OTHERS, HOST_MEANS_MASKS, 1, 3, "5,9",
                  "" },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(snapshot_freep) Snapshot *s = machine("0-5", "6,0x10,0x1b,0x47");
                HostWish w = wish(cases[i].adapters, cases[i].domains);
                char list[AP_MASK_LIST_SIZE];
                ApMask gone, wanted = {};
                HostChange c;
                bool has_apqn;
                Apqn q;

                s->has_override = cases[i].override;
                assert_case(cases[i].name, host_change(s, &w, &c, &q, &has_apqn) == cases[i].verdict);
                assert_case(cases[i].name, c.means == cases[i].means);
                assert_case(cases[i].name, c.n_moved == cases[i].moved && c.n_others == cases[i].others);
                gone = ap_mask_and_not(&s->apmask, &c.apmask);
                if (*cases[i].gone_adapters)
                        assert_int_equal(ap_mask_parse_list(cases[i].gone_adapters, &wanted), 0);
                assert_case(ap_mask_format_list(&gone, list), ap_mask_equal(&gone, &wanted));
                gone = ap_mask_and_not(&s->aqmask, &c.aqmask);
                wanted = (ApMask) {};
                if (*cases[i].gone_domains)
                        assert_int_equal(ap_mask_parse_list(cases[i].gone_domains, &wanted), 0);
                assert_case(ap_mask_format_list(&gone, list), ap_mask_equal(&gone, &wanted));
        }
}

static void test_last_of_the_default_domain(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = machine("1-3", "6,7");
        HostWish w = wish("1-2", "6");
        bool has_apqn;
        HostChange c;
        Apqn q;

        s->has_override = true;
        s->default_domain = 6;
        assert_int_equal(host_change(s, &w, &c, &q, &has_apqn), HOST_CHANGE_OK);
        s->cards[2].online = false;
        assert_int_equal(host_change(s, &w, &c, &q, &has_apqn), HOST_CHANGE_LAST);
        assert_true(has_apqn && q.adapter == 2 && q.domain == 6);
        w.force = true;
        assert_int_equal(host_change(s, &w, &c, &q, &has_apqn), HOST_CHANGE_OK);

        /* there is none to be kept */
        w.force = false;
        s->cards[0].config = false;
        s->cards[1].chkstop = true;
        assert_int_equal(host_change(s, &w, &c, &q, &has_apqn), HOST_CHANGE_OK);
        s->cards[0].config = true;
        s->default_domain = -1;
        assert_int_equal(host_change(s, &w, &c, &q, &has_apqn), HOST_CHANGE_OK);
}

static void test_too_many_overrides(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = machine("0-20", "0-20");
        CLEANUP(plan_clear) Plan p = {};
        HostWish w = wish("0-19", "0-19");
        bool has_apqn;
        HostChange c;
        Apqn q;

        s->has_override = true;
        assert_int_equal(host_change(s, &w, &c, &q, &has_apqn), HOST_CHANGE_OK);
        assert_int_equal(c.means, HOST_MEANS_OVERRIDES);
        assert_int_equal(host_change_plan(s, &w, &c, &p), -E2BIG);
        assert_null(p.steps);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_against_all_masks),
                cmocka_unit_test(test_smallest),
                cmocka_unit_test(test_last_of_the_default_domain),
                cmocka_unit_test(test_too_many_overrides),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
