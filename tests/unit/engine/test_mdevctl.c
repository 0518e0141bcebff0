/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* mdevctl beside the engine: definitions that change hands, also when that is interrupted anywhere, and what mdevctl's
 * callout asks. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/engine_internal.h"
#include "engine/engine_mdevctl.h"
#include "engine_env.h"
#include "host/mdevctl.h"

#define THEIRS  "e0000000-0000-4000-8000-00000000000e"
#define OTHER   "e0000000-0000-4000-8000-0000000000ff"
#define FOREIGN "f0000000-0000-4000-8000-00000000000f"
#define DIR     "etc/mdevctl.d/matrix/"
#define ASIDE   "etc/mdevctl.d/.guestcrypt-"
#define DEFINITION(start, attrs) \
        "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"" start "\",\"attrs\":[" attrs "]}"
#define ADAPTER(id) "{\"assign_adapter\":\"" id "\"}"
#define DOMAIN(id)  "{\"assign_domain\":\"" id "\"}"
#define CONTROL(id) "{\"assign_control_domain\":\"" id "\"}"
#define FREE        DEFINITION("auto", DOMAIN("0x10") "," ADAPTER("03") "," CONTROL("010"))

static int setup(void **state) {
        Env *env = env_new("7.2", NULL);

        env_start(env);
        *state = env;
        return 0;
}

static int teardown(void **state) {
        *state = env_free(*state);
        return 0;
}

/* ---- helpers ---- */

static bool is_there(Env *env, const char *path) {
        return faccessat(env->root_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void put(Env *env, const char *uuid, const char *json) {
        char path[128];

        (void) snprintf(path, sizeof path, DIR "%s", uuid);
        env_put_file(env, path, json);
        env_rescan(env);
        env_settle(env);
}

/* The definition as mdevctl would read it, on one line; free(). NULL: it has none. */
static char *theirs(Env *env, const char *uuid) {
        MdevctlFile f = {};
        const char *problem = NULL;
        int r = mdevctl_load(env->root_fd, uuid_of(uuid), &f, &problem);

        if (r == -ENOENT)
                return NULL;
        if (r < 0)
                fail_msg("%s: %s", uuid, problem ?: strerror(-r));
        free(f.odd);
        return f.json;
}

static void finish(Env *env, int r, Refusal *refusal, Reply *reply) {
        if (r != 0) {
                on_reply(reply, r, r > 0 ? refusal : NULL, (Uuid) {});
                refusal_clear(refusal);
        }
        env_wait(env, &reply->done);
        env_settle(env);
}

static Reply import(Env *env, const char *uuid, EngineImport import) {
        Refusal refusal = {};
        Reply reply = {};

        finish(env,
               engine_mdevctl_import(env->engine, uuid_of(uuid), &import, &root_caller, on_reply, &reply,
                                     &refusal),
               &refusal, &reply);
        return reply;
}

typedef struct Exported {
        Reply reply;
        char json[4096];
} Exported;

static void on_exported(void *userdata, int r, const Refusal *refusal, Uuid uuid, const char *json) {
        Exported *x = userdata;

        (void) snprintf(x->json, sizeof x->json, "%s", json ?: "");
        on_reply(&x->reply, r, refusal, uuid);
}

static Exported export(Env *env, const char *uuid, bool force, bool dry_run) {
        Refusal refusal = {};
        Exported x = {};

        finish(env,
               engine_mdevctl_export(env->engine, uuid_of(uuid), force, dry_run, &root_caller, on_exported,
                                     &x, &refusal),
               &refusal, &x.reply);
        return x;
}

#define expect(reply, verdict, words) \
        do { \
                const Reply _reply = (reply); \
                assert_reply(&_reply, verdict, words, __FILE__, __LINE__); \
        } while (0)

/* Exactly one of both has it, and nothing lies aside. */
static bool is_ours(Env *env, const char *uuid) {
        char path[128], aside[128];
        bool ours = env_state_of(env, uuid_of(uuid)) != _MATRIX_STATE_MAX;

        (void) snprintf(path, sizeof path, DIR "%s", uuid);
        (void) snprintf(aside, sizeof aside, ASIDE "%s", uuid);
        assert_false(is_there(env, aside));
        assert_true(ours != is_there(env, path));
        return ours;
}

/* Whoever has it, nobody else can have its queues; and it claims no more than that. */
static void assert_claimed(Env *env, const char *owner) {
        ApMatrix m = matrix_of("3", "0x10", ""), other = matrix_of("4", "0x10", "");

        env_expect(env, "define", uuid_n(9), &m, VERDICT_OVERLAP, owner);
        env_do(env, "define", uuid_n(9), &other);
        env_do(env, "undefine", uuid_n(9), NULL);
}

/* ---- hand-overs ---- */

static void test_import_and_export(void **state) {
        Env *env = *state;
        CLEANUP(freep) char *xml = NULL, *was = NULL, *is = NULL;
        Exported x;

        put(env, THEIRS, FREE);
        was = theirs(env, THEIRS);
        assert_claimed(env, "mdevctl|" THEIRS);

        expect(import(env, THEIRS, (EngineImport) { .dry_run = true }), 0, NULL);
        assert_false(is_ours(env, THEIRS));

        expect(import(env, THEIRS, (EngineImport) { .name = "payments-1" }), 0, NULL);
        assert_true(is_ours(env, THEIRS));
        assert_int_equal(env_state_of(env, uuid_of(THEIRS)), MATRIX_DEFINED);
        assert_claimed(env, "definition 'payments-1'");
        assert_int_equal(engine_get_xml(env->engine, uuid_of(THEIRS), &xml), 0);
        assert_non_null(strstr(xml, " autostart='yes' mdevctl='{"));

        /* once more: nothing to do */
        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        expect(import(env, THEIRS, (EngineImport) { .dry_run = true }), 0, NULL);
        assert_true(is_ours(env, THEIRS));

        /* its name is more than mdevctl can keep */
        expect(export(env, THEIRS, false, false).reply, VERDICT_UNSUPPORTED, "payments-1|its name|--force");
        assert_true(is_ours(env, THEIRS));
        x = export(env, THEIRS, true, true);
        expect(x.reply, 0, NULL);
        assert_true(is_ours(env, THEIRS));
        x = export(env, THEIRS, true, false);
        expect(x.reply, 0, NULL);
        assert_false(is_ours(env, THEIRS));
        is = theirs(env, THEIRS);
        assert_string_equal(is, was);
        assert_claimed(env, "mdevctl|" THEIRS);
}

/* What mdevctl has is what it had, in order and notation. */
static void test_nothing_is_lost(void **state) {
        static const char *const definitions[] = {
                DEFINITION("auto", ADAPTER("3") "," DOMAIN("16")),
                DEFINITION("manual", DOMAIN("0x10") "," ADAPTER("0x03") "," ADAPTER("+4")),
                DEFINITION("manual", ADAPTER("3") "," ADAPTER("4") "," DOMAIN("16") "," CONTROL(
                                             "0x11") "," CONTROL("1")),
                DEFINITION("auto",
                           ADAPTER("3") "," ADAPTER("5") ",{\"unassign_adapter\":\"5\"}," DOMAIN("020")),
                DEFINITION("auto", "{\"ap_config\":\"0x18,0x00008,0x8\\n\"}"),
                DEFINITION("auto", "{\"ap_config\":\"0x1,0x1,\"},{\"ap_config\":\"0x18,0x00008,0x8\"}"),
                "{\"start\":\"AUTO\",\"attrs\":[" ADAPTER("3") "," DOMAIN(
                        "16") "],\"mdev_type\":\"vfio_ap-passthrough\","
                              "\"note\":{\"it's\":\"<&\\u00e4\\u0001\"}}",
        };
        Env *env = *state;

        for (size_t i = 0; i < ELEMENTS(definitions); i++) {
                CLEANUP(freep) char *was = NULL, *is = NULL;

                print_message("%s\n", definitions[i]);
                put(env, THEIRS, definitions[i]);
                was = theirs(env, THEIRS);
                expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
                assert_true(is_ours(env, THEIRS));
                env_stop(env); /* the record says it all */
                env_start(env);
                expect(export(env, THEIRS, false, false).reply, 0, NULL);
                assert_false(is_ours(env, THEIRS));
                is = theirs(env, THEIRS);
                assert_string_equal(is, was);
        }
}

/* What was changed here is changed there, and only that. */
static void test_changed_between(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("3,4", "0x10", "8");
        CLEANUP(freep) char *was = NULL, *is = NULL;

        put(env, THEIRS, FREE);
        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        env_do(env, "no-autostart", uuid_of(THEIRS), NULL);
        expect(export(env, THEIRS, false, false).reply, 0, NULL);
        is = theirs(env, THEIRS);
        assert_string_equal(is, DEFINITION("manual", DOMAIN("0x10") "," ADAPTER("03") "," CONTROL("010")));

        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        env_do(env, "modify", uuid_of(THEIRS), &m);
        expect(export(env, THEIRS, false, false).reply, 0, NULL);
        was = theirs(env, THEIRS);
        assert_string_equal(was, DEFINITION("manual", ADAPTER("3") "," ADAPTER("4") "," DOMAIN(
                                                              "16") "," CONTROL("8")));
}

typedef struct Case {
        const char *json;
        EngineImport import;
        int verdict;
        const char *words;
} Case;

/* 04 x 06 is defined as m002, 05 x 10 is another definition of mdevctl, 02 x 10 a foreign mdev; adapter 1 is the host's. */
static const Case cases[] = {
        { DEFINITION("auto", ADAPTER("3") "," DOMAIN("6") ",{\"frob\":\"1\"}"),
          {},
          VERDICT_UNSUPPORTED,
          "frob" },
        { DEFINITION("auto", ADAPTER("3")), {}, VERDICT_UNSUPPORTED, "no usage domain" },
        { DEFINITION("auto", DOMAIN("3")), {}, VERDICT_UNSUPPORTED, "no adapter" },
        { "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"auto\"}",
          {},
          VERDICT_UNSUPPORTED,
          "no adapter" },
        { DEFINITION("auto", ADAPTER("banana") "," DOMAIN("6")), {}, VERDICT_UNSUPPORTED, "number" },
        { DEFINITION("auto", ADAPTER("4000") "," DOMAIN("6")), {}, VERDICT_UNSUPPORTED, "number" },
        { DEFINITION("auto", ADAPTER("40,41") "," DOMAIN("6")), {}, VERDICT_UNSUPPORTED, "number" },
        { "", {}, VERDICT_UNSUPPORTED, "empty" },
        { "{}", {}, VERDICT_UNSUPPORTED, "mdev_type" },
        { DEFINITION("auto", ADAPTER("4") "," DOMAIN("6")), {}, VERDICT_OVERLAP, "04.0006|m002" },
        { DEFINITION("auto", ADAPTER("4") "," DOMAIN("6")),
          { .alternative = true },
          VERDICT_OVERLAP,
          "m002" },
        { DEFINITION("auto", ADAPTER("5") "," DOMAIN("16")), {}, VERDICT_OVERLAP, "05.0010|mdevctl|" OTHER },
        { DEFINITION("auto", ADAPTER("2") "," DOMAIN("16")), {}, VERDICT_OVERLAP, "02.0010|" FOREIGN },
        { DEFINITION("auto", ADAPTER("1") "," DOMAIN("6")), {}, VERDICT_HOST_OWNED, "01.0006" },
        { DEFINITION("auto", ADAPTER("64") "," DOMAIN("6")), {}, VERDICT_NOT_INSTALLED, "0x40" },
        { FREE, { .name = "m002" }, VERDICT_EXISTS, "m002" },
        { FREE, { .name = "-" }, VERDICT_UNSUPPORTED, "name" },
};

static void furnish(Env *env) {
        ApMatrix m = matrix_of("4", "6", "");

        env_foreign(env, FOREIGN, "2", "0x10");
        env_do(env, "define", uuid_n(2), &m);
        put(env, OTHER, DEFINITION("manual", ADAPTER("5") "," DOMAIN("16")));
}

static void test_import_refusals(void **state) {
        Env *env = *state;

        furnish(env);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(freep) char *text = NULL;

                print_message("%s\n", cases[i].json);
                put(env, THEIRS, cases[i].json);
                for (unsigned dry = 0; dry < 2; dry++) {
                        EngineImport what = cases[i].import;

                        what.dry_run = dry;
                        expect(import(env, THEIRS, what), cases[i].verdict, cases[i].words);
                        assert_false(is_ours(env, THEIRS));
                }
                /* not a byte of it has changed */
                assert_int_equal(file_read_at(env->root_fd, DIR THEIRS, 4096, &text, NULL), 0);
                assert_string_equal(text, cases[i].json);
        }
        expect(import(env, "e0000000-0000-4000-8000-0000000000aa", (EngineImport) {}),
               VERDICT_NO_SUCH_MATRIX, "mdevctl");
}

static void test_import_with_leave(void **state) {
        Env *env = *state;

        furnish(env);
        put(env, THEIRS, DEFINITION("auto", ADAPTER("5") "," DOMAIN("16")));
        expect(import(env, THEIRS, (EngineImport) { .alternative = true }), 0, NULL);
        assert_true(is_ours(env, THEIRS));
        expect(export(env, THEIRS, false, false).reply, VERDICT_UNSUPPORTED, "alternative");
        env_do(env, "undefine", uuid_of(THEIRS), NULL);

        put(env, THEIRS, DEFINITION("auto", ADAPTER("1") "," DOMAIN("6")));
        expect(import(env, THEIRS, (EngineImport) { .from_host = true }), 0, NULL);
        assert_true(is_ours(env, THEIRS));
        expect(export(env, THEIRS, false, false).reply, VERDICT_UNSUPPORTED, "host");
}

/* Somebody made mdevctl's definition anew beside ours. */
static void test_both_have_it(void **state) {
        Env *env = *state;

        put(env, THEIRS, FREE);
        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        put(env, THEIRS, FREE);
        expect(export(env, THEIRS, false, false).reply, VERDICT_EXISTS, "mdevctl");
        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        assert_true(is_ours(env, THEIRS));
        put(env, THEIRS, DEFINITION("auto", ADAPTER("3") "," DOMAIN("6")));
        expect(import(env, THEIRS, (EngineImport) {}), VERDICT_EXISTS, "another");
        assert_true(is_there(env, DIR THEIRS));
}

static void test_live(void **state) {
        Env *env = *state;

        put(env, THEIRS, FREE);
        env_foreign(env, THEIRS, "3", "0x10"); /* without its control domain */
        env_settle(env);
        expect(import(env, THEIRS, (EngineImport) {}), VERDICT_BAD_STATE, "another matrix");
        assert_false(is_ours(env, THEIRS));
        env_write(env, "devices/vfio_ap/matrix/" THEIRS "/assign_control_domain", "8");
        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        assert_int_equal(env_state_of(env, uuid_of(THEIRS)), MATRIX_STARTED);

        /* ours through a crash, and given away without being touched */
        env_rest(env);
        env_crash(env);
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_of(THEIRS)), MATRIX_STARTED);
        expect(export(env, THEIRS, false, false).reply, 0, NULL);
        assert_false(is_ours(env, THEIRS));
        assert_false(engine_is_ours(env->engine, uuid_of(THEIRS)));
        assert_non_null(snapshot_find_mdev(engine_snapshot(env->engine), uuid_of(THEIRS)));
        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        env_do(env, "undefine-stop", uuid_of(THEIRS), NULL);
        assert_null(snapshot_find_mdev(engine_snapshot(env->engine), uuid_of(THEIRS)));
}

/* The engine dies after so many turns of its loop; whatever it was at, one of both has the definition, and all of it. */
static bool crash_after(unsigned turns, bool out) {
        CLEANUP(freep) char *was = NULL, *is = NULL;
        Env *env = env_new("7.2", NULL);
        Refusal refusal = {};
        Exported x = {};
        bool ours;

        env_start(env);
        put(env, THEIRS, FREE);
        was = theirs(env, THEIRS);
        if (out)
                expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        assert_int_equal(out ? engine_mdevctl_export(env->engine, uuid_of(THEIRS), false, false,
                                                     &root_caller, on_exported, &x, &refusal)
                             : engine_mdevctl_import(env->engine, uuid_of(THEIRS), &(EngineImport) {},
                                                     &root_caller, on_reply, &x.reply, &refusal),
                         0);
        while (turns-- > 0 && !x.reply.done)
                (void) env_turn(env, 1000000);
        env_crash(env);
        env_start(env);
        env_settle(env);

        ours = is_ours(env, THEIRS);
        assert_true(!x.reply.done || ours != out);
        assert_claimed(env, ours ? "definition" : "mdevctl");
        if (ours)
                expect(export(env, THEIRS, false, false).reply, 0, NULL);
        is = theirs(env, THEIRS);
        assert_string_equal(is, was);
        (void) env_free(env);
        return x.reply.done;
}

static void test_crashes(void **state) {
        for (unsigned out = 0; out < 2; out++)
                for (unsigned turns = 0; !crash_after(turns, out); turns++)
                        assert_true(turns < 1000);
}

/* All that a crash between two system calls can leave. */
static void test_what_lies_aside(void **state) {
        Env *env = *state;
        CLEANUP(freep) char *is = NULL, *again = NULL;

        env_stop(env);
        env_put_file(env, ASIDE THEIRS, FREE);
        env_start(env);
        assert_false(is_ours(env, THEIRS));
        is = theirs(env, THEIRS);
        assert_string_equal(is, FREE);

        expect(import(env, THEIRS, (EngineImport) {}), 0, NULL);
        env_stop(env);
        env_put_file(env, ASIDE THEIRS, FREE);
        env_start(env);
        assert_true(is_ours(env, THEIRS));

        /* mdevctl has made another one meanwhile: neither is thrown away, and what is in the way is said */
        env_do(env, "undefine", uuid_of(THEIRS), NULL);
        env_stop(env);
        env_put_file(env, ASIDE THEIRS, FREE);
        env_put_file(env, DIR THEIRS, DEFINITION("manual", ADAPTER("4") "," DOMAIN("6")));
        env_start(env);
        assert_true(is_there(env, ASIDE THEIRS));
        again = theirs(env, THEIRS);
        assert_string_equal(again, DEFINITION("manual", ADAPTER("4") "," DOMAIN("6")));
        expect(import(env, THEIRS, (EngineImport) {}), VERDICT_BACKEND, "nothing was changed");
        assert_int_equal(unlinkat(env->root_fd, ASIDE THEIRS, 0), 0);
        assert_false(is_ours(env, THEIRS));
}

/* ---- what mdevctl is about to do ---- */

/* Something that runs, in mdevctl's place. */
typedef struct Process {
        pid_t pid;
        int pidfd;
} Process;

static Process process_new(void) {
        Process p = { .pid = fork() };

        if (p.pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        (void) pause();
        }
        assert_true(p.pid > 0);
        p.pidfd = (int) syscall(SYS_pidfd_open, p.pid, 0);
        assert_true(p.pidfd >= 0);
        return p;
}

static void process_end(Process *p) {
        if (p->pid > 0) {
                (void) kill(p->pid, SIGKILL);
                (void) waitpid(p->pid, NULL, 0);
        }
        p->pid = 0;
}

static void process_free(Process *p) {
        process_end(p);
        p->pidfd = fd_close(p->pidfd);
}

static Reply begin(Env *env, Process *p, MdevctlAction action, const char *uuid, const char *json) {
        Refusal refusal = {};
        Reply reply = {};
        int r = engine_mdevctl_begin(env->engine, action, uuid_of(uuid), json, p->pidfd, &root_caller,
                                     on_reply, &reply, &refusal);

        if (r != 0) {
                on_reply(&reply, r, r > 0 ? &refusal : NULL, (Uuid) {});
                refusal_clear(&refusal);
        }
        env_wait(env, &reply.done);
        return reply;
}

static void test_begin_checks(void **state) {
        static const struct {
                MdevctlAction action;
                const char *uuid, *json;
                int verdict;
                const char *words;
        } asked[] = {
                { MDEVCTL_DEFINE, THEIRS, DEFINITION("manual", ADAPTER("4") "," DOMAIN("6")),
                  VERDICT_OVERLAP, "04.0006|m002" },
                { MDEVCTL_DEFINE, THEIRS, DEFINITION("manual", ADAPTER("5") "," DOMAIN("16")),
                  VERDICT_OVERLAP, "05.0010|" OTHER },
                { MDEVCTL_DEFINE, THEIRS, DEFINITION("manual", ADAPTER("2") "," DOMAIN("16")),
                  VERDICT_OVERLAP, "02.0010|" FOREIGN },
                { MDEVCTL_DEFINE, THEIRS, DEFINITION("manual", ADAPTER("1") "," DOMAIN("6")),
                  VERDICT_HOST_OWNED, "01.0006" },
                { MDEVCTL_DEFINE, THEIRS, DEFINITION("manual", ADAPTER("64")), VERDICT_NOT_INSTALLED,
                  "0x40" },
                { MDEVCTL_DEFINE, THEIRS, DEFINITION("manual", ADAPTER("banana")), VERDICT_INVALID,
                  "number" },
                { MDEVCTL_DEFINE, THEIRS, "{}", VERDICT_INVALID, "mdev_type" },
                { MDEVCTL_MODIFY, OTHER, DEFINITION("manual", ADAPTER("4") "," DOMAIN("6")), VERDICT_OVERLAP,
                  "m002" },
                { MDEVCTL_START, THEIRS, DEFINITION("manual", ADAPTER("4") "," DOMAIN("6")), VERDICT_OVERLAP,
                  "m002" },
                { MDEVCTL_START, THEIRS, DEFINITION("manual", ADAPTER("5") "," DOMAIN("16")),
                  VERDICT_OVERLAP, OTHER },
                { MDEVCTL_START, THEIRS, DEFINITION("manual", ADAPTER("2") "," DOMAIN("16")),
                  VERDICT_OVERLAP, FOREIGN },
                { MDEVCTL_LIVE, FOREIGN, DEFINITION("manual", ADAPTER("4") "," DOMAIN("6")), VERDICT_OVERLAP,
                  "m002" },
                { MDEVCTL_DEFINE, "00000000-0000-4000-8000-000000000002", FREE, VERDICT_NOT_OURS,
                  "m002|guestcryptctl modify" },
                { MDEVCTL_START, "00000000-0000-4000-8000-000000000002", FREE, VERDICT_NOT_OURS,
                  "m002|guestcryptctl start" },
                { MDEVCTL_STOP, "00000000-0000-4000-8000-000000000002", "", VERDICT_NOT_OURS,
                  "m002|guestcryptctl stop" },
                { MDEVCTL_UNDEFINE, "00000000-0000-4000-8000-000000000002", "", VERDICT_NOT_OURS, "m002" },
                { MDEVCTL_STOP, "00000000-0000-4000-8000-000000000008", "", VERDICT_NOT_OURS,
                  "mdev-remove" },
        };
        Env *env = *state;
        Process p = process_new();

        furnish(env);
        env_do(env, "create", uuid_n(8), NULL);
        for (size_t i = 0; i < ELEMENTS(asked); i++) {
                print_message("%d %s %s\n", asked[i].action, asked[i].uuid, asked[i].json);
                expect(begin(env, &p, asked[i].action, asked[i].uuid, asked[i].json), asked[i].verdict,
                       asked[i].words);
        }

        /* what it has it may keep, with less, though another overlaps it by now */
        put(env, THEIRS, DEFINITION("manual", ADAPTER("4") "," ADAPTER("3") "," DOMAIN("6")));
        expect(begin(env, &p, MDEVCTL_MODIFY, THEIRS, DEFINITION("auto", ADAPTER("4") "," DOMAIN("6"))), 0,
               NULL);
        engine_mdevctl_end(env->engine, uuid_of(THEIRS), p.pidfd);
        env_settle(env);
        expect(begin(env, &p, MDEVCTL_START, THEIRS, DEFINITION("auto", ADAPTER("4") "," DOMAIN("6"))),
               VERDICT_OVERLAP, "m002"); /* but not start it */
        /* its definition stands against others' already */
        put(env, THEIRS, DEFINITION("manual", ADAPTER("5") "," DOMAIN("16")));
        expect(begin(env, &p, MDEVCTL_START, THEIRS, DEFINITION("manual", ADAPTER("5") "," DOMAIN("16"))), 0,
               NULL);
        expect(begin(env, &p, MDEVCTL_START, OTHER, DEFINITION("manual", ADAPTER("5") "," DOMAIN("16"))),
               VERDICT_OVERLAP, "operation|" THEIRS);
        process_free(&p);
}

/* From the answer on the queues are taken, until it has been seen what came of it. */
static void test_begin_claims(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("3", "0x10", "");
        Process p = process_new(), q = process_new();

        for (unsigned how = 0; how < 4; how++) {
                bool start = how & 1, dies = how & 2;

                expect(begin(env, &p, start ? MDEVCTL_START : MDEVCTL_DEFINE, THEIRS, FREE), 0, NULL);
                env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP, "operation|" THEIRS);
                env_expect(env, "define-start", uuid_n(1), &m, VERDICT_OVERLAP, "operation|" THEIRS);
                expect(begin(env, &q, MDEVCTL_DEFINE, OTHER, FREE), VERDICT_OVERLAP, "operation|" THEIRS);
                expect(begin(env, &q, MDEVCTL_MODIFY, THEIRS, FREE), VERDICT_BAD_STATE, THEIRS);
                expect(import(env, THEIRS, (EngineImport) {}), VERDICT_BAD_STATE, THEIRS);
                put(env, OTHER, "{}"); /* that they are read anew changes nothing */
                env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP, "operation|" THEIRS);

                if (dies) {
                        process_end(&p);
                        env_settle(env);
                        process_free(&p);
                        p = process_new();
                } else
                        engine_mdevctl_end(env->engine, uuid_of(THEIRS), p.pidfd);
                env_do(env, "define-start", uuid_n(1), &m);
                env_do(env, "undefine-stop", uuid_n(1), NULL);

                /* it did what it said */
                expect(begin(env, &p, start ? MDEVCTL_START : MDEVCTL_DEFINE, THEIRS, FREE), 0, NULL);
                if (start)
                        env_foreign(env, THEIRS, "3", "0x10");
                else
                        env_put_file(env, DIR THEIRS, FREE);
                engine_mdevctl_end(env->engine, uuid_of(THEIRS), p.pidfd);
                env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP, THEIRS);
                env_settle(env);
                env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP,
                           start ? "mediated device|" THEIRS : "mdevctl's|" THEIRS);
                if (start)
                        env_write(env, "devices/vfio_ap/matrix/" THEIRS "/remove", "1");
                else
                        assert_int_equal(unlinkat(env->root_fd, DIR THEIRS, 0), 0);
                env_rescan(env);
                env_settle(env);
        }
        process_free(&p);
        process_free(&q);
}

/* A killed mdevctl's callout says at last that it is over, when another mdevctl is at work on the same definition. */
static void test_end_of_another(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("3", "0x10", "");
        Process killed = process_new(), p = process_new();

        expect(begin(env, &killed, MDEVCTL_DEFINE, THEIRS, FREE), 0, NULL);
        process_end(&killed);
        env_settle(env);
        expect(begin(env, &p, MDEVCTL_DEFINE, THEIRS, FREE), 0, NULL);
        engine_mdevctl_end(env->engine, uuid_of(THEIRS), killed.pidfd);
        env_rescan(env);
        env_settle(env);
        env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP, "operation|" THEIRS);

        /* nor one that runs, and what is no process at all */
        process_free(&killed);
        killed = process_new();
        engine_mdevctl_end(env->engine, uuid_of(THEIRS), killed.pidfd);
        engine_mdevctl_end(env->engine, uuid_of(THEIRS), env->root_fd);
        env_rescan(env);
        env_settle(env);
        env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP, "operation|" THEIRS);

        engine_mdevctl_end(env->engine, uuid_of(THEIRS), p.pidfd);
        env_settle(env);
        env_do(env, "define", uuid_n(1), &m);
        process_free(&killed);
        process_free(&p);
}

/* Both ask at once: one of them gets it, whoever it is. */
static void test_race(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("3", "0x10", "");

        for (unsigned turns = 0; turns < 12; turns++) {
                Process p = process_new();
                Reply theirs_reply = {}, ours = {};
                Refusal refusal = {};

                assert_int_equal(engine_mdevctl_begin(env->engine, MDEVCTL_DEFINE, uuid_of(THEIRS), FREE,
                                                      p.pidfd, &root_caller, on_reply, &theirs_reply,
                                                      &refusal),
                                 0);
                for (unsigned i = 0; i < turns; i++)
                        (void) env_turn(env, 0);
                env_begin(env, turns % 2 ? "define" : "define-start", uuid_n(1), &m, &ours);
                env_wait(env, &ours.done);
                env_wait(env, &theirs_reply.done);
                assert_true((ours.r == 0) != (theirs_reply.r == 0));
                process_free(&p);
                env_settle(env);
                if (ours.r == 0)
                        env_do(env, "undefine-stop", uuid_n(1), NULL);
        }
}

/* The host cannot be looked at: nobody knows. */
static void test_begin_blind(void **state) {
        Env *env = *state;
        Process p = process_new();

        env_ctl(env, "fault read bus/ap/apmask EIO");
        expect(begin(env, &p, MDEVCTL_DEFINE, THEIRS, FREE), VERDICT_BACKEND, "cannot be read");
        expect(begin(env, &p, MDEVCTL_STOP, THEIRS, ""), 0, NULL);
        env_ctl(env, "clear");
        process_free(&p);
}

/* ---- questions ---- */

static void on_looked(void *userdata, int r) {
        assert_int_equal(r, 0);
        *(bool *) userdata = true;
}

/* A scan alone does not make an answer one of what is there now: the files are read by another thread, whose disk may be slow. */
static void test_question_waits_for_files(void **state) {
        Env *env = *state;
        EnvBusy *busy = env_busy(env);
        uint64_t scans;
        bool done = false, early;

        env_put_file(env, DIR THEIRS, FREE);
        scans = env->engine->n_scanned;
        assert_int_equal(engine_rescan(env->engine, on_looked, &done), 0);
        while (env->engine->n_scanned == scans || env->engine->scanning)
                (void) env_turn(env, 1000000);
        early = done;
        env_busy_end(busy);
        assert_false(early);
        env_wait(env, &done);
        assert_non_null(mdevctl_find(env->engine, uuid_of(THEIRS)));
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_import_and_export),
                TEST(test_nothing_is_lost),
                TEST(test_changed_between),
                TEST(test_import_refusals),
                TEST(test_import_with_leave),
                TEST(test_both_have_it),
                TEST(test_live),
                TEST(test_what_lies_aside),
                TEST(test_begin_checks),
                TEST(test_begin_claims),
                TEST(test_end_of_another),
                TEST(test_race),
                TEST(test_begin_blind),
                TEST(test_question_waits_for_files),
                cmocka_unit_test(test_crashes),
        };

        return cmocka_run_group_tests_name("mdevctl", tests, NULL, NULL);
}
