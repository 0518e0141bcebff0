/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "host/host_matrix.h"
#include "host/host_paths.h"
#include "host/host_use.h"

#define TRIES_MAX  10 /* things come and go in the middle of a scan */
#define VALUE_SIZE 256

/* Something that was just listed is gone: begin again. Never leaves this file. */
#define SCAN_AGAIN (-ERESTART)

uint64_t host_scan_now_us(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

static int gone_is_again(int r) {
        return r == -ENOENT || r == -ENODEV || r == -ENXIO || r == -ENOTDIR ? SCAN_AGAIN : r;
}

/* One line without its newline. Cut to @size: for texts that only people read. */
static int value_read(Sysfs *s, const char *path, char *buf, size_t size) {
        char value[VALUE_SIZE];
        ssize_t n = s->ops->read(s, path, value, sizeof value);

        if (n < 0)
                return n == -EOVERFLOW ? -EBADMSG : (int) n;

        value[strcspn(value, "\n")] = '\0';
        (void) snprintf(buf, size, "%s", value);
        return 0;
}

/* A decimal number and nothing else. */
static int number_read(Sysfs *s, const char *path, unsigned long max, unsigned long *ret) {
        char value[32];
        unsigned long n = 0;
        int r;

        r = value_read(s, path, value, sizeof value);
        if (r < 0)
                return r;
        if (!value[0] || strlen(value) > 10)
                return -EBADMSG;
        for (const char *p = value; *p; p++) {
                if (*p < '0' || *p > '9')
                        return -EBADMSG;
                n = n * 10 + (unsigned long) (*p - '0');
        }
        if (n > max)
                return -EBADMSG;

        *ret = n;
        return 0;
}

static int mask_read(Sysfs *s, const char *path, ApMask *ret) {
        char value[VALUE_SIZE];
        int r;

        r = value_read(s, path, value, sizeof value);
        if (r < 0)
                return r;
        if (strlen(value) != AP_MASK_STRING_SIZE - 1) /* a short one is none that a kernel prints */
                return -EBADMSG;

        return ap_mask_parse(value, ret) < 0 ? -EBADMSG : 0;
}

static int path_join(char *buf, size_t size, const char *a, const char *b, const char *c) {
        int n = snprintf(buf, size, "%s/%s%s%s", a, b, c ? "/" : "", c ? c : "");

        return (size_t) n < size ? 0 : -ENAMETOOLONG;
}

int host_scan_mdev_path(const char *parent_path, Uuid uuid, const char *name, char *buf, size_t size) {
        char id[UUID_STRING_SIZE];

        return path_join(buf, size, parent_path, uuid_format(uuid, id), name);
}

/* Room for one more in an array that grows by doubling. */
static int array_reserve(void **array, size_t n, size_t size) {
        void *bigger;

        if (n > 0 && (n < 16 || (n & (n - 1)) != 0))
                return 0;

        bigger = realloc(*array, (n == 0 ? 16 : 2 * n) * size);
        if (!bigger)
                return -ENOMEM;
        *array = bigger;
        return 0;
}

/* "05.0047" */
static bool apqn_parse(const char *name, Apqn *ret) {
        char again[APQN_STRING_SIZE];
        unsigned adapter, domain;

        if (sscanf(name, "%2x.%4x", &adapter, &domain) != 2 || adapter >= AP_IDS || domain >= AP_IDS)
                return false;
        ret->adapter = (uint8_t) adapter;
        ret->domain = (uint8_t) domain;
        return strcmp(apqn_format(*ret, again), name) == 0;
}

static bool card_parse(const char *name, uint8_t *ret) {
        unsigned id;
        char again[16];

        if (sscanf(name, "card%2x", &id) != 1)
                return false;
        (void) snprintf(again, sizeof again, "card%02x", id);
        *ret = (uint8_t) id;
        return strcmp(again, name) == 0;
}

typedef struct DeviceList {
        ApMask cards;
        ApMask *queues; /* AP_IDS rows */
} DeviceList;

static int device_entry(void *userdata, const char *name) {
        DeviceList *l = userdata;
        uint8_t card;
        Apqn q;

        if (card_parse(name, &card))
                ap_mask_set(&l->cards, card);
        else if (apqn_parse(name, &q))
                ap_mask_set(&l->queues[q.adapter], q.domain);
        return 0;
}

static int override_read(Sysfs *s, Apqn q, bool *ret) {
        char path[HOST_PATH_SIZE], name[APQN_STRING_SIZE], value[64];
        int r;

        (void) path_join(path, sizeof path, HOST_PATH_AP_DEVICES, apqn_format(q, name), "driver_override");
        r = value_read(s, path, value, sizeof value);
        if (r < 0)
                return r;

        *ret = strcmp(value, HOST_DRIVER_AP) == 0; /* "(null)" or empty: none */
        return 0;
}

/* Overrides exist only while both masks are full; then a queue bound to vfio_ap has got there by its own. */
static int scan_overrides(Sysfs *sysfs, Snapshot *s) {
        const ApMask all = AP_MASK_ALL;

        memset(s->queue_override, 0, sizeof s->queue_override);
        if (!s->has_override || !ap_mask_equal(&s->apmask, &all) || !ap_mask_equal(&s->aqmask, &all))
                return 0;

        for (unsigned a = 0; a < AP_IDS; a++) {
                AP_MASK_FOREACH(d, &s->queue_vfio[a]) {
                        bool set;
                        int r;

                        r = override_read(sysfs, (Apqn) { (uint8_t) a, (uint8_t) d }, &set);
                        if (r < 0)
                                return gone_is_again(r);
                        if (set)
                                ap_mask_set(&s->queue_override[a], (uint8_t) d);
                }
        }
        return 0;
}

/* Two listings, not a link for each of 65,536 queues. */
static int scan_devices(Sysfs *sysfs, Snapshot *s, ApMask *ret_cards) {
        DeviceList present = { .queues = s->queue_present }, bound = { .queues = s->queue_vfio };
        int r;

        memset(s->queue_present, 0, sizeof s->queue_present);
        memset(s->queue_vfio, 0, sizeof s->queue_vfio);

        r = sysfs->ops->list(sysfs, HOST_PATH_AP_DEVICES, device_entry, &present);
        if (r < 0)
                return gone_is_again(r);
        r = sysfs->ops->list(sysfs, HOST_PATH_AP_VFIO, device_entry, &bound);
        if (r < 0 && r != -ENOENT) /* vfio_ap is not loaded */
                return r;

        *ret_cards = present.cards;
        return 0;
}

static int scan_has_override(Sysfs *sysfs, Snapshot *s) {
        for (unsigned a = 0; a < AP_IDS; a++) {
                unsigned d = ap_mask_next(&s->queue_present[a], 0);
                char path[HOST_PATH_SIZE], name[APQN_STRING_SIZE];
                int r;

                if (d == AP_IDS)
                        continue;

                (void) path_join(path, sizeof path, HOST_PATH_AP_DEVICES,
                                 apqn_format((Apqn) { (uint8_t) a, (uint8_t) d }, name), "driver_override");
                r = sysfs->ops->exists(sysfs, path);
                if (r < 0 && r != -ENOENT)
                        return gone_is_again(r);
                s->has_override = r >= 0;
                return 0;
        }
        return 0;
}

static int scan_masks(Sysfs *sysfs, Snapshot *s) {
        int r;

        r = mask_read(sysfs, HOST_PATH_APMASK, &s->apmask);
        if (r < 0)
                return gone_is_again(r);
        r = mask_read(sysfs, HOST_PATH_AQMASK, &s->aqmask);
        if (r < 0)
                return gone_is_again(r);
        return 0;
}

int host_scan_queues(Sysfs *sysfs, Snapshot *s) {
        int r = SCAN_AGAIN;

        for (unsigned i = 0; i < TRIES_MAX && r == SCAN_AGAIN; i++) {
                ApMask cards;

                r = scan_masks(sysfs, s);
                if (r >= 0)
                        r = scan_devices(sysfs, s, &cards);
                if (r >= 0)
                        r = scan_overrides(sysfs, s);
        }
        return r == SCAN_AGAIN ? -EAGAIN : r;
}

/* What the machine has; without QCI the kernel does not know, then it is what is there. */
static int scan_configuration(Sysfs *sysfs, Snapshot *s) {
        static const char *const paths[] = { HOST_PATH_ADAPTERS, HOST_PATH_DOMAINS, HOST_PATH_CONTROL };
        ApMask *masks[] = { &s->host_adapters, &s->host_domains, &s->host_control };

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                char value[VALUE_SIZE];
                int r;

                r = value_read(sysfs, paths[i], value, sizeof value);
                if (r < 0)
                        return gone_is_again(r);
                if (strcmp(value, "not supported") != 0) {
                        if (ap_mask_parse(value, masks[i]) < 0)
                                return -EBADMSG;
                        continue;
                }

                *masks[i] = (ApMask) {};
                for (unsigned a = 0; a < AP_IDS; a++) {
                        if (ap_mask_is_empty(&s->queue_present[a]))
                                continue;
                        if (i == 0)
                                ap_mask_set(masks[i], (uint8_t) a);
                        else
                                *masks[i] = ap_mask_or(masks[i], &s->queue_present[a]);
                }
        }
        return 0;
}

/* An attribute that this kernel lacks or that makes no sense says nothing; a card that has gone does. */
static int card_number(Sysfs *sysfs, const char *dir, const char *name, unsigned long otherwise,
                       unsigned long *ret) {
        char path[HOST_PATH_SIZE];
        int r;

        (void) path_join(path, sizeof path, dir, name, NULL);
        r = number_read(sysfs, path, INT32_MAX, ret);
        if (r == -ENOENT || r == -EBADMSG) {
                *ret = otherwise;
                return 0;
        }
        return gone_is_again(r);
}

static int scan_card(Sysfs *sysfs, uint8_t id, HostCard *ret) {
        char dir[HOST_PATH_SIZE], path[HOST_PATH_SIZE + 8];
        unsigned long hwtype, online, config, chkstop;
        HostCard card = { .id = id };
        int r;

        (void) snprintf(dir, sizeof dir, HOST_PATH_AP_DEVICES "/card%02x", id);
        (void) path_join(path, sizeof path, dir, "type", NULL);
        r = value_read(sysfs, path, card.type, sizeof card.type);
        if (r < 0)
                return gone_is_again(r);

        r = card_number(sysfs, dir, "hwtype", 0, &hwtype);
        if (r >= 0)
                r = card_number(sysfs, dir, "online", 0, &online);
        if (r >= 0)
                r = card_number(sysfs, dir, "config", 1, &config);
        if (r >= 0)
                r = card_number(sysfs, dir, "chkstop", 0, &chkstop);
        if (r < 0)
                return r;

        card.hwtype = (int) hwtype;
        card.online = online != 0;
        card.config = config != 0;
        card.chkstop = chkstop != 0;
        switch (card.type[0] ? card.type[strlen(card.type) - 1] : '\0') {
        case 'A':
                card.mode = CARD_MODE_ACCEL;
                break;
        case 'C':
                card.mode = CARD_MODE_CCA;
                break;
        case 'P':
                card.mode = CARD_MODE_EP11;
                break;
        default:
                card.mode = CARD_MODE_UNKNOWN;
        }
        *ret = card;
        return 0;
}

static int scan_cards(Sysfs *sysfs, Snapshot *s, const ApMask *cards) {
        s->cards = calloc(ap_mask_count(cards) + 1, sizeof *s->cards);
        if (!s->cards)
                return -ENOMEM;

        AP_MASK_FOREACH(id, cards) {
                int r = scan_card(sysfs, (uint8_t) id, &s->cards[s->n_cards]);

                if (r < 0)
                        return r;
                s->n_cards++;
        }
        return 0;
}

/* 1: as @old has it; 0: it is to be listed. */
static int scan_same_devices(const Snapshot *old, Snapshot *s) {
        if (old->max_adapter != s->max_adapter || old->max_domain != s->max_domain ||
            !ap_mask_equal(&old->apmask, &s->apmask) || !ap_mask_equal(&old->aqmask, &s->aqmask) ||
            !ap_mask_equal(&old->host_adapters, &s->host_adapters) ||
            !ap_mask_equal(&old->host_domains, &s->host_domains) ||
            !ap_mask_equal(&old->host_control, &s->host_control) || strcmp(old->bindings, s->bindings) != 0)
                return 0;

        s->cards = calloc(old->n_cards + 1, sizeof *s->cards);
        if (!s->cards)
                return -ENOMEM;
        memcpy(s->cards, old->cards, old->n_cards * sizeof *s->cards);
        s->n_cards = old->n_cards;
        s->has_override = old->has_override;
        memcpy(s->queue_present, old->queue_present, sizeof s->queue_present);
        memcpy(s->queue_vfio, old->queue_vfio, sizeof s->queue_vfio);
        memcpy(s->queue_override, old->queue_override, sizeof s->queue_override);
        return 1;
}

static int scan_ap(const HostScanner *c, Snapshot *s) {
        const Snapshot *same =
                c->quiet && c->previous && c->previous->ap && c->previous->bindings[0] ? c->previous : NULL;
        Sysfs *sysfs = c->sysfs;
        unsigned long max;
        ApMask cards;
        int r;

        r = sysfs->ops->exists(sysfs, HOST_PATH_AP);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return r;
        s->ap = true;

        r = number_read(sysfs, HOST_PATH_MAX_ADAPTER, AP_IDS - 1, &max);
        if (r < 0)
                return gone_is_again(r);
        s->max_adapter = (uint8_t) max;
        r = number_read(sysfs, HOST_PATH_MAX_DOMAIN, AP_IDS - 1, &max);
        if (r < 0)
                return gone_is_again(r);
        s->max_domain = (uint8_t) max;

        r = value_read(sysfs, HOST_PATH_BINDINGS, s->bindings, sizeof s->bindings);
        if (r < 0)
                return gone_is_again(r);
        s->bindings_complete = strstr(s->bindings, "(complete)");

        r = scan_masks(sysfs, s);
        if (r < 0)
                return r;
        if (same) {
                /* where the kernel does not know the configuration, it is what was there */
                memcpy(s->queue_present, same->queue_present, sizeof s->queue_present);
                r = scan_configuration(sysfs, s);
                if (r >= 0)
                        r = scan_same_devices(same, s);
                if (r != 0)
                        return MIN(r, 0);
        }

        r = scan_devices(sysfs, s, &cards);
        if (r < 0)
                return r;
        r = scan_has_override(sysfs, s);
        if (r < 0)
                return r;
        r = scan_overrides(sysfs, s);
        if (r < 0)
                return r;
        r = scan_configuration(sysfs, s);
        if (r < 0)
                return r;
        return scan_cards(sysfs, s, &cards);
}

static int parent_entry(void *userdata, const char *name) {
        Snapshot *s = userdata;
        int r;

        if (strlen(name) >= SNAPSHOT_NAME_SIZE)
                return 0;
        r = array_reserve((void **) &s->parents, s->n_parents, sizeof *s->parents);
        if (r < 0)
                return r;

        s->parents[s->n_parents] = (HostParent) {};
        (void) snprintf(s->parents[s->n_parents++].name, SNAPSHOT_NAME_SIZE, "%s", name);
        return 0;
}

static int parent_compare(const void *a, const void *b) {
        return strcmp(((const HostParent *) a)->name, ((const HostParent *) b)->name);
}

/* The link "../../devices/vfio_ap/matrix" as a path from /sys. */
static int scan_parent(Sysfs *sysfs, HostParent *p) {
        char link[HOST_PATH_SIZE], target[HOST_PATH_SIZE];
        const char *t = target;
        ssize_t n;

        (void) path_join(link, sizeof link, HOST_PATH_PARENTS, p->name, NULL);
        n = sysfs->ops->readlink(sysfs, link, target, sizeof target);
        if (n < 0)
                return gone_is_again((int) n);
        while (strncmp(t, "../", 3) == 0)
                t += 3;
        if (t == target || strlen(t) >= sizeof p->path)
                return -EBADMSG;

        (void) snprintf(p->path, sizeof p->path, "%s", t);
        return 0;
}

typedef struct TypeList {
        Snapshot *snapshot;
        uint32_t parent;
} TypeList;

static int type_entry(void *userdata, const char *name) {
        TypeList *l = userdata;
        Snapshot *s = l->snapshot;
        int r;

        if (strlen(name) >= SNAPSHOT_NAME_SIZE)
                return 0;
        r = array_reserve((void **) &s->types, s->n_types, sizeof *s->types);
        if (r < 0)
                return r;

        s->types[s->n_types] = (HostType) { .parent = l->parent };
        (void) snprintf(s->types[s->n_types++].id, SNAPSHOT_NAME_SIZE, "%s", name);
        return 0;
}

static int type_compare(const void *a, const void *b) {
        return strcmp(((const HostType *) a)->id, ((const HostType *) b)->id);
}

static int type_path(const Snapshot *s, const HostType *t, const char *name, char *buf, size_t size) {
        int n = snprintf(buf, size, "%s/" HOST_DIR_TYPES "/%s/%s", s->parents[t->parent].path, t->id, name);

        return (size_t) n < size ? 0 : -ENAMETOOLONG;
}

static int type_available(Sysfs *sysfs, const Snapshot *s, HostType *t) {
        char path[HOST_PATH_SIZE];
        unsigned long n;
        int r;

        r = type_path(s, t, "available_instances", path, sizeof path);
        if (r < 0)
                return r;
        r = number_read(sysfs, path, UINT32_MAX, &n);
        if (r == -EBADMSG)
                n = 0; /* nothing is made of a type that cannot count */
        else if (r < 0)
                return gone_is_again(r);

        t->available = (uint32_t) n;
        return 0;
}

static int scan_type(Sysfs *sysfs, const Snapshot *s, HostType *t) {
        char path[HOST_PATH_SIZE];
        int r;

        r = type_available(sysfs, s, t);
        if (r < 0)
                return r;

        /* both may be missing; what is not there is empty */
        (void) type_path(s, t, "name", path, sizeof path);
        r = value_read(sysfs, path, t->name, sizeof t->name);
        if (r < 0 && r != -ENOENT && r != -EBADMSG)
                return gone_is_again(r);
        (void) type_path(s, t, "device_api", path, sizeof path);
        r = value_read(sysfs, path, t->device_api, sizeof t->device_api);
        if (r < 0 && r != -ENOENT && r != -EBADMSG)
                return gone_is_again(r);
        return 0;
}

int host_scan_available(Sysfs *sysfs, Snapshot *s, uint32_t parent) {
        for (size_t i = 0; i < s->n_types; i++) {
                int r;

                if (s->types[i].parent != parent)
                        continue;
                r = type_available(sysfs, s, &s->types[i]);
                if (r < 0)
                        return r == SCAN_AGAIN ? -EAGAIN : r;
        }
        return 0;
}

typedef struct MdevList {
        Snapshot *snapshot;
        uint32_t type;
        bool ap, leaving;
} MdevList;

static int mdev_entry(void *userdata, const char *name) {
        MdevList *l = userdata;
        Snapshot *s = l->snapshot;
        Uuid uuid;
        int r;

        if (uuid_parse(name, &uuid) < 0)
                return 0;
        r = array_reserve((void **) &s->mdevs, s->n_mdevs, sizeof *s->mdevs);
        if (r < 0)
                return r;

        s->mdevs[s->n_mdevs++] =
                (HostMdev) { .uuid = uuid, .type = l->type, .ap = l->ap, .leaving = l->leaving };
        return 0;
}

static int mdev_compare(const void *a, const void *b) {
        const HostMdev *x = a, *y = b;
        int r = uuid_compare(x->uuid, y->uuid);

        return r != 0 ? r : (int) x->leaving - (int) y->leaving;
}

static int copy_array(void *ret, size_t *ret_n, const void *array, size_t n, size_t size) {
        void *copy = calloc(n + 1, size);

        if (!copy)
                return -ENOMEM;
        if (n > 0)
                memcpy(copy, array, n * size);

        *(void **) ret = copy;
        *ret_n = n;
        return 0;
}

/* 1: as @old has it; 0: it is to be listed. */
static int scan_same_mdevs(Sysfs *sysfs, const Snapshot *old, Snapshot *s) {
        int r;

        r = copy_array(&s->parents, &s->n_parents, old->parents, old->n_parents, sizeof *s->parents);
        if (r >= 0)
                r = copy_array(&s->types, &s->n_types, old->types, old->n_types, sizeof *s->types);
        if (r < 0)
                return r;
        for (size_t i = 0; i < s->n_types; i++) {
                r = type_available(sysfs, s, &s->types[i]);
                if (r < 0 && r != SCAN_AGAIN)
                        return r;
                if (r == SCAN_AGAIN || s->types[i].available != old->types[i].available) {
                        free(TAKE(s->parents));
                        free(TAKE(s->types));
                        s->n_parents = s->n_types = 0;
                        return 0;
                }
        }

        r = copy_array(&s->mdevs, &s->n_mdevs, old->mdevs, old->n_mdevs, sizeof *s->mdevs);
        if (r < 0)
                return r;
        for (size_t i = 0; i < s->n_mdevs; i++)
                s->mdevs[i] = (HostMdev) { .uuid = old->mdevs[i].uuid,
                                           .type = old->mdevs[i].type,
                                           .leaving = old->mdevs[i].leaving,
                                           .ap = old->mdevs[i].ap };
        s->vfio_ap = old->vfio_ap;
        return 1;
}

static bool is_ap_type(const Snapshot *s, const HostType *t) {
        return strcmp(s->parents[t->parent].name, HOST_PARENT_AP) == 0 &&
               strcmp(t->device_api, HOST_API_AP) == 0;
}

/* The kernel takes an mdev out of all lists before it waits for the guest that has it to let go; only the directory stays,
 * without the links that one which is just being made has from the beginning. */
static int scan_is_leaving(const HostScanner *c, const Snapshot *s, const HostMdev *m) {
        char path[HOST_PATH_SIZE];
        int r;

        r = host_scan_mdev_path(snapshot_parent_of(s, m)->path, m->uuid, "subsystem", path, sizeof path);
        if (r < 0)
                return r;
        r = c->sysfs->ops->exists(c->sysfs, path);
        if (r >= 0)
                return 0;
        if (r != -ENOENT)
                return gone_is_again(r);
        *strrchr(path, '/') = '\0';
        r = c->sysfs->ops->exists(c->sysfs, path);
        return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

/* Which type it is of can be seen no more. */
static void scan_leaving_type(const HostScanner *c, const Snapshot *s, HostMdev *m) {
        const HostMdev *before = c->previous ? snapshot_find_mdev(c->previous, m->uuid) : NULL;
        const HostType *type = NULL;

        if (before)
                type = snapshot_find_type(s, snapshot_parent_of(c->previous, before)->name,
                                          snapshot_type_of(c->previous, before)->id);
        if (type && type->parent == s->types[m->type].parent) {
                m->type = (uint32_t) (type - s->types);
                m->ap = before->ap;
        }
}

/* Each once, in order: @s has what the types list, and after that what the directories of the parents have. */
static int scan_sort_mdevs(const HostScanner *c, Snapshot *s) {
        size_t n = 0;

        if (s->n_mdevs > 0)
                qsort(s->mdevs, s->n_mdevs, sizeof *s->mdevs, mdev_compare);
        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];

                /* one that was removed and made again with another type while we listed is there twice, too */
                if (n > 0 && uuid_equal(s->mdevs[n - 1].uuid, m->uuid))
                        continue;
                if (m->leaving) {
                        int r = scan_is_leaving(c, s, m);

                        if (r < 0)
                                return r;
                        if (r == 0)
                                continue;
                        scan_leaving_type(c, s, m);
                }
                s->mdevs[n++] = *m;
        }
        s->n_mdevs = n;
        return 0;
}

static int scan_mdev_list(const HostScanner *c, Snapshot *s) {
        Sysfs *sysfs = c->sysfs;
        int r;

        r = sysfs->ops->list(sysfs, HOST_PATH_PARENTS, parent_entry, s);
        if (r == -ENOENT) /* no mdev core */
                return 0;
        if (r < 0)
                return r;
        if (s->n_parents == 0)
                return 0;
        qsort(s->parents, s->n_parents, sizeof *s->parents, parent_compare);

        for (uint32_t p = 0; p < s->n_parents; p++) {
                TypeList list = { .snapshot = s, .parent = p };
                size_t first = s->n_types;
                char path[HOST_PATH_SIZE];

                r = scan_parent(sysfs, &s->parents[p]);
                if (r < 0)
                        return r;
                (void) path_join(path, sizeof path, s->parents[p].path, HOST_DIR_TYPES, NULL);
                r = sysfs->ops->list(sysfs, path, type_entry, &list);
                if (r < 0)
                        return gone_is_again(r);
                if (s->n_types > first)
                        qsort(s->types + first, s->n_types - first, sizeof *s->types, type_compare);

                for (size_t t = first; t < s->n_types; t++) {
                        MdevList mdevs = { .snapshot = s, .type = (uint32_t) t };

                        r = scan_type(sysfs, s, &s->types[t]);
                        if (r < 0)
                                return r;
                        mdevs.ap = is_ap_type(s, &s->types[t]);
                        s->vfio_ap |= mdevs.ap;
                        r = type_path(s, &s->types[t], "devices", path, sizeof path);
                        if (r < 0)
                                return r;
                        r = sysfs->ops->list(sysfs, path, mdev_entry, &mdevs);
                        if (r < 0)
                                return gone_is_again(r);
                }
                if (s->n_types > first) {
                        MdevList all = { .snapshot = s, .type = (uint32_t) first, .leaving = true };

                        all.ap = is_ap_type(s, &s->types[first]);
                        r = sysfs->ops->list(sysfs, s->parents[p].path, mdev_entry, &all);
                        if (r < 0)
                                return gone_is_again(r);
                }
        }

        return scan_sort_mdevs(c, s);
}

static int known_compare(const void *key, const void *entry) {
        return uuid_compare(*(const Uuid *) key, ((const HostKnown *) entry)->uuid);
}

/* What is known of @uuid without the kernel. */
static const ApMatrix *scan_vouched(const HostScanner *c, Uuid uuid) {
        const HostKnown *k = NULL;

        if (c->n_known > 0)
                k = bsearch(&uuid, c->known, c->n_known, sizeof *c->known, known_compare);
        return k ? &k->matrix : NULL;
}

static const ApMatrix *scan_earlier(const HostScanner *c, Uuid uuid) {
        const HostMdev *m = c->previous ? snapshot_find_mdev(c->previous, uuid) : NULL;

        return m && m->ap && m->matrix_known ? &m->matrix : NULL;
}

/* The attributes of an mdev are gone and its directory is not: it waits for its guest to let go before it is
 * removed, and keeps its queues meanwhile. Its matrix cannot change any more. */
static int scan_leaving(const HostScanner *c, const char *path, HostMdev *m) {
        const ApMatrix *earlier = scan_earlier(c, m->uuid);
        int r;

        r = c->sysfs->ops->exists(c->sysfs, path);
        if (r < 0)
                return gone_is_again(r);

        if (!earlier)
                earlier = scan_vouched(c, m->uuid);
        m->matrix_known = earlier;
        if (earlier)
                m->matrix = *earlier;
        return 0;
}

static int scan_matrix(const HostScanner *c, const Snapshot *s, HostMdev *m, bool text) {
        char path[HOST_PATH_SIZE];
        int r;

        r = host_scan_mdev_path(snapshot_parent_of(s, m)->path, m->uuid, NULL, path, sizeof path);
        if (r < 0)
                return r;
        r = text ? host_matrix_read_text(c->sysfs, path, &m->matrix)
                 : host_matrix_read(c->sysfs, path, scan_earlier(c, m->uuid), &m->matrix);
        if (r == -ENOENT || r == -ENODEV)
                return scan_leaving(c, path, m);
        if (r == SYSFS_NEVER || r == -ENOMEM)
                return r;

        m->matrix_known = r >= 0; /* one mdev that cannot be read hides no other */
        return 0;
}

static int scan_matrices(const HostScanner *c, Snapshot *s) {
        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];
                const HostMdev *before =
                        c->recent_us && c->previous ? snapshot_find_mdev(c->previous, m->uuid) : NULL;
                int r;

                if (!m->ap)
                        continue;
                if (before && before->matrix_known && before->read_us > c->recent_us) {
                        m->matrix = before->matrix;
                        m->matrix_known = true;
                        m->read_us = before->read_us;
                        continue;
                }

                m->read_us = host_scan_now_us();
                r = scan_matrix(c, s, m, false);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* How many queues could be in matrices at all. */
static unsigned scan_pool(const Snapshot *s) {
        const ApMask valid = ap_mask_up_to(s->max_domain);
        unsigned n = 0;

        for (unsigned a = 0; a <= s->max_adapter; a++) {
                ApMask host = snapshot_host_owned(s, (uint8_t) a);
                ApMask pool = ap_mask_and_not(&valid, &host);

                n += ap_mask_count(&pool);
        }
        return n;
}

static void pool_take(unsigned *pool, const HostMdev *m) {
        unsigned n = m->matrix_known ? ap_matrix_n_queues(&m->matrix) : 0;

        *pool -= n < *pool ? n : *pool;
}

static int scan_matrices_text(const HostScanner *c, Snapshot *s) {
        unsigned pool = scan_pool(s);
        int r;

        /* those vouched for first: what they have, the others cannot have */
        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];
                const ApMatrix *vouched = m->ap ? scan_vouched(c, m->uuid) : NULL;

                if (!vouched)
                        continue;
                if (ap_matrix_n_queues(vouched) < HOST_MATRIX_QUEUES_MAX) {
                        r = scan_matrix(c, s, m, true);
                        if (r < 0)
                                return r;
                } else {
                        m->matrix = *vouched;
                        m->matrix_known = true;
                }
                pool_take(&pool, m);
        }

        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];
                const ApMatrix *earlier = scan_earlier(c, m->uuid);

                if (!m->ap || m->matrix_known)
                        continue;
                if (pool < HOST_MATRIX_QUEUES_MAX) {
                        r = scan_matrix(c, s, m, true);
                        if (r < 0)
                                return r;
                } else if (earlier) { /* what we gave it, or read while that was safe, is the best that can
                                         be had */
                        m->matrix = *earlier;
                        m->matrix_known = true;
                }
                pool_take(&pool, m);
        }
        return 0;
}

/* Somebody had it when it was last looked at. */
static bool was_held(const HostScanner *c, const HostMdev *m) {
        const HostMdev *before = !m->ap && c->previous ? snapshot_find_mdev(c->previous, m->uuid) : NULL;

        return before && before->use == MDEV_USE_GUEST;
}

/* Those of other kinds than vfio_ap. What waits to be removed has somebody who has it. */
static int scan_held(const HostScanner *c, Snapshot *s) {
        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];
                char path[HOST_PATH_SIZE];
                int r;

                if (m->ap || m->leaving || !was_held(c, m))
                        continue;
                r = host_scan_mdev_path(snapshot_parent_of(s, m)->path, m->uuid, NULL, path, sizeof path);
                if (r >= 0)
                        r = host_use_group(c->sysfs, c->root_fd, path, &m->use);
                if (r == SYSFS_NEVER)
                        return r;
                if (m->use == MDEV_USE_FREE) /* and not looked at any more */
                        m->use = MDEV_USE_UNKNOWN;
        }
        return 0;
}

static int scan_details(const HostScanner *c, Snapshot *s) {
        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];
                char path[HOST_PATH_SIZE];
                int r;

                if (!m->ap || !m->matrix_known)
                        continue;
                r = host_use_queues(c->sysfs, s, &m->matrix, &m->use);
                if (r == SYSFS_NEVER)
                        return r;
                if (ap_matrix_n_queues(&m->matrix) >= HOST_MATRIX_QUEUES_MAX)
                        continue;

                r = host_scan_mdev_path(snapshot_parent_of(s, m)->path, m->uuid, NULL, path, sizeof path);
                if (r >= 0)
                        r = host_matrix_read_guest(c->sysfs, path, &m->guest_adapters, &m->guest_domains);
                if (r == SYSFS_NEVER || r == -ENOMEM)
                        return r;
                m->guest_known = r >= 0;
        }
        s->detailed = true;
        return 0;
}

static int scan_once(const HostScanner *c, HostScan depth, Snapshot **ret) {
        CLEANUP(snapshot_freep)
        Snapshot *s = snapshot_new();
        bool risky, held = false;
        int r;

        if (!s)
                return -ENOMEM;

        r = scan_ap(c, s);
        if (r < 0)
                return r;
        r = c->quiet_mdevs && c->previous ? scan_same_mdevs(c->sysfs, c->previous, s) : 0;
        if (r == 0)
                r = scan_mdev_list(c, s);
        if (r < 0)
                return r;

        if (s->vfio_ap) {
                char value[VALUE_SIZE], path[HOST_PATH_SIZE];

                (void) path_join(path, sizeof path, snapshot_find_parent(s, HOST_PARENT_AP)->path,
                                 "features", NULL);
                r = value_read(c->sysfs, path, value, sizeof value);
                if (r < 0 && r != -ENOENT)
                        return gone_is_again(r);
                s->has_ap_config = r >= 0 && strstr(value, "ap_config");
        }
        if (s->has_ap_config) {
                r = scan_matrices(c, s);
                if (r < 0)
                        return r;
        }

        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];

                held |= was_held(c, m);
                if (!m->ap && (m->leaving || (c->careful && was_held(c, m))))
                        m->use = MDEV_USE_GUEST;
        }
        risky = s->n_mdevs > 0 && (depth == HOST_SCAN_DETAIL || held || (s->vfio_ap && !s->has_ap_config));
        if (risky && c->careful)
                s->detail_stuck = true;
        else if (risky) {
                if (c->risky) {
                        r = c->risky(c->userdata, s);
                        if (r < 0)
                                return r;
                }
                if (s->vfio_ap && !s->has_ap_config) {
                        r = scan_matrices_text(c, s);
                        if (r < 0)
                                return r;
                }
                r = held ? scan_held(c, s) : 0;
                if (r < 0)
                        return r;
        }
        if (depth == HOST_SCAN_DETAIL && !s->detail_stuck) {
                r = scan_details(c, s);
                if (r < 0)
                        return r;
        }

        *ret = TAKE(s);
        return 0;
}

int host_scan(const HostScanner *c, HostScan depth, Snapshot **ret) {
        HostScanner scanner = *c;
        int r = SCAN_AGAIN;

        for (unsigned i = 0; i < TRIES_MAX && r == SCAN_AGAIN; i++) {
                r = scan_once(&scanner, depth, ret);
                scanner.quiet_mdevs = false;
        }

        return r == SCAN_AGAIN ? -EAGAIN : r;
}
