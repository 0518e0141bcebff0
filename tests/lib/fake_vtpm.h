/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fake_vtpm - TPMs without swtpm: VtpmOps on a table. It outlives the engine, as TPMs do. Answers come from the loop, or
 * when the test wants them, or never. */

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "vtpm/vtpm.h"

#define FAKE_TPMS_MAX 16

typedef enum FakeVtpmOp {
        FAKE_DEFINE,
        FAKE_START,
        FAKE_STOP,
        FAKE_RESET,
        FAKE_UNDEFINE,
        FAKE_SET_GUEST,
        _FAKE_VTPM_OP_MAX
} FakeVtpmOp;

typedef struct FakeTpm {
        bool used;
        Uuid uuid, guest_uuid;
        char *name, *guest;
        VtpmState state;
        TpmModel model;
        unsigned starts, stops, resets;
        char device[128], swtpm[128];
} FakeTpm;

typedef struct FakeVtpmCall FakeVtpmCall;

typedef struct FakeVtpm {
        Vtpm vtpm;
        sd_event *event;
        void *engine; /* NULL: nobody listens */
        bool held;
        VtpmVerdict fail[_FAKE_VTPM_OP_MAX]; /* of the next one */
        FakeTpm tpms[FAKE_TPMS_MAX];
        FakeVtpmCall *calls;
        sd_event_source *source;
        void (*before_stop)(void *userdata, Uuid uuid);
        void *stop_userdata;
} FakeVtpm;

void fake_vtpm_init(FakeVtpm *v, sd_event *event);
void fake_vtpm_clear(FakeVtpm *v);
/* NULL: the engine has gone; what it waits for is answered to nobody. */
void fake_vtpm_listen(FakeVtpm *v, void *engine);
unsigned fake_vtpm_answer(FakeVtpm *v);
FakeTpm *fake_vtpm_add(FakeVtpm *v, Uuid uuid, const char *name);
FakeTpm *fake_vtpm_find(FakeVtpm *v, Uuid uuid);
/* It ends by itself. */
void fake_vtpm_fail(FakeVtpm *v, Uuid uuid);
