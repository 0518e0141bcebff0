/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/claim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* A grid is the 256 x 256 map of one layer. Live mdevs have two, so that those whose uuid has an alternative
 * definition can be left out of a question without looking at them one by one. */
typedef enum GridId {
        GRID_HOST,
        GRID_MDEV,
        GRID_MDEV_ALTERNATIVE,
        GRID_EXCLUSIVE,
        GRID_ALTERNATIVE,
        GRID_MDEVCTL,
        _GRID_MAX
} GridId;

typedef struct Entry Entry;
struct Entry {
        Claim claim; /* first: conflicts point to it */
        GridId grid;
        uint32_t slot; /* in the layer */
        Entry *bucket_next;
        Entry *everything_next, *everything_prev;
};

typedef struct Slot {
        Entry *entry;
        uint32_t next_free;
} Slot;

#define NO_SLOT UINT32_MAX

/* The claims of a layer, numbered. */
typedef struct Layer {
        Slot *slots;
        uint32_t n_slots, allocated, first_free;
} Layer;

typedef struct Grid {
        ApMask cells[AP_IDS];     /* row a, bit d: somebody holds a.d */
        ApMask shared[AP_IDS];    /* those that two or more claims hold */
        ApMask used, shared_used; /* rows that are not empty, of all cells and of shared ones */
        uint32_t *owner[AP_IDS];  /* slot of one holder of each cell; rows are made when first needed */
        Entry *everything;
} Grid;

struct ClaimTable {
        Grid grids[_GRID_MAX];
        Layer layers[_CLAIM_LAYER_MAX];
        uint8_t max_adapter, max_domain;

        Entry **buckets;
        size_t n_buckets, n_entries; /* n_buckets is a power of two */
};

ClaimTable *claim_table_new(void) {
        enum { FIRST_BUCKETS = 64 };
        ClaimTable *t;

        t = calloc(1, sizeof *t);
        if (!t)
                return NULL;

        t->buckets = calloc(FIRST_BUCKETS, sizeof *t->buckets);
        if (!t->buckets) {
                free(t);
                return NULL;
        }

        t->n_buckets = FIRST_BUCKETS;
        t->max_adapter = t->max_domain = AP_IDS - 1;
        for (size_t i = 0; i < _CLAIM_LAYER_MAX; i++)
                t->layers[i].first_free = NO_SLOT;
        return t;
}

static void entry_free(Entry *e) {
        free(e->claim.name);
        free(e);
}

ClaimTable *claim_table_free(ClaimTable *t) {
        if (!t)
                return NULL;

        for (size_t i = 0; i < _CLAIM_LAYER_MAX; i++) {
                for (uint32_t j = 0; j < t->layers[i].n_slots; j++)
                        if (t->layers[i].slots[j].entry)
                                entry_free(t->layers[i].slots[j].entry);
                free(t->layers[i].slots);
        }
        for (size_t i = 0; i < _GRID_MAX; i++)
                for (size_t a = 0; a < AP_IDS; a++)
                        free(t->grids[i].owner[a]);
        free(t->buckets);
        free(t);
        return NULL;
}

/* Look-up by layer and uuid. */

static size_t bucket_of(size_t n_buckets, ClaimLayer layer, Uuid uuid) {
        uint64_t high, low;

        memcpy(&high, uuid.b, sizeof high);
        memcpy(&low, uuid.b + 8, sizeof low);

        /* uuids need not be random (a client may choose them): let each bit reach the low ones */
        high = (high ^ low * UINT64_C(0x9e3779b97f4a7c15) ^ layer) * UINT64_C(0xff51afd7ed558ccd);
        high = (high ^ high >> 32) * UINT64_C(0xc4ceb9fe1a85ec53);
        return (size_t) (high ^ high >> 29) & (n_buckets - 1);
}

static Entry *entry_get(const ClaimTable *t, ClaimLayer layer, Uuid uuid) {
        for (Entry *e = t->buckets[bucket_of(t->n_buckets, layer, uuid)]; e; e = e->bucket_next)
                if (e->claim.layer == layer && uuid_equal(e->claim.uuid, uuid))
                        return e;
        return NULL;
}

static void bucket_add(Entry **buckets, size_t n_buckets, Entry *e) {
        Entry **head = &buckets[bucket_of(n_buckets, e->claim.layer, e->claim.uuid)];

        e->bucket_next = *head;
        *head = e;
}

static void bucket_remove(ClaimTable *t, Entry *e) {
        Entry **p = &t->buckets[bucket_of(t->n_buckets, e->claim.layer, e->claim.uuid)];

        while (*p != e)
                p = &(*p)->bucket_next;
        *p = e->bucket_next;
}

/* Without memory for it the old size still works, only slower. */
static void buckets_grow(ClaimTable *t) {
        size_t n = t->n_buckets * 2;
        Entry **grown;

        if (t->n_entries < t->n_buckets)
                return;

        grown = calloc(n, sizeof *grown);
        if (!grown)
                return;

        for (size_t i = 0; i < t->n_buckets; i++)
                for (Entry *e = t->buckets[i], *next; e; e = next) {
                        next = e->bucket_next;
                        bucket_add(grown, n, e);
                }

        free(t->buckets);
        t->buckets = grown;
        t->n_buckets = n;
}

/* Slots. */

static int slots_reserve(Layer *l) {
        uint32_t n = l->allocated ? l->allocated * 2 : 16;
        Slot *grown;

        if (l->first_free != NO_SLOT || l->n_slots < l->allocated)
                return 0;

        grown = reallocarray(l->slots, n, sizeof *grown);
        if (!grown)
                return -ENOMEM;

        l->slots = grown;
        l->allocated = n;
        return 0;
}

static void slot_take(Layer *l, Entry *e) {
        if (l->first_free != NO_SLOT) {
                e->slot = l->first_free;
                l->first_free = l->slots[e->slot].next_free;
        } else
                e->slot = l->n_slots++;

        l->slots[e->slot] = (Slot) { .entry = e };
}

static void slot_give_back(Layer *l, const Entry *e) {
        l->slots[e->slot] = (Slot) { .next_free = l->first_free };
        l->first_free = e->slot;
}

/* Grids. */

static int rows_reserve(Grid *g, const ApMatrix *m) {
        if (ap_mask_is_empty(&m->domains))
                return 0;

        AP_MASK_FOREACH(a, &m->adapters) {
                if (g->owner[a])
                        continue;
                g->owner[a] = calloc(AP_IDS, sizeof *g->owner[a]);
                if (!g->owner[a])
                        return -ENOMEM;
        }

        return 0;
}

static void mark_used(ApMask *used, unsigned a, const ApMask *row) {
        if (ap_mask_is_empty(row))
                ap_mask_clear(used, (uint8_t) a);
        else
                ap_mask_set(used, (uint8_t) a);
}

/* The rows must be there. */
static void grid_add(ClaimTable *t, Entry *e) {
        const ApMatrix *m = &e->claim.matrix;
        Grid *g = &t->grids[e->grid];

        if (e->claim.everything) {
                e->everything_prev = NULL;
                e->everything_next = g->everything;
                if (g->everything)
                        g->everything->everything_prev = e;
                g->everything = e;
                return;
        }
        if (ap_mask_is_empty(&m->domains))
                return;

        AP_MASK_FOREACH(a, &m->adapters) {
                ApMask *cells = &g->cells[a];
                ApMask fresh = ap_mask_and_not(&m->domains, cells), again = ap_mask_and(&m->domains, cells);

                AP_MASK_FOREACH(d, &fresh)
                        g->owner[a][d] = e->slot;
                *cells = ap_mask_or(cells, &m->domains);
                g->shared[a] = ap_mask_or(&g->shared[a], &again);
                ap_mask_set(&g->used, (uint8_t) a);
                mark_used(&g->shared_used, a, &g->shared[a]);
        }
}

/* Finds out anew who holds the shared cells of @gone, which does not count any more. */
static void grid_recount(ClaimTable *t, const Entry *gone, const ApMask *rows) {
        const Layer *l = &t->layers[gone->claim.layer];
        ApMask once[AP_IDS], open[AP_IDS]; /* cells with one holder found; cells not yet known to have two */
        Grid *g = &t->grids[gone->grid];
        ApMask todo = *rows;

        AP_MASK_FOREACH(a, rows) {
                once[a] = (ApMask) {};
                open[a] = ap_mask_and(&g->shared[a], &gone->claim.matrix.domains);
                g->cells[a] = ap_mask_and_not(&g->cells[a], &open[a]);
                g->shared[a] = ap_mask_and_not(&g->shared[a], &open[a]);
        }

        for (uint32_t i = 0; i < l->n_slots && !ap_mask_is_empty(&todo); i++) {
                const Entry *e = l->slots[i].entry;
                ApMask common;

                if (!e || e == gone || e->grid != gone->grid || e->claim.everything)
                        continue;

                common = ap_mask_and(&todo, &e->claim.matrix.adapters);
                AP_MASK_FOREACH(a, &common) {
                        ApMask hit = ap_mask_and(&open[a], &e->claim.matrix.domains);
                        ApMask first = ap_mask_and_not(&hit, &once[a]), second = ap_mask_and(&hit, &once[a]);

                        AP_MASK_FOREACH(d, &first)
                                g->owner[a][d] = i;
                        once[a] = ap_mask_or(&once[a], &first);
                        g->cells[a] = ap_mask_or(&g->cells[a], &first);
                        g->shared[a] = ap_mask_or(&g->shared[a], &second);
                        open[a] = ap_mask_and_not(&open[a], &second);
                        mark_used(&todo, a, &open[a]);
                }
        }
}

static void grid_remove(ClaimTable *t, Entry *e) {
        const ApMatrix *m = &e->claim.matrix;
        Grid *g = &t->grids[e->grid];
        ApMask shared_rows = {};

        if (e->claim.everything) {
                if (e->everything_prev)
                        e->everything_prev->everything_next = e->everything_next;
                else
                        g->everything = e->everything_next;
                if (e->everything_next)
                        e->everything_next->everything_prev = e->everything_prev;
                return;
        }
        if (ap_mask_is_empty(&m->domains))
                return;

        AP_MASK_FOREACH(a, &m->adapters) {
                ApMask alone = ap_mask_and_not(&m->domains, &g->shared[a]);

                g->cells[a] = ap_mask_and_not(&g->cells[a], &alone);
                if (ap_mask_intersects(&m->domains, &g->shared[a]))
                        ap_mask_set(&shared_rows, (uint8_t) a);
        }

        if (!ap_mask_is_empty(&shared_rows))
                grid_recount(t, e, &shared_rows);

        AP_MASK_FOREACH(a, &m->adapters) {
                mark_used(&g->used, a, &g->cells[a]);
                mark_used(&g->shared_used, a, &g->shared[a]);
        }
}

static void grid_move(ClaimTable *t, Entry *e, GridId to) {
        if (e->grid == to)
                return;

        grid_remove(t, e);
        e->grid = to;
        grid_add(t, e);
}

static void grid_clear(ClaimTable *t, GridId id) {
        Grid *g = &t->grids[id];

        for (size_t a = 0; a < AP_IDS; a++)
                g->cells[a] = g->shared[a] = (ApMask) {};
        g->used = g->shared_used = (ApMask) {};
        g->everything = NULL;
}

static GridId grid_for(const ClaimTable *t, const Claim *c) {
        switch (c->layer) {
        case CLAIM_LAYER_MDEV:
                return entry_get(t, CLAIM_LAYER_ALTERNATIVE, c->uuid) ? GRID_MDEV_ALTERNATIVE : GRID_MDEV;
        case CLAIM_LAYER_EXCLUSIVE:
                return GRID_EXCLUSIVE;
        case CLAIM_LAYER_ALTERNATIVE:
                return GRID_ALTERNATIVE;
        case CLAIM_LAYER_MDEVCTL:
                return GRID_MDEVCTL;
        default:
                abort(); /* the host's layer is set as a whole */
        }
}

/* Changes of the table. */

static void entry_remove(ClaimTable *t, Entry *e) {
        grid_remove(t, e);
        bucket_remove(t, e);
        slot_give_back(&t->layers[e->claim.layer], e);
        t->n_entries--;
        entry_free(e);
}

/* The live mdev of an alternative definition that comes or goes changes its grid. */
static void mdev_follow(ClaimTable *t, Uuid uuid) {
        Entry *mdev = entry_get(t, CLAIM_LAYER_MDEV, uuid);

        if (mdev)
                grid_move(t, mdev, grid_for(t, &mdev->claim));
}

int claim_table_put(ClaimTable *t, const Claim *c) {
        GridId grid = grid_for(t, c);
        Entry *e, *old;
        int r;

        r = slots_reserve(&t->layers[c->layer]);
        if (r >= 0 && !c->everything) {
                r = rows_reserve(&t->grids[grid], &c->matrix);
                /* an mdev must be able to change its grid later without fail */
                if (r >= 0 && c->layer == CLAIM_LAYER_MDEV)
                        r = rows_reserve(&t->grids[grid == GRID_MDEV ? GRID_MDEV_ALTERNATIVE : GRID_MDEV],
                                         &c->matrix);
        }
        if (r < 0)
                return r;

        e = calloc(1, sizeof *e);
        if (!e)
                return -ENOMEM;

        e->claim = *c;
        e->grid = grid;
        if (c->name) {
                e->claim.name = strdup(c->name);
                if (!e->claim.name) {
                        free(e);
                        return -ENOMEM;
                }
        }

        old = entry_get(t, c->layer, c->uuid);
        if (old)
                entry_remove(t, old);

        buckets_grow(t);
        slot_take(&t->layers[e->claim.layer], e);
        bucket_add(t->buckets, t->n_buckets, e);
        t->n_entries++;
        grid_add(t, e);

        if (e->claim.layer == CLAIM_LAYER_ALTERNATIVE)
                mdev_follow(t, e->claim.uuid);
        return 0;
}

void claim_table_drop(ClaimTable *t, ClaimLayer layer, Uuid uuid) {
        Entry *e = entry_get(t, layer, uuid);

        if (!e)
                return;

        entry_remove(t, e);
        if (layer == CLAIM_LAYER_ALTERNATIVE)
                mdev_follow(t, uuid);
}

void claim_table_clear(ClaimTable *t, ClaimLayer layer) {
        Layer *l = &t->layers[layer];

        for (uint32_t i = 0; i < l->n_slots; i++) {
                Entry *e = l->slots[i].entry;

                if (!e)
                        continue;

                bucket_remove(t, e);
                t->n_entries--;
                if (layer == CLAIM_LAYER_ALTERNATIVE)
                        mdev_follow(t, e->claim.uuid);
                entry_free(e);
        }
        l->n_slots = 0;
        l->first_free = NO_SLOT;

        for (GridId id = GRID_MDEV; id < _GRID_MAX; id++) {
                static const ClaimLayer layers[] = {
                        [GRID_MDEV] = CLAIM_LAYER_MDEV,
                        [GRID_MDEV_ALTERNATIVE] = CLAIM_LAYER_MDEV,
                        [GRID_EXCLUSIVE] = CLAIM_LAYER_EXCLUSIVE,
                        [GRID_ALTERNATIVE] = CLAIM_LAYER_ALTERNATIVE,
                        [GRID_MDEVCTL] = CLAIM_LAYER_MDEVCTL,
                };

                if (layers[id] == layer)
                        grid_clear(t, id);
        }
}

const Claim *claim_table_get(const ClaimTable *t, ClaimLayer layer, Uuid uuid) {
        const Entry *e = entry_get(t, layer, uuid);

        return e ? &e->claim : NULL;
}

void claim_table_set_host(ClaimTable *t, const Snapshot *s) {
        for (unsigned a = 0; a < AP_IDS; a++) {
                t->grids[GRID_HOST].cells[a] = snapshot_host_owned(s, (uint8_t) a);
                mark_used(&t->grids[GRID_HOST].used, a, &t->grids[GRID_HOST].cells[a]);
        }

        /* without an AP bus nobody knows what the machine could have */
        t->max_adapter = s->ap ? s->max_adapter : AP_IDS - 1;
        t->max_domain = s->ap ? s->max_domain : AP_IDS - 1;
}

/* Questions. */

/* A query, with the claims of `self` looked up once. */
typedef struct Ask {
        const ApMatrix *matrix;
        bool grids[_GRID_MAX];       /* which count */
        const Entry *own[_GRID_MAX]; /* the claim in it that does not; NULL: none */
} Ask;

static Ask ask_make(const ClaimTable *t, const ClaimQuery *q) {
        Ask k = { .matrix = q->matrix };

        k.grids[GRID_HOST] = q->layers & CLAIM_LAYER_BIT(CLAIM_LAYER_HOST);
        k.grids[GRID_MDEV] = q->layers & CLAIM_LAYER_BIT(CLAIM_LAYER_MDEV);
        k.grids[GRID_MDEV_ALTERNATIVE] = k.grids[GRID_MDEV] && !q->alternative;
        k.grids[GRID_EXCLUSIVE] = q->layers & CLAIM_LAYER_BIT(CLAIM_LAYER_EXCLUSIVE);
        k.grids[GRID_ALTERNATIVE] = q->layers & CLAIM_LAYER_BIT(CLAIM_LAYER_ALTERNATIVE);
        k.grids[GRID_MDEVCTL] = q->layers & CLAIM_LAYER_BIT(CLAIM_LAYER_MDEVCTL);

        if (!uuid_is_null(q->self))
                for (ClaimLayer l = CLAIM_LAYER_MDEV; l < _CLAIM_LAYER_MAX; l++) {
                        const Entry *own = q->layers & CLAIM_LAYER_BIT(l) ? entry_get(t, l, q->self) : NULL;

                        if (own)
                                k.own[own->grid] = own;
                }

        return k;
}

/* Whether @id has a claim on everything that is not ours. */
static const Entry *grid_everything(const ClaimTable *t, const Ask *k, GridId id) {
        const Entry *e = t->grids[id].everything;

        return e && e == k->own[id] ? e->everything_next : e;
}

/* The cells of row @a that others hold in @id. A cell that our own claim shares is another's too: a layer
 * has at most one claim of ours. */
static ApMask grid_row(const ClaimTable *t, const Ask *k, GridId id, unsigned a) {
        const Entry *own = k->own[id];
        ApMask row = t->grids[id].cells[a];

        if (own && !own->claim.everything && ap_mask_test(&own->claim.matrix.adapters, (uint8_t) a)) {
                ApMask alone = ap_mask_and_not(&own->claim.matrix.domains, &t->grids[id].shared[a]);

                row = ap_mask_and_not(&row, &alone);
        }
        if (grid_everything(t, k, id)) {
                ApMask rest = ap_mask_and_not(&AP_MASK_ALL, &t->grids[GRID_HOST].cells[a]);

                row = ap_mask_or(&row, &rest);
        }

        return row;
}

static bool has_no_such_id(const ClaimTable *t, const ApMatrix *m) {
        ApMask adapters = ap_mask_up_to(t->max_adapter), domains = ap_mask_up_to(t->max_domain);
        ApMask a = ap_mask_and_not(&m->adapters, &adapters), d = ap_mask_and_not(&m->domains, &domains),
               c = ap_mask_and_not(&m->control, &domains);

        return !ap_mask_is_empty(&a) || !ap_mask_is_empty(&d) || !ap_mask_is_empty(&c);
}

/* Whether any cell of @adapters x @domains is in @map. The one loop that has to be fast: up to 256 rows for
 * each layer. */
static bool rows_hit(const ApMask map[static AP_IDS], const ApMask *adapters, const ApMask *domains) {
        for (size_t w = 0; w < AP_IDS / 64; w++) {
                const ApMask *last = &map[64 * w + 63];
                ApMask any = {};

                /* backwards, since the lowest bit is taken off faster than the highest */
                for (uint64_t rest = adapters->w[w]; rest != 0; rest &= rest - 1)
                        any = ap_mask_or(&any, last - __builtin_ctzll(rest));
                if (ap_mask_intersects(&any, domains))
                        return true;
        }

        return false;
}

/* Whether others hold any of @k's queues in @id. */
static bool grid_hit(const ClaimTable *t, const Ask *k, GridId id) {
        const Grid *g = &t->grids[id];
        ApMask rows = ap_mask_and(&k->matrix->adapters, &g->used), own_rows, other_rows, inside, outside;

        if (ap_mask_is_empty(&rows))
                return false;
        if (!k->own[id] || k->own[id]->claim.everything)
                return rows_hit(g->cells, &rows, &k->matrix->domains);

        /* a cell that our own claim has is another's only if it is shared */
        own_rows = ap_mask_and(&rows, &k->own[id]->claim.matrix.adapters);
        other_rows = ap_mask_and_not(&rows, &own_rows);
        inside = ap_mask_and(&k->matrix->domains, &k->own[id]->claim.matrix.domains);
        outside = ap_mask_and_not(&k->matrix->domains, &inside);
        if (rows_hit(g->cells, &other_rows, &k->matrix->domains))
                return true;
        if (!ap_mask_is_empty(&outside) && rows_hit(g->cells, &own_rows, &outside))
                return true;

        own_rows = ap_mask_and(&own_rows, &g->shared_used);
        return rows_hit(g->shared, &own_rows, &inside);
}

static bool overlaps(const ClaimTable *t, const Ask *k) {
        bool everything = false;

        for (GridId id = GRID_MDEV; id < _GRID_MAX; id++) {
                if (!k->grids[id])
                        continue;
                if (grid_hit(t, k, id))
                        return true;
                everything = everything || grid_everything(t, k, id);
        }
        if (!everything)
                return false;

        AP_MASK_FOREACH(a, &k->matrix->adapters) {
                ApMask rest = ap_mask_and_not(&k->matrix->domains, &t->grids[GRID_HOST].cells[a]);

                if (!ap_mask_is_empty(&rest))
                        return true;
        }

        return false;
}

ClaimVerdict claim_check(const ClaimTable *t, const ClaimQuery *q) {
        Ask k = ask_make(t, q);

        if (has_no_such_id(t, q->matrix))
                return CLAIM_NO_SUCH_ID;

        if (k.grids[GRID_HOST] && grid_hit(t, &k, GRID_HOST))
                return CLAIM_HOST_OWNED;

        return overlaps(t, &k) ? CLAIM_OVERLAP : CLAIM_FREE;
}

/* One holder of a cell that others hold in @id. *@hint, if there is one, is tried first: neighbours often
 * have one holder, and a cell whose noted holder is ourselves would need a search. */
static const Entry *grid_holder(const ClaimTable *t, const Ask *k, GridId id, ClaimLayer layer, Apqn q,
                                const Entry **hint) {
        const Layer *l = &t->layers[layer];

        if (ap_mask_test(&t->grids[id].cells[q.adapter], q.domain)) {
                const Entry *e = l->slots[t->grids[id].owner[q.adapter][q.domain]].entry;

                if (e != k->own[id])
                        return e;
                if (ap_mask_test(&t->grids[id].shared[q.adapter], q.domain)) {
                        if (*hint && ap_matrix_has(&(*hint)->claim.matrix, q))
                                return *hint;
                        for (uint32_t i = 0; i < l->n_slots; i++) {
                                e = l->slots[i].entry;
                                if (e && e != k->own[id] && e->grid == id && !e->claim.everything &&
                                    ap_matrix_has(&e->claim.matrix, q))
                                        return *hint = e;
                        }
                }
        }

        return grid_everything(t, k, id);
}

/* The rows to look at for conflicts: an id that the machine does not have is named even if it makes no
 * queue. */
static ApMask conflict_rows(const ApMatrix *m) {
        ApMask rows = m->adapters;

        if (ap_mask_is_empty(&rows))
                ap_mask_set(&rows, 0);
        return rows;
}

static ApMask no_such_row(const ClaimTable *t, const ApMatrix *m, unsigned a, bool first) {
        ApMask known = ap_mask_up_to(t->max_domain), row = {}, control;

        if (ap_mask_test(&m->adapters, (uint8_t) a)) {
                row = m->domains;
                if (a <= t->max_adapter)
                        row = ap_mask_and_not(&row, &known);
                else if (ap_mask_is_empty(&row))
                        ap_mask_set(&row, 0);
        } else
                row = ap_mask_and_not(&m->domains, &known);

        if (first) { /* control domains have no adapter of their own */
                control = ap_mask_and_not(&m->control, &known);
                row = ap_mask_or(&row, &control);
        }

        return row;
}

/* What is wrong in one row. */
typedef struct ConflictRow {
        ApMask no_such, host, grids[_GRID_MAX];
} ConflictRow;

static size_t conflict_row(const ClaimTable *t, const Ask *k, unsigned a, bool first, ConflictRow *ret) {
        bool has = ap_mask_test(&k->matrix->adapters, (uint8_t) a);
        ConflictRow c = { .no_such = no_such_row(t, k->matrix, a, first) };
        size_t n = ap_mask_count(&c.no_such);

        if (has && k->grids[GRID_HOST]) {
                c.host = ap_mask_and(&t->grids[GRID_HOST].cells[a], &k->matrix->domains);
                c.host = ap_mask_and_not(&c.host, &c.no_such);
                n += ap_mask_count(&c.host);
        }

        for (GridId id = GRID_MDEV; has && id < _GRID_MAX; id++) {
                if (!k->grids[id])
                        continue;

                c.grids[id] = grid_row(t, k, id, a);
                c.grids[id] = ap_mask_and(&c.grids[id], &k->matrix->domains);
                if (id == GRID_MDEV_ALTERNATIVE) /* one layer, named once */
                        c.grids[id] = ap_mask_and_not(&c.grids[id], &c.grids[GRID_MDEV]);
                n += ap_mask_count(&c.grids[id]);
        }

        *ret = c;
        return n;
}

int claim_conflicts(const ClaimTable *t, const ClaimQuery *q, Conflict **ret, size_t *ret_n) {
        static const ClaimLayer layers[_GRID_MAX] = {
                [GRID_MDEV] = CLAIM_LAYER_MDEV,           [GRID_MDEV_ALTERNATIVE] = CLAIM_LAYER_MDEV,
                [GRID_EXCLUSIVE] = CLAIM_LAYER_EXCLUSIVE, [GRID_ALTERNATIVE] = CLAIM_LAYER_ALTERNATIVE,
                [GRID_MDEVCTL] = CLAIM_LAYER_MDEVCTL,
        };
        const Entry *hints[_GRID_MAX] = {};
        ApMask rows = conflict_rows(q->matrix);
        Ask k = ask_make(t, q);
        unsigned first = ap_mask_next(&rows, 0);
        Conflict *conflicts;
        size_t n = 0, i = 0;
        ConflictRow c;

        AP_MASK_FOREACH(a, &rows)
                n += conflict_row(t, &k, a, a == first, &c);

        conflicts = calloc(n > 0 ? n : 1, sizeof *conflicts);
        if (!conflicts)
                return -ENOMEM;

        AP_MASK_FOREACH(a, &rows) {
                ApMask any;

                if (conflict_row(t, &k, a, a == first, &c) == 0)
                        continue;

                any = ap_mask_or(&c.no_such, &c.host);
                for (GridId id = GRID_MDEV; id < _GRID_MAX; id++)
                        any = ap_mask_or(&any, &c.grids[id]);

                AP_MASK_FOREACH(d, &any) {
                        Apqn apqn = { (uint8_t) a, (uint8_t) d };

                        if (ap_mask_test(&c.no_such, apqn.domain))
                                conflicts[i++] =
                                        (Conflict) { apqn, CLAIM_NO_SUCH_ID, CLAIM_LAYER_HOST, NULL };
                        else if (ap_mask_test(&c.host, apqn.domain))
                                conflicts[i++] =
                                        (Conflict) { apqn, CLAIM_HOST_OWNED, CLAIM_LAYER_HOST, NULL };

                        for (GridId id = GRID_MDEV; id < _GRID_MAX; id++)
                                if (ap_mask_test(&c.grids[id], apqn.domain)) {
                                        const Entry *e =
                                                grid_holder(t, &k, id, layers[id], apqn, &hints[id]);

                                        conflicts[i++] =
                                                (Conflict) { apqn, CLAIM_OVERLAP, layers[id], &e->claim };
                                }
                }
        }

        *ret = conflicts;
        *ret_n = n;
        return 0;
}

const Claim *claim_owner(const ClaimTable *t, ClaimLayer layer, Apqn apqn) {
        static const GridId first[] = {
                [CLAIM_LAYER_MDEV] = GRID_MDEV,
                [CLAIM_LAYER_EXCLUSIVE] = GRID_EXCLUSIVE,
                [CLAIM_LAYER_ALTERNATIVE] = GRID_ALTERNATIVE,
                [CLAIM_LAYER_MDEVCTL] = GRID_MDEVCTL,
        };
        const Entry *everything = NULL;

        if (layer == CLAIM_LAYER_HOST)
                return NULL;

        for (GridId id = first[layer];
             id <= (layer == CLAIM_LAYER_MDEV ? GRID_MDEV_ALTERNATIVE : first[layer]); id++) {
                if (ap_mask_test(&t->grids[id].cells[apqn.adapter], apqn.domain))
                        return &t->layers[layer]
                                        .slots[t->grids[id].owner[apqn.adapter][apqn.domain]]
                                        .entry->claim;
                if (!everything)
                        everything = t->grids[id].everything;
        }

        if (!everything || ap_mask_test(&t->grids[GRID_HOST].cells[apqn.adapter], apqn.domain))
                return NULL;
        return &everything->claim;
}

void claim_suggest(const ClaimTable *t, const ClaimQuery *q, const ApMask *installed_adapters,
                   const ApMask *installed_domains, ApMask *ret_adapters, ApMask *ret_domains) {
        ApMask adapters = ap_mask_up_to(t->max_adapter), domains = ap_mask_up_to(t->max_domain), candidates;
        Ask k = ask_make(t, q);

        adapters = ap_mask_and(&adapters, installed_adapters);
        domains = ap_mask_and(&domains, installed_domains);
        candidates = ap_mask_or(&adapters, &q->matrix->adapters);

        AP_MASK_FOREACH(a, &candidates) {
                ApMask taken = {};

                if (k.grids[GRID_HOST])
                        taken = t->grids[GRID_HOST].cells[a];
                for (GridId id = GRID_MDEV; id < _GRID_MAX; id++)
                        if (k.grids[id]) {
                                ApMask row = grid_row(t, &k, id, a);

                                taken = ap_mask_or(&taken, &row);
                        }

                if (ap_mask_intersects(&taken, &q->matrix->domains))
                        ap_mask_clear(&adapters, (uint8_t) a);
                if (ap_mask_test(&q->matrix->adapters, (uint8_t) a))
                        domains = ap_mask_and_not(&domains, &taken);
        }

        *ret_adapters = adapters;
        *ret_domains = domains;
}

const char *conflict_owner_kind(const Conflict *c) {
        if (!c->claim)
                return "host";
        if (c->claim->operation)
                return "operation";
        if (c->layer == CLAIM_LAYER_MDEV)
                return "mdev";
        return c->layer == CLAIM_LAYER_MDEVCTL ? "mdevctl" : "definition";
}

const char *conflict_owner(const Conflict *c, char buf[static UUID_STRING_SIZE]) {
        if (!c->claim)
                return "";
        return c->claim->name ? c->claim->name : uuid_format(c->claim->uuid, buf);
}
