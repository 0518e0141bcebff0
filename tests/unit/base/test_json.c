/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is read is the same whatever json-c's version: 0.18 refuses what is not ASCII if it is told to be strict. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/json.h"

/* @text's member "a" is @want. */
static void reads(const char *text, const char *want) {
        CLEANUP(json_putp) json_object *o = NULL;
        json_object *a;

        assert_int_equal(json_read(text, strlen(text), 4, &o), 0);
        assert_true(json_object_object_get_ex(o, "a", &a));
        assert_string_equal(json_object_get_string(a), want);
}

static void refuses(const char *text, size_t size) {
        json_object *o = NULL;

        assert_int_equal(json_read(text, size, 4, &o), -EBADMSG);
        assert_null(o);
}

static void test_good(void **state) {
        reads("{\"a\":\"b\"}", "b");
        reads(" \n{ \"a\" : \"b\" }\r\n\t ", "b");
        reads("{\"a\":\"\\u00e4\\n\\\"\"}", "\u00e4\n\"");
        reads("{\"a\":\"\u00e4 \u20ac \U0001f511 \U0010ffff\"}", "\u00e4 \u20ac \U0001f511 \U0010ffff");
        reads("{\"\u00e4\":1,\"a\":\"\u07ff\u0800\uffff\U00010000\"}", "\u07ff\u0800\uffff\U00010000");
        reads("{\"a\":\"\\\\\u00e4\"}", "\\\u00e4");
}

static void test_bad(void **state) {
        static const char *const bad[] = {
                "",
                " ",
                "{",
                "{\"a\":1",
                "{\"a\":1,}",
                "[1,]",
                "{\"a\":1}x",
                "{\"a\":1}{}",

                "{\"a\":1} /**/",
                "{\"a\":[[[[1]]]]}", /* too deep */
                "{\"a\":\"\xff\"}",
                "{\"a\":\"\xc3\"}",
                "{\"a\":\"\xed\xa0\x80\"}",
                "{\"a\":\"\xc0\x80\"}",
                "{\"a\":\"\xf4\x90\x80\x80\"}",
                "{\"a\":1}\xc3",
                "{\"a\":1}\xc3\xa4",
                "\xc3\xa4",
                "\xef\xbb\xbf{}",
                "{\xc3\xa4:1}",
        };

        for (size_t i = 0; i < ELEMENTS(bad); i++)
                refuses(bad[i], strlen(bad[i]));
        refuses("{\"a\":1}\0", 8);
        refuses("{\"a\":\"\u00e4\"}", 7); /* in the middle of it */
}

/* Nothing is read behind the end. */
static void test_end(void **state) {
        static const char text[] = "{\"a\":\"\U0001f511\"}";

        for (size_t n = 0; n < sizeof text - 1; n++) {
                CLEANUP(freep) char *copy = malloc(n + !n);

                assert_non_null(copy);
                memcpy(copy, text, n);
                refuses(copy, n);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),
                cmocka_unit_test(test_bad),
                cmocka_unit_test(test_end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
