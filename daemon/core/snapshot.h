/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* snapshot - what a host looked like at one moment: a value that host/ fills and the rest only reads.
 * Pure but for the memory that it owns. */

#include <stdint.h>

#include "base/uuid.h"
#include "core/ap_matrix.h"

#define SNAPSHOT_NAME_SIZE 64 /* of a parent or type, with NUL; longer ones are not listed */
#define SNAPSHOT_TEXT_SIZE 128

typedef enum CardMode {
        CARD_MODE_UNKNOWN,
        CARD_MODE_ACCEL,
        CARD_MODE_CCA,
        CARD_MODE_EP11,
        _CARD_MODE_MAX
} CardMode;

typedef struct HostCard {
        uint8_t id;
        CardMode mode;
        int hwtype;    /* decimal as in sysfs */
        char type[16]; /* "CEX8P" */
        bool online, config, chkstop;
} HostCard;

typedef struct HostType {
        uint32_t parent;             /* index into parents */
        char id[SNAPSHOT_NAME_SIZE]; /* "vfio_ap-passthrough" */
        char name[SNAPSHOT_TEXT_SIZE], device_api[SNAPSHOT_NAME_SIZE];
        uint32_t available; /* available_instances */
} HostType;

typedef struct HostParent {
        char name[SNAPSHOT_NAME_SIZE]; /* as in /sys/class/mdev_bus: "matrix", "mtty" */
        char path[256];                /* relative to /sys: "devices/vfio_ap/matrix" */
} HostParent;

/* Of other kinds than vfio_ap it is known only from the moment on when a removal was refused for it. */
typedef enum MdevUse { MDEV_USE_UNKNOWN, MDEV_USE_FREE, MDEV_USE_GUEST } MdevUse;

typedef struct HostMdev {
        Uuid uuid;
        uint32_t type; /* index into types; its parent is the type's */
        MdevUse use;
        bool leaving; /* being removed, which waits for the guest that has it: it has no attributes any more */
        bool ap;      /* of vfio_ap: the fields below mean something */
        bool matrix_known; /* false: the kernel gives no safe way to read it (see host_scan.h) */
        bool guest_known;  /* guest_adapters, guest_domains were read from the kernel */
        ApMatrix matrix;
        ApMask guest_adapters, guest_domains;
        uint64_t read_us; /* host/'s own: when `matrix` was read from the kernel, 0 if it does not know */
} HostMdev;

typedef struct Snapshot {
        bool ap;                          /* there is an AP bus */
        bool vfio_ap;                     /* and the matrix parent */
        bool has_ap_config, has_override; /* what the kernel offers */
        bool bindings_complete;
        /* The kernel's "BOUND/ALL", by which host_scan() sees changes; "" after host_child. */
        char bindings[32];
        bool detailed;     /* use and guest matrices were read too */
        bool detail_stuck; /* they could not be: the kernel hangs on them */
        uint8_t max_adapter, max_domain;
        int16_t default_domain; /* where the host's requests go that name no domain; -1: none */
        ApMask apmask, aqmask;
        ApMask host_adapters, host_domains, host_control; /* what the machine has ("host configuration") */

        /* Row a, bit d: queue a.d is there; is bound to vfio_ap; is overridden to vfio_ap; to anything else. An
         * override of a queue that is not vfio_ap's shows in detailed scans, and where it was seen before. */
        ApMask queue_present[AP_IDS], queue_vfio[AP_IDS], queue_override[AP_IDS], queue_alien[AP_IDS];

        HostCard *cards; /* by id */
        size_t n_cards;
        HostParent *parents; /* by name */
        size_t n_parents;
        HostType *types; /* by parent, then id */
        size_t n_types;
        HostMdev *mdevs; /* by uuid */
        size_t n_mdevs;
} Snapshot;

/* An empty one: no AP bus, nothing on it. NULL: out of memory. */
Snapshot *snapshot_new(void);

/* Accepts NULL; returns NULL. */
Snapshot *snapshot_free(Snapshot *s);

static inline void snapshot_freep(Snapshot **s) {
        (void) snapshot_free(*s);
}

/* A deep copy; NULL: out of memory. */
Snapshot *snapshot_copy(const Snapshot *s);

/* Binary search; NULL if there is none. Valid until the snapshot changes. */
HostMdev *snapshot_find_mdev(const Snapshot *s, Uuid uuid);
const HostParent *snapshot_find_parent(const Snapshot *s, const char *name);
const HostType *snapshot_find_type(const Snapshot *s, const char *parent, const char *type);

static inline const HostType *snapshot_type_of(const Snapshot *s, const HostMdev *m) {
        return &s->types[m->type];
}

static inline const HostParent *snapshot_parent_of(const Snapshot *s, const HostMdev *m) {
        return &s->parents[s->types[m->type].parent];
}

/* Inserts (keeping the order) or replaces. 0 or -ENOMEM. */
int snapshot_put_mdev(Snapshot *s, const HostMdev *mdev);
void snapshot_drop_mdev(Snapshot *s, Uuid uuid);

/* Whether apmask and aqmask leave everything to the host's drivers: only then the kernel takes overrides. */
bool snapshot_masks_are_full(const Snapshot *s);

/* Any queue with an override of any kind: while there is one the kernel takes no masks. False: none is known. */
bool snapshot_find_override(const Snapshot *s, Apqn *ret);

/* Which domains of @adapter the host's drivers own. Host-owned = bit set in both masks; but where the
 * kernel has overrides and both masks are full, a queue that has one, whatever it says, and is bound to vfio_ap
 * is not the host's. An override alone does not count, nor does vfio_ap alone: the kernel goes by the masks then
 * (ap_bus.c). Ids above the machine's maximum are included where the masks say so. */
ApMask snapshot_host_owned(const Snapshot *s, uint8_t adapter);

/* What a guest gets of @m: only what the machine has, and of that no adapter with a queue that is missing
 * or not bound to vfio_ap (vfio_ap_ops.c, vfio_ap_mdev_filter_matrix()). */
void snapshot_guest_matrix(const Snapshot *s, const ApMatrix *m, ApMask *ret_adapters, ApMask *ret_domains);

/* Why @adapter of @m is missing from the guest matrix. */
typedef enum GuestLoss {
        GUEST_LOSS_NONE,
        GUEST_LOSS_NO_ADAPTER, /* the machine does not have it now */
        GUEST_LOSS_NO_QUEUE,   /* *ret_domain: the queue is not there */
        GUEST_LOSS_NOT_BOUND,  /* *ret_domain: the queue has another driver, or none */
        _GUEST_LOSS_MAX
} GuestLoss;
GuestLoss snapshot_guest_loss(const Snapshot *s, const ApMatrix *m, uint8_t adapter, uint8_t *ret_domain);
