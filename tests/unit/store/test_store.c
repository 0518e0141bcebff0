/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "state_dir.h"

static Store *open_store(const StateDir *d, StoreContent *c) {
        bool writable = false;
        Store *s = NULL;

        assert_int_equal(store_open(d->fd, &s, c, &writable), 0);
        assert_true(writable);
        return s;
}

static bool exists(const StateDir *d, const char *path) {
        return faccessat(d->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

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
                assert_true(exists(d, "matrices/c4a20000-0000-4f00-8000-000000000001.xml"));
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
        StoreEntry bad_guest = { .type = STORE_PUT,
                                 .record = { .uuid = uuid_of(1), .name = (char *) "a", .guest = (char *) "\n" } };
        StoreEntry bad_name = { .type = STORE_PUT, .record = { .uuid = uuid_of(1), .name = (char *) "a/b" } };
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

int main(void) {
#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, state_dir_setup, state_dir_teardown)
        const struct CMUnitTest tests[] = {
                STORE_TEST(test_first_use),
                STORE_TEST(test_all_entries),
                STORE_TEST(test_lock),
                STORE_TEST(test_bad_entries),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
