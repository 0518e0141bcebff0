/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/lib/core/oracle.h"

static bool has_id(const ApMask *m, unsigned id) {
        return m->w[id / 64] & UINT64_C(0x8000000000000000) >> id % 64;
}

NaiveMask naive_of(const ApMask *m) {
        NaiveMask n;

        for (unsigned i = 0; i < AP_IDS; i++)
                n.has[i] = has_id(m, i);
        return n;
}

ApMask naive_to_mask(const NaiveMask *m) {
        ApMask n = {};

        for (unsigned i = 0; i < AP_IDS; i++)
                if (m->has[i])
                        n.w[i / 64] |= UINT64_C(1) << (63 - i % 64);
        return n;
}

ApMask random_mask(Rng *rng, unsigned limit, unsigned rarity) {
        NaiveMask n = {};

        for (unsigned i = 0; i < limit; i++)
                n.has[i] = rng_one_in(rng, rarity);
        return naive_to_mask(&n);
}

ApMatrix random_matrix(Rng *rng, unsigned limit, unsigned rarity) {
        return (ApMatrix) {
                random_mask(rng, limit, rarity),
                random_mask(rng, limit, rarity),
                random_mask(rng, limit, rarity),
        };
}

Uuid random_uuid(Rng *rng, unsigned n) {
        Uuid u = { { 0x11 } };

        u.b[15] = (uint8_t) rng_below(rng, n);
        return u;
}

void oracle_drop(Oracle *o, ClaimLayer layer, Uuid uuid) {
        for (size_t i = 0; i < o->n_claims; i++)
                if (o->claims[i].layer == layer && memcmp(&o->claims[i].uuid, &uuid, sizeof uuid) == 0)
                        o->claims[i--] = o->claims[--o->n_claims];
}

void oracle_clear(Oracle *o, ClaimLayer layer) {
        for (size_t i = 0; i < o->n_claims; i++)
                if (o->claims[i].layer == layer)
                        o->claims[i--] = o->claims[--o->n_claims];
}

void oracle_put(Oracle *o, const Claim *c) {
        oracle_drop(o, c->layer, c->uuid);
        assert_true(o->n_claims < ORACLE_CLAIMS_MAX);
        o->claims[o->n_claims++] = *c;
}

static bool has_alternative(const Oracle *o, Uuid uuid) {
        for (size_t i = 0; i < o->n_claims; i++)
                if (o->claims[i].layer == CLAIM_LAYER_ALTERNATIVE &&
                    memcmp(&o->claims[i].uuid, &uuid, sizeof uuid) == 0)
                        return true;
        return false;
}

bool oracle_counts(const Oracle *o, const ClaimQuery *q, const Claim *c, unsigned a, unsigned d) {
        static const Uuid null;

        if (!(q->layers & 1u << c->layer))
                return false;
        if (memcmp(&q->self, &null, sizeof null) != 0 && memcmp(&q->self, &c->uuid, sizeof null) == 0)
                return false;
        if (q->alternative && c->layer == CLAIM_LAYER_MDEV && has_alternative(o, c->uuid))
                return false;
        return c->everything ? !o->host[a][d]
                             : has_id(&c->matrix.adapters, a) && has_id(&c->matrix.domains, d);
}

bool oracle_layer_taken(const Oracle *o, const ClaimQuery *q, ClaimLayer layer, unsigned a, unsigned d) {
        if (layer == CLAIM_LAYER_HOST)
                return q->layers & 1u << CLAIM_LAYER_HOST && o->host[a][d];

        for (size_t i = 0; i < o->n_claims; i++)
                if (o->claims[i].layer == layer && oracle_counts(o, q, &o->claims[i], a, d))
                        return true;
        return false;
}

bool oracle_taken(const Oracle *o, const ClaimQuery *q, unsigned a, unsigned d) {
        for (ClaimLayer l = 0; l < _CLAIM_LAYER_MAX; l++)
                if (oracle_layer_taken(o, q, l, a, d))
                        return true;
        return false;
}

ClaimVerdict oracle_check(const Oracle *o, const ClaimQuery *q) {
        NaiveMask adapters = naive_of(&q->matrix->adapters), domains = naive_of(&q->matrix->domains);
        NaiveMask control = naive_of(&q->matrix->control);
        bool host = false, other = false;

        for (unsigned i = 0; i < AP_IDS; i++)
                if ((adapters.has[i] && i > o->max_adapter) ||
                    ((domains.has[i] || control.has[i]) && i > o->max_domain))
                        return CLAIM_NO_SUCH_ID;

        for (unsigned a = 0; a < AP_IDS; a++)
                for (unsigned d = 0; adapters.has[a] && d < AP_IDS; d++) {
                        if (!domains.has[d])
                                continue;
                        host = host || oracle_layer_taken(o, q, CLAIM_LAYER_HOST, a, d);
                        other = other || oracle_taken(o, q, a, d);
                }

        return host ? CLAIM_HOST_OWNED : other ? CLAIM_OVERLAP : CLAIM_FREE;
}

static void add_parents(Snapshot *s) {
        s->n_parents = 2;
        s->parents = calloc(2, sizeof *s->parents);
        s->n_types = 3;
        s->types = calloc(3, sizeof *s->types);
        assert_true(s->parents && s->types);

        strcpy(s->parents[0].name, "matrix");
        strcpy(s->parents[1].name, "mtty");
        strcpy(s->types[0].id, "vfio_ap-passthrough");
        strcpy(s->types[0].device_api, "vfio-ap");
        s->types[0].available = 65536;
        strcpy(s->types[1].id, "mtty-1");
        strcpy(s->types[1].device_api, "vfio-pci");
        s->types[1].parent = 1;
        s->types[1].available = 24;
        strcpy(s->types[2].id, "mtty-2");
        strcpy(s->types[2].device_api, "vfio-pci");
        s->types[2].parent = 1;
        s->types[2].available = 12;
}

static bool is_host_owned(const Snapshot *s, unsigned a, unsigned d) {
        return has_id(&s->apmask, a) && has_id(&s->aqmask, d) &&
               !(has_id(&s->queue_override[a], d) && has_id(&s->queue_vfio[a], d));
}

Snapshot *random_snapshot(Rng *rng, unsigned limit) {
        Snapshot *s = snapshot_new();
        bool taken[AP_IDS][AP_IDS] = {};
        bool overrides = rng_one_in(rng, 3);

        assert_non_null(s);
        s->ap = s->vfio_ap = true;
        s->has_override = overrides || rng_one_in(rng, 2);
        s->has_ap_config = !rng_one_in(rng, 3);
        s->max_adapter = s->max_domain = (uint8_t) (limit - 1);
        s->host_adapters = s->host_domains = s->host_control = ap_mask_up_to((uint8_t) (limit - 1));
        s->apmask = s->aqmask = AP_MASK_ALL;
        if (!overrides) {
                ApMask given = random_mask(rng, limit, 3);

                s->apmask = ap_mask_and_not(&s->apmask, &given);
                given = random_mask(rng, limit, 3);
                s->aqmask = ap_mask_and_not(&s->aqmask, &given);
        }
        add_parents(s);

        for (unsigned a = 0; a < limit; a++) {
                ApMask missing = random_mask(rng, limit, 12), present = ap_mask_up_to((uint8_t) (limit - 1));

                s->queue_present[a] = ap_mask_and_not(&present, &missing);
                if (overrides) {
                        ApMask given = random_mask(rng, limit, 3);

                        s->queue_override[a] = s->queue_vfio[a] = ap_mask_and(&given, &s->queue_present[a]);
                } else
                        for (unsigned d = 0; d < limit; d++)
                                if (ap_mask_test(&s->queue_present[a], (uint8_t) d) &&
                                    !is_host_owned(s, a, d))
                                        ap_mask_set(&s->queue_vfio[a], (uint8_t) d);
        }

        for (unsigned i = rng_below(rng, 6); i > 0; i--) {
                HostMdev m = {
                        .uuid = random_uuid(rng, 250), .ap = true, .matrix_known = true, .use = MDEV_USE_FREE
                };
                bool fits = true;

                if (rng_one_in(rng, 4)) {
                        m.ap = m.matrix_known = false;
                        m.type = 1;
                } else {
                        m.matrix = random_matrix(rng, limit, 4);
                        for (unsigned a = 0; a < limit; a++)
                                for (unsigned d = 0; d < limit; d++)
                                        if (ap_matrix_has(&m.matrix, (Apqn) { (uint8_t) a, (uint8_t) d }))
                                                fits = fits && !taken[a][d] && !is_host_owned(s, a, d);
                }
                if (!fits || snapshot_find_mdev(s, m.uuid))
                        continue;

                assert_int_equal(snapshot_put_mdev(s, &m), 0);
                s->types[m.type].available--;
                for (unsigned a = 0; a < limit; a++)
                        for (unsigned d = 0; d < limit; d++)
                                taken[a][d] = taken[a][d] ||
                                              (m.ap && ap_matrix_has(&m.matrix,
                                                                     (Apqn) { (uint8_t) a, (uint8_t) d }));
        }

        return s;
}

bool snapshots_agree(const Snapshot *a, const Snapshot *b) {
        if (!ap_mask_equal(&a->apmask, &b->apmask) || !ap_mask_equal(&a->aqmask, &b->aqmask) ||
            memcmp(a->queue_vfio, b->queue_vfio, sizeof a->queue_vfio) != 0 ||
            memcmp(a->queue_override, b->queue_override, sizeof a->queue_override) != 0 ||
            a->n_mdevs != b->n_mdevs || a->n_types != b->n_types)
                return false;

        for (size_t i = 0; i < a->n_types; i++)
                if (a->types[i].available != b->types[i].available)
                        return false;
        for (size_t i = 0; i < a->n_mdevs; i++) {
                const HostMdev *m = &a->mdevs[i], *n = &b->mdevs[i];

                if (memcmp(&m->uuid, &n->uuid, sizeof m->uuid) != 0 || m->type != n->type ||
                    m->ap != n->ap || m->matrix_known != n->matrix_known ||
                    !ap_matrix_equal(&m->matrix, &n->matrix))
                        return false;
        }

        return true;
}
