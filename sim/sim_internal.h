/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The model's own types, for sim/ only. Object first: a Sim owns everything; cards and queues are slots that
 * exist or not; mdevs are allocated one by one. */

#include "sim/sim.h"

#define SIM_UUID_SIZE   37
#define SIM_MDEV_HASH   8192u /* buckets, a power of two */
#define SIM_QUEUES      (SIM_IDS * SIM_IDS)
#define SIM_TYPES       2
#define SIM_FAULTS_MAX  64
#define SIM_TYPE_OLDEST 10u /* CEX4: older ones are not supported by the drivers */
#define SIM_TYPE_NEWEST 14u /* CEX8: newer ones are handled as such */

typedef struct SimMdev SimMdev;
typedef struct SimQueue SimQueue;
typedef struct SimPending SimPending;

typedef enum SimDriver { SIM_NO_DRIVER, SIM_CEX4CARD, SIM_CEX4QUEUE, SIM_VFIO_AP } SimDriver;

/* What of the kernel's locks matters: who holds one while it waits for ever stops others. */
enum {
        SIM_LOCK_MDEVS = 1 << 0, /* vfio_ap's, uninterruptible */
        SIM_LOCK_PERMS = 1 << 1, /* the AP bus', interruptible */
};

struct SimQueue {
        SimQueue *prev, *next; /* in the order in which they came to the bus */
        uint64_t serial, bound_serial;
        uint64_t waiter; /* the pending operation that waits for the end of its reset, or 0 */
        char *override;
        SimMdev *owner; /* also of a queue that does not exist */
        unsigned zeroized;
        uint8_t driver;
        bool exists, config, chkstop, online;
        bool hole, stuck, resetting;
        bool reset_failed; /* the last one, since the machine did not have it */
        bool reset_again;  /* has to be, when the present one has ended */
        bool leaving;      /* vfio_ap; what that resets is being reset */
};

typedef struct SimCard {
        bool hw_config, hw_chkstop; /* the machine */
        uint8_t hw_mode, hw_type;
        bool exists, bound, config, chkstop, online; /* what the bus has seen of it */
        uint8_t mode, raw_type;
        uint64_t serial;
        char serialnr[SIM_SERIAL_SIZE];
} SimCard;

typedef enum SimParentKind { SIM_PARENT_VFIO_AP, SIM_PARENT_MTTY } SimParentKind;

typedef struct SimParent {
        SimParentKind kind;
        char name[32];
        unsigned left; /* instances or ports */
        bool present;
        SimMdev *first, *last;
} SimParent;

struct SimMdev {
        char uuid[SIM_UUID_SIZE];
        SimParent *parent;
        SimMdev *prev, *next; /* of the parent, in order of creation */
        SimMdev *hash_next;
        uint64_t serial;
        unsigned type;
        int group;            /* iommu group and VFIO device number, -1 without a driver */
        bool bound, removing; /* removing: waits for its guest */
        bool guest, dead;
        unsigned refs; /* open files and pending operations; a dead one goes with the last */
        SimMask ap, aq, ad;
        SimMask guest_ap, guest_aq, guest_ad; /* what a guest gets */
        SimMask add_ap, add_aq, add_ad;       /* amid a scan: what it brings */
        unsigned config_events, request_events;
};

typedef struct SimText {
        char *p;
        size_t n, size; /* n never reaches size: there is room for a NUL */
} SimText;

typedef struct SimNode SimNode;

typedef struct SimAttr {
        const char *name;
        mode_t mode;
        void (*show)(Sim *s, const SimNode *node, SimText *t);
        ssize_t (*store)(Sim *s, const SimNode *node, const char *data, size_t size);
        bool (*visible)(const Sim *s, const SimNode *node);
        uint8_t show_locks, store_locks; /* needed; the access waits for their holder */
} SimAttr;

typedef struct SimLink {
        const char *name; /* NULL: made by the directory's list function */
        void (*target)(const Sim *s, const SimNode *node, SimText *t);
        bool (*visible)(const Sim *s, const SimNode *node);
} SimLink;

/* A place in the tree; @attr or @link set: that entry of the directory @dir. */
struct SimNode {
        uint8_t dir, adapter, domain, index;
        SimParent *parent;
        SimMdev *mdev;
        const SimAttr *attr;
        const SimLink *link;
        uint64_t serial;
        bool fixed; /* is there as long as its directory is */
};

typedef struct SimFault {
        char pattern[128];
        bool read, write, hang;
        int error;
        uint64_t skip, count; /* accesses left to pass, then to hit */
        uint64_t delay;
} SimFault;

typedef enum SimPendingKind {
        SIM_PEND_RETRY,  /* waits for locks, then starts */
        SIM_PEND_HANG,   /* a fault's, until released, then starts */
        SIM_PEND_RESULT, /* is done but for a reset's end */
        SIM_PEND_REBIND, /* a mask change amid its queues */
        SIM_PEND_UNBIND, /* a queue taken from vfio_ap by hand */
        SIM_PEND_GUEST,  /* an mdev's removal (or unbinding), waits for its guest */
        SIM_PEND_REMOVE, /* the same, waits for its queues' resets */
} SimPendingKind;

struct SimPending {
        SimPending *next;
        uint64_t id;
        SimPendingKind kind;
        SimNode node;
        char path[192];
        bool write;
        char *data;
        size_t size;
        uint8_t needs, holds;
        ssize_t result;
        size_t waits;    /* resets */
        uint64_t cursor; /* REBIND: serial of the queue to go on with */
        SimQueue *queue; /* UNBIND */
        SimMdev *mdev;   /* GUEST, REMOVE */
        bool keep;       /* GUEST, REMOVE: unbound only */
};

struct Sim {
        SimProfile profile;
        SimMask hw_ap, hw_aq, hw_ad;       /* the machine's configuration */
        SimMask ap, aq, ad;                /* as the last scan saw it */
        SimMask info_ap, info_aq, info_ad; /* as vfio_ap was told */
        SimMask apmask, aqmask;
        unsigned max_adapter, max_domain;
        SimCard cards[SIM_IDS];
        SimQueue *queues; /* SIM_QUEUES */
        SimQueue *first, *last;
        unsigned n_queues, n_bound;
        unsigned owned_adapter[SIM_IDS], owned_domain[SIM_IDS]; /* owned queues of each */
        unsigned overrides; /* as the kernel counts them: leaks when a queue leaves with its override */
        int ap_domain;
        unsigned config_time, poll_thread;
        uint64_t poll_timeout;
        uint64_t scans, bindings_complete;
        bool bindings_told; /* since the last queue was bound */
        bool vfio_ap, delayed;
        bool autoprobe; /* of the AP bus */

        SimParent parents[1 + SIM_PARENTS_MAX]; /* the first is vfio_ap's */
        size_t n_parents;
        SimMdev *hash[SIM_MDEV_HASH];
        size_t n_mdevs, n_guests;
        SimMdev **groups; /* by number */
        size_t n_groups, free_group;

        SimFault faults[SIM_FAULTS_MAX];
        size_t n_faults;
        SimPending *pending;
        uint8_t held; /* locks of pending operations */
        uint64_t last_id, last_pending, delay, writes, overruns, serial;
        struct { /* the access being made */
                const SimNode *node;
                const char *data;
                size_t size, waits;
                bool write;
                uint64_t id;
        } op;

        sim_uevent_t uevent;
        void *uevent_data;
        sim_done_t done;
        void *done_data;
};

/* sim.c */
void text_put(SimText *t, const char *data, size_t size);
void text_puts(SimText *t, const char *s);
__attribute__((format(printf, 2, 3))) void text_printf(SimText *t, const char *format, ...);
void text_mask(SimText *t, const SimMask *m);
void sim_boot(Sim *s, bool delayed);
uint64_t sim_op_id(Sim *s);
ssize_t sim_pend(Sim *s, SimPendingKind kind, SimPending values);
void sim_kick(Sim *s); /* lets pending operations go on that can */
void sim_release(Sim *s, const char *pattern);
void sim_abort_pending(Sim *s, ssize_t result);
void sim_complete_guest(Sim *s, const SimMdev *m);
void sim_mdev_unref(SimMdev *m);

/* sim_tree.c */
typedef enum SimDirId {
        DIR_ROOT,
        DIR_BUS,
        DIR_BUS_AP,
        DIR_AP_DEVICES,
        DIR_AP_DRIVERS,
        DIR_AP_DRIVER,
        DIR_BUS_MATRIX,
        DIR_MATRIX_DEVICES,
        DIR_MATRIX_DRIVERS,
        DIR_MATRIX_DRIVER,
        DIR_BUS_MDEV,
        DIR_MDEV_DEVICES,
        DIR_MDEV_DRIVERS,
        DIR_MDEV_DRIVER,
        DIR_CLASS,
        DIR_CLASS_MDEV_BUS,
        DIR_CLASS_VFIO_DEV,
        DIR_CLASS_PARENT,
        DIR_DEVICES,
        DIR_DEV_AP,
        DIR_CARD,
        DIR_QUEUE,
        DIR_DEV_VFIO_AP,
        DIR_DEV_OTHER,
        DIR_PARENT,
        DIR_MTTY,
        DIR_TYPES,
        DIR_TYPE,
        DIR_TYPE_DEVICES,
        DIR_MDEV,
        DIR_MTTY_VENDOR,
        DIR_VFIO_DIR,
        DIR_VFIO,
        DIR_KERNEL,
        DIR_IOMMU_GROUPS,
        DIR_IOMMU_GROUP,
        DIR_IOMMU_GROUP_DEVICES,
        DIR_MODULE,
        DIR_MODULE_AP,
        DIR_AP_PARAMETERS,
        DIR_MODULE_OTHER,
        DIR_SIM,
        _DIR_MAX
} SimDirId;

int sim_walk(const Sim *s, const char *path, bool follow, SimNode *ret);
bool sim_node_alive(const Sim *s, const SimNode *node);
void sim_node_path(const Sim *s, const SimNode *node, SimText *t);

extern const SimAttr sim_bus_ap_attrs[], sim_ap_driver_attrs[], sim_dev_ap_attrs[], sim_card_attrs[],
        sim_queue_attrs[], sim_ap_parameter_attrs[];
extern const SimLink sim_card_links[], sim_queue_links[];
extern const SimAttr sim_matrix_mdev_attrs[];
extern const SimAttr sim_bus_attrs[], sim_mdev_driver_attrs[], sim_parent_attrs[], sim_type_attrs[],
        sim_vfio_attrs[], sim_iommu_group_attrs[], sim_mtty_attrs[], sim_mtty_vendor_attrs[],
        sim_driver_uevent_attrs[], sim_dev_uevent_attrs[];
extern const SimAttr sim_ctl_attrs[];

/* sim_ap.c */
SimQueue *sim_queue(const Sim *s, unsigned adapter, unsigned domain);
unsigned sim_queue_adapter(const Sim *s, const SimQueue *q);
unsigned sim_queue_domain(const Sim *s, const SimQueue *q);
void sim_ap_boot(Sim *s);
void sim_ap_free(Sim *s);
void sim_scan(Sim *s);
void sim_bind_all(Sim *s);
void sim_queue_probe(Sim *s, SimQueue *q);                  /* whichever driver takes it */
bool sim_queue_bind(Sim *s, SimQueue *q, SimDriver driver); /* false: the driver does not take it */
bool sim_queue_unbind(Sim *s, SimQueue *q);                 /* false: waits for a reset; still bound */
bool sim_queue_reset(Sim *s, SimQueue *q, bool wait);       /* false: does not end */
void sim_queue_unstick(Sim *s, SimQueue *q);
bool sim_queue_available(const Sim *s, const SimQueue *q); /* in the machine, seen or not */
bool sim_host_owned(const Sim *s, unsigned adapter, unsigned domain);
ssize_t sim_mask_store(Sim *s, bool adapters, const char *data, size_t size);
bool sim_rebind(Sim *s, uint64_t *cursor); /* false: stopped at *cursor by a reset */
void sim_mask_changed(Sim *s, bool adapters);
void sim_bindings_check(Sim *s);

/* sim_matrix.c */
void sim_matrix_free_queues(Sim *s, SimMdev *m, bool reset);
bool sim_matrix_in_use(const Sim *s, bool adapters, const SimMask *taken);
void sim_matrix_reset(Sim *s, const SimMdev *m, bool wait);
void sim_matrix_queue_comes(Sim *s, SimQueue *q);
void sim_matrix_queue_leaves(Sim *s, SimQueue *q, bool wait);
void sim_matrix_load(Sim *s);
void sim_matrix_config_changed(Sim *s, const SimMask old_config[static 3]); /* s->ap, aq, ad are new */
void sim_matrix_scan_complete(Sim *s);
int sim_matrix_restore(Sim *s, SimMdev *m,
                       const char *masks); /* three, separated by blanks; unchecked by the masks */

/* sim_mdev.c */
void sim_mdev_boot(Sim *s);
void sim_mdev_free_all(Sim *s);
SimMdev *sim_mdev_find(const Sim *s, const char *uuid, size_t n);
int sim_mdev_guest(Sim *s, const char *uuid, bool on);
void sim_mdev_reset_ended(Sim *s, SimMdev *m, bool keep);
void sim_mdev_finish(Sim *s, SimMdev *m, bool keep);
int sim_vfio_ap_unload(Sim *s);
int sim_vfio_ap_load(Sim *s);
/* A parent of the other kind comes or goes with its mdevs. -ENODEV: there is none of that name; -EAGAIN: a guest has one. */
int sim_parent_plug(Sim *s, const char *name, bool add);
const char *sim_type_name(const SimParent *p, unsigned type, char buf[static 64]);
const char *sim_mdev_driver_name(const SimParent *p);
unsigned sim_types(const SimParent *p);

/* sim_ctl.c */
bool sim_fault_hit(Sim *s, const SimNode *node, bool write, int *ret_error, bool *ret_hang);

/* sim_uevent.c; @extra is one KEY=value or NULL */
void sim_emit(Sim *s, const char *action, const char *devpath, const char *subsystem, const char *extra,
              const char *env);
void sim_emit_card(Sim *s, const char *action, unsigned adapter, const char *extra);
void sim_emit_queue(Sim *s, const char *action, const SimQueue *q, const char *extra);
void sim_emit_mdev(Sim *s, const char *action, const SimMdev *m, const char *extra);
void sim_emit_vfio(Sim *s, const char *action, const SimMdev *m, bool group);
void sim_emit_parent(Sim *s, const char *action, const SimParent *p, const char *extra);
void sim_card_env(const Sim *s, unsigned adapter, bool modalias, SimText *t);
void sim_queue_env(const Sim *s, const SimQueue *q, SimText *t);
ssize_t sim_uevent_store(Sim *s, const SimNode *node, const char *data, size_t size);
