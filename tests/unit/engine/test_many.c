/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Many matrices: what concerns all of them goes in slices, between which the loop runs and anything can happen. */

#include <sys/stat.h>

#include "engine/engine_internal.h"
#include "engine_env.h"

#define MANY      600
#define SLICE_MAX 256 /* matrices in one turn of the loop */
#define APMASK    "bus/ap/apmask"

static Env *many(const char *what) {
        Env *env = env_new("7.2",
                           "card 0x00-0x3f cca\ndomains 0-15\ncontrol 0-15\nmax 63 15\n"
                           "apmask 0x8000000000000000000000000000000000000000000000000000000000000000\n");
        CLEANUP(freep) Reply *replies = calloc(MANY, sizeof *replies);

        env->config.max_calls = MANY;
        env_start(env);
        for (unsigned i = 0; i < MANY; i++) {
                ApMatrix m = {};

                ap_mask_set(&m.adapters, (uint8_t) (1 + i / 16));
                ap_mask_set(&m.domains, (uint8_t) (i % 16));
                env_begin(env, what, uuid_n(i + 1), &m, &replies[i]);
        }
        for (unsigned i = 0; i < MANY; i++) {
                env_wait(env, &replies[i].done);
                assert_reply(&replies[i], 0, NULL, __FILE__, __LINE__);
        }
        env_rest(env);
        return env;
}

static unsigned n_in(Env *env, MatrixState state) {
        unsigned n = 0;

        for (unsigned i = 0; i < MANY; i++)
                n += env_state_of(env, uuid_n(i + 1)) == state;
        return n;
}

static unsigned n_with_problems(Env *env) {
        unsigned n = 0;

        for (unsigned i = 0; i < MANY; i++) {
                EngineMatrix m;

                assert_int_equal(engine_get_matrix(env->engine, uuid_n(i + 1), &m), 0);
                n += m.problems[0] != NULL;
        }
        return n;
}

static void test_all_are_shown_in_slices(void **state) {
        Env *env = many("define");
        unsigned before = env->n_matrix_events;

        assert_int_equal(n_with_problems(env), 0);
        env_write(env, APMASK, "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff");
        while (env->n_matrix_events < before + MANY) {
                unsigned shown = env->n_matrix_events;

                (void) env_turn(env, 1000000);
                assert_true(env->n_matrix_events - shown <= SLICE_MAX);
        }
        assert_int_equal(n_with_problems(env), MANY); /* the host has all of it now */

        /* what has been shown already is shown again if it is different by the time that the last one is */
        before = env->n_matrix_events;
        env_write(env, APMASK, "0x8000000000000000000000000000000000000000000000000000000000000000");
        while (env->n_matrix_events == before)
                (void) env_turn(env, 1000000);
        assert_true(env->n_matrix_events < before + MANY);
        env_write(env, APMASK, "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff");
        env_rest(env);
        assert_int_equal(n_with_problems(env), MANY);
        (void) env_free(env);
}

/* Until all is quiet; no turn may begin more than a slice. */
static void settle_in_slices(Env *env) {
        unsigned quiet = 0;

        while (quiet < 20) {
                size_t ops = env->engine->n_ops;

                quiet = env_turn(env, 10000) ? 0 : quiet + 1;
                if (env->engine->n_ops > ops)
                        assert_true(env->engine->n_ops - ops <= SLICE_MAX);
        }
        env_rest(env);
}

typedef struct Ready {
        Env *env;
        EnvBusy *busy; /* from then on */
} Ready;

static void on_ready(void *userdata) {
        Ready *r = userdata;

        r->busy = env_busy(r->env);
}

static void test_boot_starts_in_slices(void **state) {
        Env *env = many("define-autostart");
        ApMatrix more = matrix_of("0x3f", "0", "");
        Ready ready = { .env = env };
        Reply stopped, defined;

        env_reboot(env, "reboot");
        env_launch(env);
        engine_when_ready(env->engine, on_ready, &ready);
        while (!ready.busy)
                (void) env_turn(env, 1000000);

        /* what an operator stops before its turn has come stays stopped; what is defined now is for the next boot */
        env_begin(env, "stop", uuid_n(MANY), NULL, &stopped);
        env_begin(env, "define-autostart", uuid_n(MANY + 1), &more, &defined);
        while (env->engine->fresh.first)
                (void) env_turn(env, 1000000);
        env_busy_end(ready.busy);
        settle_in_slices(env);
        assert_reply(&stopped, 0, NULL, __FILE__, __LINE__);
        assert_reply(&defined, 0, NULL, __FILE__, __LINE__);
        assert_true(engine_is_settled(env->engine));
        assert_int_equal(n_in(env, MATRIX_STARTED), MANY - 1);
        assert_int_equal(env_state_of(env, uuid_n(MANY)), MATRIX_DEFINED);
        assert_int_equal(env_state_of(env, uuid_n(MANY + 1)), MATRIX_DEFINED);
        env_assert_no_overlap(env);
        (void) env_free(env);
}

/* The daemon dies somewhere on the way: the next one starts what is still to be started. */
static void test_boot_is_interrupted(void **state) {
        Env *env = many("define-autostart");

        for (unsigned turns = 1; turns < 40; turns += 6) {
                env_reboot(env, "reboot");
                env_launch(env);
                for (unsigned i = 0; i < turns; i++)
                        (void) env_turn(env, 2000);
                env_crash(env);
                env_start(env);
                env_rest(env);
                assert_int_equal(n_in(env, MATRIX_STARTED), MANY);
        }
        (void) env_free(env);
}

static void test_reconcile_heals_in_slices(void **state) {
        Env *env = many("define-start");
        Reply reply;

        for (unsigned i = 0; i < MANY; i++) {
                char uuid[UUID_STRING_SIZE], path[128];

                (void) snprintf(path, sizeof path, "bus/mdev/devices/%s/remove",
                                uuid_format(uuid_n(i + 1), uuid));
                env_write(env, path, "1");
        }
        env_rescan(env);
        assert_int_equal(n_in(env, MATRIX_LOST), MANY);

        env_begin(env, "reconcile", (Uuid) {}, NULL, &reply);
        settle_in_slices(env);
        assert_reply(&reply, 0, NULL, __FILE__, __LINE__);
        assert_int_equal(n_in(env, MATRIX_STARTED), MANY);
        (void) env_free(env);
}

static off_t journal_size(Env *env) {
        struct stat st;

        assert_int_equal(fstatat(env->root_fd, ENV_STATE "/journal", &st, 0), 0);
        return st.st_size;
}

/* Where changes come without a pause, the journal is begun anew between two of them. */
static void test_changes_without_pause(void **state) {
        Env *env = many("define");
        CLEANUP(freep) Reply *replies = calloc(MANY, sizeof *replies);
        bool grown = false, shrunk = false;
        EngineMatrix m;

        for (unsigned round = 0; !shrunk; round++) {
                assert_true(round < 200);
                for (unsigned i = 0; i < MANY; i++)
                        env_begin(env, round % 2 == 0 ? "autostart" : "no-autostart", uuid_n(i + 1), NULL,
                                  &replies[i]);
                for (unsigned i = 0; i < MANY; i++) {
                        env_wait(env, &replies[i].done);
                        assert_reply(&replies[i], 0, NULL, __FILE__, __LINE__);
                        grown |= journal_size(env) > STORE_JOURNAL_MAX + STORE_JOURNAL_MAX / 16;
                        shrunk |= grown && journal_size(env) < STORE_JOURNAL_MAX;
                        assert_true(journal_size(env) < 8 * STORE_JOURNAL_MAX);
                }
                if (shrunk && round % 2 == 1)
                        shrunk = false; /* once more: all are to be started in the end */
        }

        env_crash(env);
        env_start(env);
        env_rest(env);
        for (unsigned i = 0; i < MANY; i++) {
                assert_int_equal(engine_get_matrix(env->engine, uuid_n(i + 1), &m), 0);
                assert_true(m.autostart);
        }
        (void) env_free(env);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all_are_shown_in_slices),
                cmocka_unit_test(test_boot_starts_in_slices),
                cmocka_unit_test(test_boot_is_interrupted),
                cmocka_unit_test(test_reconcile_heals_in_slices),
                cmocka_unit_test(test_changes_without_pause),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
