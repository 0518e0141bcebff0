/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* oracle - slow and plain second opinions about core/: sets as arrays of 256 bools, claims as a list that is
 * searched for every single APQN. Shares no code with what it judges but the types. */

#include "core/claim.h"
#include "core/snapshot.h"

#include "tests/lib/core/test.h"

typedef struct NaiveMask {
        bool has[AP_IDS];
} NaiveMask;

NaiveMask naive_of(const ApMask *m);
ApMask naive_to_mask(const NaiveMask *m);

/* Ids below @limit, each with a probability of one in @rarity. */
ApMask random_mask(Rng *rng, unsigned limit, unsigned rarity);
ApMatrix random_matrix(Rng *rng, unsigned limit, unsigned rarity);
Uuid random_uuid(Rng *rng, unsigned n); /* one of @n */

#define ORACLE_CLAIMS_MAX 64

typedef struct Oracle {
        Claim claims[ORACLE_CLAIMS_MAX]; /* names NULL */
        size_t n_claims;
        bool host[AP_IDS][AP_IDS];
        unsigned max_adapter, max_domain;
} Oracle;

void oracle_put(Oracle *o, const Claim *c);
void oracle_drop(Oracle *o, ClaimLayer layer, Uuid uuid);
void oracle_clear(Oracle *o, ClaimLayer layer);

/* Whether @c counts for @q and holds @a.@d. */
bool oracle_counts(const Oracle *o, const ClaimQuery *q, const Claim *c, unsigned a, unsigned d);
bool oracle_layer_taken(const Oracle *o, const ClaimQuery *q, ClaimLayer layer, unsigned a, unsigned d);
bool oracle_taken(const Oracle *o, const ClaimQuery *q, unsigned a, unsigned d);
ClaimVerdict oracle_check(const Oracle *o, const ClaimQuery *q);

/* A host that obeys its own rules: queues are bound as masks and overrides say, mdevs do not overlap each
 * other, nor what the host owns, and fill their type's instances. Ids below @limit. */
Snapshot *random_snapshot(Rng *rng, unsigned limit);

/* What plans change is equal. */
bool snapshots_agree(const Snapshot *a, const Snapshot *b);
