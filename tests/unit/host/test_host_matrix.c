/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_matrix.h"
#include "host/host_scan.h"
#include "tests/lib/core/test.h"

static void test_text(void **state) {
        static const struct {
                const char *text, *adapters, *domains;
                int r;
        } cases[] = {
                { "", "", "", 0 },
                { "03.0006\n03.0047\n04.0006\n04.0047\n", "0x03-0x04", "0x06,0x47", 0 },
                { "03.\n04.\n", "0x03-0x04", "", 0 },
                { ".0006\n.00ff\n", "", "0x06,0xff", 0 },
                { "03.0006", NULL, NULL, -EBADMSG }, /* cut in the middle of a line */
                { "03.0006\n04.00", NULL, NULL, -EBADMSG },
                { "03.0100\n", NULL, NULL, -EBADMSG },
                { "banana\n", NULL, NULL, -EBADMSG },
                { "\n", NULL, NULL, -EBADMSG },
                { "3.0006\n", NULL, NULL, -EBADMSG },
                { "03.0006\n\n", NULL, NULL, -EBADMSG },
                { "0G.0006\n", NULL, NULL, -EBADMSG },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                ApMask a = AP_MASK_ALL, d = AP_MASK_ALL, all = AP_MASK_ALL;
                char buf[AP_MASK_LIST_SIZE];

                assert_int_equal(host_matrix_parse_text(cases[i].text, &a, &d), cases[i].r);
                if (cases[i].r < 0) {
                        assert_true(ap_mask_equal(&a, &all) && ap_mask_equal(&d, &all));
                        continue;
                }
                assert_string_equal(ap_mask_format_list(&a, buf), cases[i].adapters);
                assert_string_equal(ap_mask_format_list(&d, buf), cases[i].domains);
        }
}

/* A sysfs of a few texts; an attribute that is being written gives one after the other. */
typedef struct Texts {
        Sysfs sysfs;
        const char *const *texts;
        size_t n, reads;
} Texts;

static ssize_t texts_read(Sysfs *s, const char *path, char *buf, size_t size) {
        Texts *t = CONTAINER_OF(s, Texts, sysfs);
        const char *text = t->texts[t->reads++ % t->n];

        if (strlen(text) >= size)
                return -EOVERFLOW;
        return snprintf(buf, size, "%s", text);
}

static const SysfsOps texts_ops = { .read = texts_read };

#define ZERO "0x0000000000000000000000000000000000000000000000000000000000000000"
#define ONE  "0x1000000000000000000000000000000000000000000000000000000000000000"

static void test_twice(void **state) {
        static const char *const steady[] = { ONE "," ONE "," ZERO "\n" };
        static const char *const torn[] = { ONE "," ZERO "," ZERO "\n", ONE "," ONE "," ZERO "\n",
                                            ONE "," ONE "," ZERO "\n" };
        static const char *const restless[] = { ZERO "," ONE "," ZERO "\n", ONE "," ZERO "," ZERO "\n" };
        static const char *const absurd[] = { "banana\n" };
        ApMatrix want = {}, m = {}, before;
        Texts t;

        ap_mask_set(&want.adapters, 3);
        ap_mask_set(&want.domains, 3);

        /* as expected: once is enough */
        t = (Texts) { { &texts_ops }, steady, 1, 0 };
        assert_int_equal(host_matrix_read(&t.sysfs, "m", &want, &m), 0);
        assert_int_equal(t.reads, 1);
        assert_true(ap_matrix_equal(&m, &want));

        t = (Texts) { { &texts_ops }, steady, 1, 0 };
        assert_int_equal(host_matrix_read(&t.sysfs, "m", NULL, &m), 0);
        assert_int_equal(t.reads, 2);

        t = (Texts) { { &texts_ops }, torn, 3, 0 };
        assert_int_equal(host_matrix_read(&t.sysfs, "m", NULL, &m), 0);
        assert_int_equal(t.reads, 3);
        assert_true(ap_matrix_equal(&m, &want));

        before = m;
        t = (Texts) { { &texts_ops }, restless, 2, 0 };
        assert_int_equal(host_matrix_read(&t.sysfs, "m", NULL, &m), -EAGAIN);
        t = (Texts) { { &texts_ops }, absurd, 1, 0 };
        assert_int_equal(host_matrix_read(&t.sysfs, "m", NULL, &m), HOST_MATRIX_ABSURD);
        assert_true(ap_matrix_equal(&m, &before));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_twice),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
