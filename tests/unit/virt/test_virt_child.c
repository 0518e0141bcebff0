/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The loop's side against a child that does as it is told: answers, lies, hangs, dies. argv[1] is that child. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "virt/virt.h"

#define GUEST "2b8f0b52-7c3a-4f64-8d4e-0d5a9b1c3e11"
#define OTHER "2b8f0b52-7c3a-4f64-8d4e-0d5a9b1c3e12"
#define WIRING(uuid) \
        "{\"uuid\":\"" uuid \
        "\",\"name\":\"g\",\"arch\":\"s390x\",\"type\":\"kvm\",\"machine\":\"\",\"emulator\":\"\",\"wish\":\"\"," \
        "\"model\":\"\",\"mdevs\":[],\"others\":[],\"problems\":[]}"
#define SAY_GUEST(uuid) \
        "say {\"event\":\"guest\",\"uuid\":\"" uuid \
        "\",\"name\":\"g\",\"state\":1,\"persistent\":true,\"config\":" WIRING(uuid) "}\n"
#define UP     "say {\"event\":\"up\"}\n"
#define LISTED "say {\"event\":\"listed\"}\n"

static const char *program;

typedef struct World {
        char dir[32], path[64];
        sd_event *event;
        Virt *virt;
        unsigned ups, downs, guests, gone, listed, reboots, done;
        char why[200];
        VirtOutcome last;
        char text[300];
} World;

static void on_connection(void *userdata, bool up, const char *why) {
        World *w = userdata;

        w->ups += up;
        w->downs += !up;
        assert_true(up == !why);
        if (why)
                (void) snprintf(w->why, sizeof w->why, "%s", why);
}

static void on_guest(void *userdata, const VirtGuest *g) {
        ((World *) userdata)->guests++;
}

static void on_gone(void *userdata, Uuid id) {
        ((World *) userdata)->gone++;
}

static void on_listed(void *userdata) {
        ((World *) userdata)->listed++;
}

static void on_reboot(void *userdata, Uuid id) {
        ((World *) userdata)->reboots++;
}

static const VirtEvents events = { .connection = on_connection,
                                   .guest = on_guest,
                                   .gone = on_gone,
                                   .listed = on_listed,
                                   .reboot = on_reboot };

static void on_done(void *userdata, int r, const VirtOutcome *o) {
        World *w = userdata;

        assert_int_equal(r, 0);
        w->done++;
        w->last = *o;
        (void) snprintf(w->text, sizeof w->text, "%s", o->text ?: "");
}

static int setup(void **state) {
        World *w = calloc(1, sizeof *w);

        assert_non_null(w);
        (void) strcpy(w->dir, "/tmp/test-virt-XXXXXX");
        assert_non_null(mkdtemp(w->dir));
        (void) snprintf(w->path, sizeof w->path, "%s/child", w->dir);
        assert_true(sd_event_new(&w->event) >= 0);
        *state = w;
        return 0;
}

static int teardown(void **state) {
        World *w = *state;
        char command[80];

        w->virt = virt_free(w->virt);
        sd_event_unref(w->event);
        (void) snprintf(command, sizeof command, "rm -rf %s", w->dir);
        assert_int_equal(system(command), 0);
        free(w);
        return 0;
}

static void script(World *w, int n, const char *text) {
        char name[80];
        FILE *f;

        (void) snprintf(name, sizeof name, "%s.%d", w->path, n);
        f = fopen(name, "we");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static void start(World *w, uint64_t deadline_us) {
        const VirtConfig config = { .uri = w->path, .deadline_us = deadline_us };

        assert_int_equal(virt_child_new(w->event, &config, program, &events, w, &w->virt), 0);
        assert_false(w->virt->ops->is_up(w->virt));
        assert_int_equal(w->ups + w->downs, 0);
}

static void run_until(World *w, const unsigned *count, unsigned n) {
        while (*count < n)
                assert_true(sd_event_run(w->event, UINT64_C(120000000)) >
                            0); /* nothing for so long: it hangs */
}

static Uuid guest(void) {
        Uuid id;

        assert_int_equal(uuid_parse(GUEST, &id), 0);
        return id;
}

static int attach(World *w) {
        const VirtEdit edit = { .kind = VIRT_ATTACH_MATRIX, .mdev = { { 1 } }, .matrix = "m" };
        unsigned done = w->done;
        int r;

        r = w->virt->ops->edit(w->virt, guest(), &edit, NULL, true, on_done, w);
        assert_int_equal(w->done, done); /* never before the call has returned */
        return r;
}

static void answers(void **state) {
        World *w = *state;

        script(w, 1,
               UP SAY_GUEST(GUEST) LISTED
               "say {\"event\":\"reboot\",\"uuid\":\"" GUEST "\"}\n"
               "hear\nbegun\nanswer \"verdict\":0,\"config_changed\":true,\"next_start\":true,\"model\":\"crb\"\n"
               "hear\nanswer \"verdict\":5,\"text\":\"no\",\"model\":\"\"\n"
               "say {\"event\":\"gone\",\"uuid\":\"" GUEST "\"}\nhang\n");
        start(w, 0);
        run_until(w, &w->reboots, 1);
        assert_true(w->ups == 1 && w->guests == 1 && w->listed == 1 && w->virt->ops->is_up(w->virt));

        assert_int_equal(attach(w), 0);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 1);
        assert_true(w->last.verdict == VIRT_DONE && w->last.config_changed && w->last.next_start &&
                    !w->last.live_changed && !w->last.unknown && w->last.model == TPM_MODEL_CRB);
        run_until(w, &w->done, 2);
        assert_int_equal(w->last.verdict, VIRT_LIBVIRT);
        assert_string_equal(w->text, "no");
        run_until(w, &w->gone, 1);
        assert_int_equal(w->downs, 0);
}

static void nothing_is_there_yet(void **state) {
        World *w = *state;

        script(w, 1,
               "say {\"event\":\"down\",\"why\":\"no socket\"}\nsay {\"event\":\"down\",\"why\":\"no socket\"}\nhang\n");
        start(w, 0);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 1);
        assert_true(w->last.verdict == VIRT_UNAVAILABLE && !w->last.unknown && *w->text);
        run_until(w, &w->downs, 1);
        assert_int_equal(w->virt->ops->refresh(w->virt, guest(), on_done, w), 0);
        run_until(w, &w->done, 2);
        assert_non_null(strstr(w->text, "no socket"));
        assert_int_equal(w->downs, 1); /* the same is not told twice */
}

/* Whoever asks for a guest does not have to wait until a libvirt that has just come was noticed: a process is started for the
 * question, and one that has no connection is asked all the same. A change is not worth that, its guest is known to be lost. */
static void is_found_at_once(void **state) {
        World *w = *state;

        script(w, 1,
               "hear\n" UP SAY_GUEST(GUEST) LISTED "answer \"verdict\":0,\"model\":\"\"\n"
                                                   "say {\"event\":\"down\",\"why\":\"no socket\"}\n"
                                                   "hear\n" UP LISTED
                                                   "answer \"verdict\":1,\"model\":\"\"\nhang\n");
        start(w, 0);
        assert_int_equal(w->virt->ops->find(w->virt, "g", on_done, w), 0);
        run_until(w, &w->done, 1);
        assert_true(w->last.verdict == VIRT_DONE && w->ups == 1 && w->guests == 1);

        run_until(w, &w->downs, 1);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 2);
        assert_int_equal(w->last.verdict, VIRT_UNAVAILABLE);
        assert_int_equal(w->virt->ops->find(w->virt, "h", on_done, w), 0);
        run_until(w, &w->done, 3);
        assert_true(w->last.verdict == VIRT_NO_SUCH_GUEST && w->ups == 2);
}

static void dies_in_a_call(void **state) {
        World *w = *state;

        /* the first time before anything has begun, the second time after */
        script(w, 1, UP SAY_GUEST(GUEST) SAY_GUEST(OTHER) LISTED "hear\n");
        script(w, 2, UP SAY_GUEST(OTHER) LISTED "hear\nbegun\n");
        script(w, 3, UP SAY_GUEST(OTHER) LISTED "hang\n");
        start(w, 0);
        run_until(w, &w->listed, 1);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 1);
        assert_true(w->last.verdict == VIRT_UNAVAILABLE && !w->last.unknown);
        assert_int_equal(w->gone, 0);

        /* what is not there any more is gone once all have been told again */
        run_until(w, &w->listed, 2);
        assert_int_equal(w->gone, 1);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 2);
        assert_true(w->last.verdict == VIRT_UNAVAILABLE && w->last.unknown);
        run_until(w, &w->listed, 3);
        assert_true(w->gone == 1 && w->ups == 3 && w->downs == 2);
}

static void hangs_in_a_call(void **state) {
        World *w = *state;

        script(w, 1, UP LISTED "hear\nbegun\nhang\n");
        script(w, 2, UP LISTED "hear\nanswer \"verdict\":0,\"model\":\"\"\nhang\n");
        start(w, 5000000); /* of which an answer takes none, on any machine */
        run_until(w, &w->listed, 1);
        assert_int_equal(attach(w), 0);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 1);
        assert_true(w->last.verdict == VIRT_UNAVAILABLE && w->last.unknown);
        assert_non_null(strstr(w->why, "did not answer in 5 s"));
        run_until(w, &w->done, 2); /* it waited, and does not wait for another */
        assert_true(w->last.verdict == VIRT_UNAVAILABLE && !w->last.unknown);

        run_until(w, &w->listed, 2);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 3);
        assert_int_equal(w->last.verdict, VIRT_DONE);
}

static void makes_no_sense(void **state) {
        static const char *const nonsense[] = {
                "nonsense",
                "[]",
                "{}",
                "{\"event\":\"guest\"}",
                "{\"event\":\"guest\",\"uuid\":\"" GUEST "\",\"name\":\"g\",\"state\":99}",
                "{\"event\":\"guest\",\"uuid\":\"" GUEST
                "\",\"name\":\"g\",\"state\":1,\"persistent\":true}",
                "{\"event\":\"gone\",\"uuid\":1}",
                "{\"event\":\"done\",\"id\":7,\"verdict\":0,\"model\":\"\"}",
        };

        for (size_t i = 0; i < ELEMENTS(nonsense); i++) {
                CLEANUP(freep) char *text = NULL;
                World *w;

                assert_int_equal(setup((void **) &w), 0);
                assert_true(asprintf(&text, UP "say %s\nhang\n", nonsense[i]) > 0);
                script(w, 1, text);
                start(w, 0);
                run_until(w, &w->downs, 1);
                assert_string_equal(w->why, "guestcryptd-virt made no sense");
                assert_int_equal(teardown((void **) &w), 0);
        }
}

static void answers_what_it_was_not_asked(void **state) {
        World *w = *state;

        script(w, 1,
               UP LISTED "hear\nsay {\"event\":\"done\",\"id\":999,\"verdict\":0,\"model\":\"\"}\nhang\n");
        start(w, 0);
        run_until(w, &w->listed, 1);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 1);
        assert_int_equal(w->last.verdict, VIRT_UNAVAILABLE);
}

static void too_many_calls(void **state) {
        World *w = *state;
        unsigned n = 0;
        int r;

        script(w, 1, UP LISTED "hang\n");
        start(w, 0);
        run_until(w, &w->listed, 1);
        while ((r = attach(w)) >= 0)
                n++;
        assert_int_equal(r, -EBUSY);
        assert_true(n >= 64 && n < 1000);
        assert_int_equal(w->virt->ops->refresh(w->virt, guest(), on_done, w), -EBUSY);
        w->virt = virt_free(w->virt); /* none of them is called any more */
        assert_int_equal(w->done, 0);
}

static void no_program(void **state) {
        World *w = *state;
        const VirtConfig config = { .uri = "x" };

        if (getenv("MESON_EXE_WRAPPER"))
                skip(); /* in an emulator of processes exec() fails too late to be told from an early death */

        assert_int_equal(virt_child_new(w->event, &config, "/nonexistent", &events, w, &w->virt), 0);
        run_until(w, &w->downs, 1);
        assert_non_null(strstr(w->why, "/nonexistent cannot be started"));
}

static void no_libvirt(void **state) {
        World *w = *state;
        const VirtConfig config = { .uri = "" };

        assert_int_equal(virt_child_new(w->event, &config, program, &events, w, &w->virt), 0);
        assert_int_equal(attach(w), 0);
        run_until(w, &w->done, 1);
        assert_true(w->last.verdict == VIRT_UNAVAILABLE && strstr(w->text, "none is configured"));
        assert_int_equal(w->downs, 0);
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(answers, setup, teardown),
                cmocka_unit_test_setup_teardown(nothing_is_there_yet, setup, teardown),
                cmocka_unit_test_setup_teardown(is_found_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(dies_in_a_call, setup, teardown),
                cmocka_unit_test_setup_teardown(hangs_in_a_call, setup, teardown),
                cmocka_unit_test(makes_no_sense),
                cmocka_unit_test_setup_teardown(answers_what_it_was_not_asked, setup, teardown),
                cmocka_unit_test_setup_teardown(too_many_calls, setup, teardown),
                cmocka_unit_test_setup_teardown(no_program, setup, teardown),
                cmocka_unit_test_setup_teardown(no_libvirt, setup, teardown),
        };

        if (argc != 2)
                return EXIT_FAILURE;
        program = argv[1];
        return cmocka_run_group_tests(tests, NULL, NULL);
}
