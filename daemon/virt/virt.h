/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt - libvirt as the engine sees it: the guests there are, and changes of their XML, all asynchronous. The one
 * implementation (virt_child) is the loop's side of a process of its own, guestcryptd-virt, which makes every libvirt
 * call: libvirt's library alone would triple the daemon's memory, and a libvirt call that hangs cannot be cancelled, but
 * its process can be killed and replaced.
 *
 * Completions and events run from the event loop; completions exactly once for each accepted call, never before
 * the call has returned. */

#include <systemd/sd-event.h>

#include "virt/virt_xml.h"

typedef struct Virt Virt;

typedef enum VirtState {
        VIRT_STATE_UNKNOWN,
        VIRT_STATE_SHUTOFF,
        VIRT_STATE_RUNNING,
        VIRT_STATE_PAUSED,   /* also blocked, suspended by power management */
        VIRT_STATE_SHUTDOWN, /* being shut down */
        VIRT_STATE_CRASHED,
        _VIRT_STATE_MAX
} VirtState;

typedef struct VirtGuest {
        Uuid uuid;
        char *name;
        VirtState state;
        bool persistent;         /* `config` is set */
        bool active;             /* `live` is set: a QEMU process */
        VirtWiring config, live; /* the inactive XML; the live one */
        char *lacks; /* s390x: CPU features of ap, apft, apqci, apqi that it will not have, "apft, apqi"; or NULL */
} VirtGuest;

typedef struct VirtEvents {
        /* @why: one line if it is not up, also when trying again has failed for another reason. */
        void (*connection)(void *userdata, bool up, const char *why);
        /* New, or changed. Valid during the call. */
        void (*guest)(void *userdata, const VirtGuest *g);
        void (*gone)(void *userdata, Uuid uuid);
        /* After a (re)connect all that there are have been told, and those that are not there any more are gone. */
        void (*listed)(void *userdata);
        /* The machine was really reset (VIR_DOMAIN_EVENT_ID_REBOOT). */
        void (*reboot)(void *userdata, Uuid uuid);
} VirtEvents;

typedef enum VirtVerdict {
        VIRT_DONE,
        VIRT_NO_SUCH_GUEST,
        VIRT_REFUSED,     /* OTHER of virt_xml_edit(): the guest has another */
        VIRT_UNSUPPORTED, /* CANNOT, or the emulator has no such device: text says what would work */
        VIRT_CHANGED, /* somebody else redefined it again and again meanwhile: nothing of ours was written over theirs */
        VIRT_LIBVIRT, /* libvirt said no: its text and code */
        VIRT_UNAVAILABLE, /* no connection, or it did not answer in time; what it did is unknown only if `unknown` */
        _VIRT_VERDICT_MAX
} VirtVerdict;

typedef struct VirtOutcome {
        VirtVerdict verdict;
        bool config_changed, live_changed;
        bool next_start;  /* the running guest gets it (or loses it) when it is started the next time */
        bool unknown;     /* UNAVAILABLE in the middle of a change: look again */
        const char *text; /* one line, or NULL */
        TpmModel model;   /* ATTACH_TPM: the one that was taken */
} VirtOutcome;

typedef void (*virt_done_t)(void *userdata, int r, const VirtOutcome *outcome);

typedef struct VirtOps {
        /* Edits the persistent XML: read, edit, validated and defined by libvirt, only if it is then still what was read;
         * and if the guest runs and @live, plugs the matrix in or out. Either both or, as far as libvirt lets us, neither. A
         * VirtEdit's model NONE: chosen by what the emulator can; its strings are copied. For ATTACH_TPM give
         * @swtpm_socket too, for the case that crb or tis is chosen. -EBUSY: too many wait. */
        int (*edit)(Virt *v, Uuid guest, const VirtEdit *edit, const char *swtpm_socket, bool live,
                    virt_done_t done, void *userdata);
        /* Reads this guest anew and tells guest() or gone(), then @done: DONE in both cases, or UNAVAILABLE. */
        int (*refresh)(Virt *v, Uuid guest, virt_done_t done, void *userdata);
        /* The same of the guest with this name (or uuid's text), which may not have been told of yet. Where there is no
         * connection, it is tried to make one first. */
        int (*find)(Virt *v, const char *name, virt_done_t done, void *userdata);
        bool (*is_up)(const Virt *v);
        void (*free)(Virt *v);
} VirtOps;

struct Virt {
        const VirtOps *ops;
};

typedef struct VirtConfig {
        const char *uri;      /* "" or NULL: no libvirt; default qemu:///system */
        uint64_t deadline_us; /* for one call; default 20 s */
} VirtConfig;

/* Starts @program (run as "PROGRAM URI") with its socket as VIRT_CHILD_FD; starts it again, later and later, when it ends or
 * hangs. @events stays the caller's. 0 or -errno. */
#define VIRT_CHILD_FD 3
int virt_child_new(sd_event *event, const VirtConfig *config, const char *program, const VirtEvents *events,
                   void *userdata, Virt **ret);

/* Accepts NULL; returns NULL. Pending completions are not called any more. */
Virt *virt_free(Virt *v);
