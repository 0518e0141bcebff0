/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_recovers.h"

#include <fcntl.h>

#include "base/file.h"
#include "store/store.h"

void assert_clean(Env *env, const char *when) {
        CLEANUP(store_content_clear) StoreContent content = {};
        CLEANUP(fd_closep) int fd = -1;
        Store *store;
        bool writable;

        env_rest(env);
        env_stop(env);
        fd = openat(env->root_fd, ENV_STATE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(store_open(fd, &store, &content, &writable), 0);
        (void) store_free(store);
        if (content.n_intents > 0)
                fail_msg("%s: the journal still has '%s'", when, content.intents[0].text);
        env_start(env);
        env_rest(env);
        for (const char *const *p = engine_problems(env->engine); *p; p++)
                fail_msg("%s: %s", when, *p);
}

void assert_recovers(Env *env, const Scenario *s, const Outcome *was, const Outcome *is, bool restart,
                     const char *when) {
        Reply reply;
        char which;

        if (restart) {
                env_crash(env);
                env_start(env);
        }
        env_request(env, "reconcile", (Uuid) {}, NULL, &reply);
        assert_int_equal(reply.r, 0);
        env_settle(env);
        which = outcome_which(env, was, is, when);
        if (which == 'o') {
                scenario_do(env, s->op, &reply);
                assert_reply(&reply, 0, NULL, when, __LINE__);
                env_settle(env);
                assert_int_not_equal(outcome_which(env, was, is, when), 'o');
        }
        assert_clean(env, when);
        assert_int_not_equal(outcome_which(env, was, is, when), 'o');
}
