/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A definition that goes from mdevctl to us, or from us to mdevctl, is at each moment with one of both: it lies
 * aside while the store takes or forgets it. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "host/host_paths.h"
#include "host/mdevctl.h"

#define ASIDE_SIZE (sizeof HOST_MDEVCTL_ASIDE + UUID_STRING_SIZE)

typedef struct Dirs {
        int all, matrix; /* etc/mdevctl.d, and matrix there */
} Dirs;

static void dirs_close(Dirs *d) {
        fd_closep(&d->all);
        fd_closep(&d->matrix);
}

/* @make: what is not there. */
static int dirs_open(int root_fd, bool make, Dirs *ret) {
        const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
        bool made;

        if (make && mkdirat(root_fd, HOST_PATH_MDEVCTL_ALL, 0755) < 0 && errno != EEXIST)
                return -errno;
        made = make && mkdirat(root_fd, HOST_PATH_MDEVCTL, 0755) >= 0;
        if (make && !made && errno != EEXIST)
                return -errno;

        ret->all = openat(root_fd, HOST_PATH_MDEVCTL_ALL, flags);
        if (ret->all < 0)
                return -errno;
        ret->matrix = openat(root_fd, HOST_PATH_MDEVCTL, flags);
        if (ret->matrix < 0)
                return -errno;
        if (made && fchmod(ret->matrix, 0755) < 0) /* our own umask is stricter than mdevctl's */
                return -errno;
        return 0;
}

static char *aside_name(Uuid uuid, char buf[static ASIDE_SIZE]) {
        char id[UUID_STRING_SIZE];

        (void) snprintf(buf, ASIDE_SIZE, HOST_MDEVCTL_ASIDE "%s", uuid_format(uuid, id));
        return buf;
}

/* The new place first: after a loss of power a definition may be in both, but never in none. */
static int dirs_sync(int to, int from) {
        if (fsync(to) < 0)
                return -errno;
        return ret_errno(fsync(from));
}

static int give(const Dirs *d, Uuid uuid) {
        char id[UUID_STRING_SIZE], aside[ASIDE_SIZE];

        if (renameat2(d->all, aside_name(uuid, aside), d->matrix, uuid_format(uuid, id), RENAME_NOREPLACE) <
            0)
                return -errno;
        return dirs_sync(d->matrix, d->all);
}

int mdevctl_take(int root_fd, Uuid uuid, MdevctlFile *ret, const char **reterr) {
        CLEANUP(dirs_close) Dirs d = { -1, -1 };
        char id[UUID_STRING_SIZE], aside[ASIDE_SIZE];
        int r, k;

        r = dirs_open(root_fd, false, &d);
        if (r < 0)
                return r;
        if (renameat2(d.matrix, uuid_format(uuid, id), d.all, aside_name(uuid, aside), RENAME_NOREPLACE) < 0)
                return -errno;

        r = dirs_sync(d.all, d.matrix);
        if (r >= 0)
                r = mdevctl_load_at(d.all, aside, ret, reterr);
        if (r < 0) {
                k = give(&d, uuid);
                return k < 0 ? k : r;
        }
        return 0;
}

int mdevctl_offer(int root_fd, Uuid uuid, const char *json) {
        CLEANUP(dirs_close) Dirs d = { -1, -1 };
        char id[UUID_STRING_SIZE], aside[ASIDE_SIZE];
        int r;

        r = dirs_open(root_fd, true, &d);
        if (r < 0)
                return r;
        if (faccessat(d.matrix, uuid_format(uuid, id), F_OK, AT_SYMLINK_NOFOLLOW) >= 0)
                return -EEXIST;

        r = file_write_synced(d.all, aside_name(uuid, aside), json, strlen(json));
        if (r >= 0)
                r = ret_errno(fchmodat(d.all, aside, 0644, 0)); /* as mdevctl's own */
        if (r >= 0)
                r = ret_errno(fsync(d.all));
        if (r < 0)
                (void) unlinkat(d.all, aside, 0);
        return r;
}

int mdevctl_give(int root_fd, Uuid uuid) {
        CLEANUP(dirs_close) Dirs d = { -1, -1 };
        int r;

        r = dirs_open(root_fd, true, &d);
        return r < 0 ? r : give(&d, uuid);
}

int mdevctl_drop(int root_fd, Uuid uuid) {
        CLEANUP(dirs_close) Dirs d = { -1, -1 };
        char aside[ASIDE_SIZE];
        int r;

        r = dirs_open(root_fd, false, &d);
        if (r < 0)
                return r;
        if (unlinkat(d.all, aside_name(uuid, aside), 0) < 0)
                return -errno;
        return ret_errno(fsync(d.all));
}

int mdevctl_recover(int root_fd, bool (*is_ours)(void *userdata, Uuid uuid),
                    void (*told)(void *userdata, Uuid uuid, bool ours, int r), void *userdata) {
        CLEANUP(closedirp) DIR *dir = NULL;
        int fd, result = 0;

        fd = openat(root_fd, HOST_PATH_MDEVCTL_ALL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        dir = fdopendir(fd);
        if (!dir) {
                result = -errno;
                (void) fd_close(fd);
                return result;
        }

        for (;;) {
                struct dirent *e;
                bool ours;
                Uuid uuid;
                int r;

                errno = 0;
                e = readdir(dir);
                if (!e)
                        return result ?: -errno;
                if (strncmp(e->d_name, HOST_MDEVCTL_ASIDE, strlen(HOST_MDEVCTL_ASIDE)) != 0 ||
                    uuid_parse(e->d_name + strlen(HOST_MDEVCTL_ASIDE), &uuid) < 0)
                        continue;

                ours = is_ours(userdata, uuid);
                r = ours ? mdevctl_drop(root_fd, uuid) : mdevctl_give(root_fd, uuid);
                told(userdata, uuid, ours, r);
                result = result ?: r;
        }
}
