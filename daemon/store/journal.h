/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* journal - the text of the operation journal. Pure.
 *
 *   guestcrypt-journal 1
 *   CRC SIZE I/N put OP UUID XML
 *   ...
 *
 * A line is one entry, its CRC the CRC-32 of all that follows it and its blank, its SIZE the bytes after
 * "I/N ". A batch of N entries is N lines in a row, and the CRC of each goes on from the one before, so that
 * a batch is valid whole or not at all. Newlines inside of an entry are written "\n", backslashes "\\". */

#include <stdbool.h>
#include <stddef.h>

#include "store/store.h"

#define JOURNAL_HEADER "guestcrypt-journal 1\n"

/* What begins a journal anew: the highest operation number so far, as op. */
#define JOURNAL_LAST _STORE_ENTRY_MAX

/* A StoreEntry with its record as text. */
typedef struct JournalItem {
        int type; /* StoreEntryType or JOURNAL_LAST */
        uint64_t op;
        Uuid uuid;             /* PUT, DELETE */
        char *text;            /* PUT: the record's XML; INTENT; owned */
        ApMask apmask, aqmask; /* MASKS, if @keep */
        bool keep;
} JournalItem;

/* The lines of a batch; free() them. -ENOMEM. */
int journal_format(const JournalItem *items, size_t n, char **ret, size_t *ret_size);

/* What is wrong with a journal. */
typedef struct JournalDamage {
        size_t end;  /* end of the last valid batch, or of the header: what follows was never acknowledged */
        size_t line; /* first line that cannot be used although valid ones follow; 0: there is none */
        size_t n_lines; /* how many such lines */
        bool header;    /* the first line is not what it should be */
} JournalDamage;

/* Gets a valid batch; may take the items' texts. -EBADMSG: it means nothing all the same. */
typedef int (*journal_apply_t)(void *userdata, JournalItem *items, size_t n);

/* Calls @apply for each valid batch in order. Passes on its errors but -EBADMSG, which makes the batch a bad
 * one. -ENOMEM. */
int journal_parse(const char *data, size_t size, journal_apply_t apply, void *userdata, JournalDamage *ret);
