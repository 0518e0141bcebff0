/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a store keeps and gives back, and what it refuses; disks that fail. */

#include <signal.h>
#include <sys/resource.h>

#include "state_dir.h"

static void test_first_use(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        CLEANUP(freep) char *version = NULL;

        assert_int_equal(c.n_records + c.n_intents + c.n_bad + c.last_op + c.keep_masks, 0);
        assert_false(store_is_dirty(s));
        assert_int_equal(file_read_at(d->fd, "version", 64, &version, NULL), 0);
        assert_string_equal(version, "guestcrypt 1\n");
        assert_true(exists(d, "matrices"));
        assert_true(exists(d, "journal"));
        assert_false(exists(d, "set-aside"));
}

static void check_content(const StateDir *d) {
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        assert_false(store_is_dirty(s));
        assert_int_equal(c.n_bad, 0);
        assert_int_equal(c.n_records, 2);
        assert_true(uuid_equal(c.records[0].uuid, uuid_of(1)));
        assert_string_equal(c.records[0].name, "matrix-1");
        assert_true(c.records[0].autostart);
        assert_true(ap_mask_test(&c.records[0].matrix.domains, 7));
        assert_true(uuid_equal(c.records[1].uuid, uuid_of(3)));
        assert_int_equal(c.n_intents, 1);
        assert_int_equal(c.intents[0].op, 12);
        assert_string_equal(c.intents[0].text, "stays open");
        assert_int_equal(c.last_op, 14);
        assert_true(c.keep_masks);
        assert_true(ap_mask_test(&c.apmask, 9));
        assert_true(ap_mask_is_empty(&c.aqmask));
}

static void test_all_entries(void **state) {
        StateDir *d = *state;
        StoreEntry batch[] = {
                put_of(1, 6, 0),
                put_of(2, 6, 0),
                put_of(3, 6, 0),
                intent_of(11, "ends"),
                intent_of(12, "stays open"),
                intent_of(13, "ends too"),
                { .type = STORE_END, .op = 11 },
                delete_of(2, 13),
                { .type = STORE_MASKS, .op = 14, .keep = true },
                put_of(1, 7, 0),
        };

        ap_mask_set(&batch[8].apmask, 9);
        {
                CLEANUP(store_content_clear) StoreContent c = {};
                CLEANUP(store_freep_test) Store *s = open_store(d, &c);

                assert_int_equal(store_commit(s, batch, ELEMENTS(batch)), 0);
                assert_true(store_is_dirty(s));
                assert_false(exists(d, "matrices/c4a20000-0000-4f00-8000-000000000001.xml"));
                assert_int_equal(store_write_files(s, 1),
                                 1); /* the first; the second is to go, the third to come */
                assert_true(exists(d, "matrices/c4a20000-0000-4f00-8000-000000000001.xml"));
                assert_int_equal(store_write_files(s, 1), 1);
                assert_int_equal(store_write_files(s, 8), 0);
                assert_int_equal(store_write_files(s, 8), 0);
                assert_true(store_is_dirty(s));
                assert_true(exists(d, "matrices/c4a20000-0000-4f00-8000-000000000003.xml"));
                assert_false(exists(d, "matrices/c4a20000-0000-4f00-8000-000000000002.xml"));
        }
        for (size_t i = 0; i < ELEMENTS(batch); i++)
                store_entry_clear(&batch[i]);

        /* from the journal, then from the files */
        check_content(d);
        check_content(d);
        {
                CLEANUP(store_content_clear) StoreContent c = {};
                CLEANUP(store_freep_test) Store *s = open_store(d, &c);

                assert_false(store_is_dirty(s));
                assert_int_equal(commit_one(s, (StoreEntry) { .type = STORE_MASKS }), 0);
                assert_int_equal(store_checkpoint(s), 0);
                assert_false(exists(d, "masks"));
        }
        {
                CLEANUP(store_content_clear) StoreContent c = {};
                CLEANUP(store_freep_test) Store *s = open_store(d, &c);

                assert_false(store_is_dirty(s));
                assert_false(c.keep_masks);
        }
}

static void test_lock(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, none = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        Store *second = NULL;
        bool writable;

        assert_int_equal(store_open(d->fd, &second, &none, &writable), -EBUSY);
        assert_null(second);
        s = store_free(s);
        assert_int_equal(store_open(d->fd, &s, &none, &writable), 0);
}

/* What a batch must not hold is refused before anything is written. */
static void test_bad_entries(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, again = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        StoreEntry nameless = { .type = STORE_PUT, .record = { .uuid = uuid_of(1) } };
        StoreEntry null_uuid = { .type = STORE_PUT, .record = { .name = (char *) "a" } };
        StoreEntry bad_guest = {
                .type = STORE_PUT,
                .record = { .uuid = uuid_of(1), .name = (char *) "a", .guest = (char *) "\n" }
        };
        StoreEntry bad_name = { .type = STORE_PUT,
                                .record = { .uuid = uuid_of(1), .name = (char *) "a/b" } };
        StoreEntry no_op = { .type = STORE_INTENT, .text = (char *) "x" };
        StoreEntry *const all[] = { &nameless, &null_uuid, &bad_guest, &bad_name, &no_op };

        for (size_t i = 0; i < ELEMENTS(all); i++) {
                StoreEntry batch[] = { put_of(5, 1, 1), *all[i] };

                assert_int_equal(store_commit(s, batch, 2), -EINVAL);
                store_entry_clear(&batch[0]);
        }
        assert_int_equal(store_commit(s, NULL, 0), 0);
        assert_false(store_is_dirty(s));

        s = store_free(s);
        s = open_store(d, &again);
        assert_int_equal(again.n_records, 0);
}

static void test_bad_masks(void **state) {
        static const char *const texts[] = {
                "",
                "{}",
                "apmask 0x1\naqmask 0x1\n",
                "apmask 0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\n",
        };
        StateDir *d = *state;

        for (size_t i = 0; i < ELEMENTS(texts); i++) {
                CLEANUP(store_content_clear) StoreContent c = {};
                CLEANUP(store_freep_test) Store *s = NULL;

                write_file(d->fd, "masks", texts[i]);
                s = open_store(d, &c);
                assert_false(c.keep_masks);
                assert_string_equal(reason_of(&c, "masks"), "does not hold two masks");
                assert_false(exists(d, "masks"));
        }
        assert_true(exists(d, "set-aside/masks.3"));
}

static void test_versions(void **state) {
        static const char *const newer[] = { "guestcrypt 2\n", "guestcrypt 10", "guestcrypt 999999999\n" };
        static const char *const garbled[] = { "", "x", "guestcrypt 0\n", "guestcrypt\n",
                                               "guestcrypt -1\n" };
        StateDir *d = *state;

        for (size_t i = 0; i < ELEMENTS(newer); i++) {
                StoreContent c = { .last_op = 77 };
                Store *s = NULL;
                bool writable;

                write_file(d->fd, "version", newer[i]);
                assert_int_equal(store_open(d->fd, &s, &c, &writable), -EBADMSG);
                assert_null(s);
                assert_int_equal(c.last_op, 77);
                /* nothing was touched */
                assert_false(exists(d, "lock"));
                assert_false(exists(d, "journal"));
        }
        for (size_t i = 0; i < ELEMENTS(garbled); i++) {
                CLEANUP(store_content_clear) StoreContent c = {};
                CLEANUP(store_freep_test) Store *s = NULL;
                CLEANUP(freep) char *text = NULL;

                write_file(d->fd, "version", garbled[i]);
                s = open_store(d, &c);
                assert_string_equal(reason_of(&c, "version"), "does not say a version");
                assert_int_equal(file_read_at(d->fd, "version", 64, &text, NULL), 0);
                assert_string_equal(text, "guestcrypt 1\n");
        }
}

/* A write that ends in the middle leaves nothing, and the store goes on when there is room again. */
static void test_short_write(void **state) {
        StateDir *d = *state;
        unsigned n_failed = 0;
        struct rlimit old;
        int r = -EFBIG;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        for (unsigned room = 0; r < 0; room += 50, n_failed++) {
                CLEANUP(store_content_clear) StoreContent c = {}, again = {};
                CLEANUP(store_freep_test) Store *s = open_store(d, &c);
                size_t size = journal_length(d);
                struct rlimit small = { size + room, old.rlim_max };

                assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
                r = commit_one(s, put_of(1, 1, 0));
                assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
                if (r < 0) {
                        assert_int_equal(r, -EFBIG);
                        assert_int_equal(size_of(d, "journal"), size);
                        assert_false(exists(d, "matrices/" U("01") ".xml"));
                }

                assert_int_equal(commit_one(s, put_of(2, 1, 0)), 0);
                s = store_free(s);
                s = open_store(d, &again);
                assert_int_equal(again.n_records, r < 0 ? 1 : 2);
                assert_int_equal(again.n_bad, 0);
        }
        assert_true(n_failed > 5);
}

static void swap_journal(Store *s, int fd) {
        assert_true(fd >= 0);
        assert_true(dup3(fd, s->journal_fd, O_CLOEXEC) >= 0);
}

/* A failed fdatasync, and a failed write that cannot be undone, poison the store until it is reopened. */
static void test_poison(void **state) {
        StateDir *d = *state;

        for (unsigned i = 0; i < 2; i++) {
                CLEANUP(store_content_clear) StoreContent c = {}, again = {};
                CLEANUP(store_freep_test) Store *s = open_store(d, &c);
                CLEANUP(fd_closep) int fd = -1;

                assert_int_equal(commit_one(s, put_of(1, i, 5)), 0);
                fd = open(i == 0 ? "/dev/null" : "/dev/full", O_WRONLY | O_CLOEXEC);
                swap_journal(s, fd);

                assert_int_equal(commit_one(s, put_of(2, 1, 6)), i == 0 ? -EINVAL : -ENOSPC);
                assert_int_equal(commit_one(s, put_of(2, 1, 6)), -EIO);
                assert_int_equal(store_checkpoint(s), -EIO);
                assert_false(exists(d, "matrices/" U("02") ".xml"));

                assert_int_equal(store_reopen(s), 0);
                assert_int_equal(commit_one(s, put_of(3, 1, 7)), 0);
                s = store_free(s);

                s = open_store(d, &again);
                assert_int_equal(again.n_records, 2);
                assert_true(uuid_equal(again.records[1].uuid, uuid_of(3)));
                assert_int_equal(again.last_op, 7);
        }
}

/* Somebody removes the files of a daemon that runs: what it says is kept is kept, or is not said. */
static void test_removed(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, again = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        assert_int_equal(commit_one(s, put_of(1, 1, 5)), 0);
        assert_int_equal(unlinkat(d->fd, "journal", 0), 0);
        assert_int_equal(commit_one(s, put_of(2, 1, 6)), 0);
        s = store_free(s);

        s = open_store(d, &again);
        assert_int_equal(again.n_records, 2);
        assert_int_equal(unlinkat(d->fd, "journal", 0), 0);
        assert_int_equal(unlinkat(d->fd, "matrices/" U("01") ".xml", 0), 0);
        assert_int_equal(unlinkat(d->fd, "matrices/" U("02") ".xml", 0), 0);
        assert_int_equal(unlinkat(d->fd, "matrices", AT_REMOVEDIR), 0);
        assert_int_equal(commit_one(s, put_of(3, 1, 7)), -ENOENT);
        assert_int_equal(store_reopen(s), -ENOENT);
        assert_int_equal(commit_one(s, put_of(3, 1, 7)), -ENOENT);
        assert_false(exists(d, "matrices"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                STORE_TEST(test_first_use),   STORE_TEST(test_all_entries), STORE_TEST(test_lock),
                STORE_TEST(test_bad_entries), STORE_TEST(test_bad_masks),   STORE_TEST(test_versions),
                STORE_TEST(test_short_write), STORE_TEST(test_poison),      STORE_TEST(test_removed),
        };

        /* a limit on file sizes is to give an error */
        signal(SIGXFSZ, SIG_IGN);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
