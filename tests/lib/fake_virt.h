/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fake_virt - a libvirt without libvirt: guests with their configurations, VirtOps on them, and events to the engine. It
 * outlives the engine, as libvirt does. Answers come from the loop, or when the test wants them, or never. */

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "virt/virt.h"

#define FAKE_GUESTS_MAX 16

typedef struct FakeGuest {
        bool used;
        VirtGuest g;
        unsigned redefined; /* times that it was defined */
} FakeGuest;

typedef struct FakeCall FakeCall;

typedef struct FakeVirt {
        Virt virt;
        sd_event *event;
        const VirtEvents *events; /* NULL: nobody listens */
        void *userdata;
        bool up, held;       /* held: calls wait for fake_virt_answer() */
        VirtVerdict verdict; /* of the next edit; it changes nothing, unless `unknown_done` */
        bool fail_next, unknown, unknown_done;
        bool fail_looks; /* fail_next is about a refresh, not about an edit */
        bool full;       /* takes no call */
        unsigned n_edits, n_refreshes;
        FakeGuest guests[FAKE_GUESTS_MAX];
        FakeCall *calls;
        sd_event_source *source;
        /* Whether a live plug works: asks the host. */
        bool (*can_plug)(void *userdata, Uuid mdev);
        void (*plugged)(void *userdata, Uuid mdev, bool in);
        void *plug_userdata;
        bool silent;                    /* guests change without an event */
        Uuid told[FAKE_GUESTS_MAX * 2]; /* the engine knows of them */
        size_t n_told;
} FakeVirt;

void fake_virt_init(FakeVirt *v, sd_event *event);
void fake_virt_clear(FakeVirt *v);
/* The engine listens, and is told all; NULL: it is gone, and so is what it waits for. */
void fake_virt_listen(FakeVirt *v, void *engine);
void fake_virt_connect(FakeVirt *v);
void fake_virt_disconnect(FakeVirt *v);
/* Those calls that wait; the number of them. */
unsigned fake_virt_answer(FakeVirt *v);
unsigned fake_virt_waiting(const FakeVirt *v);
/* Whether one of them is to change a guest. */
bool fake_virt_waits_for_edit(const FakeVirt *v);

FakeGuest *fake_virt_find(FakeVirt *v, Uuid uuid);
/* Defined anew, with what @config says; @config NULL: undefined (what runs goes on as a transient one). */
void fake_virt_define(FakeVirt *v, Uuid uuid, const char *name, const VirtWiring *config);
void fake_virt_rename(FakeVirt *v, Uuid uuid, const char *name);
/* Runs, with its configuration; or does not any more. */
void fake_virt_run(FakeVirt *v, Uuid uuid, bool active);
/* By somebody's hand: @mdev into what runs, NULL: out of it what it has; and @config: of its configuration as well. */
void fake_virt_plug(FakeVirt *v, Uuid uuid, const Uuid *mdev, bool config);
void fake_virt_reboot(FakeVirt *v, Uuid uuid);
/* Tells what there is of @uuid. */
void fake_virt_tell(FakeVirt *v, Uuid uuid);
