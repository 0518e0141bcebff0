/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* claim - who holds which APQN. A claim is a matrix with an owner; claims lie in layers, so that "may
 * this be defined" and "may this be started" are questions about different sets of layers. Asking costs
 * at most 256 row operations whatever the number of claims; naming the owner of one APQN is one look-up.
 * Pure but for its memory. */

#include <stdint.h>

#include "base/uuid.h"
#include "core/ap_matrix.h"
#include "core/snapshot.h"

typedef enum ClaimVerdict {
        CLAIM_FREE,
        CLAIM_OVERLAP,
        CLAIM_HOST_OWNED,
        CLAIM_NO_SUCH_ID,
        _CLAIM_VERDICT_MAX
} ClaimVerdict;

typedef enum ClaimLayer {
        CLAIM_LAYER_HOST,        /* the host's drivers: set as a whole with claim_table_set_host() */
        CLAIM_LAYER_MDEV,        /* live mdevs, whoever made them */
        CLAIM_LAYER_EXCLUSIVE,   /* our definitions, and those about to be */
        CLAIM_LAYER_ALTERNATIVE, /* our definitions that may overlap each other */
        CLAIM_LAYER_MDEVCTL,     /* definitions of mdevctl; they may overlap anything */
        _CLAIM_LAYER_MAX
} ClaimLayer;

#define CLAIM_LAYER_BIT(layer) (1u << (layer))

typedef struct Claim {
        ClaimLayer layer;
        Uuid uuid;       /* of the owner; a layer holds at most one claim of a uuid */
        char *name;      /* of the owner, or NULL; the table's copy */
        bool operation;  /* the owner is an operation in flight */
        bool everything; /* its matrix cannot be read: it claims all that the host does not own */
        ApMatrix matrix;
} Claim;

typedef struct ClaimTable ClaimTable;

/* NULL: out of memory. */
ClaimTable *claim_table_new(void);
ClaimTable *claim_table_free(ClaimTable *t);
static inline void claim_table_freep(ClaimTable **t) {
        (void) claim_table_free(*t);
}

/* Adds a copy of @c or replaces the claim of the same layer and uuid. 0 or -ENOMEM (nothing changed). */
int claim_table_put(ClaimTable *t, const Claim *c);
/* Nothing happens if there is none. */
void claim_table_drop(ClaimTable *t, ClaimLayer layer, Uuid uuid);
/* Drops a whole layer. */
void claim_table_clear(ClaimTable *t, ClaimLayer layer);
/* NULL if there is none; valid until the next change. */
const Claim *claim_table_get(const ClaimTable *t, ClaimLayer layer, Uuid uuid);
/* Takes over who owns what by masks and overrides, and the machine's maxima (none if it has no AP bus). */
void claim_table_set_host(ClaimTable *t, const Snapshot *s);

/* What to ask. */
typedef struct ClaimQuery {
        const ApMatrix *matrix;
        unsigned layers;  /* CLAIM_LAYER_BIT()s */
        Uuid self;        /* claims of this uuid do not count, in any layer; null: all count */
        bool alternative; /* live mdevs whose uuid has an ALTERNATIVE claim do not count */
} ClaimQuery;

/* FREE, or the first refusal in the order NO_SUCH_ID, HOST_OWNED, OVERLAP. NO_SUCH_ID is asked whatever
 * the layers are, and of control domains too; HOST_OWNED only with the host's layer. Constant time
 * (above). */
ClaimVerdict claim_check(const ClaimTable *t, const ClaimQuery *q);

/* One conflict. The pointers live as long as the claim does. */
typedef struct Conflict {
        Apqn apqn;
        ClaimVerdict verdict;
        ClaimLayer layer;
        const Claim *claim; /* NULL for the host and for NO_SUCH_ID */
} Conflict;

/* All conflicts of @q in order of APQN, then layer: each APQN is named once a layer (with any one owner
 * of several). A control domain that the machine does not have is named with the first adapter, an
 * adapter without domains with domain 0. Allocates *ret (free()), even if @q has none. 0 or -ENOMEM. */
int claim_conflicts(const ClaimTable *t, const ClaimQuery *q, Conflict **ret, size_t *ret_n);

/* The owner of @apqn in @layer: NULL if nobody; one of them if there are several. Constant time if there
 * is one. */
const Claim *claim_owner(const ClaimTable *t, ClaimLayer layer, Apqn apqn);

/* What could be had instead of @q: the adapters of which all wanted domains, and the domains of which all
 * wanted adapters, are free, restricted to what the machine has (@installed_*). Those of the matrix
 * itself are included when free. */
void claim_suggest(const ClaimTable *t, const ClaimQuery *q, const ApMask *installed_adapters,
                   const ApMask *installed_domains, ApMask *ret_adapters, ApMask *ret_domains);

/* "host", "mdev", "definition", "mdevctl", "operation": the owner kinds of the bus API. */
const char *conflict_owner_kind(const Conflict *c);
/* Name or uuid of the owner, "" for the host's drivers. @buf is used for a uuid. */
const char *conflict_owner(const Conflict *c, char buf[static UUID_STRING_SIZE]);
