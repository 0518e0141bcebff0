/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of bus/ share. */

#include "base/cleanup.h"
#include "bus/bus.h"
#include "engine/engine_guest.h"

#define BUS_INTERFACE(name) BUS_NAME "." name

/* Limits on what a client may send; everything longer is InvalidArgs. */
#define BUS_STRING_MAX 255         /* bytes of a name, a guest, a parent, a type */
#define BUS_TEXT_MAX   4095        /* bytes of a path, a profile */
#define BUS_CODES_MAX  64          /* TPM commands that are denied; guestcrypt-tpm takes no more */
#define BUS_UUIDS_MAX  64          /* mediated devices of a guest */
#define BUS_XML_MAX    (64 * 1024) /* bytes of a definition */
#define BUS_ATTRS_MAX  256         /* attributes of a new mdev */
#define BUS_ATTR_MAX   1024        /* bytes of one attribute's value */

#define BUS_PATH_SIZE 256

typedef struct Answer Answer;
typedef struct Ask Ask;
typedef struct Call Call;
typedef struct Signal Signal;

#define BUS_UID_CACHE   64
#define BUS_KINDS       6
#define BUS_ANSWERS_MAX 4 /* that are worked on at a time */

/* Looks up the object @uuid, for BusObject. -ENOENT: there is none. */
typedef int (*bus_get_t)(Bus *b, Uuid uuid);
/* All of them; the caller frees *@ret. */
typedef int (*bus_list_t)(Bus *b, Uuid **ret, size_t *ret_n);

/* Objects below BUS_ROOT/NAME, all alike. */
typedef struct BusKind {
        Bus *bus;
        const char *name, *interface;
        char prefix[BUS_PATH_SIZE];
        const sd_bus_vtable *vtable;
        sd_bus_object_find_t find;
        sd_bus_node_enumerator_t enumerate;
        bus_get_t get; /* of those that have UUIDs */
        bus_list_t list;
} BusKind;

/* What all handlers and getters get. There is one: a find function fills in what was looked up for the
 * getters that follow at once; handlers use nothing but @bus, since polkit may be between the lookup and
 * them. */
typedef struct BusObject {
        Bus *bus;
        EngineMatrix matrix;
        const HostMdev *mdev;
        const HostParent *parent;
        const HostCard *card;
        EngineGuest guest;
        VtpmView tpm;
} BusObject;

struct Bus {
        sd_bus *bus;
        sd_event *event;
        Engine *engine;
        BusConfig config;
        BusObject object;
        unsigned n_matrices, n_guests, n_tpms;

        sd_bus_slot *slots[24];
        size_t n_slots;
        BusKind kinds[BUS_KINDS];
        size_t n_kinds;

        Call *calls;            /* the engine works on them */
        Ask *asks, **asks_tail; /* the bus or polkit is asked about them, in the order in which they came */

        Answer *answers, **answers_tail; /* in the order in which they were asked for */
        Answer *active[BUS_ANSWERS_MAX];
        size_t next_active;
        Answer *quiet; /* the one for which signals wait */

        Signal *signals, **signals_tail; /* in the order of their first event */
        size_t n_signals, n_due;         /* those that are sent before signals are to wait again */
        void *signal_tree;               /* the same by object, tsearch(3) */

        sd_event_source *turn_source, *turn_timer;
        bool awake;  /* both are set */
        bool waking; /* they are, or the timer alone */

        /* Unique names are never used twice, so that an entry never goes wrong. */
        struct {
                char name[32];
                uid_t uid;
        } uids[BUS_UID_CACHE];
        unsigned next_uid;
};

/* ---- bus_error.c ---- */

/* Sets error name and text for @verdict; @refusal (may be NULL) gives the text. Returns the negative
 * errno of the name, for handlers to return. */
int bus_error_set_verdict(sd_bus_error *error, Verdict verdict, const Refusal *refusal);
/* InvalidArgs with this text; returns the negative errno for it. */
int bus_error_invalid(sd_bus_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Something broke, which nobody but the log can be told in detail. Returns the negative errno. */
int bus_error_broken(sd_bus_message *m, int r, sd_bus_error *error);
/* Makes the error names known to sd-bus. */
int bus_error_register(void);
const char *bus_error_name(Verdict verdict);

/* ---- bus_authz.c ---- */

#define AUTHZ_INSPECT       BUS_NAME ".inspect"
#define AUTHZ_MANAGE_MDEV   BUS_NAME ".manage-mdev"
#define AUTHZ_MANAGE_MATRIX BUS_NAME ".manage-matrix"
#define AUTHZ_MANAGE_HOST   BUS_NAME ".manage-host"
#define AUTHZ_MANAGE_TPM    BUS_NAME ".manage-tpm"
#define AUTHZ_WIRE_GUEST    BUS_NAME ".wire-guest"

/* Whether the sender of @m may do @action. 1: yes, *ret_uid says who it is; 0: polkit is asked, the
 * caller, which is @handler, is to return 1 and will be called again from its start, so nothing may have
 * changed before; < 0: no, @error is set. */
int authz_check(Bus *b, sd_bus_message *m, const char *action, sd_bus_message_handler_t handler,
                uid_t *ret_uid, sd_bus_error *error);
/* Only root and whoever the daemon runs as; polkit is not asked. 0 or < 0: @error is set. */
int authz_check_root(Bus *b, sd_bus_message *m, uid_t *ret_uid, sd_bus_error *error);
void authz_free(Bus *b);

/* ---- bus_read.c: arguments ---- */

int bus_read_mask(sd_bus_message *m, const char *what, ApMask *ret, sd_bus_error *error);
int bus_read_matrix(sd_bus_message *m, ApMatrix *ret, sd_bus_error *error);
/* At most BUS_STRING_MAX bytes; points into @m. */
int bus_read_string(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error);
/* "" is the null uuid; the null uuid's text is refused. */
int bus_read_uuid(sd_bus_message *m, Uuid *ret, sd_bus_error *error);

/* At most BUS_TEXT_MAX bytes; points into @m. */
int bus_read_text(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error);
/* The same, beginning with '/'. */
int bus_read_path(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error);
/* A regular file or a pipe that is open for @access (O_RDONLY, O_WRONLY); stays @m's. */
int bus_read_fd(sd_bus_message *m, const char *what, int access, int *ret, sd_bus_error *error);

/* Of a text for which "" stands for none. */
static inline const char *bus_or_null(const char *s) {
        return s && *s ? s : NULL;
}

typedef struct BusCodes {
        const uint32_t *codes; /* in the message */
        size_t n;
} BusCodes;

typedef struct BusUuids {
        Uuid uuids[BUS_UUIDS_MAX];
        size_t n;
} BusUuids;

typedef struct BusOption {
        const char *name;
        /* 'b' bool, 'q' uint16_t, 's' const char *, 't' the same of up to BUS_TEXT_MAX bytes, 'p' the same as an absolute
         * path, 'U' Uuid, 'M' TpmModel ("": NONE), 'C' BusCodes, 'D' BusUuids */
        char type;
        void *ret;
        bool *ret_set; /* or NULL */
} BusOption;

/* Reads a{sv}: an unknown, repeated or ill-typed option is refused by name. */
int bus_read_options(sd_bus_message *m, const BusOption *options, size_t n, sd_bus_error *error);

/* ---- bus_write.c: answers ---- */

/* Text that may come from files or the kernel: bytes that are no UTF-8 become '?', since the bus would
 * disconnect us for them. */
int bus_append_text(sd_bus_message *m, const char *s);
int bus_append_texts(sd_bus_message *m, const char *const *lines);
int bus_append_mask(sd_bus_message *m, const ApMask *mask);
/* The UTF-8 copy of @s, free(); NULL: out of memory. */
char *bus_text(const char *s);
/* The same as one line, for errors: control characters, which a caller may have sent, are '?' as well. */
char *bus_line(const char *s);

/* Room for @n paths, which sd-bus frees with the list, whatever was put in. 0 or -ENOMEM. */
int bus_paths_new(size_t n, char ***ret);
int bus_paths_set(char **paths, size_t i, const char *path);

char *bus_path_uuid(const char *kind, Uuid uuid, char buf[static BUS_PATH_SIZE]);
/* That at the end of @path; null: there is none. */
Uuid bus_path_uuid_of(const char *path);
/* -EINVAL: not the path of such an object. */
int bus_path_parse_uuid(const char *path, const char *kind, Uuid *ret);

/* ---- bus_call.c: calls that the engine answers later ---- */

typedef enum CallReply {
        CALL_REPLY_EMPTY,
        CALL_REPLY_MATRIX,
        CALL_REPLY_MDEV,
        CALL_REPLY_TPM,
        CALL_REPLY_OTHER,   /* what is no path, which another function than bus_call_done() replies */
        CALL_REPLY_DRY_RUN, /* the same, of a call that changes nothing */
} CallReply;

struct Call {
        Bus *bus;
        sd_bus_message *message;
        EngineCaller caller; /* points into @message */
        Uuid object;         /* whose path is called; null: none's */
        CallReply reply;
        Refusal refusal; /* for the engine, which answers at once or keeps the call */
        bool counted;    /* by us: the engine counts its operations itself */
        Call *next, **link;
};

/* Keeps @m, which a process of @uid has sent, until the answer. NULL: out of memory. */
Call *bus_call_new(Bus *b, sd_bus_message *m, uid_t uid, CallReply reply);
/* What most handlers begin with once their arguments are read. 1: the caller may do that, *@ret is its call; 0: as
 * authz_check(); < 0: @error may be set. */
int bus_call_begin(Bus *b, sd_bus_message *m, const char *action, sd_bus_message_handler_t handler,
                   CallReply reply, Call **ret, sd_bus_error *error);
Call *bus_call_free(Call *c);
/* For a handler that finds a fault before the engine has the call: frees it, and returns @r. */
int bus_call_abandon(Call *c, int r);
/* Counts it for its caller's limit until it is freed. < 0: @error is set. */
int bus_call_count(Call *c, sd_bus_error *error);
/* What a handler returns after it gave @c to the engine, which answered @r at once; frees @c unless it was accepted. */
int bus_call_submitted(Call *c, int r, sd_bus_error *error);
/* engine_done_t and engine_reconciled_t; @userdata is the Call. */
void bus_call_done(void *userdata, int r, const Refusal *refusal, Uuid uuid);
void bus_call_reconciled(void *userdata, int r, const Refusal *refusal, const EngineHealed *healed,
                         size_t n);
void bus_call_rescanned(void *userdata, int r);
/* engine_exported_t */
void bus_call_exported(void *userdata, int r, const Refusal *refusal, Uuid uuid, const char *json);
/* engine_noted_t of a call to a guest's object, vtpm_counters_t */
void bus_call_noted(void *userdata, int r, const Refusal *refusal, const char *const *notes);
void bus_call_counters(void *userdata, int r, VtpmVerdict verdict, const char *text,
                       const VtpmCounter *counters, size_t n);
/* For questions about the host as it is now: has it scanned (for at most 40 ms), then runs @answer on the
 * rewound message. What a handler returns once its caller is authorised. */
int bus_call_refresh(Bus *b, sd_bus_message *m, sd_bus_message_handler_t answer, sd_bus_error *error);
/* The same about guest @name: has libvirt asked (for at most a second), if it can be. */
int bus_call_ask_guest(Bus *b, sd_bus_message *m, const char *name, sd_bus_message_handler_t answer,
                       sd_bus_error *error);

/* ---- bus_answer.c: what is too much for one turn ---- */

/* The first member of what knows more about it. */
struct Answer {
        Bus *bus;
        sd_bus_message *call;
        /* One slice. 1: it is complete, and sent; 0: there is more; < 0: the caller is told so. */
        int (*step)(Answer *a, sd_bus_error *error);
        void (*free)(Answer *a);
        bool is_quiet; /* signals wait until it is sent */
        bool is_long;  /* so that it is worth asking first whether its caller is still there */
        bool counted, ready;
        sd_bus_slot *slot; /* while that is asked */
        Answer *next, **link;
};

/* Whom to count calls for. */
const char *bus_sender(sd_bus_message *m);
/* Counts a call that is not answered at once: engine_discharge() is owed. < 0: there are too many, @error
 * is set. */
int bus_admit(Bus *b, sd_bus_message *m, sd_bus_error *error);

/* Counts a call that is not answered at once, for its caller's limit. On error @a stays the caller's;
 * afterwards it ends with bus_answer_free(), or by itself once it is ready. */
int bus_answer_init(Answer *a, Bus *b, sd_bus_message *m, sd_bus_error *error);
/* It can be worked on. */
int bus_answer_ready(Answer *a);
/* Does not count any more. */
void bus_answer_discharge(Answer *a);
void bus_answer_free(Answer *a);
void bus_answer_free_all(Bus *b);
/* There is something to be done: answers, signals. */
int bus_wake(Bus *b);
/* There are signals for which nobody waits: what has just been answered goes first. */
int bus_wake_soon(Bus *b);

/* ---- bus_conflicts.c ---- */

/* Replies to @m with what engine_check() says. 0 or -errno. */
int bus_reply_conflicts(Bus *b, sd_bus_message *m, const EngineCheck *check, sd_bus_error *error);

/* ---- bus_objects.c: the ObjectManager ---- */

int bus_objects_add(Bus *b);

/* ---- bus_queues.c: answers to ListQueues ---- */

typedef struct QueueFilter {
        uint16_t adapter, domain;
        const char *driver, *kind, *owner; /* NULL: any */
        bool has_adapter, has_domain, has_free, free;
} QueueFilter;

/* Replies to @m, whose strings @filter may point to. 0 or -errno. */
int bus_listing_start(Bus *b, sd_bus_message *m, const QueueFilter *filter, sd_bus_error *error);
const char *bus_card_mode(const HostCard *card); /* NULL: "unknown" */

/* ---- bus_signal.c ---- */

void bus_signal(Bus *b, const EngineKey *key, EngineChange change);
/* Sends what waits about @uuid, before a reply that names it: of the first of matrix, mdev, guest and TPM that has one. A
 * matrix's mdev follows later. */
void bus_signal_flush_uuid(Bus *b, Uuid uuid);
/* Sends those that may go now, but not more than a turn of the loop has time for. */
void bus_signal_some(Bus *b);
/* The answer for which they waited has been sent. */
void bus_signal_release(Bus *b);
/* Whether some of those that had waited are still to be sent. */
bool bus_signal_is_due(const Bus *b);
void bus_signal_free(Bus *b);

/* ---- the interfaces ---- */

extern const sd_bus_vtable bus_manager_vtable[], bus_matrix_vtable[], bus_mdev_vtable[], bus_parent_vtable[],
        bus_adapter_vtable[], bus_guest_vtable[], bus_tpm_vtable[], bus_hook_vtable[], bus_mdevctl_vtable[],
        bus_own_vtable[];

/* An interface of the object at BUS_ROOT itself. */
int bus_add_root(Bus *b, const char *interface, const sd_bus_vtable *vtable);
/* Objects below BUS_ROOT/@kind; @find and @enumerate get the BusKind. */
int bus_add_objects(Bus *b, const char *kind, const char *interface, const sd_bus_vtable *vtable,
                    sd_bus_object_find_t find, sd_bus_node_enumerator_t enumerate);
/* The same, of which each has a UUID that ends its path. */
int bus_add_uuids(Bus *b, const char *kind, const char *interface, const sd_bus_vtable *vtable,
                  bus_get_t get, bus_list_t list);

/* The matrix that is called @name or has that UUID; else @error is set. */
int bus_find_matrix(Bus *b, const char *name, Uuid *ret, sd_bus_error *error);
int bus_find_tpm(Bus *b, const char *name, Uuid *ret, sd_bus_error *error);

/* The manager's methods about guests and TPMs, bus_guest.c and bus_tpm.c. */
int bus_method_get_guest(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_method_get_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_method_define_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_method_restore_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_method_import_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error);

int bus_manager_add(Bus *b);
int bus_matrix_add(Bus *b);
int bus_mdev_add(Bus *b);
int bus_host_add(Bus *b);
int bus_guest_add(Bus *b);
int bus_tpm_add(Bus *b);
int bus_hook_add(Bus *b);
int bus_mdevctl_add(Bus *b);
int bus_own_add(Bus *b);
