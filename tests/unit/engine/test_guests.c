/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Guests as libvirt tells of them, what is wrong with what they name, and matrices into them and out of them: each step
 * fails, and each is the last before a crash. */

#include <errno.h>
#include <limits.h>

#include "engine/engine_guest_internal.h"
#include "guest_world.h"

#define FOREIGN "f0000000-0000-4000-8000-00000000000f"

static int setup(void **state) {
        World *w = world_new();

        world_matrix(w, 1);
        world_matrix(w, 2);
        world_define(w, 1, &(Wires) {});
        world_define(w, 2, &(Wires) {});
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

static void assert_no_guest_problems(World *w, unsigned n) {
        CLEANUP(freep) char *text = world_guest_problems(w, n);

        assert_string_equal(text, "");
}

/* ---- what libvirt tells ---- */

static void test_told(void **state) {
        World *w = *state;
        CLEANUP(freep) Uuid *list = NULL;
        unsigned before;
        Uuid found;
        size_t n;

        assert_string_equal(engine_libvirt(w->env->engine), "connected");
        assert_int_equal(engine_list_guests(w->env->engine, &list, &n), 0);
        assert_int_equal(n, 2);
        assert_true(uuid_equal(list[0], guest_n(1)) && uuid_equal(list[1], guest_n(2)));
        assert_string_equal(guest(w, 1).name, "g1");
        assert_string_equal(guest(w, 1).state, "shutoff");
        assert_true(guest(w, 1).persistent && !guest(w, 1).active);
        assert_int_equal(engine_find_guest(w->env->engine, "g2", &found), 0);
        assert_true(uuid_equal(found, guest_n(2)));
        assert_int_equal(engine_find_guest(w->env->engine, "g3", &found), -ENOENT);

        before = w->env->n_events;
        fake_virt_tell(&w->virt, guest_n(1)); /* nothing new */
        world_settle(w);
        assert_int_equal(w->env->n_events, before);
        fake_virt_run(&w->virt, guest_n(1), true);
        assert_string_equal(guest(w, 1).state, "running");
        assert_true(w->env->n_events > before);

        fake_virt_rename(&w->virt, guest_n(2), "other");
        assert_string_equal(guest(w, 2).name, "other");
        world_define(w, 2, NULL);
        world_settle(w);
        assert_int_equal(engine_find_guest(w->env->engine, "other", &found), -ENOENT);
}

static void test_connection(void **state) {
        World *w = *state;
        Noted noted;

        assert_false(env_has_general_problem(w->env, "libvirt"));
        fake_virt_disconnect(&w->virt);
        assert_string_equal(engine_libvirt(w->env->engine), "disconnected");
        assert_true(env_has_general_problem(w->env, "libvirt cannot be reached: the fake has gone"));
        assert_string_equal(guest(w, 1).name, "g1"); /* as last known */
        world_do(w, "attach-matrix", 1, 1, &noted);
        assert_reply(&noted.reply, VERDICT_BACKEND, "libvirt cannot be reached", __FILE__, __LINE__);
        fake_virt_connect(&w->virt);
        assert_false(env_has_general_problem(w->env, "libvirt"));
}

/* A host that has no libvirt is not nagged, unless somebody wants something of it. */
static void test_without_libvirt(void **state) {
        World *w = *state;
        Noted noted;

        fake_virt_listen(&w->virt, NULL);
        world_stop(w);
        w->virt.up = false;
        world_start(w);
        assert_false(env_has_general_problem(w->env, "libvirt"));
        world_do(w, "attach-matrix", 1, 1, &noted);
        assert_int_equal(noted.reply.r, VERDICT_BACKEND);
        assert_true(env_has_general_problem(w->env, "libvirt"));

        engine_set_virt(w->env->engine, NULL);
        assert_string_equal(engine_libvirt(w->env->engine), "none");
        world_expect(w, "attach-matrix", 1, 1, VERDICT_BACKEND, "LibvirtURI");
        assert_false(env_has_general_problem(w->env, "libvirt"));
}

/* ---- what they name ---- */

static void test_two_name_one(void **state) {
        World *w = *state;

        world_define(w, 1, &(Wires) { .mdev = 1 });
        assert_no_guest_problems(w, 1);
        world_define(w, 2, &(Wires) { .mdev = 1 });
        assert_true(world_guest_has_problem(w, 2, "matrix 'm001' is also named by guest 'g1'"));
        assert_true(world_guest_has_problem(w, 1, "matrix 'm001' is also named by guest 'g2'"));
        assert_true(env_has_problem(w->env, uuid_n(1), "guests 'g1' and 'g2' name it"));
        world_define(w, 2, &(Wires) { .mdev = 2 });
        assert_no_guest_problems(w, 1);
        assert_no_guest_problems(w, 2);
        assert_false(env_has_problem(w->env, uuid_n(1), "guests"));
        world_define(w, 2, &(Wires) { .foreign = uuid_of(FOREIGN) });
        world_define(w, 1, &(Wires) { .foreign = uuid_of(FOREIGN) });
        assert_true(world_guest_has_problem(w, 1, FOREIGN));
        world_define(w, 2, NULL);
        assert_no_guest_problems(w, 1);
}

static void on_asked(void *userdata, int r) {
        int *result = userdata;

        *result = r;
}

/* Defined a moment ago, and not told of yet: libvirt is asked, but not waited for without end. */
static void test_asked_for(void **state) {
        World *w = *state;
        const VirtEvents *events = w->virt.events;
        int result = 1;
        Uuid uuid;

        w->virt.events = NULL;
        world_define(w, 3, &(Wires) {});
        w->virt.events = events;
        world_settle(w);
        assert_int_equal(engine_find_guest(w->env->engine, "g3", &uuid), -ENOENT);

        w->virt.held = true;
        env_hurry = 20;
        assert_int_equal(engine_ask_guest(w->env->engine, "g3", on_asked, &result), 0);
        env_hurry = 1;
        while (result == 1)
                (void) env_turn(w->env, 2000000);
        assert_int_equal(result, -ETIME);
        assert_int_equal(fake_virt_answer(&w->virt), 1); /* too late, and no harm */
        w->virt.held = false;
        assert_int_equal(engine_find_guest(w->env->engine, "g3", &uuid), 0);

        world_define(w, 3, NULL);
        result = 1;
        assert_int_equal(engine_ask_guest(w->env->engine, "g3", on_asked, &result), 0);
        while (result == 1)
                (void) env_turn(w->env, 2000000);
        assert_int_equal(result, 0);
        assert_int_equal(engine_find_guest(w->env->engine, "g3", &uuid), -ENOENT);

        fake_virt_disconnect(&w->virt);
        result = 1;
        assert_int_equal(engine_ask_guest(w->env->engine, "g3", on_asked, &result), 0);
        while (result == 1)
                (void) env_turn(w->env, 2000000);
        assert_int_equal(result, 0);
}

static void test_metadata_problems(void **state) {
        World *w = *state;
        ApMatrix m = matrix_of("4", "6", "");

        world_define(w, 1, &(Wires) { .matrix = "none" });
        assert_true(world_guest_has_problem(w, 1, "matrix 'none', which does not exist"));
        world_define(w, 1, &(Wires) { .matrix = "m001", .mdev = 2 });
        assert_true(world_guest_has_problem(w, 1, "metadata names matrix 'm001', but its device is 'm002'"));
        world_define(w, 1, &(Wires) { .tpm = "none" });
        assert_true(world_guest_has_problem(w, 1, "TPM 'none', which does not exist"));
        world_define(w, 1, &(Wires) { .tpm_wired = 7 });
        assert_true(world_guest_has_problem(w, 1, "does not exist"));
        world_define(w, 1, &(Wires) { .matrix = "m003" });
        assert_true(world_guest_has_problem(w, 1, "m003"));

        /* it comes, and is taken up */
        env_do(w->env, "define", uuid_n(3), &m);
        assert_no_guest_problems(w, 1);
        assert_string_equal(guest(w, 1).matrix, "m003");
        assert_string_equal(world_meant(w, 3), "g1");
}

static void test_meant_for_another(void **state) {
        World *w = *state;
        EngineDefine d = {
                .name = "meant", .uuid = uuid_n(3), .matrix = matrix_of("4", "6", ""), .guest = "g2"
        };
        Reply reply;

        env_define(w->env, &d, &reply);
        assert_int_equal(reply.r, 0);
        assert_true(env_has_problem(w->env, uuid_n(3), "guest 'g2', whose configuration does not name it"));
        world_define(w, 1, &(Wires) { .mdev = 3 });
        assert_true(world_guest_has_problem(w, 1, "'meant' is meant for guest 'g2'"));
        assert_true(env_has_problem(w->env, uuid_n(3), "but guest 'g1' names it"));
        world_define(w, 1, &(Wires) {});
        world_expect(w, "attach-matrix", 1, 3, VERDICT_IN_USE, "'meant'|'g2'");
        world_expect(w, "attach-matrix", 2, 3, 0, NULL);
        assert_false(env_has_problem(w->env, uuid_n(3), "meant"));
        world_define(w, 2, NULL);
        assert_true(env_has_problem(w->env, uuid_n(3), "guest 'g2', which libvirt does not have"));
}

static void test_lacks(void **state) {
        World *w = *state;

        fake_virt_find(&w->virt, guest_n(1))->g.lacks = strdup("apft, apqci");
        world_define(w, 1, &(Wires) { .mdev = 1 });
        assert_true(world_guest_has_problem(w, 1, "apft, apqci"));
        world_expect(w, "attach-matrix", 1, 1, VERDICT_UNSUPPORTED, "g1|apft, apqci");
        free(TAKE(fake_virt_find(&w->virt, guest_n(1))->g.config.type));
        fake_virt_tell(&w->virt, guest_n(1));
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
}

/* ---- attach and detach ---- */

static void test_attach(void **state) {
        World *w = *state;
        Noted noted;

        world_do(w, "attach-matrix", 1, 1, &noted);
        assert_reply(&noted.reply, 0, NULL, __FILE__, __LINE__);
        assert_string_equal(noted.notes, "");
        assert_string_equal(guest(w, 1).matrix, "m001");
        assert_string_equal(guest(w, 1).live_matrix, "");
        assert_string_equal(world_meant(w, 1), "g1");
        assert_false(world_is_live(w, 1)); /* it does not run */
        assert_no_guest_problems(w, 1);

        world_expect(w, "attach-matrix", 1, 1, 0, NULL); /* it is so already */
        world_expect(w, "attach-matrix", 1, 2, VERDICT_EXISTS, "g1|m001");
        world_expect(w, "attach-matrix", 2, 1, VERDICT_IN_USE, "m001|g1");
        world_expect(w, "attach-matrix", 2, 9, VERDICT_NO_SUCH_MATRIX, "there is no matrix");
        world_expect(w, "attach-matrix", 9, 1, VERDICT_NO_SUCH_GUEST, "libvirt has no guest");
        env_expect(w->env, "undefine", uuid_n(1), NULL, VERDICT_IN_USE, "g1|m001");

        world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        assert_string_equal(guest(w, 1).matrix, "");
        assert_string_equal(world_meant(w, 1), "");
        world_expect(w, "detach-matrix", 1, 0, VERDICT_BAD_STATE, "has no matrix");
        world_expect(w, "attach-matrix", 2, 1, 0, NULL);
}

static void test_attach_live(void **state) {
        World *w = *state;
        CLEANUP(freep) char *hold = NULL;
        Noted noted;

        assert_true(world_run(w, 1, NULL));
        world_do(w, "attach-matrix", 1, 1, &noted);
        assert_reply(&noted.reply, 0, NULL, __FILE__, __LINE__);
        assert_string_equal(noted.notes, "");
        assert_true(world_is_live(w, 1));
        assert_string_equal(guest(w, 1).live_matrix, "m001");
        hold = world_hold(w, 1);
        assert_non_null(hold);
        assert_non_null(strstr(hold, "started"));
        env_expect(w->env, "stop", uuid_n(1), NULL, VERDICT_IN_USE, "g1|m001");

        world_do(w, "detach-matrix-later", 1, 0, &noted);
        assert_reply(&noted.reply, 0, NULL, __FILE__, __LINE__);
        assert_non_null(strstr(noted.notes, "until it ends"));
        assert_true(world_is_live(w, 1));
        world_expect(w, "attach-matrix", 2, 1, VERDICT_IN_USE, "m001|g1");
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));

        world_do(w, "attach-matrix-later", 1, 1, &noted);
        assert_non_null(strstr(noted.notes, "takes effect at the next start of 'g1'"));
        assert_false(world_is_live(w, 1));
        world_end(w, 1);
        assert_true(world_run(w, 1, NULL));
        assert_true(world_is_live(w, 1));
        world_end(w, 1);
        assert_false(world_is_live(w, 1));
}

/* Who has just started or ended a guest asks sooner than libvirt tells. */
static void test_attach_untold(void **state) {
        World *w = *state;
        Noted noted;

        w->virt.silent = true;
        assert_true(world_run(w, 1, NULL));
        world_do(w, "attach-matrix", 1, 1, &noted);
        assert_reply(&noted.reply, 0, NULL, __FILE__, __LINE__);
        assert_string_equal(noted.notes, "");
        assert_true(world_is_live(w, 1));
        assert_string_equal(guest(w, 1).live_matrix, "m001");

        fake_virt_define(&w->virt, guest_n(2), "g2", NULL);
        world_expect(w, "attach-matrix", 2, 2, VERDICT_NO_SUCH_GUEST, "g2");
        assert_string_equal(world_meant(w, 2), "");

        w->virt.fail_next = true;
        w->virt.verdict = VIRT_UNAVAILABLE;
        w->virt.unknown = true;
        w->virt.fail_looks = true;
        world_do(w, "detach-matrix", 1, 0, &noted);
        assert_reply(&noted.reply, VERDICT_BACKEND, "g1|said the fake", __FILE__, __LINE__);
        assert_null(strstr(noted.reply.text, "looked at"));
        assert_int_equal(w->virt.n_edits, 1);
        assert_true(world_is_live(w, 1));
        w->virt.silent = false;
}

/* libvirt goes while it is asked how the guest is, or is not even asked: nothing has begun. */
static void test_attach_unasked(void **state) {
        World *w = *state;
        Noted noted;

        w->virt.held = true;
        world_begin(w, "attach-matrix", 1, 1, &noted);
        for (unsigned i = 0; i < 1000 && fake_virt_waiting(&w->virt) == 0; i++)
                (void) env_turn(w->env, 10000);
        assert_int_equal(fake_virt_waiting(&w->virt), 1);
        fake_virt_disconnect(&w->virt);
        assert_false(noted.done);
        w->virt.held = false;
        (void) fake_virt_answer(&w->virt);
        env_wait(w->env, &noted.done);
        assert_reply(&noted.reply, VERDICT_BACKEND, "g1|cannot be asked how it is: no connection", __FILE__,
                     __LINE__);
        fake_virt_connect(&w->virt);
        world_settle(w);

        w->virt.full = true;
        world_expect(w, "attach-matrix", 1, 1, VERDICT_BACKEND, "too many changes of guests");
        w->virt.full = false;
        assert_int_equal(w->virt.n_edits, 0);
        assert_string_equal(world_meant(w, 1), "");
        assert_null(world_hold(w, 1));
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
}

/* While its hook runs, libvirt answers nothing about a guest: it is asked afterwards. */
static void test_attach_during_hook(void **state) {
        World *w = *state;
        EnvBusy *busy;
        Noted noted;
        Reply hook;

        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        busy = env_busy(w->env);
        world_hook_begin(w, 1, "prepare", &hook); /* waits for the disk */
        w->virt.held = true;
        world_begin(w, "detach-matrix", 1, 0, &noted);
        for (unsigned i = 0; i < 50; i++)
                (void) env_turn(w->env, 1000);
        assert_false(hook.done);
        assert_int_equal(fake_virt_waiting(&w->virt), 0);
        env_busy_end(busy);
        env_wait(w->env, &hook.done);
        assert_reply(&hook, 0, NULL, __FILE__, __LINE__);
        for (unsigned i = 0; i < 1000 && fake_virt_waiting(&w->virt) == 0; i++)
                (void) env_turn(w->env, 10000);
        assert_int_equal(fake_virt_waiting(&w->virt), 1);
        w->virt.held = false;
        (void) fake_virt_answer(&w->virt);
        env_wait(w->env, &noted.done);
        assert_reply(&noted.reply, 0, NULL, __FILE__, __LINE__);
}

/* virsh attach-device and detach-device: no hook is called, and nobody asks us. */
static void test_by_hand(void **state) {
        World *w = *state;
        Uuid m1 = uuid_n(1);

        assert_true(world_run(w, 1, NULL));
        assert_true(world_run(w, 2, NULL));
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);

        /* out of what runs only: it may come back, and has it at its next start */
        fake_virt_plug(&w->virt, guest_n(1), NULL, false);
        assert_string_equal(guest(w, 1).live_matrix, "");
        assert_string_equal(guest(w, 1).matrix, "m001");
        assert_true(world_is_live(w, 1));
        env_expect(w->env, "stop", m1, NULL, VERDICT_IN_USE, "g1|is configured with|m001");
        world_expect(w, "attach-matrix", 2, 1, VERDICT_IN_USE, "m001|g1|detach it there");
        fake_virt_plug(&w->virt, guest_n(1), &m1, false);
        assert_string_equal(guest(w, 1).live_matrix, "m001");
        assert_no_guest_problems(w, 1);
        env_expect(w->env, "stop", m1, NULL, VERDICT_IN_USE, "g1|is running with|m001");

        /* out of both: what was started for it is stopped */
        fake_virt_plug(&w->virt, guest_n(1), NULL, true);
        assert_string_equal(guest(w, 1).matrix, "");
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));
        assert_no_guest_problems(w, 1);
        assert_true(env_has_problem(w->env, m1, "attach it, or detach it"));

        /* what somebody else had started is not; nor is it one that our hook should have been called for */
        env_do(w->env, "start", m1, NULL);
        fake_virt_plug(&w->virt, guest_n(1), &m1, false);
        assert_string_equal(guest(w, 1).live_matrix, "m001");
        assert_no_guest_problems(w, 1);
        env_expect(w->env, "stop", m1, NULL, VERDICT_IN_USE, "g1|is running with|m001");
        fake_virt_plug(&w->virt, guest_n(1), NULL, false);
        world_settle(w);
        assert_true(world_is_live(w, 1));
        assert_null(world_hold(w, 1));

        /* meant for another: that is said, and nobody else gets it */
        fake_virt_plug(&w->virt, guest_n(2), &m1, false);
        assert_true(world_guest_has_problem(w, 2, "meant for guest 'g1'"));
        world_expect(w, "attach-matrix", 1, 1, VERDICT_IN_USE, "m001|g2");
        world_end(w, 2);
        assert_true(world_is_live(w, 1));
        world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        env_do(w->env, "stop", m1, NULL);
}

/* From one guest to another by hand, with nobody looking: who has it stops it at its end. */
static void test_by_hand_over(void **state) {
        World *w = *state;
        Uuid m1 = uuid_n(1);

        for (int away = 0; away < 2; away++) {
                assert_true(world_run(w, 1, NULL));
                assert_true(world_run(w, 2, NULL));
                world_expect(w, "attach-matrix", 1, 1, 0, NULL);
                if (away)
                        world_crash(w);
                w->virt.silent = true;
                fake_virt_plug(&w->virt, guest_n(1), NULL, true);
                fake_virt_plug(&w->virt, guest_n(2), &m1, false);
                w->virt.silent = false;
                if (away)
                        world_start(w);
                else {
                        fake_virt_tell(&w->virt, guest_n(2));
                        fake_virt_tell(&w->virt, guest_n(1));
                }
                world_settle(w);
                assert_true(world_is_live(w, 1));
                assert_null(world_hold(w, 1));
                world_end(w, 1);
                assert_true(world_is_live(w, 1));
                world_end(w, 2);
                assert_false(world_is_live(w, 1));
                world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        }
}

/* Taken out while nobody looked: what the host has is seen before anything is given up. */
static void test_by_hand_away(void **state) {
        World *w = *state;

        assert_true(world_run(w, 1, NULL));
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        world_crash(w);
        w->virt.silent = true;
        fake_virt_plug(&w->virt, guest_n(1), NULL, true);
        w->virt.silent = false;
        world_start(w);
        world_settle(w);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));
}

/* It cannot be stopped at once after it was taken out: said, and tried again. */
static void test_by_hand_stuck(void **state) {
        World *w = *state;

        assert_true(world_run(w, 1, NULL));
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        env_ctl(w->env, "fault write remove EIO");
        fake_virt_plug(&w->virt, guest_n(1), NULL, true);
        world_settle(w);
        assert_true(world_guest_has_problem(w, 1, "is stopped as soon as that can be"));
        assert_true(world_is_live(w, 1));
        env_ctl(w->env, "clear");
        guests_again(w->env->engine);
        while (world_is_live(w, 1))
                (void) env_turn(w->env, 1000000);
        world_settle(w);
        assert_no_guest_problems(w, 1);
        assert_null(world_hold(w, 1));
}

/* What was started by somebody else goes on. */
static void test_found_started(void **state) {
        World *w = *state;

        env_do(w->env, "start", uuid_n(1), NULL);
        assert_true(world_run(w, 1, NULL));
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        assert_true(world_is_live(w, 1));
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        world_end(w, 1);
        assert_true(world_is_live(w, 1));
        env_do(w->env, "stop", uuid_n(1), NULL);
}

/* Each answer that libvirt can give; nothing remains of what was begun. */
static void test_refusals_of_libvirt(void **state) {
        static const struct {
                VirtVerdict verdict;
                Verdict expected;
        } cases[] = {
                { VIRT_NO_SUCH_GUEST, VERDICT_NO_SUCH_GUEST },
                { VIRT_REFUSED, VERDICT_EXISTS },
                { VIRT_UNSUPPORTED, VERDICT_UNSUPPORTED },
                { VIRT_CHANGED, VERDICT_BAD_STATE },
                { VIRT_LIBVIRT, VERDICT_LIBVIRT },
                { VIRT_UNAVAILABLE, VERDICT_BACKEND },
        };
        World *w = *state;

        for (int running = 0; running < 2; running++) {
                if (running)
                        assert_true(world_run(w, 1, NULL));
                for (size_t i = 0; i < ELEMENTS(cases); i++) {
                        w->virt.fail_next = true;
                        w->virt.verdict = cases[i].verdict;
                        world_expect(w, "attach-matrix", 1, 1, cases[i].expected, "g1|said the fake");
                        assert_string_equal(world_meant(w, 1), "");
                        assert_false(world_is_live(w, 1));
                        assert_null(world_hold(w, 1));
                        assert_no_guest_problems(w, 1);
                }
                world_expect(w, "attach-matrix", 1, 1, 0, NULL);
                for (size_t i = 0; i < ELEMENTS(cases); i++) {
                        w->virt.fail_next = true;
                        w->virt.verdict = cases[i].verdict;
                        world_expect(w, "detach-matrix", 1, 0, cases[i].expected, "g1|said the fake");
                        assert_string_equal(world_meant(w, 1), "g1");
                        assert_int_equal(world_is_live(w, 1), running);
                }
                world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        }
}

/* Until libvirt is asked for the change itself: what comes before it is done, and it is not. */
static void until_edit(World *w) {
        w->virt.held = true;
        while (!fake_virt_waits_for_edit(&w->virt)) {
                (void) fake_virt_answer(&w->virt);
                (void) env_turn(w->env, 1000);
        }
        w->virt.held = false;
}

/* libvirt goes in the middle of it: what it has done decides when it is back. */
static void test_unknown(void **state) {
        World *w = *state;

        for (int done = 0; done < 2; done++)
                for (int running = 0; running < 2; running++) {
                        if (running)
                                assert_true(world_run(w, 1, NULL));
                        w->virt.fail_next = w->virt.unknown = true;
                        w->virt.unknown_done = done;
                        w->virt.verdict = VIRT_UNAVAILABLE;
                        w->virt.silent = true;
                        fake_virt_disconnect(&w->virt);
                        w->virt.up = true; /* for the call's own sake */
                        fake_virt_connect(&w->virt);
                        Noted noted;
                        world_begin(w, "attach-matrix", 1, 1, &noted);
                        until_edit(w);
                        (void) fake_virt_answer(&w->virt);
                        fake_virt_disconnect(&w->virt);
                        w->virt.silent = false;
                        world_settle(w);
                        assert_true(noted.done);
                        assert_reply(&noted.reply, VERDICT_BACKEND, "looked at", __FILE__, __LINE__);
                        assert_string_equal(world_meant(w, 1), "g1");
                        fake_virt_connect(&w->virt);
                        world_settle(w);
                        assert_string_equal(world_meant(w, 1), done ? "g1" : "");
                        assert_int_equal(world_is_live(w, 1), done && running);
                        assert_no_guest_problems(w, 1);
                        if (done)
                                world_expect(w, "detach-matrix", 1, 0, 0, NULL);
                        w->virt.unknown = false;
                        world_end(w, 1);
                        assert_false(world_is_live(w, 1));
                }
}

/* The matrix cannot be started, or nothing can be written: as before. */
static void test_refused_start(void **state) {
        World *w = *state;

        assert_true(world_run(w, 1, NULL));
        env_ctl(w->env, "fault write ap_config EIO");
        world_expect(w, "attach-matrix", 1, 1, VERDICT_KERNEL, "m001");
        env_ctl(w->env, "clear");
        assert_string_equal(world_meant(w, 1), "");
        assert_null(world_hold(w, 1));
        assert_int_equal(w->virt.n_edits, 0);
        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
}

#define UNTIL_EDIT UINT_MAX

/* Then, or after so many turns; whether it was over. */
static bool crash_after(World *w, unsigned turns, const Noted *noted) {
        bool done;

        if (turns == UNTIL_EDIT)
                until_edit(w);
        else
                env_turns(w->env, turns, &noted->done);
        done = noted->done;
        world_crash(w);
        return done;
}

/* A crash after each turn of the loop: the next daemon shows the old, or the new, or says what is between. Whether a turn ends
 * between depends on the machine, so that one crash goes there. */
static bool crash_attach(World *w, unsigned turns) {
        Noted noted;
        bool ended;

        world_begin(w, "attach-matrix", 1, 1, &noted);
        ended = crash_after(w, turns, &noted);
        world_start(w);
        if (turns == UNTIL_EDIT) {
                assert_false(guest(w, 1).matrix[0]);
                assert_string_equal(world_meant(w, 1), "g1");
        }
        if (guest(w, 1).matrix[0]) {
                assert_string_equal(guest(w, 1).matrix, "m001");
                assert_string_equal(world_meant(w, 1), "g1");
                assert_false(env_has_problem(w->env, uuid_n(1), "meant"));
        } else if (world_meant(w, 1)[0])
                assert_true(env_has_problem(w->env, uuid_n(1), "attach it, or detach it"));
        if (guest(w, 1).matrix[0] || world_meant(w, 1)[0])
                world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        assert_string_equal(world_meant(w, 1), "");
        return ended;
}

static void test_crash_attach(void **state) {
        assert_false(crash_attach(*state, UNTIL_EDIT));
        for (unsigned n = 0; !crash_attach(*state, n);)
                n++;
}

static bool crash_attach_live(World *w, unsigned turns, bool ends) {
        Noted noted;
        bool ended;

        assert_true(world_run(w, 1, NULL));
        world_begin(w, "attach-matrix", 1, 1, &noted);
        ended = crash_after(w, turns, &noted);
        if (turns == UNTIL_EDIT) {
                assert_true(world_is_live(w, 1));
                assert_int_equal(fake_virt_find(&w->virt, guest_n(1))->g.live.n_mdevs, 0);
        }
        world_start(w);
        /* what was started for a guest that did not get it, nor will, is stopped */
        assert_int_equal(guest(w, 1).live_matrix[0] != 0, world_is_live(w, 1));
        if (ends) /* whoever ends it: what was started for it does not stay */
                world_end(w, 1);
        if (world_meant(w, 1)[0])
                world_expect(w, "detach-matrix", 1, 0, 0, NULL);
        world_end(w, 1);
        assert_false(world_is_live(w, 1));
        assert_null(world_hold(w, 1));
        return ended;
}

static void test_crash_attach_live(void **state) {
        assert_false(crash_attach_live(*state, UNTIL_EDIT, true));
        assert_false(crash_attach_live(*state, UNTIL_EDIT, false));
        for (unsigned n = 0; !crash_attach_live(*state, n, n % 2 == 0);)
                n++;
}

static void test_crash_detach_live(void **state) {
        World *w = *state;
        bool ended = false;

        for (unsigned n = 0; !ended; n++) {
                Noted noted;

                assert_true(world_run(w, 1, NULL));
                world_expect(w, "attach-matrix", 1, 1, 0, NULL);
                world_begin(w, "detach-matrix", 1, 1, &noted);
                ended = crash_after(w, n, &noted);
                world_start(w);
                if (world_meant(w, 1)[0])
                        world_expect(w, "detach-matrix", 1, 0, 0, NULL);
                world_end(w, 1);
                assert_false(world_is_live(w, 1));
                assert_null(world_hold(w, 1));
        }
}

/* Two at once: of one guest, for one matrix. */
static void test_races(void **state) {
        World *w = *state;
        Noted a, b;

        world_begin(w, "attach-matrix", 1, 1, &a);
        world_begin(w, "attach-matrix", 1, 2, &b);
        assert_reply(&b.reply, VERDICT_BAD_STATE, "g1", __FILE__, __LINE__);
        world_begin(w, "attach-matrix", 2, 1, &b);
        env_wait(w->env, &a.done);
        env_wait(w->env, &b.done);
        world_settle(w);
        assert_int_equal((a.reply.r == 0) + (b.reply.r == 0), 1);
        assert_int_equal(guest(w, 1).matrix[0] != 0, a.reply.r == 0);
        assert_int_equal(guest(w, 2).matrix[0] != 0, b.reply.r == 0);
        assert_no_guest_problems(w, 1);
        assert_no_guest_problems(w, 2);
}

/* The same of guests that are not kept, so that it is meant for neither. */
static void test_races_of_transients(void **state) {
        World *w = *state;
        Noted a, b;

        for (unsigned n = 1; n <= 2; n++) {
                assert_true(world_run(w, n, NULL));
                world_define(w, n, NULL);
        }
        world_settle(w);
        world_begin(w, "attach-matrix", 1, 1, &a);
        world_begin(w, "attach-matrix", 2, 1, &b);
        env_wait(w->env, &a.done);
        env_wait(w->env, &b.done);
        world_settle(w);
        assert_int_equal((a.reply.r == 0) + (b.reply.r == VERDICT_IN_USE), 2);
        assert_string_equal(world_meant(w, 1), "");
        assert_string_equal(guest(w, 1).live_matrix, "m001");
        assert_null(world_hold(w, 2));
        world_end(w, 1);
        assert_false(world_is_live(w, 1));
        world_expect(w, "attach-matrix", 2, 1, 0, NULL);
}

static void test_undefine_during_attach(void **state) {
        World *w = *state;
        Noted noted;

        world_begin(w, "attach-matrix", 1, 1, &noted);
        until_edit(w);
        w->virt.held = true;
        world_define(w, 1, NULL);
        world_settle(w);
        assert_false(noted.done);
        w->virt.held = false;
        (void) fake_virt_answer(&w->virt);
        env_wait(w->env, &noted.done);
        world_settle(w);
        assert_int_equal(noted.reply.r, VERDICT_NO_SUCH_GUEST);
        assert_string_equal(world_meant(w, 1), "");
        env_do(w->env, "undefine", uuid_n(1), NULL);
}

static void test_renamed(void **state) {
        World *w = *state;

        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        fake_virt_rename(&w->virt, guest_n(1), "new-name");
        world_settle(w);
        assert_string_equal(world_meant(w, 1), "new-name");
        assert_no_guest_problems(w, 1);
}

/* What is meant for it and was never attached has only the name to go by. */
static void test_renamed_before_attach(void **state) {
        World *w = *state;
        EngineDefine d = {
                .name = "meant", .uuid = uuid_n(3), .matrix = matrix_of("4", "6", ""), .guest = "g1"
        };
        Reply reply;

        env_define(w->env, &d, &reply);
        assert_int_equal(reply.r, 0);
        fake_vtpm_add(&w->vtpm, tpm_n(1), "t1")->guest = strdup("g1");
        fake_vtpm_add(&w->vtpm, tpm_n(2), "t2")->guest = strdup("g2");
        fake_virt_rename(&w->virt, guest_n(1), "new-name");
        world_settle(w);
        assert_string_equal(world_meant(w, 3), "new-name");
        assert_string_equal(fake_vtpm_find(&w->vtpm, tpm_n(1))->guest, "new-name");
        assert_string_equal(fake_vtpm_find(&w->vtpm, tpm_n(2))->guest, "g2");

        /* once it is known whose it is, another guest of that name is not that guest */
        fake_virt_rename(&w->virt, guest_n(1), "newer-name");
        world_settle(w);
        fake_virt_rename(&w->virt, guest_n(2), "new-name");
        fake_virt_rename(&w->virt, guest_n(2), "g2");
        world_settle(w);
        assert_string_equal(world_meant(w, 3), "newer-name");
        world_expect(w, "attach-matrix", 1, 3, 0, NULL);
        world_expect(w, "attach-tpm", 1, 1, 0, NULL);
        assert_no_guest_problems(w, 1);
}

/* A guest is its UUID: what it has, it keeps under another name, also if it got that while nobody looked. */
static void test_renamed_meanwhile(void **state) {
        World *w = *state;

        world_expect(w, "attach-matrix", 1, 1, 0, NULL);
        world_expect(w, "attach-matrix", 2, 2, 0, NULL);
        (void) fake_vtpm_add(&w->vtpm, tpm_n(1), "t1");
        world_expect(w, "attach-tpm", 1, 1, 0, NULL);
        world_stop(w);
        fake_virt_rename(&w->virt, guest_n(1), "new-name");
        fake_virt_rename(&w->virt, guest_n(2), "g1"); /* and another one has its old one */
        world_start(w);
        world_settle(w);
        assert_string_equal(world_meant(w, 1), "new-name");
        assert_string_equal(world_meant(w, 2), "g1");
        assert_string_equal(fake_vtpm_find(&w->vtpm, tpm_n(1))->guest, "new-name");
        assert_no_guest_problems(w, 1);
        assert_no_guest_problems(w, 2);
}

/* ---- wishes in metadata ---- */

static void test_taken_up(void **state) {
        World *w = *state;
        unsigned edits;

        world_define(w, 1, &(Wires) { .matrix = "m001" });
        world_settle(w);
        assert_string_equal(guest(w, 1).matrix, "m001");
        assert_string_equal(world_meant(w, 1), "g1");
        assert_no_guest_problems(w, 1);

        world_define(w, 2, &(Wires) { .matrix = "m001" });
        assert_true(
                world_guest_has_problem(w, 2, "cannot be attached: matrix 'm001' is meant for guest 'g1'"));
        edits = w->virt.n_edits;
        fake_virt_tell(&w->virt, guest_n(2)); /* the same is tried once */
        world_settle(w);
        assert_int_equal(w->virt.n_edits, edits);
        world_define(w, 2, &(Wires) {});
        assert_no_guest_problems(w, 2);

        w->virt.fail_next = true;
        w->virt.verdict = VIRT_LIBVIRT;
        world_define(w, 2, &(Wires) { .matrix = "m002" });
        assert_true(world_guest_has_problem(w, 2, "cannot be attached: guest 'g2': said the fake"));
        world_define(w, 2, &(Wires) { .matrix = "m002" });
        world_settle(w);
        assert_int_equal(guest(w, 2).matrix[0], 0);
        assert_true(world_run(w, 2, NULL)); /* another reason to try */
        assert_string_equal(guest(w, 2).live_matrix, "m002");
        world_end(w, 2);
        assert_false(world_is_live(w, 2));
}

/* What fails since libvirt cannot be asked is tried again, without another reason; and not without a pause. */
static void test_taken_up_again(void **state) {
        World *w = *state;
        unsigned edits = w->virt.n_edits;

        w->virt.fail_next = true;
        w->virt.verdict = VIRT_UNAVAILABLE;
        world_define(w, 1, &(Wires) { .matrix = "m001" });
        assert_true(world_guest_has_problem(w, 1, "cannot be attached: guest 'g1': said the fake"));
        assert_int_equal(w->virt.n_edits, edits + 1);
        for (unsigned i = 0; i < 2000 && !guest(w, 1).matrix[0]; i++)
                (void) env_turn(w->env, 10000);
        assert_int_equal(w->virt.n_edits, edits + 2);
        world_settle(w);
        assert_string_equal(guest(w, 1).matrix, "m001");
        assert_no_guest_problems(w, 1);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_told),
                TEST(test_connection),
                TEST(test_without_libvirt),
                TEST(test_two_name_one),
                TEST(test_asked_for),
                TEST(test_metadata_problems),
                TEST(test_meant_for_another),
                TEST(test_lacks),
                TEST(test_attach),
                TEST(test_attach_live),
                TEST(test_attach_untold),
                TEST(test_attach_unasked),
                TEST(test_attach_during_hook),
                TEST(test_by_hand),
                TEST(test_by_hand_over),
                TEST(test_by_hand_away),
                TEST(test_by_hand_stuck),
                TEST(test_found_started),
                TEST(test_refusals_of_libvirt),
                TEST(test_unknown),
                TEST(test_refused_start),
                TEST(test_crash_attach),
                TEST(test_crash_attach_live),
                TEST(test_crash_detach_live),
                TEST(test_races),
                TEST(test_races_of_transients),
                TEST(test_undefine_during_attach),
                TEST(test_renamed),
                TEST(test_renamed_before_attach),
                TEST(test_renamed_meanwhile),
                TEST(test_taken_up),
                TEST(test_taken_up_again),
        };

        return cmocka_run_group_tests_name("guests", tests, NULL, NULL);
}
