/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "store/store_internal.h"

#define SET_ASIDE_MAX 10000 /* of one name */

/* File names can hold anything; what is reported is printable ASCII. */
static void make_printable(char *s) {
        for (; *s; s++)
                if (*s < 0x20 || *s > 0x7e)
                        *s = '?';
}

int store_add_bad(StoreContent *c, const char *dir, const char *name, const char *format, ...) {
        CLEANUP(freep) char *file = NULL, *reason = NULL;
        StoreBad *bad;
        va_list ap;
        int n;

        if (asprintf(&file, "%s%s%s", dir ?: "", dir ? "/" : "", name) < 0) {
                file = NULL;
                return -ENOMEM;
        }
        va_start(ap, format);
        n = vasprintf(&reason, format, ap);
        va_end(ap);
        if (n < 0) {
                reason = NULL;
                return -ENOMEM;
        }
        make_printable(file);
        make_printable(reason);

        bad = reallocarray(c->bad, c->n_bad + 1, sizeof *bad);
        if (!bad)
                return -ENOMEM;
        c->bad = bad;
        c->bad[c->n_bad++] = (StoreBad) { .file = TAKE(file), .reason = TAKE(reason) };
        return 0;
}

int store_note_aside(StoreContent *c, const char *to) {
        StoreBad *bad = &c->bad[c->n_bad - 1];

        if (!to[0])
                return 0;
        bad->aside = strdup(to);
        return bad->aside ? 0 : -ENOMEM;
}

static bool is_noted(const StoreContent *c, const char *name) {
        for (size_t i = 0; i < c->n_bad; i++)
                if (c->bad[i].aside && strcmp(c->bad[i].aside, name) == 0)
                        return true;
        return false;
}

int store_load_aside(const Store *s, StoreContent *c) {
        CLEANUP(fd_closep)
        int fd = openat(s->dir_fd, STORE_SET_ASIDE, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        CLEANUP(closedirp) DIR *dir = NULL;

        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        dir = fdopendir(fd);
        if (!dir)
                return -errno;
        TAKE_FD(fd);

        for (struct dirent *e; errno = 0, (e = readdir(dir));) {
                int r;

                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || is_noted(c, e->d_name))
                        continue;
                r = store_add_bad(
                        c, STORE_SET_ASIDE, e->d_name,
                        "before this start of guestcryptd; correct it and put it back, or remove it");
                if (r < 0)
                        return r;
                c->bad[c->n_bad - 1].earlier = true;
                r = store_note_aside(c, e->d_name);
                if (r < 0)
                        return r;
        }
        return -errno;
}

bool store_forget_aside(const Store *s, StoreContent *c) {
        CLEANUP(fd_closep) int fd = openat(s->dir_fd, STORE_SET_ASIDE, O_PATH | O_DIRECTORY | O_CLOEXEC);
        size_t n = 0, before = c->n_bad;

        if (fd < 0 && errno != ENOENT)
                return false;
        for (size_t i = 0; i < before; i++) {
                StoreBad *bad = &c->bad[i];

                if (bad->aside && (fd < 0 || (faccessat(fd, bad->aside, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
                                              errno == ENOENT)))
                        store_bad_clear(bad);
                else
                        c->bad[n++] = *bad;
        }
        c->n_bad = n;
        return n < before;
}

/* Calls @place with names that may be free in set-aside/ until it does not say -EEXIST. *ret_to: the one that was. */
static int with_free_name(Store *s, const char *name,
                          int (*place)(int to_fd, const char *to, void *userdata), void *userdata,
                          char ret_to[static NAME_MAX + 1]) {
        CLEANUP(fd_closep) int fd = -1;

        fd = file_open_dir(s->dir_fd, STORE_SET_ASIDE);
        if (fd < 0)
                return fd;

        for (unsigned i = 0; i < SET_ASIDE_MAX; i++) {
                char to[NAME_MAX + 1];
                int r;

                if (i == 0)
                        snprintf(to, sizeof to, "%s", name);
                else
                        snprintf(to, sizeof to, "%.*s.%u", NAME_MAX - 8, name, i);
                r = place(fd, to, userdata);
                if (r >= 0) {
                        (void) fsync(fd);
                        strcpy(ret_to, to);
                }
                if (r != -EEXIST)
                        return r;
        }

        return -EEXIST;
}

typedef struct Move {
        int dir_fd;
        const char *name;
} Move;

static int place_move(int to_fd, const char *to, void *userdata) {
        Move *m = userdata;

        return ret_errno(renameat2(m->dir_fd, m->name, to_fd, to, RENAME_NOREPLACE));
}

int store_set_aside(Store *s, int dir_fd, const char *name, char ret_to[static NAME_MAX + 1]) {
        Move m = { dir_fd, name };

        return with_free_name(s, name, place_move, &m, ret_to);
}

typedef struct Copy {
        const char *data;
        size_t size;
} Copy;

static int place_copy(int to_fd, const char *to, void *userdata) {
        Copy *c = userdata;
        CLEANUP(fd_closep) int fd = -1;
        int r;

        fd = openat(to_fd, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        r = file_write_all(fd, c->data, c->size);
        if (r >= 0)
                r = ret_errno(fsync(fd));
        if (r < 0)
                (void) unlinkat(to_fd, to, 0);
        return r;
}

/* Reports @name and moves it away. It may stay where it is if the directory cannot be written. */
static int refuse(Store *s, StoreContent *c, int dir_fd, const char *dir, const char *name,
                  const char *reason) {
        char to[NAME_MAX + 1] = "";
        int r;

        if (s->error == 0)
                (void) store_set_aside(s, dir_fd, name, to);

        r = store_add_bad(c, dir, name, "%s", reason);
        return r < 0 ? r : store_note_aside(c, to);
}

/* Whether an error says nothing about the file but all about us. */
static bool is_ours(int r) {
        return r == -ENOMEM || r == -EMFILE || r == -ENFILE;
}

static const char *read_error(int r) {
        switch (r) {
        case -ELOOP:
                return "is a symbolic link";
        case -EBADMSG:
                return "is no regular file";
        case -EFBIG:
                return "is too large";
        default:
                return strerrordesc_np(-r);
        }
}

int store_load_masks(Store *s, StoreContent *c) {
        CLEANUP(freep) char *text = NULL;
        char ap[AP_MASK_STRING_SIZE], aq[AP_MASK_STRING_SIZE], rest;
        ApMask apmask, aqmask;
        int r;

        r = file_read_at(s->dir_fd, STORE_MASKS_FILE, 4096, &text, NULL);
        if (r == -ENOENT)
                return 0;
        if (is_ours(r))
                return r;
        if (r < 0)
                return refuse(s, c, s->dir_fd, NULL, STORE_MASKS_FILE, read_error(r));

        static_assert(AP_MASK_STRING_SIZE == 67, "as in the format below");
        if (sscanf(text, "apmask %66s aqmask %66s %c", ap, aq, &rest) != 2 || strlen(ap) != sizeof ap - 1 ||
            strlen(aq) != sizeof aq - 1 || ap_mask_parse(ap, &apmask) < 0 || ap_mask_parse(aq, &aqmask) < 0)
                return refuse(s, c, s->dir_fd, NULL, STORE_MASKS_FILE, "does not hold two masks");

        s->keep_masks = true;
        s->apmask = apmask;
        s->aqmask = aqmask;
        return 0;
}

/* Whether @text is what matrices/ may hold for @uuid; else -EBADMSG and @reterr_text (free()). */
static int read_record(const char *text, size_t size, Uuid uuid, Record *ret, char **reterr_text) {
        CLEANUP(record_clear) Record record = {};
        const char *problem = NULL;
        int r;

        r = record_from_xml(text, size, &record, reterr_text);
        if (r < 0)
                return r;

        if (uuid_is_null(record.uuid))
                problem = "has no UUID";
        else if (!uuid_equal(record.uuid, uuid))
                problem = "holds another UUID than its name";
        else if (!record.name)
                problem = "has no name";
        if (problem) {
                *reterr_text = strdup(problem);
                return *reterr_text ? -EBADMSG : -ENOMEM;
        }

        *ret = record;
        record = (Record) {};
        return 0;
}

static int replay(void *userdata, JournalItem *items, size_t n) {
        Store *s = userdata;
        int r;

        for (size_t i = 0; i < n; i++) {
                CLEANUP(record_clear) Record record = {};
                CLEANUP(freep) char *error = NULL;

                if (items[i].type != STORE_PUT)
                        continue;
                r = read_record(items[i].text, strlen(items[i].text), items[i].uuid, &record, &error);
                if (r < 0)
                        return r;
        }

        r = store_reserve(s, n);
        if (r < 0)
                return r;

        store_apply(s, items, n);
        return 0;
}

static bool is_zeros(const char *data, size_t size) {
        return size == 0 || (data[0] == '\0' && memcmp(data, data + 1, size - 1) == 0);
}

/* Opens the journal to go on after its last valid batch. What was replayed is made durable: it may come from
 * a daemon that was killed before its fdatasync. */
static int continue_journal(Store *s, const JournalDamage *damage, const char *data, size_t size) {
        CLEANUP(fd_closep) int fd = -1;

        fd = openat(s->dir_fd, STORE_JOURNAL, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        if (!is_zeros(data + damage->end, size - damage->end)) {
                size = damage->end;
                if (ftruncate(fd, (off_t) size) < 0)
                        return -errno;
        }
        if (fdatasync(fd) < 0)
                return -EIO;

        s->journal_fd = TAKE_FD(fd);
        s->journal_size = damage->end;
        s->journal_ahead = size;
        return 0;
}

int store_load_journal(Store *s, StoreContent *c) {
        CLEANUP(freep) char *data = NULL;
        JournalDamage damage;
        size_t size;
        int r;

        r = file_read_at(s->dir_fd, STORE_JOURNAL, SIZE_MAX / 4, &data, &size);
        if (r == -ENOENT)
                return 0;
        if (is_ours(r))
                return r;
        if (r < 0)
                return refuse(s, c, s->dir_fd, NULL, STORE_JOURNAL, read_error(r));

        r = journal_parse(data, size, replay, s, &damage);
        if (r < 0)
                return r;

        if (damage.header || damage.n_lines > 0) {
                Copy copy = { data, size };
                char to[NAME_MAX + 1] = "";

                if (damage.header)
                        r = store_add_bad(c, NULL, STORE_JOURNAL,
                                          "line 1: does not begin as a journal of this version");
                else
                        r = store_add_bad(c, NULL, STORE_JOURNAL, "line %zu: %zu lines cannot be used",
                                          damage.line, damage.n_lines);
                if (r < 0)
                        return r;
                if (s->error == 0)
                        s->error = with_free_name(s, STORE_JOURNAL, place_copy, &copy, to);
                r = store_note_aside(c, to);
                if (r < 0)
                        return r;
                s->dirty = true;
        }
        if (s->error == 0 && damage.end > 0)
                s->error = continue_journal(s, &damage, data, size);

        return 0;
}

typedef struct Loader {
        Record *records;
        size_t n, allocated;
} Loader;

static void loader_clear(Loader *l) {
        for (size_t i = 0; i < l->n; i++)
                record_clear(&l->records[i]);
        free(l->records);
}

/* Takes @r. */
static int loader_add(Loader *l, Record *r) {
        if (l->n == l->allocated) {
                size_t more = l->allocated ? l->allocated * 2 : 64;
                Record *p = reallocarray(l->records, more, sizeof *p);

                if (!p)
                        return -ENOMEM;
                l->records = p;
                l->allocated = more;
        }

        l->records[l->n++] = *r;
        *r = (Record) {};
        return 0;
}

/* "UUID.xml" in lower case, and nothing else. */
static bool parse_file_name(const char *name, Uuid *ret) {
        char uuid[UUID_STRING_SIZE], canonical[STORE_FILE_SIZE];

        if (strlen(name) != STORE_FILE_SIZE - 1)
                return false;
        memcpy(uuid, name, sizeof uuid - 1);
        uuid[sizeof uuid - 1] = '\0';

        return uuid_parse(uuid, ret) >= 0 && strcmp(store_file_name(*ret, canonical), name) == 0;
}

/* ".UUID.xml.new": left by a crash in mid-write. */
static bool is_temporary(const char *name) {
        char file[STORE_FILE_SIZE];
        Uuid uuid;

        if (strlen(name) != STORE_FILE_SIZE - 1 + 5 || name[0] != '.' ||
            strcmp(name + STORE_FILE_SIZE, ".new") != 0)
                return false;
        memcpy(file, name + 1, sizeof file - 1);
        file[sizeof file - 1] = '\0';
        return parse_file_name(file, &uuid);
}

static int load_file(Store *s, StoreContent *c, Loader *l, const char *name) {
        CLEANUP(record_clear) Record record = {};
        CLEANUP(freep) char *text = NULL, *error = NULL;
        struct stat st;
        size_t size;
        Uuid uuid;
        int r;

        if (is_temporary(name)) {
                if (fstatat(s->matrices_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)) {
                        if (s->error == 0)
                                (void) unlinkat(s->matrices_fd, name, 0);
                        return 0;
                }
                return refuse(s, c, s->matrices_fd, STORE_MATRICES, name, "is in the way of a definition");
        }
        if (!parse_file_name(name, &uuid))
                return refuse(s, c, s->matrices_fd, STORE_MATRICES, name, "is not named as a definition");

        if (store_find_pending(s, uuid)) {
                /* the journal knows better, and its checkpoint will put a regular file here */
                if (fstatat(s->matrices_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISREG(st.st_mode))
                        return 0;
                return refuse(s, c, s->matrices_fd, STORE_MATRICES, name, "is no regular file");
        }

        r = file_read_at(s->matrices_fd, name, RECORD_XML_MAX, &text, &size);
        if (r == -ENOENT)
                return 0;
        if (is_ours(r))
                return r;
        if (r < 0)
                return refuse(s, c, s->matrices_fd, STORE_MATRICES, name, read_error(r));

        r = read_record(text, size, uuid, &record, &error);
        if (r == -EBADMSG)
                return refuse(s, c, s->matrices_fd, STORE_MATRICES, name, error);
        if (r < 0)
                return r;

        return loader_add(l, &record);
}

static int load_pending(Store *s, Loader *l) {
        for (size_t i = 0; i < s->n_pending; i++) {
                CLEANUP(record_clear) Record record = {};
                const Pending *p = &s->pending[i];
                int r;

                if (!p->text)
                        continue;
                r = record_from_xml(p->text, strlen(p->text), &record, NULL);
                if (r < 0)
                        return r;
                r = loader_add(l, &record);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int compare_uuid(const void *a, const void *b) {
        return uuid_compare(((const Record *) a)->uuid, ((const Record *) b)->uuid);
}

/* Equal names in the order of their right to it, which is that of their UUIDs: it must not depend on what happens
 * to be in the journal. */
static int compare_name(const void *a, const void *b) {
        const Record *x = a, *y = b;

        return strcmp(x->name, y->name) ?: uuid_compare(x->uuid, y->uuid);
}

/* Whether @name would be taken for another matrix than that of @uuid. */
static bool is_other_uuid(const char *name, Uuid uuid) {
        Uuid other;

        return uuid_parse(name, &other) >= 0 && !uuid_equal(other, uuid);
}

/* Gives @record its UUID as name, which nobody else can have. Its file stays as it is: it is corrected by a person,
 * or right again when who has the name is gone. @first: who that is; NULL: the name is another's UUID. */
static int name_by_uuid(StoreContent *c, Record *record, const Record *first) {
        char file[STORE_FILE_SIZE], uuid[UUID_STRING_SIZE], other[UUID_STRING_SIZE];
        CLEANUP(freep) char *name = strdup(uuid_format(record->uuid, uuid));
        int r;

        if (!name)
                return -ENOMEM;

        (void) store_file_name(record->uuid, file);
        if (first)
                r = store_add_bad(c, STORE_MATRICES, file, "has the name '%s', as %s has", record->name,
                                  uuid_format(first->uuid, other));
        else
                r = store_add_bad(c, STORE_MATRICES, file, "has the name '%s', which is another's UUID",
                                  record->name);
        if (r < 0)
                return r;

        c->bad[c->n_bad - 1].kept = true;
        free(record->name);
        record->name = TAKE(name);
        return 0;
}

/* Each name for one matrix: the rest is known by UUID. */
static int resolve_names(StoreContent *c, Loader *l) {
        const Record *first = NULL; /* who has the name that is looked at */
        int r;

        if (l->n > 0)
                qsort(l->records, l->n, sizeof *l->records, compare_name);

        for (size_t i = 0; i < l->n; i++) {
                Record *record = &l->records[i];

                if (is_other_uuid(record->name, record->uuid))
                        r = name_by_uuid(c, record, NULL);
                else if (first && strcmp(first->name, record->name) == 0)
                        r = name_by_uuid(c, record, first);
                else {
                        first = record;
                        continue;
                }
                if (r < 0)
                        return r;
        }

        return 0;
}

int store_load_matrices(Store *s, StoreContent *c) {
        CLEANUP(loader_clear) Loader l = {};
        CLEANUP(closedirp) DIR *dir = NULL;
        int fd, r;

        if (s->matrices_fd >= 0) {
                fd = openat(s->matrices_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0)
                        return -errno;
                dir = fdopendir(fd);
                if (!dir) {
                        fd_close(fd);
                        return -ENOMEM;
                }
        }

        while (dir) {
                const struct dirent *entry;

                errno = 0;
                entry = readdir(dir);
                if (!entry && errno != 0)
                        return -errno;
                if (!entry)
                        break;
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                r = load_file(s, c, &l, entry->d_name);
                if (r < 0)
                        return r;
        }

        r = load_pending(s, &l);
        if (r < 0)
                return r;
        r = resolve_names(c, &l);
        if (r < 0)
                return r;

        if (l.n > 0)
                qsort(l.records, l.n, sizeof *l.records, compare_uuid);
        c->records = TAKE(l.records);
        c->n_records = l.n;
        l.n = 0;
        return 0;
}
