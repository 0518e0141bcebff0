/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every single call that changes something on disk fails, once or from then on, or hangs. Afterwards there is the old or the new state, one
 * clear text, and all works again. */

#include <errno.h>
#include <stdio.h>

#include "disk_faults.h"
#include "engine_recovers.h"

static const int errors[] = { EIO, ENOSPC, EINTR, EBUSY, EADDRINUSE, EADDRNOTAVAIL };

/* 0: there are not so many calls. */
static bool fail_one(const Scenario *s, unsigned at, int error, bool forever, const Outcome *was,
                     const Outcome *is) {
        Env *env = scenario_new(s);
        char when[160], which;
        unsigned calls;
        Reply reply;

        env_rest(env); /* what is late is on disk */
        (void) snprintf(when, sizeof when, "%s, disk call %u, %s%s", s->name, at, strerrorname_np(error),
                        forever ? " from then on" : "");
        disk_fail(env->root, at, error, forever);
        scenario_do(env, s->op, &reply);
        if (!forever)
                env_rest(env); /* what comes late fails too */
        calls = disk_release();

        if (reply.r < 0 || (reply.r > 0 && (!reply.text[0] || strchr(reply.text, '\n'))))
                fail_msg("%s: answered %d '%s'", when, reply.r, reply.text);
        if (reply.r == 0 || !strstr(reply.text, "undone as soon as")) {
                which = outcome_which(env, was, is, when);
                if (reply.r > 0 ? which == 'n' : which == 'o')
                        fail_msg("%s: answered %d '%s', but it is '%c'", when, reply.r, reply.text, which);
        }
        env_assert_no_overlap(env);
        assert_recovers(env, s, was, is, at % 2, when);
        (void) env_free(env);
        return calls >= at;
}

static void test_every_call_fails(void **state) {
        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};
                bool more = true;

                if (strcmp(scenarios[i].dialect, "7.2") != 0) /* to the disk they are all the same */
                        continue;
                scenario_outcomes(&scenarios[i], &was, &is);
                for (unsigned at = 1; more; at += env_step())
                        for (size_t e = 0; more && e < ELEMENTS(errors); e++) {
                                more = fail_one(&scenarios[i], at, errors[e], false, &was, &is);
                                if (e == (at + i) % ELEMENTS(errors) &&
                                    errors[e] != EINTR) /* which is tried again until it is over */
                                        (void) fail_one(&scenarios[i], at, errors[e], true, &was, &is);
                        }
        }
}

/* Others are answered while it hangs, and when it comes back all is as it should be. */
static bool hang_one(const Scenario *s, unsigned at, const Outcome *was, const Outcome *is) {
        EngineCheck question = { .matrix = matrix_of("5", "0x47", "") };
        CLEANUP(freep) EngineConflict *conflicts = NULL;
        Env *env = scenario_new(s);
        char when[160];
        bool hung;
        Reply reply;
        size_t n;

        env_rest(env);
        (void) snprintf(when, sizeof when, "%s, disk call %u hangs", s->name, at);
        disk_hang(env->root, at);
        scenario_begin(env, s->op, &reply);
        while (!reply.done && !disk_hangs())
                (void) env_turn(env, 1000);

        hung = disk_hangs();
        if (hung) {
                while (env_turn(env, 0))
                        ;
                if (reply.done)
                        fail_msg("%s: answered before it was on disk", when);
                assert_int_equal(engine_check(env->engine, &question, &conflicts, &n, NULL, NULL), 0);
                env_rescan(env);
                env_assert_no_overlap(env);
        }
        (void) disk_release();
        env_wait(env, &reply.done);
        assert_reply(&reply, 0, NULL, when, __LINE__);
        env_settle(env);
        assert_int_not_equal(outcome_which(env, was, is, when), 'o');
        assert_clean(env, when);
        (void) env_free(env);
        return hung;
}

static void test_every_call_hangs(void **state) {
        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};

                if (strcmp(scenarios[i].dialect, "7.2") != 0)
                        continue;
                scenario_outcomes(&scenarios[i], &was, &is);
                for (unsigned at = 1; hang_one(&scenarios[i], at, &was, &is); at += env_step())
                        ;
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_call_fails),
                cmocka_unit_test(test_every_call_hangs),
        };

        env_speed = 200; /* it is their timers that thousands of engines wait for */
        return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
