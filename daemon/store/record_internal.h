/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* record_internal - what the writer and the reader of a definition's XML share. */

#include "store/store.h"

#define RECORD_PARENT    "ap_matrix"
#define RECORD_TYPE      "vfio_ap-passthrough"
#define RECORD_NAMESPACE "urn:guestcrypt:matrix:1"
#define RECORD_VERSION   1

/* So that a record of 3 * 256 ids with all of it is still below RECORD_XML_MAX. */
#define RECORD_UNKNOWN_MAX (20 * 1024)

/* Record.unknown is one piece of XML per place where it is written back, with a character between that XML
 * cannot hold. The places are those where libvirt's schema wants its own elements. */
#define UNKNOWN_SEPARATOR "\x1f"
typedef enum UnknownPlace {
        UNKNOWN_DEVICE_ATTRIBUTES,
        UNKNOWN_BEFORE_PARENT,
        UNKNOWN_AFTER_PARENT,
        UNKNOWN_CAPABILITY_ATTRIBUTES,
        UNKNOWN_CAPABILITY,
        UNKNOWN_END,
        _UNKNOWN_MAX
} UnknownPlace;

/* The yes-or-no attributes of our element. */
typedef struct RecordFlag {
        const char *name;
        size_t offset;
} RecordFlag;

#define N_RECORD_FLAGS 3
extern const RecordFlag record_flags[N_RECORD_FLAGS];

static inline bool *record_flag(Record *r, size_t i) {
        return (bool *) ((char *) r + record_flags[i].offset);
}
