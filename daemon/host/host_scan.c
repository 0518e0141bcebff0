/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "host/host_matrix.h"
#include "host/host_paths.h"
#include "host/host_prefetch.h"
#include "host/host_scan_internal.h"
#include "host/host_use.h"

int host_scan_mdev_path(const char *parent_path, Uuid uuid, const char *name, char *buf, size_t size) {
        char id[UUID_STRING_SIZE];

        return scan_path_join(buf, size, parent_path, uuid_format(uuid, id), name);
}

static int parent_entry(void *userdata, const char *name) {
        Snapshot *s = userdata;
        int r;

        if (strlen(name) >= SNAPSHOT_NAME_SIZE)
                return 0;
        r = scan_array_reserve((void **) &s->parents, s->n_parents, sizeof *s->parents);
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

        (void) scan_path_join(link, sizeof link, HOST_PATH_PARENTS, p->name, NULL);
        n = sysfs->ops->readlink(sysfs, link, target, sizeof target);
        if (n < 0)
                return scan_gone_is_again((int) n);
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
        r = scan_array_reserve((void **) &s->types, s->n_types, sizeof *s->types);
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
        r = scan_number_read(sysfs, path, UINT32_MAX, &n);
        if (r == -EBADMSG)
                n = 0; /* nothing is made of a type that cannot count */
        else if (r < 0)
                return scan_gone_is_again(r);

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
        r = scan_value_read(sysfs, path, t->name, sizeof t->name);
        if (r < 0 && r != -ENOENT && r != -EBADMSG)
                return scan_gone_is_again(r);
        (void) type_path(s, t, "device_api", path, sizeof path);
        r = scan_value_read(sysfs, path, t->device_api, sizeof t->device_api);
        if (r < 0 && r != -ENOENT && r != -EBADMSG)
                return scan_gone_is_again(r);
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
        r = scan_array_reserve((void **) &s->mdevs, s->n_mdevs, sizeof *s->mdevs);
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
                return scan_gone_is_again(r);
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
                (void) scan_path_join(path, sizeof path, s->parents[p].path, HOST_DIR_TYPES, NULL);
                r = sysfs->ops->list(sysfs, path, type_entry, &list);
                if (r < 0)
                        return scan_gone_is_again(r);
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
                                return scan_gone_is_again(r);
                }
                if (s->n_types > first) {
                        MdevList all = { .snapshot = s, .type = (uint32_t) first, .leaving = true };

                        all.ap = is_ap_type(s, &s->types[first]);
                        r = sysfs->ops->list(sysfs, s->parents[p].path, mdev_entry, &all);
                        if (r < 0)
                                return scan_gone_is_again(r);
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
                return scan_gone_is_again(r);

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

/* What was read lately enough. */
static bool matrix_recent(const HostScanner *c, HostMdev *m) {
        const HostMdev *before =
                c->recent_us && c->previous ? snapshot_find_mdev(c->previous, m->uuid) : NULL;

        if (!before || !before->matrix_known || before->read_us <= c->recent_us)
                return false;

        m->matrix = before->matrix;
        m->matrix_known = true;
        m->read_us = before->read_us;
        return true;
}

static int scan_matrices(const HostScanner *c, HostPrefetch *ahead, Snapshot *s) {
        for (size_t at = 0; at < s->n_mdevs;) {
                size_t first = at;
                uint64_t now;

                host_prefetch_clear(ahead);
                for (; at < s->n_mdevs && !host_prefetch_is_full(ahead); at++) {
                        HostMdev *m = &s->mdevs[at];
                        char path[HOST_PATH_SIZE];

                        if (m->ap && !matrix_recent(c, m) &&
                            host_scan_mdev_path(snapshot_parent_of(s, m)->path, m->uuid, "ap_config", path,
                                                sizeof path) >= 0)
                                host_prefetch_add(ahead, path);
                }
                now = clock_now_us();
                host_prefetch_load(ahead);

                for (size_t i = first; i < at; i++) {
                        HostMdev *m = &s->mdevs[i];
                        int r;

                        if (!m->ap || m->matrix_known)
                                continue;
                        m->read_us = now;
                        r = scan_matrix(c, s, m, false);
                        if (r < 0)
                                return r;
                }
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

/* What a scan reads anyway, if the host is about as it was. */
static void scan_ahead(const HostScanner *c, HostPrefetch *ahead) {
        static const char *const paths[] = { HOST_PATH_MAX_ADAPTER, HOST_PATH_MAX_DOMAIN, HOST_PATH_BINDINGS,
                                             HOST_PATH_APMASK,      HOST_PATH_AQMASK,     HOST_PATH_ADAPTERS,
                                             HOST_PATH_DOMAINS,     HOST_PATH_CONTROL };
        const HostParent *parent = snapshot_find_parent(c->previous, HOST_PARENT_AP);
        char path[HOST_PATH_SIZE];

        host_prefetch_clear(ahead);
        for (size_t i = 0; i < ELEMENTS(paths) && c->previous->ap; i++)
                host_prefetch_add(ahead, paths[i]);
        for (size_t i = 0; i < c->previous->n_types; i++)
                if (type_path(c->previous, &c->previous->types[i], "available_instances", path,
                              sizeof path) >= 0)
                        host_prefetch_add(ahead, path);
        if (parent && scan_path_join(path, sizeof path, parent->path, "features", NULL) >= 0)
                host_prefetch_add(ahead, path);
        host_prefetch_load(ahead);
}

static int scan_once(const HostScanner *scanner, HostPrefetch *ahead, HostScan depth, Snapshot **ret) {
        HostScanner with_ahead = *scanner, *c = &with_ahead;
        CLEANUP(snapshot_freep)
        Snapshot *s = snapshot_new();
        bool risky, held;
        int r;

        if (!s)
                return -ENOMEM;
        c->sysfs = host_prefetch_sysfs(ahead);
        if (c->previous)
                scan_ahead(c, ahead);

        r = scan_ap(c, s);
        if (r < 0)
                return r;
        r = c->quiet_mdevs && c->previous ? scan_same_mdevs(c->sysfs, c->previous, s) : 0;
        if (r == 0)
                r = scan_mdev_list(c, s);
        if (r < 0)
                return r;

        if (s->vfio_ap) {
                char value[SCAN_VALUE_SIZE], path[HOST_PATH_SIZE];

                (void) scan_path_join(path, sizeof path, snapshot_find_parent(s, HOST_PARENT_AP)->path,
                                      "features", NULL);
                r = scan_value_read(c->sysfs, path, value, sizeof value);
                if (r < 0 && r != -ENOENT)
                        return scan_gone_is_again(r);
                s->has_ap_config = r >= 0 && strstr(value, "ap_config");
        }
        if (s->has_ap_config) {
                r = scan_matrices(c, ahead, s);
                if (r < 0)
                        return r;
        }

        held = host_use_expect(c, s);
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
                r = held ? host_use_held(c, s) : 0;
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
        CLEANUP(host_prefetch_freep)
        HostPrefetch *ahead = NULL;
        HostScanner scanner = *c;
        int r;

        r = host_prefetch_new(c->sysfs, &ahead);
        if (r < 0)
                return r;

        r = SCAN_AGAIN;
        scanner.overrides |= depth == HOST_SCAN_DETAIL;
        for (unsigned i = 0; i < SCAN_TRIES_MAX && r == SCAN_AGAIN; i++) {
                r = scan_once(&scanner, ahead, depth, ret);
                scanner.quiet_mdevs = false;
        }

        return r == SCAN_AGAIN ? -EAGAIN : r;
}
