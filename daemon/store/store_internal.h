/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* store_internal - the state of an open store: what the journal holds that the files may not hold yet. */

#include <limits.h>
#include <sys/types.h>

#include "store/journal.h"
#include "store/store.h"

#define STORE_VERSION      1
#define STORE_MATRICES     "matrices"
#define STORE_SET_ASIDE    "set-aside"
#define STORE_JOURNAL      "journal"
#define STORE_MASKS_FILE   "masks"
#define STORE_VERSION_FILE "version"
#define STORE_LOCK         "lock"

#define STORE_FILE_SIZE (UUID_STRING_SIZE + 4) /* "UUID.xml" and NUL */

/* Above this nothing is appended any more while no checkpoint succeeds. */
#define STORE_JOURNAL_LIMIT (16 * STORE_JOURNAL_MAX)

/* So much of a journal is written before it is used. What changes bytes only, neither size nor blocks, is synced sooner, since the
 * file system needs no commit of its own for that. */
#define STORE_JOURNAL_AHEAD (128 * 1024)

/* A definition since the last checkpoint. */
typedef struct Pending {
        Uuid uuid;
        char *text;   /* NULL: it is gone */
        bool written; /* the file is so ... */
        bool synced;  /* ... durably */
        uint64_t version;
} Pending;

/* A file that is still to be written: one after the other as they were committed, since two definitions that were
 * never there together are not to be seen together. */
typedef struct Late {
        struct Late *next;
        Uuid uuid;
        char *text;       /* NULL: it is to go */
        uint64_t version; /* of the pending one that it was */
} Late;

struct Store {
        int dir_fd, lock_fd, matrices_fd, journal_fd; /* -1 where there is none */
        int error;            /* why nothing can be written, negative; 0: all is well */
        size_t journal_size;  /* its valid part */
        size_t journal_ahead; /* so far it is there: behind its valid part are zeros. SIZE_MAX: no matter */
        bool dirty;           /* the journal holds more than the state after a checkpoint */

        Pending *pending; /* by uuid */
        size_t n_pending, pending_allocated;
        uint64_t version; /* of the last one that was pending */
        Late *late, **late_end;
        StoreIntent *intents; /* in order of their beginning */
        size_t n_intents, intents_allocated;
        uint64_t last_op;
        bool masks_pending, keep_masks;
        ApMask apmask, aqmask;
};

/* Room for @n more items, so that store_apply() cannot fail. -ENOMEM. */
int store_reserve(Store *s, size_t n);
/* Takes the items' texts. */
void store_apply(Store *s, JournalItem *items, size_t n);
Pending *store_find_pending(const Store *s, Uuid uuid);

/* "UUID.xml". Returns @buf. */
char *store_file_name(Uuid uuid, char buf[static STORE_FILE_SIZE]);

/* Appends to the list of bad records; @reason is formatted. -ENOMEM. */
int store_add_bad(StoreContent *c, const char *dir, const char *name, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
/* That the last one of the list is in set-aside/ as @to; "": it is not. -ENOMEM. */
int store_note_aside(StoreContent *c, const char *to);
void store_bad_clear(StoreBad *bad);
/* Moves @name of @dir (open as @dir_fd) to set-aside/, under a name that is free there: @ret_to. */
int store_set_aside(Store *s, int dir_fd, const char *name, char ret_to[static NAME_MAX + 1]);

/* What store_open() reads. They put what is bad into @c and go on; errors are those of this process
 * (-ENOMEM, -EMFILE) and of the state directory itself. */
int store_load_journal(Store *s, StoreContent *c);
int store_load_masks(Store *s, StoreContent *c);
int store_load_matrices(Store *s, StoreContent *c);
