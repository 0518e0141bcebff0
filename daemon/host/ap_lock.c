/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/ap_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "host/host_paths.h"

#define EMPTY_STALE_S 120 /* a lock without a pid is stale after this; s390-tools' figure */
#define RETRIES       8   /* stale locks and lost races in one attempt */

/* Reads the pid in @name; 0 if there is none (yet). */
static int lock_read(int dir_fd, const char *name, pid_t *ret_pid, time_t *ret_mtime) {
        CLEANUP(fd_closep)
        int fd = -1;
        struct stat st;
        char buf[32];
        char *end;
        ssize_t n;
        long pid;

        fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EBADMSG;
        n = read(fd, buf, sizeof buf - 1);
        if (n < 0)
                return -errno;

        buf[n] = '\0';
        pid = strtol(buf, &end, 10);
        *ret_pid = end == buf || pid <= 0 || pid > INT32_MAX ? 0 : (pid_t) pid;
        *ret_mtime = st.st_mtime;
        return 0;
}

static bool lock_is_stale(pid_t pid, pid_t owner, time_t mtime) {
        if (pid == 0)
                return time(NULL) - mtime > EMPTY_STALE_S;
        if (pid == owner) /* of a dead process: we would not try if it were ours */
                return true;

        return kill(pid, 0) < 0 && errno == ESRCH;
}

/* Two waiters may find the same lock stale, and the slower must not remove what the faster has put in its
 * place: so it is moved aside, looked at again, and put back if it is another one. */
static int lock_break(int dir_fd, pid_t stale) {
        char aside[64];
        time_t mtime;
        pid_t pid;
        int r;

        (void) snprintf(aside, sizeof aside, HOST_PATH_LOCK ".stale%05d", (int) getpid());
        if (renameat(dir_fd, HOST_PATH_LOCK, dir_fd, aside) < 0)
                return errno == ENOENT ? 0 : -errno;

        r = lock_read(dir_fd, aside, &pid, &mtime);
        if (r >= 0 && pid != stale)
                r = ret_errno(linkat(dir_fd, aside, dir_fd, HOST_PATH_LOCK, 0));
        if (unlinkat(dir_fd, aside, 0) < 0)
                return -errno;

        return r == -EEXIST ? 0 : r;
}

int ap_lock_try(int dir_fd, pid_t owner, pid_t *ret_holder) {
        CLEANUP(fd_closep)
        int fd = -1;
        char temporary[64], content[16];
        pid_t holder = 0;
        int r, n;

        /* the name is s390-tools': their clean-up knows it */
        (void) snprintf(temporary, sizeof temporary, HOST_PATH_LOCK "%05d%02x", (int) getpid(),
                        (unsigned) time(NULL) & 0xff);
        (void) unlinkat(dir_fd, temporary, 0); /* of a dead process with our pid */
        fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
                return -errno;

        n = snprintf(content, sizeof content, "%d\n", (int) owner);
        r = file_write_all(fd, content, (size_t) n);
        if (r >= 0)
                r = -EEXIST;

        for (unsigned i = 0; r == -EEXIST && i < RETRIES; i++) {
                time_t mtime;

                r = ret_errno(linkat(dir_fd, temporary, dir_fd, HOST_PATH_LOCK, 0));
                if (r != -EEXIST)
                        break;

                r = lock_read(dir_fd, HOST_PATH_LOCK, &holder, &mtime);
                if (r >= 0) {
                        if (!lock_is_stale(holder, owner, mtime)) {
                                r = 1;
                                break;
                        }
                        r = lock_break(dir_fd, holder);
                }
                if (r >= 0 || r == -ENOENT)
                        r = -EEXIST; /* try again */
        }
        if (r == -EEXIST) /* others were always faster */
                r = 1;

        (void) unlinkat(dir_fd, temporary, 0);
        if (r == 1)
                *ret_holder = holder;
        return r;
}

int ap_lock_release(int dir_fd, pid_t pid) {
        time_t mtime;
        pid_t holder = 0;
        int r;

        r = lock_read(dir_fd, HOST_PATH_LOCK, &holder, &mtime);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return r;
        if (holder != pid)
                return 0;

        return ret_errno(unlinkat(dir_fd, HOST_PATH_LOCK, 0));
}
