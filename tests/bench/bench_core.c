/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* bench_core - what one claim_check() costs: "core-check DEFINITIONS NANOSECONDS ns CASE", the slowest case
 * of each size last as "core-check DEFINITIONS NANOSECONDS ns". */

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "core/claim.h"

#define ALL_LAYERS ((1u << _CLAIM_LAYER_MAX) - 1)

static double now_ns(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

static Uuid uuid_of(ClaimLayer layer, size_t i) {
        Uuid u = { { [14] = (uint8_t) layer, [15] = 1 } };

        memcpy(u.b, &i, sizeof i);
        return u;
}

/* Half of the domains, so that a question about the other half has to look at every row and finds nothing.
 * */
static ApMask every_other(unsigned from) {
        ApMask m = {};

        for (unsigned i = from; i < AP_IDS; i += 2)
                ap_mask_set(&m, (uint8_t) i);
        return m;
}

static ClaimTable *table_with(size_t n) {
        ApMask odd = every_other(1);
        ClaimTable *t = claim_table_new();

        for (size_t i = 0; t && i < n; i++) {
                ClaimLayer layer = CLAIM_LAYER_MDEV + i % (_CLAIM_LAYER_MAX - 1);
                Claim c = { .layer = layer, .uuid = uuid_of(layer, i) };

                if (i < 2 * (_CLAIM_LAYER_MAX - 1)) /* every row of every layer is in use, by two claims */
                        c.matrix = (ApMatrix) { AP_MASK_ALL, odd, {} };
                else {
                        ap_mask_set(&c.matrix.adapters, (uint8_t) (i * 31));
                        ap_mask_set(&c.matrix.domains, (uint8_t) (i / 256 * 2 + 1));
                }
                if (claim_table_put(t, &c) < 0)
                        return claim_table_free(t);
        }

        return t;
}

static double measure(const ClaimTable *t, const ClaimQuery *q, ClaimVerdict expected) {
        enum { ROUNDS = 7, CALLS = 20000 };
        double best = 1e9;

        for (int i = 0; i < ROUNDS; i++) {
                double start = now_ns(), took;
                unsigned wrong = 0;

                for (int j = 0; j < CALLS; j++)
                        wrong += claim_check(t, q) != expected;
                took = (now_ns() - start) / (double) CALLS;
                if (wrong > 0) {
                        (void) fprintf(stderr, "bench_core: wrong verdict\n");
                        return -1;
                }
                if (took < best)
                        best = took;
        }

        return best;
}

int main(void) {
        static const size_t sizes[] = { 10, 10000 };

        for (size_t i = 0; i < ELEMENTS(sizes); i++) {
                CLEANUP(claim_table_freep) ClaimTable *t = table_with(sizes[i]);
                ApMatrix small = {}, large = { AP_MASK_ALL, every_other(0), {} },
                         full = { AP_MASK_ALL, AP_MASK_ALL, {} };
                ApMatrix own = { AP_MASK_ALL, every_other(1), {} }, lower = large;
                ApMask half = ap_mask_up_to(127);
                Claim quarter = { .layer = CLAIM_LAYER_EXCLUSIVE,
                                  .uuid = uuid_of(CLAIM_LAYER_EXCLUSIVE, SIZE_MAX) };
                const struct {
                        const char *name;
                        ClaimQuery query;
                        ClaimVerdict verdict;
                } cases[] = {
                        { "small-free", { &small, ALL_LAYERS, quarter.uuid }, CLAIM_FREE },
                        { "128x128-free", { &lower, ALL_LAYERS }, CLAIM_FREE },
                        { "256x128-free-half-own", { &large, ALL_LAYERS, quarter.uuid }, CLAIM_FREE },
                        { "256x256-taken", { &full, ALL_LAYERS }, CLAIM_OVERLAP },
                        { "256x128-own-shared",
                          { &own, CLAIM_LAYER_BIT(CLAIM_LAYER_EXCLUSIVE),
                            uuid_of(CLAIM_LAYER_EXCLUSIVE, 1) },
                          CLAIM_OVERLAP },
                };
                double slowest = 0;

                if (!t)
                        return 1;
                /* has all wanted domains, on half of the adapters, in all layers where it can */
                quarter.matrix = (ApMatrix) { half, large.domains, {} };
                for (quarter.layer = CLAIM_LAYER_MDEV; quarter.layer < _CLAIM_LAYER_MAX; quarter.layer++)
                        if (claim_table_put(t, &quarter) < 0)
                                return 1;
                lower.adapters = ap_mask_and_not(&large.adapters, &half);
                ap_mask_set(&small.adapters, 5);
                ap_mask_set(&small.adapters, 6);
                ap_mask_set(&small.domains, 70);

                for (size_t j = 0; j < ELEMENTS(cases); j++) {
                        double ns = measure(t, &cases[j].query, cases[j].verdict);

                        if (ns < 0)
                                return 1;
                        (void) printf("core-check %zu %.0f ns %s\n", sizes[i], ns, cases[j].name);
                        slowest = MAX(slowest, ns);
                }
                (void) printf("core-check %zu %.0f ns\n", sizes[i], slowest);
        }

        return 0;
}
