/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"
#include "tests/lib/core/test.h"

/* What @fn writes to stderr. */
static char *capture(void (*fn)(void)) {
        static char text[4096];
        CLEANUP(fd_closep) int saved = dup(2);
        int out[2];
        ssize_t n;

        assert_true(saved >= 0);
        assert_int_equal(pipe2(out, O_NONBLOCK | O_CLOEXEC), 0);
        assert_true(dup2(out[1], 2) >= 0);
        fn();
        assert_true(dup2(saved, 2) >= 0);

        n = read(out[0], text, sizeof text - 1);
        text[n < 0 ? 0 : n] = '\0';
        (void) close(out[0]);
        (void) close(out[1]);
        return text;
}

static void two_lines(void) {
        log_debug("hidden");
        errno = EXDEV;
        log_info("matrix '%s' is %d", "payments", 7);
        assert_int_equal(errno, EXDEV);
        log_full(LOG_ERR, LOG_ID_STUCK, "payments", "stuck");
}

static void long_line(void) {
        log_error("%05000d", 7);
}

static void test_lines(void **state) {
        char expected[200];

        (void) snprintf(expected, sizeof expected, "%s: matrix 'payments' is 7\n%s: stuck\n",
                        program_invocation_short_name, program_invocation_short_name);
        assert_string_equal(capture(two_lines), expected);
}

static void test_limit(void **state) {
        char *text;

        log_set_max(LOG_ERR);
        text = capture(two_lines);
        assert_null(strstr(text, "payments"));
        assert_non_null(strstr(text, "stuck"));
        log_set_max(LOG_DEBUG);
        assert_non_null(strstr(capture(two_lines), "hidden"));
        log_set_max(LOG_INFO);
}

static void test_long(void **state) {
        char *text = capture(long_line);

        assert_true(strlen(text) > 2000 && strlen(text) < 2200);
        assert_int_equal(text[strlen(text) - 1], '\n');
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_long),
        };

        (void) unsetenv("JOURNAL_STREAM");
        return cmocka_run_group_tests(tests, NULL, NULL);
}
