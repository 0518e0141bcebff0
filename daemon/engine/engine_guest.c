/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/timer.h"
#include "engine/engine_guest_internal.h"

#define GUESTS_PER_TURN 64                      /* looked at in one turn of the loop */
#define AGAIN_US        (5 * UINT64_C(1000000)) /* what has failed is tried again */

/* ---- guests, by uuid ---- */

static size_t place(const Guests *gs, Uuid uuid) {
        size_t low = 0, high = gs->n;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (uuid_compare(gs->by_uuid[middle]->uuid, uuid) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

Guest *guest_find(const Engine *e, Uuid uuid) {
        size_t i = place(e->guests, uuid);

        return i < e->guests->n && uuid_equal(e->guests->by_uuid[i]->uuid, uuid) ? e->guests->by_uuid[i]
                                                                                 : NULL;
}

static int set_string(char **s, const char *value) {
        char *copy = value ? strdup(value) : NULL;

        if (value && !copy)
                return -ENOMEM;
        free(*s);
        *s = copy;
        return 0;
}

Guest *guest_get(Engine *e, Uuid uuid, const char *name) {
        Guests *gs = e->guests;
        Guest *g = guest_find(e, uuid);
        char text[UUID_STRING_SIZE];
        size_t i;

        if (g)
                return g;

        if (gs->n == gs->allocated) {
                size_t n = gs->allocated * 2 + 16;
                Guest **grown = reallocarray(gs->by_uuid, n, sizeof *grown);

                if (!grown)
                        return NULL;
                gs->by_uuid = grown;
                gs->allocated = n;
        }
        g = calloc(1, sizeof *g);
        if (!g)
                return NULL;
        g->engine = e;
        g->uuid = g->hold.guest = uuid;
        g->name = strdup(name && name[0] ? name : uuid_format(uuid, text));
        if (!g->name) {
                free(g);
                return NULL;
        }

        i = place(gs, uuid);
        memmove(gs->by_uuid + i + 1, gs->by_uuid + i, (gs->n - i) * sizeof *gs->by_uuid);
        gs->by_uuid[i] = g;
        gs->n++;
        return g;
}

static void guest_forget_wiring(Guest *g) {
        virt_wiring_clear(&g->config);
        virt_wiring_clear(&g->live);
        free(TAKE(g->lacks));
}

static void guest_free(Guest *g) {
        while (g->hooks)
                g->hooks = hook_free(g->hooks);
        (void) guest_op_free(g->op);
        guest_forget_wiring(g);
        free(g->name);
        free(g->old_name);
        free(g->stop_error);
        free(g->reset_error);
        for (TakeUp t = 0; t < _TAKE_UP_MAX; t++)
                free(g->take_error[t]);
        strv_free(g->problems);
        free(g);
}

/* Nobody knows of it, and it has nothing. */
static bool is_nothing(const Guest *g) {
        return !g->known && g->hold.phase == HOLD_NONE && !g->hold_dirty && !g->hold_saved && !g->hooks &&
               !g->op && !g->checking;
}

static void guest_drop(Guest *g) {
        Guests *gs = g->engine->guests;
        size_t i = place(gs, g->uuid);

        memmove(gs->by_uuid + i, gs->by_uuid + i + 1, (gs->n - i - 1) * sizeof *gs->by_uuid);
        gs->n--;
        gs->refs_stale = true;
        guest_free(g);
}

const char *guest_name(const Guest *g) {
        return g->name;
}

bool guest_is(const Guest *g, const char *meant) {
        Uuid uuid;

        return strcmp(meant, g->name) == 0 || (uuid_parse(meant, &uuid) >= 0 && uuid_equal(uuid, g->uuid));
}

/* ---- what is different ---- */

uint64_t guest_digest_add(uint64_t h, const void *data, size_t size) {
        const unsigned char *p = data;

        while (size-- > 0)
                h = (h ^ *p++) * UINT64_C(0x100000001b3); /* FNV-1a */
        return h;
}

static uint64_t add_text(uint64_t h, const char *s) {
        return guest_digest_add(h, s ?: "", s ? strlen(s) + 1 : 0);
}

static uint64_t add_wiring(uint64_t h, const VirtWiring *w) {
        h = guest_digest_add(h, w->mdevs, w->n_mdevs * sizeof *w->mdevs);
        h = guest_digest_add(h, w->others, w->n_others * sizeof *w->others);
        h = add_text(h, w->matrix);
        h = add_text(h, w->tpm);
        h = add_text(h, w->tpm_socket);
        return guest_digest_add(h, &w->tpm_model, sizeof w->tpm_model);
}

static uint64_t digest_named(const Guest *g) {
        uint64_t h = add_text(GUEST_DIGEST, g->name);

        h = guest_digest_add(h, &g->known, sizeof g->known);
        h = add_wiring(h, &g->config);
        h = add_wiring(h, &g->live);
        return h;
}

static void show_mdevs(Engine *e, const Uuid *list, size_t n) {
        for (size_t i = 0; i < n; i++) {
                const HostMdev *mdev = snapshot_find_mdev(e->snapshot, list[i]);
                EngineKey key = { .object = ENGINE_MDEV, .uuid = list[i] };

                if (!mdev)
                        continue;
                state_emit(e, &key, ENGINE_CHANGED);
                if (mdev->use == MDEV_USE_GUEST && !mdev->ap) /* who had it may have gone */
                        engine_host_changed(e);
        }
}

/* What the wiring names shows whether a guest runs with it. */
static void show_named(Engine *e, const VirtWiring *w) {
        for (size_t i = 0; i < w->n_mdevs; i++) {
                Matrix *m = state_find(e, w->mdevs[i]);

                if (m)
                        state_show(e, m);
        }
        show_mdevs(e, w->mdevs, w->n_mdevs);
        show_mdevs(e, w->others, w->n_others);
}

/* Those that are meant for it say what has become of that. */
static void show_meant(Guest *g) {
        Engine *e = g->engine;

        for (size_t i = 0; i < e->n_matrices; i++)
                if (e->by_uuid[i]->rec.guest && guest_is(g, e->by_uuid[i]->rec.guest))
                        state_show(e, e->by_uuid[i]);
}

static void stir_naming(Engine *e, GuestRefs *refs, Uuid what) {
        size_t n;
        const GuestRef *ref = guests_naming(e, refs, what, &n);

        for (size_t i = 0; i < n; i++)
                guest_stir(ref[i].guest);
}

/* Those that name the same as @w have something to say of it, too. */
static void stir_rivals(Engine *e, const VirtWiring *w) {
        Uuid tpm;

        for (size_t i = 0; i < w->n_mdevs; i++)
                stir_naming(e, &e->guests->mdevs, w->mdevs[i]);
        if (guest_socket_tpm(w->tpm_socket, &tpm) >= 0)
                stir_naming(e, &e->guests->tpms, tpm);
}

void guests_names_changed(Engine *e) {
        e->guests->refs_stale = true;
        guests_stir_all(e);
}

/* ---- what is shown ---- */

static uint64_t digest_shown(Guest *g) {
        uint64_t h = GUEST_DIGEST;
        EngineGuest v;

        if (engine_get_guest(g->engine, g->uuid, &v) < 0)
                return 0;
        h = add_text(h, v.name);
        h = add_text(h, v.state);
        h = add_text(h, v.matrix);
        h = add_text(h, v.live_matrix);
        h = add_text(h, v.tpm);
        h = add_text(h, v.live_tpm);
        h = guest_digest_add(h, &v.persistent, sizeof v.persistent);
        h = guest_digest_add(h, &v.active, sizeof v.active);
        h = guest_digest_add(h, &v.tpm_model, sizeof v.tpm_model);
        h = guest_digest_add(h, &v.live_tpm_model, sizeof v.live_tpm_model);
        for (const char *const *p = v.problems; *p; p++)
                h = add_text(h, *p);
        return h;
}

bool guest_is_visible(const Guest *g) {
        return g->known || g->hold.phase != HOLD_NONE;
}

static void guest_show(Guest *g) {
        EngineKey key = { .object = ENGINE_GUEST, .uuid = g->uuid, .name = g->name };
        Engine *e = g->engine;
        char **problems;
        uint64_t now;

        if (!guest_is_visible(g)) {
                if (g->announced) {
                        g->announced = false;
                        state_emit(e, &key, ENGINE_REMOVED);
                }
                return;
        }

        problems = guest_problems(e, g);
        if (!problems) /* out of memory: the next change shows it */
                return;
        if (problems[0] && !strv_equal(problems, g->problems))
                log_full(LOG_WARNING, LOG_ID_DRIFT, NULL, "Guest '%s': %s", g->name, problems[0]);
        strv_free(g->problems);
        g->problems = problems;

        now = digest_shown(g);
        if (g->announced && now == g->shown)
                return;
        g->shown = now;
        state_emit(e, &key, g->announced ? ENGINE_CHANGED : ENGINE_ADDED);
        g->announced = true;
}

/* ---- looking at them ---- */

static void guest_run(Guest *g) {
        uint64_t named = digest_named(g);

        if (named != g->named) {
                g->named = named;
                show_named(g->engine, &g->config);
                show_named(g->engine, &g->live);
                stir_rivals(g->engine, &g->config);
                stir_rivals(g->engine, &g->live);
                show_meant(g);
                g->due = false; /* that was us */
        }
        if (g->name_due && g->engine->settled) { /* nothing is changed before the host is known */
                g->name_due = false;
                guest_follow_name(g);
        }
        hold_run(g);
        hook_run(g);
        guest_op_run(g);
        guest_take_up(g);
        guest_show(g);
}

static int on_run(sd_event_source *s, void *userdata) {
        Engine *e = userdata;
        Guests *gs = e->guests;
        size_t n = 0;

        for (size_t i = 0; i < gs->n && n < GUESTS_PER_TURN;) {
                Guest *g = gs->by_uuid[i];

                if (!g->due) {
                        i++;
                        continue;
                }
                n++;
                g->due = false;
                guest_run(g); /* may make others due, but drops none */
                if (is_nothing(g))
                        guest_drop(g);
        }

        for (size_t i = 0; i < gs->n; i++)
                if (gs->by_uuid[i]->due)
                        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        return 0;
}

static void run_soon(Engine *e) {
        Guests *gs = e->guests;
        int r;

        if (e->closing)
                return;
        r = gs->run_source ? sd_event_source_set_enabled(gs->run_source, SD_EVENT_ONESHOT)
                           : sd_event_add_defer(e->event, &gs->run_source, on_run, e);
        if (r < 0)
                log_error("Cannot look after guests: %s", strerror(-r));
}

void guest_stir(Guest *g) {
        g->due = true;
        run_soon(g->engine);
}

void guests_stir_all(Engine *e) {
        for (size_t i = 0; i < e->guests->n; i++)
                e->guests->by_uuid[i]->due = true;
        if (e->guests->n > 0)
                run_soon(e);
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;

        e->guests->again_timer = sd_event_source_disable_unref(e->guests->again_timer);
        for (size_t i = 0; i < e->guests->n; i++) {
                Guest *g = e->guests->by_uuid[i];

                hold_tick(g);
                for (TakeUp t = 0; t < _TAKE_UP_MAX; t++)
                        if (g->take_again[t]) {
                                g->take_again[t] = false;
                                g->taken[t] = 0;
                        }
        }
        guests_stir_all(e);
        return 0;
}

void guests_again(Engine *e) {
        if (!e->guests->again_timer && !e->closing)
                (void) timer_after(e->event, &e->guests->again_timer, AGAIN_US, on_again, e);
}

void guests_matrix_changed(Engine *e, Uuid uuid, bool names) {
        Guests *gs = e->guests;

        if (!gs || gs->n == 0 || e->closing)
                return;
        gs->refs_stale |= names;
        stir_naming(e, &gs->mdevs, uuid);
        for (size_t i = 0; i < gs->n && names; i++) /* metadata may mean it */
                if (gs->by_uuid[i]->config.matrix || gs->by_uuid[i]->live.matrix)
                        guest_stir(gs->by_uuid[i]);
        for (size_t i = 0; i < gs->n && gs->n_waiting > 0; i++)
                if (gs->by_uuid[i]->hooks || gs->by_uuid[i]->op)
                        guest_stir(gs->by_uuid[i]);
}

void guests_settled(Engine *e) {
        guests_stir_all(e);
}

/* ---- what libvirt tells ---- */

static VirtWiring take_wiring(VirtWiring *w) {
        VirtWiring taken = *w;

        *w = (VirtWiring) {};
        return taken;
}

/* What it names, if anything, is @config and @live from now on. */
static void guest_rewire(Guest *g, VirtWiring *config, VirtWiring *live) {
        CLEANUP(virt_wiring_clear)
        VirtWiring old_config = take_wiring(&g->config), old_live = take_wiring(&g->live);
        Engine *e = g->engine;

        /* those that named the same have one rival less */
        stir_rivals(e, &old_config);
        stir_rivals(e, &old_live);
        g->config = take_wiring(config);
        g->live = take_wiring(live);
        e->guests->refs_stale = true;
        if (digest_named(g) == g->named)
                return;
        show_named(e, &old_config);
        show_named(e, &old_live);
}

void guest_has_ended(Guest *g) {
        CLEANUP(virt_wiring_clear) VirtWiring config = take_wiring(&g->config);

        g->ended = true;
        g->active = false;
        if (g->known)
                g->state = VIRT_STATE_SHUTOFF;
        guest_rewire(g, &config, &(VirtWiring) {});
        guest_stir(g);
}

static void on_connection(void *userdata, bool up, const char *why) {
        Engine *e = userdata;
        Guests *gs = e->guests;

        if (up && !gs->up)
                log_info("Connected to libvirt");
        else if (!up && gs->up)
                log_warning("Lost the connection to libvirt: %s", why ?: "it ended");
        for (size_t i = 0; i < gs->n && !up && gs->up; i++) {
                Guest *g = gs->by_uuid[i];

                /* whoever resets it now is not heard */
                g->reset_missed |= g->active && g->hold.model == TPM_MODEL_VIRTIO;
        }
        gs->wanted |= up;
        gs->up = up;
        gs->listed &= up;
        (void) set_string(&gs->why, up ? NULL : why);
        state_emit_manager(e);
        guests_stir_all(e);
}

static int guest_take(Guest *g, const VirtGuest *v) {
        CLEANUP(virt_wiring_clear) VirtWiring config = {};
        CLEANUP(virt_wiring_clear) VirtWiring live = {};
        char *name;
        int r = 0;

        if (v->persistent)
                r = virt_wiring_copy(&v->config, &config);
        if (r >= 0 && v->active)
                r = virt_wiring_copy(&v->live, &live);
        if (r >= 0)
                r = set_string(&g->lacks, v->lacks);
        if (r < 0)
                return r;
        name = strdup(v->name);
        if (!name)
                return -ENOMEM;

        if (g->known && !g->old_name && strcmp(g->name, name) != 0)
                g->old_name = TAKE(g->name);
        free(g->name);
        g->name = name;
        g->plugged = v->active && g->active && (g->plugged || (g->live.n_mdevs == 0 && live.n_mdevs > 0));
        g->state = v->state;
        g->persistent = v->persistent;
        g->active = v->active;
        g->ended &= v->active;
        guest_rewire(g, &config, &live);
        g->known = g->name_due = true;
        return 0;
}

static void on_guest(void *userdata, const VirtGuest *v) {
        Engine *e = userdata;
        Guest *g = guest_get(e, v->uuid, v->name);

        if (!g || guest_take(g, v) < 0)
                log_error("Out of memory, leaving out what libvirt tells of guest '%s'", v->name);
        if (g)
                guest_stir(g);
}

static void on_gone(void *userdata, Uuid uuid) {
        Engine *e = userdata;
        Guest *g = guest_find(e, uuid);

        if (!g)
                return;
        g->known = g->active = g->persistent = g->ended = false;
        g->state = VIRT_STATE_UNKNOWN;
        guest_rewire(g, &(VirtWiring) {}, &(VirtWiring) {});
        free(TAKE(g->lacks));
        for (TakeUp t = 0; t < _TAKE_UP_MAX; t++) {
                g->taken[t] = 0;
                free(TAKE(g->take_error[t]));
        }
        guest_stir(g);
}

static void on_listed(void *userdata) {
        Engine *e = userdata;

        e->guests->listed = true;
        guests_names_changed(e);
        state_show_all_soon(e); /* those meant for guests that do not exist */
}

static void on_reboot(void *userdata, Uuid uuid) {
        Guest *g = guest_find(userdata, uuid);

        if (g)
                guest_reset_tpm(g);
}

const VirtEvents engine_virt_events = {
        .connection = on_connection,
        .guest = on_guest,
        .gone = on_gone,
        .listed = on_listed,
        .reboot = on_reboot,
};

/* ---- wiring ---- */

void engine_set_virt(Engine *e, Virt *v) {
        e->guests->virt = v;
        e->guests->up = v && v->ops->is_up(v);
        state_emit_manager(e);
}

void engine_set_vtpm(Engine *e, Vtpm *v) {
        e->guests->vtpm = v;
        guests_names_changed(e);
        state_emit_manager(e);
}

Vtpm *engine_vtpm(Engine *e) {
        return e->guests->vtpm;
}

const char *engine_libvirt(Engine *e) {
        return !e->guests->virt ? "none" : e->guests->up ? "connected" : "disconnected";
}

const char *engine_libvirt_problem(Engine *e) {
        return e->guests->virt && !e->guests->up ? e->guests->why : NULL;
}

void engine_on_vtpm_event(void *userdata, Uuid uuid, VtpmChange change) {
        static const EngineChange changes[] = {
                [VTPM_ADDED] = ENGINE_ADDED, [VTPM_CHANGED] = ENGINE_CHANGED, [VTPM_REMOVED] = ENGINE_REMOVED
        };
        EngineKey key = { .object = ENGINE_TPM, .uuid = uuid };
        Engine *e = userdata;

        if (e->closing)
                return;
        state_emit(e, &key, changes[change]);
        state_emit_manager(e); /* its problems */
        if (change != VTPM_CHANGED)
                return guests_names_changed(e);
        stir_naming(e, &e->guests->tpms, uuid);
        for (size_t i = 0; i < e->guests->n && e->guests->n_waiting > 0; i++)
                if (e->guests->by_uuid[i]->hooks)
                        guest_stir(e->guests->by_uuid[i]);
}

/* ---- life ---- */

int guests_load(Engine *e, int run_fd) {
        e->guests = calloc(1, sizeof *e->guests);
        if (!e->guests)
                return -ENOMEM;
        e->guests->holds_fd = -1;
        return hold_load(e, run_fd);
}

void guests_drain(Engine *e) {
        if (e->guests)
                hold_drain(e);
}

void guests_free(Engine *e) {
        Guests *gs = e->guests;

        if (!gs)
                return;
        sd_event_source_disable_unref(gs->run_source);
        sd_event_source_disable_unref(gs->again_timer);
        for (size_t i = 0; i < gs->n; i++)
                guest_free(gs->by_uuid[i]);
        guest_calls_orphan(e);
        guest_questions_free(gs);
        free(gs->by_uuid);
        free(gs->mdevs.list);
        free(gs->others.list);
        free(gs->tpms.list);
        free(gs->why);
        fd_close(gs->holds_fd);
        free(gs);
        e->guests = NULL;
}
