/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm - a TPM's life: its definition and state on disk, swtpm and the device process, their sockets. All asynchronous;
 * completions and events run from the loop, completions exactly once for each accepted call (but for vtpm_free()), never before it has returned.
 *
 *   STATE/tpms/UUID/tpm.json     the definition; a directory without it is no TPM (a creation that did not end: removed)
 *   STATE/tpms/UUID/state/       swtpm's, owned by the TPM's own uid, 0700
 *   STATE/tpms/UUID/lock         held by whoever runs it (swtpm inherits it): a TPM is never started twice
 *   /run/guestcrypt/tpm/UUID/    device.sock (virtio) or swtpm.sock (crb, tis): 0660, group of QEMU's user; the directory is
 *                                0750 with that group; control.sock, pids: root's only
 * An ephemeral TPM has its state below /run and a new one at each start. */

#include <systemd/sd-event.h>

#include "base/uuid.h"
#include "core/tpm_model.h"

#define VTPM_NAME_MAX 64

typedef struct Vtpm Vtpm;

typedef enum VtpmState {
        VTPM_CREATING, /* swtpm_setup runs; or being restored, imported */
        VTPM_DEFINED,  /* not running */
        VTPM_STARTING,
        VTPM_RUNNING,
        VTPM_STOPPING,
        VTPM_DEGRADED, /* runs, but the guest has no use of it until its next start or reboot: problems say why */
        VTPM_FAILED, /* ended by itself, or could not be started: problems say why */
        _VTPM_STATE_MAX
} VtpmState;
/* "creating", "defined", ... as on the bus. */
const char *vtpm_state_name(VtpmState s);

/* What can be chosen for a TPM. */
typedef struct VtpmSpec {
        const char *name;  /* unique; as a matrix is named (record_name_is_valid()) */
        Uuid uuid;         /* null: a new one */
        const char *guest; /* meant for this guest, or NULL */
        Uuid guest_uuid;   /* as set with it; null: not known */
        bool ephemeral;
        bool encrypted;        /* state is encrypted with a key of its own, made at creation... */
        const char *key_file;  /* ... or with the key in this file (32 bytes, or 64 hex digits); or NULL */
        const char *pcr_banks; /* "sha256" (default), "sha1,sha256", ... */
        const char *profile;   /* swtpm's, where it has profiles (0.10); or NULL */
        const char *
                ca_config; /* swtpm_setup's configuration (certificate authority); NULL: our own authority */
        bool no_certificates;   /* neither EK nor platform certificate */
        bool platform_keep;     /* leave the platform hierarchy to the guest's firmware */
        const uint32_t *denied; /* TPM commands that the guest may not send (virtio only) */
        size_t n_denied;
        uid_t owner; /* who defined it */
} VtpmSpec;

/* A view; pointers are valid until the loop runs again. */
typedef struct VtpmView {
        Uuid uuid;
        VtpmSpec spec; /* with all that was left open set */
        VtpmState state;
        TpmModel model; /* of the run: VIRTIO, or CRB/TIS (swtpm alone); NONE: not running */
        uid_t uid;      /* the TPM's own */
        const char *device_socket, *swtpm_socket; /* where they are or would be */
        const char *const *problems;              /* NULL-terminated */
} VtpmView;

typedef enum VtpmVerdict {
        VTPM_DONE,
        VTPM_NO_SUCH,
        VTPM_EXISTS,    /* name or uuid taken */
        VTPM_BAD_STATE, /* running, not running, being changed */
        VTPM_IN_USE,    /* somebody else runs it (holds its lock), or its state */
        VTPM_INVALID,   /* the request makes no sense */
        VTPM_LIMIT,
        VTPM_TOOL,        /* swtpm_setup, swtpm or the device said no: their words */
        VTPM_UNAVAILABLE, /* swtpm is missing or too old; state directory cannot be written */
        VTPM_BAD_RECORD,  /* a backup, a state or a definition that cannot be used */
        VTPM_TIMEOUT,
        _VTPM_VERDICT_MAX
} VtpmVerdict;

/* r: 0 with @verdict and, unless DONE, one line of @text; < 0: -errno. @uuid: the TPM. */
typedef void (*vtpm_done_t)(void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid);

typedef struct VtpmCounter {
        char name[32]; /* as the device's control socket names it: "commands", "errors", ... */
        uint64_t value;
} VtpmCounter;
/* As vtpm_done_t; DONE has the counters, valid during the call. */
typedef void (*vtpm_counters_t)(void *userdata, int r, VtpmVerdict verdict, const char *text,
                                const VtpmCounter *counters, size_t n);

typedef enum VtpmChange { VTPM_ADDED, VTPM_CHANGED, VTPM_REMOVED } VtpmChange;
typedef void (*vtpm_event_t)(void *userdata, Uuid uuid, VtpmChange change);

typedef struct VtpmOps {
        int (*define)(Vtpm *v, const VtpmSpec *spec, vtpm_done_t done, void *userdata);
        /* For a run with @model (not NONE). Done when a VMM may connect: processes run, sockets listen, the TPM is powered on
         * and its platform hierarchy closed (virtio, unless platform_keep). One that runs already with this model is DONE. */
        int (*start)(Vtpm *v, Uuid uuid, TpmModel model, vtpm_done_t done, void *userdata);
        int (*stop)(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata);
        /* The machine was really reset: so is the TPM before its next command (virtio; QEMU does it itself for crb, tis). */
        int (*reset)(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata);
        /* @wipe: its state is destroyed with it; else a TPM that has state is BAD_STATE (ephemeral ones have none). */
        int (*undefine)(Vtpm *v, Uuid uuid, bool wipe, vtpm_done_t done, void *userdata);
        /* The guest it is meant for; NULL: none. */
        int (*set_guest)(Vtpm *v, Uuid uuid, const char *guest, Uuid guest_uuid, vtpm_done_t done,
                         void *userdata);
        /* Whole TPM (definition, state, key if its own) to or from one file; @fd is duplicated. Not while it runs. A backup is
         * written with a checksum; restore takes name and uuid from @spec where set (a TPM that still exists is EXISTS). */
        int (*backup)(Vtpm *v, Uuid uuid, int fd, vtpm_done_t done, void *userdata);
        int (*restore)(Vtpm *v, int fd, const VtpmSpec *spec, vtpm_done_t done, void *userdata);
        /* A copy of a state that libvirt made for a guest (/var/lib/libvirt/swtpm/UUID); libvirt's own is left as it is. */
        int (*import)(Vtpm *v, const char *directory, const VtpmSpec *spec, vtpm_done_t done,
                      void *userdata);
        int (*counters)(Vtpm *v, Uuid uuid, vtpm_counters_t done, void *userdata);

        int (*get)(Vtpm *v, Uuid uuid, VtpmView *ret);     /* -ENOENT */
        int (*find)(Vtpm *v, const char *name, Uuid *ret); /* by name, or by uuid's text; -ENOENT */
        int (*list)(Vtpm *v, Uuid **ret, size_t *ret_n);   /* in order of name; free() */
        const char *const *(*problems)(Vtpm *v);           /* bad records and the like */
        void (*free)(Vtpm *v);
} VtpmOps;

struct Vtpm {
        const VtpmOps *ops;
};

/* How swtpm and the device are run. */
typedef struct VtpmConfig {
        int root_fd;           /* the root below which all lies */
        const char *state_dir; /* "var/lib/guestcrypt" */
        const char *run_dir;   /* "run/guestcrypt" */
        const char *group;     /* of QEMU's user: "libvirt-qemu", "qemu"; NULL or "": root's */
        uid_t uid_base;        /* TPMs get uids from here on: default 1900000000 */
        /* program that starts one: "PROGRAM --root=. --tpm-job=UUID", --tpm-swtpm=, --tpm-device= */
        const char *launcher;
        void *units;       /* sd_bus * to systemd's manager; NULL: processes of our own */
        unsigned max_tpms; /* default 1024 */
} VtpmConfig;

/* Loads definitions, adopts what runs. Blocks while it reads them. 0 or -errno. */
int vtpm_new(sd_event *event, const VtpmConfig *config, vtpm_event_t event_cb, void *userdata, Vtpm **ret);
/* What runs goes on; completions that are due are not called any more. Accepts NULL; returns NULL. */
Vtpm *vtpm_free(Vtpm *v);

/* What the launcher does for each: a job makes, copies or removes a TPM on disk; the others take the lock, make the sockets, give up
 * rights, and become swtpm or the device: they return only on error. The exit status. */
int vtpm_launch_job(int root_fd, const char *uuid);
int vtpm_launch_swtpm(int root_fd, const char *uuid);
int vtpm_launch_device(int root_fd, const char *uuid);
