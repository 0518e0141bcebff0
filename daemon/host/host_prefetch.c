/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_prefetch.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_paths.h"

#define CONTENT_SIZE 512 /* ap_config has 201 bytes; what is longer is read by whoever wants it */

typedef struct Entry {
        char path[HOST_PATH_SIZE], content[CONTENT_SIZE];
        ssize_t result;
        bool there;
} Entry;

struct HostPrefetch {
        Sysfs sysfs, *from;
        Entry entries[HOST_PREFETCH_MAX];
        size_t n,
                next; /* of the entries; where the one is that will be asked for next, if all goes in order */
};

#define PREFETCH(s) CONTAINER_OF(s, HostPrefetch, sysfs)

static Entry *entry_find(HostPrefetch *p, const char *path) {
        for (size_t i = 0; i < p->n; i++) {
                Entry *e = &p->entries[(p->next + i) % p->n];

                if (e->there && strcmp(e->path, path) == 0)
                        return e;
        }
        return NULL;
}

static ssize_t prefetch_read(Sysfs *sysfs, const char *path, char *buf, size_t size) {
        HostPrefetch *p = PREFETCH(sysfs);
        Entry *e = entry_find(p, path);

        if (!e)
                return p->from->ops->read(p->from, path, buf, size);

        e->there = false;
        p->next = (size_t) (e - p->entries) + 1;
        if (e->result == -EOVERFLOW)
                return p->from->ops->read(p->from, path, buf, size);
        if (e->result < 0)
                return e->result;
        if ((size_t) e->result >= size)
                return -EOVERFLOW;

        memcpy(buf, e->content, (size_t) e->result + 1);
        return e->result;
}

static int prefetch_write(Sysfs *sysfs, const char *path, const char *data, size_t size) {
        HostPrefetch *p = PREFETCH(sysfs);

        host_prefetch_clear(p); /* it may change what was read */
        return p->from->ops->write(p->from, path, data, size);
}

static ssize_t prefetch_readlink(Sysfs *sysfs, const char *path, char *buf, size_t size) {
        HostPrefetch *p = PREFETCH(sysfs);

        return p->from->ops->readlink(p->from, path, buf, size);
}

static int prefetch_list(Sysfs *sysfs, const char *path, sysfs_entry_t fn, void *userdata) {
        HostPrefetch *p = PREFETCH(sysfs);

        return p->from->ops->list(p->from, path, fn, userdata);
}

static int prefetch_exists(Sysfs *sysfs, const char *path) {
        HostPrefetch *p = PREFETCH(sysfs);

        return p->from->ops->exists(p->from, path);
}

static void prefetch_free(Sysfs *sysfs) {
        free(PREFETCH(sysfs));
}

static const SysfsOps prefetch_ops = {
        .read = prefetch_read,
        .write = prefetch_write,
        .readlink = prefetch_readlink,
        .list = prefetch_list,
        .exists = prefetch_exists,
        .free = prefetch_free,
};

int host_prefetch_new(Sysfs *sysfs, HostPrefetch **ret) {
        HostPrefetch *p = malloc(sizeof *p); /* its entries only as they are used */

        if (!p)
                return -ENOMEM;

        p->sysfs.ops = &prefetch_ops;
        p->from = sysfs;
        host_prefetch_clear(p);
        *ret = p;
        return 0;
}

HostPrefetch *host_prefetch_free(HostPrefetch *p) {
        if (p)
                prefetch_free(&p->sysfs);
        return NULL;
}

Sysfs *host_prefetch_sysfs(HostPrefetch *p) {
        return &p->sysfs;
}

void host_prefetch_clear(HostPrefetch *p) {
        p->n = p->next = 0;
}

bool host_prefetch_is_full(const HostPrefetch *p) {
        return p->n == HOST_PREFETCH_MAX;
}

void host_prefetch_add(HostPrefetch *p, const char *path) {
        Entry *e;

        if (host_prefetch_is_full(p) || strlen(path) >= sizeof e->path)
                return;

        e = &p->entries[p->n++];
        memcpy(e->path, path, strlen(path) + 1);
        e->there = false;
}

void host_prefetch_load(HostPrefetch *p) {
        SysfsRead reads[HOST_PREFETCH_MAX];

        for (size_t i = 0; i < p->n; i++)
                reads[i] = (SysfsRead) { .path = p->entries[i].path,
                                         .buf = p->entries[i].content,
                                         .size = sizeof p->entries[i].content };
        sysfs_read_many(p->from, reads, p->n);
        for (size_t i = 0; i < p->n; i++) {
                p->entries[i].result = reads[i].result;
                p->entries[i].there = true;
        }
        p->next = 0;
}
