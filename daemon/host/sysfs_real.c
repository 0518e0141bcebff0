/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "host/sysfs.h"

/* Attributes that every scan reads or every start writes stay open: reading at offset 0 makes sysfs generate
 * the content anew, each write is one store, which leaves one system call of three and no walk along the
 * path. A descriptor of what has gone answers ENODEV for ever, also after the same uuid was made again. */
#define KEPT_BUS       "bus/ap/"
#define KEPT_SLOTS     16384 /* a power of two; a collision costs only the saving */
#define KEPT_PATH_SIZE 512
#define AT_ONCE        64 /* reads that the kernel is given together */

typedef struct Kept {
        char *path;
        int fd, flags;
} Kept;

typedef struct SysfsReal {
        Sysfs sysfs;
        int dir_fd;
        Kept above; /* the directory two levels above what was last opened to be kept: mdevs are beside each other */
        Kept *kept;        /* KEPT_SLOTS, by hash of the path */
        aio_context_t aio; /* 0: none yet */
        bool no_aio;
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

/* How the file is opened to be kept, -1: it is not. */
static int kept_flags(const char *path) {
        static const struct {
                const char *name;
                int flags;
        } names[] = {
                { "ap_config", O_RDWR },  { "available_instances", O_RDONLY },
                { "create", O_WRONLY },   { "device_api", O_RDONLY },
                { "features", O_RDONLY }, { "name", O_RDONLY },
        };
        const char *name = strrchr(path, '/');

        if (!name)
                return -1;
        name++;
        if (strncmp(path, KEPT_BUS, strlen(KEPT_BUS)) == 0) /* the bus's own, no device's */
                return name == path + strlen(KEPT_BUS) ? O_RDONLY : -1;
        for (size_t i = 0; i < ELEMENTS(names); i++)
                if (strcmp(name, names[i].name) == 0)
                        return names[i].flags;
        return -1;
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

/* The same with most of the way already gone. What was above may have gone and be there again: then from the root. */
static int attribute_open_near(SysfsReal *s, const char *path, int flags) {
        const char *name = strrchr(path, '/'), *rest = name;
        size_t n;
        int fd;

        while (rest > path && *--rest != '/')
                ;
        if (!rest || *rest != '/')
                return attribute_open(s, path, flags);
        n = (size_t) (rest - path);

        if (s->above.path && strlen(s->above.path) == n && memcmp(s->above.path, path, n) == 0) {
                fd = openat(s->above.fd, rest + 1, flags | O_CLOEXEC | O_NOCTTY);
                if (fd >= 0)
                        return fd;
        }
        fd = attribute_open(s, path, flags);
        if (fd < 0)
                return fd;

        kept_drop(&s->above);
        s->above.path = strndup(path, n);
        if (s->above.path) {
                s->above.fd = openat(s->dir_fd, s->above.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (s->above.fd < 0)
                        free(TAKE(s->above.path));
        }
        return fd;
}

/* What became of a read of @size bytes. A short one is the end: sysfs gives all that fits at once. */
static ssize_t content_end(ssize_t n, char *buf, size_t size) {
        if (n < 0)
                return n;
        if ((size_t) n == size)
                return -EOVERFLOW;

        buf[n] = '\0';
        return n;
}

static ssize_t content_read(int fd, char *buf, size_t size) {
        ssize_t n = pread(fd, buf, size, 0);

        return content_end(n < 0 ? -errno : n, buf, size);
}

static ssize_t content_write(int fd, const char *data, size_t size) {
        ssize_t n = pwrite(fd, data, size,
                           0); /* not again after EINTR: the caller must look what has happened */

        if (n < 0)
                return -errno;
        return (size_t) n == size ? 0 : -EIO;
}

/* The descriptor for @path, which is kept if it can be; then *ret_keeper has it. @access: O_RDONLY or O_WRONLY. */
static int real_open(SysfsReal *s, const char *path, int access, Kept **ret_keeper) {
        int flags = kept_flags(path), fd;
        Kept *k;

        *ret_keeper = NULL;
        if (flags < 0 || (flags != O_RDWR && flags != access))
                return attribute_open(s, path, access);

        k = kept_slot(s, path);
        if (k->path && strcmp(k->path, path) == 0 && (k->flags == access || k->flags == O_RDWR)) {
                *ret_keeper = k;
                return k->fd;
        }

        kept_drop(k);
        fd = attribute_open_near(s, path, flags);
        if (fd == -EACCES && flags != access) { /* old kernels' ap_config cannot be written */
                flags = access;
                fd = attribute_open_near(s, path, flags);
        }
        if (fd < 0)
                return fd;

        k->path = strdup(path);
        if (k->path) {
                k->fd = fd;
                k->flags = flags;
                *ret_keeper = k;
        }
        return fd;
}

/* One access by @fd or, if what that was opened for has gone, by another one. */
static ssize_t real_access(Sysfs *sysfs, const char *path, int access, char *buf, const char *data,
                           size_t size) {
        for (bool again = false;; again = true) {
                CLEANUP(fd_closep)
                int own = -1;
                Kept *keeper;
                ssize_t r;
                int fd;

                fd = real_open(REAL(sysfs), path, access, &keeper);
                if (fd < 0)
                        return fd;
                if (!keeper)
                        own = fd;

                r = access == O_WRONLY ? content_write(fd, data, size) : content_read(fd, buf, size);
                if (r != -ENODEV || !keeper)
                        return r;
                kept_drop(keeper);
                if (again)
                        return r;
        }
}

static ssize_t real_read(Sysfs *sysfs, const char *path, char *buf, size_t size) {
        return real_access(sysfs, path, O_RDONLY, buf, NULL, size);
}

static bool aio_begin(SysfsReal *s) {
        if (!s->aio && !s->no_aio)
                s->no_aio = syscall(SYS_io_setup, AT_ONCE, &s->aio) < 0;
        return !s->no_aio;
}

/* Reads by descriptors that are open. What could not be handed over has the result -EAGAIN. The kernel's sysfs does them one after the
 * other before it returns; of a file system that waits for somebody else's answers, none waits for the one before it. */
static void aio_read(SysfsReal *s, struct iocb *cbs, SysfsRead *const *reads, size_t n) {
        struct iocb *list[AT_ONCE];
        struct io_event events[AT_ONCE];
        long submitted, done = 0;

        for (size_t i = 0; i < n; i++) {
                list[i] = &cbs[i];
                reads[i]->result = -EAGAIN;
        }
        submitted = syscall(SYS_io_submit, s->aio, (long) n, list);
        while (done < submitted) {
                long k = syscall(SYS_io_getevents, s->aio, submitted - done, submitted - done, events, NULL);

                if (k < 0 && errno != EINTR) /* cannot be: they would go on into memory that is not theirs */
                        abort();
                for (long i = 0; i < k; i++) {
                        SysfsRead *read = reads[events[i].data];

                        read->result = content_end((ssize_t) events[i].res, read->buf, read->size);
                }
                done += MAX(k, 0);
        }
}

/* Those with a kept descriptor at once, then the others, and those whose descriptor is of what has gone. */
static void real_read_many(Sysfs *sysfs, SysfsRead *reads, size_t n) {
        SysfsReal *s = REAL(sysfs);

        for (size_t at = 0; at < n;) {
                struct iocb cbs[AT_ONCE] = {};
                SysfsRead *together[AT_ONCE];
                size_t first = at, k = 0;

                for (; at < n && k < AT_ONCE; at++) {
                        const Kept *kept = kept_slot(s, reads[at].path);

                        reads[at].result = -EAGAIN;
                        if (!kept->path || strcmp(kept->path, reads[at].path) != 0 ||
                            kept->flags == O_WRONLY)
                                continue;
                        cbs[k] = (struct iocb) { .aio_data = k,
                                                 .aio_lio_opcode = IOCB_CMD_PREAD,
                                                 .aio_fildes = (uint32_t) kept->fd,
                                                 .aio_buf = (uintptr_t) reads[at].buf,
                                                 .aio_nbytes = reads[at].size };
                        together[k++] = &reads[at];
                }
                if (k > 1 && aio_begin(s))
                        aio_read(s, cbs, together, k);

                for (size_t i = first; i < at; i++)
                        if (reads[i].result == -EAGAIN || reads[i].result == -ENODEV)
                                reads[i].result =
                                        real_read(sysfs, reads[i].path, reads[i].buf, reads[i].size);
        }
}

/* The descriptor that is kept of an mdev that goes: when the same one is made again it would be found out by an access in vain. */
static void kept_forget_mdev(SysfsReal *s, const char *remove_path) {
        const char *name = strrchr(remove_path, '/');
        char path[KEPT_PATH_SIZE];
        Kept *k;

        if (!name || strcmp(name, "/remove") != 0 ||
            (size_t) snprintf(path, sizeof path, "%.*s/ap_config", (int) (name - remove_path),
                              remove_path) >= sizeof path)
                return;
        k = kept_slot(s, path);
        if (k->path && strcmp(k->path, path) == 0)
                kept_drop(k);
}

static int real_write(Sysfs *sysfs, const char *path, const char *data, size_t size) {
        int r = (int) real_access(sysfs, path, O_WRONLY, NULL, data, size);

        if (r >= 0)
                kept_forget_mdev(REAL(sysfs), path);
        return r;
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

static void real_take(Sysfs *sysfs, Sysfs *from, const char *path) {
        Kept *k = kept_slot(REAL(from), path), *to = kept_slot(REAL(sysfs), path);

        if (!k->path || strcmp(k->path, path) != 0)
                return;
        kept_drop(to);
        *to = *k;
        k->path = NULL;
}

static void real_free(Sysfs *sysfs) {
        SysfsReal *s = REAL(sysfs);

        for (size_t i = 0; s->kept && i < KEPT_SLOTS; i++)
                kept_drop(&s->kept[i]);
        kept_drop(&s->above);
        if (s->aio)
                (void) syscall(SYS_io_destroy, s->aio);
        free(s->kept);
        (void) fd_close(s->dir_fd);
        free(s);
}

static const SysfsOps real_ops = {
        .read = real_read,
        .read_many = real_read_many,
        .write = real_write,
        .readlink = real_readlink,
        .list = real_list,
        .exists = real_exists,
        .take = real_take,
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

void sysfs_read_many(Sysfs *s, SysfsRead *reads, size_t n) {
        if (s->ops->read_many) {
                s->ops->read_many(s, reads, n);
                return;
        }
        for (size_t i = 0; i < n; i++)
                reads[i].result = s->ops->read(s, reads[i].path, reads[i].buf, reads[i].size);
}

Sysfs *sysfs_free(Sysfs *s) {
        if (s)
                s->ops->free(s);
        return NULL;
}
