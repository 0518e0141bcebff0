/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* intent - an operation as one line of the journal: enough to finish or to undo it without the client
 * that asked for it. Pure. */

#include "core/plan.h"
#include "store/store.h"

typedef enum IntentKind {
        INTENT_DEFINE, /* make definition `record`, and start it if there is a plan */
        INTENT_START,
        INTENT_STOP,
        INTENT_MODIFY,   /* definition becomes `record`, and so does what is live if there is a plan */
        INTENT_UNDEFINE, /* take the definition away, after stopping it if there is a plan */
        INTENT_CREATE,   /* an mdev without definition */
        INTENT_REMOVE,
        INTENT_MASKS,
        INTENT_HEAL, /* bring what is live back to its definition */
        INTENT_HOST, /* queues from the host to guests or back, until the next boot */
        _INTENT_KIND_MAX
} IntentKind;

typedef struct Intent {
        IntentKind kind;
        Uuid uuid;
        bool has_record;
        Record record;
        Plan plan;
} Intent;

void intent_clear(Intent *i);

/* "start", "stop", ...: also as a word for people. */
const char *intent_kind_name(IntentKind kind);

/* Better finished than undone when it was interrupted half way. */
static inline bool intent_wants_finish(IntentKind kind) {
        return kind == INTENT_STOP || kind == INTENT_UNDEFINE || kind == INTENT_REMOVE ||
               kind == INTENT_HEAL;
}

/* free(*ret). -ENOMEM. */
int intent_to_line(IntentKind kind, Uuid uuid, const Record *record, const Plan *plan, char **ret);
/* -EBADMSG, -ENOMEM; *ret is untouched on error. */
int intent_from_line(const char *line, Intent *ret);
