/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "store/store_internal.h"

void store_entry_clear(StoreEntry *e) {
        record_clear(&e->record);
        free(e->text);
        *e = (StoreEntry) {};
}

void store_bad_clear(StoreBad *bad) {
        free(bad->file);
        free(bad->reason);
        free(bad->aside);
        *bad = (StoreBad) {};
}

void store_content_clear(StoreContent *c) {
        for (size_t i = 0; i < c->n_records; i++)
                record_clear(&c->records[i]);
        for (size_t i = 0; i < c->n_intents; i++)
                free(c->intents[i].text);
        for (size_t i = 0; i < c->n_bad; i++)
                store_bad_clear(&c->bad[i]);
        free(c->records);
        free(c->intents);
        free(c->bad);
        *c = (StoreContent) {};
}

static Late *late_free(Late *l) {
        Late *next = l->next;

        free(l->text);
        free(l);
        return next;
}

static void drop_pending(Store *s) {
        while (s->late)
                s->late = late_free(s->late);
        s->late_end = &s->late;
        for (size_t i = 0; i < s->n_pending; i++)
                free(s->pending[i].text);
        free(s->pending);
        s->pending = NULL;
        s->n_pending = s->pending_allocated = 0;
}

Store *store_free(Store *s) {
        if (!s)
                return NULL;

        drop_pending(s);
        for (size_t i = 0; i < s->n_intents; i++)
                free(s->intents[i].text);
        free(s->intents);
        fd_close(s->journal_fd);
        fd_close(s->matrices_fd);
        fd_close(s->lock_fd);
        fd_close(s->dir_fd);
        free(s);
        return NULL;
}

static void store_freep(Store **s) {
        (void) store_free(*s);
}

/* The state in memory */

static int grow(void **array, size_t *allocated, size_t wanted, size_t size) {
        size_t more = MAX(*allocated * 2, wanted);
        void *p;

        if (wanted <= *allocated)
                return 0;

        p = reallocarray(*array, more, size);
        if (!p)
                return -ENOMEM;

        *array = p;
        *allocated = more;
        return 0;
}

int store_reserve(Store *s, size_t n) {
        int r;

        r = grow((void **) &s->pending, &s->pending_allocated, s->n_pending + n, sizeof *s->pending);
        if (r < 0)
                return r;

        return grow((void **) &s->intents, &s->intents_allocated, s->n_intents + n, sizeof *s->intents);
}

/* Where @uuid is among the pending ones, or would be. */
static size_t pending_place(const Store *s, Uuid uuid) {
        size_t low = 0, high = s->n_pending;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (uuid_compare(s->pending[middle].uuid, uuid) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }

        return low;
}

Pending *store_find_pending(const Store *s, Uuid uuid) {
        size_t i = pending_place(s, uuid);

        return i < s->n_pending && uuid_equal(s->pending[i].uuid, uuid) ? &s->pending[i] : NULL;
}

static void set_pending(Store *s, Uuid uuid, char *text) {
        size_t i = pending_place(s, uuid);

        if (i == s->n_pending || !uuid_equal(s->pending[i].uuid, uuid)) {
                memmove(s->pending + i + 1, s->pending + i, (s->n_pending - i) * sizeof *s->pending);
                s->n_pending++;
        } else
                free(s->pending[i].text);

        s->pending[i] = (Pending) { .uuid = uuid, .text = text, .version = ++s->version };
}

static StoreIntent *find_intent(const Store *s, uint64_t op) {
        for (size_t i = 0; i < s->n_intents; i++)
                if (s->intents[i].op == op)
                        return &s->intents[i];

        return NULL;
}

static void end_intent(Store *s, uint64_t op) {
        StoreIntent *intent = op ? find_intent(s, op) : NULL;

        if (!intent)
                return;

        free(intent->text);
        memmove(intent, intent + 1, (size_t) (s->intents + s->n_intents - intent - 1) * sizeof *intent);
        s->n_intents--;
}

static void begin_intent(Store *s, uint64_t op, char *text) {
        StoreIntent *intent = find_intent(s, op);

        if (intent)
                free(intent->text);
        else
                intent = &s->intents[s->n_intents++];
        *intent = (StoreIntent) { .op = op, .text = text };
}

void store_apply(Store *s, JournalItem *items, size_t n) {
        s->dirty = items[0].type != JOURNAL_LAST;

        for (JournalItem *item = items; item < items + n; item++) {
                s->last_op = MAX(s->last_op, item->op);

                switch (item->type) {
                case STORE_INTENT:
                        begin_intent(s, item->op, TAKE(item->text));
                        continue;
                case STORE_PUT:
                        set_pending(s, item->uuid, TAKE(item->text));
                        break;
                case STORE_DELETE:
                        set_pending(s, item->uuid, NULL);
                        break;
                case STORE_MASKS:
                        s->masks_pending = true;
                        s->keep_masks = item->keep;
                        s->apmask = item->apmask;
                        s->aqmask = item->aqmask;
                        break;
                }
                if (item->type != JOURNAL_LAST)
                        end_intent(s, item->op);
        }
}

/* Files */

char *store_file_name(Uuid uuid, char buf[static STORE_FILE_SIZE]) {
        uuid_format(uuid, buf);
        strcpy(buf + UUID_STRING_SIZE - 1, ".xml");
        return buf;
}

static int replace_unsynced(int dir_fd, const char *name, const char *text) {
        CLEANUP(fd_closep) int fd = -1;
        char tmp[STORE_FILE_SIZE + 5];
        int r;

        snprintf(tmp, sizeof tmp, ".%s.new", name);
        fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;

        r = file_write_all(fd, text, strlen(text));
        if (r >= 0)
                r = ret_errno(close(TAKE_FD(fd)));
        if (r >= 0)
                r = ret_errno(renameat(dir_fd, tmp, dir_fd, name));
        if (r < 0)
                (void) unlinkat(dir_fd, tmp, 0);
        return r;
}

/* Makes a definition's file as @text has it, or removes it. Not durable. */
static int write_definition(Store *s, Uuid uuid, const char *text) {
        char name[STORE_FILE_SIZE], to[NAME_MAX + 1];
        int r;

        store_file_name(uuid, name);
        for (int tries = 0;; tries++) {
                if (text)
                        r = replace_unsynced(s->matrices_fd, name, text);
                else
                        r = ret_errno(unlinkat(s->matrices_fd, name, 0));
                if (r != -EISDIR || tries > 0)
                        break;
                /* somebody has put a directory in its place */
                r = store_set_aside(s, s->matrices_fd, name, to);
                if (r < 0)
                        return r;
        }

        return r == -ENOENT && !text ? 0 : r;
}

static int write_pending(Store *s, Pending *p) {
        int r;

        r = write_definition(s, p->uuid, p->text);
        p->written = r >= 0;
        p->synced = false;
        return r;
}

/* Notes the file of a definition that was just committed. One that is not noted is written at the next checkpoint. */
static void add_late(Store *s, Uuid uuid) {
        const Pending *p = store_find_pending(s, uuid);
        Late *l = calloc(1, sizeof *l);

        if (!l)
                return;
        *l = (Late) { .uuid = uuid, .version = p->version };
        if (p->text) {
                l->text = strdup(p->text);
                if (!l->text) {
                        free(l);
                        return;
                }
        }
        *s->late_end = l;
        s->late_end = &l->next;
}

int store_write_files(Store *s, size_t max) {
        if (s->error < 0)
                return s->error;

        while (s->late && max-- > 0) {
                Pending *p = store_find_pending(s, s->late->uuid);
                int r;

                r = write_definition(s, s->late->uuid, s->late->text);
                p->written = r >= 0 && p->version == s->late->version;
                s->late = late_free(s->late);
                if (!s->late)
                        s->late_end = &s->late;
                if (r < 0)
                        return r;
        }

        return s->late != NULL;
}

/* -EBADMSG: somebody has put something else in its place. */
static int open_definition(const Store *s, const char *name) {
        CLEANUP(fd_closep)
        int fd = openat(s->matrices_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        return S_ISREG(st.st_mode) ? TAKE_FD(fd) : -EBADMSG;
}

/* Only for speed: with all of them under way, the fsyncs that follow share the file system's own commits. */
static void start_writeback(const Store *s, const Pending *p) {
        CLEANUP(fd_closep) int fd = -1;
        char name[STORE_FILE_SIZE];

        fd = open_definition(s, store_file_name(p->uuid, name));
        if (fd >= 0)
                (void) sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int sync_definition(Store *s, Pending *p) {
        char name[STORE_FILE_SIZE];
        int r;

        store_file_name(p->uuid, name);
        for (int tries = 0;; tries++) {
                CLEANUP(fd_closep) int fd = -1;

                if (!p->written) {
                        r = write_pending(s, p);
                        if (r < 0)
                                return r;
                }
                if (!p->text)
                        return 0;

                fd = r = open_definition(s, name);
                if (r >= 0)
                        r = ret_errno(fsync(fd));
                if (r >= 0) {
                        p->synced = true;
                        return 0;
                }

                /* removed by somebody, or not on the disk although written: once more from the journal's
                 * text */
                p->written = false;
                if (tries > 0)
                        return r;
        }
}

int store_sync_files(Store *s, size_t max) {
        if (s->error < 0)
                return s->error;

        for (size_t i = 0; i < s->n_pending; i++) {
                Pending *p = &s->pending[i];
                int r;

                if (!p->text || !p->written || p->synced)
                        continue;
                if (max-- == 0)
                        return 1;
                r = sync_definition(s, p);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int sync_masks(Store *s) {
        char apmask[AP_MASK_STRING_SIZE], aqmask[AP_MASK_STRING_SIZE], text[2 * AP_MASK_STRING_SIZE + 64];

        if (!s->keep_masks) {
                if (unlinkat(s->dir_fd, STORE_MASKS_FILE, 0) < 0 && errno != ENOENT)
                        return -errno;
                return ret_errno(fsync(s->dir_fd));
        }

        snprintf(text, sizeof text, "apmask %s\naqmask %s\n", ap_mask_format(&s->apmask, apmask),
                 ap_mask_format(&s->aqmask, aqmask));
        return file_replace(s->dir_fd, STORE_MASKS_FILE, text, strlen(text));
}

/* The journal */

/* What a journal begins with: the last operation number and the open intents. */
static int format_fresh(const Store *s, char **ret, size_t *ret_size) {
        CLEANUP(freep) JournalItem *items = calloc(s->n_intents + 1, sizeof *items);
        CLEANUP(freep) char *batch = NULL;
        size_t size;
        int r;

        if (!items)
                return -ENOMEM;

        items[0] = (JournalItem) { .type = JOURNAL_LAST, .op = s->last_op };
        for (size_t i = 0; i < s->n_intents; i++)
                items[i + 1] = (JournalItem) { STORE_INTENT, s->intents[i].op, .text = s->intents[i].text };
        r = journal_format(items, s->n_intents + 1, &batch, &size);
        if (r < 0)
                return r;

        *ret = malloc(strlen(JOURNAL_HEADER) + size);
        if (!*ret)
                return -ENOMEM;
        memcpy(mempcpy(*ret, JOURNAL_HEADER, strlen(JOURNAL_HEADER)), batch, size);
        *ret_size = strlen(JOURNAL_HEADER) + size;
        return 0;
}

/* Writes zeros behind the first @size bytes, and returns where they end. SIZE_MAX: there is no room for them; the file grows with
 * each append. */
static size_t write_ahead(int fd, size_t size) {
        CLEANUP(freep) char *zeros = calloc(1, STORE_JOURNAL_AHEAD);

        if (zeros && file_write_all_at(fd, zeros, STORE_JOURNAL_AHEAD, (off_t) size) >= 0)
                return size + STORE_JOURNAL_AHEAD;

        (void) ftruncate(fd, (off_t) size);
        return SIZE_MAX;
}

/* Puts a fresh journal in the place of the old one. All that it forgets must be durable elsewhere. */
static int start_journal(Store *s) {
        CLEANUP(fd_closep) int fd = -1;
        CLEANUP(freep) char *text = NULL;
        size_t size, ahead = 0;
        int r;

        r = format_fresh(s, &text, &size);
        if (r < 0)
                return r;

        fd = openat(s->dir_fd, "." STORE_JOURNAL ".new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                    0600);
        if (fd < 0)
                return -errno;
        r = file_write_all(fd, text, size);
        if (r >= 0) {
                ahead = write_ahead(fd, size);
                r = ret_errno(fsync(fd));
        }
        if (r >= 0)
                r = ret_errno(renameat(s->dir_fd, "." STORE_JOURNAL ".new", s->dir_fd, STORE_JOURNAL));
        if (r < 0) {
                (void) unlinkat(s->dir_fd, "." STORE_JOURNAL ".new", 0);
                return r;
        }

        s->journal_fd = fd_close(s->journal_fd);
        s->journal_fd = TAKE_FD(fd);
        s->journal_size = size;
        s->journal_ahead = ahead;
        s->dirty = false;

        /* until this is durable, a crash may bring back the old journal, without what is appended to the new
         * one */
        if (fsync(s->dir_fd) < 0) {
                r = -errno;
                s->error = -EIO;
                return r;
        }

        return 0;
}

static int checkpoint(Store *s) {
        int r;

        (void) store_write_files(s, SIZE_MAX); /* in their order; what fails is tried again here */
        for (size_t i = 0; i < s->n_pending; i++) {
                Pending *p = &s->pending[i];

                if (!p->written) {
                        r = write_pending(s, p);
                        if (r < 0)
                                return r;
                }
                if (p->text && !p->synced && s->n_pending > 1)
                        start_writeback(s, p);
        }
        for (size_t i = 0; i < s->n_pending; i++) {
                if (s->pending[i].synced)
                        continue;
                r = sync_definition(s, &s->pending[i]);
                if (r < 0)
                        return r;
        }
        if (s->n_pending > 0 && fsync(s->matrices_fd) < 0)
                return -errno;
        if (s->masks_pending) {
                r = sync_masks(s);
                if (r < 0)
                        return r;
        }

        r = start_journal(s);
        if (r < 0)
                return r;

        drop_pending(s);
        s->masks_pending = false;
        return 0;
}

bool store_is_dirty(const Store *s) {
        return s->dirty || s->n_pending > 0 || s->masks_pending;
}

size_t store_journal_size(const Store *s) {
        return s->journal_size;
}

int store_checkpoint(Store *s) {
        if (s->error < 0)
                return s->error;
        if (!store_is_dirty(s))
                return 0;

        return checkpoint(s);
}

static void items_freep(JournalItem **items) {
        free(*items);
}

static int item_from_entry(const StoreEntry *e, JournalItem *ret) {
        JournalItem item = { .type = e->type, .op = e->op, .uuid = e->uuid };

        switch (e->type) {
        case STORE_INTENT:
                if (e->op == 0)
                        return -EINVAL;
                item.text = strdup(e->text);
                if (!item.text)
                        return -ENOMEM;
                break;
        case STORE_PUT: {
                int r;

                if (uuid_is_null(e->record.uuid) || !e->record.name)
                        return -EINVAL;
                item.uuid = e->record.uuid;
                r = record_to_xml(&e->record, &item.text);
                if (r < 0)
                        return r;
                break;
        }
        case STORE_MASKS:
                item.keep = e->keep;
                item.apmask = e->apmask;
                item.aqmask = e->aqmask;
                break;
        case STORE_DELETE:
        case STORE_END:
                break;
        case _STORE_ENTRY_MAX:
                assert(false);
        }

        *ret = item;
        return 0;
}

/* All or nothing, and durable. */
static int append(Store *s, const char *data, size_t size, store_meanwhile_t meanwhile, void *userdata) {
        size_t end = s->journal_size + size;
        int r;

        r = file_write_all_at(s->journal_fd, data, size, (off_t) s->journal_size);
        if (r >= 0) {
                if (end > s->journal_ahead)
                        s->journal_ahead = write_ahead(s->journal_fd, end);
                if (meanwhile) {
                        (void) sync_file_range(s->journal_fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* it begins */
                        meanwhile(userdata);
                }
                r = ret_errno(fdatasync(s->journal_fd));
                if (r >= 0) {
                        s->journal_size = end;
                        return 0;
                }
                /* what the page cache says from now on need not be what the disk has */
                s->error = -EIO;
        }

        s->journal_ahead = s->journal_size;
        if (ftruncate(s->journal_fd, (off_t) s->journal_size) < 0)
                s->error = -EIO;
        else if (s->error < 0)
                (void) fdatasync(s->journal_fd);
        return r;
}

/* By somebody: what is written there is lost. */
static bool is_removed(int fd) {
        struct stat st;

        return fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0;
}

static int commit_items(Store *s, JournalItem *items, size_t n, store_meanwhile_t meanwhile,
                        void *userdata) {
        CLEANUP(freep) char *text = NULL;
        size_t size;
        int r;

        r = store_reserve(s, n);
        if (r < 0)
                return r;
        r = journal_format(items, n, &text, &size);
        if (r < 0)
                return r;
        r = append(s, text, size, meanwhile, userdata);
        if (r < 0)
                return r;

        store_apply(s, items, n);
        return 0;
}

int store_commit(Store *s, const StoreEntry *entries, size_t n) {
        return store_commit_with(s, entries, n, NULL, NULL);
}

int store_commit_with(Store *s, const StoreEntry *entries, size_t n, store_meanwhile_t meanwhile,
                      void *userdata) {
        CLEANUP(items_freep) JournalItem *items = NULL;
        size_t n_items;
        int r = 0;

        if (n == 0)
                return 0;
        if (s->error < 0)
                return s->error;
        if (is_removed(s->journal_fd)) {
                r = store_reopen(s);
                if (r < 0)
                        return r;
        }
        if (s->journal_size > STORE_JOURNAL_LIMIT) {
                r = checkpoint(s);
                if (r < 0)
                        return r;
        }

        items = calloc(n, sizeof *items);
        if (!items)
                return -ENOMEM;
        for (n_items = 0; n_items < n && r >= 0; n_items++)
                r = item_from_entry(&entries[n_items], &items[n_items]);
        if (r >= 0)
                r = commit_items(s, items, n, meanwhile, userdata);
        for (size_t i = 0; i < n; i++)
                free(items[i].text);
        if (r < 0)
                return r;

        for (size_t i = 0; i < n; i++)
                if (entries[i].type == STORE_PUT)
                        add_late(s, entries[i].record.uuid);
                else if (entries[i].type == STORE_DELETE)
                        add_late(s, entries[i].uuid);

        return 0;
}

/* Opening */

static int lock(Store *s) {
        CLEANUP(fd_closep) int fd = -1;

        if (s->lock_fd >= 0)
                return 0;

        fd = openat(s->dir_fd, STORE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd < 0 && (errno == EROFS || errno == EACCES))
                fd = openat(s->dir_fd, STORE_LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
                return errno == ENOENT ? -EROFS : -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? -EBUSY : -errno;

        s->lock_fd = TAKE_FD(fd);
        return 0;
}

typedef enum VersionState { VERSION_OURS, VERSION_MISSING, VERSION_GARBLED, VERSION_NEWER } VersionState;

static VersionState parse_version(const char *text) {
        static const char prefix[] = "guestcrypt ";
        size_t n;

        if (strncmp(text, prefix, strlen(prefix)) != 0)
                return VERSION_GARBLED;
        text += strlen(prefix);
        n = strspn(text, "0123456789");
        if (n == 0 || *text == '0' || (text[n] && text[n] != '\n'))
                return VERSION_GARBLED;

        return n > 9 || strtoul(text, NULL, 10) > STORE_VERSION ? VERSION_NEWER : VERSION_OURS;
}

/* -EBADMSG: newer than ours. */
static int read_version(Store *s, VersionState *ret) {
        CLEANUP(freep) char *text = NULL;
        VersionState version;
        int r;

        r = file_read_at(s->dir_fd, STORE_VERSION_FILE, 64, &text, NULL);
        if (r == -ENOENT)
                version = VERSION_MISSING;
        else if (r == -EFBIG || r == -ELOOP || r == -EBADMSG)
                version = VERSION_GARBLED;
        else if (r < 0)
                return r;
        else
                version = parse_version(text);
        if (version == VERSION_NEWER)
                return -EBADMSG;

        *ret = version;
        return 0;
}

/* Whoever made the state directory need not have made its name durable: with it, all of it would be lost. */
static int sync_parent(const Store *s) {
        CLEANUP(fd_closep) int fd = openat(s->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 ? -errno : ret_errno(fsync(fd));
}

/* Makes what is missing in a state directory that can be written. */
static int prepare(Store *s, VersionState version) {
        char text[32];
        int fd, r;

        if (faccessat(s->dir_fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
                return -errno;

        (void) unlinkat(s->dir_fd, "." STORE_JOURNAL ".new", 0);
        (void) unlinkat(s->dir_fd, "." STORE_MASKS_FILE ".new", 0);
        (void) unlinkat(s->dir_fd, "." STORE_VERSION_FILE ".new", 0);

        if (s->matrices_fd < 0) {
                fd = file_open_dir(s->dir_fd, STORE_MATRICES);
                if (fd < 0)
                        return fd;
                s->matrices_fd = fd;
        }
        if (faccessat(s->matrices_fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
                return -errno;
        if (version == VERSION_OURS)
                return 0;

        /* before the version, which says that this was done */
        r = sync_parent(s);
        if (r < 0)
                return r;
        snprintf(text, sizeof text, "guestcrypt %d\n", STORE_VERSION);
        return file_replace(s->dir_fd, STORE_VERSION_FILE, text, strlen(text));
}

static int copy_intents(const Store *s, StoreContent *c) {
        c->intents = calloc(s->n_intents + 1, sizeof *c->intents);
        if (!c->intents)
                return -ENOMEM;

        for (; c->n_intents < s->n_intents; c->n_intents++) {
                char *text = strdup(s->intents[c->n_intents].text);

                if (!text)
                        return -ENOMEM;
                c->intents[c->n_intents] = (StoreIntent) { s->intents[c->n_intents].op, text };
        }

        return 0;
}

static int load(Store *s, VersionState version, StoreContent *c) {
        int r;

        if (version == VERSION_GARBLED) {
                char to[NAME_MAX + 1] = "";

                r = store_add_bad(c, NULL, STORE_VERSION_FILE, "does not say a version");
                if (r < 0)
                        return r;
                if (s->error == 0)
                        s->error = store_set_aside(s, s->dir_fd, STORE_VERSION_FILE, to);
                r = store_note_aside(c, to);
                if (r < 0)
                        return r;
        }
        if (s->error == 0)
                s->error = prepare(s, version);

        if (s->matrices_fd < 0) {
                s->matrices_fd = openat(s->dir_fd, STORE_MATRICES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (s->matrices_fd < 0 && errno != ENOENT)
                        return -errno;
        }

        /* the masks file is older than what the journal says of masks, so it comes first */
        r = store_load_masks(s, c);
        if (r < 0)
                return r;
        r = store_load_journal(s, c);
        if (r < 0)
                return r;
        r = store_load_matrices(s, c);
        if (r < 0)
                return r;

        c->last_op = s->last_op;
        c->keep_masks = s->keep_masks;
        c->apmask = s->apmask;
        c->aqmask = s->aqmask;
        return copy_intents(s, c);
}

int store_open(int dir_fd, Store **ret, StoreContent *ret_content, bool *ret_writable) {
        CLEANUP(store_content_clear) StoreContent content = {};
        CLEANUP(store_freep) Store *s = NULL;
        VersionState version;
        int r;

        s = malloc(sizeof *s);
        if (!s)
                return -ENOMEM;
        *s = (Store) { .dir_fd = -1, .lock_fd = -1, .matrices_fd = -1, .journal_fd = -1 };
        s->late_end = &s->late;

        s->dir_fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (s->dir_fd < 0)
                return -errno;

        r = read_version(s, &version);
        if (r < 0)
                return r;
        s->error = lock(s);
        if (s->error == -EBUSY)
                return -EBUSY;
        r = load(s, version, &content);
        if (r < 0)
                return r;

        if (s->error == 0 && (s->journal_fd < 0 || store_is_dirty(s))) {
                r = checkpoint(s);
                /* with a journal there is all that a commit needs, so the rest may wait */
                if (r < 0 && s->journal_fd < 0)
                        s->error = r;
        }

        *ret_writable = s->error == 0;
        *ret_content = content;
        content = (StoreContent) {};
        *ret = TAKE(s);
        return 0;
}

int store_reopen(Store *s) {
        VersionState version;
        int r;

        if (is_removed(s->dir_fd) || is_removed(s->matrices_fd)) /* with definitions that are not pending */
                return -ENOENT;

        r = read_version(s, &version);
        if (r >= 0)
                r = lock(s);
        if (r >= 0)
                r = prepare(s, version);
        if (r < 0)
                return r;

        /* all that is not durable is written anew, the journal too */
        for (size_t i = 0; i < s->n_pending; i++)
                s->pending[i].written = false;
        r = checkpoint(s);
        if (r < 0) {
                s->error = s->error ?: r;
                return r;
        }

        s->error = 0;
        return 0;
}
