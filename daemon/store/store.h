/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* store - definitions and the operation journal on disk, below the state directory:
 *
 *   version                 "guestcrypt 1\n"; a newer one is refused whole
 *   matrices/UUID.xml       one definition each: libvirt's node device XML of an mdev (schemas/matrix.rng)
 *   masks                   the host masks that we are to keep, if any
 *   journal                 intents and commits since the last checkpoint, a line each with a checksum
 *   set-aside/              records that could not be read, as they were found
 *
 * Durability: an append to the journal that has returned is on stable storage (one fdatasync for a whole
 * batch); files below matrices/ follow (store_write_files()) and are fsynced at a checkpoint, before the
 * journal starts anew.
 * Replay is idempotent. The record_*() functions are pure; all others block: they run on the file worker. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/uuid.h"
#include "core/ap_matrix.h"

#define STORE_NAME_MAX  64  /* bytes of a definition's name, without NUL */
#define STORE_GUEST_MAX 256 /* and of a guest's */

#define STORE_MDEVCTL_MAX (24 * 1024) /* and of what mdevctl had */

/* A definition. */
typedef struct Record {
        Uuid uuid;
        char *name;  /* unique; letters, digits, "-_.:+", the first a letter or digit */
        char *guest; /* the guest it is meant for, or NULL */
        Uuid guest_uuid; /* and who that was when it was last seen, so that it is known by another name, too; null: never */
        ApMatrix matrix;
        bool autostart, alternative, from_host;
        uid_t uid;     /* who defined it */
        char *unknown; /* XML that we do not understand and keep, or NULL */
        char *mdevctl; /* mdevctl's definition that it was made from, where that says more than we do, or NULL */
} Record;

void record_clear(Record *r);
int record_copy(const Record *r, Record *ret);
/* Whether @name may name a definition. */
bool record_name_is_valid(const char *name);
/* Whether @guest may name a guest: valid UTF-8 without control characters, not empty, not too long. */
bool record_guest_is_valid(const char *guest);
/* The same of what mdevctl had. */
bool record_mdevctl_is_valid(const char *text);

/* The stored form; free() it. Null uuid and NULL name are left out. -ENOMEM; -EINVAL: name or guest is not
 * valid. */
int record_to_xml(const Record *r, char **ret);

/* Reads the stored form or what a person wrote (libvirt node device XML of an mdev with parent ap_matrix;
 * uuid optional: null then; name from our metadata or NULL). Validated against the schema; entities,
 * external references and more than RECORD_XML_MAX bytes are refused. -EBADMSG: *reterr_text (free()) says
 * in one line what and where; -ENOMEM. */
#define RECORD_XML_MAX (64 * 1024)
int record_from_xml(const char *xml, size_t size, Record *ret, char **reterr_text);

/* What a batch does to the disk, in order. */
typedef enum StoreEntryType {
        STORE_INTENT, /* operation @op begins; @text is its plan and purpose, opaque to the store */
        STORE_PUT,    /* definition @record is as given; ends intent @op if nonzero */
        STORE_DELETE, /* definition @uuid is gone; ends intent @op if nonzero */
        STORE_END,    /* intent @op has ended without change of a definition */
        STORE_MASKS,  /* host masks to keep are these, or none if !@keep; ends intent @op if nonzero */
        _STORE_ENTRY_MAX
} StoreEntryType;

typedef struct StoreEntry {
        StoreEntryType type;
        uint64_t op;
        Uuid uuid;
        Record record;         /* PUT; owned */
        char *text;            /* INTENT; owned; one line */
        ApMask apmask, aqmask; /* MASKS */
        bool keep;
} StoreEntry;

void store_entry_clear(StoreEntry *e);

typedef struct Store Store;

/* An intent that was begun and not ended. */
typedef struct StoreIntent {
        uint64_t op;
        char *text;
} StoreIntent;

/* A record that is not as it should be. */
typedef struct StoreBad {
        char *file;   /* relative to the state directory, as it was named */
        char *reason; /* one line */
        char *aside;  /* its name in set-aside/, as it is; NULL: it is not there */
        bool kept;    /* it is where it was, and handed out with its UUID as name; else it was set aside */
        bool earlier; /* it was set aside before this store was opened */
} StoreBad;

typedef struct StoreContent {
        Record *records; /* by uuid */
        size_t n_records;
        StoreIntent *intents; /* in order of their beginning */
        size_t n_intents;
        StoreBad *bad;
        size_t n_bad;
        uint64_t last_op; /* highest operation number ever seen */
        bool keep_masks;
        ApMask apmask, aqmask;
} StoreContent;

void store_content_clear(StoreContent *c);

/* Opens (and on first use makes) the state directory @dir_fd (duplicated), takes its lock file so that no
 * second daemon uses it, replays the journal, sets bad records aside, and hands out all there is. -EBUSY:
 * another daemon has it; -EBADMSG: of a newer version; -EROFS and others: as the kernel says. If the
 * directory cannot be written, but read, everything is handed out and *ret_writable is false: commits give
 * the reason (-EROFS, -EACCES, -ENOSPC ...) until store_reopen() succeeds.
 *
 * The lock belongs to the open file, which is close-on-exec: a child that is to live longer than the daemon
 * must have been exec()ed. */
int store_open(int dir_fd, Store **ret, StoreContent *ret_content, bool *ret_writable);

/* Appends to the bad records in @c those that lie in set-aside/ since earlier. */
int store_load_aside(const Store *s, StoreContent *c);
/* Takes those out that somebody has taken out of set-aside/. Whether there were any. */
bool store_forget_aside(const Store *s, StoreContent *c);

/* Makes the batch durable as a whole: 0 means that all of it is on stable storage; an error (-ENOSPC, -EIO,
 * -EROFS ...), that none of it is or will be after a crash. A failed fsync poisons the store: later commits
 * give -EIO until store_reopen() succeeds. -EINVAL, with nothing done: an entry that could not be read again
 * (record without valid name, guest or uuid; intent without operation number). That names are unique is the
 * caller's to see to. */
int store_commit(Store *s, const StoreEntry *entries, size_t n);
/* The same; @meanwhile, if not NULL, is run when the entries are written, while the disk makes them durable. That may fail: then they
 * are taken back, and what it did is the caller's to take back. */
typedef void (*store_meanwhile_t)(void *userdata);
int store_commit_with(Store *s, const StoreEntry *entries, size_t n, store_meanwhile_t meanwhile,
                      void *userdata);

/* Brings at most @max files below matrices/ up to date, which is for people to see; not durably. 1: there are
 * more, 0: there are none, < 0: the rest is retried at the next checkpoint. */
int store_write_files(Store *s, size_t max);
/* Makes at most @max of those durable, so that the next checkpoint has less to do. As above. */
int store_sync_files(Store *s, size_t max);

/* Brings the files up to date durably and starts the journal anew. To be done when idle, at the end, and when the journal is long; where
 * it never is, store_commit() does it at 16 times that length. With thousands of files it takes seconds, unless they are up to date. */
#define STORE_JOURNAL_MAX (4 * 1024 * 1024)
int store_checkpoint(Store *s);
/* Bytes in the journal. */
size_t store_journal_size(const Store *s);
/* Whether a checkpoint has anything to do. */
bool store_is_dirty(const Store *s);

/* Tries to make a store that cannot be written any more, or could not be from the start, writable again: all
 * that is not yet in durable files is written anew, the journal too. 0 or why it still cannot. */
int store_reopen(Store *s);

/* Accepts NULL; returns NULL. Does not checkpoint. */
Store *store_free(Store *s);
