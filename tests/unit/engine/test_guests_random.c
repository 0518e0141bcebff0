/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Guests are defined, started, refused, killed and undefined at random, with and without the hook being told, while matrices
 * and TPMs are attached and detached, libvirt comes and goes, calls fail and the daemon dies; nothing waits for anything.
 * Never is taken away what a guest runs with, two guests never run with one, and when all have ended nothing is left.
 * Argument: a seed, to repeat a failure. */

#include "engine/engine_guest_internal.h"
#include "guest_world.h"

#define RUNS     20
#define STEPS    250
#define GUESTS   4
#define MATRICES 3
#define TPMS     2

typedef enum Life { LIFE_OFF, LIFE_PREPARING, LIFE_ON, LIFE_RELEASING } Life;

typedef struct Play {
        World *w;
        uint64_t rng;
        Life life[GUESTS + 1];
        Reply hooks[GUESTS + 1], started[GUESTS + 1];
        bool started_called[GUESTS + 1];
        Noted wishes[GUESTS + 1];
        bool wishing[GUESTS + 1];
        Reply stops[8];
        bool stopping[8];
        unsigned n_ran, n_refused, n_crashes, n_removed, n_by_hand;
} Play;

static unsigned roll(Play *p, unsigned n) {
        p->rng ^= p->rng << 13;
        p->rng ^= p->rng >> 7;
        p->rng ^= p->rng << 17;
        return (unsigned) (p->rng >> 11) % n;
}

static Play *player; /* of before_write() */

/* What a running guest has is never taken away. */
static void before_write(Env *env, const char *path, const char *data) {
        size_t n = strlen(path);

        if (getenv("ENGINE_TEST_LOG"))
                print_message("write '%s' %s\n", path, data);

        if (n < 8 || strcmp(path + n - 7, "/remove") != 0)
                return;
        player->n_removed++;
        for (unsigned i = 1; i <= GUESTS; i++) {
                const FakeGuest *f = fake_virt_find(&player->w->virt, guest_n(i));
                char id[UUID_STRING_SIZE];

                if (f && f->g.active && f->g.live.n_mdevs > 0 &&
                    strstr(path, uuid_format(f->g.live.mdevs[0], id)))
                        fail_msg("mdev %s is removed while g%u runs with it", id, i);
        }
}

static void before_stop(void *userdata, Uuid uuid) {
        for (unsigned i = 1; i <= GUESTS; i++) {
                const FakeGuest *f = fake_virt_find(&player->w->virt, guest_n(i));
                Uuid tpm;

                if (f && f->g.active && guest_socket_tpm(f->g.live.tpm_socket, &tpm) >= 0 &&
                    uuid_equal(tpm, uuid))
                        fail_msg("a TPM is stopped while g%u runs with it", i);
        }
}

static void define(Play *p, unsigned n) {
        static const char *const matrices[] = { NULL, NULL, NULL, "m001", "m002", "m003", "none" };
        static const char *const tpms[] = { NULL, NULL, NULL, "t1", "t2", "none" };
        Wires wires = { .mdev = roll(p, 2) ? roll(p, MATRICES + 1) : 0,
                        .matrix = matrices[roll(p, ELEMENTS(matrices))],
                        .tpm = tpms[roll(p, ELEMENTS(tpms))],
                        .tpm_wired = roll(p, 3) ? 0 : 1 + roll(p, TPMS) };
        FakeGuest *f = fake_virt_find(&p->w->virt, guest_n(n));

        if (f && !roll(p, 6))
                world_define(p->w, n, NULL);
        else if (!f || !roll(p, 2))
                world_define(p->w, n, &wires);
}

static void let_go(Play *p, FakeGuest *f) {
        for (size_t i = 0; i < f->g.live.n_mdevs; i++)
                p->w->virt.plugged(p->w, f->g.live.mdevs[i], false);
        f->g.live.n_mdevs = 0;
}

static void kill_guest(Play *p, unsigned n, bool told) {
        FakeGuest *f = fake_virt_find(&p->w->virt, guest_n(n));

        if (!told || !f->g.active) {
                world_kill(p->w, n);
                p->life[n] = LIFE_OFF;
                return;
        }
        let_go(p, f); /* QEMU first, then the hook, then the event */
        free(TAKE(f->g.live.tpm_socket));
        f->g.live.tpm_model = TPM_MODEL_NONE;
        world_hook_begin(p->w, n, "release", &p->hooks[n]);
        p->life[n] = LIFE_RELEASING;
}

static void live(Play *p, unsigned n) {
        FakeGuest *f = fake_virt_find(&p->w->virt, guest_n(n));
        World *w = p->w;

        switch (p->life[n]) {
        case LIFE_OFF:
                if (!f || !f->g.persistent || (p->started_called[n] && !p->started[n].done))
                        return;
                if (!roll(p, 12)) { /* whoever calls it for no reason */
                        world_hook_begin(w, n, "release", &p->hooks[n]);
                        p->life[n] = LIFE_RELEASING;
                        return;
                }
                world_hook_begin(w, n, "prepare", &p->hooks[n]);
                p->life[n] = LIFE_PREPARING;
                return;
        case LIFE_PREPARING:
                if (!p->hooks[n].done && roll(p, 20)) /* else the hook has waited long enough */
                        return;
                if (p->hooks[n].done && p->hooks[n].r == 0 && f && f->g.persistent && !world_refuses(w, n)) {
                        world_qemu(w, n);
                        p->n_ran++;
                        p->life[n] = LIFE_ON;
                        p->started_called[n] = true;
                        world_hook_begin(w, n, "started", &p->started[n]);
                        return;
                }
                if (!p->hooks[n].done)
                        return;
                p->n_refused++;
                world_hook_begin(w, n, "release", &p->hooks[n]);
                p->life[n] = LIFE_RELEASING;
                return;
        case LIFE_ON:
                if (!p->started[n].done)
                        return;
                if (!roll(p, 4))
                        kill_guest(p, n, roll(p, 3));
                else if (!roll(p, 4))
                        fake_virt_reboot(&w->virt, guest_n(n));
                return;
        case LIFE_RELEASING:
                if (!p->hooks[n].done)
                        return;
                assert_int_equal(p->hooks[n].r, 0);
                if (f)
                        let_go(p, f); /* what was plugged in when it had just ended */
                fake_virt_run(&w->virt, guest_n(n), false);
                p->life[n] = LIFE_OFF;
        }
}

static void wish(Play *p, unsigned n) {
        static const char *const what[] = { "attach-matrix",       "attach-matrix-later", "detach-matrix",
                                            "detach-matrix-later", "attach-tpm",          "detach-tpm" };
        unsigned i = roll(p, ELEMENTS(what));

        if (p->wishing[n] && !p->wishes[n].done)
                return;
        p->wishing[n] = true;
        world_begin(p->w, what[i], n, 1 + roll(p, i == 4 ? TPMS : MATRICES), &p->wishes[n]);
}

/* Into and out of what runs, asking nobody but libvirt, which lets one guest have an mdev. */
static void by_hand(Play *p, unsigned n) {
        const FakeGuest *f = fake_virt_find(&p->w->virt, guest_n(n));
        unsigned m = 1 + roll(p, MATRICES);
        Uuid mdev = uuid_n(m);

        if (p->life[n] != LIFE_ON || !f || !f->g.active)
                return;
        if (f->g.live.n_mdevs > 0)
                return fake_virt_plug(&p->w->virt, guest_n(n), NULL, f->g.persistent && !roll(p, 2));
        for (unsigned i = 1; i <= GUESTS; i++) {
                const FakeGuest *other = fake_virt_find(&p->w->virt, guest_n(i));

                if (other && other->g.active && guest_wiring_has(&other->g.live, mdev))
                        return;
        }
        if (!world_is_live(p->w, m))
                return;
        p->n_by_hand++;
        fake_virt_plug(&p->w->virt, guest_n(n), &mdev, f->g.persistent && !roll(p, 2));
}

static void crash(Play *p) {
        p->n_crashes++;
        world_crash(p->w);
        for (unsigned n = 1; n <= GUESTS; n++) {
                bool unanswered = !p->hooks[n].done;

                p->wishing[n] = p->started_called[n] = false;
                p->started[n].done = true;
                if (p->life[n] == LIFE_PREPARING && unanswered)
                        p->life[n] = LIFE_OFF; /* the hook refuses; that release is lost, too */
                else if (p->life[n] == LIFE_RELEASING) {
                        FakeGuest *f = fake_virt_find(&p->w->virt, guest_n(n));

                        if (f)
                                let_go(p, f);
                        fake_virt_run(&p->w->virt, guest_n(n), false);
                        p->life[n] = LIFE_OFF;
                }
        }
        memset(p->stopping, 0, sizeof p->stopping);
        world_start(p->w);
}

static void step(Play *p) {
        unsigned n = 1 + roll(p, GUESTS), what = roll(p, 100);
        World *w = p->w;

        if (what < 45)
                live(p, n);
        else if (what < 60) {
                if (p->life[n] == LIFE_OFF || p->life[n] == LIFE_ON)
                        define(p, n);
        } else if (what < 78)
                wish(p, n);
        else if (what < 82)
                w->virt.up ? fake_virt_disconnect(&w->virt) : fake_virt_connect(&w->virt);
        else if (what < 86) {
                w->virt.fail_next = true;
                w->virt.verdict = 1 + roll(p, _VIRT_VERDICT_MAX - 1);
        } else if (what < 89)
                w->vtpm.fail[FAKE_START] = 1 + roll(p, _VTPM_VERDICT_MAX - 1);
        else if (what < 92 && (!p->stopping[n] || p->stops[n].done)) {
                p->stopping[n] = true;
                env_begin(w->env, "stop", uuid_n(1 + roll(p, MATRICES)), NULL, &p->stops[n]);
        } else if (what < 93)
                crash(p);
        else if (what < 97)
                by_hand(p, n);
        for (unsigned i = roll(p, 8); i > 0; i--)
                (void) env_turn(w->env, roll(p, 2) ? 1000 : 0);
}

static void assert_no_two(Play *p) {
        for (unsigned i = 1; i <= GUESTS; i++)
                for (unsigned k = 1; k < i; k++) {
                        const Guest *a = guest_find(p->w->env->engine, guest_n(i)),
                                    *b = guest_find(p->w->env->engine, guest_n(k));

                        if (a && b && !uuid_is_null(a->hold.matrix) && a->hold.phase != HOLD_RELEASING &&
                            b->hold.phase != HOLD_RELEASING && uuid_equal(a->hold.matrix, b->hold.matrix))
                                fail_msg("g%u and g%u hold one matrix", i, k);
                }
}

/* All guests end; then nothing is left. */
static void end(Play *p) {
        World *w = p->w;
        bool left = true;

        if (!w->virt.up)
                fake_virt_connect(&w->virt);
        w->virt.fail_next = false;
        memset(w->vtpm.fail, 0, sizeof w->vtpm.fail);
        world_settle(w);
        for (unsigned n = 1; n <= GUESTS; n++)
                world_kill(w, n);
        for (unsigned turns = 0; left && turns < 2000; turns++) {
                (void) env_turn(w->env, 100000);
                left = false;
                for (unsigned m = 1; m <= MATRICES; m++)
                        left |= world_is_live(w, m);
                for (unsigned t = 1; t <= TPMS; t++)
                        left |= fake_vtpm_find(&w->vtpm, tpm_n(t))->state == VTPM_RUNNING;
                for (unsigned n = 1; n <= GUESTS; n++) {
                        const Guest *g = guest_find(w->env->engine, guest_n(n));

                        left |= g && g->hold.phase != HOLD_NONE;
                }
        }
        world_settle(w);
        for (unsigned m = 1; m <= MATRICES; m++)
                if (world_is_live(w, m))
                        fail_msg("matrix %u is left", m);
        for (unsigned t = 1; t <= TPMS; t++)
                if (fake_vtpm_find(&w->vtpm, tpm_n(t))->state == VTPM_RUNNING)
                        fail_msg("TPM %u is left", t);
        for (unsigned n = 1; n <= GUESTS; n++) {
                CLEANUP(freep) char *hold = world_hold(w, n);

                if (hold)
                        fail_msg("g%u still holds: %s", n, hold);
        }
}

static unsigned play(uint64_t seed) {
        Play p = { .w = world_new(), .rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1 };

        player = &p;
        for (unsigned m = 1; m <= MATRICES; m++)
                world_matrix(p.w, m);
        (void) fake_vtpm_add(&p.w->vtpm, tpm_n(1), "t1");
        (void) fake_vtpm_add(&p.w->vtpm, tpm_n(2), "t2");
        p.w->vtpm.before_stop = before_stop;
        p.w->env->before_write = before_write;
        for (unsigned i = 0; i < STEPS; i++) {
                step(&p);
                assert_no_two(&p);
        }
        end(&p);
        print_message(
                "seed %llu: %u guests ran, %u refused, %u crashes, %u mdevs removed, %u plugged in by hand\n",
                (unsigned long long) seed, p.n_ran, p.n_refused, p.n_crashes, p.n_removed, p.n_by_hand);
        (void) world_free(p.w);
        return p.n_ran;
}

static uint64_t first_seed = 1;
static unsigned runs = RUNS;

static void test_random(void **state) {
        unsigned n_ran = 0;

        for (uint64_t seed = first_seed; seed < first_seed + runs; seed++) {
                print_message("seed %llu\n", (unsigned long long) seed);
                n_ran += play(seed);
        }
        assert_true(n_ran > 0);
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };

        if (argc > 1) {
                first_seed = strtoull(argv[1], NULL, 0);
                runs = argc > 2 ? (unsigned) strtoul(argv[2], NULL, 0) : 1;
        }
        return cmocka_run_group_tests_name("guests-random", tests, NULL, NULL);
}
