/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

int file_read_at(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size) {
        CLEANUP(fd_closep) int fd = -1;
        CLEANUP(freep) char *buf = NULL;
        size_t size = 0;
        struct stat st;

        /* O_NONBLOCK: a FIFO in our place must not hang us */
        fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EBADMSG;
        if (st.st_size > (off_t) max)
                return -EFBIG;

        buf = malloc((size_t) st.st_size + 2);
        if (!buf)
                return -ENOMEM;

        while (size <= (size_t) st.st_size) { /* one byte more than it had: it may have grown */
                ssize_t n = read(fd, buf + size, (size_t) st.st_size + 1 - size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                size += (size_t) n;
        }
        if (size > (size_t) st.st_size)
                return -EAGAIN;

        buf[size] = '\0';
        if (ret_size)
                *ret_size = size;
        *ret = TAKE(buf);
        return 0;
}

int file_write_all(int fd, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(fd, data, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                data += n;
                size -= (size_t) n;
        }

        return 0;
}

int file_write_all_at(int fd, const char *data, size_t size, off_t offset) {
        while (size > 0) {
                ssize_t n = pwrite(fd, data, size, offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                data += n;
                size -= (size_t) n;
                offset += n;
        }

        return 0;
}

int file_write_synced(int dir_fd, const char *name, const char *data, size_t size) {
        CLEANUP(fd_closep) int fd = -1;
        int r;

        fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;

        r = file_write_all(fd, data, size);
        if (r < 0)
                return r;
        if (fsync(fd) < 0)
                return -errno;

        return ret_errno(close(TAKE_FD(fd)));
}

int file_replace(int dir_fd, const char *name, const char *data, size_t size) {
        CLEANUP(freep) char *tmp = NULL;
        int r;

        if (asprintf(&tmp, ".%s.new", name) < 0)
                return -ENOMEM;

        r = file_write_synced(dir_fd, tmp, data, size);
        if (r >= 0)
                r = ret_errno(renameat(dir_fd, tmp, dir_fd, name));
        if (r < 0) {
                (void) unlinkat(dir_fd, tmp, 0);
                return r;
        }

        return ret_errno(fsync(dir_fd));
}

int file_open_dir(int dir_fd, const char *path) {
        CLEANUP(freep) char *copy = strdup(path);
        int fd;

        if (!copy)
                return -ENOMEM;

        for (char *p = copy; (p = strchr(p + 1, '/'));) {
                *p = '\0';
                if (mkdirat(dir_fd, copy, 0755) < 0 && errno != EEXIST)
                        return -errno;
                *p = '/';
        }
        if (mkdirat(dir_fd, copy, 0755) < 0 && errno != EEXIST)
                return -errno;

        fd = openat(dir_fd, copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return ret_errno(fd);
}
