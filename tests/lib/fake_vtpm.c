/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_vtpm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine_guest.h"

struct FakeVtpmCall {
        FakeVtpmCall *next;
        FakeVtpmOp op;
        Uuid uuid, guest_uuid;
        TpmModel model;
        char *text;
        vtpm_done_t done;
        void *userdata;
};

static FakeVtpm *fake_of(Vtpm *v) {
        return CONTAINER_OF(v, FakeVtpm, vtpm);
}

FakeTpm *fake_vtpm_find(FakeVtpm *v, Uuid uuid) {
        for (size_t i = 0; i < FAKE_TPMS_MAX; i++)
                if (v->tpms[i].used && uuid_equal(v->tpms[i].uuid, uuid))
                        return &v->tpms[i];
        return NULL;
}

static void tell(FakeVtpm *v, Uuid uuid, VtpmChange change) {
        if (v->engine)
                engine_on_vtpm_event(v->engine, uuid, change);
}

static VtpmVerdict carry_out(FakeVtpm *v, FakeVtpmCall *c) {
        FakeTpm *t = fake_vtpm_find(v, c->uuid);

        if (c->op == FAKE_DEFINE) {
                if (t)
                        return VTPM_EXISTS;
                (void) fake_vtpm_add(v, c->uuid, c->text);
                return VTPM_DONE;
        }
        if (!t)
                return VTPM_NO_SUCH;
        switch (c->op) {
        case FAKE_START:
                if (t->state == VTPM_RUNNING)
                        return t->model == c->model ? VTPM_DONE : VTPM_BAD_STATE;
                t->state = VTPM_RUNNING;
                t->model = c->model;
                t->starts++;
                break;
        case FAKE_STOP:
                if (t->state == VTPM_DEFINED)
                        return VTPM_BAD_STATE;
                if (v->before_stop)
                        v->before_stop(v->stop_userdata, c->uuid);
                t->state = VTPM_DEFINED;
                t->model = TPM_MODEL_NONE;
                t->stops++;
                break;
        case FAKE_RESET:
                if (t->state != VTPM_RUNNING)
                        return VTPM_BAD_STATE;
                t->resets++;
                break;
        case FAKE_UNDEFINE:
                free(t->name);
                free(t->guest);
                *t = (FakeTpm) {};
                tell(v, c->uuid, VTPM_REMOVED);
                return VTPM_DONE;
        default:
                free(t->guest);
                t->guest = c->text ? strdup(c->text) : NULL;
                t->guest_uuid = c->guest_uuid;
        }
        tell(v, c->uuid, VTPM_CHANGED);
        return VTPM_DONE;
}

static void call_free(FakeVtpmCall *c) {
        free(c->text);
        free(c);
}

unsigned fake_vtpm_answer(FakeVtpm *v) {
        FakeVtpmCall *calls = TAKE(v->calls);
        unsigned n = 0;

        while (calls) {
                FakeVtpmCall *c = calls;
                VtpmVerdict verdict = v->fail[c->op];

                calls = c->next;
                v->fail[c->op] = VTPM_DONE;
                if (verdict == VTPM_DONE)
                        verdict = carry_out(v, c);
                c->done(c->userdata, 0, verdict, verdict == VTPM_DONE ? NULL : "said the fake", c->uuid);
                call_free(c);
                n++;
        }
        return n;
}

static int on_answer(sd_event_source *s, void *userdata) {
        FakeVtpm *v = userdata;

        if (!v->held)
                (void) fake_vtpm_answer(v);
        return 0;
}

static int queue(Vtpm *vtpm, FakeVtpmOp op, Uuid uuid, TpmModel model, const char *text, vtpm_done_t done,
                 void *userdata) {
        FakeVtpm *v = fake_of(vtpm);
        FakeVtpmCall *c = calloc(1, sizeof *c), **last = &v->calls;

        *c = (FakeVtpmCall) { .op = op,
                              .uuid = uuid,
                              .model = model,
                              .text = text ? strdup(text) : NULL,
                              .done = done,
                              .userdata = userdata };
        while (*last)
                last = &(*last)->next;
        *last = c;
        return v->source ? sd_event_source_set_enabled(v->source, SD_EVENT_ONESHOT)
                         : sd_event_add_defer(v->event, &v->source, on_answer, v);
}

/* ---- VtpmOps ---- */

static int op_define(Vtpm *v, const VtpmSpec *spec, vtpm_done_t done, void *userdata) {
        return queue(v, FAKE_DEFINE, spec->uuid, TPM_MODEL_NONE, spec->name, done, userdata);
}

static int op_start(Vtpm *v, Uuid uuid, TpmModel model, vtpm_done_t done, void *userdata) {
        return queue(v, FAKE_START, uuid, model, NULL, done, userdata);
}

static int op_stop(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata) {
        return queue(v, FAKE_STOP, uuid, TPM_MODEL_NONE, NULL, done, userdata);
}

static int op_reset(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata) {
        return queue(v, FAKE_RESET, uuid, TPM_MODEL_NONE, NULL, done, userdata);
}

static int op_undefine(Vtpm *v, Uuid uuid, bool wipe, vtpm_done_t done, void *userdata) {
        return queue(v, FAKE_UNDEFINE, uuid, TPM_MODEL_NONE, NULL, done, userdata);
}

static int op_set_guest(Vtpm *v, Uuid uuid, const char *guest, Uuid guest_uuid, vtpm_done_t done,
                        void *userdata) {
        int r = queue(v, FAKE_SET_GUEST, uuid, TPM_MODEL_NONE, guest, done, userdata);
        FakeVtpmCall *last = fake_of(v)->calls;

        while (last->next)
                last = last->next;
        last->guest_uuid = guest_uuid;
        return r;
}

static int op_get(Vtpm *vtpm, Uuid uuid, VtpmView *ret) {
        static const char *const none[] = { NULL };
        FakeTpm *t = fake_vtpm_find(fake_of(vtpm), uuid);

        if (!t)
                return -ENOENT;
        *ret = (VtpmView) {
                .uuid = uuid,
                .spec = { .name = t->name, .uuid = uuid, .guest = t->guest, .guest_uuid = t->guest_uuid },
                .state = t->state,
                .model = t->model,
                .device_socket = t->device,
                .swtpm_socket = t->swtpm,
                .problems = none,
        };
        return 0;
}

static int op_find(Vtpm *vtpm, const char *name, Uuid *ret) {
        FakeVtpm *v = fake_of(vtpm);
        Uuid uuid;

        for (size_t i = 0; i < FAKE_TPMS_MAX; i++)
                if (v->tpms[i].used && strcmp(v->tpms[i].name, name) == 0) {
                        *ret = v->tpms[i].uuid;
                        return 0;
                }
        if (uuid_parse(name, &uuid) < 0 || !fake_vtpm_find(v, uuid))
                return -ENOENT;
        *ret = uuid;
        return 0;
}

static int op_list(Vtpm *vtpm, Uuid **ret, size_t *ret_n) {
        FakeVtpm *v = fake_of(vtpm);

        *ret = calloc(FAKE_TPMS_MAX, sizeof **ret);
        *ret_n = 0;
        for (size_t i = 0; i < FAKE_TPMS_MAX; i++)
                if (v->tpms[i].used)
                        (*ret)[(*ret_n)++] = v->tpms[i].uuid;
        return 0;
}

static const char *const *op_problems(Vtpm *vtpm) {
        static const char *const none[] = { NULL };

        return none;
}

static const VtpmOps ops = {
        .define = op_define,
        .start = op_start,
        .stop = op_stop,
        .reset = op_reset,
        .undefine = op_undefine,
        .set_guest = op_set_guest,
        .get = op_get,
        .find = op_find,
        .list = op_list,
        .problems = op_problems,
};

/* ---- the test's side ---- */

void fake_vtpm_init(FakeVtpm *v, sd_event *event) {
        *v = (FakeVtpm) { .vtpm = { .ops = &ops }, .event = sd_event_ref(event) };
}

static void cancel_calls(FakeVtpm *v) {
        FakeVtpmCall *calls = TAKE(v->calls);

        while (calls) {
                FakeVtpmCall *c = calls;

                calls = c->next;
                c->done(c->userdata, -ECANCELED, VTPM_DONE, NULL, c->uuid);
                call_free(c);
        }
}

void fake_vtpm_clear(FakeVtpm *v) {
        cancel_calls(v);
        for (size_t i = 0; i < FAKE_TPMS_MAX; i++) {
                free(v->tpms[i].name);
                free(v->tpms[i].guest);
        }
        v->source = sd_event_source_disable_unref(v->source);
        v->event = sd_event_unref(v->event);
}

void fake_vtpm_listen(FakeVtpm *v, void *engine) {
        v->engine = engine;
        if (!engine)
                cancel_calls(v);
}

FakeTpm *fake_vtpm_add(FakeVtpm *v, Uuid uuid, const char *name) {
        char text[UUID_STRING_SIZE];
        FakeTpm *t = v->tpms;

        while (t->used)
                t++;
        *t = (FakeTpm) { .used = true, .uuid = uuid, .name = strdup(name), .state = VTPM_DEFINED };
        (void) snprintf(t->device, sizeof t->device, "/run/guestcrypt/tpm/%s/device.sock",
                        uuid_format(uuid, text));
        (void) snprintf(t->swtpm, sizeof t->swtpm, "/run/guestcrypt/tpm/%s/swtpm.sock", text);
        tell(v, uuid, VTPM_ADDED);
        return t;
}

void fake_vtpm_fail(FakeVtpm *v, Uuid uuid) {
        fake_vtpm_find(v, uuid)->state = VTPM_FAILED;
        tell(v, uuid, VTPM_CHANGED);
}
