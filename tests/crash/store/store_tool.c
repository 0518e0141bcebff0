/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* store-tool - the real store behind a command line, for the crash tests to kill and to question.
 *
 *   store-tool DIR put old|new         one change of several files and the masks, made as the engine makes
 *   one: intent, then the
 *                                      batch that ends it. Prints ACK when it is durable.
 *   store-tool DIR checkpoint old|new  the same, and a checkpoint after
 *   store-tool DIR cut [ROUNDS]        prints a number after each durable commit of it, until killed or done
 *   store-tool DIR check               prints old or new, or what is wrong and exits with 1; for cut: the
 *   number
 *   store-tool DIR fill                commits until the disk is full, then says whether all that was
 *   acknowledged is there
 *   store-tool DIR bench N BATCH       commits and load times of N definitions */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "store/store.h"

#define OP_INTENT 7

static Uuid uuid_of(unsigned n) {
        return (Uuid) { { 0xc4, 0xa2, (uint8_t) (n >> 24), (uint8_t) (n >> 16), (uint8_t) (n >> 8),
                          (uint8_t) n, 0x4f, 0, 0x80, 0 } };
}

/* The number of @value is spread over the record, so that a mixture of two is seen. */
static Record record_of(unsigned n, unsigned value) {
        Record r = { .uuid = uuid_of(n) };

        if (asprintf(&r.name, "m%u", n) < 0 || asprintf(&r.guest, "value-%u", value) < 0)
                abort();
        for (unsigned bit = 0; bit < 16; bit++)
                ap_mask_set(value >> bit & 1 ? &r.matrix.adapters : &r.matrix.domains, (uint8_t) (bit + n));
        return r;
}

static bool record_is(const Record *r, unsigned n, unsigned value) {
        CLEANUP(record_clear) Record wanted = record_of(n, value);

        return uuid_equal(r->uuid, wanted.uuid) && r->name && r->guest &&
               strcmp(r->name, wanted.name) == 0 && strcmp(r->guest, wanted.guest) == 0 &&
               ap_matrix_equal(&r->matrix, &wanted.matrix);
}

static int fail(const char *what, int r) {
        printf("ERR %s: %s\n", what, strerror(-r));
        return EXIT_FAILURE;
}

static int open_store(const char *path, Store **ret, StoreContent *ret_content) {
        CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bool writable;
        int r;

        if (fd < 0)
                return -errno;
        r = store_open(fd, ret, ret_content, &writable);
        return r < 0 ? r : writable ? 0 : -EROFS;
}

static int run_put(const char *path, bool new, bool with_checkpoint) {
        StoreContent c = {};
        Store *s = NULL;
        StoreEntry intent = { .type = STORE_INTENT, .op = OP_INTENT, .text = (char *) "purpose" };
        StoreEntry batch[] = {
                { .type = STORE_PUT, .record = record_of(1, new) },
                { .type = STORE_PUT, .record = record_of(2, new) },
                new ? (StoreEntry) { .type = STORE_DELETE, .uuid = uuid_of(3) }
                    : (StoreEntry) { .type = STORE_PUT, .record = record_of(3, 0) },
                { .type = STORE_MASKS, .op = OP_INTENT, .keep = new, .apmask = AP_MASK_ALL },
        };
        int r;

        r = open_store(path, &s, &c);
        if (r < 0)
                return fail("open", r);
        r = store_commit(s, &intent, 1);
        if (r < 0)
                return fail("intent", r);
        r = store_commit(s, batch, ELEMENTS(batch));
        if (r < 0)
                return fail("commit", r);
        puts("ACK");
        fflush(stdout);
        r = store_write_files(s, ELEMENTS(batch));
        if (r < 0)
                return fail("files", r);
        if (with_checkpoint) {
                r = store_checkpoint(s);
                if (r < 0)
                        return fail("checkpoint", r);
        }

        for (size_t i = 0; i < ELEMENTS(batch); i++)
                store_entry_clear(&batch[i]);
        store_content_clear(&c);
        store_free(s);
        return EXIT_SUCCESS;
}

static bool content_is(const StoreContent *c, bool new) {
        if (c->n_records != (new ? 2 : 3) || c->keep_masks != new)
                return false;
        for (unsigned i = 0; i < c->n_records; i++)
                if (!record_is(&c->records[i], i + 1, i == 2 ? 0 : new))
                        return false;
        if (c->n_intents > (new ? 0 : 1))
                return false;
        if (c->n_intents == 1 &&
            (c->intents[0].op != OP_INTENT || strcmp(c->intents[0].text, "purpose") != 0))
                return false;
        return c->last_op == OP_INTENT;
}

static int run_check(const char *path) {
        StoreContent c = {};
        Store *s = NULL;
        int r;

        r = open_store(path, &s, &c);
        if (r < 0)
                return fail("open", r);
        for (size_t i = 0; i < c.n_bad; i++)
                printf("BAD %s: %s\n", c.bad[i].file, c.bad[i].reason);

        if (c.n_bad > 0)
                r = -EBADMSG;
        else if (content_is(&c, false))
                puts("old");
        else if (content_is(&c, true))
                puts("new");
        else if (c.n_records == 2 && c.n_intents == 0 && !c.keep_masks &&
                 record_is(&c.records[0], 1, (unsigned) c.last_op) &&
                 record_is(&c.records[1], 2, (unsigned) c.last_op))
                printf("%" PRIu64 "\n", c.last_op);
        else if (c.n_records == 0 && !c.keep_masks && c.n_intents == (c.last_op == OP_INTENT) &&
                 c.last_op <= OP_INTENT)
                puts("0");
        else {
                printf("ERR %zu records, %zu intents, last operation %" PRIu64 "\n", c.n_records,
                       c.n_intents, c.last_op);
                r = -EBADMSG;
        }

        store_content_clear(&c);
        store_free(s);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run_cut(const char *path, unsigned rounds) {
        StoreContent c = {};
        Store *s = NULL;
        int r;

        r = open_store(path, &s, &c);
        if (r < 0)
                return fail("open", r);

        for (unsigned i = 1; i <= rounds; i++) {
                StoreEntry batch[] = {
                        { .type = STORE_PUT, .op = i, .record = record_of(1, i) },
                        { .type = STORE_PUT, .op = i, .record = record_of(2, i) },
                };

                r = store_commit(s, batch, ELEMENTS(batch));
                for (size_t k = 0; k < ELEMENTS(batch); k++)
                        store_entry_clear(&batch[k]);
                if (r < 0)
                        return fail("commit", r);
                printf("%u\n", i);
                fflush(stdout);
                r = store_write_files(s, ELEMENTS(batch));
                if (r < 0)
                        return fail("files", r);
                if (i % 16 == 0) {
                        r = store_checkpoint(s);
                        if (r < 0)
                                return fail("checkpoint", r);
                }
        }

        store_content_clear(&c);
        store_free(s);
        return EXIT_SUCCESS;
}

static int run_fill(const char *path) {
        StoreContent c = {}, again = {};
        unsigned n;
        Store *s = NULL;
        int r;

        r = open_store(path, &s, &c);
        if (r < 0)
                return fail("open", r);

        for (n = 0;; n++) {
                StoreEntry e = { .type = STORE_PUT, .op = n + 1, .record = record_of(n, n & 0xffff) };

                r = store_commit(s, &e, 1);
                store_entry_clear(&e);
                if (r < 0)
                        break;
                (void) store_write_files(s, 1); /* may or may not have room */
        }
        if (r != -ENOSPC)
                return fail("commit on a full disk", r);

        /* what is refused leaves nothing, and does no harm to the store */
        for (unsigned i = 0; i < 3; i++) {
                StoreEntry batch[] = {
                        { .type = STORE_PUT, .op = n + 1, .record = record_of(0, 1) },
                        { .type = STORE_PUT, .op = n + 1, .record = record_of(n, 1) },
                };

                r = store_commit(s, batch, ELEMENTS(batch));
                for (size_t k = 0; k < ELEMENTS(batch); k++)
                        store_entry_clear(&batch[k]);
                if (r != -ENOSPC)
                        return fail("a commit where a smaller one had no room", r);
        }
        (void) store_checkpoint(s); /* may or may not have room */
        s = store_free(s);

        r = open_store(path, &s, &again);
        if (r < 0 && r != -EROFS)
                return fail("open again", r);
        if (again.n_bad > 0)
                return fail(again.bad[0].reason, -EBADMSG);
        if (again.n_records != n || again.last_op != n)
                return fail("a different number of records", -EBADMSG);
        for (unsigned i = 0; i < n; i++)
                if (!record_is(&again.records[i], i, i & 0xffff))
                        return fail("a changed record", -EBADMSG);

        printf("%u\n", n);
        store_content_clear(&c);
        store_content_clear(&again);
        store_free(s);
        return EXIT_SUCCESS;
}

static double seconds(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static int run_bench(const char *path, unsigned n, unsigned batch) {
        StoreEntry *entries = calloc(batch, sizeof *entries);
        StoreContent c = {}, again = {};
        Store *s = NULL;
        double start;
        int r;

        if (!entries)
                return fail("memory", -ENOMEM);
        r = open_store(path, &s, &c);
        if (r < 0)
                return fail("open", r);

        start = seconds();
        for (unsigned done = 0; done < n; done += batch) {
                for (unsigned i = 0; i < batch; i++)
                        entries[i] = (StoreEntry) { .type = STORE_PUT,
                                                    .op = done + i + 1,
                                                    .record = record_of(done + i, (done + i) & 0xffff) };
                r = store_commit(s, entries, batch);
                for (unsigned i = 0; i < batch; i++)
                        store_entry_clear(&entries[i]);
                if (r < 0)
                        return fail("commit", r);
        }
        printf("commit      %8.0f records/s in batches of %u\n", n / (seconds() - start), batch);

        start = seconds();
        r = store_checkpoint(s);
        if (r < 0)
                return fail("checkpoint", r);
        printf("checkpoint  %8.3f s\n", seconds() - start);
        s = store_free(s);

        start = seconds();
        r = open_store(path, &s, &again);
        if (r < 0)
                return fail("open", r);
        printf("load        %8.3f s for %zu records\n", seconds() - start, again.n_records);

        free(entries);
        store_content_clear(&c);
        store_content_clear(&again);
        store_free(s);
        return EXIT_SUCCESS;
}

int main(int argc, char *argv[]) {
        const char *path = argc > 2 ? argv[1] : NULL, *verb = path ? argv[2] : "",
                   *value = argc > 3 ? argv[3] : "";

        if (strcmp(verb, "put") == 0 || strcmp(verb, "checkpoint") == 0)
                return run_put(path, strcmp(value, "new") == 0, *verb == 'c');
        if (strcmp(verb, "check") == 0)
                return run_check(path);
        if (strcmp(verb, "cut") == 0)
                return run_cut(path, *value ? (unsigned) atoi(value) : UINT32_MAX);
        if (strcmp(verb, "fill") == 0)
                return run_fill(path);
        if (strcmp(verb, "bench") == 0 && argc == 5)
                return run_bench(path, (unsigned) atoi(value), (unsigned) atoi(argv[4]));

        fprintf(stderr, "usage: store-tool DIR put|checkpoint|check|cut|fill|bench ...\n");
        return 2;
}
