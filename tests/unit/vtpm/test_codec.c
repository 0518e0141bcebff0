/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unit/vtpm/vtpm_test.h"

static void test_command(void **state) {
        static const struct {
                const char *name;
                size_t size;
                uint32_t header_size, want;
        } cases[] = {
                { "nothing", 0, 0, VIRTIO_TPM_RC_COMMAND_SIZE },
                { "one byte", 1, 1, VIRTIO_TPM_RC_COMMAND_SIZE },
                { "nine", 9, 9, VIRTIO_TPM_RC_COMMAND_SIZE },
                { "a bare header", 10, 10, 0 },
                { "header says less", 12, 11, VIRTIO_TPM_RC_COMMAND_SIZE },
                { "header says more", 12, 13, VIRTIO_TPM_RC_COMMAND_SIZE },
                { "header says much more", 12, UINT32_MAX, VIRTIO_TPM_RC_COMMAND_SIZE },
                { "little-endian", 12, 12U << 24, VIRTIO_TPM_RC_COMMAND_SIZE },
                { "the longest", 4096, 4096, 0 },
                { "one more", 4097, 4097, VIRTIO_TPM_RC_COMMAND_SIZE },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                /* exact, at an odd address: a sanitizer sees what is read beyond or aligned */
                uint8_t *exact = malloc(cases[i].size + 1), header[10] = {};

                assert_non_null(exact);
                memset(exact, 0, cases[i].size + 1);
                codec_put32(header + 2, cases[i].header_size);
                memcpy(exact + 1, header, MIN(cases[i].size, sizeof header));
                if (codec_check_command(exact + 1, cases[i].size) != cases[i].want)
                        fail_msg("%s", cases[i].name);
                free(exact);
        }
}

static void test_response(void **state) {
        static const struct {
                uint32_t size;
                int want;
        } cases[] = {
                { 0, -EBADMSG }, { 9, -EBADMSG },    { 10, 10 },
                { 4096, 4096 },  { 4097, -EBADMSG }, { UINT32_MAX, -EBADMSG },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                uint8_t header[10] = {};

                codec_put32(header + 2, cases[i].size);
                assert_int_equal(codec_response_size(header), cases[i].want);
        }
}

static void test_error(void **state) {
        static const uint8_t want[] = { 0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x42 };
        uint8_t got[10];

        codec_put_error(got, VIRTIO_TPM_RC_COMMAND_SIZE);
        assert_memory_equal(got, want, sizeof want);
        assert_int_equal(codec_code(got), 0x142);
        assert_int_equal(codec_code(get_random), 0x17b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_command),
                cmocka_unit_test(test_response),
                cmocka_unit_test(test_error),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
