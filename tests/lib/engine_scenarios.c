/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_scenarios.h"

const Scenario scenarios[] = {
        { "define", "7.2", {}, "define 1 a" },
        { "define and start", "7.2", {}, "define-start 1 a" },
        { "define and start from the host", "7.2", {}, "define-fromhost-start 1 h" },
        { "start", "7.2", { "define 1 a" }, "start 1 -" },
        { "start from the host", "7.2", { "define-fromhost 1 h" }, "start 1 -" },
        { "start from the host whose masks are kept",
          "7.2",
          { "masks 0 k", "define-fromhost 1 h" },
          "start 1 -" },
        { "stop", "7.2", { "define-start 1 a" }, "stop 1 -" },
        { "modify", "7.2", { "define 1 a" }, "modify 1 b" },
        { "modify a started one", "7.2", { "define-start 1 a" }, "modify 1 b" },
        { "modify from the host", "7.2", { "define-fromhost-start 1 a" }, "modify 1 h" },
        { "set autostart", "7.2", { "define-start 1 a" }, "autostart 1 -" },
        { "undefine", "7.2", { "define 1 a" }, "undefine 1 -" },
        { "undefine a started one", "7.2", { "define-autostart-now 1 a" }, "undefine-stop 1 -" },
        { "create", "7.2", {}, "create 1 -" },
        { "create a matrix", "7.2", {}, "create 1 a" },
        { "remove", "7.2", { "create 1 -" }, "remove 1 -" },
        { "remove a matrix", "7.2", { "create 1 a" }, "remove 1 -" },
        { "masks", "7.2", { "define-start 1 a" }, "masks 0 m" },
        { "define and start on 6.12", "6.12", {}, "define-start 1 a" },
        { "define and start on 6.1", "6.1", {}, "define-start 1 a" },
        { "modify a started one on 6.1", "6.1", { "define-start 1 a" }, "modify 1 b" },
        { "undefine a started one on 6.1", "6.1", { "define-start 1 a" }, "undefine-stop 1 -" },
        { "start from the host on 6.1", "6.1", { "define-fromhost 1 h" }, "start 1 -" },
        { "masks on 6.1", "6.1", {}, "masks 0 m" },
        { "reserve by masks", "7.2", {}, "reserve 0 r" },
        { "reserve by masks on 6.1", "6.1", { "define-start 1 a" }, "reserve 0 r" },
        { "release by both masks", "6.12", { "masks 0 s" }, "release-others 0 t" },
        { "reserve by overrides", "7.2", { "release 0 w", "reserve 0 f" }, "reserve 0 o" },
        { "release by overrides", "7.2", { "release 0 w", "reserve 0 f", "reserve 0 o" }, "release 0 o" },
};
const size_t n_scenarios = ELEMENTS(scenarios);

static ApMatrix matrix_named(char c) {
        switch (c) {
        case 'a':
                return matrix_of("2,3", "6,0x10", "0x11");
        case 'b':
                return matrix_of("3,4", "0x10,0x1b", "");
        case 'h': /* 01 is the host's */
                return matrix_of("1,2", "6", "");
        case 'k': /* host masks as they are */
                return matrix_of("0,1", "0-255", "");
        case 'r': /* an adapter of the host's, whole */
                return matrix_of("1", "0x06,0x10,0x1b,0x47", "");
        case 's': /* host masks that lack one of each */
                return matrix_of("0", "0-0x0f,0x11-0xff", "");
        case 't': /* and what needs both */
                return matrix_of("1", "0x10", "");
        case 'o': /* single queues, which overrides alone can give */
                return matrix_of("2,3", "0x10", "");
        case 'f':
                return matrix_of("5", "0x47", "");
        case 'w': /* all there is */
                return matrix_of("0-255", "0-255", "");
        default: /* host masks */
                return matrix_of("0,5", "0x06-0xff", "");
        }
}

void scenario_begin(Env *env, const char *op, Reply *reply) {
        char what[32], c;
        unsigned n;
        ApMatrix m;

        assert_int_equal(sscanf(op, "%31s %u %c", what, &n, &c), 3);
        m = matrix_named(c);
        env_begin(env, what, n > 0 ? uuid_n(n) : (Uuid) {}, c == '-' ? NULL : &m, reply);
}

void scenario_do(Env *env, const char *op, Reply *reply) {
        scenario_begin(env, op, reply);
        env_wait(env, &reply->done);
}

Env *scenario_new(const Scenario *s) {
        Env *env = env_new(s->dialect, NULL);

        env_start(env);
        for (size_t i = 0; s->setup[i]; i++) {
                Reply reply;

                scenario_do(env, s->setup[i], &reply);
                assert_reply(&reply, 0, NULL, __FILE__, __LINE__);
        }
        /* there a foreign one might have everything; with overrides the host has it */
        if (strcmp(s->dialect, "6.1") != 0 && !strstr(s->name, "overrides"))
                env_foreign(env, "f0000000-0000-4000-8000-00000000000f", "4", "0x47");
        env_settle(env);
        return env;
}

Outcome outcome_now(Env *env) {
        return (Outcome) { env_host_text(env), env_matrix_text(env) };
}

void outcome_clear(Outcome *o) {
        free(o->host);
        free(o->matrices);
        *o = (Outcome) {};
}

void scenario_outcomes(const Scenario *s, Outcome *ret_old, Outcome *ret_new) {
        Env *env = scenario_new(s);
        Reply reply;

        *ret_old = outcome_now(env);
        scenario_do(env, s->op, &reply);
        assert_reply(&reply, 0, NULL, __FILE__, __LINE__);
        env_settle(env);
        *ret_new = outcome_now(env);
        (void) env_free(env);
}

static bool outcome_equal(const Outcome *a, const Outcome *b) {
        return strcmp(a->host, b->host) == 0 && strcmp(a->matrices, b->matrices) == 0;
}

char outcome_which(Env *env, const Outcome *was, const Outcome *is, const char *when) {
        CLEANUP(outcome_clear) Outcome now = outcome_now(env);
        bool old = outcome_equal(&now, was), new = outcome_equal(&now, is);

        env_assert_no_overlap(env);
        if (!old && !new) { /* longer than cmocka's messages may be */
                (void) fprintf(stderr, "it is\n%s%snot\n%s%snor\n%s%s", now.host, now.matrices, was->host,
                               was->matrices, is->host, is->matrices);
                fail_msg("%s: neither the old nor the new state", when);
        }
        return old && new ? '=' : old ? 'o' : 'n';
}
