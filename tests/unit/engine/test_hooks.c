/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libvirt's hook, and what guests hold: started for them, kept from others, given up by those who had it, whatever dies in
 * between. */

#include <errno.h>

#include "engine/engine_guest_internal.h"
#include "guest_world.h"

#define FOREIGN "f0000000-0000-4000-8000-00000000000f"

static int setup(void **state) {
        World *w = world_new();

        world_matrix(w, 1);
        world_matrix(w, 2);
        (void) fake_vtpm_add(&w->vtpm, tpm_n(1), "t1");
        (void) fake_vtpm_add(&w->vtpm, tpm_n(2), "t2");
        world_define(w, 1, &(Wires) { .mdev = 1 });
        world_define(w, 2, &(Wires) { .mdev = 1 });
        world_define(w, 3, &(Wires) {});
        world_settle(w);
        *state = w;
        return 0;
}

static int teardown(void **state) {
        *state = world_free(*state);
        return 0;
}

static EngineGuest guest(World *w, unsigned n) {
        EngineGuest g;

        world_settle(w);
        assert_int_equal(engine_get_guest(w->env->engine, guest_n(n), &g), 0);
        return g;
}

static FakeTpm *tpm(World *w, unsigned n) {
        return fake_vtpm_find(&w->vtpm, tpm_n(n));
}

#define hook_expect(w, n, operation, verdict, words) \
        do { \
                Reply reply_; \
                (void) world_hook(w, n, operation, &reply_); \
                assert_reply(&reply_, verdict, words, __FILE__, __LINE__); \
        } while (0)

static void assert_hold(World *w, unsigned n, const char *words) {
        CLEANUP(freep) char *text = world_hold(w, n), *copy = strdup(words);
        char *rest = copy;

        assert_non_null(text);
        for (char *word; (word = strsep(&rest, "|"));)
                if (!strstr(text, word))
                        fail_msg("'%s' is not in: %s", word, text);
}

/* ---- a matrix ---- */

static void test_matrix(void **state) {
        World *w = *state;

        hook_expect(w, 1, "prepare", 0, NULL);
        assert_true(world_is_live(w, 1));
        assert_hold(w, 1, "name g1|phase prepared|matrix|started");
        env_expect(w->env, "stop", uuid_n(1), NULL, VERDICT_IN_USE, "is being started|m001");
        fake_virt_run(&w->virt, guest_n(1), true);
        hook_expect(w, 1, "started", 0, NULL);
        assert_hold(w, 1, "phase running");
        fake_virt_run(&w->virt, guest_n(1), false);
        hook_expect(w, 1, "stopped", 0, NULL);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));
        hook_expect(w, 1, "release", 0, NULL);
        hook_expect(w, 1, "release", 0, NULL);
        hook_expect(w, 9, "release", 0, NULL); /* never seen */
}

static void test_nothing_of_ours(void **state) {
        World *w = *state;

        env_foreign(w->env, FOREIGN, "5", "6");
        env_rescan(w->env);
        hook_expect(w, 3, "prepare", 0, NULL);
        assert_null(world_hold(w, 3));
        hook_expect(w, 3, "rubbish", 0, NULL);
        world_define(w, 3, &(Wires) { .foreign = uuid_of(FOREIGN) });
        assert_true(world_run(w, 3, NULL));
        assert_null(world_hold(w, 3));
        world_end(w, 3);
        world_define(w, 3, &(Wires) { .foreign = uuid_of(FOREIGN), .matrix = "m002" });
        hook_expect(w, 3, "prepare", VERDICT_EXISTS, "m002|" FOREIGN);
}

static void test_invalid(void **state) {
        World *w = *state;
        const EngineHook bad[] = { { .guest = guest_n(1) },
                                   { .operation = "prepare" },
                                   { .operation = "prepare", .guest = guest_n(1), .tpm_model = 17 } };
        Refusal refusal = {};
        Reply reply = {};

        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                assert_int_equal(engine_hook(w->env->engine, &bad[i], &root_caller, on_reply, &reply,
                                             &refusal),
                                 VERDICT_INVALID);
                refusal_clear(&refusal);
        }
}

/* What is refused names what and who, and leaves nothing. */
static void test_refusals(void **state) {
        const struct {
                Wires wires;
                Verdict verdict;
                const char *words;
        } cases[] = {
                { { .matrix = "none" }, VERDICT_NO_SUCH_MATRIX, "g3|none" },
                { { .matrix = "m001", .mdev = 2 }, VERDICT_EXISTS, "g3|m001|m002" },
                { { .mdev = 3 }, VERDICT_IN_USE, "'meant'|'g2'" },
                { { .tpm = "none" }, VERDICT_NO_SUCH_TPM, "g3|none" },
                { { .tpm_wired = 9 }, VERDICT_NO_SUCH_TPM, "g3|does not exist" },
                { { .tpm_wired = 1, .tpm = "t2" }, VERDICT_EXISTS, "g3|t2|t1" },
        };
        EngineDefine d = {
                .name = "meant", .uuid = uuid_n(3), .matrix = matrix_of("4", "6", ""), .guest = "g2"
        };
        World *w = *state;
        Reply reply;

        env_define(w->env, &d, &reply);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                w->virt.held = true; /* its metadata are not taken up before */
                world_define(w, 3, &cases[i].wires);
                hook_expect(w, 3, "prepare", cases[i].verdict, cases[i].words);
                assert_null(world_hold(w, 3));
                assert_false(world_is_live(w, 2));
                w->virt.held = false;
                (void) fake_virt_answer(&w->virt);
                world_settle(w);
                if (guest(w, 3).matrix[0])
                        world_expect(w, "detach-matrix", 3, 0, 0, NULL);
        }
}

static void test_refused_start(void **state) {
        World *w = *state;

        env_ctl(w->env, "fault write ap_config EIO");
        hook_expect(w, 1, "prepare", VERDICT_KERNEL, "m001");
        env_ctl(w->env, "clear");
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));
        hook_expect(w, 1, "prepare", 0, NULL);
}

/* The other one has it: whoever comes later is refused, and its release does no harm. */
static void test_loser(void **state) {
        World *w = *state;
        Reply reply;

        assert_true(world_run(w, 1, NULL));
        assert_false(world_run(w, 2, &reply));
        assert_reply(&reply, VERDICT_IN_USE, "m001|g1|runs with it", __FILE__, __LINE__);
        assert_true(world_is_live(w, 1));
        assert_null(world_hold(w, 2));
        assert_hold(w, 1, "running");
        world_end(w, 1);
        assert_true(world_run(w, 2, NULL));
}

static void test_two_prepares(void **state) {
        World *w = *state;
        Reply a, b;

        for (int round = 0; round < 2; round++) {
                unsigned first = round ? 2 : 1, second = round ? 1 : 2;

                world_hook_begin(w, first, "prepare", &a);
                world_hook_begin(w, second, "prepare", &b);
                env_wait(w->env, &a.done);
                env_wait(w->env, &b.done);
                assert_int_equal((a.r == 0) + (b.r == 0), 1);
                assert_true(world_is_live(w, 1));
                hook_expect(w, a.r == 0 ? second : first, "release", 0, NULL);
                assert_true(world_is_live(w, 1));
                hook_expect(w, a.r == 0 ? first : second, "release", 0, NULL);
                assert_false(world_is_live(w, 1));
        }
        world_hook_begin(w, 1, "prepare", &a);
        world_hook_begin(w, 1, "prepare", &b);
        assert_int_equal(b.r, VERDICT_BAD_STATE);
        env_wait(w->env, &a.done);
}

/* The hook gives up waiting, and libvirt calls release while we still prepare. */
static void test_release_wins(void **state) {
        World *w = *state;
        Reply prepare, release;
        bool done = false;

        for (unsigned n = 0; !done; n++) {
                world_hook_begin(w, 1, "prepare", &prepare);
                env_turns(w->env, n, &prepare.done);
                done = prepare.done;
                world_hook_begin(w, 1, "release", &release);
                env_wait(w->env, &prepare.done);
                env_wait(w->env, &release.done);
                world_settle(w);
                assert_int_equal(release.r, 0);
                assert_false(world_is_live(w, 1));
                assert_null(world_hold(w, 1));
                if (n == 0)
                        assert_int_not_equal(prepare.r, 0);
                if (done)
                        assert_int_equal(prepare.r, 0);
        }
}

static void test_found_started(void **state) {
        World *w = *state;

        env_do(w->env, "start", uuid_n(1), NULL);
        assert_true(world_run(w, 1, NULL));
        assert_hold(w, 1, "found");
        world_end(w, 1);
        assert_true(world_is_live(w, 1));
}

/* It prepares, while what it wants is being stopped after another. */
static void test_prepare_during_stop(void **state) {
        World *w = *state;
        Reply release, prepare;

        for (unsigned n = 0; n < 20; n++) {
                hook_expect(w, 1, "prepare", 0, NULL);
                world_hook_begin(w, 1, "release", &release);
                env_turns(w->env, n, &release.done);
                world_hook_begin(w, 2, "prepare", &prepare);
                env_wait(w->env, &prepare.done);
                env_wait(w->env, &release.done);
                if (prepare.r == 0) {
                        world_settle(w);
                        assert_true(world_is_live(w, 1));
                        hook_expect(w, 2, "release", 0, NULL);
                } else
                        assert_reply(&prepare, VERDICT_IN_USE, "g1", __FILE__, __LINE__);
                assert_false(world_is_live(w, 1));
        }
}

/* A release that never came: its next start cleans up. */
static void test_prepare_twice(void **state) {
        World *w = *state;

        hook_expect(w, 1, "prepare", 0, NULL);
        world_define(w, 1, &(Wires) { .mdev = 2 });
        hook_expect(w, 1, "prepare", 0, NULL);
        assert_false(world_is_live(w, 1));
        assert_true(world_is_live(w, 2));
        hook_expect(w, 1, "release", 0, NULL);
        assert_false(world_is_live(w, 2));
}

/* The kernel says that it is in use still: said, and tried again. */
static void test_stop_refused(void **state) {
        World *w = *state;
        char on[80], id[UUID_STRING_SIZE];

        (void) snprintf(on, sizeof on, "guest %s on", uuid_format(uuid_n(1), id));
        hook_expect(w, 1, "prepare", 0, NULL);
        env_ctl(w->env, on);
        env_rescan(w->env);
        hook_expect(w, 1, "release", 0, NULL);
        assert_true(world_is_live(w, 1));
        assert_true(world_guest_has_problem(w, 1, "what was started for it is still there"));
        (void) snprintf(on, sizeof on, "guest %s off", id);
        env_ctl(w->env, on);
        while (world_is_live(w, 1))
                (void) env_turn(w->env, 1000000);
        assert_null(world_hold(w, 1));
        assert_false(world_guest_has_problem(w, 1, "still there"));
}

/* ---- metadata ---- */

static void test_declared_matrix(void **state) {
        World *w = *state;

        w->virt.held = true; /* it is started before it is taken up */
        world_define(w, 3, &(Wires) { .matrix = "m002" });
        fake_virt_disconnect(&w->virt);
        world_settle(w);
        fake_virt_find(&w->virt, guest_n(3))->g.config.n_mdevs = 0;
        hook_expect(w, 3, "prepare", 0, NULL);
        assert_true(world_is_live(w, 2));
        w->virt.held = false;
        fake_virt_connect(&w->virt);
        fake_virt_run(&w->virt, guest_n(3), true);
        hook_expect(w, 3, "started", 0, NULL);
        assert_string_equal(guest(w, 3).live_matrix, "m002");
        assert_string_equal(guest(w, 3).matrix, "m002");
        assert_string_equal(world_meant(w, 2), "g3");
        world_end(w, 3);
        assert_false(world_is_live(w, 2));
        assert_null(world_hold(w, 3));
}

static void test_declared_tpm(void **state) {
        World *w = *state;

        fake_virt_disconnect(&w->virt);
        world_define(w, 3, &(Wires) { .tpm = "t1" });
        hook_expect(w, 3, "prepare", VERDICT_BAD_STATE, "t1|g3|not attached");
        hook_expect(w, 3, "release", 0, NULL);
        fake_virt_connect(&w->virt);
        world_settle(w);
        assert_string_equal(guest(w, 3).tpm, "t1");
        assert_true(world_run(w, 3, NULL));
        assert_int_equal(tpm(w, 1)->state, VTPM_RUNNING);
        world_end(w, 3);
        assert_int_equal(tpm(w, 1)->state, VTPM_DEFINED);
}

/* ---- TPMs ---- */

static void test_tpm(void **state) {
        World *w = *state;
        Noted noted;

        world_do(w, "attach-tpm", 3, 1, &noted);
        assert_reply(&noted.reply, 0, NULL, __FILE__, __LINE__);
        assert_string_equal(guest(w, 3).tpm, "t1");
        assert_int_equal(guest(w, 3).tpm_model, TPM_MODEL_VIRTIO);
        assert_string_equal(tpm(w, 1)->guest, "g3");
        world_expect(w, "attach-tpm", 3, 1, 0, NULL);
        world_expect(w, "attach-tpm", 3, 2, VERDICT_EXISTS, "g3");
        world_expect(w, "attach-tpm", 1, 1, VERDICT_IN_USE, "t1|g3");
        world_expect(w, "attach-tpm", 1, 7, VERDICT_NO_SUCH_TPM, "there is no TPM");

        assert_true(world_run(w, 3, NULL));
        assert_hold(w, 3, "tpm|virtio|started");
        assert_int_equal(tpm(w, 1)->starts, 1);
        assert_int_equal(tpm(w, 1)->resets, 0);
        fake_virt_reboot(&w->virt, guest_n(3));
        world_settle(w);
        assert_int_equal(tpm(w, 1)->resets, 1);

        world_do(w, "detach-tpm", 3, 0, &noted);
        assert_reply(&noted.reply, 0, NULL, __FILE__, __LINE__);
        assert_non_null(strstr(noted.notes, "until it ends"));
        assert_null(tpm(w, 1)->guest);
        assert_int_equal(tpm(w, 1)->state, VTPM_RUNNING);
        world_do(w, "attach-tpm", 3, 1, &noted);
        assert_non_null(strstr(noted.notes, "takes effect at the next start of 'g3'"));
        world_end(w, 3);
        assert_int_equal(tpm(w, 1)->state, VTPM_DEFINED);
        world_expect(w, "detach-tpm", 3, 0, 0, NULL);
        world_expect(w, "detach-tpm", 3, 0, VERDICT_BAD_STATE, "has no TPM");
}

static void test_tpm_requests(void **state) {
        World *w = *state;
        Engine *e = w->env->engine;
        Refusal refusal = {};
        Reply reply = {};

        world_expect(w, "attach-tpm", 3, 1, 0, NULL);
        assert_int_equal(engine_undefine_tpm(e, tpm_n(1), true, &root_caller, on_reply, &reply, &refusal),
                         VERDICT_IN_USE);
        assert_non_null(strstr(refusal.text, "g3"));
        refusal_clear(&refusal);
        assert_true(world_run(w, 3, NULL));
        assert_int_equal(engine_stop_tpm(e, tpm_n(1), &root_caller, on_reply, &reply, &refusal),
                         VERDICT_IN_USE);
        refusal_clear(&refusal);

        assert_int_equal(engine_start_tpm(e, tpm_n(2), TPM_MODEL_NONE, &root_caller, on_reply, &reply,
                                          &refusal),
                         0);
        env_wait(w->env, &reply.done);
        assert_int_equal(reply.r, 0);
        assert_true(uuid_equal(reply.uuid, tpm_n(2)));
        assert_int_equal(tpm(w, 2)->model, TPM_MODEL_VIRTIO);
        reply = (Reply) {};
        w->vtpm.fail[FAKE_STOP] = VTPM_TIMEOUT;
        assert_int_equal(engine_stop_tpm(e, tpm_n(2), &root_caller, on_reply, &reply, &refusal), 0);
        env_wait(w->env, &reply.done);
        assert_reply(&reply, VERDICT_STUCK, "said the fake", __FILE__, __LINE__);
}

/* Each answer that a TPM can give at the start; the matrix of the same guest is stopped again. */
static void test_tpm_refusals(void **state) {
        static const VtpmVerdict verdicts[] = {
                VTPM_NO_SUCH, VTPM_BAD_STATE,   VTPM_IN_USE,     VTPM_LIMIT,
                VTPM_TOOL,    VTPM_UNAVAILABLE, VTPM_BAD_RECORD, VTPM_TIMEOUT
        };
        World *w = *state;

        world_define(w, 1, &(Wires) { .mdev = 1, .tpm_wired = 1 });
        for (size_t i = 0; i < ELEMENTS(verdicts); i++) {
                w->vtpm.fail[FAKE_START] = verdicts[i];
                hook_expect(w, 1, "prepare", (int) engine_verdict_of_vtpm(verdicts[i]), "said the fake");
                world_settle(w);
                assert_false(world_is_live(w, 1));
                assert_null(world_hold(w, 1));
                hook_expect(w, 1, "release", 0, NULL);
        }
        hook_expect(w, 1, "prepare", 0, NULL);
        for (size_t i = 0; i < ELEMENTS(verdicts); i++) {
                w->vtpm.fail[FAKE_SET_GUEST] = verdicts[i];
                world_expect(w, "attach-tpm", 3, 2, (int) engine_verdict_of_vtpm(verdicts[i]),
                             "said the fake");
                assert_null(tpm(w, 2)->guest);
        }
        for (VirtVerdict v = VIRT_DONE + 1; v < _VIRT_VERDICT_MAX; v++) {
                w->virt.fail_next = true;
                w->virt.verdict = v;
                Noted noted;
                world_do(w, "attach-tpm", 3, 2, &noted);
                assert_true(noted.reply.r > 0);
                assert_null(tpm(w, 2)->guest);
        }
        world_expect(w, "attach-tpm", 3, 2, 0, NULL);
}

/* What somebody started by hand is new for the guest, and goes on after it; what cannot serve it is started anew. */
static void test_tpm_found(void **state) {
        World *w = *state;

        world_define(w, 3, &(Wires) { .tpm_wired = 1 });
        tpm(w, 1)->state = VTPM_RUNNING;
        tpm(w, 1)->model = TPM_MODEL_VIRTIO;
        assert_true(world_run(w, 3, NULL));
        assert_int_equal(tpm(w, 1)->resets, 1);
        world_end(w, 3);
        assert_int_equal(tpm(w, 1)->state, VTPM_RUNNING);
        tpm(w, 1)->model = TPM_MODEL_CRB;
        assert_true(world_run(w, 3, NULL));
        assert_int_equal(tpm(w, 1)->stops, 1);
        assert_int_equal(tpm(w, 1)->model, TPM_MODEL_VIRTIO);
        world_end(w, 3);
        assert_int_equal(tpm(w, 1)->state, VTPM_DEFINED);
}

static void test_reset(void **state) {
        World *w = *state;

        world_define(w, 3, &(Wires) { .tpm_wired = 1 });
        assert_true(world_run(w, 3, NULL));
        w->vtpm.fail[FAKE_RESET] = VTPM_TIMEOUT;
        fake_virt_reboot(&w->virt, guest_n(3));
        assert_true(world_guest_has_problem(w, 3, "was reset, but its TPM could not be: said the fake"));
        fake_virt_reboot(&w->virt, guest_n(3));
        assert_false(world_guest_has_problem(w, 3, "reset"));

        fake_virt_disconnect(&w->virt);
        fake_virt_connect(&w->virt);
        assert_true(
                world_guest_has_problem(w, 3, "if its machine was reset while libvirt could not be heard"));
        world_end(w, 3);
        assert_true(world_run(w, 3, NULL));
        assert_false(world_guest_has_problem(w, 3, "reset"));
        world_crash(w);
        world_start(w);
        assert_true(world_guest_has_problem(w, 3, "if its machine was reset"));
        fake_vtpm_fail(&w->vtpm, tpm_n(1));
        assert_true(world_guest_has_problem(w, 3, "its TPM 't1' is failed"));
        world_end(w, 3);

        world_define(w, 3, &(Wires) { .tpm_wired = 1, .model = TPM_MODEL_CRB });
        tpm(w, 1)->state = VTPM_DEFINED;
        tpm(w, 1)->resets = 0;
        assert_true(world_run(w, 3, NULL));
        fake_virt_reboot(&w->virt, guest_n(3)); /* QEMU does that itself */
        world_settle(w);
        assert_int_equal(tpm(w, 1)->resets, 0);
}

static void test_migration_guard(void **state) {
        World *w = *state;

        world_define(w, 3, &(Wires) { .tpm_wired = 1 });
        hook_expect(w, 3, "restore", VERDICT_UNSUPPORTED, "g3|virtio TPM|managedsave-remove");
        hook_expect(w, 3, "migrate", VERDICT_UNSUPPORTED, "g3|virtio TPM|shut it down");
        world_define(w, 3, &(Wires) { .tpm_wired = 1, .model = TPM_MODEL_CRB });
        hook_expect(w, 3, "restore", 0, NULL);
        hook_expect(w, 1, "migrate", 0, NULL);
}

/* ---- when somebody dies ---- */

/* It is killed, and the hook is not told. */
static void test_ended_unheard(void **state) {
        World *w = *state;

        assert_true(world_run(w, 1, NULL));
        world_kill(w, 1);
        world_settle(w);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));

        /* also while there was no daemon */
        assert_true(world_run(w, 1, NULL));
        world_crash(w);
        world_kill(w, 1);
        world_start(w);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));

        /* and that is the first that the next one hears */
        assert_true(world_run(w, 1, NULL));
        env_rest(w->env);
        world_crash(w);
        world_kill(w, 1);
        env_ctl(w->env, "fault read bus/ap/apmask EIO");
        world_start(w); /* and cannot see what is there */
        assert_hold(w, 1, "started");
        env_ctl(w->env, "clear");
        env_rescan(w->env);
        world_settle(w);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));

        /* also while libvirt could not be heard */
        assert_true(world_run(w, 1, NULL));
        fake_virt_disconnect(&w->virt);
        world_kill(w, 1);
        world_settle(w);
        assert_true(world_is_live(w, 1));
        fake_virt_connect(&w->virt);
        world_settle(w);
        assert_false(world_is_live(w, 1));
}

/* "Shut off", says libvirt of what it is about to start, or said it before. */
static void test_stale_event(void **state) {
        World *w = *state;
        Reply reply;

        hook_expect(w, 1, "prepare", 0, NULL);
        fake_virt_tell(&w->virt, guest_n(1));
        world_settle(w);
        assert_true(world_is_live(w, 1));
        fake_virt_run(&w->virt, guest_n(1), true);
        hook_expect(w, 1, "started", 0, NULL);
        world_settle(w);

        /* it has ended and is started again, while libvirt is being asked about the first end */
        w->virt.held = true;
        fake_virt_run(&w->virt, guest_n(1), false);
        world_settle(w);
        assert_int_equal(fake_virt_waiting(&w->virt), 1);
        world_hook_begin(w, 1, "release", &reply);
        env_wait(w->env, &reply.done);
        hook_expect(w, 1, "prepare", 0, NULL);
        w->virt.held = false;
        (void) fake_virt_answer(&w->virt);
        world_settle(w);
        assert_true(world_is_live(w, 1));
        assert_hold(w, 1, "prepared");
}

/* libvirt never came to start what was prepared. */
static void test_prepared_only(void **state) {
        World *w = *state;

        hook_expect(w, 1, "prepare", 0, NULL);
        fake_virt_tell(&w->virt, guest_n(1));
        while (world_is_live(w, 1))
                (void) env_turn(w->env, 1000000);
        assert_null(world_hold(w, 1));
}

static void test_hook_missing(void **state) {
        World *w = *state;

        env_do(w->env, "start", uuid_n(1), NULL);
        w->no_hook = true;
        assert_true(world_run(w, 1, NULL));
        assert_true(world_guest_has_problem(w, 1, "libvirt has not called our hook"));
        assert_hold(w, 1, "found|unseen");
        assert_false(world_run(w, 2, NULL));
        w->no_hook = false;
        hook_expect(w, 2, "prepare", VERDICT_IN_USE, "g1");
        hook_expect(w, 1, "reconnect", 0, NULL);
        assert_false(world_guest_has_problem(w, 1, "hook"));
        w->no_hook = true;
        world_end(w, 1);
        assert_null(world_hold(w, 1));
        assert_true(world_is_live(w, 1)); /* it was started before */

        assert_true(world_run(w, 1, NULL));
        world_crash(w);
        world_start(w);
        assert_true(world_guest_has_problem(w, 1, "libvirt has not called our hook"));
}

static void test_reconnect(void **state) {
        World *w = *state;

        assert_true(world_run(w, 1, NULL));
        hook_expect(w, 1, "reconnect", 0, NULL);
        assert_hold(w, 1, "started");
        world_stop(w);
        env_put_file(w->env, ENV_RUN "/guests/rubbish", "x");
        env_put_file(w->env, ENV_RUN "/guests/00000000-0000-4000-8000-000000000101",
                     "guestcrypt hold 1\nphase x\n");
        world_start(w);
        hook_expect(w, 1, "reconnect", 0, NULL);
        assert_hold(w, 1, "started");
        world_define(w, 1, NULL); /* undefined, and goes on */
        world_settle(w);
        assert_true(world_is_live(w, 1));
        assert_false(guest(w, 1).persistent);
        world_end(w, 1);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));
}

/* A crash after each turn: the guest was told or not, starts or not, and nothing is left at its end. */
static void test_crash(void **state) {
        World *w = *state;
        bool done = false;

        world_define(w, 1, &(Wires) { .mdev = 1, .tpm_wired = 1 });
        for (unsigned n = 0; !done; n++) {
                Reply prepare;

                world_hook_begin(w, 1, "prepare", &prepare);
                env_turns(w->env, n, &prepare.done);
                done = prepare.done;
                world_crash(w);
                world_start(w);
                if (done) { /* the guest has started */
                        fake_virt_run(&w->virt, guest_n(1), true);
                        hook_expect(w, 1, "started", 0, NULL);
                        assert_true(world_is_live(w, 1));
                        fake_virt_run(&w->virt, guest_n(1), false);
                }
                hook_expect(w, 1, "release", 0, NULL);
                world_settle(w);
                assert_false(world_is_live(w, 1));
                assert_int_equal(tpm(w, 1)->state, VTPM_DEFINED);
                assert_null(world_hold(w, 1));
        }
}

static void test_crash_release(void **state) {
        World *w = *state;
        bool done = false;

        world_define(w, 1, &(Wires) { .mdev = 1, .tpm_wired = 1 });
        for (unsigned n = 0; !done; n++) {
                Reply release;

                assert_true(world_run(w, 1, NULL));
                world_kill(w, 1);
                world_hook_begin(w, 1, "release", &release);
                env_turns(w->env, n, &release.done);
                done = release.done;
                world_crash(w);
                world_start(w); /* libvirt shows that it has ended */
                assert_false(world_is_live(w, 1));
                assert_int_equal(tpm(w, 1)->state, VTPM_DEFINED);
                assert_null(world_hold(w, 1));
        }
}

/* Nothing answers: the hook is, in time; and nothing stays. */
static void test_too_late(void **state) {
        World *w = *state;
        Reply prepare, release;

        world_define(w, 3, &(Wires) { .tpm_wired = 1, .mdev = 2 });
        w->vtpm.held = true;
        env_hurry = 20;
        (void) world_hook(w, 3, "prepare", &prepare);
        env_hurry = 1;
        assert_reply(&prepare, VERDICT_STUCK, "not ready in time|g3", __FILE__, __LINE__);
        (void) world_hook(w, 3, "release", &release);
        assert_int_equal(release.r, 0);
        w->vtpm.held = false;
        (void) fake_vtpm_answer(&w->vtpm);
        world_settle(w);
        assert_int_equal(tpm(w, 1)->state, VTPM_DEFINED);
        assert_false(world_is_live(w, 2));
        assert_null(world_hold(w, 3));
}

/* A daemon that is still looking at the host, or cannot, refuses those who want something of it only. */
static void test_not_settled(void **state) {
        World *w = *state;
        Reply reply;

        world_stop(w);
        env_ctl(w->env, "rmmod");
        env_launch(w->env);
        engine_set_virt(w->env->engine, &w->virt.virt);
        engine_set_vtpm(w->env->engine, &w->vtpm.vtpm);
        assert_int_equal(world_hook(w, 3, "prepare", &reply), 0);
        env_hurry = 20;
        (void) world_hook(w, 1, "prepare", &reply);
        env_hurry = 1;
        assert_reply(&reply, VERDICT_STUCK, "not finished|g1", __FILE__, __LINE__);
        assert_int_equal(world_hook(w, 1, "reconnect", &reply), 0);
        assert_int_equal(world_hook(w, 1, "release", &reply), 0);
        world_settle(w);
}

/* What guests hold cannot be written: they are not started, nothing is. */
static void test_unwritable(void **state) {
        World *w = *state;
        int fd = w->env->engine->guests->holds_fd;

        w->env->engine->guests->holds_fd = -1;
        hook_expect(w, 1, "prepare", VERDICT_BACKEND, "what guest 'g1' holds cannot be written");
        assert_false(world_is_live(w, 1));
        hook_expect(w, 3, "prepare", 0, NULL);
        w->env->engine->guests->holds_fd = fd;
        hook_expect(w, 1, "release", 0, NULL);
        hook_expect(w, 1, "prepare", 0, NULL);
        assert_true(world_is_live(w, 1));
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_matrix),
                TEST(test_nothing_of_ours),
                TEST(test_invalid),
                TEST(test_refusals),
                TEST(test_refused_start),
                TEST(test_loser),
                TEST(test_two_prepares),
                TEST(test_release_wins),
                TEST(test_found_started),
                TEST(test_prepare_during_stop),
                TEST(test_prepare_twice),
                TEST(test_stop_refused),
                TEST(test_declared_matrix),
                TEST(test_declared_tpm),
                TEST(test_tpm),
                TEST(test_tpm_requests),
                TEST(test_tpm_refusals),
                TEST(test_tpm_found),
                TEST(test_reset),
                TEST(test_migration_guard),
                TEST(test_ended_unheard),
                TEST(test_stale_event),
                TEST(test_prepared_only),
                TEST(test_hook_missing),
                TEST(test_reconnect),
                TEST(test_crash),
                TEST(test_crash_release),
                TEST(test_too_late),
                TEST(test_not_settled),
                TEST(test_unwritable),
        };

        return cmocka_run_group_tests_name("hooks", tests, NULL, NULL);
}
