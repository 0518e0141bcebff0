/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_virt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct FakeCall {
        FakeCall *next;
        bool refresh, find;
        Uuid guest;
        VirtEdit edit;
        char *name, *socket, *matrix, *swtpm_socket;
        bool live;
        virt_done_t done;
        void *userdata;
};

static FakeVirt *fake_of(Virt *v) {
        return CONTAINER_OF(v, FakeVirt, virt);
}

static void call_free(FakeCall *c) {
        free(c->name);
        free(c->socket);
        free(c->matrix);
        free(c->swtpm_socket);
        free(c);
}

static char *copy(const char *s) {
        return s ? strdup(s) : NULL;
}

FakeGuest *fake_virt_find(FakeVirt *v, Uuid uuid) {
        for (size_t i = 0; i < FAKE_GUESTS_MAX; i++)
                if (v->guests[i].used && uuid_equal(v->guests[i].g.uuid, uuid))
                        return &v->guests[i];
        return NULL;
}

void fake_virt_tell(FakeVirt *v, Uuid uuid) {
        const FakeGuest *f = fake_virt_find(v, uuid);

        if (!v->events || !v->up)
                return;
        for (size_t i = 0; i < v->n_told; i++)
                if (uuid_equal(v->told[i], uuid))
                        v->told[i--] = v->told[--v->n_told];
        if (f)
                v->told[v->n_told++] = uuid;
        if (f)
                v->events->guest(v->userdata, &f->g);
        else
                v->events->gone(v->userdata, uuid);
}

static void changed(FakeVirt *v, Uuid uuid) {
        if (!v->silent)
                fake_virt_tell(v, uuid);
}

/* ---- editing ---- */

static void wiring_set_mdev(VirtWiring *w, const Uuid *mdev) {
        free(w->mdevs);
        w->mdevs = NULL;
        w->n_mdevs = 0;
        if (mdev) {
                w->mdevs = malloc(sizeof *mdev);
                *w->mdevs = *mdev;
                w->n_mdevs = 1;
        }
}

static void set(char **s, const char *value) {
        char *old = *s;

        *s = copy(value);
        free(old);
}

static VirtVerdict edit_wiring(VirtWiring *w, FakeCall *c, TpmModel model) {
        switch (c->edit.kind) {
        case VIRT_ATTACH_MATRIX:
                if (w->n_mdevs > 0 && !uuid_equal(w->mdevs[0], c->edit.mdev))
                        return VIRT_REFUSED;
                wiring_set_mdev(w, &c->edit.mdev);
                break;
        case VIRT_DETACH_MATRIX:
                wiring_set_mdev(w, NULL);
                set(&w->matrix, NULL);
                break;
        case VIRT_ATTACH_TPM:
                w->tpm_model = model;
                set(&w->tpm_socket, model == TPM_MODEL_VIRTIO ? c->socket : c->swtpm_socket);
                set(&w->tpm, c->name);
                break;
        default:
                w->tpm_model = TPM_MODEL_NONE;
                set(&w->tpm_socket, NULL);
                set(&w->tpm, NULL);
        }
        return VIRT_DONE;
}

static VirtOutcome edit(FakeVirt *v, FakeCall *c) {
        TpmModel model = c->edit.model ?: TPM_MODEL_VIRTIO;
        FakeGuest *f = fake_virt_find(v, c->guest);
        bool is_matrix = c->edit.kind == VIRT_ATTACH_MATRIX || c->edit.kind == VIRT_DETACH_MATRIX;
        VirtOutcome o = { .model = model };

        v->n_edits++;
        if (v->fail_next && !v->unknown_done) {
                v->fail_next = false;
                return (VirtOutcome) { .verdict = v->verdict,
                                       .unknown = v->unknown,
                                       .text = "said the fake" };
        }
        if (!f)
                return (VirtOutcome) { .verdict = VIRT_NO_SUCH_GUEST };
        if (f->g.active && is_matrix && c->live) {
                if (c->edit.kind == VIRT_ATTACH_MATRIX && v->can_plug &&
                    !v->can_plug(v->plug_userdata, c->edit.mdev))
                        return (VirtOutcome) { .verdict = VIRT_LIBVIRT, .text = "no such mediated device" };
                bool had = f->g.live.n_mdevs > 0;
                Uuid mdev = had ? f->g.live.mdevs[0] : c->edit.mdev;

                o.verdict = edit_wiring(&f->g.live, c, model);
                o.live_changed = true;
                if (v->plugged && o.verdict == VIRT_DONE && had != (f->g.live.n_mdevs > 0))
                        v->plugged(v->plug_userdata, mdev, !had);
        } else
                o.next_start = f->g.active;
        if (f->g.persistent && o.verdict == VIRT_DONE) {
                o.verdict = edit_wiring(&f->g.config, c, model);
                o.config_changed = true;
        }
        if (v->fail_next) {
                v->fail_next = v->unknown_done = false;
                return (VirtOutcome) { .verdict = v->verdict,
                                       .unknown = v->unknown,
                                       .text = "said the fake" };
        }
        changed(v, c->guest);
        return o;
}

static void run_call(FakeVirt *v, FakeCall *c) {
        VirtOutcome o = {};

        if (!v->up)
                o = (VirtOutcome) { .verdict = VIRT_UNAVAILABLE, .text = "no connection" };
        else if (c->find) {
                for (size_t i = 0; i < FAKE_GUESTS_MAX; i++)
                        if (v->guests[i].used && strcmp(v->guests[i].g.name, c->name) == 0)
                                fake_virt_tell(v, v->guests[i].g.uuid);
        } else if (c->refresh && v->fail_next && v->fail_looks) {
                v->fail_next = v->fail_looks = false;
                o = (VirtOutcome) { .verdict = v->verdict, .unknown = v->unknown, .text = "said the fake" };
        } else if (c->refresh) {
                v->n_refreshes++;
                fake_virt_tell(v, c->guest); /* that it is gone, too */
        } else
                o = edit(v, c);
        c->done(c->userdata, 0, &o);
        call_free(c);
}

unsigned fake_virt_answer(FakeVirt *v) {
        FakeCall *calls = TAKE(v->calls);
        unsigned n = 0;

        while (calls) {
                FakeCall *c = calls;

                calls = c->next;
                run_call(v, c);
                n++;
        }
        return n;
}

unsigned fake_virt_waiting(const FakeVirt *v) {
        unsigned n = 0;

        for (const FakeCall *c = v->calls; c; c = c->next)
                n++;
        return n;
}

bool fake_virt_waits_for_edit(const FakeVirt *v) {
        const FakeCall *c = v->calls;

        while (c && (c->refresh || c->find))
                c = c->next;
        return c;
}

static int on_answer(sd_event_source *s, void *userdata) {
        FakeVirt *v = userdata;

        if (!v->held)
                (void) fake_virt_answer(v);
        return 0;
}

/* Takes @c over. */
static int queue(FakeVirt *v, FakeCall *c) {
        FakeCall **last = &v->calls;

        if (v->full) {
                call_free(c);
                return -EBUSY;
        }
        while (*last)
                last = &(*last)->next;
        *last = c;
        return v->source ? sd_event_source_set_enabled(v->source, SD_EVENT_ONESHOT)
                         : sd_event_add_defer(v->event, &v->source, on_answer, v);
}

/* ---- VirtOps ---- */

static int op_edit(Virt *virt, Uuid guest, const VirtEdit *e, const char *swtpm_socket, bool live,
                   virt_done_t done, void *userdata) {
        FakeCall *c = calloc(1, sizeof *c);

        *c = (FakeCall) {
                .guest = guest,
                .edit = *e,
                .name = copy(e->name),
                .socket = copy(e->socket),
                .matrix = copy(e->matrix),
                .swtpm_socket = copy(swtpm_socket),
                .live = live,
                .done = done,
                .userdata = userdata,
        };
        return queue(fake_of(virt), c);
}

static int op_refresh(Virt *virt, Uuid guest, virt_done_t done, void *userdata) {
        FakeCall *c = calloc(1, sizeof *c);

        *c = (FakeCall) { .refresh = true, .guest = guest, .done = done, .userdata = userdata };
        return queue(fake_of(virt), c);
}

static int op_find(Virt *virt, const char *name, virt_done_t done, void *userdata) {
        FakeCall *c = calloc(1, sizeof *c);

        *c = (FakeCall) { .find = true, .name = copy(name), .done = done, .userdata = userdata };
        return queue(fake_of(virt), c);
}

static bool op_is_up(const Virt *virt) {
        return CONTAINER_OF(virt, FakeVirt, virt)->up;
}

static const VirtOps ops = { .edit = op_edit, .refresh = op_refresh, .find = op_find, .is_up = op_is_up };

/* ---- the test's side ---- */

void fake_virt_init(FakeVirt *v, sd_event *event) {
        *v = (FakeVirt) { .virt = { .ops = &ops }, .event = sd_event_ref(event), .up = true };
}

static void drop_calls(FakeVirt *v) {
        while (v->calls) {
                FakeCall *c = v->calls;

                v->calls = c->next;
                call_free(c);
        }
}

static void guest_clear(FakeGuest *f) {
        virt_wiring_clear(&f->g.config);
        virt_wiring_clear(&f->g.live);
        free(f->g.name);
        free(f->g.lacks);
        *f = (FakeGuest) {};
}

void fake_virt_clear(FakeVirt *v) {
        drop_calls(v);
        for (size_t i = 0; i < FAKE_GUESTS_MAX; i++)
                guest_clear(&v->guests[i]);
        v->source = sd_event_source_disable_unref(v->source);
        v->event = sd_event_unref(v->event);
}

void fake_virt_connect(FakeVirt *v) {
        v->up = true;
        if (!v->events)
                return;
        v->events->connection(v->userdata, true, NULL);
        for (size_t i = 0; i < FAKE_GUESTS_MAX; i++)
                if (v->guests[i].used)
                        fake_virt_tell(v, v->guests[i].g.uuid);
        for (size_t i = v->n_told; i-- > 0;)
                if (!fake_virt_find(v, v->told[i]))
                        fake_virt_tell(v, v->told[i]);
        v->events->listed(v->userdata);
}

void fake_virt_disconnect(FakeVirt *v) {
        v->up = false;
        if (v->events)
                v->events->connection(v->userdata, false, "the fake has gone");
}

void fake_virt_listen(FakeVirt *v, void *engine) {
        v->events = NULL;
        v->n_told = 0;
        drop_calls(v);
        if (!engine)
                return;
        extern const VirtEvents engine_virt_events;

        v->events = &engine_virt_events;
        v->userdata = engine;
        if (v->up)
                fake_virt_connect(v);
}

void fake_virt_define(FakeVirt *v, Uuid uuid, const char *name, const VirtWiring *config) {
        FakeGuest *f = fake_virt_find(v, uuid);

        for (size_t i = 0; !f && i < FAKE_GUESTS_MAX; i++)
                if (!v->guests[i].used)
                        f = &v->guests[i];
        if (!config && !f->g.active)
                guest_clear(f);
        else {
                f->used = true;
                f->g.uuid = uuid;
                set(&f->g.name, name);
                f->g.persistent = config;
                f->g.state = f->g.active ? f->g.state : VIRT_STATE_SHUTOFF;
                virt_wiring_clear(&f->g.config);
                if (config)
                        (void) virt_wiring_copy(config, &f->g.config);
        }
        changed(v, uuid);
}

void fake_virt_rename(FakeVirt *v, Uuid uuid, const char *name) {
        set(&fake_virt_find(v, uuid)->g.name, name);
        changed(v, uuid);
}

void fake_virt_run(FakeVirt *v, Uuid uuid, bool active) {
        FakeGuest *f = fake_virt_find(v, uuid);

        if (!f || f->g.active == active)
                return;
        f->g.active = active;
        f->g.state = active ? VIRT_STATE_RUNNING : VIRT_STATE_SHUTOFF;
        virt_wiring_clear(&f->g.live);
        if (active)
                (void) virt_wiring_copy(&f->g.config, &f->g.live);
        else if (!f->g.persistent)
                guest_clear(f);
        changed(v, uuid);
}

void fake_virt_plug(FakeVirt *v, Uuid uuid, const Uuid *mdev, bool config) {
        FakeGuest *f = fake_virt_find(v, uuid);

        for (size_t i = 0; i < f->g.live.n_mdevs; i++)
                v->plugged(v->plug_userdata, f->g.live.mdevs[i], false);
        if (mdev)
                v->plugged(v->plug_userdata, *mdev, true);
        wiring_set_mdev(&f->g.live, mdev);
        if (config)
                wiring_set_mdev(&f->g.config, mdev);
        changed(v, uuid);
}

void fake_virt_reboot(FakeVirt *v, Uuid uuid) {
        if (v->events && v->up)
                v->events->reboot(v->userdata, uuid);
}
