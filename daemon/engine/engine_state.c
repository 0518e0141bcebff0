/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/timer.h"
#include "core/reconcile.h"
#include "engine/engine_internal.h"

#define SHOW_DELAY_US  (100 * UINT64_C(1000)) /* signals about many matrices may lag this much */
#define SHOWN_PER_TURN 256                    /* matrices: 1 to 2 ms */

/* ---- matrices, in two sorted arrays ---- */

size_t state_place(const Engine *e, Uuid uuid) {
        size_t low = 0, high = e->n_matrices;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (uuid_compare(e->by_uuid[middle]->rec.uuid, uuid) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static size_t place_name(const Engine *e, const char *name) {
        size_t low = 0, high = e->n_matrices;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (strcmp(e->by_name[middle]->rec.name, name) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

Matrix *state_find(const Engine *e, Uuid uuid) {
        size_t i = state_place(e, uuid);

        return i < e->n_matrices && uuid_equal(e->by_uuid[i]->rec.uuid, uuid) ? e->by_uuid[i] : NULL;
}

Matrix *state_find_name(const Engine *e, const char *name) {
        size_t i = place_name(e, name);

        return i < e->n_matrices && strcmp(e->by_name[i]->rec.name, name) == 0 ? e->by_name[i] : NULL;
}

static void insert(Matrix **array, size_t n, size_t at, Matrix *m) {
        memmove(array + at + 1, array + at, (n - at) * sizeof *array);
        array[at] = m;
}

static void take_out(Matrix **array, size_t n, size_t at) {
        memmove(array + at, array + at + 1, (n - at - 1) * sizeof *array);
}

int state_add(Engine *e, Record *rec, Matrix **ret) {
        Matrix *m;

        if (state_find(e, rec->uuid) || state_find_name(e, rec->name))
                return -EEXIST;

        if (e->n_matrices == e->allocated_matrices) {
                size_t n = e->allocated_matrices * 2 + 64;
                Matrix **grown;

                grown = reallocarray(e->by_uuid, n, sizeof *grown);
                if (!grown)
                        return -ENOMEM;
                e->by_uuid = grown;
                grown = reallocarray(e->by_name, n, sizeof *grown);
                if (!grown)
                        return -ENOMEM;
                e->by_name = grown;
                e->allocated_matrices = n;
        }

        m = calloc(1, sizeof *m);
        if (!m)
                return -ENOMEM;

        insert(e->by_uuid, e->n_matrices, state_place(e, rec->uuid), m);
        insert(e->by_name, e->n_matrices, place_name(e, rec->name), m);
        m->rec = *rec;
        *rec = (Record) {};
        e->n_matrices++;
        *ret = m;
        return 0;
}

static void matrix_free(Matrix *m) {
        record_clear(&m->rec);
        free(m->autostart_error);
        strv_free(m->problems);
        free(m);
}

void state_remove(Engine *e, Matrix *m) {
        take_out(e->by_uuid, e->n_matrices, state_place(e, m->rec.uuid));
        take_out(e->by_name, e->n_matrices, place_name(e, m->rec.name));
        e->n_matrices--;
        matrix_free(m);
}

int state_replace(Engine *e, Matrix *m, Record *rec) {
        /* A definition keeps its name, so both orders stay. That of an intent may be older: what it was known by
         * before its file turned out to share its name. */
        free(rec->name);
        rec->name = TAKE(m->rec.name);
        record_clear(&m->rec);
        m->rec = *rec;
        *rec = (Record) {};
        return state_claim_definition(e, m);
}

void state_free_all(Engine *e) {
        for (size_t i = 0; i < e->n_matrices; i++)
                matrix_free(e->by_uuid[i]);
        free(e->by_uuid);
        free(e->by_name);
        free(e->own_mdevs);
}

/* ---- mdevs of ours without definition ---- */

static size_t place_own(const Engine *e, Uuid uuid) {
        size_t i = 0;

        while (i < e->n_own_mdevs && uuid_compare(e->own_mdevs[i], uuid) < 0)
                i++;
        return i;
}

bool state_is_own_mdev(const Engine *e, Uuid uuid) {
        size_t i = place_own(e, uuid);

        return i < e->n_own_mdevs && uuid_equal(e->own_mdevs[i], uuid);
}

int state_add_own_mdev(Engine *e, Uuid uuid) {
        size_t i = place_own(e, uuid);
        Uuid *grown;

        if (state_is_own_mdev(e, uuid))
                return 0;

        grown = reallocarray(e->own_mdevs, e->n_own_mdevs + 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;

        e->own_mdevs = grown;
        memmove(grown + i + 1, grown + i, (e->n_own_mdevs - i) * sizeof *grown);
        grown[i] = uuid;
        e->n_own_mdevs++;
        return 0;
}

void state_drop_own_mdev(Engine *e, Uuid uuid) {
        size_t i = place_own(e, uuid);

        if (!state_is_own_mdev(e, uuid))
                return;

        e->n_own_mdevs--;
        memmove(e->own_mdevs + i, e->own_mdevs + i + 1, (e->n_own_mdevs - i) * sizeof *e->own_mdevs);
}

/* ---- claims ---- */

ClaimLayer state_definition_layer(const Record *rec) {
        return rec->alternative ? CLAIM_LAYER_ALTERNATIVE : CLAIM_LAYER_EXCLUSIVE;
}

int state_claim_definition(Engine *e, const Matrix *m) {
        Claim c = {
                .layer = state_definition_layer(&m->rec),
                .uuid = m->rec.uuid,
                .name = m->rec.name,
                .operation = !m->visible,
                .matrix = m->rec.matrix,
        };

        return claim_table_put(e->claims, &c);
}

/* An operation that is to make or change what is live counts for the matrix it wants; else what is there
 * counts. */
int state_claim_live(Engine *e, Uuid uuid, const Op *op) {
        const Matrix *m = state_find(e, uuid);
        const HostMdev *mdev = snapshot_find_mdev(e->snapshot, uuid);
        Claim c = { .layer = CLAIM_LAYER_MDEV, .uuid = uuid, .name = m ? m->rec.name : NULL };

        if (!op && m)
                op = m->op;
        for (size_t i = 0; i < e->n_busy && !op; i++)
                if (uuid_equal(e->busy[i]->uuid, uuid))
                        op = e->busy[i];

        if (op && op->claims_live) {
                c.operation = true;
                c.matrix = op->target;
        } else if (mdev && mdev->ap) {
                c.everything = !mdev->matrix_known;
                c.matrix = mdev->matrix;
        } else {
                claim_table_drop(e->claims, CLAIM_LAYER_MDEV, uuid);
                return 0;
        }

        return claim_table_put(e->claims, &c);
}

void state_unclaim(Engine *e, const Matrix *m) {
        claim_table_drop(e->claims, state_definition_layer(&m->rec), m->rec.uuid);
}

int state_claim_mdevctl(Engine *e) {
        claim_table_clear(e->claims, CLAIM_LAYER_MDEVCTL);

        for (size_t i = 0; i < e->mdevctl.n_definitions; i++) {
                const MdevctlDefinition *d = &e->mdevctl.definitions[i];
                Claim c = { .layer = CLAIM_LAYER_MDEVCTL, .uuid = d->uuid, .matrix = d->matrix };
                int r = claim_table_put(e->claims, &c);

                if (r < 0)
                        return r;
        }
        return mdevctl_claim_reserved(e);
}

/* ---- a new snapshot ---- */

/* What the machine has; what a guest gets of its matrix follows it. */
static bool machine_equal(const Snapshot *a, const Snapshot *b) {
        return ap_mask_equal(&a->host_adapters, &b->host_adapters) &&
               ap_mask_equal(&a->host_domains, &b->host_domains) &&
               ap_mask_equal(&a->host_control, &b->host_control) &&
               memcmp(a->queue_present, b->queue_present, sizeof a->queue_present) == 0;
}

/* A scan without detail does not forget what one with detail has seen of an mdev that is as it was, on a machine that is.
 * On a kernel that gives no safe way to read the matrix of ours, it is what we have made it. */
static void complete_mdev(Engine *e, const Snapshot *old, const Snapshot *s, HostMdev *m) {
        const HostMdev *before = snapshot_find_mdev(old, m->uuid);
        const Matrix *matrix;

        if (m->ap && !m->matrix_known) {
                matrix = state_find(e, m->uuid);
                if (matrix && matrix->mark == MARK_LIVE && !s->has_ap_config) {
                        m->matrix = matrix->rec.matrix;
                        m->matrix_known = true;
                }
        }

        if (s->detailed || !before)
                return;
        if (m->ap && m->use == MDEV_USE_UNKNOWN) /* of others it is in each scan as far as it is known */
                m->use = before->use;
        if (before->guest_known && !machine_equal(old, s))
                e->detail_wanted = true;
        else if (before->guest_known && ap_matrix_equal(&before->matrix, &m->matrix)) {
                m->guest_known = true;
                m->guest_adapters = before->guest_adapters;
                m->guest_domains = before->guest_domains;
        }
}

/* What a matrix of ours has. While it changes, the host is told of so many queues that it reads nothing
 * unsafely whenever it looks. */
static const ApMatrix *vouched(const Matrix *m, bool scan) {
        const Op *op = m->op;
        bool grows;

        if (op && op->claims_live)
                return &op->target;
        if (m->mark != MARK_LIVE)
                return NULL;
        if (!op || op->kind != INTENT_MODIFY || op->plan.n_steps == 0)
                return &m->rec.matrix;

        grows = ap_matrix_n_queues(&m->rec.matrix) < HOST_MATRIX_QUEUES_MAX &&
                ap_matrix_n_queues(&op->target) >= HOST_MATRIX_QUEUES_MAX;
        return op->phase == OP_FINAL || op->phase == OP_UNDO || (grows && scan) ? &op->target
                                                                                : &m->rec.matrix;
}

int state_vouch(Engine *e, bool scan) {
        CLEANUP(freep) HostKnown *known = NULL;
        size_t n = 0;

        if (e->scanned && (e->snapshot->has_ap_config || !e->snapshot->vfio_ap))
                return 0;

        known = calloc(e->n_matrices + e->n_unresolved + 1, sizeof *known);
        if (!known)
                return -ENOMEM;

        for (size_t i = 0; i < e->n_unresolved; i++)
                if (recover_vouch(&e->unresolved[i].intent, &known[n].matrix))
                        known[n++].uuid = e->unresolved[i].intent.uuid;
        for (size_t i = 0; i < e->n_matrices; i++) {
                const Matrix *m = e->by_uuid[i];
                const ApMatrix *matrix = m->unresolved ? NULL : vouched(m, scan);

                if (matrix)
                        known[n++] = (HostKnown) { .uuid = m->rec.uuid, .matrix = *matrix };
        }
        return e->host->ops->know(e->host, known, n);
}

static bool mdev_equal(const HostMdev *a, const HostMdev *b) {
        return a->type == b->type && a->use == b->use && a->leaving == b->leaving &&
               a->matrix_known == b->matrix_known && a->guest_known == b->guest_known &&
               ap_matrix_equal(&a->matrix, &b->matrix) &&
               ap_mask_equal(&a->guest_adapters, &b->guest_adapters) &&
               ap_mask_equal(&a->guest_domains, &b->guest_domains);
}

static int mdev_differs(Engine *e, Uuid uuid, EngineChange change, size_t *n) {
        EngineKey key = { .object = ENGINE_MDEV, .uuid = uuid };
        Matrix *m = state_find(e, uuid);
        int r;

        e->host_differs = true;
        r = state_claim_live(e, uuid, NULL);
        state_emit(e, &key, change);
        if (m && m->op) /* whose end shows it */
                return r;
        if (m && (*n)++ < SHOWN_PER_TURN)
                state_show(e, m);
        else if (m)
                state_show_all_soon(e);
        return r;
}

static int compare_mdevs(Engine *e, const Snapshot *old, const Snapshot *s) {
        size_t i = 0, j = 0, n = 0;
        int r = 0;

        while (r >= 0 && (i < old->n_mdevs || j < s->n_mdevs)) {
                int order = i == old->n_mdevs ? 1
                            : j == s->n_mdevs ? -1
                                              : uuid_compare(old->mdevs[i].uuid, s->mdevs[j].uuid);

                if (order < 0)
                        r = mdev_differs(e, old->mdevs[i++].uuid, ENGINE_REMOVED, &n);
                else if (order > 0)
                        r = mdev_differs(e, s->mdevs[j++].uuid, ENGINE_ADDED, &n);
                else {
                        if (!mdev_equal(&old->mdevs[i], &s->mdevs[j]))
                                r = mdev_differs(e, s->mdevs[j].uuid, ENGINE_CHANGED, &n);
                        i++;
                        j++;
                }
        }
        return r;
}

static bool parent_equal(const Snapshot *old, size_t i, const Snapshot *s, size_t j) {
        size_t a = 0, b = 0;

        /* types lie in order of their parents */
        while (a < old->n_types && old->types[a].parent != i)
                a++;
        while (b < s->n_types && s->types[b].parent != j)
                b++;
        for (; a < old->n_types && old->types[a].parent == i; a++, b++)
                if (b == s->n_types || s->types[b].parent != j ||
                    strcmp(old->types[a].id, s->types[b].id) != 0 ||
                    old->types[a].available != s->types[b].available)
                        return false;
        return b == s->n_types || s->types[b].parent != j;
}

static void compare_parents(Engine *e, const Snapshot *old, const Snapshot *s) {
        size_t i = 0, j = 0;

        while (i < old->n_parents || j < s->n_parents) {
                int order = i == old->n_parents ? 1
                            : j == s->n_parents ? -1
                                                : strcmp(old->parents[i].name, s->parents[j].name);
                EngineKey key = { .object = ENGINE_PARENT };

                key.name = order < 0 ? old->parents[i].name : s->parents[j].name;
                if (order != 0)
                        state_emit(e, &key, order < 0 ? ENGINE_REMOVED : ENGINE_ADDED);
                else if (!parent_equal(old, i, s, j))
                        state_emit(e, &key, ENGINE_CHANGED);
                i += order <= 0;
                j += order >= 0;
        }
}

static bool adapter_equal(const Snapshot *old, const HostCard *a, const Snapshot *s, const HostCard *b) {
        ApMask owned_before = snapshot_host_owned(old, a->id), owned = snapshot_host_owned(s, b->id);

        return a->mode == b->mode && a->hwtype == b->hwtype && strcmp(a->type, b->type) == 0 &&
               a->online == b->online && a->config == b->config && a->chkstop == b->chkstop &&
               ap_mask_equal(&owned_before, &owned) &&
               ap_mask_equal(&old->queue_present[a->id], &s->queue_present[b->id]) &&
               ap_mask_equal(&old->queue_vfio[a->id], &s->queue_vfio[b->id]);
}

static void compare_adapters(Engine *e, const Snapshot *old, const Snapshot *s) {
        size_t i = 0, j = 0;

        while (i < old->n_cards || j < s->n_cards) {
                int order = i == old->n_cards ? 1 : j == s->n_cards ? -1 : old->cards[i].id - s->cards[j].id;
                EngineKey key = { .object = ENGINE_ADAPTER };

                key.id = order < 0 ? old->cards[i].id : s->cards[j].id;
                if (order != 0)
                        state_emit(e, &key, order < 0 ? ENGINE_REMOVED : ENGINE_ADDED);
                else if (!adapter_equal(old, &old->cards[i], s, &s->cards[j]))
                        state_emit(e, &key, ENGINE_CHANGED);
                i += order <= 0;
                j += order >= 0;
        }
}

/* Whether anything that decides who owns a queue, or what a guest gets of a matrix, is different. */
static bool host_equal(const Snapshot *a, const Snapshot *b) {
        return a->ap == b->ap && a->vfio_ap == b->vfio_ap && a->has_override == b->has_override &&
               a->bindings_complete == b->bindings_complete && a->max_adapter == b->max_adapter &&
               a->max_domain == b->max_domain && ap_mask_equal(&a->apmask, &b->apmask) &&
               ap_mask_equal(&a->aqmask, &b->aqmask) && machine_equal(a, b) &&
               a->detail_stuck == b->detail_stuck &&
               memcmp(a->queue_vfio, b->queue_vfio, sizeof a->queue_vfio) == 0 &&
               memcmp(a->queue_override, b->queue_override, sizeof a->queue_override) == 0 &&
               memcmp(a->queue_alien, b->queue_alien, sizeof a->queue_alien) == 0 &&
               a->default_domain == b->default_domain;
}

/* Somebody else has removed it. Whoever makes one with its uuid makes his own. */
static void forget_own_mdevs(Engine *e) {
        for (size_t i = e->n_own_mdevs; i-- > 0;) {
                Uuid uuid = e->own_mdevs[i];

                if (snapshot_find_mdev(e->snapshot, uuid))
                        continue;
                state_drop_own_mdev(e, uuid);
                op_commit_mark(e, uuid, MARK_NONE);
        }
}

int state_take_snapshot(Engine *e, Snapshot *s) {
        Snapshot *old = e->snapshot;
        bool same_host, first;
        int r;

        for (size_t i = 0; i < s->n_mdevs; i++)
                complete_mdev(e, old, s, &s->mdevs[i]);

        same_host = e->scanned && host_equal(old, s);
        first = !e->scanned;
        e->snapshot = s;
        e->scanned = true;
        e->masks_refused &= s->has_override && snapshot_masks_are_full(s);
        forget_own_mdevs(e);
        if (!same_host)
                claim_table_set_host(e->claims, s);

        r = compare_mdevs(e, old, s);
        compare_parents(e, old, s);
        compare_adapters(e, old, s);
        if (!same_host) {
                state_emit_manager(e);
                state_show_all_soon(e);
                e->host_differs = true;
        }

        if (first)
                guests_settled(e); /* now it can be seen what is there */
        (void) snapshot_free(old);
        return r;
}

/* ---- what is shown ---- */

Wanted state_wanted(const Matrix *m) {
        return (Wanted) {
                .uuid = m->rec.uuid,
                .matrix = &m->rec.matrix,
                .started = m->mark == MARK_LIVE,
                .from_host = m->rec.from_host,
        };
}

MatrixState state_of(const Engine *e, const Matrix *m) {
        if (m->op)
                switch (m->op->kind) {
                case INTENT_DEFINE:
                case INTENT_START:
                        return m->op->plan.n_steps > 0 ? MATRIX_STARTING : MATRIX_DEFINED;
                case INTENT_STOP:
                case INTENT_UNDEFINE:
                        return MATRIX_STOPPING;
                default:
                        return MATRIX_CHANGING;
                }

        if (m->unresolved)
                return MATRIX_BROKEN;
        if (!e->scanned)
                return MATRIX_UNKNOWN;
        if (snapshot_find_mdev(e->snapshot, m->rec.uuid))
                return MATRIX_STARTED;
        return m->mark == MARK_LIVE ? MATRIX_LOST : MATRIX_DEFINED;
}

static int add_guest_problems(Engine *e, const Matrix *m, char ***lines) {
        static const char *const why[] = {
                [GUEST_LOSS_NO_ADAPTER] = "the machine does not have it",
                [GUEST_LOSS_NO_QUEUE] = "is not there",
                [GUEST_LOSS_NOT_BOUND] = "is not bound to vfio_ap",
        };
        int r = 0;

        AP_MASK_FOREACH(id, &m->rec.matrix.adapters) {
                uint8_t domain = 0;
                GuestLoss loss = snapshot_guest_loss(e->snapshot, &m->rec.matrix, (uint8_t) id, &domain);

                if (loss == GUEST_LOSS_NO_ADAPTER)
                        r = strv_addf(lines, "the guest does not get adapter 0x%02x: %s", id, why[loss]);
                else if (loss != GUEST_LOSS_NONE)
                        r = strv_addf(lines, "the guest does not get adapter 0x%02x: its queue %02x.%04x %s",
                                      id, id, domain, why[loss]);
                if (r < 0)
                        return r;
        }
        return r;
}

static int add_conflict_problem(Engine *e, const Matrix *m, char ***lines) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        ClaimQuery q = request_query(&m->rec.matrix, m->rec.uuid, REQUEST_DEFINE | request_flags(&m->rec));
        int r;

        if (claim_check(e->claims, &q) == CLAIM_FREE)
                return 0;
        r = refuse_conflicts(e, &q, &refusal);
        return r <= 0 ? r : strv_addf(lines, "conflict: %s", refusal.text);
}

char **state_problems(Engine *e, const Matrix *m) {
        const HostMdev *mdev = snapshot_find_mdev(e->snapshot, m->rec.uuid);
        Wanted wanted = state_wanted(m);
        char **lines = calloc(1, sizeof *lines);
        int r = lines ? 0 : -ENOMEM;

        if (r >= 0 && m->unresolved)
                for (size_t i = 0; i < e->n_unresolved && r >= 0; i++)
                        if (uuid_equal(e->unresolved[i].intent.uuid, m->rec.uuid) && e->unresolved[i].text)
                                r = strv_addf(&lines, "%s", e->unresolved[i].text);
        if (r >= 0 && m->autostart_error && m->mark == MARK_PENDING)
                r = strv_addf(&lines, "autostart failed: %s", m->autostart_error);
        if (r >= 0 && !m->op && !m->unresolved && mdev && mdev->leaving)
                r = strv_addf(&lines,
                              "is being removed by somebody else, which waits for the guest that has it");
        else if (r >= 0 && !m->op && !m->unresolved && e->scanned)
                switch (reconcile_one(&wanted, e->snapshot)) {
                case DRIFT_LOST:
                        r = strv_addf(&lines, "was removed by somebody else; Reconcile starts it again");
                        break;
                case DRIFT_CHANGED:
                        r = strv_addf(&lines,
                                      "was changed by somebody else and differs from its definition; "
                                      "Reconcile brings it back");
                        break;
                case DRIFT_UNKNOWN:
                        r = strv_addf(&lines, "this kernel gives no safe way to read what it has now");
                        break;
                default:
                        break;
                }
        if (r >= 0 && mdev)
                r = add_guest_problems(e, m, &lines);
        if (r >= 0 && !m->op && !m->unresolved) /* which claim what it is to become, too */
                r = add_conflict_problem(e, m, &lines);
        if (r >= 0)
                r = guests_matrix_problems(e, m, &lines);

        return r < 0 ? strv_free(lines) : lines;
}

#define DIGEST UINT64_C(0xcbf29ce484222325)

static uint64_t digest_add(uint64_t h, const void *data, size_t size) {
        const unsigned char *p = data;

        while (size-- > 0)
                h = (h ^ *p++) * UINT64_C(0x100000001b3); /* FNV-1a */
        return h;
}

static uint64_t digest_definition(const EngineMatrix *view) {
        uint64_t h = DIGEST;

        h = digest_add(h, &view->matrix, sizeof view->matrix);
        h = digest_add(h, &view->autostart, sizeof view->autostart);
        return digest_add(h, view->guest, strlen(view->guest) + 1);
}

static uint64_t digest_live(const EngineMatrix *view, char *const *problems) {
        uint64_t h = DIGEST;

        h = digest_add(h, &view->guest_adapters, sizeof view->guest_adapters);
        h = digest_add(h, &view->guest_domains, sizeof view->guest_domains);
        h = digest_add(h, &view->state, sizeof view->state);
        h = digest_add(h, &view->in_use, sizeof view->in_use);
        for (; *problems; problems++)
                h = digest_add(h, *problems, strlen(*problems) + 1);
        return h;
}

void state_show(Engine *e, Matrix *m) {
        EngineMatrix view;
        char **problems;
        uint64_t definition, live;

        if (!m->visible || e->closing)
                return;

        guests_matrix_changed(e, m->rec.uuid, false);
        problems = state_problems(e, m);
        if (!problems) /* out of memory: the next change shows it */
                return;

        if (problems[0] && !m->op && !strv_equal(problems, m->problems))
                log_full(LOG_WARNING, LOG_ID_DRIFT, m->rec.name, "Matrix '%s': %s", m->rec.name,
                         problems[0]);
        strv_free(m->problems);
        m->problems = problems;

        if (engine_get_matrix(e, m->rec.uuid, &view) < 0)
                return;
        definition = digest_definition(&view);
        live = digest_live(&view, problems);
        if (definition != m->shown)
                state_emit_matrix(e, m, ENGINE_CHANGED);
        else if (live != m->shown_live)
                state_emit_matrix(e, m, ENGINE_LIVED);
        m->shown = definition;
        m->shown_live = live;
}

static int on_show(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;
        size_t i = state_place(e, e->show_next);
        uint64_t delay = 0;
        int r;

        for (size_t n = 0; n < SHOWN_PER_TURN && i < e->n_matrices; n++)
                state_show(e, e->by_uuid[i++]);

        e->showing = i < e->n_matrices;
        if (e->showing)
                e->show_next = e->by_uuid[i]->rec.uuid;
        else {
                e->show_next = (Uuid) {};
                if (!e->show_again) {
                        e->show_timer = sd_event_source_disable_unref(e->show_timer);
                        return 0;
                }
                e->show_again = false;
                delay = SHOW_DELAY_US;
        }

        r = sd_event_source_set_time_relative(s, delay);
        return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void begin_round(Engine *e);

static int on_show_begun(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;
        bool others = false;
        unsigned n = 0;
        int r;

        for (size_t i = 0; i < e->n_matrices; i++) {
                Matrix *m = e->by_uuid[i];

                if (!m->op || m->op->shown)
                        continue;
                if (m->op->round == e->begun_round) {
                        others = true;
                        continue;
                }
                if (n++ == SHOWN_PER_TURN) {
                        r = sd_event_source_set_time_relative(s, 0);
                        return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
                }
                m->op->shown = true;
                state_show(e, m);
        }

        e->begun_timer = sd_event_source_disable_unref(e->begun_timer);
        if (others)
                begin_round(e);
        return 0;
}

/* What begins from now on is of the next round, for which the timer is set when it has passed. */
static void begin_round(Engine *e) {
        e->begun_round++;
        (void) timer_after(e->event, &e->begun_timer, SHOW_DELAY_US, on_show_begun, e);
}

void state_show_begun_soon(Engine *e, Op *op) {
        op->round = e->begun_round;
        if (!e->begun_timer)
                begin_round(e);
}

void state_show_all_soon(Engine *e) {
        if (e->show_timer) /* those that were shown already are shown once more */
                e->show_again |= e->showing;
        else
                (void) timer_after(e->event, &e->show_timer, SHOW_DELAY_US, on_show, e);
}

void state_emit(Engine *e, const EngineKey *key, EngineChange change) {
        if (key->object == ENGINE_MATRIX || key->object == ENGINE_MDEV)
                guests_matrix_changed(e, key->uuid,
                                      key->object == ENGINE_MATRIX &&
                                              (change == ENGINE_ADDED || change == ENGINE_REMOVED));
        if (e->event_cb && !e->closing)
                e->event_cb(e->userdata, key, change);
}

void state_emit_matrix(Engine *e, const Matrix *m, EngineChange change) {
        EngineKey key = { .object = ENGINE_MATRIX, .uuid = m->rec.uuid, .name = m->rec.name };

        state_emit(e, &key, change);
}

void state_emit_manager(Engine *e) {
        EngineKey key = { .object = ENGINE_MANAGER };

        state_emit(e, &key, ENGINE_CHANGED);
}
