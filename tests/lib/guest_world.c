/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest_world.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/engine_guest_internal.h"

Uuid guest_n(unsigned n) {
        return uuid_n(100 + n);
}

Uuid tpm_n(unsigned n) {
        return uuid_n(200 + n);
}

static bool can_plug(void *userdata, Uuid mdev) {
        char path[128], id[UUID_STRING_SIZE];
        World *w = userdata;
        SimStat st;

        (void) snprintf(path, sizeof path, "bus/mdev/devices/%s", uuid_format(mdev, id));
        return sim_stat(w->env->sim, path, &st) >= 0;
}

static void plugged(void *userdata, Uuid mdev, bool in) {
        char command[80], id[UUID_STRING_SIZE];
        World *w = userdata;

        (void) snprintf(command, sizeof command, "guest %s %s", uuid_format(mdev, id), in ? "on" : "off");
        env_ctl(w->env, command);
}

World *world_new(void) {
        World *w = calloc(1, sizeof *w);

        assert_non_null(w);
        w->env = env_new("7.2", NULL);
        fake_virt_init(&w->virt, w->env->event);
        w->virt.can_plug = can_plug;
        w->virt.plugged = plugged;
        w->virt.plug_userdata = w;
        fake_vtpm_init(&w->vtpm, w->env->event);
        world_start(w);
        return w;
}

World *world_free(World *w) {
        if (w->env->engine)
                world_stop(w);
        fake_virt_clear(&w->virt);
        fake_vtpm_clear(&w->vtpm);
        (void) env_free(w->env);
        free(w);
        return NULL;
}

void world_start(World *w) {
        env_launch(w->env);
        engine_set_virt(w->env->engine, &w->virt.virt);
        engine_set_vtpm(w->env->engine, &w->vtpm.vtpm);
        fake_vtpm_listen(&w->vtpm, w->env->engine);
        env_wait(w->env, &w->env->ready);
        fake_virt_listen(&w->virt, w->env->engine);
        world_settle(w);
}

void world_stop(World *w) {
        fake_virt_listen(&w->virt, NULL);
        w->vtpm.engine = NULL;
        env_stop(w->env);
        fake_vtpm_listen(&w->vtpm, NULL);
}

void world_crash(World *w) {
        fake_virt_listen(&w->virt, NULL);
        w->vtpm.engine = NULL;
        w->vtpm.held = true; /* what was under way is not begun */
        env_crash(w->env);
        fake_vtpm_listen(&w->vtpm, NULL);
        w->vtpm.held = false;
}

void world_settle(World *w) {
        env_settle(w->env);
}

/* ---- guests ---- */

static void wire(const Wires *wires, VirtWiring *ret) {
        static Uuid mdev;
        static char socket[128];
        char id[UUID_STRING_SIZE];

        *ret = (VirtWiring) { .type = (char *) "kvm",
                              .matrix = (char *) wires->matrix,
                              .tpm = (char *) wires->tpm };
        ret->tpm_wish = wires->wish;
        if (wires->mdev > 0 || !uuid_is_null(wires->foreign)) {
                mdev = wires->mdev > 0 ? uuid_n(wires->mdev) : wires->foreign;
                ret->mdevs = &mdev;
                ret->n_mdevs = 1;
        }
        if (wires->tpm_wired > 0) {
                ret->tpm_model = wires->model ?: TPM_MODEL_VIRTIO;
                (void) snprintf(socket, sizeof socket, VIRT_TPM_DIR "/%s/%s.sock",
                                uuid_format(tpm_n(wires->tpm_wired), id),
                                ret->tpm_model == TPM_MODEL_VIRTIO ? "device" : "swtpm");
                ret->tpm_socket = socket;
        }
}

void world_define(World *w, unsigned n, const Wires *wires) {
        char name[16];
        VirtWiring config;

        (void) snprintf(name, sizeof name, "g%u", n);
        if (!wires)
                return fake_virt_define(&w->virt, guest_n(n), name, NULL);
        wire(wires, &config);
        fake_virt_define(&w->virt, guest_n(n), name, &config);
}

void world_matrix(World *w, unsigned n) {
        char adapters[8];
        ApMatrix m;

        (void) snprintf(adapters, sizeof adapters, "%u", n + 1);
        m = matrix_of(adapters, "6", "");
        env_do(w->env, "define", uuid_n(n), &m);
}

void world_hook_begin(World *w, unsigned n, const char *operation, Reply *reply) {
        const FakeGuest *f = fake_virt_find(&w->virt, guest_n(n));
        const VirtWiring *x = !f ? &(VirtWiring) {} : f->g.active ? &f->g.live : &f->g.config;
        const EngineHook h = {
                .operation = operation,
                .suboperation = strcmp(operation, "release") == 0 ? "end" : "begin",
                .extra = "-",
                .guest = guest_n(n),
                .name = f ? f->g.name : NULL,
                .mdevs = x->mdevs,
                .n_mdevs = x->n_mdevs,
                .matrix = x->matrix,
                .tpm = x->tpm,
                .tpm_wish = x->tpm_wish,
                .tpm_model = x->tpm_model,
                .tpm_socket = x->tpm_socket,
        };
        Refusal refusal = {};
        int r;

        *reply = (Reply) {};
        r = engine_hook(w->env->engine, &h, &root_caller, on_reply, reply, &refusal);
        if (r != 0)
                on_reply(reply, r, r > 0 ? &refusal : NULL, (Uuid) {});
        refusal_clear(&refusal);
}

int world_hook(World *w, unsigned n, const char *operation, Reply *reply) {
        world_hook_begin(w, n, operation, reply);
        env_wait(w->env, &reply->done);
        return reply->r;
}

static void set_use(World *w, const VirtWiring *x, bool on) {
        for (size_t i = 0; i < x->n_mdevs; i++)
                plugged(w, x->mdevs[i], on);
}

/* What libvirt and QEMU look at themselves: the mdev is there and free, the TPM's socket answers. */
const char *world_refuses(World *w, unsigned n) {
        const FakeGuest *f = fake_virt_find(&w->virt, guest_n(n));
        const VirtWiring *x = &f->g.config;
        Uuid tpm;

        for (size_t i = 0; i < x->n_mdevs; i++) {
                if (!can_plug(w, x->mdevs[i]))
                        return "mediated device not found";
                for (size_t k = 0; k < FAKE_GUESTS_MAX; k++)
                        if (w->virt.guests[k].used && w->virt.guests[k].g.active &&
                            guest_wiring_has(&w->virt.guests[k].g.live, x->mdevs[i]))
                                return "is in use by driver QEMU";
        }
        if (x->tpm_model != TPM_MODEL_NONE) {
                const FakeTpm *t;

                assert_int_equal(guest_socket_tpm(x->tpm_socket, &tpm), 0);
                t = fake_vtpm_find(&w->vtpm, tpm);
                if (!t || t->state != VTPM_RUNNING || t->model != x->tpm_model)
                        return "cannot connect to the TPM's socket";
        }
        return NULL;
}

void world_qemu(World *w, unsigned n) {
        set_use(w, &fake_virt_find(&w->virt, guest_n(n))->g.config, true);
        fake_virt_run(&w->virt, guest_n(n), true);
}

bool world_run(World *w, unsigned n, Reply *reply) {
        Reply own, other;
        const char *why;

        reply = reply ?: &own;
        *reply = (Reply) {};
        if (!w->no_hook && world_hook(w, n, "prepare", reply) != 0) {
                (void) world_hook(w, n, "release", &other);
                assert_int_equal(other.r, 0);
                return false;
        }
        why = world_refuses(w, n);
        if (why) {
                reply->r = -1;
                (void) snprintf(reply->text, sizeof reply->text, "%s", why);
                if (!w->no_hook)
                        assert_int_equal(world_hook(w, n, "release", &other), 0);
                return false;
        }
        world_qemu(w, n);
        if (!w->no_hook)
                assert_int_equal(world_hook(w, n, "started", &other), 0);
        world_settle(w);
        return true;
}

void world_kill(World *w, unsigned n) {
        FakeGuest *f = fake_virt_find(&w->virt, guest_n(n));

        if (!f || !f->g.active)
                return;
        set_use(w, &f->g.live, false);
        fake_virt_run(&w->virt, guest_n(n), false);
}

void world_end(World *w, unsigned n) {
        FakeGuest *f = fake_virt_find(&w->virt, guest_n(n));
        bool silent = w->virt.silent;
        Reply reply;

        if (!f || !f->g.active)
                return;
        set_use(w, &f->g.live, false);
        if (!w->no_hook && w->env->engine)
                assert_int_equal(world_hook(w, n, "release", &reply), 0);
        w->virt.silent = silent;
        fake_virt_run(&w->virt, guest_n(n), false);
        if (w->env->engine)
                world_settle(w);
}

/* ---- asking ---- */

static void on_noted(void *userdata, int r, const Refusal *refusal, const char *const *notes) {
        Noted *n = userdata;

        n->done = true;
        on_reply(&n->reply, r, refusal, (Uuid) {});
        for (; notes && *notes; notes++) {
                size_t used = strlen(n->notes);

                (void) snprintf(n->notes + used, sizeof n->notes - used, "%s\n", *notes);
        }
}

void world_begin(World *w, const char *what, unsigned n, unsigned m, Noted *noted) {
        Engine *e = w->env->engine;
        Refusal refusal = {};
        int r;

        *noted = (Noted) {};
        if (strcmp(what, "attach-matrix") == 0 || strcmp(what, "attach-matrix-later") == 0)
                r = engine_attach_matrix(e, guest_n(n), uuid_n(m), strcmp(what, "attach-matrix") == 0,
                                         &root_caller, on_noted, noted, &refusal);
        else if (strcmp(what, "detach-matrix") == 0 || strcmp(what, "detach-matrix-later") == 0)
                r = engine_detach_matrix(e, guest_n(n), strcmp(what, "detach-matrix") == 0, &root_caller,
                                         on_noted, noted, &refusal);
        else if (strcmp(what, "attach-tpm") == 0)
                r = engine_attach_tpm(e, guest_n(n), tpm_n(m), TPM_MODEL_NONE, &root_caller, on_noted, noted,
                                      &refusal);
        else
                r = engine_detach_tpm(e, guest_n(n), &root_caller, on_noted, noted, &refusal);
        if (r != 0)
                on_noted(noted, r, r > 0 ? &refusal : NULL, NULL);
        refusal_clear(&refusal);
}

void world_do(World *w, const char *what, unsigned n, unsigned m, Noted *noted) {
        world_begin(w, what, n, m, noted);
        env_wait(w->env, &noted->done);
        world_settle(w);
        env_assert_no_overlap(w->env);
}

bool world_is_live(World *w, unsigned matrix) {
        return can_plug(w, uuid_n(matrix));
}

char *world_guest_problems(World *w, unsigned n) {
        EngineGuest g;
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        world_settle(w);
        if (engine_get_guest(w->env->engine, guest_n(n), &g) >= 0)
                for (const char *const *p = g.problems; *p; p++)
                        (void) fprintf(f, "%s\n", *p);
        (void) fclose(f);
        return text;
}

bool world_guest_has_problem(World *w, unsigned n, const char *word) {
        CLEANUP(freep) char *text = world_guest_problems(w, n);

        return strstr(text, word);
}

const char *world_meant(World *w, unsigned n) {
        EngineMatrix m;

        assert_int_equal(engine_get_matrix(w->env->engine, uuid_n(n), &m), 0);
        return m.guest;
}

char *world_hold(World *w, unsigned n) {
        char path[96], id[UUID_STRING_SIZE], *text = NULL;

        world_settle(w);
        (void) snprintf(path, sizeof path, ENV_RUN "/guests/%s", uuid_format(guest_n(n), id));
        if (file_read_at(w->env->root_fd, path, 4096, &text, NULL) < 0)
                return NULL;
        return text;
}
