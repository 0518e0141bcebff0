/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* file - whole files below a directory descriptor, never through a symbolic link. All calls block. */

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>

/* Reads a regular file into a new NUL-terminated buffer (free()). -EFBIG above @max bytes, -EBADMSG if it
 * is no regular file, -EAGAIN if it grew meanwhile, -ELOOP for a symbolic link. @ret_size may be NULL. */
int file_read_at(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size);

/* Writes all of @data. 0 or -errno. */
int file_write_all(int fd, const char *data, size_t size);
/* The same at @offset, wherever the descriptor stands. */
int file_write_all_at(int fd, const char *data, size_t size, off_t offset);

/* Creates or truncates @name with mode 0600, writes and fsyncs it. 0 means: its bytes are on stable
 * storage (its name not yet). */
int file_write_synced(int dir_fd, const char *name, const char *data, size_t size);

/* Replaces @name as a whole: after a crash readers see the old or the new bytes, never a mixture. 0
 * means: on stable storage. The temporary file ".NAME.new" may be left by a crash. */
int file_replace(int dir_fd, const char *name, const char *data, size_t size);

/* Opens directory @path below @dir_fd, making it and its parents (0755) where missing. A descriptor or
 * -errno. */
int file_open_dir(int dir_fd, const char *path);

/* For calls that return -1 and set errno. */
static inline int ret_errno(int r) {
        return r < 0 ? -errno : r;
}
