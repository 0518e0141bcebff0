/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fake_engine - stands in for engine/ below the bus: keeps what it was asked, answers what it is told to. */

#include "engine/engine_guest.h"
#include "engine/engine_mdevctl.h"

#define FAKE_CODES 64

typedef struct FakeEngine {
        sd_event *event;

        /* what it answers */
        int at_once;        /* 0: accept; else this, with a refusal if > 0 */
        int later;          /* then done() with this, from the loop */
        const char *refuse; /* only this function does so; NULL: all */
        bool no_ap;
        int kernel_errno; /* of refusals: negative */
        bool hang;        /* done() is never called */
        Uuid uuid;        /* of what is made */
        EngineConflict *conflicts;
        size_t n_conflicts;
        EngineMatrix *matrices;
        size_t n_matrices;
        Snapshot *snapshot;
        const char *const *problems;
        unsigned max_calls;       /* 0: no limit */
        void (*on_get)(size_t i); /* matrix i has just been looked at */
        EngineGuest *guests;
        size_t n_guests;
        VtpmView *tpms;
        size_t n_tpms;
        bool no_vtpm;
        const char *libvirt; /* NULL: connected */
        const char *libvirt_problem;
        void (*on_asked)(const char *asked);
        const char *const *notes;
        const EngineMdevctl *mdevctl;
        size_t n_mdevctl;

        /* what it was asked last */
        const char *asked; /* name of the function; NULL: nothing */
        unsigned n_asked;
        char name[300], guest[300], unknown[64];
        Uuid asked_uuid;
        ApMatrix matrix;
        EngineDefine define;
        EngineHostWish host_wish;
        EngineCheck check;
        bool flag; /* from_host, stop, autostart */
        uid_t uid;
        char caller[64];
        size_t n_attrs, xml_size;
        unsigned n_refreshed, n_admitted, n_asked_guests;
        size_t late_guests; /* n_guests once libvirt has been asked */
        Uuid asked_other;   /* the matrix or TPM that a guest gets */
        TpmModel model;
        VtpmSpec spec; /* its strings are in texts, as are the hook's */
        uint32_t denied[FAKE_CODES];
        EngineHook hook;
        MdevctlAction action;
        EngineImport import;
        Uuid mdevs[4];
        char texts[8][300];
        char bytes[64]; /* that were read from a descriptor */
} FakeEngine;

/* What is called from the loop. */
typedef struct FakeLater {
        engine_done_t done;
        engine_reconciled_t reconciled;
        engine_host_changed_t changed;
        engine_host_viewed_t viewed;
        engine_noted_t noted;
        engine_exported_t exported;
        vtpm_counters_t counters;
        void (*plain)(void *userdata, int r);
        void *userdata;
        int result;
} FakeLater;

/* What all requests do. */
int fake_begin(const char *asked, const EngineCaller *c, FakeLater l, Refusal *reterr);

#define FAKE_TEXT "queue 05.0047 is held by definition 'payments-1'"

extern FakeEngine fake;
