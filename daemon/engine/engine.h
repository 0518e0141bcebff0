/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine - requests become claims, journal entries, host plans, and are done or undone. The only holder
 * of state; knows no bus. Everything runs on the loop thread; what blocks is on the file worker or behind
 * HostOps. */

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "core/claim.h"
#include "core/host_change.h"
#include "core/snapshot.h"
#include "engine/verdict.h"
#include "host/host.h"
#include "host/host_rules.h"

#define ENGINE_OWNER_SIZE 72 /* name of a definition or text of a uuid, with NUL */

typedef struct Engine Engine;

/* ---- objects that come, go and change: for the bus's signals ---- */

typedef enum EngineObject {
        ENGINE_MANAGER, /* host masks, problems, limits */
        ENGINE_MATRIX,  /* key: uuid */
        ENGINE_MDEV,    /* key: uuid; every live mdev, ours or not */
        ENGINE_PARENT,  /* key: name */
        ENGINE_ADAPTER, /* key: id */
        ENGINE_GUEST,   /* key: uuid */
        ENGINE_TPM,     /* key: uuid */
        _ENGINE_OBJECT_MAX
} EngineObject;

typedef enum EngineChange {
        ENGINE_ADDED,
        ENGINE_CHANGED,
        ENGINE_LIVED, /* MATRIX: changed in what the host has of it (state, guest's matrix, use, problems), not in its definition */
        ENGINE_REMOVED,
} EngineChange;

typedef struct EngineKey {
        EngineObject object;
        Uuid uuid;
        const char *name;
        uint8_t id;
} EngineKey;

/* Called after the change (REMOVED: the object cannot be looked up any more). Not called for what
 * engine_new() loads before it returns. */
typedef void (*engine_event_t)(void *userdata, const EngineKey *key, EngineChange change);

/* ---- life ---- */

typedef struct EngineConfig {
        uint64_t rescan_us;            /* period of the slow rescan; default 30 s */
        unsigned max_matrices;         /* in all; default 16384 */
        unsigned max_matrices_per_uid; /* of one user but root; default 256 */
        unsigned max_calls;            /* of one caller that wait for an answer; default 512 */
} EngineConfig;

#define ENGINE_CONFIG_DEFAULT \
        ((EngineConfig) { .rescan_us = 30 * UINT64_C(1000000), \
                          .max_matrices = 16384, \
                          .max_matrices_per_uid = 256, \
                          .max_calls = 512 })

/* Loads the state directory @root_fd/@state_dir and the marks in @root_fd/@run_dir (what is live by our
 * doing, lost with the host's memory as the mdevs are). Blocks while it reads them. @host stays the
 * caller's and must outlive the engine. Recovery, adoption and autostart follow asynchronously, see
 * engine_is_settled(). -EBUSY: another daemon has the directory. */
int engine_new(sd_event *event, const EngineConfig *config, Host *host, int root_fd, const char *state_dir,
               const char *run_dir, engine_event_t event_cb, void *userdata, Engine **ret);
/* Waits for what the file worker has begun; operations in flight are left to the next start's recovery;
 * replies are not sent. */
Engine *engine_free(Engine *e);

void engine_set_config(Engine *e, const EngineConfig *config);
/* The host may have changed: rescan (coalesced). */
void engine_host_changed(Engine *e);
/* Recovery and the first autostart round have ended. */
bool engine_is_settled(const Engine *e);
/* Calls @done once, from the loop: what was interrupted is done, undone, or waits for the kernel; or the
 * host could not be looked at. To be set right after engine_new(); requests should not be made before. */
void engine_when_ready(Engine *e, void (*done)(void *userdata), void *userdata);

/* ---- requests ----
 * Each returns 0: accepted, @done will be called once, later; > 0: a Verdict, refused at once, nothing
 * changed, *reterr says why (refusal_clear() it); < 0: -errno, nothing changed. */

typedef struct EngineCaller {
        uid_t uid;
        const char *id; /* whom to count calls for: the unique bus name */
} EngineCaller;

/* Counts a question of @caller that is not answered at once, as its requests are counted while they are
 * under way. > 0: LIMIT_HIT. After 0 engine_discharge() is owed. */
int engine_admit(Engine *e, const char *caller, Refusal *reterr);
void engine_discharge(Engine *e, const char *caller);

/* @r: 0 done, > 0 a Verdict with @refusal, < 0 -errno. @uuid: the matrix or mdev. */
typedef void (*engine_done_t)(void *userdata, int r, const Refusal *refusal, Uuid uuid);

typedef struct EngineDefine {
        const char *name; /* NULL or "": the uuid's text */
        Uuid uuid;        /* null: a new one */
        ApMatrix matrix;
        const char *guest; /* or NULL */
        bool autostart, alternative;
        bool from_host;      /* take queues that the host's drivers own, at each start */
        bool start;          /* and start it */
        const char *unknown; /* foreign XML to be kept, or NULL */
} EngineDefine;

int engine_define(Engine *e, const EngineDefine *d, const EngineCaller *c, engine_done_t done,
                  void *userdata, Refusal *reterr);
/* The same from libvirt's node device XML; of @options only autostart, alternative, from_host, start,
 * guest count, where they are set. */
int engine_define_xml(Engine *e, const char *xml, size_t size, const EngineDefine *options,
                      const EngineCaller *c, engine_done_t done, void *userdata, Refusal *reterr);

int engine_start(Engine *e, Uuid uuid, bool from_host, const EngineCaller *c, engine_done_t done,
                 void *userdata, Refusal *reterr);
int engine_stop(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata,
                Refusal *reterr);
/* Definition and live mdev together. */
int engine_modify(Engine *e, Uuid uuid, const ApMatrix *m, const EngineCaller *c, engine_done_t done,
                  void *userdata, Refusal *reterr);
/* @stop: also stop it if it is started; else BAD_STATE. */
int engine_undefine(Engine *e, Uuid uuid, bool stop, const EngineCaller *c, engine_done_t done,
                    void *userdata, Refusal *reterr);
int engine_set_autostart(Engine *e, Uuid uuid, bool autostart, const EngineCaller *c, engine_done_t done,
                         void *userdata, Refusal *reterr);

typedef struct EngineAttr {
        const char *name, *value;
} EngineAttr;

int engine_create_mdev(Engine *e, const char *parent, const char *type, Uuid uuid, const EngineAttr *attrs,
                       size_t n_attrs, const EngineCaller *c, engine_done_t done, void *userdata,
                       Refusal *reterr);
/* Only what engine_create_mdev() made; NOT_OURS for others; BAD_STATE for a started matrix (stop that). */
int engine_remove_mdev(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata,
                       Refusal *reterr);

/* Gives exactly these adapters and domains to the host's drivers (apmask, aqmask), now and at each boot.
 * OVERLAP if a queue that they would get back is in a mdev. */
int engine_set_host_masks(Engine *e, const ApMask *adapters, const ApMask *domains, const EngineCaller *c,
                          engine_done_t done, void *userdata, Refusal *reterr);

/* The smallest change that takes the queues of a matrix from the host's drivers, or gives them back, until the next
 * boot; masks that are kept follow. Conflicts are refused as HOST_OWNED (more would change sides than asked for; the last
 * queue of the default domain), OVERLAP (an mdev has one, or a definition needs it) or BAD_STATE (masks and overrides
 * exclude each other). */
typedef struct EngineHostWish {
        HostWish wish; /* `no_masks` is ours to say */
        bool dry_run;  /* change nothing, but say what it would come to */
} EngineHostWish;

typedef struct EngineHostReport {
        HostChange change;
        ApMask apmask, aqmask; /* before it */
        Refusal refusal;       /* a dry run's: why it would be refused */
        char **notes;          /* NULL, or NULL-terminated lines: what follows from it */
} EngineHostReport;
typedef void (*engine_host_changed_t)(void *userdata, int r, const Refusal *refusal,
                                      const EngineHostReport *report);
int engine_change_host(Engine *e, const EngineHostWish *w, const EngineCaller *c, engine_host_changed_t done,
                       void *userdata, Refusal *reterr);

/* What is kept of the host's masks, and what keeps them from being changed. */
typedef struct EngineHostView {
        HostRules rules; /* the file of chzdev */
        char *text;      /* as it is; persisting: as it is, or would be, then. NULL: it cannot be read */
        bool changed;    /* persisting: the file was, or would be, another */
        bool kept;       /* we set these at each boot, after the file: engine_set_host_masks() */
        ApMask kept_apmask, kept_aqmask;
        bool masks_refused; /* the kernel takes none, although no queue has an override */
        Apqn last;          /* the only usable queue of the default domain */
        bool has_last;
        char **notes;
} EngineHostView;
typedef void (*engine_host_viewed_t)(void *userdata, int r, const Refusal *refusal,
                                     const EngineHostView *view);
/* Scans in detail, and reads the file. */
int engine_view_host(Engine *e, engine_host_viewed_t done, void *userdata);
/* Writes the masks as they are into the file, under the AP lock, and reads it back. */
int engine_persist_host(Engine *e, bool dry_run, const EngineCaller *c, engine_host_viewed_t done,
                        void *userdata, Refusal *reterr);

typedef struct EngineHealed {
        Uuid uuid;
        const char *name, *what; /* "started again", "could not be healed: ..." */
} EngineHealed;
typedef void (*engine_reconciled_t)(void *userdata, int r, const Refusal *refusal,
                                    const EngineHealed *healed, size_t n);
/* Scans, then heals what is ours. */
int engine_reconcile(Engine *e, const EngineCaller *c, engine_reconciled_t done, void *userdata,
                     Refusal *reterr);

/* Scans in detail, then @done (r < 0: the scan failed; what is known is then what was known). */
int engine_rescan(Engine *e, void (*done)(void *userdata, int r), void *userdata);
/* Scans, then @done; but after 40 ms at the latest, whatever has come of it (r = -ETIME): for questions. */
int engine_refresh(Engine *e, void (*done)(void *userdata, int r), void *userdata);

/* ---- questions: answered from what is known, at once ---- */

typedef struct EngineConflict {
        uint16_t adapter, domain;
        const char *
                kind; /* "host", "mdev", "definition", "mdevctl", "operation", "limit" (above the maximum) */
        char owner[ENGINE_OWNER_SIZE]; /* definition name, mdev uuid, "" for the host */
} EngineConflict;

typedef struct EngineCheck {
        ApMatrix matrix;
        Uuid self; /* not counted; null: none */
        bool alternative;
        bool start;     /* as for a start (only what is live counts) instead of a definition */
        bool from_host; /* host-owned queues do not count */
} EngineCheck;

/* -EHOSTDOWN: there is no AP bus to ask about. All conflicts; none: *ret_n = 0. free(*ret). *ret_text
 * (free()): the refusal's one line, NULL if there is none. Both may be NULL, which is faster. */
int engine_check(Engine *e, const EngineCheck *check, EngineConflict **ret, size_t *ret_n,
                 Verdict *ret_verdict, char **ret_text);

typedef enum MatrixState {
        MATRIX_UNKNOWN, /* the host has not been read yet */
        MATRIX_DEFINED, /* not live */
        MATRIX_STARTING,
        MATRIX_STARTED,
        MATRIX_CHANGING,
        MATRIX_STOPPING,
        MATRIX_LOST,   /* to be live, but is not */
        MATRIX_BROKEN, /* an operation neither succeeded nor could be undone; claims are kept */
        _MATRIX_STATE_MAX
} MatrixState;
/* "defined", "starting", ... as on the bus. */
const char *matrix_state_name(MatrixState s);

/* A view of one matrix; pointers are valid until the loop runs again. */
typedef struct EngineMatrix {
        Uuid uuid;
        const char *name, *guest; /* guest: "" if none */
        ApMatrix matrix;
        ApMask guest_adapters, guest_domains; /* empty unless live */
        MatrixState state;
        bool autostart, alternative, from_host;
        bool in_use;
        uid_t uid;                   /* who defined it */
        const char *const *problems; /* NULL-terminated lines */
} EngineMatrix;

/* -ENOENT. */
int engine_get_matrix(Engine *e, Uuid uuid, EngineMatrix *ret);
/* By name, or by uuid's text. -ENOENT; -EBADMSG: there is a record, but it was set aside. */
int engine_find_matrix(Engine *e, const char *name, Uuid *ret);
/* @n uuids in order of name; free(). */
int engine_list_matrices(Engine *e, Uuid **ret, size_t *ret_n);
/* libvirt's node device XML, free(). */
int engine_get_xml(Engine *e, Uuid uuid, char **ret);

/* The host as last seen (never NULL); valid until the loop runs again. */
const Snapshot *engine_snapshot(const Engine *e);
/* Whether live mdev @uuid is ours (a matrix or made by us). */
bool engine_is_ours(const Engine *e, Uuid uuid);
/* The libvirt guest that runs with live mdev @uuid, "" if none; valid until the loop runs again. */
const char *engine_mdev_guest(Engine *e, Uuid uuid);
/* Whether somebody runs with @mdev of the present snapshot. */
bool engine_mdev_in_use(Engine *e, const HostMdev *mdev);
/* Of a live mdev: "active", or "removing" while somebody takes it away. */
const char *engine_mdev_state(const Engine *e, Uuid uuid);
/* Who has @apqn: kind as in EngineConflict or "free"; owner as there. A live mdev comes before
 * definitions. */
void engine_queue_owner(const Engine *e, Apqn apqn, const char **ret_kind,
                        char ret_owner[static ENGINE_OWNER_SIZE]);

/* Problems of the whole (bad records, mdevctl's bad files, stuck children, masks not as kept, state
 * directory not writable): NULL-terminated, valid until the loop runs again. */
const char *const *engine_problems(Engine *e);
