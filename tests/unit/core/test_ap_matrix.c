/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/ap_matrix.h"

#include <errno.h>

#include "tests/lib/core/oracle.h"

#define F16 "ffffffffffffffff"
#define Z16 "0000000000000000"
#define Z64 Z16 Z16 Z16 Z16

static void test_apqn(void **state) {
        char buf[APQN_STRING_SIZE];

        assert_string_equal(apqn_format((Apqn) { 5, 0x47 }, buf), "05.0047");
        assert_string_equal(apqn_format((Apqn) { 0, 0 }, buf), "00.0000");
        assert_string_equal(apqn_format((Apqn) { 255, 171 }, buf), "ff.00ab");
}

static void test_parse(void **state) {
        static const struct {
                const char *name, *text;
                int r;
                unsigned adapters, domains, control;
        } cases[] = {
                { "as the kernel prints it",
                  "0x" F16 Z16 Z16 Z16 ",0x18"
                  "00000000000000" Z16 Z16 Z16 ",0x" Z64 "\n",
                  0, 64, 2, 0 },
                { "short masks", "0x18,0x02,0x1", 0, 2, 1, 1 },
                { "no prefix", "f,1,0", 0, 4, 1, 0 },
                { "newline", "1,2,3\n", 0, 1, 1, 2 },
                { "two masks and newline", "0x18,0x02\n", -EINVAL, 0, 0, 0 },
                { "two masks and comma", "0x18,0x02,", -EINVAL, 0, 0, 0 },
                { "two masks", "0x18,0x02", -EINVAL, 0, 0, 0 },
                { "one mask", "0x18", -EINVAL, 0, 0, 0 },
                { "nothing", "", -EINVAL, 0, 0, 0 },
                { "empty field", "0x18,,0x02", -EINVAL, 0, 0, 0 },
                { "fourth field", "1,2,3,4", -EINVAL, 0, 0, 0 },
                { "comma at the end", "1,2,3,", -EINVAL, 0, 0, 0 },
                { "text behind", "1,2,3\nx", -EINVAL, 0, 0, 0 },
                { "newline in the middle", "1\n,2,3", -EINVAL, 0, 0, 0 },
                { "blank", "1, 2,3", -EINVAL, 0, 0, 0 },
                { "prefix only", "1,0x,3", -EINVAL, 0, 0, 0 },
                { "first too long", "0" Z64 ",2,3", -ERANGE, 0, 0, 0 },
                { "second too long", "1,0" Z64 ",3", -ERANGE, 0, 0, 0 },
                { "third too long", "1,2,0" Z64, -ERANGE, 0, 0, 0 },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                ApMatrix before = { AP_MASK_ALL, {}, AP_MASK_ALL }, m = before;
                int r = ap_matrix_parse(cases[i].text, &m);

                assert_case(cases[i].name, r == cases[i].r);
                if (r < 0) {
                        assert_case(cases[i].name, memcmp(&m, &before, sizeof m) == 0);
                        continue;
                }
                assert_case(cases[i].name, ap_mask_count(&m.adapters) == cases[i].adapters);
                assert_case(cases[i].name, ap_mask_count(&m.domains) == cases[i].domains);
                assert_case(cases[i].name, ap_mask_count(&m.control) == cases[i].control);
        }
}

static void test_against_oracle(void **state) {
        Rng rng = rng_new();

        for (int round = 0; round < 300; round++) {
                ApMatrix a = random_matrix(&rng, 1 + rng_below(&rng, AP_IDS), 1 + rng_below(&rng, 30));
                ApMatrix b = random_matrix(&rng, 1 + rng_below(&rng, AP_IDS), 1 + rng_below(&rng, 30)),
                         back = {};
                NaiveMask aa = naive_of(&a.adapters), ad = naive_of(&a.domains);
                char text[AP_MATRIX_STRING_SIZE];
                unsigned n = 0;

                for (unsigned i = 0; i < AP_IDS; i++)
                        for (unsigned j = 0; j < AP_IDS; j++) {
                                bool in = aa.has[i] && ad.has[j];

                                n += in;
                                assert_int_equal(ap_matrix_has(&a, (Apqn) { (uint8_t) i, (uint8_t) j }), in);
                        }

                assert_int_equal(ap_matrix_n_queues(&a), n);
                assert_int_equal(ap_matrix_equal(&a, &b), memcmp(&a, &b, sizeof a) == 0);

                assert_int_equal(ap_matrix_parse(ap_matrix_format(&a, text), &back), 0);
                assert_true(ap_matrix_equal(&a, &back));
                assert_int_equal(strlen(text), AP_MATRIX_STRING_SIZE - 1);
        }
}

/* Each of the three parts counts for equality. */
static void test_parts(void **state) {
        ApMatrix a = {}, b = {};

        ap_mask_set(&a.control, 5);
        assert_false(ap_matrix_equal(&a, &b));
        ap_mask_set(&b.control, 5);
        assert_true(ap_matrix_equal(&a, &b));
        ap_mask_set(&a.adapters, 1);
        assert_false(ap_matrix_equal(&a, &b));
        ap_mask_set(&b.adapters, 1);
        ap_mask_set(&a.domains, 1);
        assert_false(ap_matrix_equal(&a, &b));
        ap_mask_set(&b.domains, 1);
        assert_true(ap_matrix_equal(&a, &b));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_apqn),
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_against_oracle),
                cmocka_unit_test(test_parts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
