/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of bus/ share. */

#include "base/cleanup.h"
#include "bus/bus.h"

#define BUS_INTERFACE(name) BUS_NAME "." name

/* Limits on what a client may send; everything longer is InvalidArgs. */
#define BUS_STRING_MAX 255         /* bytes of a name, a guest, a parent, a type */
#define BUS_XML_MAX    (64 * 1024) /* bytes of a definition */
#define BUS_ATTRS_MAX  256         /* attributes of a new mdev */
#define BUS_ATTR_MAX   1024        /* bytes of one attribute's value */

#define BUS_PATH_SIZE 256

typedef struct Ask Ask;
typedef struct Call Call;
typedef struct Listing Listing;
typedef struct Signal Signal;

#define BUS_UID_CACHE 64

/* What all handlers and getters get. There is one: a find function fills in what was looked up for the
 * getters that follow at once; handlers use nothing but @bus, since polkit may be between the lookup and
 * them. */
typedef struct BusObject {
        Bus *bus;
        EngineMatrix matrix;
        const HostMdev *mdev;
        const HostParent *parent;
        const HostCard *card;
} BusObject;

struct Bus {
        sd_bus *bus;
        sd_event *event;
        Engine *engine;
        BusConfig config;
        BusObject object;
        unsigned n_matrices;

        sd_bus_slot *slots[16];
        size_t n_slots;

        Call *calls;       /* the engine works on them */
        Listing *listings; /* replies that are being put together */
        Ask *asks;         /* polkit works on them */

        Signal *signals, **signals_tail; /* in the order of their first event */
        void *signal_tree;               /* the same by object, tsearch(3) */
        sd_event_source *signal_source;

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
/* Something broke, which nobody but the log can be told in detail. Returns @r. */
int bus_error_broken(sd_bus_message *m, int r);
/* Makes the error names known to sd-bus. */
int bus_error_register(void);
const char *bus_error_name(Verdict verdict);
int bus_error_errno(Verdict verdict);

/* ---- bus_authz.c ---- */

#define AUTHZ_INSPECT       BUS_NAME ".inspect"
#define AUTHZ_MANAGE_MDEV   BUS_NAME ".manage-mdev"
#define AUTHZ_MANAGE_MATRIX BUS_NAME ".manage-matrix"
#define AUTHZ_MANAGE_HOST   BUS_NAME ".manage-host"

/* Whether the sender of @m may do @action. 1: yes, *ret_uid says who it is; 0: polkit is asked, the
 * caller, which is @handler, is to return 1 and will be called again from its start, so nothing may have
 * changed before; < 0: no, @error is set. */
int authz_check(Bus *b, sd_bus_message *m, const char *action, sd_bus_message_handler_t handler,
                uid_t *ret_uid, sd_bus_error *error);
void authz_free(Bus *b);

/* ---- bus_read.c: arguments ---- */

int bus_read_mask(sd_bus_message *m, const char *what, ApMask *ret, sd_bus_error *error);
int bus_read_matrix(sd_bus_message *m, ApMatrix *ret, sd_bus_error *error);
/* At most BUS_STRING_MAX bytes; points into @m. */
int bus_read_string(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error);
/* "" is the null uuid; the null uuid's text is refused. */
int bus_read_uuid(sd_bus_message *m, Uuid *ret, sd_bus_error *error);

typedef struct BusOption {
        const char *name;
        char type; /* 'b' bool, 's' const char *, 'q' uint16_t */
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
/* Answers @m with what engine_check() says. */
int bus_reply_conflicts(Bus *b, sd_bus_message *m, const EngineCheck *check);
/* The UTF-8 copy of @s, free(); NULL: out of memory. */
char *bus_text(const char *s);
/* The same as one line, for errors: control characters, which a caller may have sent, are '?' as well. */
char *bus_line(const char *s);

/* Room for @n paths, which sd-bus frees with the list, whatever was put in. 0 or -ENOMEM. */
int bus_paths_new(size_t n, char ***ret);
int bus_paths_set(char **paths, size_t i, const char *path);

char *bus_path_uuid(const char *kind, Uuid uuid, char buf[static BUS_PATH_SIZE]);
/* -EINVAL: not the path of such an object. */
int bus_path_parse_uuid(const char *path, const char *kind, Uuid *ret);

/* ---- bus_call.c: calls that the engine answers later ---- */

typedef enum CallReply { CALL_REPLY_EMPTY, CALL_REPLY_MATRIX, CALL_REPLY_MDEV, CALL_REPLY_HEALED } CallReply;

/* Keeps @m until the answer. NULL: out of memory. */
Call *bus_call_new(Bus *b, sd_bus_message *m, CallReply reply);
Call *bus_call_free(Call *c);
/* What a handler returns after it gave @c to the engine, which answered @r at once; frees @c and
 * @refusal's text unless it was accepted. */
int bus_call_submitted(Call *c, int r, Refusal *refusal, sd_bus_error *error);
/* engine_done_t and engine_reconciled_t; @userdata is the Call. */
void bus_call_done(void *userdata, int r, const Refusal *refusal, Uuid uuid);
void bus_call_reconciled(void *userdata, int r, const Refusal *refusal, const EngineHealed *healed,
                         size_t n);
void bus_call_rescanned(void *userdata, int r);
/* For questions about the host as it is now: has it scanned (for at most 40 ms), then runs @answer on the
 * rewound message. What a handler returns once its caller is authorised. */
int bus_call_refresh(Bus *b, sd_bus_message *m, sd_bus_message_handler_t answer);
/* Reads the sender for the engine; points into @m. */
EngineCaller bus_caller(sd_bus_message *m, uid_t uid);

/* ---- bus_queues.c: answers to ListQueues ---- */

typedef struct QueueFilter {
        uint16_t adapter, domain;
        const char *driver, *kind, *owner; /* NULL: any */
        bool has_adapter, has_domain, has_free, free;
} QueueFilter;

/* Replies to @m, later if there is much to tell. 0 or -errno. */
int bus_listing_start(Bus *b, sd_bus_message *m, const QueueFilter *filter);
void bus_listing_free_all(Bus *b);
const char *bus_card_mode(const HostCard *card); /* NULL: "unknown" */

/* ---- bus_signal.c ---- */

void bus_signal(Bus *b, const EngineKey *key, EngineChange change);
/* Sends what waits about matrix and mdev @uuid: before a reply that names it. */
void bus_signal_flush_uuid(Bus *b, Uuid uuid);
void bus_signal_free(Bus *b);

/* ---- the interfaces ---- */

extern const sd_bus_vtable bus_manager_vtable[], bus_matrix_vtable[], bus_mdev_vtable[], bus_parent_vtable[],
        bus_adapter_vtable[];

/* Objects below BUS_ROOT/@kind. */
int bus_add_objects(Bus *b, const char *kind, const char *interface, const sd_bus_vtable *vtable,
                    sd_bus_object_find_t find, sd_bus_node_enumerator_t enumerate);

int bus_manager_add(Bus *b);
int bus_matrix_add(Bus *b);
int bus_mdev_add(Bus *b);
int bus_host_add(Bus *b);
