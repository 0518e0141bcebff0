/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "host/sysfs.h"

/* Attributes that every scan reads stay open: reading at offset 0 makes sysfs generate the content anew,
 * which leaves one system call of three and no walk along the path. A descriptor of what has gone answers
 * ENODEV for ever, also after the same uuid was made again. */
#define KEPT_BUS   "bus/ap/"
#define KEPT_SLOTS 16384 /* a power of two; a collision costs only the saving */

typedef struct Kept {
        char *path;
        int fd;
} Kept;

typedef struct SysfsReal {
        Sysfs sysfs;
        int dir_fd;
        Kept *kept; /* KEPT_SLOTS, by hash of the path */
} SysfsReal;

#define REAL(s) CONTAINER_OF(s, SysfsReal, sysfs)

static void kept_drop(Kept *k) {
        if (!k->path)
                return;
        (void) fd_close(k->fd);
        free(TAKE(k->path));
}

static Kept *kept_slot(SysfsReal *s, const char *path) {
        uint32_t hash = 2166136261u;

        for (const char *p = path; *p; p++)
                hash = (hash ^ (uint8_t) *p) * 16777619u;

        return &s->kept[(hash ^ hash >> 16) % KEPT_SLOTS];
}

static bool is_kept(const char *path) {
        static const char *const names[] = { "ap_config", "available_instances", "device_api", "features",
                                             "name" };
        const char *name = strrchr(path, '/');

        if (!name)
                return false;
        name++;
        if (strncmp(path, KEPT_BUS, strlen(KEPT_BUS)) == 0)
                return name == path + strlen(KEPT_BUS); /* the bus's own, no device's */
        for (size_t i = 0; i < ELEMENTS(names); i++)
                if (strcmp(name, names[i]) == 0)
                        return true;
        return false;
}

static int attribute_open(SysfsReal *s, const char *path, int flags) {
        int fd = openat(s->dir_fd, path, flags | O_CLOEXEC | O_NOCTTY);

        if (fd < 0 && errno == EMFILE) { /* the kept ones are only a saving */
                for (size_t i = 0; i < KEPT_SLOTS; i++)
                        kept_drop(&s->kept[i]);
                fd = openat(s->dir_fd, path, flags | O_CLOEXEC | O_NOCTTY);
        }

        return ret_errno(fd);
}

/* A short read is the end: sysfs gives all that fits at once. */
static ssize_t content_read(int fd, char *buf, size_t size) {
        ssize_t n = pread(fd, buf, size, 0);

        if (n < 0)
                return -errno;
        if ((size_t) n == size)
                return -EOVERFLOW;

        buf[n] = '\0';
        return n;
}

static ssize_t real_read(Sysfs *sysfs, const char *path, char *buf, size_t size) {
        SysfsReal *s = REAL(sysfs);
        CLEANUP(fd_closep)
        int fd = -1;
        Kept *k = NULL;
        ssize_t r;

        if (is_kept(path)) {
                k = kept_slot(s, path);
                if (k->path && strcmp(k->path, path) == 0) {
                        r = content_read(k->fd, buf, size);
                        if (r != -ENODEV)
                                return r;
                }
                kept_drop(k);
        }

        fd = attribute_open(s, path, O_RDONLY);
        if (fd < 0)
                return fd;

        r = content_read(fd, buf, size);
        if (r >= 0 && k) {
                k->path = strdup(path);
                if (k->path)
                        k->fd = TAKE_FD(fd);
        }
        return r;
}

static int real_write(Sysfs *sysfs, const char *path, const char *data, size_t size) {
        CLEANUP(fd_closep)
        int fd = attribute_open(REAL(sysfs), path, O_WRONLY);
        ssize_t n;

        if (fd < 0)
                return fd;

        n = write(fd, data, size); /* not again after EINTR: the caller must look what has happened */
        if (n < 0)
                return -errno;
        if ((size_t) n != size)
                return -EIO;

        return ret_errno(close(TAKE_FD(fd)));
}

static ssize_t real_readlink(Sysfs *sysfs, const char *path, char *buf, size_t size) {
        ssize_t n = readlinkat(REAL(sysfs)->dir_fd, path, buf, size);

        if (n < 0)
                return -errno;
        if ((size_t) n == size)
                return -EOVERFLOW;

        buf[n] = '\0';
        return n;
}

static int real_list(Sysfs *sysfs, const char *path, sysfs_entry_t fn, void *userdata) {
        CLEANUP(closedirp)
        DIR *dir = NULL;
        int fd;

        fd = attribute_open(REAL(sysfs), path, O_RDONLY | O_DIRECTORY);
        if (fd < 0)
                return fd;
        dir = fdopendir(fd);
        if (!dir) {
                int r = -errno;

                (void) fd_close(fd);
                return r;
        }

        for (;;) {
                struct dirent *e;
                int r;

                errno = 0;
                e = readdir(dir);
                if (!e)
                        return -errno;
                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                        continue;

                r = fn(userdata, e->d_name);
                if (r != 0)
                        return r;
        }
}

static int real_exists(Sysfs *sysfs, const char *path) {
        struct stat st;

        return ret_errno(fstatat(REAL(sysfs)->dir_fd, path, &st, 0));
}

static void real_free(Sysfs *sysfs) {
        SysfsReal *s = REAL(sysfs);

        for (size_t i = 0; s->kept && i < KEPT_SLOTS; i++)
                kept_drop(&s->kept[i]);
        free(s->kept);
        (void) fd_close(s->dir_fd);
        free(s);
}

static const SysfsOps real_ops = {
        .read = real_read,
        .write = real_write,
        .readlink = real_readlink,
        .list = real_list,
        .exists = real_exists,
        .free = real_free,
};

int sysfs_real_new(int sys_fd, Sysfs **ret) {
        SysfsReal *s = calloc(1, sizeof *s);

        if (!s)
                return -ENOMEM;
        s->sysfs.ops = &real_ops;
        s->dir_fd = fcntl(sys_fd, F_DUPFD_CLOEXEC, 3);
        s->kept = calloc(KEPT_SLOTS, sizeof *s->kept);
        if (s->dir_fd < 0 || !s->kept) {
                int r = s->dir_fd < 0 ? -errno : -ENOMEM;

                real_free(&s->sysfs);
                return r;
        }

        *ret = &s->sysfs;
        return 0;
}

Sysfs *sysfs_free(Sysfs *s) {
        if (s)
                s->ops->free(s);
        return NULL;
}
