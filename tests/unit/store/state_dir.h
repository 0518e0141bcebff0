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

#define U(n) "c4a20000-0000-4f00-8000-0000000000" n

static inline Store *open_store(const StateDir *d, StoreContent *c) {
        bool writable = false;
        Store *s = NULL;

        assert_int_equal(store_open(d->fd, &s, c, &writable), 0);
        assert_true(writable);
        return s;
}

static inline bool exists(const StateDir *d, const char *path) {
        return faccessat(d->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static inline void put_good(const StateDir *d, unsigned n) {
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        assert_int_equal(commit_one(s, put_of(n, 1, 0)), 0);
        assert_int_equal(store_checkpoint(s), 0);
}

static inline const char *reason_of(const StoreContent *c, const char *file) {
        for (size_t i = 0; i < c->n_bad; i++)
                if (strcmp(c->bad[i].file, file) == 0)
                        return c->bad[i].reason;

        fail_msg("'%s' is not reported", file);
        return NULL;
}

static inline off_t size_of(const StateDir *d, const char *name) {
        struct stat st;

        assert_int_equal(fstatat(d->fd, name, &st, 0), 0);
        return st.st_size;
}

/* The journal's text; what is behind it has to be zeros. */
static inline char *journal_text(const StateDir *d) {
        char *text = NULL;
        size_t size;

        assert_int_equal(file_read_at(d->fd, "journal", SIZE_MAX / 4, &text, &size), 0);
        for (size_t i = strlen(text); i < size; i++)
                assert_int_equal(text[i], 0);
        return text;
}

static inline size_t journal_length(const StateDir *d) {
        CLEANUP(freep) char *text = journal_text(d);

        return strlen(text);
}

/* Puts @text behind the journal's first @lines lines; UINT_MAX: behind all. The file keeps its size if that is larger. */
static inline void insert_in_journal(const StateDir *d, unsigned lines, const char *text) {
        CLEANUP(fd_closep) int fd = openat(d->fd, "journal", O_WRONLY | O_CLOEXEC);
        CLEANUP(freep) char *before = journal_text(d), *after = NULL;
        char *at = before;

        for (unsigned i = 0; i < lines && *at; i++)
                at += strcspn(at, "\n") + 1;
        assert_true(asprintf(&after, "%.*s%s%s", (int) (at - before), before, text, at) > 0);
        assert_int_equal(file_write_all_at(fd, after, strlen(after), 0), 0);
}

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, state_dir_setup, state_dir_teardown)
