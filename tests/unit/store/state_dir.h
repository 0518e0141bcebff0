/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* state_dir - a state directory of its own for each test, and short ways to say what is in it. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "store/store_internal.h"

typedef struct StateDir {
        char path[64];
        int fd;
} StateDir;

static inline int state_dir_setup(void **state) {
        StateDir *d = calloc(1, sizeof *d);

        snprintf(d->path, sizeof d->path, "%s/guestcrypt-store-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (!mkdtemp(d->path))
                return -1;
        d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *state = d;
        return d->fd < 0 ? -1 : 0;
}

static inline int state_dir_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static inline int state_dir_teardown(void **state) {
        StateDir *d = *state;

        fd_close(d->fd);
        if (nftw(d->path, state_dir_remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0)
                return -1;
        free(d);
        return 0;
}

static inline Uuid uuid_of(unsigned n) {
        return (Uuid) { { 0xc4, 0xa2, 0, 0, 0, 0, 0x4f, 0, 0x80, 0, 0, 0, (uint8_t) (n >> 24),
                          (uint8_t) (n >> 16), (uint8_t) (n >> 8), (uint8_t) n } };
}

/* A definition that differs by @n, and by @version from itself earlier. */
static inline Record record_of(unsigned n, unsigned version) {
        Record r = { .uuid = uuid_of(n), .autostart = version & 1 };

        if (asprintf(&r.name, "matrix-%u", n) < 0)
                abort();
        ap_mask_set(&r.matrix.adapters, (uint8_t) n);
        ap_mask_set(&r.matrix.domains, (uint8_t) version);
        ap_mask_set(&r.matrix.domains, (uint8_t) (version >> 8));
        return r;
}

static inline StoreEntry put_of(unsigned n, unsigned version, uint64_t op) {
        return (StoreEntry) { .type = STORE_PUT, .op = op, .record = record_of(n, version) };
}

static inline StoreEntry delete_of(unsigned n, uint64_t op) {
        return (StoreEntry) { .type = STORE_DELETE, .op = op, .uuid = uuid_of(n) };
}

static inline StoreEntry intent_of(uint64_t op, const char *text) {
        return (StoreEntry) { .type = STORE_INTENT, .op = op, .text = strdup(text) };
}

static inline int commit_one(Store *s, StoreEntry e) {
        int r = store_commit(s, &e, 1);

        store_entry_clear(&e);
        return r;
}

static inline void write_file(int fd, const char *name, const char *text) {
        assert_int_equal(file_write_synced(fd, name, text, strlen(text)), 0);
}

static inline void store_freep_test(Store **s) {
        *s = store_free(*s);
}
