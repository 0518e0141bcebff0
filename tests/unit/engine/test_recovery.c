/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The daemon dies at every turn of its loop, the machine reboots, somebody else changes what is ours. */

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "engine/engine_internal.h"
#include "engine_scenarios.h"

#define FOREIGN "f0000000-0000-4000-8000-000000000001"
#define M1      "00000000-0000-4000-8000-000000000001"
#define M5      "00000000-0000-4000-8000-000000000005"
#define M2      "00000000-0000-4000-8000-000000000002"

static unsigned count_turns(const Scenario *s) {
        Env *env = scenario_new(s);
        unsigned n = 0, quiet = 0;
        Reply reply;

        scenario_begin(env, s->op, &reply);
        while (!reply.done || quiet < 3) {
                quiet = env_turn(env, reply.done ? 5000 : 1000000) ? 0 : quiet + 1;
                n++;
        }
        (void) env_free(env);
        return n;
}

static void crash_after(const Scenario *s, unsigned n, unsigned again, const Outcome *was,
                        const Outcome *is) {
        char when[160], which;
        Env *env = scenario_new(s);
        Reply reply, next;

        (void) snprintf(when, sizeof when, "%s, crash after turn %u, then %u", s->name, n, again);
        scenario_begin(env, s->op, &reply);
        for (unsigned i = 0; i < n; i++)
                (void) env_turn(env, 2000);
        env_crash(env);
        if (again > 0) {
                env_launch(env);
                for (unsigned i = 0; i < again; i++)
                        (void) env_turn(env, 2000);
                env_crash(env);
        }
        env_assert_no_overlap(env);
        env_start(env);
        which = outcome_which(env, was, is, when);
        if (reply.done && reply.r == 0 && which == 'o')
                fail_msg("%s: it was answered and is lost", when);
        if (which == 'o') {
                scenario_do(env, s->op, &next);
                assert_reply(&next, 0, NULL, when, __LINE__);
        }
        env_rest(env);
        env_crash(env);
        env_start(env);
        assert_int_not_equal(outcome_which(env, was, is, when), 'o');
        env_rest(env);
        assert_false(env_has_general_problem(env, ""));
        (void) env_free(env);
}

static void test_every_turn(void **state) {
        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};
                unsigned n = count_turns(&scenarios[i]);

                scenario_outcomes(&scenarios[i], &was, &is);
                for (unsigned k = (unsigned) i % env_step(); k <= n; k += env_step()) {
                        crash_after(&scenarios[i], k, 0, &was, &is);
                        crash_after(&scenarios[i], k, 1 + (k + (unsigned) i) % 8, &was, &is);
                }
        }
}

/* The power goes: no mdev is left, a definition is as before or as after, and as after when that was answered. What of the disk may be lost
 * then is tests/crash/store's matter. */
static void power_cut_outcome(const Scenario *s, bool done, Outcome *ret) {
        Env *env = scenario_new(s);
        Reply reply;

        if (done)
                scenario_do(env, s->op, &reply);
        env_reboot(env, "reboot");
        env_start(env);
        *ret = outcome_now(env);
        (void) env_free(env);
}

static void test_power_cut_every_turn(void **state) {
        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};
                const Scenario *s = &scenarios[i];
                unsigned n = count_turns(s);

                power_cut_outcome(s, false, &was);
                power_cut_outcome(s, true, &is);
                for (unsigned k = (unsigned) i % env_step(); k <= n; k += env_step()) {
                        Env *env = scenario_new(s);
                        char when[160];
                        Reply reply;

                        (void) snprintf(when, sizeof when, "%s, power cut after turn %u", s->name, k);
                        scenario_begin(env, s->op, &reply);
                        for (unsigned t = 0; t < k; t++)
                                (void) env_turn(env, 2000);
                        env_reboot(env, "reboot");
                        env_start(env);
                        if (outcome_which(env, &was, &is, when) == 'o' && reply.done && reply.r == 0)
                                fail_msg("%s: it was answered and is lost", when);
                        assert_false(env_has_general_problem(env, ""));
                        (void) env_free(env);
                }
        }
}

/* ---- the machine boots ---- */

static Env *autostarting(void) {
        Env *env = env_new("7.2", NULL);
        ApMatrix a = matrix_of("2,3", "6", ""), b = matrix_of("5", "6", ""), c = matrix_of("4", "6", "");

        env_start(env);
        env_do(env, "define-autostart", uuid_n(1), &a);
        env_do(env, "define-autostart", uuid_n(2), &b);
        env_do(env, "define-start", uuid_n(3), &c);
        env_rest(env);
        return env;
}

static void assert_states(Env *env, MatrixState a, MatrixState b, MatrixState c) {
        assert_string_equal(matrix_state_name(env_state_of(env, uuid_n(1))), matrix_state_name(a));
        assert_string_equal(matrix_state_name(env_state_of(env, uuid_n(2))), matrix_state_name(b));
        assert_string_equal(matrix_state_name(env_state_of(env, uuid_n(3))), matrix_state_name(c));
        env_assert_no_overlap(env);
}

static void test_boot(void **state) {
        Env *env = autostarting();

        assert_states(env, MATRIX_DEFINED, MATRIX_DEFINED, MATRIX_STARTED);
        env_reboot(env, "reboot");
        env_start(env);
        assert_states(env, MATRIX_STARTED, MATRIX_STARTED, MATRIX_DEFINED);
        assert_true(engine_is_settled(env->engine));

        /* once a boot */
        env_do(env, "stop", uuid_n(1), NULL);
        env_rest(env);
        env_crash(env);
        env_start(env);
        assert_states(env, MATRIX_DEFINED, MATRIX_STARTED, MATRIX_DEFINED);
        (void) env_free(env);
}

static void test_boot_binds_late(void **state) {
        Env *env = autostarting();

        env_reboot(env, "reboot boot-delay");
        env_start(env);
        assert_states(env, MATRIX_DEFINED, MATRIX_DEFINED, MATRIX_DEFINED);
        assert_false(engine_is_settled(env->engine));
        env_ctl(env, "bind");
        env_settle(env);
        assert_states(env, MATRIX_STARTED, MATRIX_STARTED, MATRIX_DEFINED);
        assert_true(engine_is_settled(env->engine));
        (void) env_free(env);
}

/* @crash: also the daemon dies when it has failed. */
static void one_fails(bool crash) {
        Env *env = autostarting();

        env_reboot(env, "reboot");
        env_foreign(env, FOREIGN, "3", "6");
        env_start(env);
        assert_states(env, MATRIX_DEFINED, MATRIX_STARTED, MATRIX_DEFINED);
        assert_true(env_has_problem(env, uuid_n(1), "autostart failed: 03.0006"));
        assert_true(env_has_problem(env, uuid_n(1), FOREIGN));
        if (crash) {
                env_crash(env);
                env_start(env);
                assert_true(env_has_problem(env, uuid_n(1), FOREIGN));
        }
        env_write(env, "bus/mdev/devices/" FOREIGN "/remove", "1");
        env_settle(env);
        assert_states(env, MATRIX_STARTED, MATRIX_STARTED, MATRIX_DEFINED);
        assert_false(env_has_problem(env, uuid_n(1), ""));
        (void) env_free(env);
}

static void test_one_fails(void **state) {
        one_fails(false);
        one_fails(true);
}

/* What is waiting to be started and is stopped stays so. */
static void test_stopped_while_pending(void **state) {
        Env *env = autostarting();

        env_reboot(env, "reboot");
        env_foreign(env, FOREIGN, "3", "6");
        env_start(env);
        env_do(env, "stop", uuid_n(1), NULL);
        env_write(env, "bus/mdev/devices/" FOREIGN "/remove", "1");
        env_settle(env);
        assert_states(env, MATRIX_DEFINED, MATRIX_STARTED, MATRIX_DEFINED);
        (void) env_free(env);
}

static void test_stopped_during_autostart(void **state) {
        for (unsigned n = 0; n < 40; n++) {
                Env *env = autostarting();
                MatrixState is;
                Reply reply;

                env_reboot(env, "reboot");
                env_foreign(env, FOREIGN, "3", "6");
                env_launch(env);
                env_wait(env, &env->ready);
                for (unsigned i = 0; i < n; i++) {
                        if (i == n / 2)
                                env_write(env, "bus/mdev/devices/" FOREIGN "/remove", "1");
                        (void) env_turn(env, 0);
                }
                env_request(env, "stop", uuid_n(1), NULL, &reply);
                env_settle(env);
                is = env_state_of(env, uuid_n(1));
                if (reply.r == 0 && is != MATRIX_DEFINED)
                        fail_msg("stopped after turn %u, but it is %s", n, matrix_state_name(is));
                (void) env_free(env);
        }
}

/* A start that the power cut has interrupted does not take the matrix off the list of what is to start. */
static void test_interrupted_start_is_pending(void **state) {
        for (unsigned n = 0; n < 20; n++) {
                Env *env = autostarting();
                Reply reply;

                env_begin(env, n % 2 ? "start" : "modify", uuid_n(1),
                          &(ApMatrix) { matrix_of("2,3", "6", "").adapters,
                                        matrix_of("2,3", "6", "").domains },
                          &reply);
                for (unsigned i = 0; i < n; i++)
                        (void) env_turn(env, 1000);
                env_reboot(env, "reboot");
                env_foreign(env, FOREIGN, "3", "6");
                env_start(env);
                env_rest(env);
                env_crash(env);
                env_start(env);
                env_write(env, "bus/mdev/devices/" FOREIGN "/remove", "1");
                env_settle(env);
                if (env_state_of(env, uuid_n(1)) != MATRIX_STARTED)
                        fail_msg("power cut after turn %u: not started", n);
                (void) env_free(env);
        }
}

/* Masks that we keep give 01 to guests; m001 lives on that. */
static Env *keeping_masks(void) {
        ApMatrix masks = matrix_of("0", "0-255", ""), a = matrix_of("1", "6", ""),
                 b = matrix_of("5", "6", ""), c = matrix_of("4", "6", "");
        Env *env = env_new("7.2", NULL);

        env_start(env);
        env_do(env, "masks", (Uuid) {}, &masks);
        env_do(env, "define-autostart", uuid_n(1), &a);
        env_do(env, "define-autostart", uuid_n(2), &b);
        env_do(env, "define", uuid_n(3), &c);
        env_rest(env);
        return env;
}

static void test_boot_keeps_masks(void **state) {
        Env *env = keeping_masks();

        env_reboot(env, "reboot");
        env_start(env);
        assert_states(env, MATRIX_STARTED, MATRIX_STARTED, MATRIX_DEFINED);
        assert_false(env_has_general_problem(env, "masks"));
        (void) env_free(env);
}

static void test_boot_masks_fail_once(void **state) {
        Env *env = keeping_masks();

        env_reboot(env, "reboot");
        env_ctl(env, "fault write bus/ap/apmask EIO 1");
        env_start(env);
        env_ctl(env, "card del 3"); /* anything */
        env_settle(env);
        assert_states(env, MATRIX_STARTED, MATRIX_STARTED, MATRIX_DEFINED);
        (void) env_free(env);
}

static void test_crash_while_booting(void **state) {
        for (unsigned n = 0; n < 40; n++) {
                Env *env = keeping_masks();

                env_reboot(env, "reboot");
                env_launch(env);
                for (unsigned i = 0; i < n; i++)
                        (void) env_turn(env, 1000);
                env_crash(env);
                env_start(env);
                env_rest(env);
                print_message("turn %u\n", n);
                assert_states(env, MATRIX_STARTED, MATRIX_STARTED, MATRIX_DEFINED);
                (void) env_free(env);
        }
}

/* What a start takes from the host is taken from the masks that we keep, also when a crash comes between. */
static void test_kept_masks_follow_after_crash(void **state) {
        ApMatrix masks = matrix_of("0,1,5", "0-255", ""), m = matrix_of("1,2", "6", "");

        for (unsigned n = 0; n < 12; n++) {
                Env *env = env_new("7.2", NULL);
                Reply reply;

                env_start(env);
                env_do(env, "masks", (Uuid) {}, &masks);
                env_rest(env);
                env_begin(env, "define-fromhost-start", uuid_n(1), &m, &reply);
                for (unsigned i = 0; i < n; i++)
                        (void) env_turn(env, 2000);
                env_crash(env);
                env_start(env);
                if (env_state_of(env, uuid_n(1)) == _MATRIX_STATE_MAX)
                        env_do(env, "define-fromhost-start", uuid_n(1), &m);
                env_rest(env);
                if (env_has_general_problem(env, "host masks"))
                        fail_msg("turn %u: %s", n, *engine_problems(env->engine));
                (void) env_free(env);
        }
}

/* The host shows nothing of it after a boot, so it is on the disk when the answer comes. */
static void test_kept_masks_follow_after_power_loss(void **state) {
        ApMatrix masks = matrix_of("0,1", "0-255", ""), m = matrix_of("1", "6", "");
        CLEANUP(freep) char *host = NULL;
        Env *env = env_new("7.2", NULL);

        env_start(env);
        env_do(env, "masks", (Uuid) {}, &masks);
        env_do(env, "define-fromhost", uuid_n(1), &m);
        env_rest(env);
        env_do(env, "start", uuid_n(1), NULL);
        env_reboot(env, "reboot");
        env_start(env);
        host = env_host_text(env);
        assert_non_null(strstr(host, "apmask 0x8000"));
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_DEFINED);
        assert_null(*engine_problems(env->engine));
        (void) env_free(env);
}

/* Two operations on a matrix are open that is not there when they are found: it is not free for others before both have
 * ended. */
static void test_matrix_appears_with_another_operation_open(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", "");
        char uuid[UUID_STRING_SIZE];
        Op op = { .kind = INTENT_DEFINE, .uuid = uuid_n(1), .has_record = true };

        env_start(env);
        assert_int_equal(plan_start(engine_snapshot(env->engine), op.uuid, &m, false, &op.plan), 0);
        op.record = (Record) { .uuid = op.uuid, .name = (char *) "m001", .matrix = m };
        env_foreign(env, uuid_format(op.uuid, uuid), "2", "6");
        for (size_t i = 0; i < 2; i++) {
                op.id = ++env->engine->last_op;
                assert_int_equal(recover_add(env->engine, &op, NULL), 0);
        }
        env->engine->unresolved[1].busy = true;
        env_rescan(env);
        assert_int_equal(env->engine->n_unresolved, 1);
        assert_int_equal(env_state_of(env, op.uuid), MATRIX_BROKEN);

        env->engine->unresolved[0].busy = false;
        env_rescan(env);
        env_settle(env);
        assert_int_equal(env->engine->n_unresolved, 0);
        assert_int_equal(env_state_of(env, op.uuid), MATRIX_STARTED);
        env_do(env, "undefine-stop", op.uuid, NULL);
        plan_clear(&op.plan);
        (void) env_free(env);
}

/* Of what nobody has looked at yet it is not said that it is lost. */
static void test_start_while_the_host_cannot_be_read(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix a = matrix_of("2", "6", ""), b = matrix_of("3", "6", "");

        env_start(env);
        env_do(env, "define-start", uuid_n(1), &a);
        env_do(env, "define", uuid_n(2), &b);
        env_rest(env);
        env_crash(env);

        env_ctl(env, "fault read bus/ap/apmask EIO");
        env_launch(env);
        env_wait(env, &env->ready);
        for (unsigned i = 1; i <= 2; i++) {
                assert_string_equal(matrix_state_name(env_state_of(env, uuid_n(i))), "unknown");
                assert_false(env_has_problem(env, uuid_n(i), ""));
                env_expect(env, "start", uuid_n(i), NULL, VERDICT_BACKEND, "cannot be read");
        }

        env->n_matrix_events = 0;
        env_ctl(env, "clear");
        env_rescan(env);
        env_rest(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        assert_int_equal(env_state_of(env, uuid_n(2)), MATRIX_DEFINED);
        assert_int_equal(env->n_matrix_events, 2); /* both are told */
        (void) env_free(env);
}

static void test_boot_from_host(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("0,1", "6", "");

        env_start(env);
        env_do(env, "define-fromhost-autostart", uuid_n(1), &m);
        env_reboot(env, "reboot");
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        env_assert_no_overlap(env);
        (void) env_free(env);
}

/* ---- others ---- */

static void test_lost(void **state) {
        Env *env = autostarting();
        CLEANUP(freep) char *before = NULL, *after = NULL;

        env_do(env, "start", uuid_n(1), NULL);
        env_foreign(env, FOREIGN, "4", "0x47");
        env_settle(env);
        before = env_host_text(env);
        env_write(env, "bus/mdev/devices/" M1 "/remove", "1");
        env_settle(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_LOST);
        assert_true(env_has_problem(env, uuid_n(1), "removed by somebody else"));

        env_crash(env); /* it is remembered */
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_LOST);
        env_do(env, "reconcile", (Uuid) {}, NULL);
        env_settle(env);
        after = env_host_text(env);
        assert_string_equal(after, before);
        assert_false(env_has_problem(env, uuid_n(1), ""));

        env_write(env, "bus/mdev/devices/" M1 "/remove", "1");
        env_settle(env);
        env_do(env, "stop", uuid_n(1), NULL);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_DEFINED);
        env_rest(env);
        env_crash(env);
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_DEFINED);
        (void) env_free(env);
}

static void test_changed(void **state) {
        Env *env = autostarting();
        CLEANUP(freep) char *before = NULL, *after = NULL;
        ApMatrix m = matrix_of("2", "6", ""), other = matrix_of("3", "6", "");

        env_do(env, "start", uuid_n(1), NULL);
        env_settle(env);
        before = env_host_text(env);
        env_write(env, "bus/mdev/devices/" M1 "/unassign_adapter", "3");
        env_write(env, "bus/mdev/devices/" M1 "/assign_domain", "0x10");
        env_rescan(env);
        assert_true(env_has_problem(env, uuid_n(1), "changed by somebody else"));
        /* what it has and what it should have: neither is free */
        env_expect(env, "define", uuid_n(7), &other, VERDICT_OVERLAP, "03.0006|m001");
        other = matrix_of("2", "0x10", "");
        env_expect(env, "define", uuid_n(7), &other, VERDICT_OVERLAP, "02.0010|m001");
        env_do(env, "reconcile", (Uuid) {}, NULL);
        env_settle(env);
        after = env_host_text(env);
        assert_string_equal(after, before);
        assert_false(env_has_problem(env, uuid_n(1), ""));

        /* changed, and then modified by us */
        env_write(env, "bus/mdev/devices/" M1 "/unassign_adapter", "3");
        env_do(env, "modify", uuid_n(1), &m);
        env_settle(env);
        assert_false(env_has_problem(env, uuid_n(1), ""));
        (void) env_free(env);
}

/* Healing does not take from others. */
static void test_lost_to_somebody(void **state) {
        Env *env = autostarting();
        CLEANUP(freep) char *before = NULL, *after = NULL;
        Reply reply;

        env_do(env, "start", uuid_n(1), NULL);
        env_write(env, "bus/mdev/devices/" M1 "/remove", "1");
        env_foreign(env, FOREIGN, "3", "6");
        env_settle(env);
        before = env_host_text(env);
        env_request(env, "reconcile", (Uuid) {}, NULL, &reply);
        assert_int_equal(reply.r, 0);
        assert_non_null(strstr(reply.text, "could not be healed: 03.0006"));
        assert_non_null(strstr(reply.text, FOREIGN));
        after = env_host_text(env);
        assert_string_equal(after, before);
        (void) env_free(env);
}

/* ---- what waits for the kernel ---- */

static void test_name_of_what_hangs(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", ""), other = matrix_of("3", "6", "");
        Reply reply;

        env_start(env);
        env_ctl(env, "fault write create hang 1");
        env_request(env, "define-start", uuid_n(1), &m, &reply);
        assert_reply(&reply, VERDICT_STUCK, "m001", __FILE__, __LINE__);
        env_expect(env, "define", uuid_n(1), &other, VERDICT_STUCK, "m001");
        env_expect(env, "define", uuid_n(7), &m, VERDICT_OVERLAP, "02.0006|m001");
        env_ctl(env, "release");
        env_crash(env);
        env_start(env);
        env_assert_no_overlap(env);
        env_do(env, "define", uuid_n(1), &other);
        (void) env_free(env);
}

/* The AP lock is somebody else's when there is something to undo: the daemon answers all the same, and undoes it later. */
static void test_locked_at_start(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", "");
        char pid[16];
        Reply reply;

        env_start(env);
        env_ctl(env, "fault write ap_config hang 1");
        env_request(env, "define-start", uuid_n(1), &m, &reply);
        assert_reply(&reply, VERDICT_STUCK, "m001", __FILE__, __LINE__);
        env_crash(env);
        (void) snprintf(pid, sizeof pid, "%d\n", getppid());
        env_put_file(env, "run/lock/s390apconfig.lock", pid);
        env_launch(env);
        env_wait(env, &env->ready);
        assert_true(env_has_general_problem(env, "operation waits for the AP configuration lock"));
        env_expect(env, "define", uuid_n(2), &m, VERDICT_OVERLAP, "02.0006|m001");
        assert_int_equal(unlinkat(env->root_fd, "run/lock/s390apconfig.lock", 0), 0);
        env_do(env, "reconcile", (Uuid) {}, NULL);
        env_settle(env);
        assert_false(env_has_general_problem(env, ""));
        env_do(env, "define-start", uuid_n(2), &m);
        (void) env_free(env);
}

/* An intent whose mark could not be written is over: it must not come back at the next start. */
static void test_ended_intents_stay_ended(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", "");
        EngineMatrix view;
        Reply reply;

        env_start(env);
        assert_int_equal(mkdirat(env->root_fd, ENV_RUN "/live/" M1, 0700), 0);
        env_request(env, "define-start", uuid_n(1), &m, &reply);
        assert_true(reply.r > 0);
        assert_int_equal(env_state_of(env, uuid_n(1)), _MATRIX_STATE_MAX);
        assert_int_equal(unlinkat(env->root_fd, ENV_RUN "/live/" M1, AT_REMOVEDIR), 0);
        env_do(env, "define-autostart-now", uuid_n(1), &m);
        env_rest(env);
        env_crash(env);
        env_start(env);
        assert_int_equal(engine_get_matrix(env->engine, uuid_n(1), &view), 0);
        assert_true(view.autostart);
        assert_int_equal(view.state, MATRIX_STARTED);
        (void) env_free(env);
}

/* A file that somebody put there has the name of a matrix, and sorts before it: both are kept, also with an
 * operation in flight that knows the matrix by its old name. */
static void test_same_name(void **state) {
        ApMatrix m = matrix_of("2", "6", ""), other = matrix_of("3", "6", "");

        bool done = false;

        for (unsigned turns = 0; !done; turns++) {
                Env *env = env_new("7.2", NULL);
                CLEANUP(freep) char *xml = NULL;
                Reply reply = {};
                Uuid found;

                env_start(env);
                env_do(env, "define", uuid_n(2), &other);
                assert_int_equal(engine_get_xml(env->engine, uuid_n(2), &xml), 0);
                for (char *p = xml; (p = strstr(p, M2)); p += strlen(M2))
                        p[strlen(M2) - 1] = '1';
                env_do(env, "start", uuid_n(2), NULL);
                env_rest(env);

                env_begin(env, "modify", uuid_n(2), &m, &reply);
                env_turns(env, turns, &reply.done);
                done = reply.done;
                env_crash(env);
                env_put_file(env, ENV_STATE "/matrices/" M1 ".xml", xml);
                env_start(env);
                env_rest(env);

                assert_int_equal(engine_find_matrix(env->engine, "m002", &found), 0);
                assert_true(uuid_equal(found, uuid_n(1)));
                assert_int_equal(engine_find_matrix(env->engine, M2, &found), 0);
                assert_true(uuid_equal(found, uuid_n(2)));
                assert_int_equal(env_state_of(env, uuid_n(2)), MATRIX_STARTED);
                assert_true(env_has_general_problem(env, "known by its UUID: has the name 'm002', as " M1));
                env_do(env, "undefine", uuid_n(1), NULL);
                env_do(env, "undefine-stop", uuid_n(2), NULL);
                env_do(env, "define", uuid_n(3), &other);
                (void) env_free(env);
        }
}

/* Undefine was killed before it took the mark away: a new matrix of that UUID is not live because of it. */
static void test_stale_mark(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", "");

        env_put_file(env, ENV_RUN "/live/" M1, "live\n");
        env_start(env);
        env_rest(env);
        env_do(env, "define", uuid_n(1), &m);
        env_rest(env);
        env_crash(env);
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_DEFINED);
        (void) env_free(env);
}

/* What was late when the daemon was told to end is on disk, also if a commit was under way just then. */
static void test_end_while_committing(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", "");
        Reply reply;

        env_start(env);
        env_rest(env);
        env_begin(env, "define", uuid_n(1), &m, &reply);
        while (!env->engine->committing)
                (void) env_turn(env, 0);
        op_commit_mark(env->engine, uuid_n(5), MARK_MDEV);
        env_stop(env);
        assert_int_equal(faccessat(env->root_fd, ENV_RUN "/live/" M5, F_OK, 0), 0);
        (void) env_free(env);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_end_while_committing),
                cmocka_unit_test(test_same_name),
                cmocka_unit_test(test_stale_mark),
                cmocka_unit_test(test_every_turn),
                cmocka_unit_test(test_power_cut_every_turn),
                cmocka_unit_test(test_boot),
                cmocka_unit_test(test_boot_binds_late),
                cmocka_unit_test(test_one_fails),
                cmocka_unit_test(test_stopped_while_pending),
                cmocka_unit_test(test_stopped_during_autostart),
                cmocka_unit_test(test_interrupted_start_is_pending),
                cmocka_unit_test(test_boot_keeps_masks),
                cmocka_unit_test(test_boot_masks_fail_once),
                cmocka_unit_test(test_kept_masks_follow_after_crash),
                cmocka_unit_test(test_kept_masks_follow_after_power_loss),
                cmocka_unit_test(test_crash_while_booting),
                cmocka_unit_test(test_boot_from_host),
                cmocka_unit_test(test_start_while_the_host_cannot_be_read),
                cmocka_unit_test(test_matrix_appears_with_another_operation_open),
                cmocka_unit_test(test_lost),
                cmocka_unit_test(test_changed),
                cmocka_unit_test(test_lost_to_somebody),
                cmocka_unit_test(test_name_of_what_hangs),
                cmocka_unit_test(test_locked_at_start),
                cmocka_unit_test(test_ended_intents_stay_ended),
        };

        return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
