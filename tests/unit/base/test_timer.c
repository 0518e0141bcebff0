/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/timer.h"

static int on_time(sd_event_source *s, uint64_t usec, void *userdata) {
        unsigned *calls = userdata;

        (*calls)++;
        return 0;
}

static void test_called_once(void **state) {
        sd_event_source *timer = NULL;
        sd_event *event = NULL;
        unsigned calls = 0;

        assert_int_equal(sd_event_new(&event), 0);
        assert_int_equal(timer_after(event, &timer, 1000, on_time, &calls), 0);
        assert_int_equal(sd_event_run(event, UINT64_MAX), 1);
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(calls, 1);
        sd_event_source_disable_unref(timer);
        sd_event_unref(event);
}

/* Zero would be sd-event's own 250 ms. */
static void test_accuracy(void **state) {
        static const struct {
                uint64_t us, accuracy_us;
        } cases[] = { { 20000, 1000 }, { 50000, 2500 }, { 1, 1 }, { 0, 1 }, { 18000000, 900000 } };
        sd_event *event = NULL;

        assert_int_equal(sd_event_new(&event), 0);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                sd_event_source *timer = NULL;
                uint64_t accuracy_us = 0;

                assert_int_equal(timer_after(event, &timer, cases[i].us, on_time, NULL), 0);
                assert_int_equal(sd_event_source_get_time_accuracy(timer, &accuracy_us), 0);
                assert_int_equal(accuracy_us, cases[i].accuracy_us);
                sd_event_source_disable_unref(timer);
        }
        sd_event_unref(event);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_called_once),
                cmocka_unit_test(test_accuracy),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
