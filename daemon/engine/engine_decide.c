/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "core/reconcile.h"
#include "engine/engine_internal.h"

/* ---- what may be, and what it claims ---- */

/* A definition answers for all that there is; a start for what is live, and for the host. Alternatives
 * may overlap each other until they are started. */
ClaimQuery request_query(const ApMatrix *m, Uuid self, unsigned what) {
        ClaimQuery q = {
                .matrix = m,
                .self = self,
                .layers = CLAIM_LAYER_BIT(CLAIM_LAYER_MDEV),
                .alternative = (what & REQUEST_ALTERNATIVE) && !(what & REQUEST_LIVE),
        };

        if (!(what & REQUEST_FROM_HOST))
                q.layers |= CLAIM_LAYER_BIT(CLAIM_LAYER_HOST);
        if (what & REQUEST_DEFINE)
                q.layers |= CLAIM_LAYER_BIT(CLAIM_LAYER_EXCLUSIVE);
        if ((what & REQUEST_DEFINE) && !(what & REQUEST_FROM_MDEVCTL))
                q.layers |= CLAIM_LAYER_BIT(CLAIM_LAYER_MDEVCTL);
        if ((what & REQUEST_DEFINE) && !(what & REQUEST_ALTERNATIVE))
                q.layers |= CLAIM_LAYER_BIT(CLAIM_LAYER_ALTERNATIVE);
        return q;
}

unsigned request_flags(const Record *rec) {
        return (rec->alternative ? REQUEST_ALTERNATIVE : 0) | (rec->from_host ? REQUEST_FROM_HOST : 0);
}

static int check(Engine *e, const ApMatrix *m, Uuid self, unsigned what, Refusal *reterr) {
        ClaimQuery q = request_query(m, self, what);

        if (claim_check(e->claims, &q) == CLAIM_FREE)
                return 0;
        return refuse_conflicts(e, &q, reterr);
}

int request_need_ap(Engine *e, bool vfio_ap, Refusal *reterr) {
        if (e->scan_error < 0)
                return refuse(reterr, VERDICT_BACKEND, e->scan_error,
                              "the host's devices cannot be read: %s; nothing was changed",
                              text_error(e->scan_error));
        if (!e->snapshot->ap)
                return refuse(reterr, VERDICT_BACKEND, 0, "this machine has no AP bus; nothing was changed");
        if (vfio_ap && !e->snapshot->vfio_ap)
                return refuse(reterr, VERDICT_BACKEND, 0,
                              "the kernel driver vfio_ap is not loaded; load it with 'modprobe vfio_ap'");
        return 0;
}

int request_need_matrix(Engine *e, Uuid uuid, Matrix **ret, Refusal *reterr) {
        char text[UUID_STRING_SIZE];
        Matrix *m = state_find(e, uuid);

        if (!m || !m->visible)
                return refuse(reterr, VERDICT_NO_SUCH_MATRIX, 0, "there is no matrix %s",
                              uuid_format(uuid, text));
        if (m->op)
                return refuse(reterr, VERDICT_BAD_STATE, 0,
                              "another operation (%s) on matrix '%s' is under way",
                              intent_kind_name(m->op->kind), m->rec.name);
        if (m->unresolved)
                return refuse(
                        reterr, VERDICT_STUCK, 0,
                        "an earlier operation on matrix '%s' has not ended, the kernel still owes its answer",
                        m->rec.name);
        *ret = m;
        return 0;
}

static int need_not_in_use(Engine *e, Uuid uuid, const char *what, const char *name, Refusal *reterr) {
        const HostMdev *mdev = snapshot_find_mdev(e->snapshot, uuid);

        return mdev && mdev->use == MDEV_USE_GUEST ? refuse_in_use(e, uuid, what, name, 0, reterr) : 0;
}

static int claim_shadow(Engine *e, Op *op, const Matrix *m, bool live) {
        Claim c = {
                .layer = state_definition_layer(&m->rec),
                .name = m->rec.name,
                .operation = true,
                .matrix = op->target,
        };
        int r;

        r = uuid_random(&op->shadow);
        if (r < 0)
                return r;

        op->has_shadow = true;
        c.uuid = op->shadow;
        r = claim_table_put(e->claims, &c);
        if (r < 0 || !live)
                return r;

        c.layer = CLAIM_LAYER_MDEV;
        return claim_table_put(e->claims, &c);
}

static int claim_live(Engine *e, Op *op, const ApMatrix *target) {
        op->target = *target;
        op->claims_live = true;
        return state_claim_live(e, op->uuid, op);
}

void request_release(Engine *e, Op *op) {
        Matrix *m = state_find(e, op->uuid);

        if (op->has_shadow)
                for (ClaimLayer layer = 0; layer < _CLAIM_LAYER_MAX; layer++)
                        if (layer != CLAIM_LAYER_HOST)
                                claim_table_drop(e->claims, layer, op->shadow);
        op->has_shadow = false;
        op->claims_live = false;
        if (e->host_op == op)
                e->host_op = NULL;
        for (size_t i = 0; i < e->n_busy; i++)
                if (e->busy[i] == op)
                        e->busy[i--] = e->busy[--e->n_busy];

        if (m && m->op == op) {
                m->op = NULL;
                if (!m->visible) {
                        state_unclaim(e, m);
                        state_remove(e, m);
                }
        }
        (void) state_claim_live(e, op->uuid, NULL); /* only fails where it would have to grow */
}

/* ---- deciding, by kind ---- */

/* What is live may come to us together with its definition, if it is what the definition says. */
static int need_as_defined(const HostMdev *mdev, const Record *rec, Refusal *reterr) {
        char text[UUID_STRING_SIZE];

        uuid_format(rec->uuid, text);
        if (mdev->ap && !mdev->matrix_known)
                return refuse(
                        reterr, VERDICT_BAD_STATE, 0,
                        "mediated device %s is started, and the kernel does not show what it has; stop it first",
                        text);
        if (!mdev->ap || !ap_matrix_equal(&mdev->matrix, &rec->matrix))
                return refuse(
                        reterr, VERDICT_BAD_STATE, 0,
                        "mediated device %s is started with another matrix than its definition has; stop it first",
                        text);
        return 0;
}

static int decide_define(Engine *e, Op *op, Refusal *reterr) {
        const Record *rec = &op->record;
        CLEANUP(record_clear) Record copy = {};
        char text[UUID_STRING_SIZE];
        const Matrix *other;
        const HostMdev *mdev;
        unsigned of_user = 0;
        Matrix *m;
        int r;

        r = request_need_ap(e, op->start, reterr);
        if (r != 0)
                return r;

        other = state_find_name(e, rec->name) ?: state_find(e, rec->uuid);
        if (other)
                return refuse(reterr, VERDICT_EXISTS, 0, "matrix '%s' (%s) exists already", other->rec.name,
                              uuid_format(other->rec.uuid, text));
        mdev = snapshot_find_mdev(e->snapshot, rec->uuid);
        if (mdev && !op->hand)
                return refuse(reterr, VERDICT_EXISTS, 0, "a mediated device %s exists already",
                              uuid_format(rec->uuid, text));
        r = mdev ? need_as_defined(mdev, rec, reterr) : 0;
        if (r != 0)
                return r;
        op->adopts = mdev;
        for (size_t i = 0; i < e->n_unresolved; i++) {
                const Intent *intent = &e->unresolved[i].intent;

                if (uuid_equal(intent->uuid, rec->uuid) ||
                    (intent->has_record && strcmp(intent->record.name, rec->name) == 0))
                        return refuse(
                                reterr, VERDICT_STUCK, 0,
                                "an earlier operation on '%s' has not ended, the kernel still owes its answer",
                                rec->name);
        }
        for (size_t i = 0; i < e->n_busy; i++)
                if (uuid_equal(e->busy[i]->uuid, rec->uuid))
                        return refuse(reterr, VERDICT_EXISTS, 0,
                                      "a mediated device %s is being made or removed",
                                      uuid_format(rec->uuid, text));
        r = op->hand ? 0 : mdevctl_need_not_reserved(e, rec->uuid, reterr);
        if (r != 0)
                return r;
        if (!op->hand && mdevctl_find(e, rec->uuid))
                return refuse(
                        reterr, VERDICT_EXISTS, 0,
                        "mdevctl has a definition %s already; 'guestcryptctl import mdevctl %s' takes it over",
                        uuid_format(rec->uuid, text), text);

        if (e->n_matrices >= e->config.max_matrices)
                return refuse(reterr, VERDICT_LIMIT_HIT, 0,
                              "the limit of all matrices, %zu (MaxMatrices=), is reached", e->n_matrices);
        for (size_t i = 0; i < e->n_matrices && rec->uid != 0; i++)
                of_user += e->by_uuid[i]->rec.uid == rec->uid;
        if (of_user >= e->config.max_matrices_per_uid && rec->uid != 0)
                return refuse(reterr, VERDICT_LIMIT_HIT, 0,
                              "the limit of matrices of user %u, %u (MaxMatricesPerUser=), is reached",
                              (unsigned) rec->uid, of_user);

        r = check(e, &rec->matrix, rec->uuid,
                  REQUEST_DEFINE | request_flags(rec) | (op->start ? REQUEST_LIVE : 0) |
                          (op->hand && rec->alternative ? REQUEST_FROM_MDEVCTL : 0),
                  reterr);
        if (r != 0)
                return r;

        if (op->start) {
                r = plan_start(e->snapshot, rec->uuid, &rec->matrix, rec->from_host, &op->plan);
                if (r < 0)
                        return r;
        }

        r = record_copy(rec, &copy);
        if (r < 0)
                return r;
        r = state_add(e, &copy, &m);
        if (r < 0)
                return r;
        m->op = op;
        r = state_claim_definition(e, m);
        if (r >= 0 && op->start)
                r = claim_live(e, op, &rec->matrix);
        return r;
}

static int decide_start(Engine *e, Op *op, Refusal *reterr) {
        bool from_host;
        Matrix *m;
        int r;

        r = request_need_ap(e, true, reterr);
        if (r != 0)
                return r;
        r = request_need_matrix(e, op->uuid, &m, reterr);
        if (r != 0)
                return r;
        if (snapshot_find_mdev(e->snapshot, op->uuid))
                return refuse(reterr, VERDICT_BAD_STATE, 0, "matrix '%s' is started already", m->rec.name);
        if (op->pending && m->mark != MARK_PENDING)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "matrix '%s' was stopped meanwhile",
                              m->rec.name);

        from_host = op->from_host || m->rec.from_host;
        r = check(e, &m->rec.matrix, op->uuid, REQUEST_LIVE | (from_host ? REQUEST_FROM_HOST : 0), reterr);
        if (r != 0)
                return r;
        r = plan_start(e->snapshot, op->uuid, &m->rec.matrix, from_host, &op->plan);
        if (r < 0)
                return r;

        m->op = op;
        return claim_live(e, op, &m->rec.matrix);
}

static int decide_stop(Engine *e, Op *op, Refusal *reterr) {
        Matrix *m;
        int r;

        r = request_need_ap(e, false, reterr);
        if (r != 0)
                return r;
        r = request_need_matrix(e, op->uuid, &m, reterr);
        if (r != 0)
                return r;

        r = guests_need_not_held(e, op->uuid, op->for_guest, "matrix", m->rec.name, reterr);
        if (r != 0)
                return r;
        if (snapshot_find_mdev(e->snapshot, op->uuid)) {
                r = need_not_in_use(e, op->uuid, "matrix", m->rec.name, reterr);
                if (r != 0)
                        return r;
                r = plan_stop(e->snapshot, op->uuid, &op->plan);
                if (r < 0)
                        return r;
        } else if (m->mark == MARK_NONE)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "matrix '%s' is not started", m->rec.name);

        m->op = op;
        return 0;
}

static int decide_modify(Engine *e, Op *op, Refusal *reterr) {
        CLEANUP(record_clear) Record rec = {};
        bool live, same;
        Matrix *m;
        int r;

        r = request_need_ap(e, false, reterr);
        if (r != 0)
                return r;
        r = request_need_matrix(e, op->uuid, &m, reterr);
        if (r != 0)
                return r;

        /* from what it is now: it may have changed while we waited for a scan */
        r = record_copy(&m->rec, &rec);
        if (r < 0)
                return r;
        if (!op->keep_matrix)
                rec.matrix = op->target;
        if (op->autostart >= 0)
                rec.autostart = op->autostart;
        if (op->set_guest) {
                free(rec.guest);
                rec.guest = op->record.guest ? strdup(op->record.guest) : NULL;
                rec.guest_uuid = op->record.guest_uuid;
                if (op->record.guest && !rec.guest)
                        return -ENOMEM;
        }
        op->target = rec.matrix;
        same = ap_matrix_equal(&op->target, &m->rec.matrix);
        live = snapshot_find_mdev(e->snapshot, op->uuid);
        if (!same) {
                r = check(e, &op->target, op->uuid,
                          REQUEST_DEFINE | request_flags(&m->rec) | (live ? REQUEST_LIVE : 0), reterr);
                if (r != 0)
                        return r;
        }
        if (live && !same) {
                r = plan_modify(e->snapshot, op->uuid, &op->target, m->rec.from_host, &op->plan);
                if (r == -ENODATA)
                        return refuse(
                                reterr, VERDICT_BAD_STATE, 0,
                                "the kernel does not show what matrix '%s' has now, so that it cannot be changed while "
                                "it is started; stop it, modify it, and start it again",
                                m->rec.name);
                if (r < 0)
                        return r;
        }

        record_clear(&op->record);
        op->record = rec;
        rec = (Record) {};
        op->has_record = true;
        m->op = op;
        return same ? 0 : claim_shadow(e, op, m, live);
}

static int decide_undefine(Engine *e, Op *op, Refusal *reterr) {
        Matrix *m;
        int r;

        if (e->scan_error < 0) /* it might be live */
                return request_need_ap(e, false, reterr);
        r = request_need_matrix(e, op->uuid, &m, reterr);
        if (r != 0)
                return r;
        r = guests_need_not_named(e, m, reterr);
        if (r != 0)
                return r;

        if (snapshot_find_mdev(e->snapshot, op->uuid) && !op->hand) {
                if (!op->stop)
                        return refuse(reterr, VERDICT_BAD_STATE, 0,
                                      "matrix '%s' is started; stop it first, or ask to stop it too",
                                      m->rec.name);
                r = need_not_in_use(e, op->uuid, "matrix", m->rec.name, reterr);
                if (r != 0)
                        return r;
                r = plan_stop(e->snapshot, op->uuid, &op->plan);
                if (r < 0)
                        return r;
        }

        m->op = op;
        return 0;
}

static int decide_heal(Engine *e, Op *op, Refusal *reterr) {
        Wanted wanted;
        Matrix *m;
        int r;

        r = request_need_ap(e, true, reterr);
        if (r != 0)
                return r;
        r = request_need_matrix(e, op->uuid, &m, reterr);
        if (r != 0)
                return r;

        if (m->mark == MARK_NONE)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "matrix '%s' was stopped meanwhile",
                              m->rec.name);

        wanted = state_wanted(m);
        wanted.started = true;
        r = check(e, &m->rec.matrix, op->uuid, REQUEST_LIVE | (m->rec.from_host ? REQUEST_FROM_HOST : 0),
                  reterr);
        if (r != 0)
                return r;
        r = reconcile_plan(&wanted, reconcile_one(&wanted, e->snapshot), e->snapshot, &op->plan);
        if (r < 0)
                return r;

        m->op = op;
        return claim_live(e, op, &m->rec.matrix);
}

static int matrix_from_attrs(const Op *op, ApMatrix *ret, Refusal *reterr) {
        ApMatrix m = {};

        for (size_t i = 0; i < op->n_attrs; i++) {
                const EngineAttr *a = &op->attrs[i];
                ApMask ids, *into = strcmp(a->name, "assign_adapter") == 0          ? &m.adapters
                                    : strcmp(a->name, "assign_domain") == 0         ? &m.domains
                                    : strcmp(a->name, "assign_control_domain") == 0 ? &m.control
                                                                                    : NULL;

                if (strcmp(a->name, "ap_config") == 0) {
                        if (ap_matrix_parse(a->value, &m) < 0)
                                return refuse(reterr, VERDICT_INVALID, 0,
                                              "attribute ap_config: '%s' is not three masks", a->value);
                        continue;
                }
                if (!into)
                        return refuse(reterr, VERDICT_INVALID, 0, "vfio_ap has no attribute '%s' to be set",
                                      a->name);
                if (ap_mask_parse_list(a->value, &ids) < 0 || ap_mask_count(&ids) != 1)
                        return refuse(reterr, VERDICT_INVALID, 0,
                                      "attribute %s: '%s' is not a number from 0 to 255", a->name, a->value);
                *into = ap_mask_or(into, &ids);
        }

        *ret = m;
        return 0;
}

static int plan_create(Op *op) {
        PlanStep step = { .type = PLAN_CREATE };
        int r;

        op->plan.uuid = op->uuid;
        (void) snprintf(step.create.parent, sizeof step.create.parent, "%s", op->parent);
        (void) snprintf(step.create.type, sizeof step.create.type, "%s", op->type);
        r = plan_append(&op->plan, &step);

        for (size_t i = 0; i < op->n_attrs && r >= 0; i++) {
                step = (PlanStep) { .type = PLAN_ATTR };
                (void) snprintf(step.attr.name, sizeof step.attr.name, "%s", op->attrs[i].name);
                (void) snprintf(step.attr.value, sizeof step.attr.value, "%s", op->attrs[i].value);
                r = plan_append(&op->plan, &step);
        }
        return r;
}

static int mark_busy(Engine *e, Op *op, Refusal *reterr) {
        char text[UUID_STRING_SIZE];
        Op **grown;

        for (size_t i = 0; i < e->n_busy; i++)
                if (uuid_equal(e->busy[i]->uuid, op->uuid))
                        return refuse(reterr, VERDICT_BAD_STATE, 0,
                                      "another operation on mediated device %s is under way",
                                      uuid_format(op->uuid, text));
        for (size_t i = 0; i < e->n_unresolved; i++)
                if (uuid_equal(e->unresolved[i].intent.uuid, op->uuid))
                        return refuse(
                                reterr, VERDICT_STUCK, 0,
                                "an earlier operation on mediated device %s has not ended, the kernel still owes "
                                "its answer",
                                uuid_format(op->uuid, text));

        grown = reallocarray(e->busy, e->n_busy + 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;
        e->busy = grown;
        e->busy[e->n_busy++] = op;
        return 0;
}

static int decide_create(Engine *e, Op *op, Refusal *reterr) {
        const HostType *type;
        char text[UUID_STRING_SIZE];
        ApMatrix matrix;
        bool ap;
        int r;

        if (e->scan_error < 0)
                return request_need_ap(e, false, reterr);

        type = snapshot_find_type(e->snapshot, op->parent, op->type);
        if (!type)
                return snapshot_find_parent(e->snapshot, op->parent)
                               ? refuse(reterr, VERDICT_NO_SUCH_PARENT, 0, "parent '%s' has no type '%s'",
                                        op->parent, op->type)
                               : refuse(reterr, VERDICT_NO_SUCH_PARENT, 0,
                                        "there is no parent '%s' of mediated devices on this host",
                                        op->parent);
        if (snapshot_find_mdev(e->snapshot, op->uuid) || state_find(e, op->uuid))
                return refuse(reterr, VERDICT_EXISTS, 0, "%s is taken by a mediated device or a definition",
                              uuid_format(op->uuid, text));
        r = mdevctl_need_not_reserved(e, op->uuid, reterr);
        if (r != 0)
                return r;
        if (type->available == 0)
                return refuse(reterr, VERDICT_NO_INSTANCES, 0,
                              "type '%s' of parent '%s' has no instance left", op->type, op->parent);

        ap = strcmp(op->type, PLAN_AP_TYPE) == 0 && strcmp(op->parent, PLAN_AP_PARENT) == 0;
        if (ap) {
                r = matrix_from_attrs(op, &matrix, reterr);
                if (r != 0)
                        return r;
                r = check(e, &matrix, op->uuid, REQUEST_DEFINE | REQUEST_LIVE, reterr);
                if (r != 0)
                        return r;
                r = plan_start(e->snapshot, op->uuid, &matrix, false, &op->plan);
        } else
                r = plan_create(op);
        if (r < 0)
                return r;

        r = mark_busy(e, op, reterr);
        if (r != 0)
                return r;
        return ap ? claim_live(e, op, &matrix) : 0;
}

static int decide_remove(Engine *e, Op *op, Refusal *reterr) {
        const Matrix *m = state_find(e, op->uuid);
        char text[UUID_STRING_SIZE];
        int r;

        if (e->scan_error < 0)
                return request_need_ap(e, false, reterr);

        uuid_format(op->uuid, text);
        if (!snapshot_find_mdev(e->snapshot, op->uuid))
                return refuse(reterr, VERDICT_NO_SUCH_MDEV, 0, "there is no mediated device %s", text);
        if (m)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "mediated device %s is matrix '%s'; stop that",
                              text, m->rec.name);
        if (!state_is_own_mdev(e, op->uuid))
                return refuse(
                        reterr, VERDICT_NOT_OURS, 0,
                        "mediated device %s was made by somebody else and is left alone; remove it with the tool that "
                        "made it",
                        text);
        r = guests_need_not_held(e, op->uuid, (Uuid) {}, "mediated device", text, reterr);
        if (r != 0)
                return r;
        r = need_not_in_use(e, op->uuid, "mediated device", text, reterr);
        if (r != 0)
                return r;
        r = plan_stop(e->snapshot, op->uuid, &op->plan);
        if (r < 0)
                return r;
        return mark_busy(e, op, reterr);
}

/* Of a live mdev, a queue that the host's drivers would own with these masks. */
static bool would_lose(const HostMdev *mdev, const ApMask *adapters, const ApMask *domains, Apqn *ret) {
        ApMask a = ap_mask_and(&mdev->matrix.adapters, adapters),
               d = ap_mask_and(&mdev->matrix.domains, domains);

        if (!mdev->ap || ap_mask_is_empty(&a) || ap_mask_is_empty(&d))
                return false;
        *ret = (Apqn) { .adapter = (uint8_t) ap_mask_next(&a, 0), .domain = (uint8_t) ap_mask_next(&d, 0) };
        return true;
}

static int decide_masks(Engine *e, Op *op, Refusal *reterr) {
        char text[UUID_STRING_SIZE], apqn[APQN_STRING_SIZE];
        Apqn overridden;
        int r;

        r = request_need_ap(e, false, reterr);
        if (r != 0)
                return r;

        if (snapshot_find_override(e->snapshot, &overridden))
                return host_refuse_masks(e, reterr);

        for (size_t i = 0; i < e->snapshot->n_mdevs; i++) {
                const HostMdev *mdev = &e->snapshot->mdevs[i];
                const Matrix *m = state_find(e, mdev->uuid);
                Apqn lost;

                if (would_lose(mdev, &op->apmask, &op->aqmask, &lost))
                        return refuse(
                                reterr, VERDICT_OVERLAP, 0,
                                "%s would go to the host's drivers, but is in use by %s '%s'; stop that first",
                                apqn_format(lost, apqn), m ? "matrix" : "mediated device",
                                m ? m->rec.name : uuid_format(mdev->uuid, text));
        }

        r = plan_masks(e->snapshot, &op->apmask, &op->aqmask, &op->plan);
        return MIN(r, 0);
}

int request_decide(Engine *e, Op *op, Refusal *reterr) {
        static int (*const decide[])(Engine * e, Op * op, Refusal * reterr) = {
                [INTENT_DEFINE] = decide_define,     [INTENT_START] = decide_start,
                [INTENT_STOP] = decide_stop,         [INTENT_MODIFY] = decide_modify,
                [INTENT_UNDEFINE] = decide_undefine, [INTENT_CREATE] = decide_create,
                [INTENT_REMOVE] = decide_remove,     [INTENT_MASKS] = decide_masks,
                [INTENT_HEAL] = decide_heal,         [INTENT_HOST] = host_decide,
        };
        static_assert(ELEMENTS(decide) == _INTENT_KIND_MAX, "every kind can be decided");
        int r;

        r = decide[op->kind](e, op, reterr);
        if (r == -E2BIG)
                r = refuse(
                        reterr, VERDICT_LIMIT_HIT, 0,
                        "more than %d queues would have to be moved one by one; give them to guests with the host "
                        "masks instead",
                        PLAN_STEPS_MAX);
        if (r != 0) {
                request_release(e, op);
                plan_clear(&op->plan);
        }
        return r;
}

/* ---- done: the same in memory ---- */

static void apply_undefine(Engine *e, Op *op, Matrix *m) {
        EngineKey key = { .object = ENGINE_MATRIX, .uuid = op->uuid };

        state_unclaim(e, m);
        state_remove(e, m);
        (void) state_claim_live(e, op->uuid, NULL);
        state_emit(e, &key, ENGINE_REMOVED);
        state_emit_manager(e);
}

bool request_keeps_masks(const Engine *e, IntentKind kind, const Plan *p, StoreEntry *ret) {
        for (size_t i = 0; i < p->n_steps && kind != INTENT_MASKS && e->loaded.keep_masks; i++) {
                const PlanStep *step = &p->steps[i];

                if (step->type != PLAN_MASKS)
                        continue;
                *ret = (StoreEntry) { .type = STORE_MASKS,
                                      .keep = true,
                                      .apmask = step->masks.apmask_after,
                                      .aqmask = step->masks.aqmask_after };
                return true;
        }
        return false;
}

int request_apply(Engine *e, Op *op) {
        Matrix *m = state_find(e, op->uuid);
        StoreEntry masks;
        int r = 0;

        if (request_keeps_masks(e, op->kind, &op->plan, &masks)) {
                e->loaded.apmask = masks.apmask;
                e->loaded.aqmask = masks.aqmask;
        }
        switch (op->kind) {
        case INTENT_DEFINE:
                m->visible = true;
                m->mark = op->plan.n_steps > 0 || op->adopts ? MARK_LIVE : MARK_NONE;
                m->op = NULL;
                op->claims_live = false;
                if (op->adopts)
                        state_drop_own_mdev(e, op->uuid);
                r = state_claim_definition(e, m);
                m->problems = state_problems(e, m);
                state_emit_matrix(e, m, ENGINE_ADDED);
                state_emit_manager(e);
                break;
        case INTENT_START:
        case INTENT_HEAL:
                if (op->plan.n_steps == 0 || op->kind == INTENT_HEAL || m->mark == MARK_PENDING)
                        op_commit_mark(e, op->uuid, MARK_LIVE);
                m->mark = MARK_LIVE;
                free(TAKE(m->autostart_error));
                break;
        case INTENT_STOP:
                m->mark = MARK_NONE;
                free(TAKE(m->autostart_error));
                op_commit_mark(e, op->uuid, MARK_NONE);
                break;
        case INTENT_MODIFY:
                state_unclaim(e, m);
                r = state_replace(e, m, &op->record);
                break;
        case INTENT_UNDEFINE:
                apply_undefine(e, op, m);
                break;
        case INTENT_CREATE:
                r = state_add_own_mdev(e, op->uuid);
                break;
        case INTENT_REMOVE:
                state_drop_own_mdev(e, op->uuid);
                op_commit_mark(e, op->uuid, MARK_NONE);
                break;
        case INTENT_MASKS:
                e->loaded.keep_masks = true;
                e->loaded.apmask = op->apmask;
                e->loaded.aqmask = op->aqmask;
                boot_masks_are_set(e);
                state_emit_manager(e);
                break;
        case INTENT_HOST: /* all of it is on the host */
        case _INTENT_KIND_MAX:
                break;
        }
        return r;
}
