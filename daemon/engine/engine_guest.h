/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine_guest - guests and TPMs: what of libvirt's guests concerns us, who holds what while it runs, libvirt's hook.
 * The rules are those of engine.h: requests return 0 (accepted), a Verdict with *reterr, or -errno. */

#include "core/tpm_model.h"
#include "engine/engine.h"
#include "virt/virt.h"
#include "vtpm/vtpm.h"

/* Given to virt_child_new() and vtpm_new() with the Engine as userdata. */
extern const VirtEvents engine_virt_events;
void engine_on_vtpm_event(void *userdata, Uuid uuid, VtpmChange change);
/* Both stay the caller's and must outlive the engine; NULL: there is none. To be called right after engine_new(). After
 * engine_free() they are freed before the loop runs again. */
void engine_set_virt(Engine *e, Virt *v);
void engine_set_vtpm(Engine *e, Vtpm *v);

/* ---- guests ---- */

/* libvirt as seen from here: "connected", "disconnected" (engine_problems() says why), "none" (there is none to be asked). */
const char *engine_libvirt(Engine *e);
/* Why it is not connected, one line; NULL: it is, or nobody knows yet. Valid until the loop runs again. */
const char *engine_libvirt_problem(Engine *e);

/* A view of one guest; pointers are valid until the loop runs again. */
typedef struct EngineGuest {
        Uuid uuid;
        const char *name;
        const char *state; /* "unknown", "shutoff", "running", "paused", "shutdown", "crashed" */
        bool persistent, active;
        const char *matrix,
                *live_matrix;       /* name of the definition, or the mdev's uuid, that the XML names; "" */
        const char *tpm, *live_tpm; /* name of one of our TPMs; "" */
        TpmModel tpm_model, live_tpm_model;
        const char *const *problems; /* NULL-terminated */
} EngineGuest;

int engine_get_guest(Engine *e, Uuid uuid, EngineGuest *ret);  /* -ENOENT */
int engine_find_guest(Engine *e, const char *name, Uuid *ret); /* by name, or uuid's text; -ENOENT */
/* Has libvirt asked for a guest that is not known, since it may have been defined just now; then @done, but after a second
 * at the latest (ten where libvirt has to be connected to first), whatever has come of it. -EHOSTDOWN: there is no libvirt
 * to be asked. */
int engine_ask_guest(Engine *e, const char *name, void (*done)(void *userdata, int r), void *userdata);
int engine_list_guests(Engine *e, Uuid **ret, size_t *ret_n); /* in order of name; free() */

/* @r as in engine_done_t; @notes: NULL-terminated lines, what needs the guest's next start. */
typedef void (*engine_noted_t)(void *userdata, int r, const Refusal *refusal, const char *const *notes);

/* Wires @matrix (a definition of ours) into the guest's persistent XML, starts it and plugs it in if the guest runs and
 * @live. The definition is then meant for this guest. All or nothing. */
int engine_attach_matrix(Engine *e, Uuid guest, Uuid matrix, bool live, const EngineCaller *c,
                         engine_noted_t done, void *userdata, Refusal *reterr);
/* The guest's matrix, whichever it is. */
int engine_detach_matrix(Engine *e, Uuid guest, bool live, const EngineCaller *c, engine_noted_t done,
                         void *userdata, Refusal *reterr);
/* @model NONE: chosen. */
int engine_attach_tpm(Engine *e, Uuid guest, Uuid tpm, TpmModel model, const EngineCaller *c,
                      engine_noted_t done, void *userdata, Refusal *reterr);
int engine_detach_tpm(Engine *e, Uuid guest, const EngineCaller *c, engine_noted_t done, void *userdata,
                      Refusal *reterr);

/* ---- TPMs: questions through engine_vtpm()->ops ---- */

/* NULL: there are none. */
Vtpm *engine_vtpm(Engine *e);
int engine_define_tpm(Engine *e, const VtpmSpec *spec, const EngineCaller *c, engine_done_t done,
                      void *userdata, Refusal *reterr);
int engine_start_tpm(Engine *e, Uuid uuid, TpmModel model, const EngineCaller *c, engine_done_t done,
                     void *userdata, Refusal *reterr);
/* IN_USE while a guest runs with it. */
int engine_stop_tpm(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata,
                    Refusal *reterr);
/* IN_USE while a guest's XML names it. */
int engine_undefine_tpm(Engine *e, Uuid uuid, bool wipe, const EngineCaller *c, engine_done_t done,
                        void *userdata, Refusal *reterr);
int engine_backup_tpm(Engine *e, Uuid uuid, int fd, const EngineCaller *c, engine_done_t done,
                      void *userdata, Refusal *reterr);
int engine_restore_tpm(Engine *e, int fd, const VtpmSpec *spec, const EngineCaller *c, engine_done_t done,
                       void *userdata, Refusal *reterr);
int engine_import_tpm(Engine *e, const char *directory, const VtpmSpec *spec, const EngineCaller *c,
                      engine_done_t done, void *userdata, Refusal *reterr);
int engine_tpm_counters(Engine *e, Uuid uuid, const EngineCaller *c, vtpm_counters_t done, void *userdata,
                        Refusal *reterr);
/* What a VtpmVerdict is here. */
Verdict engine_verdict_of_vtpm(VtpmVerdict v);

/* ---- libvirt's hook ---- */

/* What the hook has read from the XML on its standard input; all strings may be NULL. */
typedef struct EngineHook {
        const char *operation, *suboperation, *extra; /* "prepare", "begin", "-" */
        Uuid guest;
        const char *name;
        const Uuid *mdevs; /* hostdevs of model vfio-ap */
        size_t n_mdevs;
        const char *matrix, *tpm; /* metadata */
        TpmModel tpm_wish;
        TpmModel tpm_model; /* wired in */
        const char *tpm_socket;
} EngineHook;

/* prepare: starts what the guest needs and marks it as held by this guest; refused as a whole, with what had been started for
 * it stopped again. start, started, reconnect: adopts. stopped, release: gives up what this guest uuid holds, and stops only what
 * was started for it; never refused. restore, migrate: UNSUPPORTED for a guest with a virtio TPM. Never asks libvirt. */
int engine_hook(Engine *e, const EngineHook *h, const EngineCaller *c, engine_done_t done, void *userdata,
                Refusal *reterr);
