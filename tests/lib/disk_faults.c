/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static struct {
        const char *root; /* NULL: all is well */
        unsigned calls, at;
        int error; /* 0: hang */
        bool forever, hanging;
        pthread_t owner;
} disk;

static void begin(const char *root, unsigned at, int error, bool forever) {
        (void) pthread_mutex_lock(&lock);
        disk.root = root;
        disk.calls = 0;
        disk.at = at;
        disk.error = error;
        disk.forever = forever;
        disk.owner = pthread_self();
        (void) pthread_mutex_unlock(&lock);
}

void disk_fail(const char *root, unsigned at, int error, bool forever) {
        begin(root, at, error, forever);
}

void disk_hang(const char *root, unsigned at) {
        begin(root, at, 0, false);
}

bool disk_hangs(void) {
        bool hanging;

        (void) pthread_mutex_lock(&lock);
        hanging = disk.hanging;
        (void) pthread_mutex_unlock(&lock);
        return hanging;
}

unsigned disk_release(void) {
        unsigned calls;

        (void) pthread_mutex_lock(&lock);
        disk.root = NULL;
        calls = disk.calls;
        (void) pthread_cond_broadcast(&released);
        (void) pthread_mutex_unlock(&lock);
        return calls;
}

/* Whether @fd is a file or directory below the root; under the lock. */
static bool is_below(int fd) {
        char link[32], path[512];
        size_t size = strlen(disk.root);
        ssize_t n;

        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        n = readlink(link, path, sizeof path - 1);
        if (n < 0 || (size_t) n < size)
                return false;
        path[n] = '\0';
        return strncmp(path, disk.root, size) == 0;
}

/* Whether a call about @fd is to fail; errno says how. It may hang before it goes on. */
static bool strikes(int fd) {
        int saved = errno, error = 0;

        (void) pthread_mutex_lock(&lock);
        if (disk.root && is_below(fd) && (disk.error || !pthread_equal(disk.owner, pthread_self()))) {
                disk.calls++;
                if (disk.at > 0 && (disk.calls == disk.at || (disk.forever && disk.calls > disk.at))) {
                        error = disk.error;
                        disk.hanging = !error;
                        while (disk.hanging && disk.root)
                                (void) pthread_cond_wait(&released, &lock);
                        disk.hanging = false;
                }
        }
        (void) pthread_mutex_unlock(&lock);
        errno = error ?: saved;
        return error != 0;
}

#define WRAP(name, parameters, arguments) \
        int __real_##name parameters; \
        int __wrap_##name parameters; \
        int __wrap_##name parameters { \
                return strikes(fd) ? -1 : __real_##name arguments; \
        }

WRAP(fsync, (int fd), (fd))
WRAP(fdatasync, (int fd), (fd))
WRAP(ftruncate64, (int fd, off_t size), (fd, size))
WRAP(mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode))
WRAP(unlinkat, (int fd, const char *name, int flags), (fd, name, flags))
WRAP(renameat, (int fd, const char *from, int to_fd, const char *to), (fd, from, to_fd, to))
WRAP(renameat2, (int fd, const char *from, int to_fd, const char *to, unsigned flags),
     (fd, from, to_fd, to, flags))
WRAP(linkat, (int fd, const char *from, int to_fd, const char *to, int flags), (fd, from, to_fd, to, flags))
WRAP(sync_file_range, (int fd, off_t from, off_t size, unsigned flags), (fd, from, size, flags))

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size) {
        return strikes(fd) ? -1 : __real_write(fd, data, size);
}

ssize_t __real_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset) {
        return strikes(fd) ? -1 : __real_pwrite64(fd, data, size, offset);
}

int __real_openat64(int fd, const char *name, int flags, ...);
int __wrap_openat64(int fd, const char *name, int flags, ...);
int __wrap_openat64(int fd, const char *name, int flags, ...) {
        mode_t mode = 0;
        va_list ap;

        if (flags & O_CREAT) {
                va_start(ap, flags);
                mode = va_arg(ap, mode_t);
                va_end(ap);
                if (strikes(fd))
                        return -1;
        }
        return __real_openat64(fd, name, flags, mode);
}

/* What was written is reported here at the latest by some file systems; the descriptor is gone all the same. */
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) {
        int flags = fcntl(fd, F_GETFL);
        bool fails = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && strikes(fd);
        int error = errno, r = __real_close(fd);

        if (!fails)
                return r;
        errno = error;
        return -1;
}
