/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* power_boot: for each line of standard input, the path of a var/ directory, boots a simulated host that knows nothing, and an engine
 * that finds this state; lets it come to rest, do one thing more and end in good order. Prints what is there then, for somebody else to
 * judge; the host's part is read from the simulator:
 *
 *   problem TEXT                                     what the engine complains of, or refuses
 *   host LINE                                        of what the simulator has, see env_host_text()
 *   matrix NAME UUID APCONFIG STATE [autostart] ...  as the engine shows it
 *   exit N                                           0: all of this could be said */

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_env.h"

/* In none of the states that we get there is anything at domain 47. */
static void do_one_thing_more(Env *env) {
        ApMatrix m = matrix_of("4", "0x47", "");
        Uuid uuid = uuid_n(0xff);
        Reply reply;

        env_request(env, "define-start", uuid, &m, &reply);
        if (reply.r != 0)
                (void) printf("problem a new matrix: %d %s\n", reply.r, reply.text);
        env_request(env, "undefine-stop", uuid, NULL, &reply);
        if (reply.r != 0)
                (void) printf("problem the new matrix cannot go: %d %s\n", reply.r, reply.text);
        env_rest(env);
}

static void print_problems(Env *env) {
        CLEANUP(freep) Uuid *uuids = NULL;
        size_t n;

        for (const char *const *p = engine_problems(env->engine); *p; p++)
                (void) printf("problem %s\n", *p);
        assert_int_equal(engine_list_matrices(env->engine, &uuids, &n), 0);
        for (size_t i = 0; i < n; i++) {
                EngineMatrix m;

                assert_int_equal(engine_get_matrix(env->engine, uuids[i], &m), 0);
                for (const char *const *p = m.problems; *p; p++)
                        (void) printf("problem %s: %s\n", m.name, *p);
        }
}

static void print_host(Env *env) {
        CLEANUP(freep) char *text = env_host_text(env);
        char *rest = text;

        for (char *line; (line = strsep(&rest, "\n")) && *line;)
                (void) printf("host %s\n", line);
}

static void boot(const char *var) {
        Env *env = env_new("7.2", NULL);
        CLEANUP(freep) char *matrices = NULL, *link = NULL;

        assert_true(asprintf(&link, "%s/var", env->root) > 0);
        assert_int_equal(symlink(var, link), 0);
        env_start(env);
        env_rest(env);
        if (!engine_is_settled(env->engine))
                (void) puts("problem it does not settle");
        env_assert_no_overlap(env);
        print_problems(env);
        print_host(env);
        matrices = env_matrix_text(env);
        (void) fputs(matrices, stdout);
        do_one_thing_more(env);
        (void) env_free(env);
}

int main(void) {
        char *line = NULL;
        size_t size = 0;

        while (getline(&line, &size, stdin) > 0) {
                int status;
                pid_t pid;

                line[strcspn(line, "\n")] = '\0';
                (void) fflush(stdout);
                pid = fork(); /* whatever state it meets, the next one is tried, too */
                if (pid < 0)
                        return 1;
                if (pid == 0) {
                        boot(line);
                        (void) fflush(stdout);
                        _exit(0);
                }
                if (waitpid(pid, &status, 0) != pid)
                        return 1;
                (void) printf("exit %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
                (void) fflush(stdout);
        }
        free(line);
        return 0;
}
