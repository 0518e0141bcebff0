/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_use.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_paths.h"

/* A guest has the queues of an adapter all or none, but not always those of each adapter that it could have: the kernel
 * looks again at certain moments only. */
int host_use_queues(Sysfs *sysfs, const Snapshot *s, const ApMatrix *m, MdevUse *ret) {
        ApMask adapters, domains;

        *ret = MDEV_USE_UNKNOWN;
        snapshot_guest_matrix(s, m, &adapters, &domains);
        AP_MASK_FOREACH(a, &adapters) {
                AP_MASK_FOREACH(d, &domains) {
                        char path[HOST_PATH_SIZE], name[APQN_STRING_SIZE], value[32];
                        ssize_t n;

                        (void) snprintf(path, sizeof path, HOST_PATH_AP_DEVICES "/%s/status",
                                        apqn_format((Apqn) { (uint8_t) a, (uint8_t) d }, name));
                        n = sysfs->ops->read(sysfs, path, value, sizeof value);
                        if (n == -ENOENT || n == -ENODEV) /* it went meanwhile; ask another */
                                continue;
                        if (n < 0)
                                return n == -EOVERFLOW ? -EBADMSG : (int) n;

                        value[strcspn(value, "\n")] = '\0';
                        if (strcmp(value, "in use") == 0) {
                                *ret = MDEV_USE_GUEST;
                                return 0;
                        }
                        if (strcmp(value, "assigned") == 0 || strcmp(value, "unassigned") == 0)
                                *ret = MDEV_USE_FREE;
                        break;
                }
        }
        return 0;
}

int host_use_group(Sysfs *sysfs, int root_fd, const char *path, MdevUse *ret) {
        char link[HOST_PATH_SIZE], target[HOST_PATH_SIZE], node[64];
        const char *group;
        CLEANUP(fd_closep) int fd = -1;
        ssize_t n;

        *ret = MDEV_USE_UNKNOWN;
        if ((size_t) snprintf(link, sizeof link, "%s/iommu_group", path) >= sizeof link)
                return -ENAMETOOLONG;
        n = sysfs->ops->readlink(sysfs, link, target, sizeof target);
        if (n == SYSFS_NEVER)
                return SYSFS_NEVER;
        if (n < 0)
                return 0;
        group = strrchr(target, '/');
        group = group ? group + 1 : target;
        if (!group[0] || strlen(group) > 10 || strspn(group, "0123456789") != strlen(group))
                return 0;

        (void) snprintf(node, sizeof node, HOST_PATH_VFIO "/%s", group);
        fd = openat(root_fd, node, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        if (fd >= 0)
                *ret = MDEV_USE_FREE;
        else if (errno == EBUSY) /* other errors say nothing */
                *ret = MDEV_USE_GUEST;
        return 0;
}

/* Somebody had it when it was last looked at. */
static bool was_held(const HostScanner *c, const HostMdev *m) {
        const HostMdev *before = !m->ap && c->previous ? snapshot_find_mdev(c->previous, m->uuid) : NULL;

        return before && before->use == MDEV_USE_GUEST;
}

bool host_use_expect(const HostScanner *c, Snapshot *s) {
        bool any = false;

        for (size_t i = 0; i < s->n_mdevs; i++) {
                HostMdev *m = &s->mdevs[i];
                bool held = was_held(c, m);

                any |= held;
                if (!m->ap && (m->leaving || (held && c->careful)))
                        m->use = MDEV_USE_GUEST;
        }
        return any;
}

int host_use_held(const HostScanner *c, Snapshot *s) {
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
