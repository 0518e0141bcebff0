/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/ap_mask.h"

#include <errno.h>

#include "tests/lib/core/oracle.h"

#define F16 "ffffffffffffffff"
#define Z16 "0000000000000000"

static ApMask ids(size_t n, const uint8_t *list) {
        ApMask m = {};

        for (size_t i = 0; i < n; i++)
                ap_mask_set(&m, list[i]);
        return m;
}
#define IDS(...) ids(sizeof((uint8_t[]) { __VA_ARGS__ }), (uint8_t[]) { __VA_ARGS__ })

static void test_parse(void **state) {
        const struct {
                const char *name, *text;
                int r;
                ApMask mask;
        } cases[] = {
                { "full length",
                  "0x1000"
                  "000000000000" Z16 Z16 Z16,
                  0, IDS(3) },
                { "with newline",
                  "0x8000"
                  "000000000000" Z16 Z16 Z16 "\n",
                  0, IDS(0) },
                { "no prefix",
                  "8"
                  "000000000000000" Z16 Z16 Z16,
                  0, IDS(0) },
                { "last id", "0x" Z16 Z16 Z16 "0000000000000001", 0, IDS(255) },
                { "each word",
                  "0x"
                  "8000000000000001"
                  "8000000000000001" Z16 "0000000000000010",
                  0, IDS(0, 63, 64, 127, 251) },
                { "upper and lower case", "0xAaFf", 0, IDS(0, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15) },
                { "short is left-aligned", "3", 0, IDS(2, 3) },
                { "short with prefix", "0xe", 0, IDS(0, 1, 2) },
                { "zero", "0", 0, {} },
                { "all", "0x" F16 F16 F16 F16, 0, AP_MASK_ALL },
                { "empty", "", -EINVAL, {} },
                { "newline only", "\n", -EINVAL, {} },
                { "prefix only", "0x", -EINVAL, {} },
                { "prefix and newline", "0x\n", -EINVAL, {} },
                { "two newlines", "0x1\n\n", -EINVAL, {} },
                { "newline first", "\n0x1", -EINVAL, {} },
                { "upper-case prefix", "0X1", -EINVAL, {} },
                { "blank", " 0x1", -EINVAL, {} },
                { "trailing blank", "0x1 ", -EINVAL, {} },
                { "relative", "+3", -EINVAL, {} },
                { "negative", "-1", -EINVAL, {} },
                { "comma", "0x1,", -EINVAL, {} },
                { "junk", "banana", -EINVAL, {} },
                { "65 digits", "0x" F16 F16 F16 F16 "0", -ERANGE, {} },
                { "65 characters, not all digits", "0x" F16 F16 F16 F16 "g", -EINVAL, {} },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                ApMask before = IDS(7, 99), mask = before;
                int r = ap_mask_parse(cases[i].text, &mask);

                assert_case(cases[i].name, r == cases[i].r);
                assert_case(cases[i].name, ap_mask_equal(&mask, r < 0 ? &before : &cases[i].mask));
        }
}

static void test_parse_n(void **state) {
        ApMask before = IDS(9), m = before;

        assert_int_equal(ap_mask_parse_n("0x8,0x1", 3, &m), 0);
        assert_true(ap_mask_test(&m, 0) && ap_mask_count(&m) == 1);

        m = before;
        assert_int_equal(ap_mask_parse_n("8\n", 2, &m), -EINVAL);
        assert_int_equal(ap_mask_parse_n("8", 0, &m), -EINVAL);
        assert_int_equal(ap_mask_parse_n("0x8", 2, &m), -EINVAL);
        assert_true(ap_mask_equal(&m, &before));
}

static void test_parse_list(void **state) {
        const struct {
                const char *name, *text;
                int r;
                ApMask mask;
        } cases[] = {
                { "one", "5", 0, IDS(5) },
                { "zero", "0", 0, IDS(0) },
                { "hex", "0xab", 0, IDS(0xab) },
                { "hex upper case", "0xAB", 0, IDS(0xab) },
                { "hex with zeros", "0x00a", 0, IDS(10) },
                { "mixed", "1,3,0x10-0x13", 0, IDS(1, 3, 16, 17, 18, 19) },
                { "range of one", "7-7", 0, IDS(7) },
                { "decimal to hex", "9-0xb", 0, IDS(9, 10, 11) },
                { "repeated", "4,4,3-5", 0, IDS(3, 4, 5) },
                { "unordered", "9,2", 0, IDS(2, 9) },
                { "largest", "255", 0, IDS(255) },
                { "everything", "0-255", 0, AP_MASK_ALL },
                { "empty", "", -EINVAL, {} },
                { "comma only", ",", -EINVAL, {} },
                { "comma at the end", "1,", -EINVAL, {} },
                { "comma at the start", ",1", -EINVAL, {} },
                { "two commas", "1,,2", -EINVAL, {} },
                { "octal-looking", "010", -EINVAL, {} },
                { "two zeros", "00", -EINVAL, {} },
                { "octal-looking in a range", "1-07", -EINVAL, {} },
                { "prefix only", "0x", -EINVAL, {} },
                { "upper-case prefix", "0X10", -EINVAL, {} },
                { "hex digit without prefix", "a", -EINVAL, {} },
                { "hex digit after decimal", "1a", -EINVAL, {} },
                { "negative", "-1", -EINVAL, {} },
                { "open range", "1-", -EINVAL, {} },
                { "two dashes", "1--3", -EINVAL, {} },
                { "chained range", "1-2-3", -EINVAL, {} },
                { "blank", "1, 2", -EINVAL, {} },
                { "newline", "1\n", -EINVAL, {} },
                { "plus", "+1", -EINVAL, {} },
                { "banana", "banana", -EINVAL, {} },
                { "too large", "256", -ERANGE, {} },
                { "too large in hex", "0x100", -ERANGE, {} },
                { "4000", "4000", -ERANGE, {} },
                { "wraps 8 bits", "261", -ERANGE, {} },
                { "wraps 32 bits", "4294967297", -ERANGE, {} },
                { "wraps 64 bits", "18446744073709551617", -ERANGE, {} },
                { "wraps in hex", "0x10000000000000001", -ERANGE, {} },
                { "end too large", "1-300", -ERANGE, {} },
                { "backwards", "5-4", -ERANGE, {} },
                { "good before bad", "1,2,banana", -EINVAL, {} },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                ApMask before = IDS(7, 99), mask = before;
                int r = ap_mask_parse_list(cases[i].text, &mask);

                assert_case(cases[i].name, r == cases[i].r);
                assert_case(cases[i].name, ap_mask_equal(&mask, r < 0 ? &before : &cases[i].mask));
        }
}

static void test_format(void **state) {
        const struct {
                const char *text, *list;
                ApMask mask;
        } cases[] = {
                { "0x" Z16 Z16 Z16 Z16, "", {} },
                { "0x1000000000000000" Z16 Z16 Z16, "0x03", IDS(3) },
                { "0x08000f0000000000" Z16 Z16 Z16, "0x04,0x14-0x17", IDS(4, 20, 21, 22, 23) },
                { "0x8000000000000001"
                  "c000000000000000" Z16 "0000000000000003",
                  "0x00,0x3f-0x41,0xfe-0xff", IDS(0, 63, 64, 65, 254, 255) },
                { "0x" F16 F16 F16 F16, "0x00-0xff", AP_MASK_ALL },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                char text[AP_MASK_STRING_SIZE], list[AP_MASK_LIST_SIZE];

                assert_string_equal(ap_mask_format(&cases[i].mask, text), cases[i].text);
                assert_string_equal(ap_mask_format_list(&cases[i].mask, list), cases[i].list);
        }
}

static void test_from_ids(void **state) {
        uint16_t many[257] = {}, back[AP_IDS];
        ApMask before = IDS(1, 2), m = before;

        assert_int_equal(ap_mask_from_ids((uint16_t[]) { 9, 0, 255 }, 3, &m), 0);
        assert_int_equal(ap_mask_to_ids(&m, back), 3);
        assert_true(back[0] == 0 && back[1] == 9 && back[2] == 255);

        assert_int_equal(ap_mask_from_ids(NULL, 0, &m), 0);
        assert_true(ap_mask_is_empty(&m));

        m = before;
        assert_int_equal(ap_mask_from_ids((uint16_t[]) { 1, 256 }, 2, &m), -ERANGE);
        assert_int_equal(ap_mask_from_ids((uint16_t[]) { 65535 }, 1, &m), -ERANGE);
        assert_int_equal(ap_mask_from_ids((uint16_t[]) { 3, 4, 3 }, 3, &m), -EEXIST);
        assert_int_equal(ap_mask_from_ids(many, 257, &m), -E2BIG);
        assert_true(ap_mask_equal(&m, &before));

        for (uint16_t i = 0; i < AP_IDS; i++)
                many[i] = i;
        assert_int_equal(ap_mask_from_ids(many, 256, &m), 0);
        assert_true(ap_mask_equal(&m, &AP_MASK_ALL));
        assert_int_equal(ap_mask_to_ids(&m, back), 256);
        assert_memory_equal(back, many, sizeof back);
}

static void test_up_to(void **state) {
        for (unsigned last = 0; last < AP_IDS; last++) {
                ApMask m = ap_mask_up_to((uint8_t) last);

                for (unsigned i = 0; i < AP_IDS; i++)
                        assert_int_equal(ap_mask_test(&m, (uint8_t) i), i <= last);
        }
}

/* Every operation against arrays of bools. */
static void test_against_oracle(void **state) {
        Rng rng = rng_new();

        for (int round = 0; round < 3000; round++) {
                ApMask a = random_mask(&rng, 1 + rng_below(&rng, AP_IDS), 1 + rng_below(&rng, 20));
                ApMask b = random_mask(&rng, 1 + rng_below(&rng, AP_IDS), 1 + rng_below(&rng, 20));
                NaiveMask x = naive_of(&a), y = naive_of(&b), and = {}, or = {}, and_not = {};
                char text[AP_MASK_STRING_SIZE], list[AP_MASK_LIST_SIZE];
                bool equal = true, meet = false;
                ApMask back = {}, m;
                uint16_t id_list[AP_IDS];
                unsigned n = 0, next = AP_IDS, from = rng_below(&rng, AP_IDS + 1);
                size_t n_ids;

                for (unsigned i = AP_IDS; i-- > 0;) {
                        and.has[i] = x.has[i] && y.has[i];
                        or.has[i] = x.has[i] || y.has[i];
                        and_not.has[i] = x.has[i] && !y.has[i];
                        equal = equal && x.has[i] == y.has[i];
                        meet = meet || and.has[i];
                        n += x.has[i];
                        if (x.has[i] && i >= from)
                                next = i;
                        assert_int_equal(ap_mask_test(&a, (uint8_t) i), x.has[i]);
                }

                m = ap_mask_and(&a, &b);
                back = naive_to_mask(&and);
                assert_memory_equal(&m, &back, sizeof m);
                m = ap_mask_or(&a, &b);
                back = naive_to_mask(& or);
                assert_memory_equal(&m, &back, sizeof m);
                m = ap_mask_and_not(&a, &b);
                back = naive_to_mask(&and_not);
                assert_memory_equal(&m, &back, sizeof m);
                assert_int_equal(ap_mask_equal(&a, &b), equal);
                assert_true(ap_mask_equal(&a, &a));
                assert_int_equal(ap_mask_intersects(&a, &b), meet);
                assert_int_equal(ap_mask_count(&a), n);
                assert_int_equal(ap_mask_is_empty(&a), n == 0);
                assert_int_equal(ap_mask_next(&a, from), next);

                back = (ApMask) {};
                assert_int_equal(ap_mask_parse(ap_mask_format(&a, text), &back), 0);
                assert_memory_equal(&a, &back, sizeof a);
                assert_int_equal(strlen(text), AP_MASK_STRING_SIZE - 1);

                if (n > 0) {
                        back = (ApMask) {};
                        assert_int_equal(ap_mask_parse_list(ap_mask_format_list(&a, list), &back), 0);
                        assert_memory_equal(&a, &back, sizeof a);
                }

                n_ids = ap_mask_to_ids(&a, id_list);
                assert_int_equal(n_ids, n);
                assert_int_equal(ap_mask_from_ids(id_list, n_ids, &back), 0);
                assert_memory_equal(&a, &back, sizeof a);

                n = 0;
                AP_MASK_FOREACH(id, &a)
                        assert_int_equal(id_list[n++], id);
                assert_int_equal(n, n_ids);

                m = a;
                ap_mask_clear(&m, (uint8_t) round);
                assert_false(ap_mask_test(&m, (uint8_t) round));
                assert_int_equal(ap_mask_count(&m), n - x.has[(uint8_t) round]);
        }
}

/* The longest list that there is fits. */
static void test_longest_list(void **state) {
        char list[AP_MASK_LIST_SIZE];
        ApMask odd = {}, pairs = {};

        for (unsigned i = 0; i < AP_IDS; i++) {
                if (i % 2)
                        ap_mask_set(&odd, (uint8_t) i);
                if (i % 3)
                        ap_mask_set(&pairs, (uint8_t) i);
        }
        assert_true(strlen(ap_mask_format_list(&odd, list)) < sizeof list);
        assert_true(strlen(ap_mask_format_list(&pairs, list)) < sizeof list);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),          cmocka_unit_test(test_parse_n),
                cmocka_unit_test(test_parse_list),     cmocka_unit_test(test_format),
                cmocka_unit_test(test_from_ids),       cmocka_unit_test(test_up_to),
                cmocka_unit_test(test_against_oracle), cmocka_unit_test(test_longest_list),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
