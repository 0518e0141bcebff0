/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is done for many at once, and what is done later than the answer. */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/engine_internal.h"
#include "engine_env.h"

#define MANY    20
#define JOURNAL ENV_STATE "/journal"

static Env *batches_env(void) {
        Env *env = env_new("7.2",
                           "card 0x00-0x3f cca\ndomains 0-15\ncontrol 0-15\nmax 63 15\n"
                           "apmask 0x8000000000000000000000000000000000000000000000000000000000000000\n");

        env->step_timeout_us = 3000000; /* far behind all that is meant to come before it */
        env_start(env);
        env_speed = 1; /* it is about what has not happened yet */
        return env;
}

static void batches_free(Env *env) {
        env_speed = 20;
        env_slowness = 1;
        (void) env_free(env);
}

static ApMatrix one_queue(unsigned i) {
        ApMatrix m = {};

        ap_mask_set(&m.adapters, (uint8_t) (1 + i / 16));
        ap_mask_set(&m.domains, (uint8_t) (i % 16));
        return m;
}

/* How many batches with @n entries the journal has. */
static unsigned batches_of(Env *env, unsigned n) {
        CLEANUP(fd_closep) int fd = openat(env->root_fd, JOURNAL, O_RDONLY | O_CLOEXEC);
        CLEANUP(freep) char *text = calloc(1, 1 << 20);
        unsigned found = 0;
        char last[32];
        ssize_t size;

        assert_true(fd >= 0);
        assert_non_null(text);
        size = read(fd, text, (1 << 20) - 1);
        assert_true(size > 0);
        (void) snprintf(last, sizeof last, " %u/%u ", n, n);
        for (const char *p = text; (p = strstr(p, last)); p += strlen(last))
                found++;
        return found;
}

static void begin_all(Env *env, const char *what, Reply *replies) {
        for (unsigned i = 0; i < MANY; i++) {
                ApMatrix m = one_queue(i);

                replies[i] = (Reply) {};
                env_begin(env, what, uuid_n(i + 1), &m, &replies[i]);
        }
        for (unsigned i = 0; i < MANY; i++)
                assert_false(replies[i].done);
        for (unsigned i = 0; i < MANY; i++) {
                env_wait(env, &replies[i].done);
                assert_reply(&replies[i], 0, NULL, __FILE__, __LINE__);
        }
}

/* Requests that come close to each other are one write to the disk: all entries of it are durable or none is. */
static void test_close_requests_are_one_batch(void **state) {
        Reply replies[MANY] = {};
        Env *env = batches_env();

        env_slowness = 100; /* what is written late is no batch of its own yet, on no machine */
        assert_int_equal(batches_of(env, MANY), 0);
        begin_all(env, "define", replies);
        assert_int_equal(batches_of(env, MANY), 1);

        begin_all(env, "start", replies); /* their intents */
        assert_int_equal(batches_of(env, MANY), 2);
        batches_free(env);
}

/* Defines the matrices from @first on. Whether company was waited for. */
static bool lingers(Env *env, unsigned first, unsigned n) {
        Reply replies[MANY] = {};
        bool lingered;

        for (unsigned i = 0; i < n; i++) {
                ApMatrix m = one_queue(first + i);

                env_begin(env, "define", uuid_n(first + i + 1), &m, &replies[i]);
        }
        while (env->engine->gather_idle && !env->engine->gather_linger)
                (void) env_turn(env, 1000000);
        lingered = env->engine->gather_linger;
        for (unsigned i = 0; i < n; i++) {
                env_wait(env, &replies[i].done);
                assert_reply(&replies[i], 0, NULL, __FILE__, __LINE__);
        }
        return lingered;
}

/* Where it was the same number several times, no more are waited for; fewer wait for the others. A definition is gathered twice, to be
 * looked at and to be written. */
static void test_usual_numbers_are_not_gathered(void **state) {
        static const struct {
                unsigned n;
                bool lingers;
        } rounds[] = {
                { 3, true }, { 3, true },  { 3, false }, { 3, false }, { 2, true },
                { 2, true }, { 2, false }, { 4, false }, { 4, true },
        };
        Env *env = batches_env();
        unsigned first = 0;

        for (size_t i = 0; i < ELEMENTS(rounds); first += rounds[i++].n)
                assert_int_equal(lingers(env, first, rounds[i].n), rounds[i].lingers);
        batches_free(env);
}

/* One after the other, none waits for company and each has its own. */
static void test_single_requests_are_not_gathered(void **state) {
        Env *env = batches_env();
        unsigned before = batches_of(env, 1);

        for (unsigned i = 0; i < MANY; i++) {
                ApMatrix m = one_queue(i);

                env_do(env, "define", uuid_n(i + 1), &m);
        }
        assert_int_equal(batches_of(env, 1) - before, MANY);
        batches_free(env);
}

static bool has_file(Env *env, unsigned n) {
        char path[96];
        struct stat st;

        (void) snprintf(path, sizeof path, ENV_STATE "/matrices/00000000-0000-4000-8000-%012u.xml", n);
        return fstatat(env->root_fd, path, &st, 0) == 0;
}

static void wait_file(Env *env, unsigned n) {
        while (!has_file(env, n))
                assert_true(env_turn(env, 20000000));
}

/* The answer needs the journal only. The definition's own file follows, also when the daemon dies before it. */
static void test_files_follow(void **state) {
        Env *env = batches_env();
        ApMatrix m = one_queue(0);

        env_do(env, "define", uuid_n(1), &m);
        assert_false(has_file(env, 1));
        wait_file(env, 1);

        m = one_queue(1);
        env_do(env, "define", uuid_n(2), &m);
        assert_false(has_file(env, 2));
        env_crash(env);
        assert_false(has_file(env, 2));
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(2)), MATRIX_DEFINED);
        wait_file(env, 2);
        batches_free(env);
}

/* They are put off while somebody waits for an answer. */
static void test_files_are_put_off(void **state) {
        Env *env = batches_env();
        ApMatrix m = one_queue(0);
        Reply reply = {};

        env_do(env, "define", uuid_n(1), &m);
        env_ctl(env, "fault write create hang 1");
        env_begin(env, "start", uuid_n(1), NULL,
                  &reply); /* for step_timeout_us, far more than a pause of the disk */
        while (!reply.done) {
                assert_false(has_file(env, 1));
                (void) env_turn(env, 1000000);
        }
        assert_reply(&reply, VERDICT_STUCK, NULL, __FILE__, __LINE__);
        env_ctl(env, "release");
        wait_file(env, 1);
        batches_free(env);
}

/* What is quick is told once, with its result; what takes its time is told when it has begun, too. */
static void test_begun_is_told_late(void **state) {
        Env *env = batches_env();
        ApMatrix m = one_queue(0);
        Reply reply = {};

        env_do(env, "define", uuid_n(1), &m);
        env_rest(env);
        while (env->engine->begun_timer) /* the definition's */
                (void) env_turn(env, 1000000);
        env->n_matrix_events = 0;
        env_slowness = 1000; /* then each machine is quick */
        env_do(env, "start", uuid_n(1), NULL);
        assert_int_equal(env->n_matrix_events, 1);
        batches_free(env);

        env = batches_env();
        env_do(env, "define", uuid_n(1), &m);
        env_rest(env);
        env->n_matrix_events = 0;
        env_ctl(env, "fault write create hang 1");
        env_begin(env, "start", uuid_n(1), NULL, &reply);
        while (env->n_matrix_events == 0) {
                assert_false(reply.done);
                (void) env_turn(env, 1000000);
        }
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTING);
        env_wait(env, &reply.done);
        assert_reply(&reply, VERDICT_STUCK, NULL, __FILE__, __LINE__);
        env_ctl(env, "release");
        batches_free(env);
}

/* The timer is for many. What begins while it runs waits for its next time, or what is quick would be told twice. */
static void test_each_is_told_late(void **state) {
        Env *env = batches_env();
        Reply replies[2] = {};

        for (unsigned i = 0; i < 2; i++) {
                ApMatrix m = one_queue(i);

                env_do(env, "define", uuid_n(i + 1), &m);
        }
        env_rest(env);
        while (env->engine->begun_timer || env->engine->show_timer)
                (void) env_turn(env, 1000000);
        env->n_matrix_events = 0;
        env_ctl(env, "fault write create hang 2");
        for (unsigned i = 0; i < 2; i++) {
                env_begin(env, "start", uuid_n(i + 1), NULL, &replies[i]);
                assert_non_null(env->engine->begun_timer);
        }
        for (unsigned n = 1; n <= 2; n++) {
                while (env->n_matrix_events < n)
                        (void) env_turn(env, 1000000);
                assert_int_equal(env->n_matrix_events, n);
                assert_false(replies[0].done || replies[1].done);
                assert_true(state_find(env->engine, uuid_n(n))->op->shown);
        }
        env_crash(env);
        env_ctl(env, "release");
        batches_free(env);
}

static void on_viewed(void *userdata, int r, const Refusal *refusal, const EngineHostView *view) {
        unsigned *n = userdata;

        assert_int_equal(r, 0);
        assert_non_null(view);
        (*n)++;
}

/* Anybody may ask what the host has, as often as he likes: the disk has room for definitions all the same. */
static void test_views_leave_room(void **state) {
        Env *env = env_new("7.2", NULL);
        const ApMatrix m = matrix_of("3", "0x10", "");
        EnvBusy *busy;
        Reply defined;
        unsigned n = 0;

        env_start(env);
        env_rest(env);
        busy = env_busy(env);
        for (unsigned i = 0; i < 50; i++)
                assert_int_equal(engine_view_host(env->engine, on_viewed, &n), 0);
        while (env->engine->waiters)
                (void) env_turn(env, 1000000);
        env_begin(env, "define", uuid_n(1), &m, &defined);
        while (!env->engine->committing) {
                assert_false(env->engine->store_failed);
                (void) env_turn(env, 1000000);
        }
        env_busy_end(busy);
        env_wait(env, &defined.done);
        assert_reply(&defined, 0, NULL, __FILE__, __LINE__);
        assert_false(env->engine->store_failed);
        while (n < 50)
                (void) env_turn(env, 1000000);
        (void) env_free(env);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_close_requests_are_one_batch),
                cmocka_unit_test(test_usual_numbers_are_not_gathered),
                cmocka_unit_test(test_single_requests_are_not_gathered),
                cmocka_unit_test(test_files_follow),
                cmocka_unit_test(test_files_are_put_off),
                cmocka_unit_test(test_begun_is_told_late),
                cmocka_unit_test(test_each_is_told_late),
                cmocka_unit_test(test_views_leave_room),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
