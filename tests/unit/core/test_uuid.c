/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/uuid.h"

#include <errno.h>

#include "tests/lib/core/test.h"

#define GOOD "01234567-89ab-cdef-0123-456789abcdef"

static void test_parse(void **state) {
        static const struct {
                const char *name, *text;
                int r;
        } cases[] = {
                { "lower case", GOOD, 0 },
                { "upper case", "01234567-89AB-CDEF-0123-456789ABCDEF", 0 },
                { "empty", "", -EINVAL },
                { "one short", "01234567-89ab-cdef-0123-456789abcde", -EINVAL },
                { "one long", GOOD "0", -EINVAL },
                { "newline", GOOD "\n", -EINVAL },
                { "blank", " 1234567-89ab-cdef-0123-456789abcdef", -EINVAL },
                { "no dashes", "0123456789abcdef0123456789abcdef0123", -EINVAL },
                { "dash at the wrong place", "0123456-789ab-cdef-0123-456789abcdef", -EINVAL },
                { "underscores", "01234567_89ab_cdef_0123_456789abcdef", -EINVAL },
                { "braces", "{1234567-89ab-cdef-0123-456789abcde}", -EINVAL },
                { "not hex", "0123456g-89ab-cdef-0123-456789abcdef", -EINVAL },
                { "sign", "-1234567-89ab-cdef-0123-456789abcdef", -EINVAL },
        };
        static const Uuid good = { { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67,
                                     0x89, 0xab, 0xcd, 0xef } };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                Uuid before = { { 1, 2, 3 } }, u = before;
                char buf[UUID_STRING_SIZE];
                int r = uuid_parse(cases[i].text, &u);

                assert_case(cases[i].name, r == cases[i].r);
                assert_case(cases[i].name, uuid_equal(u, r < 0 ? before : good));
                if (r >= 0)
                        assert_string_equal(uuid_format(u, buf), GOOD);
        }
}

static void test_order(void **state) {
        Uuid null = {}, a = { { 1 } }, b = { { 1, [15] = 1 } }, c = { { 0x80 } };

        assert_true(uuid_is_null(null));
        assert_false(uuid_is_null(b));
        assert_true(uuid_compare(null, a) < 0 && uuid_compare(a, b) < 0 && uuid_compare(b, c) < 0);
        assert_true(uuid_compare(c, a) > 0 && uuid_compare(b, b) == 0);
        assert_true(uuid_equal(b, b) && !uuid_equal(a, b));
}

static void test_random(void **state) {
        Uuid last = {};

        for (int i = 0; i < 100; i++) {
                char buf[UUID_STRING_SIZE];
                Uuid u = {}, back;

                assert_int_equal(uuid_random(&u), 0);
                assert_int_equal(u.b[6] >> 4, 4);
                assert_int_equal(u.b[8] >> 6, 2);
                assert_false(uuid_equal(u, last));
                assert_int_equal(uuid_parse(uuid_format(u, buf), &back), 0);
                assert_true(uuid_equal(u, back));
                last = u;
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_random),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
