/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine_guest_internal - what the engine knows of guests, shared by
 *
 *   engine_guest.c    guests as libvirt tells of them
 *   engine_guest_names.c  who names what
 *   engine_guest_ask.c    questions about them
 *   engine_guest_text.c   what is the matter with a guest
 *   engine_hold.c     what a guest holds while it runs: kept in files, given up when it has ended
 *   engine_hook.c     libvirt's hook
 *   engine_attach.c   matrices into and out of guests, by request or because their metadata say so
 *   engine_tpm.c      the same for TPMs, and requests about TPMs
 *
 * What a guest needs done is found out anew each time it is looked at (guest_run()), and it is looked at after whatever
 * may matter to it (guest_stir()). */

#include "engine/engine_guest.h"
#include "engine/engine_internal.h"
#include "store/holds.h"

/* What others are granted. */
#define HOOK_DEADLINE_US     (4 * UINT64_C(1000000))  /* the hook itself waits 5 s */
#define HOOK_TPM_DEADLINE_US (18 * UINT64_C(1000000)) /* and 20 s for a TPM */
#define GUEST_QUESTION_US    UINT64_C(1000000)        /* for libvirt to answer one */
#define GUEST_CONNECT_US     UINT64_C(10000000)       /* the same where it has to be connected to first */

typedef struct Guest Guest;
typedef struct GuestOp GuestOp;
typedef struct HookOp HookOp;
typedef struct HoldJob HoldJob;
typedef struct GuestCall GuestCall;

/* Called when the hold is on disk, or cannot be. */
typedef void (*hold_saved_t)(void *userdata, int r);

typedef enum TakeUp { TAKE_UP_MATRIX, TAKE_UP_TPM, _TAKE_UP_MAX } TakeUp;

struct Guest {
        Engine *engine;
        Uuid uuid;
        char *name;
        char *old_name; /* libvirt has told of it by another one, which what it has may follow yet; else NULL */
        bool known;     /* libvirt has told of it */
        bool announced; /* the bus has been told */
        bool due;       /* to be looked at */
        bool name_due;  /* libvirt has told its name: whether what it has follows is to be seen */
        VirtState state;
        bool persistent, active;
        VirtWiring config, live;
        char *lacks;
        uint64_t named; /* digest of what it names */

        Hold hold;
        uint64_t hold_changes;   /* counts them: who has waited sees whether it is still the same */
        bool hold_dirty;         /* not on disk as it is */
        hold_saved_t hold_saved; /* at most one waits */
        void *hold_userdata;
        bool stopping_matrix, stopping_tpm; /* RELEASING: right now */
        bool stop_later;                    /* after a failure */
        char *stop_error;
        bool checking, check_later; /* libvirt is asked whether it has really ended */
        uint64_t checked;           /* hold_changes when it was asked */
        unsigned grace;             /* ticks in which it is not asked */
        bool plugged;               /* it got a matrix while it ran */
        bool ended;                 /* said the hook; libvirt has not told so yet */

        HookOp *hooks; /* one after the other */
        GuestOp *op;   /* at most one */

        uint64_t taken[_TAKE_UP_MAX];  /* digest of the wish that was last taken up */
        bool take_again[_TAKE_UP_MAX]; /* the same, in a while */
        char *take_error[_TAKE_UP_MAX];
        char *reset_error;
        bool reset_missed; /* may have been: we did not hear of its resets */

        char **problems;
        uint64_t shown;
        char texts[4][UUID_STRING_SIZE]; /* of engine_get_guest() */
};

/* Somebody waits for what libvirt says of a guest. */
typedef struct GuestQuestion {
        Engine *engine;
        void (*done)(void *userdata, int r); /* NULL: it was too late */
        void *userdata;
        sd_event_source *timer;
        struct GuestQuestion *next;
} GuestQuestion;

typedef struct GuestRef {
        Uuid what;
        Guest *guest;
} GuestRef;

typedef struct GuestRefs {
        GuestRef *list; /* by what */
        size_t n, allocated;
} GuestRefs;

struct Guests {
        int holds_fd;
        Virt *virt;
        Vtpm *vtpm;
        bool up, listed; /* libvirt: connected; all guests are known */
        bool wanted;     /* somebody counts on libvirt */
        char *why;       /* not up */

        Guest **by_uuid;
        size_t n, allocated;
        bool refs_stale;
        GuestRefs mdevs, others, tpms; /* who names what; others: mdevs that are no matrices */
        size_t n_waiting;              /* operations and hook calls */

        GuestCall *calls; /* of vtpm */
        GuestQuestion *questions;
        sd_event_source *run_source, *again_timer;
        HoldJob *saving;
        bool hold_failed; /* they cannot be written at the moment */
};

/* ---- engine_guest.c ---- */

Guest *guest_find(const Engine *e, Uuid uuid);
/* Found or made; @name may be NULL. NULL: out of memory. */
Guest *guest_get(Engine *e, Uuid uuid, const char *name);
/* "the guest 'NAME'", for texts. */
const char *guest_name(const Guest *g);
/* Whether @meant, of a definition, is this guest. */
bool guest_is(const Guest *g, const char *meant);

/* Whether it is to be shown: libvirt has told of it, or it holds something. */
bool guest_is_visible(const Guest *g);
/* The hook says so; libvirt will, too. */
void guest_has_ended(Guest *g);

/* It is looked at when the loop comes to it. */
void guest_stir(Guest *g);
void guests_stir_all(Engine *e);
/* After a failure: all are looked at in a while. */
void guests_again(Engine *e);
/* Who names what may be different. */
void guests_names_changed(Engine *e);
uint64_t guest_digest_add(uint64_t h, const void *data, size_t size);
#define GUEST_DIGEST UINT64_C(0xcbf29ce484222325)

/* ---- engine_guest_names.c ---- */

/* Those that name @what; *ret_n of them. */
const GuestRef *guests_naming(Engine *e, GuestRefs *refs, Uuid what, size_t *ret_n);
/* One that names it, runs with it or is meant to, but @g; NULL: none. */
const Guest *guests_other_naming(Engine *e, GuestRefs *refs, Uuid what, const Guest *g);
/* The definition that the metadata @name; NULL: none. */
Matrix *guest_declared_matrix(Engine *e, const char *name);
/* The TPM that @socket, below VIRT_TPM_DIR, belongs to. -ENOENT: none of ours. */
int guest_socket_tpm(const char *socket, Uuid *ret);
/* -ENOENT: no TPM of that name or uuid. */
int guest_declared_tpm(Engine *e, const char *name, Uuid *ret);
/* What libvirt's XML says of the guest as it runs, or as it will. */
const VirtWiring *guest_wiring(const Guest *g);
bool guest_wiring_has(const VirtWiring *w, Uuid mdev);
const char *guest_mdev_name(const Engine *e, Uuid mdev, char buf[static UUID_STRING_SIZE]);

/* ---- engine_guest_ask.c ---- */

/* Nobody is answered any more. */
void guest_questions_free(Guests *gs);

/* ---- engine_guest_text.c ---- */

/* Whose name a definition bears; NULL: libvirt has none. */
const Guest *guest_named(Engine *e, const char *name);
/* The lines about @g; strv_free(). NULL: out of memory. */
char **guest_problems(Engine *e, Guest *g);

/* ---- engine_hold.c ---- */

/* The guest that holds it, and has not ended; NULL: none. */
Guest *hold_of_matrix(const Engine *e, Uuid matrix);
Guest *hold_of_tpm(const Engine *e, Uuid tpm);
/* @h is what it has from now on; to be saved. */
void hold_begin(Guest *g, const Hold *h);
/* It has changed: goes to the disk; @saved (or NULL) is then called. */
void hold_save(Guest *g, hold_saved_t saved, void *userdata);
/* The guest has ended: what was started for it is stopped. */
void hold_release(Guest *g);
/* It runs on, without the matrix. */
void hold_drop_matrix(Guest *g);
/* No more to be done about it now: there is none, or what is left cannot be stopped. */
bool hold_is_settled(const Guest *g);
/* One of them is being stopped after another guest, or something else is done with it: to be waited for. */
bool hold_is_stopping(const Engine *e, Uuid matrix, Uuid tpm);
/* What it runs with by its live XML, or by what the hook says (@w), is its own. */
void hold_adopt(Guest *g, const VirtWiring *w, bool seen);
/* Time has passed: what has failed is tried again. */
void hold_tick(Guest *g);
/* What is to be done about it. */
void hold_run(Guest *g);
int hold_load(Engine *e, int run_fd);
/* At the end: writes what is late. */
void hold_drain(Engine *e);
/* A start or stop of a matrix for @guest; it is not stopped if another one has it meanwhile. */
int hold_start_matrix(Engine *e, Uuid matrix, engine_done_t done, void *userdata);
int hold_stop_matrix(Engine *e, Uuid matrix, Uuid guest, engine_done_t done, void *userdata);

/* ---- engine_hook.c ---- */

/* Carries the first of its hook calls on. */
void hook_run(Guest *g);
HookOp *hook_free(HookOp *h);

/* ---- engine_attach.c ---- */

/* Something is changed in a guest's XML, and what belongs to it. */
struct GuestOp {
        Guest *guest;
        VirtEditKind kind;
        unsigned phase; /* of the kind's own; 0 is the first */
        Uuid what;      /* matrix or TPM */
        bool live;
        TpmModel model;
        bool busy;     /* something will call us */
        bool known;    /* libvirt has been asked how the guest is now */
        bool changed;  /* whom `what` is meant for */
        bool starting; /* `what`: nobody else is to be so sure that it is not */
        bool held;     /* `what` is in the guest's hold because of us */
        bool unsure;   /* libvirt's answer did not come: what it did is still to be seen */
        bool next_start;
        char caller[ENGINE_CALLER_SIZE];
        engine_noted_t done; /* NULL: answered */
        void *userdata;
        int r;
        Refusal refusal;
        char **notes;
};

GuestOp *guest_op_free(GuestOp *op);
/* Makes an operation of @g; > 0: a verdict. It begins when the loop comes to it. */
int guest_op_begin(Engine *e, Uuid guest, VirtEditKind kind, Uuid what, bool live, TpmModel model,
                   const EngineCaller *c, engine_noted_t done, void *userdata, Refusal *reterr);
void guest_op_refuse(GuestOp *op, int r, const Refusal *refusal);
/* Hands it to libvirt; op->phase is @next when the answer is there, and op->r what it was. */
void guest_op_edit(GuestOp *op, const VirtEdit *edit, const char *swtpm_socket, unsigned next);
/* Asks libvirt how it is after all; then the same with op->unsure off, or on if it still does not answer. */
void guest_op_look(GuestOp *op);
/* Answers it, and frees it unless it is unsure. */
void guest_op_end(GuestOp *op);
void guest_op_note(GuestOp *op, const char *format, ...) __attribute__((format(printf, 2, 3)));
void guest_op_run(Guest *g);
/* What its metadata wish and it does not have yet. */
void guest_take_up(Guest *g);
/* What it has is meant for it by the name that it has now. */
void guest_follow_name(Guest *g);
/* Whether that is to be written, for what is meant for @meant, who was @meant_uuid, and is @wired to @g or not. */
bool guest_name_is_due(const Guest *g, bool wired, const char *meant, Uuid meant_uuid);
/* Whether @m may be @g's (@name): not meant for, and not held by, another guest. */
int guest_may_have_matrix(Engine *e, const Guest *g, const char *name, const Matrix *m, Refusal *reterr);
bool guest_cannot_have_ap(const Guest *g);
/* A call of a client, counted until it is answered; our own are not. */
int guest_admit(Engine *e, const EngineCaller *c, Refusal *reterr);
void guest_discharge(Engine *e, const char *caller);

/* ---- engine_tpm.c ---- */

/* A call of vtpm whose completion may come after the engine has gone, and is then dropped. */
typedef void (*guest_called_t)(Engine *e, void *userdata, int r, VtpmVerdict verdict, const char *text,
                               Uuid uuid);
GuestCall *guest_call_new(Engine *e, guest_called_t done, void *userdata);
/* The vtpm_done_t of all of them. */
void guest_call_done(void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid);
/* What vtpm answered at once: if it was not accepted, @c is dropped, and @r is still to be dealt with. */
int guest_call_made(GuestCall *c, int r);
void guest_calls_orphan(Engine *e);
int guest_may_have_tpm(Engine *e, const Guest *g, const char *name, const VtpmView *v, Refusal *reterr);
void guest_tpm_run(GuestOp *op);
void guest_tpm_follow_name(Guest *g);
int guest_refuse_vtpm(Refusal *reterr, VtpmVerdict verdict, const char *text);
/* The machine was reset: so is its TPM. */
void guest_reset_tpm(Guest *g);
