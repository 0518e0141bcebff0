/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vtpm/vtpm_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

int vtpm_dir_make(int dir_fd, const char *name, mode_t mode) {
        int fd;

        if (mkdirat(dir_fd, name, 0700) < 0)
                return -errno;
        fd = openat(dir_fd, name, DIRECTORY);
        if (fd < 0)
                return -errno;
        if (fchmod(fd, mode) < 0) { /* whatever our umask */
                int r = -errno;

                fd_close(fd);
                return r;
        }
        return fd;
}

int vtpm_dir_open(int dir_fd, const char *name, mode_t mode) {
        int fd;

        fd = openat(dir_fd, name, DIRECTORY);
        if (fd >= 0 || errno != ENOENT)
                return ret_errno(fd);
        fd = vtpm_dir_make(dir_fd, name, mode);
        return fd == -EEXIST ? ret_errno(openat(dir_fd, name, DIRECTORY)) : fd;
}

static DIR *open_entries(int fd) {
        int copy = openat(fd, ".", DIRECTORY);
        DIR *d = copy >= 0 ? fdopendir(copy) : NULL;

        if (!d)
                fd_close(copy);
        return d;
}

static bool is_entry(const struct dirent *e) {
        return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

static int remove_content(int fd) {
        CLEANUP(closedirp) DIR *d = open_entries(fd);
        int r;

        if (!d)
                return -errno;
        for (struct dirent *e; errno = 0, (e = readdir(d));)
                if (is_entry(e)) {
                        r = vtpm_tree_remove(fd, e->d_name);
                        if (r < 0)
                                return r;
                }
        return -errno;
}

int vtpm_tree_remove(int dir_fd, const char *name) {
        CLEANUP(fd_closep) int fd = -1;
        int r;

        if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return -errno;

        fd = openat(dir_fd, name, DIRECTORY);
        if (fd < 0)
                return -errno;
        r = remove_content(fd);
        return r < 0 ? r : ret_errno(unlinkat(dir_fd, name, AT_REMOVEDIR));
}

static int give_file(int dir_fd, const char *name, uid_t uid) {
        CLEANUP(fd_closep) int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EBADMSG;
        if (fchmod(fd, 0600) < 0 || fchown(fd, uid, uid) < 0 || fsync(fd) < 0)
                return -errno;
        return 0;
}

int vtpm_tree_give(int fd, uid_t uid) {
        CLEANUP(closedirp) DIR *d = open_entries(fd);
        int r;

        if (!d)
                return -errno;
        for (struct dirent *e; errno = 0, (e = readdir(d));)
                if (is_entry(e)) {
                        r = give_file(fd, e->d_name, uid);
                        if (r < 0)
                                return r;
                }
        if (errno > 0 || fchmod(fd, 0700) < 0 || fchown(fd, uid, uid) < 0 || fsync(fd) < 0)
                return -errno;
        return 0;
}

static int lock(int dir_fd, const char *name, int flags) {
        CLEANUP(fd_closep) int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);

        if (fd < 0)
                return -errno;
        if (flock(fd, LOCK_EX | flags) < 0)
                return errno == EWOULDBLOCK ? -EBUSY : -errno;
        return TAKE_FD(fd);
}

int vtpm_lock(int tpm_fd, const char *name) {
        return lock(tpm_fd, name, LOCK_NB);
}

int vtpm_lock_wait(int tpm_fd, const char *name) {
        return lock(tpm_fd, name, 0);
}
