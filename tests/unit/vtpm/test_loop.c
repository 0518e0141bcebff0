/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Timers: each at its time, however many others were set and taken back. */

#include <sys/eventfd.h>
#include <unistd.h>

#include "drivers/virtio-tpm/loop.h"
#include "unit/vtpm/vtpm_test.h"

#define NS_PER_MS UINT64_C(1000000)
#define HOUR_NS   (3600 * 1000 * NS_PER_MS)

typedef struct Timer {
        LoopTimer timer;
        unsigned elapsed;
} Timer;

static Loop loop;
static Timer first, second;
static unsigned n_ready;

static void on_elapsed(void *userdata) {
        Timer *t = userdata;

        t->elapsed++;
}

static void on_ready(void *userdata, uint32_t events) {
        assert_int_equal(first.elapsed + second.elapsed,
                         0); /* whose time has come waits for what is ready */
        n_ready++;
}

static void add(Timer *t) {
        *t = (Timer) { .timer = { .elapsed = on_elapsed, .userdata = t } };
        loop_add_timer(&loop, &t->timer);
}

static int setup(void **state) {
        assert_int_equal(loop_init(&loop), 0);
        add(&first);
        add(&second);
        n_ready = 0;
        return 0;
}

static int teardown(void **state) {
        loop_done(&loop);
        return 0;
}

static void run_until(const Timer *t) {
        while (t->elapsed == 0)
                assert_int_equal(loop_once(&loop, -1), 0);
        assert_int_equal(t->elapsed, 1);
        assert_int_equal(t->timer.at, 0);
}

/* One whose time has come has elapsed after one turn, which is not a sleep, but for what is ready. */
static void test_due(void **state) {
        LoopSource source = { .fd = -1, .ready = on_ready };
        int fd = eventfd(1, EFD_CLOEXEC);

        assert_int_equal(loop_watch(&loop, &source, fd, EPOLLIN), 0);
        first.timer.at = loop_now();
        second.timer.at = loop_now() + HOUR_NS;
        assert_int_equal(loop_once(&loop, -1), 0);
        assert_int_equal(n_ready, 1);
        assert_int_equal(first.elapsed, 1);

        loop_forget(&loop, &source);
        first.elapsed = 0;
        first.timer.at = 1;
        assert_int_equal(loop_once(&loop, 0), 0);
        assert_int_equal(first.elapsed, 1);
        assert_int_equal(second.elapsed, 0);
        (void) close(fd);
}

/* A sleep that began with a later one in sight. */
static void test_sooner(void **state) {
        first.timer.at = loop_now() + HOUR_NS;
        assert_int_equal(loop_once(&loop, 0), 0);
        second.timer.at = loop_now() + 2 * NS_PER_MS;
        run_until(&second);
        assert_int_equal(first.elapsed, 0);
        assert_true(first.timer.at > 0);
}

/* A time that nobody waits for any longer comes, and is nobody's; the later one, which was set meanwhile, is not forgotten over it. */
static void test_taken_back(void **state) {
        uint64_t at;

        do {
                first.elapsed = 0;
                first.timer.at = at = loop_now() + 2 * NS_PER_MS;
                assert_int_equal(loop_once(&loop, 0), 0);
        } while (first.elapsed > 0); /* we were too slow */
        first.timer.at = 0;
        second.timer.at = at + 2 * NS_PER_MS;
        run_until(&second);
        assert_true(loop_now() >= at + 2 * NS_PER_MS);
        assert_int_equal(first.elapsed, 0);

        /* nor is it told more than once */
        assert_int_equal(loop_once(&loop, 0), 0);
        assert_int_equal(loop.alarm_at, UINT64_MAX);
        assert_int_equal(second.elapsed, 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_due, setup, teardown),
                cmocka_unit_test_setup_teardown(test_sooner, setup, teardown),
                cmocka_unit_test_setup_teardown(test_taken_back, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
