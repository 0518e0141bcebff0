/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

Snapshot *snapshot_new(void) {
        Snapshot *s = calloc(1, sizeof *s);

        if (s)
                s->default_domain = -1;
        return s;
}

Snapshot *snapshot_free(Snapshot *s) {
        if (!s)
                return NULL;

        free(s->cards);
        free(s->parents);
        free(s->types);
        free(s->mdevs);
        free(s);
        return NULL;
}

static void *copy_array(const void *array, size_t n, size_t size, bool *ok) {
        void *copy;

        if (n == 0)
                return NULL;

        copy = malloc(n * size);
        if (copy)
                memcpy(copy, array, n * size);
        else
                *ok = false;
        return copy;
}

Snapshot *snapshot_copy(const Snapshot *s) {
        Snapshot *copy;
        bool ok = true;

        copy = malloc(sizeof *copy);
        if (!copy)
                return NULL;

        *copy = *s;
        copy->cards = copy_array(s->cards, s->n_cards, sizeof *s->cards, &ok);
        copy->parents = copy_array(s->parents, s->n_parents, sizeof *s->parents, &ok);
        copy->types = copy_array(s->types, s->n_types, sizeof *s->types, &ok);
        copy->mdevs = copy_array(s->mdevs, s->n_mdevs, sizeof *s->mdevs, &ok);
        return ok ? copy : snapshot_free(copy);
}

/* The index of the first mdev that is not before @uuid. */
static size_t mdev_lower_bound(const Snapshot *s, Uuid uuid) {
        size_t low = 0, high = s->n_mdevs;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (uuid_compare(s->mdevs[middle].uuid, uuid) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }

        return low;
}

HostMdev *snapshot_find_mdev(const Snapshot *s, Uuid uuid) {
        size_t i = mdev_lower_bound(s, uuid);

        return i < s->n_mdevs && uuid_equal(s->mdevs[i].uuid, uuid) ? &s->mdevs[i] : NULL;
}

static int compare_parent(const void *name, const void *parent) {
        return strcmp(name, ((const HostParent *) parent)->name);
}

const HostParent *snapshot_find_parent(const Snapshot *s, const char *name) {
        return s->n_parents > 0 ? bsearch(name, s->parents, s->n_parents, sizeof *s->parents, compare_parent)
                                : NULL;
}

typedef struct TypeKey {
        uint32_t parent;
        const char *id;
} TypeKey;

static int compare_type(const void *k, const void *t) {
        const TypeKey *key = k;
        const HostType *type = t;

        if (key->parent != type->parent)
                return key->parent < type->parent ? -1 : 1;
        return strcmp(key->id, type->id);
}

const HostType *snapshot_find_type(const Snapshot *s, const char *parent, const char *type) {
        const HostParent *p = snapshot_find_parent(s, parent);
        TypeKey key;

        if (!p || s->n_types == 0)
                return NULL;

        key = (TypeKey) { (uint32_t) (p - s->parents), type };
        return bsearch(&key, s->types, s->n_types, sizeof *s->types, compare_type);
}

int snapshot_put_mdev(Snapshot *s, const HostMdev *mdev) {
        size_t i = mdev_lower_bound(s, mdev->uuid);
        HostMdev value = *mdev, *grown; /* @mdev may be in the array */

        if (i < s->n_mdevs && uuid_equal(s->mdevs[i].uuid, value.uuid)) {
                s->mdevs[i] = value;
                return 0;
        }

        grown = reallocarray(s->mdevs, s->n_mdevs + 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;

        s->mdevs = grown;
        memmove(&grown[i + 1], &grown[i], (s->n_mdevs - i) * sizeof *grown);
        grown[i] = value;
        s->n_mdevs++;
        return 0;
}

void snapshot_drop_mdev(Snapshot *s, Uuid uuid) {
        HostMdev *m = snapshot_find_mdev(s, uuid);

        if (!m)
                return;

        s->n_mdevs--;
        memmove(m, m + 1, (size_t) (s->mdevs + s->n_mdevs - m) * sizeof *m);
}

bool snapshot_masks_are_full(const Snapshot *s) {
        return ap_mask_equal(&s->apmask, &AP_MASK_ALL) && ap_mask_equal(&s->aqmask, &AP_MASK_ALL);
}

bool snapshot_find_override(const Snapshot *s, Apqn *ret) {
        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask any = ap_mask_or(&s->queue_override[a], &s->queue_alien[a]);

                if (!ap_mask_is_empty(&any)) {
                        *ret = (Apqn) { (uint8_t) a, (uint8_t) ap_mask_next(&any, 0) };
                        return true;
                }
        }

        return false;
}

ApMask snapshot_host_owned(const Snapshot *s, uint8_t adapter) {
        ApMask given;

        if (!ap_mask_test(&s->apmask, adapter))
                return (ApMask) {};
        if (!s->has_override || !snapshot_masks_are_full(s))
                return s->aqmask;

        given = ap_mask_or(&s->queue_override[adapter], &s->queue_alien[adapter]);
        given = ap_mask_and(&given, &s->queue_vfio[adapter]);
        return ap_mask_and_not(&s->aqmask, &given);
}

GuestLoss snapshot_guest_loss(const Snapshot *s, const ApMatrix *m, uint8_t adapter, uint8_t *ret_domain) {
        ApMask domains, usable;
        unsigned lost;

        if (!ap_mask_test(&m->adapters, adapter))
                return GUEST_LOSS_NONE;
        if (!ap_mask_test(&s->host_adapters, adapter))
                return GUEST_LOSS_NO_ADAPTER;

        domains = ap_mask_and(&m->domains, &s->host_domains);
        usable = ap_mask_and(&s->queue_present[adapter], &s->queue_vfio[adapter]);
        domains = ap_mask_and_not(&domains, &usable);
        lost = ap_mask_next(&domains, 0);
        if (lost == AP_IDS)
                return GUEST_LOSS_NONE;

        *ret_domain = (uint8_t) lost;
        return ap_mask_test(&s->queue_present[adapter], (uint8_t) lost) ? GUEST_LOSS_NOT_BOUND
                                                                        : GUEST_LOSS_NO_QUEUE;
}

void snapshot_guest_matrix(const Snapshot *s, const ApMatrix *m, ApMask *ret_adapters, ApMask *ret_domains) {
        ApMask adapters = {};

        AP_MASK_FOREACH(a, &m->adapters) {
                uint8_t domain;

                if (snapshot_guest_loss(s, m, (uint8_t) a, &domain) == GUEST_LOSS_NONE)
                        ap_mask_set(&adapters, (uint8_t) a);
        }

        *ret_domains = ap_mask_and(&m->domains, &s->host_domains);
        *ret_adapters = adapters;
}
