/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* dbus/org.guestcrypt1.xml says what the service says; and explains all of it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "bus/bus.h"

#define FILE_MAX (256 * 1024)
#define DOC      "annotation name=\"org.gtk.GDBus.DocString\""

static char *read_file(FILE *f) {
        char *s = calloc(1, FILE_MAX);
        size_t n;

        assert_non_null(s);
        n = fread(s, 1, FILE_MAX, f);
        assert_true(n > 0 && n < FILE_MAX);
        return s;
}

/* The tags from <node> on, a line each, without comments and explanations. */
static char *tags(const char *xml) {
        size_t size;
        char *out;
        FILE *f = open_memstream(&out, &size);

        for (const char *p = strstr(xml, "<node>"); p && *p; p = strchr(p + 1, '<')) {
                size_t n = strcspn(p, ">");

                if (strncmp(p, "<!--", 4) != 0 && strncmp(p + 1, DOC, strlen(DOC)) != 0)
                        (void) fprintf(f, "%.*s\n", (int) n + 1, p);
        }
        assert_int_equal(fclose(f), 0);
        return out;
}

static void test_file_is_what_the_service_says(void **state) {
        CLEANUP(fclosep) FILE *file = fopen(INTERFACE_XML, "re"), *own = tmpfile();
        CLEANUP(freep) char *want = NULL, *is = NULL, *want_tags = NULL, *is_tags = NULL;

        assert_non_null(file);
        assert_int_equal(bus_introspect(own), 0);
        rewind(own);
        want = read_file(file);
        is = read_file(own);
        want_tags = tags(want);
        is_tags = tags(is);
        assert_true(strlen(is_tags) > 1000);
        assert_string_equal(is_tags, want_tags);
}

static void test_all_is_explained(void **state) {
        static const char *const elements[] = { "<interface ", "<method ", "<property ", "<signal " };
        CLEANUP(fclosep) FILE *file = fopen(INTERFACE_XML, "re");
        CLEANUP(freep) char *xml = NULL;

        assert_non_null(file);
        xml = read_file(file);
        for (size_t i = 0; i < ELEMENTS(elements); i++)
                for (const char *p = strstr(xml, elements[i]); p; p = strstr(p + 1, elements[i])) {
                        const char *next = strchr(p + 1, '<');

                        if (!next || strncmp(next + 1, DOC, strlen(DOC)) != 0)
                                fail_msg("not explained: %.80s", p);
                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_file_is_what_the_service_says),
                cmocka_unit_test(test_all_is_explained),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
