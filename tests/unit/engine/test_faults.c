/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every single write that the daemon makes fails, once or from then on, or hangs: sysfs by the simulator's faults, the disk by a limit on
 * the size of files. Afterwards there is the old or the new state, one clear text, and all works again. */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "engine/engine_internal.h"
#include "engine_recovers.h"

static const char *const errors[] = { "EADDRINUSE", "EADDRNOTAVAIL", "EBUSY", "EIO", "ENOSPC", "EINTR" };

static unsigned count_writes(const Scenario *s) {
        Env *env = scenario_new(s);
        uint64_t before = sim_writes(env->sim);
        Reply reply;
        unsigned n;

        scenario_do(env, s->op, &reply);
        n = (unsigned) (sim_writes(env->sim) - before);
        (void) env_free(env);
        return n;
}

static void fail_one(const Scenario *s, unsigned n, const char *error, bool forever, const Outcome *was,
                     const Outcome *is) {
        char command[80], when[160];
        Env *env = scenario_new(s);
        Reply reply;
        char which;

        (void) snprintf(when, sizeof when, "%s, write %u, %s%s", s->name, n + 1, error,
                        forever ? " from then on" : "");
        (void) snprintf(command, sizeof command, "fault write * %s count=%u skip=%u", error, forever ? 0 : 1,
                        n);
        env_ctl(env, command);
        scenario_do(env, s->op, &reply);
        if (reply.r < 0)
                fail_msg("%s: answered %d without a text", when, reply.r);
        if (reply.r > 0 && (!reply.text[0] || strchr(reply.text, '\n')))
                fail_msg("%s: text '%s'", when, reply.text);
        if (reply.r == 0 || !strstr(reply.text, "is undone as soon as")) {
                which = outcome_which(env, was, is, when);
                if (reply.r > 0 ? which == 'n' : which == 'o')
                        fail_msg("%s: answered %d '%s', but it is '%c'", when, reply.r, reply.text, which);
        } else if (!forever)
                fail_msg("%s: one failure could not be undone: %s", when, reply.text);
        env_assert_no_overlap(env);
        env_ctl(env, "clear");
        assert_recovers(env, s, was, is, n % 2, when);
        (void) env_free(env);
}

static void test_every_write_fails(void **state) {
        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};
                unsigned n = count_writes(&scenarios[i]);

                scenario_outcomes(&scenarios[i], &was, &is);
                for (unsigned k = (unsigned) i % env_step(); k < n; k += env_step())
                        for (size_t e = 0; e < ELEMENTS(errors); e++) {
                                fail_one(&scenarios[i], k, errors[e], false, &was, &is);
                                if (e == (k + i) % ELEMENTS(errors))
                                        fail_one(&scenarios[i], k, errors[e], true, &was, &is);
                        }
        }
}

/* @released: the kernel comes back in the end, and does what it was asked to. */
static void hang_one(const Scenario *s, unsigned n, bool released, const Outcome *was, const Outcome *is) {
        ApMatrix m = matrix_of("5", "0x47", "");
        char command[80], when[160];
        Env *env = scenario_new(s);
        Reply reply;

        (void) snprintf(when, sizeof when, "%s, write %u hangs%s", s->name, n + 1,
                        released ? " for a while" : "");
        (void) snprintf(command, sizeof command, "fault write * hang 1 skip=%u", n);
        env_ctl(env, command);
        scenario_do(env, s->op, &reply);
        if (reply.r != VERDICT_STUCK)
                fail_msg("%s: answered %d '%s'", when, reply.r, reply.text);
        env_assert_no_overlap(env);

        /* others go on */
        env_request(env, "define", uuid_n(9), &m, &reply);
        assert_reply(&reply, 0, NULL, when, __LINE__);
        env_request(env, "undefine", uuid_n(9), NULL, &reply);
        assert_reply(&reply, 0, NULL, when, __LINE__);
        assert_true(env_has_general_problem(env, "a kernel operation hangs: "));

        env_ctl(env, "clear");
        if (released)
                env_ctl(env, "release");
        assert_recovers(env, s, was, is, true, when);
        (void) env_free(env);
}

static void test_every_write_hangs(void **state) {
        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};
                unsigned n = count_writes(&scenarios[i]);

                scenario_outcomes(&scenarios[i], &was, &is);
                for (unsigned k = (unsigned) i % env_step(); k < n; k += env_step()) {
                        hang_one(&scenarios[i], k, false, &was, &is);
                        hang_one(&scenarios[i], k, true, &was, &is);
                }
        }
}

/* ---- the disk ---- */

static void limit_files(rlim_t size) {
        struct rlimit l;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
        l.rlim_cur = size == RLIM_INFINITY ? l.rlim_max : size;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* Of its text: what is there ahead of it is used before the file grows. */
static size_t journal_size(Env *env) {
        CLEANUP(freep) char *text = NULL;

        return file_read_at(env->root_fd, ENV_STATE "/journal", SIZE_MAX / 4, &text, NULL) < 0
                       ? 0
                       : strlen(text);
}

static void full_one(const Scenario *s, size_t room, bool restart, const Outcome *was, const Outcome *is,
                     bool *ret_done) {
        Env *env = scenario_new(s);
        char when[160], which;
        Reply reply;

        env_rest(env); /* what is late is on disk */
        (void) snprintf(when, sizeof when, "%s, %zu more bytes fit", s->name, room);
        limit_files(journal_size(env) + room);
        scenario_do(env, s->op, &reply);
        which = outcome_which(env, was, is, when);
        limit_files(RLIM_INFINITY);
        if (reply.r < 0 || (reply.r > 0 && (!reply.text[0] || strchr(reply.text, '\n'))))
                fail_msg("%s: answered %d '%s'", when, reply.r, reply.text);
        if (reply.r > 0 ? which == 'n' : which == 'o')
                fail_msg("%s: answered %d '%s', but it is '%c'", when, reply.r, reply.text, which);
        *ret_done = reply.r == 0;
        if (restart) {
                env_crash(env);
                env_start(env);
                which = outcome_which(env, was, is, when);
                if (*ret_done ? which == 'o' : which == 'n')
                        fail_msg("%s: after a crash it is '%c', but %d was answered", when, which, reply.r);
        }
        assert_recovers(env, s, was, is, false, when);
        (void) env_free(env);
}

static void test_disk_full(void **state) {
        (void) signal(SIGXFSZ, SIG_IGN);
        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};
                bool done = false;
                size_t room = 0;

                if (strcmp(scenarios[i].dialect, "7.2") != 0)
                        continue;
                scenario_outcomes(&scenarios[i], &was, &is);
                for (unsigned k = 0; !done; k++, room += 1 + room / 3)
                        full_one(&scenarios[i], room, k % 2, &was, &is, &done);
        }
}

/* The runtime directory takes no marks any more. */
static void test_marks_fail(void **state) {
        unsigned n_told = 0;

        for (size_t i = 0; i < n_scenarios; i++) {
                CLEANUP(outcome_clear) Outcome was = {};
                CLEANUP(outcome_clear) Outcome is = {};
                const Scenario *s = &scenarios[i];
                char when[160], which;
                Env *env;
                Reply reply;

                if (strcmp(s->dialect, "7.2") != 0)
                        continue;
                scenario_outcomes(s, &was, &is);
                env = scenario_new(s);
                (void) snprintf(when, sizeof when, "%s without marks", s->name);
                env_rest(env);
                assert_int_equal(renameat(env->root_fd, ENV_RUN "/live", env->root_fd, "gone"), 0);
                {
                        CLEANUP(freep) char *command = NULL;

                        assert_true(asprintf(&command, "rm -r %s/gone", env->root) > 0);
                        assert_int_equal(system(command), 0);
                }
                env_put_file(env, ENV_RUN "/live", "in the way of a new one");
                scenario_do(env, s->op, &reply);
                env_settle(env);
                which = outcome_which(env, &was, &is, when);
                if (reply.r < 0 || (reply.r > 0 ? which == 'n' : which == 'o'))
                        fail_msg("%s: answered %d '%s', but it is '%c'", when, reply.r, reply.text, which);
                if (reply.r > 0) {
                        assert_null(strstr(reply.text, "state directory"));
                        n_told += strstr(reply.text, "the runtime directory cannot be written") != NULL;
                }
                env_crash(env);
                assert_int_equal(unlinkat(env->root_fd, ENV_RUN "/live", 0), 0);
                env_start(env);
                which = outcome_which(env, &was, &is, when);
                if (reply.r > 0 ? which == 'n' : which == 'o')
                        fail_msg("%s: after a crash it is '%c', but %d was answered: %s", when, which,
                                 reply.r, reply.text);
                (void) env_free(env);
        }
        assert_int_not_equal(n_told, 0);
}

static void remove_run(Env *env) {
        CLEANUP(freep) char *command = NULL;

        assert_true(asprintf(&command, "rm -r %s/" ENV_RUN, env->root) > 0);
        assert_int_equal(system(command), 0);
}

static bool is_marked(Env *env, Uuid uuid) {
        char path[sizeof ENV_RUN "/live/" + UUID_STRING_SIZE] = ENV_RUN "/live/", id[UUID_STRING_SIZE];

        strcat(path, uuid_format(uuid, id));
        return faccessat(env->root_fd, path, F_OK, 0) == 0;
}

static int env_ask(Env *env, const char *what, Uuid uuid, const ApMatrix *m) {
        Reply reply;

        env_request(env, what, uuid, m, &reply);
        if (reply.r != 0)
                print_error("%s: %d %s\n", what, reply.r, reply.text);
        return reply.r;
}

/* All has its mark again before anything new starts, and whoever comes after a crash finds it. */
static void test_run_removed(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix first = matrix_of("2", "6", ""), second = matrix_of("3", "7", ""),
                 third = matrix_of("4", "6", "");
        Reply reply;

        env_start(env);
        env_rest(env);
        assert_int_equal(env_ask(env, "define-start", uuid_n(1), &first), 0);
        assert_int_equal(env_ask(env, "create", uuid_n(2), &second), 0);
        env_rest(env);
        assert_true(is_marked(env, uuid_n(1)) && is_marked(env, uuid_n(2)));

        remove_run(env);
        assert_int_equal(env_ask(env, "define-start", uuid_n(3), &third), 0);
        assert_true(is_marked(env, uuid_n(1)) && is_marked(env, uuid_n(2)) && is_marked(env, uuid_n(3)));
        assert_int_equal(faccessat(env->root_fd, ENV_RUN "/live/booted", F_OK, 0), 0);

        /* it is seen without a request, too; and somebody may have made one */
        remove_run(env);
        assert_int_equal(mkdirat(env->root_fd, ENV_RUN, 0755), 0);
        env_rescan(env);
        env_rest(env);
        assert_true(is_marked(env, uuid_n(1)) && is_marked(env, uuid_n(2)) && is_marked(env, uuid_n(3)));

        remove_run(env);
        assert_int_equal(env_ask(env, "stop", uuid_n(1), NULL), 0);
        env_rest(env);
        assert_true(!is_marked(env, uuid_n(1)) && is_marked(env, uuid_n(2)) && is_marked(env, uuid_n(3)));
        env_crash(env);
        env_start(env);
        assert_int_equal(env_ask(env, "remove", uuid_n(2), NULL), 0); /* it is ours */

        /* what has no mark does not let anything start */
        remove_run(env);
        env_put_file(env, ENV_RUN, "in the way of a new one");
        env_request(env, "start", uuid_n(1), NULL, &reply);
        assert_true(reply.r > 0);
        assert_non_null(strstr(reply.text, "if '/" ENV_RUN "' can be written again"));
        assert_int_equal(unlinkat(env->root_fd, ENV_RUN, 0), 0);
        assert_int_equal(env_ask(env, "start", uuid_n(1), NULL), 0);
        env_rest(env);
        assert_true(is_marked(env, uuid_n(1)) && is_marked(env, uuid_n(3)));
        (void) env_free(env);
}

/* ---- a host that takes no work ---- */

static struct {
        const HostOps *real;
        HostOps ops;
        Env *env;
        unsigned n_executed;
} spy;

static void spy_on(Env *env) {
        spy.env = env;
        spy.real = env->host->ops;
        spy.ops = *spy.real;
        spy.n_executed = 0;
        env->host->ops = &spy.ops;
}

static int no_scan(Host *h, HostScan depth, host_scanned_t done, void *userdata) {
        return -EBUSY;
}

static int late_scan(Host *h, HostScan depth, host_scanned_t done, void *userdata) {
        return -ETIME;
}

static void test_no_scan(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", "");

        env_start(env);
        env_rest(env);
        spy_on(env);
        spy.ops.scan = no_scan;
        env_expect(env, "reconcile", (Uuid) {}, NULL, 0, "could not be scanned");
        env_expect(env, "define", uuid_n(1), &m, VERDICT_BACKEND, "cannot be read");
        assert_true(env_has_general_problem(env, "cannot be read"));
        spy.ops.scan = late_scan;
        env_expect(env, "define", uuid_n(1), &m, VERDICT_BACKEND,
                   "cannot be read: the kernel has not answered");
        assert_true(env_has_general_problem(env, "cannot be read: the kernel has not answered in time"));
        env->host->ops = spy.real;
        env_do(env, "reconcile", (Uuid) {}, NULL);
        env_do(env, "define", uuid_n(1), &m);
        (void) env_free(env);
}

/* The first one is carried out, and the disk is full from then on. */
static int execute_once(Host *h, const Plan *plans, size_t n, host_executed_t done, void *userdata) {
        if (spy.n_executed++ > 0)
                return -EBUSY;
        limit_files(journal_size(spy.env));
        return spy.real->execute(h, plans, n, done, userdata);
}

static int prepare_never(Host *h, const Plan *plans, size_t n, host_executed_t done, void *userdata) {
        return -EBUSY;
}

static int execute_counted(Host *h, const Plan *plans, size_t n, host_executed_t done, void *userdata) {
        spy.n_executed++;
        return spy.real->execute(h, plans, n, done, userdata);
}

static void go_on_never(Host *h) {
}

/* The disk takes longer than the host waits. */
static int doze(Work *w) {
        (void) usleep(3 * HOST_HOLD_US);
        return 0;
}

static void dozed(Work *w, int r) {
}

/* What the host has given up, or never took, before it was on the disk, is handed over when it is. */
static void test_prepared_in_vain(void **state) {
        static const char *const cases[] = { "not taken", "no word", "slow disk" };
        ApMatrix m = matrix_of("2", "6", "");

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                Work slow = { .run = doze, .done = dozed };
                Env *env = env_new("7.2", NULL);

                env_start(env);
                env_do(env, "define", uuid_n(1), &m);
                env_rest(env);
                spy_on(env);
                spy.ops.execute = execute_counted;
                if (i == 0)
                        spy.ops.prepare = prepare_never;
                else if (i == 1)
                        spy.ops.go_on = go_on_never;
                else
                        assert_int_equal(worker_submit(env->engine->worker, &slow), 0);
                env_do(env, "start", uuid_n(1), NULL);
                if (spy.n_executed != 1)
                        fail_msg("%s: %u", cases[i], spy.n_executed);
                assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
                env_do(env, "stop", uuid_n(1), NULL);
                env->host->ops = spy.real;
                env_rest(env);
                assert_clean(env, cases[i]);
                (void) env_free(env);
        }
}

/* What can be neither stored nor undone is not forgotten: as soon as the disk takes it, it is finished. */
static void test_no_undo(void **state) {
        Env *env = env_new("7.2", NULL);
        ApMatrix m = matrix_of("2", "6", "");
        Reply reply;

        (void) signal(SIGXFSZ, SIG_IGN);
        env_start(env);
        env_rest(env);
        spy_on(env);
        spy.ops.prepare = prepare_never;
        spy.ops.execute = execute_once;
        env_request(env, "define-start", uuid_n(1), &m, &reply);
        limit_files(RLIM_INFINITY);
        assert_reply(&reply, VERDICT_BACKEND, "state directory|m001|finished or undone", __FILE__, __LINE__);
        env_request(env, "define", uuid_n(2), &m, &reply);
        assert_reply(&reply, VERDICT_OVERLAP, "02.0006|m001", __FILE__, __LINE__);
        env->host->ops = spy.real;
        env_do(env, "reconcile", (Uuid) {}, NULL);
        env_settle(env);
        assert_clean(env, "when it could be finished");
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        env_do(env, "undefine-stop", uuid_n(1), NULL);
        (void) env_free(env);
}

/* ---- a real file system that is full, then read-only; in a mount namespace of our own ---- */

static void fill(int fd) {
        char block[4096] = {};

        while (write(fd, block, sizeof block) > 0)
                ;
        while (write(fd, block, 1) > 0)
                ;
        assert_int_equal(errno, ENOSPC);
}

static void test_small_disk(void **state) {
        CLEANUP(freep) char *var = NULL, *before = NULL, *after = NULL;
        CLEANUP(fd_closep) int ballast = -1;
        ApMatrix a = matrix_of("2", "6", ""), b = matrix_of("3", "6", "");
        unsigned n = 0;
        Reply reply;
        Env *env;

        if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
            mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                skip();

        env = env_new("7.2", NULL);
        assert_int_equal(mkdirat(env->root_fd, "var", 0755), 0);
        assert_true(asprintf(&var, "%s/var", env->root) > 0);
        assert_int_equal(mount("tmpfs", var, "tmpfs", 0, "size=256k"), 0);
        env_start(env);
        env_do(env, "define-start", uuid_n(1), &a);
        env_rest(env);
        ballast = openat(env->root_fd, "var/ballast", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        fill(ballast);

        before = env_host_text(env);
        do { /* the journal has some room */
                env_request(env, n % 2 ? "no-autostart" : "autostart", uuid_n(1), NULL, &reply);
                assert_true(n++ < 1000);
        } while (reply.r == 0);
        assert_reply(&reply, VERDICT_BACKEND, "state directory", __FILE__, __LINE__);
        env_expect(env, "define-start", uuid_n(2), &b, VERDICT_BACKEND, "state directory");
        env_expect(env, "stop", uuid_n(1), NULL, VERDICT_BACKEND, "state directory");
        env_expect(env, "undefine-stop", uuid_n(1), NULL, VERDICT_BACKEND, "state directory");
        assert_true(env_has_general_problem(env, "state directory"));
        after = env_host_text(env);
        assert_string_equal(after, before);

        assert_int_equal(ftruncate(ballast, 0), 0);
        env_do(env, "define-start", uuid_n(2), &b);
        env_do(env, "stop", uuid_n(1), NULL);
        assert_false(env_has_general_problem(env, "state directory"));
        env_rest(env);

        env_stop(env);
        ballast = fd_close(ballast);
        assert_int_equal(mount("none", var, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_DEFINED);
        assert_int_equal(env_state_of(env, uuid_n(2)), MATRIX_STARTED);
        assert_true(env_has_general_problem(env, "state directory"));
        env_expect(env, "start", uuid_n(1), NULL, VERDICT_BACKEND, "state directory");
        env_expect(env, "stop", uuid_n(2), NULL, VERDICT_BACKEND, "state directory");
        env_expect(env, "undefine", uuid_n(1), NULL, VERDICT_BACKEND, "state directory");
        env_expect(env, "masks", (Uuid) {}, &a, VERDICT_BACKEND, "state directory");
        env_expect(env, "create", uuid_n(3), NULL, VERDICT_BACKEND, "state directory");

        /* the same daemon goes on when it can be written */
        assert_int_equal(mount("none", var, NULL, MS_REMOUNT, NULL), 0);
        env_do(env, "start", uuid_n(1), NULL);
        assert_false(env_has_general_problem(env, "state directory"));
        env_stop(env);
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        env_stop(env);
        assert_int_equal(umount(var), 0);
        (void) env_free(env);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_write_fails), cmocka_unit_test(test_every_write_hangs),
                cmocka_unit_test(test_disk_full),         cmocka_unit_test(test_marks_fail),
                cmocka_unit_test(test_run_removed),       cmocka_unit_test(test_no_scan),
                cmocka_unit_test(test_prepared_in_vain),  cmocka_unit_test(test_no_undo),
                cmocka_unit_test(test_small_disk), /* last: it leaves the mount namespace */
        };

        return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
