/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <gcrypt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "vtpm/vtpm_backup.h"
#include "vtpm/vtpm_record.h"

#define UUID_TEXT "0fdcd2d6-1a3c-4dc2-8d3c-d7fb0b0ec3ac"
#define REST      "\"uid\":1900000001,\"owner\":0,\"pcr-banks\":\"sha256\""
#define GOOD      "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\"," REST "}"

static void test_round_trip(void **state) {
        const uint32_t denied[] = { 0x139, UINT32_MAX };
        const VtpmSpec specs[] = {
                { .name = "a", .owner = 1 },
                { .name = "b.c",
                  .guest = "\xc3\xa4 b\"c",
                  .guest_uuid.b = { 1, 2 },
                  .ephemeral = true,
                  .platform_keep = true },
                { .name = "d", .encrypted = true, .pcr_banks = "sha1,sha512", .no_certificates = true },
                { .name = "e", .key_file = "/k", .profile = "default-v1", .ca_config = "/c" },
                { .name = "f", .denied = denied, .n_denied = 2 },
        };

        for (size_t i = 0; i < ELEMENTS(specs); i++) {
                CLEANUP(vtpm_record_clear) VtpmRecord r = {}, back = {};
                CLEANUP(freep) char *json = NULL, *again = NULL, *text = NULL;
                VtpmSpec spec;

                assert_int_equal(vtpm_record_from_spec(&specs[i], &r, &text), 0);
                assert_int_equal(uuid_parse(UUID_TEXT, &r.uuid), 0);
                r.uid = 1900000001;
                assert_int_equal(vtpm_record_to_json(&r, &json), 0);
                assert_int_equal(vtpm_record_from_json(json, &back, &text), 0);
                assert_int_equal(vtpm_record_to_json(&back, &again), 0);
                assert_string_equal(json, again);
                vtpm_record_to_spec(&back, &spec);
                assert_string_equal(spec.name, specs[i].name);
                assert_int_equal(spec.n_denied, specs[i].n_denied);
                assert_int_equal(spec.ephemeral, specs[i].ephemeral);
                assert_int_equal(spec.encrypted, specs[i].encrypted || specs[i].key_file);
        }
}

static void test_bad_records(void **state) {
        static const char *const bad[] = {
                "",
                " ",
                "null",
                "[]",
                "{",
                GOOD "x",
                "{\"version\":2,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\"," REST "}",
                "{\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\"," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "x\",\"name\":\"n\"," REST "}",
                "{\"version\":1,\"name\":\"n\"," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\"," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":1," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"../n\"," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\\u0000m\"," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT
                "\",\"name\":\"n\",\"uid\":0,\"owner\":0,\"pcr-banks\":\"sha256\"}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT
                "\",\"name\":\"n\",\"uid\":-1,\"owner\":0,\"pcr-banks\":\"sha256\"}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT
                "\",\"name\":\"n\",\"uid\":4294967295,\"owner\":0,\"pcr-banks\":\"sha256\"}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\",\"encryption\":\"rot13\"," REST
                "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\",\"encryption\":\"file\"," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\",\"key-file\":\"/k\"," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\",\"denied\":[4294967296]," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\",\"denied\":{}," REST "}",
                "{\"version\":1,\"uuid\":\"" UUID_TEXT "\",\"name\":\"n\",\"ephemeral\":1," REST "}",
                "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]",
        };
        CLEANUP(vtpm_record_clear) VtpmRecord r = {};
        char *text = NULL;

        assert_int_equal(vtpm_record_from_json(GOOD, &r, &text), 0);
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                VtpmRecord untouched = {};

                assert_int_equal(vtpm_record_from_json(bad[i], &untouched, &text), -EBADMSG);
                assert_non_null(text);
                assert_null(untouched.name);
                free(text);
        }
}

static uint8_t *copy(const char *s, size_t size) {
        uint8_t *p = malloc(size + 1);

        assert_non_null(p);
        memcpy(p, s, size);
        return p;
}

static void seal(uint8_t *data, size_t size) {
        gcry_md_hash_buffer(GCRY_MD_SHA256, data + size - VTPM_BACKUP_SUM_SIZE, data,
                            size - VTPM_BACKUP_SUM_SIZE);
}

static void test_backup(void **state) {
        CLEANUP(vtpm_backup_clear) VtpmBackup b = {}, back = {};
        CLEANUP(freep) uint8_t *data = NULL, *spare = copy("x", 1);
        static const char *const bad_names[] = { "",       "/x",          "../x",      ".x",      "a/b",
                                                 "state/", "state/.lock", "state/a/b", "tpm.json" };
        const char *wrong;
        size_t size;

        assert_int_equal(vtpm_backup_add(&b, "tpm.json", copy("{}", 2), 2), 0);
        assert_int_equal(vtpm_backup_add(&b, "state/tpm2-00.permall", copy("a\0b", 3), 3), 0);
        assert_int_equal(vtpm_backup_add(&b, "key", copy("", 0), 0), 0);
        for (size_t i = 0; i < ELEMENTS(bad_names); i++)
                assert_int_equal(vtpm_backup_add(&b, bad_names[i], spare, 1), -EINVAL);
        assert_int_equal(vtpm_backup_write(&b, &data, &size), 0);
        assert_int_equal(vtpm_backup_read(data, size, &back, &wrong), 0);
        assert_int_equal(back.n, 3);
        assert_memory_equal(vtpm_backup_find(&back, "state/tpm2-00.permall")->data, "a\0b", 4);
        assert_int_equal(vtpm_backup_find(&back, "key")->size, 0);

        /* each bit, and each length */
        for (size_t i = 0; i < size; i++) {
                VtpmBackup none = {};

                data[i] ^= (uint8_t) (1U << i % 8);
                assert_int_equal(vtpm_backup_read(data, size, &none, &wrong), -EBADMSG);
                data[i] ^= (uint8_t) (1U << i % 8);
                assert_int_equal(vtpm_backup_read(data, i, &none, &wrong), -EBADMSG);
                assert_int_equal(none.n, 0);
        }

        /* nonsense whose checksum is right: every byte of the structure, with all values that matter */
        for (size_t i = 0; i < size - VTPM_BACKUP_SUM_SIZE; i++) {
                uint8_t saved = data[i];

                for (unsigned k = 0; k < 4; k++) {
                        VtpmBackup some = {};

                        data[i] = (const uint8_t[]) { 0, 0xff, (uint8_t) (saved + 1), '/' }[k];
                        seal(data, size);
                        if (vtpm_backup_read(data, size, &some, &wrong) >= 0)
                                assert_non_null(vtpm_backup_find(&some, "tpm.json"));
                        vtpm_backup_clear(&some);
                }
                data[i] = saved;
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_bad_records),
                cmocka_unit_test(test_backup),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
