/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/marks.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

#define MARK_SIZE_MAX 32
#define BOOTED        "booted"

static const char *const kind_names[] = {
        [MARK_NONE] = "",
        [MARK_PENDING] = "pending\n",
        [MARK_LIVE] = "live\n",
        [MARK_MDEV] = "mdev\n",
};
static_assert(ELEMENTS(kind_names) == _MARK_KIND_MAX, "every kind has a name");

/* Marks of one kind are links to one file, so that setting one is one system call. */
static const char *const patterns[] = {
        [MARK_PENDING] = ".pending", [MARK_LIVE] = ".live", [MARK_MDEV] = ".mdev"
};
static_assert(ELEMENTS(patterns) == _MARK_KIND_MAX, "every kind has a pattern");

/* Written beside and renamed, but not fsynced: the directory is in memory. */
static int mark_write(int dir_fd, const char *name, const char *text) {
        CLEANUP(fd_closep) int fd = -1;
        CLEANUP(freep) char *tmp = NULL;
        int r;

        if (asprintf(&tmp, ".%s.new", name) < 0)
                return -ENOMEM;

        (void) unlinkat(dir_fd, tmp, 0); /* of a process that was killed; may be a link to other marks */
        fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;

        r = file_write_all(fd, text, strlen(text));
        if (r >= 0)
                r = ret_errno(renameat(dir_fd, tmp, dir_fd, name));
        if (r < 0)
                (void) unlinkat(dir_fd, tmp, 0);
        return r;
}

static int mark_link(int dir_fd, const char *name, MarkKind kind) {
        CLEANUP(freep) char *tmp = NULL;
        int r;

        r = ret_errno(linkat(dir_fd, patterns[kind], dir_fd, name, 0));
        if (r != -EEXIST)
                return r;

        if (asprintf(&tmp, ".%s.new", name) < 0)
                return -ENOMEM;
        (void) unlinkat(dir_fd, tmp, 0); /* of a process that was killed */
        r = ret_errno(linkat(dir_fd, patterns[kind], dir_fd, tmp, 0));
        if (r >= 0)
                r = ret_errno(renameat(dir_fd, tmp, dir_fd, name));
        (void) unlinkat(dir_fd, tmp, 0); /* links to the same file are left as they are */
        return r;
}

int marks_set(int dir_fd, Uuid uuid, MarkKind kind) {
        char name[UUID_STRING_SIZE];

        uuid_format(uuid, name);
        if (kind != MARK_NONE) {
                int r = mark_link(dir_fd, name, kind);

                if (r == -ENOENT && mark_write(dir_fd, patterns[kind], kind_names[kind]) >= 0)
                        r = mark_link(dir_fd, name, kind);
                return r < 0 ? mark_write(dir_fd, name, kind_names[kind])
                             : 0; /* a file has only so many links */
        }

        if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
                return -errno;
        return 0;
}

static MarkKind mark_read(int dir_fd, const char *name) {
        CLEANUP(freep) char *text = NULL;

        if (file_read_at(dir_fd, name, MARK_SIZE_MAX, &text, NULL) < 0)
                return MARK_NONE;

        for (MarkKind k = MARK_NONE + 1; k < _MARK_KIND_MAX; k++)
                if (strcmp(text, kind_names[k]) == 0)
                        return k;
        return MARK_NONE;
}

int marks_read(int dir_fd, Mark **ret, size_t *ret_n) {
        CLEANUP(fd_closep) int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CLEANUP(closedirp) DIR *dir = NULL;
        CLEANUP(freep) Mark *marks = NULL;
        size_t n = 0, allocated = 0;

        if (fd < 0)
                return -errno;
        dir = fdopendir(fd);
        if (!dir)
                return -errno;
        TAKE_FD(fd);

        for (;;) {
                struct dirent *entry;
                Mark mark;

                errno = 0;
                entry = readdir(dir);
                if (!entry)
                        break;
                if (uuid_parse(entry->d_name, &mark.uuid) < 0)
                        continue;
                mark.kind = mark_read(dir_fd, entry->d_name);
                if (mark.kind == MARK_NONE)
                        continue;

                if (n == allocated) {
                        Mark *grown = reallocarray(marks, allocated * 2 + 16, sizeof *marks);

                        if (!grown)
                                return -ENOMEM;
                        marks = grown;
                        allocated = allocated * 2 + 16;
                }
                marks[n++] = mark;
        }
        if (errno != 0)
                return -errno;

        *ret = TAKE(marks);
        *ret_n = n;
        return 0;
}

int marks_is_booted(int dir_fd) {
        if (faccessat(dir_fd, BOOTED, F_OK, 0) == 0)
                return 1;
        return errno == ENOENT ? 0 : -errno;
}

int marks_set_booted(int dir_fd) {
        return mark_write(dir_fd, BOOTED, "");
}
