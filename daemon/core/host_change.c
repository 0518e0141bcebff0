/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/host_change.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

ApMask host_usable(const Snapshot *s, uint8_t domain) {
        ApMask usable = {};

        for (size_t i = 0; i < s->n_cards; i++) {
                const HostCard *c = &s->cards[i];
                ApMask owned = snapshot_host_owned(s, c->id);

                if (c->online && c->config && !c->chkstop && ap_mask_test(&owned, domain) &&
                    ap_mask_test(&s->queue_present[c->id], domain) &&
                    !ap_mask_test(&s->queue_vfio[c->id], domain))
                        ap_mask_set(&usable, c->id);
        }
        return usable;
}

static bool rows_first(const ApMask rows[static AP_IDS], Apqn *ret) {
        for (unsigned a = 0; a < AP_IDS; a++)
                if (!ap_mask_is_empty(&rows[a])) {
                        *ret = (Apqn) { (uint8_t) a, (uint8_t) ap_mask_next(&rows[a], 0) };
                        return true;
                }
        return false;
}

static unsigned rows_count(const ApMask rows[static AP_IDS]) {
        unsigned n = 0;

        for (unsigned a = 0; a < AP_IDS; a++)
                n += ap_mask_count(&rows[a]);
        return n;
}

static const ApMask *row_of(const ApMatrix *m, unsigned adapter) {
        static const ApMask none;

        return ap_mask_test(&m->adapters, (uint8_t) adapter) ? &m->domains : &none;
}

/* What changes sides, where @will are the host's rows afterwards. */
static void compare(const Snapshot *s, const HostWish *w, const ApMask will[static AP_IDS], HostChange *c) {
        const ApMask possible = ap_mask_up_to(s->max_domain), none = {};

        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask was = snapshot_host_owned(s, (uint8_t) a), changed, wanted, there;

                changed = w->release ? ap_mask_and_not(&will[a], &was) : ap_mask_and_not(&was, &will[a]);
                there = ap_mask_and(&changed, &s->queue_present[a]);
                wanted = ap_mask_and(&changed, row_of(&w->matrix, a));
                c->moved[a] = ap_mask_and(&there, &wanted);
                c->others[a] = ap_mask_and_not(&there, &wanted);
                c->absent[a] = ap_mask_and_not(&wanted, &there);
                c->absent[a] = ap_mask_and(&c->absent[a], a <= s->max_adapter ? &possible : &none);
        }
        c->n_moved = rows_count(c->moved);
        c->n_others = rows_count(c->others);
        c->n_absent = rows_count(c->absent);
}

/* Whether the default domain has a usable queue now and would have none; *ret is one that goes. */
static bool takes_last(const Snapshot *s, const HostChange *c, Apqn *ret) {
        ApMask usable;
        uint8_t domain;
        bool any = false;

        if (s->default_domain < 0)
                return false;

        domain = (uint8_t) s->default_domain;
        usable = host_usable(s, domain);
        AP_MASK_FOREACH(a, &usable) {
                if (!ap_mask_test(&c->moved[a], domain) && !ap_mask_test(&c->others[a], domain))
                        return false;
                *ret = (Apqn) { (uint8_t) a, domain };
                any = true;
        }
        return any;
}

static void by_masks(const Snapshot *s, const HostWish *w, const ApMask *apmask, const ApMask *aqmask,
                     HostChange *ret) {
        ApMask will[AP_IDS] = {};

        AP_MASK_FOREACH(a, apmask)
                will[a] = *aqmask;
        *ret = (HostChange) { .means = HOST_MEANS_MASKS, .apmask = *apmask, .aqmask = *aqmask };
        compare(s, w, will, ret);
}

/* Less is better: the default domain's last queue first, then others' queues, then bits. */
static bool is_better(const Snapshot *s, const HostWish *w, const HostChange *a, const HostChange *b) {
        Apqn q;
        bool last_a = !w->force && takes_last(s, a, &q), last_b = !w->force && takes_last(s, b, &q);
        unsigned bits_a = ap_mask_count(&a->apmask) + ap_mask_count(&a->aqmask),
                 bits_b = ap_mask_count(&b->apmask) + ap_mask_count(&b->aqmask);

        if (last_a != last_b)
                return last_b;
        if (a->n_others != b->n_others)
                return a->n_others < b->n_others;
        return bits_a > bits_b;
}

/* A queue leaves the host with its adapter's bit or with its domain's. Where one of the matrix' adapters keeps its bit,
 * all domains lose theirs, and the other way round: there is nothing between. */
static void reserve_by_masks(const Snapshot *s, const HostWish *w, HostChange *ret) {
        HostChange by_domains;
        ApMask apmask = ap_mask_and_not(&s->apmask, &w->matrix.adapters),
               aqmask = ap_mask_and_not(&s->aqmask, &w->matrix.domains);

        by_masks(s, w, &apmask, &s->aqmask, ret);
        by_masks(s, w, &s->apmask, &aqmask, &by_domains);
        if (is_better(s, w, &by_domains, ret))
                *ret = by_domains;
}

static void by_overrides(const Snapshot *s, const HostWish *w, const ApMask rows[static AP_IDS],
                         HostChange *ret) {
        ApMask will[AP_IDS];

        *ret = (HostChange) { .means = HOST_MEANS_OVERRIDES, .apmask = s->apmask, .aqmask = s->aqmask };
        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask was = snapshot_host_owned(s, (uint8_t) a);

                ret->overrides[a] = rows[a];
                will[a] = w->release ? ap_mask_or(&was, &rows[a]) : ap_mask_and_not(&was, &rows[a]);
        }
        compare(s, w, will, ret);
}

static HostChangeVerdict reserve_by_overrides(const Snapshot *s, const HostWish *w,
                                              const ApMask owned[static AP_IDS], HostChange *ret,
                                              Apqn *ret_apqn, bool *ret_has_apqn) {
        ApMask absent[AP_IDS], alien[AP_IDS];

        by_overrides(s, w, owned, ret);
        for (unsigned a = 0; a < AP_IDS; a++) {
                absent[a] = ap_mask_and_not(&owned[a], &s->queue_present[a]);
                alien[a] = ap_mask_and(&owned[a], &s->queue_alien[a]);
        }

        *ret_has_apqn = rows_first(alien, ret_apqn);
        if (*ret_has_apqn)
                return HOST_CHANGE_ALIEN;
        *ret_has_apqn = rows_first(absent, ret_apqn);
        return *ret_has_apqn ? HOST_CHANGE_ABSENT : HOST_CHANGE_OK;
}

static HostChangeVerdict reserve(const Snapshot *s, const HostWish *w, const ApMask owned[static AP_IDS],
                                 bool blocked, HostChange *ret, Apqn *ret_apqn, bool *ret_has_apqn) {
        bool masks = !blocked && w->means != HOST_MEANS_OVERRIDES;
        bool overrides = s->has_override && snapshot_masks_are_full(s) && w->means != HOST_MEANS_MASKS;
        HostChange change;
        HostChangeVerdict verdict;
        bool has_apqn;
        Apqn q;

        if (masks) {
                reserve_by_masks(s, w, ret);
                if (ret->n_others == 0 || !overrides)
                        return HOST_CHANGE_OK;
        }
        if (overrides) {
                verdict = reserve_by_overrides(s, w, owned, &change, &q, &has_apqn);
                if (masks && verdict != HOST_CHANGE_OK) /* what it comes to by masks is told then */
                        return HOST_CHANGE_OK;
                *ret = change;
                if (has_apqn)
                        *ret_apqn = q;
                *ret_has_apqn = has_apqn;
                return verdict;
        }

        if (w->means != HOST_MEANS_OVERRIDES) {
                *ret_has_apqn = snapshot_find_override(s, ret_apqn);
                return HOST_CHANGE_BLOCKED;
        }
        return s->has_override ? HOST_CHANGE_NOT_FULL : HOST_CHANGE_NO_MEANS;
}

/* Both masks are full where overrides are: all that is not vfio_ap's by one is the host's. */
static bool given_by_overrides(const Snapshot *s, const HostWish *w, ApMask rows[static AP_IDS]) {
        bool any = false;

        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask given = {};

                if (s->has_override && snapshot_masks_are_full(s))
                        given = ap_mask_or(&s->queue_override[a], &s->queue_vfio[a]);
                given = ap_mask_and_not(&given, &s->queue_alien[a]);
                given = ap_mask_and(&given, &s->queue_present[a]);
                rows[a] = ap_mask_and(&given, row_of(&w->matrix, a));
                any |= !ap_mask_is_empty(&rows[a]);
        }
        return any;
}

static HostChangeVerdict release(const Snapshot *s, const HostWish *w, bool blocked, HostChange *ret,
                                 Apqn *ret_apqn, bool *ret_has_apqn) {
        ApMask rows[AP_IDS], apmask, aqmask;
        bool all = true;

        if (given_by_overrides(s, w, rows)) {
                by_overrides(s, w, rows, ret);
                if (w->means != HOST_MEANS_MASKS)
                        return HOST_CHANGE_OK;
                *ret_has_apqn = rows_first(rows, ret_apqn);
                return HOST_CHANGE_BLOCKED;
        }

        AP_MASK_FOREACH(a, &w->matrix.adapters) {
                ApMask was = snapshot_host_owned(s, (uint8_t) a), lacking;

                lacking = ap_mask_and_not(&w->matrix.domains, &was);
                all = all && ap_mask_is_empty(&lacking);
        }
        if (all) /* an override of somebody else that keeps one with vfio_ap is not ours to clear */
                return HOST_CHANGE_OK;
        if (blocked) {
                *ret_has_apqn = snapshot_find_override(s, ret_apqn);
                return HOST_CHANGE_BLOCKED;
        }
        if (w->means == HOST_MEANS_OVERRIDES)
                return s->has_override ? HOST_CHANGE_NOT_FULL : HOST_CHANGE_NO_MEANS;

        apmask = ap_mask_or(&s->apmask, &w->matrix.adapters);
        aqmask = ap_mask_or(&s->aqmask, &w->matrix.domains);
        by_masks(s, w, &apmask, &aqmask, ret);
        return HOST_CHANGE_OK;
}

HostChangeVerdict host_change(const Snapshot *s, const HostWish *w, HostChange *ret, Apqn *ret_apqn,
                              bool *ret_has_apqn) {
        HostChange c = { .apmask = s->apmask, .aqmask = s->aqmask };
        HostChangeVerdict verdict = HOST_CHANGE_OK;
        ApMask owned[AP_IDS] = {};
        bool blocked, any = false;
        Apqn q = {};

        blocked = snapshot_find_override(s, &q) || w->no_masks;
        AP_MASK_FOREACH(a, &w->matrix.adapters) {
                owned[a] = snapshot_host_owned(s, (uint8_t) a);
                owned[a] = ap_mask_and(&owned[a], &w->matrix.domains);
                any |= !ap_mask_is_empty(&owned[a]);
        }

        *ret_has_apqn = false;
        if (w->release)
                verdict = release(s, w, blocked, &c, ret_apqn, ret_has_apqn);
        else if (any)
                verdict = reserve(s, w, owned, blocked, &c, ret_apqn, ret_has_apqn);

        if (verdict == HOST_CHANGE_OK && !w->release && !w->force && takes_last(s, &c, &q)) {
                verdict = HOST_CHANGE_LAST;
                *ret_apqn = q;
                *ret_has_apqn = true;
        } else if (verdict == HOST_CHANGE_OK && !w->others && rows_first(c.others, &q)) {
                verdict = HOST_CHANGE_OTHERS;
                *ret_apqn = q;
                *ret_has_apqn = true;
        }

        *ret = c;
        return verdict;
}

int host_change_plan(const Snapshot *s, const HostWish *w, const HostChange *c, Plan *ret) {
        CLEANUP(plan_clear) Plan p = {};
        PlanStep step = { .type = PLAN_OVERRIDE };
        int r;

        if (c->means == HOST_MEANS_MASKS)
                return plan_masks(s, &c->apmask, &c->aqmask, ret);

        for (unsigned a = 0; a < AP_IDS; a++) {
                AP_MASK_FOREACH(d, &c->overrides[a]) {
                        step.override.apqn = (Apqn) { (uint8_t) a, (uint8_t) d };
                        step.override.before =
                                w->release || ap_mask_test(&s->queue_override[a], (uint8_t) d);
                        step.override.after = !w->release;
                        r = plan_append(&p, &step);
                        if (r < 0)
                                return r;
                }
        }

        *ret = p;
        p = (Plan) {};
        return 0;
}
