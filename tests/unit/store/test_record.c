/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "store/record_internal.h"

#define UUID_TEXT "c4a2bb8a-6d3f-4f6e-9a70-1f1c3f6f6c11"

static bool records_equal(const Record *a, const Record *b) {
        return uuid_equal(a->uuid, b->uuid) && strcmp(a->name ?: "", b->name ?: "") == 0 &&
               strcmp(a->guest ?: "", b->guest ?: "") == 0 && uuid_equal(a->guest_uuid, b->guest_uuid) &&
               ap_matrix_equal(&a->matrix, &b->matrix) && a->autostart == b->autostart &&
               a->alternative == b->alternative && a->from_host == b->from_host && a->uid == b->uid &&
               strcmp(a->unknown ?: "", b->unknown ?: "") == 0 &&
               strcmp(a->mdevctl ?: "", b->mdevctl ?: "") == 0;
}

static void round_trip(const Record *r) {
        CLEANUP(freep) char *xml = NULL, *again = NULL, *error = NULL;
        CLEANUP(record_clear) Record back = {};

        assert_int_equal(record_to_xml(r, &xml), 0);
        if (record_from_xml(xml, strlen(xml), &back, &error) != 0)
                fail_msg("%s in %s", error, xml);
        assert_true(records_equal(r, &back));
        assert_int_equal(record_to_xml(&back, &again), 0);
        assert_string_equal(xml, again);
}

static void test_round_trip(void **state) {
        Record r = { .name = (char *) "payments-1" };

        uuid_parse(UUID_TEXT, &r.uuid);
        round_trip(&r);
        r.name = NULL;
        r.uuid = (Uuid) {};
        round_trip(&r);
        r.name = (char *) "a";
        r.guest = (char *) "a <b> & 'c' \"d\" \xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x91";
        round_trip(&r);
        uuid_parse(UUID_TEXT, &r.guest_uuid);
        for (unsigned i = 0; i < 1u << N_RECORD_FLAGS; i++) {
                for (size_t k = 0; k < N_RECORD_FLAGS; k++)
                        *record_flag(&r, k) = i >> k & 1;
                round_trip(&r);
        }
        r.mdevctl =
                (char *) "{\"start\":\"auto\",\"attrs\":[{\"assign_adapter\":\"0xab\"}],\"note\":\"<&'\\u0001\"}";
        round_trip(&r);
        r.mdevctl = NULL;
        r.matrix.adapters = r.matrix.domains = r.matrix.control = AP_MASK_ALL;
        round_trip(&r);
}

static void test_largest(void **state) {
        CLEANUP(freep) char *text = malloc(RECORD_XML_MAX), *xml = NULL, *error = NULL;
        CLEANUP(record_clear) Record r = {}, back = {};
        char *p = text;

        p += sprintf(p, "<device><parent>ap_matrix</parent>"
                        "<capability type='mdev'><type id='vfio_ap-passthrough'/><x>");
        memset(p, 'y', RECORD_UNKNOWN_MAX - 12);
        p += RECORD_UNKNOWN_MAX - 12;
        sprintf(p, "</x></capability></device>");
        assert_int_equal(record_from_xml(text, strlen(text), &r, &error), 0);

        uuid_parse(UUID_TEXT, &r.uuid);
        r.name = malloc(STORE_NAME_MAX + 1);
        memset(r.name, 'n', STORE_NAME_MAX);
        r.name[STORE_NAME_MAX] = '\0';
        r.guest = malloc(STORE_GUEST_MAX + 1);
        memset(r.guest, '\'', STORE_GUEST_MAX);
        r.guest[STORE_GUEST_MAX] = '\0';
        r.matrix.adapters = r.matrix.domains = r.matrix.control = AP_MASK_ALL;
        r.autostart = r.alternative = r.from_host = true;
        r.uid = 1000;

        /* what we write is never more than what we read */
        assert_int_equal(record_to_xml(&r, &xml), 0);
        assert_int_equal(record_from_xml(xml, strlen(xml), &back, &error), 0);
        assert_true(records_equal(&r, &back));
}

static void test_names(void **state) {
        static const struct {
                const char *name;
                bool valid;
        } cases[] = {
                { "a", true },     { "0", true },         { "a-b_c.d:e+f", true }, { "", false },
                { "-a", false },   { ".a", false },       { "a/b", false },        { "a b", false },
                { "a\nb", false }, { "\xc3\xa4", false }, { "a\x7f", false },      { "a\x01", false },
                { "a<", false },   { "a'", false },
        };
        char name[STORE_NAME_MAX + 2];

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                assert_int_equal(record_name_is_valid(cases[i].name), cases[i].valid);

        memset(name, 'a', sizeof name);
        name[STORE_NAME_MAX] = '\0';
        assert_true(record_name_is_valid(name));
        name[STORE_NAME_MAX] = 'a';
        name[STORE_NAME_MAX + 1] = '\0';
        assert_false(record_name_is_valid(name));
}

static void test_guests(void **state) {
        static const struct {
                const char *guest;
                bool valid;
        } cases[] = {
                { "vm 1", true },
                { "\xc3\xa4", true },
                { "\xed\x9f\xbf", true },
                { "\xf4\x8f\xbf\xbd", true },
                { "", false },
                { "a\n", false },
                { "a\t", false },
                { "\x7f", false },
                { "\xc2\x85", false }, /* C1 control */
                { "\xc0\x80", false }, /* overlong */
                { "\xe0\x80\x80", false },
                { "\xf0\x80\x80\x80", false },
                { "\xed\xa0\x80", false },     /* surrogate */
                { "\xef\xbf\xbf", false },     /* not in XML */
                { "\xf4\x90\x80\x80", false }, /* above Unicode */
                { "\xff", false },
                { "\xc3", false }, /* cut */
                { "\x80", false },
        };
        char guest[STORE_GUEST_MAX + 2];

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                Record r = { .guest = (char *) cases[i].guest };
                CLEANUP(freep) char *xml = NULL;

                assert_int_equal(record_guest_is_valid(cases[i].guest), cases[i].valid);
                assert_int_equal(record_to_xml(&r, &xml), cases[i].valid ? 0 : -EINVAL);
                if (cases[i].valid)
                        round_trip(&r);
                else
                        assert_null(xml);
        }

        memset(guest, 'a', sizeof guest);
        guest[STORE_GUEST_MAX] = '\0';
        assert_true(record_guest_is_valid(guest));
        guest[STORE_GUEST_MAX] = 'a';
        guest[STORE_GUEST_MAX + 1] = '\0';
        assert_false(record_guest_is_valid(guest));
}

static void test_copy(void **state) {
        CLEANUP(record_clear) Record copy = {};
        Record r = { .name = (char *) "n", .guest = (char *) "g", .unknown = (char *) "u", .uid = 7 };

        assert_int_equal(record_copy(&r, &copy), 0);
        assert_true(records_equal(&r, &copy));
        assert_ptr_not_equal(r.name, copy.name);
        assert_ptr_not_equal(r.guest, copy.guest);
        assert_ptr_not_equal(r.unknown, copy.unknown);
}

/* Sizes are looked at before the parser sees anything, and no output is touched. */
static void test_size(void **state) {
        CLEANUP(freep) char *text = malloc(RECORD_XML_MAX + 1), *error = NULL, *none = NULL;
        Record r = { .name = (char *) "untouched" };

        memset(text, ' ', RECORD_XML_MAX + 1);
        assert_int_equal(record_from_xml(text, RECORD_XML_MAX + 1, &r, &error), -EBADMSG);
        assert_string_equal(error, "65537 bytes are more than 65536");
        assert_int_equal(record_from_xml("", 0, &r, &none), -EBADMSG);
        assert_string_equal(none, "empty");
        assert_string_equal(r.name, "untouched");
        assert_int_equal(record_from_xml("<device/>", 9, &r, NULL), -EBADMSG);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip), cmocka_unit_test(test_largest),
                cmocka_unit_test(test_names),      cmocka_unit_test(test_guests),
                cmocka_unit_test(test_copy),       cmocka_unit_test(test_size),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
