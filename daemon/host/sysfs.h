/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sysfs - how host/ reaches /sys, so that the same code runs on the kernel's and on a simulated one.
 *
 * Paths are relative to /sys ("bus/ap/apmask"), symbolic links in them are followed. All calls block; on the
 * real sysfs some of them for ever, so only the disposable child makes them (host.h). Results are 0 or
 * more, or -errno exactly as the kernel gave it for open(2) or the access itself. */

#include <stddef.h>
#include <sys/types.h>

typedef struct Sysfs Sysfs;

/* From a simulated /sys only: this access would hang. The caller must behave as if the call had not
 * returned. */
#define SYSFS_NEVER (-100000)

typedef int (*sysfs_entry_t)(void *userdata,
                             const char *name); /* nonzero ends the listing and is returned */

/* One of many readings. */
typedef struct SysfsRead {
        const char *path;
        char *buf;
        size_t size;
        ssize_t result; /* as read() returns it */
} SysfsRead;

typedef struct SysfsOps {
        /* Reads a whole attribute into @buf, NUL-terminated. Returns its length; -EOVERFLOW if @size is too
         * small. */
        ssize_t (*read)(Sysfs *s, const char *path, char *buf, size_t size);
        /* May be NULL. The same for many, in no particular order; the kernel is asked for all at once where it can be. */
        void (*read_many)(Sysfs *s, SysfsRead *reads, size_t n);
        /* One write(2) of @size bytes. 0, or -errno; a short write is -EIO. */
        int (*write)(Sysfs *s, const char *path, const char *data, size_t size);
        /* Target text of a link, NUL-terminated. Returns its length. */
        ssize_t (*readlink)(Sysfs *s, const char *path, char *buf, size_t size);
        /* Calls @fn for each entry but "." and "..", in no particular order. */
        int (*list)(Sysfs *s, const char *path, sysfs_entry_t fn, void *userdata);
        /* 0 if there is something at @path, else -errno (-ENOENT). */
        int (*exists)(Sysfs *s, const char *path);
        /* May be NULL. Takes over what @from, of the same kind, keeps open of @path. */
        void (*take)(Sysfs *s, Sysfs *from, const char *path);
        void (*free)(Sysfs *s);
} SysfsOps;

struct Sysfs {
        const SysfsOps *ops;
};

/* The kernel's, below the directory @sys_fd (kept open, duplicated). 0 or -errno. */
int sysfs_real_new(int sys_fd, Sysfs **ret);

/* By read_many() where there is one. */
void sysfs_read_many(Sysfs *s, SysfsRead *reads, size_t n);

/* Accepts NULL; returns NULL. */
Sysfs *sysfs_free(Sysfs *s);

static inline void sysfs_freep(Sysfs **s) {
        (void) sysfs_free(*s);
}
