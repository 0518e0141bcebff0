/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>

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

/* Bad files: each is named with its reason, moved away, and all else is there. */

#define U(n) "c4a20000-0000-4f00-8000-0000000000" n

static void put_good(const StateDir *d, unsigned n) {
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        assert_int_equal(commit_one(s, put_of(n, 1, 0)), 0);
        assert_int_equal(store_checkpoint(s), 0);
}

static const char *reason_of(const StoreContent *c, const char *file) {
        for (size_t i = 0; i < c->n_bad; i++)
                if (strcmp(c->bad[i].file, file) == 0)
                        return c->bad[i].reason;

        fail_msg("'%s' is not reported", file);
        return NULL;
}

static void make_bad_files(const StateDir *d) {
        CLEANUP(fd_closep) int m = openat(d->fd, "matrices", O_RDONLY | O_DIRECTORY | O_CLOEXEC), s = -1;
        CLEANUP(freep) char *xml = NULL, *large = calloc(1, RECORD_XML_MAX + 2);
        CLEANUP(record_clear) Record r = record_of(0x21, 1);
        char *p;

        write_file(m, U("10") ".xml", "");
        write_file(m, U("11") ".xml", "{}");
        assert_int_equal(record_to_xml(&r, &xml), 0);
        xml[strlen(xml) / 2] = '\0';
        write_file(m, U("12") ".xml", xml);
        assert_int_equal(symlinkat(U("01") ".xml", m, U("13") ".xml"), 0);
        assert_int_equal(mkdirat(m, U("14") ".xml", 0755), 0);
        assert_int_equal(mkfifoat(m, U("15") ".xml", 0600), 0);
        write_file(m, "C4A20000-0000-4F00-8000-000000000016.xml", "x");
        write_file(m, "README\n\xff", "x");
        write_file(m, U("01") ".xml~", "x");
        memset(large, ' ', RECORD_XML_MAX + 1);
        write_file(m, U("17") ".xml", large);

        free(TAKE(xml));
        assert_int_equal(record_to_xml(&r, &xml), 0);
        write_file(m, U("18") ".xml", xml); /* holds 21 */
        p = strstr(xml, "version='1'");
        p[9] = '2';
        write_file(m, U("21") ".xml", xml);
        free(TAKE(xml));
        free(TAKE(r.name));
        assert_int_equal(record_to_xml(&r, &xml), 0);
        p = strstr(xml, U("21"));
        p[35] = '9', p[34] = '1';
        write_file(m, U("19") ".xml", xml); /* without a name */

        write_file(m, "." U("01") ".xml.new", "left by a crash");
        assert_int_equal(mkdirat(m, "." U("02") ".xml.new", 0755), 0);

        /* one of that name has been set aside before */
        s = file_open_dir(d->fd, "set-aside");
        write_file(s, U("10") ".xml", "older");
        write_file(s, U("10") ".xml.1", "older, too");
}

static void check_bad_files(const StoreContent *c) {
        assert_int_equal(c->n_records, 1);
        assert_true(uuid_equal(c->records[0].uuid, uuid_of(1)));
        assert_int_equal(c->n_bad, 14);
        assert_string_equal(reason_of(c, "matrices/" U("10") ".xml"), "empty");
        assert_non_null(strstr(reason_of(c, "matrices/" U("11") ".xml"), "line 1: not well-formed"));
        assert_non_null(strstr(reason_of(c, "matrices/" U("12") ".xml"), "not well-formed"));
        assert_string_equal(reason_of(c, "matrices/" U("13") ".xml"), "is a symbolic link");
        assert_string_equal(reason_of(c, "matrices/" U("14") ".xml"), "is no regular file");
        assert_string_equal(reason_of(c, "matrices/" U("15") ".xml"), "is no regular file");
        assert_string_equal(reason_of(c, "matrices/C4A20000-0000-4F00-8000-000000000016.xml"),
                            "is not named as a definition");
        assert_string_equal(reason_of(c, "matrices/README??"), "is not named as a definition");
        assert_string_equal(reason_of(c, "matrices/" U("01") ".xml~"), "is not named as a definition");
        assert_string_equal(reason_of(c, "matrices/" U("17") ".xml"), "is too large");
        assert_string_equal(reason_of(c, "matrices/" U("18") ".xml"), "holds another UUID than its name");
        assert_string_equal(reason_of(c, "matrices/" U("19") ".xml"), "has no name");
        assert_non_null(strstr(reason_of(c, "matrices/" U("21") ".xml"), "version 2 is newer than 1"));
        assert_string_equal(reason_of(c, "matrices/." U("02") ".xml.new"), "is in the way of a definition");
}

static void test_bad_files(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, again = {};
        CLEANUP(freep) char *first = NULL, *second = NULL;
        CLEANUP(store_freep_test) Store *s = NULL;

        put_good(d, 1);
        make_bad_files(d);
        s = open_store(d, &c);
        check_bad_files(&c);

        assert_int_equal(file_read_at(d->fd, "set-aside/" U("10") ".xml", 64, &first, NULL), 0);
        assert_string_equal(first, "older");
        assert_true(exists(d, "set-aside/" U("10") ".xml.2"));
        assert_int_equal(file_read_at(d->fd, "set-aside/" U("11") ".xml", 64, &second, NULL), 0);
        assert_string_equal(second, "{}");
        assert_true(exists(d, "set-aside/" U("13") ".xml"));
        assert_true(exists(d, "set-aside/" U("14") ".xml"));
        assert_true(exists(d, "set-aside/README\n\xff"));
        assert_false(exists(d, "matrices/" U("11") ".xml"));
        assert_false(exists(d, "matrices/." U("01") ".xml.new"));
        assert_false(exists(d, "set-aside/." U("01") ".xml.new"));

        s = store_free(s);
        s = open_store(d, &again);
        assert_int_equal(again.n_bad, 0);
        assert_int_equal(again.n_records, 1);

        /* told as long as they lie there: whichever start found them */
        assert_int_equal(store_load_aside(s, &again), 0);
        assert_int_equal(again.n_bad, 14 + 2);
        assert_non_null(strstr(reason_of(&again, "set-aside/" U("10") ".xml.2"), "before this start"));
        assert_non_null(reason_of(&again, "set-aside/README??"));
        assert_int_equal(store_load_aside(s, &c), 0);
        assert_int_equal(c.n_bad, 14 + 2);
        assert_false(store_forget_aside(s, &c));
        assert_int_equal(unlinkat(d->fd, "set-aside/" U("11") ".xml", 0), 0);
        assert_int_equal(unlinkat(d->fd, "set-aside/README\n\xff", 0), 0);
        assert_true(store_forget_aside(s, &c));
        assert_int_equal(c.n_bad, 14);
        assert_true(store_forget_aside(s, &again));
        assert_int_equal(again.n_bad, 14);
        assert_false(store_forget_aside(s, &again));
}

/* What the journal has newer needs no file that can be read. */
static void test_bad_file_with_journal(void **state) {
        StateDir *d = *state;
        CLEANUP(fd_closep) int m = -1;
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {}, c3 = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        for (unsigned n = 1; n <= 5; n++)
                assert_int_equal(commit_one(s, put_of(n, 1, 0)), 0);
        assert_int_equal(commit_one(s, delete_of(5, 0)), 0);
        assert_int_equal(store_write_files(s, 8), 0);
        s = store_free(s);

        m = openat(d->fd, "matrices", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        write_file(m, U("01") ".xml", "");
        assert_int_equal(unlinkat(m, U("02") ".xml", 0), 0);
        assert_int_equal(mkdirat(m, U("02") ".xml", 0755), 0);
        assert_int_equal(mkdirat(m, U("02") ".xml/full", 0755), 0);
        assert_int_equal(unlinkat(m, U("03") ".xml", 0), 0);
        assert_int_equal(symlinkat("/nowhere", m, U("03") ".xml"), 0);
        assert_int_equal(unlinkat(m, U("04") ".xml", 0), 0);
        write_file(m, U("05") ".xml", "{}");

        s = open_store(d, &c2);
        assert_int_equal(c2.n_records, 4);
        assert_int_equal(c2.n_bad, 2);
        assert_string_equal(reason_of(&c2, "matrices/" U("02") ".xml"), "is no regular file");
        assert_string_equal(reason_of(&c2, "matrices/" U("03") ".xml"), "is no regular file");
        assert_true(exists(d, "set-aside/" U("02") ".xml/full"));

        s = store_free(s);
        s = open_store(d, &c3);
        assert_int_equal(c3.n_records, 4);
        assert_int_equal(c3.n_bad, 0);
}

/* Somebody changes files while we run: the next checkpoint puts ours back, and deletes nothing of theirs. */
static void test_files_tampered_with(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, again = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        CLEANUP(fd_closep) int m = openat(d->fd, "matrices", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_int_equal(commit_one(s, put_of(1, 1, 0)), 0);
        assert_int_equal(store_write_files(s, 8), 0);
        assert_int_equal(unlinkat(m, U("01") ".xml", 0), 0);
        assert_int_equal(mkdirat(m, U("02") ".xml", 0755), 0);
        assert_int_equal(mkdirat(m, U("02") ".xml/full", 0755), 0);
        assert_int_equal(commit_one(s, put_of(2, 1, 0)), 0);
        assert_int_equal(store_checkpoint(s), 0);
        assert_false(store_is_dirty(s));
        assert_true(exists(d, "set-aside/" U("02") ".xml/full"));

        s = store_free(s);
        s = open_store(d, &again);
        assert_int_equal(again.n_records, 2);
        assert_int_equal(again.n_bad, 0);
}

/* Who reads the files sees one commit after the other, and each definition as it was last in the end. */
static void test_files_in_order(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, again = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        assert_int_equal(commit_one(s, put_of(9, 1, 0)), 0);
        assert_int_equal(commit_one(s, delete_of(9, 0)), 0);
        assert_int_equal(commit_one(s, put_of(1, 1, 0)), 0);
        assert_int_equal(commit_one(s, put_of(9, 2, 0)), 0);

        assert_int_equal(store_write_files(s, 1), 1);
        assert_true(exists(d, "matrices/" U("09") ".xml"));
        assert_int_equal(store_write_files(s, 1), 1);
        assert_false(exists(d, "matrices/" U("09") ".xml"));
        assert_false(exists(d, "matrices/" U("01") ".xml"));
        assert_int_equal(store_write_files(s, 1), 1);
        assert_true(exists(d, "matrices/" U("01") ".xml"));
        assert_false(exists(d, "matrices/" U("09") ".xml"));

        assert_int_equal(store_checkpoint(s), 0);
        assert_true(exists(d, "matrices/" U("09") ".xml"));
        s = store_free(s);
        s = open_store(d, &again);
        assert_int_equal(again.n_records, 2);
        assert_true(ap_mask_test(&again.records[1].matrix.domains, 2));
}

static void put_named(const StateDir *d, unsigned i, const char *name) {
        CLEANUP(record_clear) Record r = record_of(i, 1);
        CLEANUP(freep) char *xml = NULL;
        char file[64];

        free(r.name);
        r.name = strdup(name);
        assert_int_equal(record_to_xml(&r, &xml), 0);
        (void) snprintf(file, sizeof file, "matrices/" U("%02x") ".xml", i);
        write_file(d->fd, file, xml);
}

static void check_same_names(StateDir *d) {
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        assert_non_null(s);
        assert_int_equal(c.n_records, 4);
        assert_string_equal(c.records[0].name, "twin");
        assert_string_equal(c.records[1].name, U("02"));
        assert_string_equal(c.records[2].name, U("03"));
        assert_string_equal(c.records[3].name, U("04"));
        assert_int_equal(c.n_bad, 3);
        assert_string_equal(reason_of(&c, "matrices/" U("02") ".xml"),
                            "has the name 'twin', as " U("01") " has");
        assert_string_equal(reason_of(&c, "matrices/" U("03") ".xml"),
                            "has the name 'twin', as " U("01") " has");
        assert_string_equal(reason_of(&c, "matrices/" U("04") ".xml"),
                            "has the name '" U("02") "', which is another's UUID");
        for (size_t i = 0; i < c.n_bad; i++)
                assert_true(c.bad[i].kept);
        assert_false(exists(d, "set-aside"));
}

/* All are kept, and who has the name depends on nothing but the UUIDs: not on what the directory lists first, nor on
 * what is in the journal. */
static void test_same_names(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, c1 = {}, c2 = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        StoreEntry put = put_of(2, 1, 0);

        free(put.record.name);
        put.record.name = strdup("twin");
        assert_int_equal(commit_one(s, put), 0);
        s = store_free(s);
        put_named(d, 3, "twin");
        put_named(d, 1, "twin");
        put_named(d, 4, U("02"));
        check_same_names(d);

        s = open_store(d, &c1);
        assert_int_equal(store_checkpoint(s), 0);
        s = store_free(s);
        check_same_names(d);

        assert_int_equal(unlinkat(d->fd, "matrices/" U("01") ".xml", 0), 0);
        s = open_store(d, &c2);
        assert_int_equal(c2.n_records, 3);
        assert_string_equal(c2.records[0].name, "twin");
        assert_true(uuid_equal(c2.records[0].uuid, uuid_of(2)));
        assert_string_equal(c2.records[1].name, U("03"));
}

/* The same with many of them, that were written before. */
static void test_many_files(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, again = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        for (unsigned i = 1; i <= 150; i++)
                assert_int_equal(commit_one(s, put_of(i, i, 0)), 0);
        assert_int_equal(store_write_files(s, 100), 1);
        assert_int_equal(unlinkat(d->fd, "matrices/" U("02") ".xml", 0), 0);
        assert_int_equal(unlinkat(d->fd, "matrices/" U("03") ".xml", 0), 0);
        assert_int_equal(mkdirat(d->fd, "matrices/" U("03") ".xml", 0755), 0);
        assert_int_equal(commit_one(s, put_of(4, 77, 0)), 0);
        assert_int_equal(commit_one(s, (StoreEntry) { .type = STORE_DELETE, .uuid = uuid_of(5) }), 0);
        assert_int_equal(store_checkpoint(s), 0);
        assert_false(store_is_dirty(s));
        s = store_free(s);

        assert_int_equal(unlinkat(d->fd, "journal", 0), 0); /* the files have it all */
        s = open_store(d, &again);
        assert_int_equal(again.n_records, 149);
        assert_int_equal(again.n_bad, 0);
        assert_true(exists(d, "set-aside/" U("03") ".xml"));
}

/* Names change places between two checkpoints, and the files are as old as can be. */
static void test_names_swapped(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {};
        CLEANUP(store_freep_test) Store *s = NULL;
        CLEANUP(record_clear) Record r = record_of(1, 1);
        CLEANUP(freep) char *xml = NULL;
        StoreEntry a = put_of(1, 2, 0), b = put_of(2, 2, 0);
        char *name = a.record.name;

        put_good(d, 1);
        put_good(d, 2);
        a.record.name = b.record.name;
        b.record.name = name;
        s = open_store(d, &c);
        assert_int_equal(commit_one(s, a), 0);
        assert_int_equal(commit_one(s, b), 0);
        s = store_free(s);
        assert_int_equal(record_to_xml(&r, &xml), 0);
        write_file(d->fd, "matrices/" U("01") ".xml", xml);

        s = open_store(d, &c2);
        assert_int_equal(c2.n_bad, 0);
        assert_int_equal(c2.n_records, 2);
        assert_string_equal(c2.records[0].name, "matrix-2");
        assert_string_equal(c2.records[1].name, "matrix-1");
}

/* The journal */

static off_t size_of(const StateDir *d, const char *name) {
        struct stat st;

        assert_int_equal(fstatat(d->fd, name, &st, 0), 0);
        return st.st_size;
}

/* The journal's text; what is behind it has to be zeros. */
static char *journal_text(const StateDir *d) {
        char *text = NULL;
        size_t size;

        assert_int_equal(file_read_at(d->fd, "journal", SIZE_MAX / 4, &text, &size), 0);
        for (size_t i = strlen(text); i < size; i++)
                assert_int_equal(text[i], 0);
        return text;
}

static size_t journal_length(const StateDir *d) {
        CLEANUP(freep) char *text = journal_text(d);

        return strlen(text);
}

/* Puts @text behind the journal's first @lines lines; UINT_MAX: behind all. The file keeps its size if that is larger. */
static void insert_in_journal(const StateDir *d, unsigned lines, const char *text) {
        CLEANUP(fd_closep) int fd = openat(d->fd, "journal", O_WRONLY | O_CLOEXEC);
        CLEANUP(freep) char *before = journal_text(d), *after = NULL;
        char *at = before;

        for (unsigned i = 0; i < lines && *at; i++)
                at += strcspn(at, "\n") + 1;
        assert_true(asprintf(&after, "%.*s%s%s", (int) (at - before), before, text, at) > 0);
        assert_int_equal(file_write_all_at(fd, after, strlen(after), 0), 0);
}

static void cut_journal(const StateDir *d) {
        CLEANUP(fd_closep) int fd = openat(d->fd, "journal", O_WRONLY | O_CLOEXEC);

        assert_int_equal(ftruncate(fd, (off_t) journal_length(d)), 0);
}

static void test_torn_tail(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {}, c3 = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);

        assert_int_equal(commit_one(s, put_of(1, 1, 0)), 0);
        s = store_free(s);
        insert_in_journal(d, UINT_MAX, "12345678 5 1/1 end 1 cut off");

        s = open_store(d, &c2);
        assert_int_equal(c2.n_bad, 0);
        assert_int_equal(c2.n_records, 1);
        assert_false(exists(d, "set-aside"));
        assert_int_equal(commit_one(s, put_of(2, 1, 0)), 0);
        s = store_free(s);

        s = open_store(d, &c3);
        assert_int_equal(c3.n_bad, 0);
        assert_int_equal(c3.n_records, 2);
}

static void test_damaged_middle(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {}, c3 = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        off_t old_size;

        for (unsigned i = 1; i <= 3; i++)
                assert_int_equal(commit_one(s, intent_of(i, "purpose")), 0);
        s = store_free(s);
        insert_in_journal(d, 3, "rubbish\nmore of it\n");
        old_size = size_of(d, "journal");

        s = open_store(d, &c2);
        assert_int_equal(c2.n_intents, 3);
        assert_int_equal(c2.n_bad, 1);
        assert_string_equal(reason_of(&c2, "journal"), "line 4: 2 lines cannot be used");
        assert_int_equal(size_of(d, "set-aside/journal"), old_size);
        s = store_free(s);

        s = open_store(d, &c3);
        assert_int_equal(c3.n_intents, 3);
        assert_int_equal(c3.n_bad, 0);
}

/* A definition in the journal that cannot be one (of a newer version, of a broken daemon) spoils its batch
 * only. */
static void test_bad_record_in_journal(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        JournalItem item = { .type = STORE_PUT, .uuid = uuid_of(9), .text = (char *) "<device/>" };
        CLEANUP(freep) char *batch = NULL;
        size_t size;

        assert_int_equal(journal_format(&item, 1, &batch, &size), 0);
        assert_int_equal(commit_one(s, put_of(1, 1, 0)), 0);
        s = store_free(s);
        insert_in_journal(d, 2, batch);

        s = open_store(d, &c2);
        assert_int_equal(c2.n_records, 1);
        assert_string_equal(reason_of(&c2, "journal"), "line 3: 1 lines cannot be used");
}

static void test_journal_of_other_kinds(void **state) {
        StateDir *d = *state;

        for (unsigned i = 0; i < 4; i++) {
                CLEANUP(store_content_clear) StoreContent c = {}, c2 = {};
                CLEANUP(store_freep_test) Store *s = NULL;
                CLEANUP(freep) char *set_aside = NULL;

                (void) unlinkat(d->fd, "journal", 0);
                if (i == 0)
                        assert_int_equal(mkdirat(d->fd, "journal", 0755), 0);
                else if (i == 1)
                        assert_int_equal(symlinkat("nowhere", d->fd, "journal"), 0);
                else
                        write_file(d->fd, "journal", i == 2 ? "" : "what is this?");

                s = open_store(d, &c);
                assert_int_equal(c.n_bad, 1);
                assert_non_null(reason_of(&c, "journal"));
                assert_true(asprintf(&set_aside, i == 0 ? "set-aside/journal" : "set-aside/journal.%u", i) >
                            0);
                assert_true(exists(d, set_aside));
                assert_int_equal(commit_one(s, put_of(i, 1, i + 1)), 0);

                s = store_free(s);
                s = open_store(d, &c2);
                assert_int_equal(c2.n_bad, 0);
                assert_int_equal(c2.n_records, i + 1);
                assert_int_equal(c2.last_op, i + 1);
        }
}

/* As somebody does who is to answer meanwhile. Returns in how many steps. */
static unsigned checkpoint_in_steps(Store *s) {
        unsigned n = 0;

        for (; store_write_files(s, 8) > 0 || store_sync_files(s, 8) > 0; n++)
                assert_true(store_is_long(s));
        assert_int_equal(store_checkpoint(s), 0);
        assert_false(store_is_long(s));
        return n;
}

/* However long it is, a commit writes the journal only. */
static void test_long_journal(void **state) {
        StateDir *d = *state;
        CLEANUP(freep) char *text = malloc(100001);
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        unsigned n_shrunk = 0;

        memset(text, 'x', 100000);
        text[100000] = '\0';
        for (unsigned i = 1; i <= 40; i++)
                assert_int_equal(commit_one(s, put_of(i, 1, 0)), 0);
        for (uint64_t op = 1; op < 130; op++) {
                assert_int_equal(commit_one(s, intent_of(op, text)), 0);
                if (op != 129)
                        assert_int_equal(commit_one(s, (StoreEntry) { .type = STORE_END, .op = op }), 0);
                assert_int_equal(store_is_long(s), journal_length(d) > STORE_JOURNAL_MAX);
                if (journal_length(d) < STORE_JOURNAL_MAX + 1000000)
                        continue;

                assert_int_equal(exists(d, "matrices/" U("01") ".xml"), n_shrunk > 0);
                assert_int_equal(checkpoint_in_steps(s), n_shrunk == 0 ? 8 : 0);
                assert_true(exists(d, "matrices/" U("01") ".xml"));
                assert_true(size_of(d, "journal") < 100000 + 2 * STORE_JOURNAL_AHEAD);
                n_shrunk++;
        }
        assert_true(n_shrunk > 1);
        s = store_free(s);

        s = open_store(d, &c2);
        assert_int_equal(c2.n_records, 40);
        assert_int_equal(c2.n_intents, 1);
        assert_string_equal(c2.intents[0].text, text);
}

/* Where nobody makes a checkpoint, a commit does before it is too late. */
static void test_too_long_journal(void **state) {
        StateDir *d = *state;
        CLEANUP(freep) char *text = malloc(1000001);
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        size_t longest = 0;

        memset(text, 'x', 1000000);
        text[1000000] = '\0';
        assert_int_equal(commit_one(s, put_of(1, 1, 0)), 0);
        for (uint64_t op = 1; op < 20 * STORE_JOURNAL_MAX / 1000000; op++) {
                assert_int_equal(commit_one(s, intent_of(op, text)), 0);
                assert_int_equal(commit_one(s, (StoreEntry) { .type = STORE_END, .op = op }), 0);
                longest = MAX(longest, (size_t) size_of(d, "journal"));
        }
        assert_in_range(longest, STORE_JOURNAL_LIMIT - 1000000, STORE_JOURNAL_LIMIT + 2000000);
        assert_true((size_t) size_of(d, "journal") < longest / 2);
        assert_true(exists(d, "matrices/" U("01") ".xml"));
}

/* The journal is there before it is used: a commit changes bytes only. */
static void test_written_ahead(void **state) {
        StateDir *d = *state;
        CLEANUP(freep) char *text = malloc(50001);
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {}, c3 = {};
        CLEANUP(store_freep_test) Store *s = open_store(d, &c);
        size_t length = journal_length(d), filled;
        off_t size = size_of(d, "journal");
        struct rlimit old, small;

        memset(text, 'x', 50000);
        text[50000] = '\0';
        assert_int_equal(size, length + STORE_JOURNAL_AHEAD);
        for (unsigned i = 1; i <= 2; i++) {
                assert_int_equal(commit_one(s, intent_of(i, text)), 0);
                assert_int_equal(size_of(d, "journal"), size);
        }
        filled = journal_length(d);
        assert_true(filled > length + 100000);
        assert_int_equal(commit_one(s, intent_of(3, text)), 0);
        length = journal_length(d);
        assert_int_equal(size_of(d, "journal"), length + STORE_JOURNAL_AHEAD);
        s = store_free(s);

        /* the next one begins a journal of its own, since this one has something; and the one after it goes on with that */
        for (unsigned i = 0; i < 2; i++) {
                StoreContent *content = i == 0 ? &c2 : &c3;
                struct stat st, was = {};

                assert_true(i == 0 || fstatat(d->fd, "journal", &was, 0) == 0);
                s = open_store(d, content);
                assert_int_equal(content->n_intents, 3);
                assert_int_equal(fstatat(d->fd, "journal", &st, 0), 0);
                assert_int_equal(st.st_size, journal_length(d) + STORE_JOURNAL_AHEAD);
                assert_true(i == 0 || st.st_ino == was.st_ino);
                s = store_free(s);
        }

        /* one without, as older versions made them, gets it with the first commit */
        cut_journal(d);
        store_content_clear(&c3);
        s = open_store(d, &c3);
        assert_int_equal(size_of(d, "journal"), journal_length(d));
        assert_int_equal(commit_one(s, intent_of(4, "purpose")), 0);
        assert_int_equal(size_of(d, "journal"), journal_length(d) + STORE_JOURNAL_AHEAD);
        s = store_free(s);

        /* where there is no room for it, it grows as it is used */
        store_content_clear(&c3);
        s = open_store(d, &c3);
        s = store_free(s);
        cut_journal(d);
        store_content_clear(&c3);
        s = open_store(d, &c3);
        length = journal_length(d);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        small = (struct rlimit) { length + 1000, old.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        for (unsigned i = 5; i <= 7; i++) {
                assert_int_equal(commit_one(s, intent_of(i, "purpose")), 0);
                assert_true(journal_length(d) > length);
                length = journal_length(d);
                assert_int_equal(size_of(d, "journal"), length);
        }
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        s = store_free(s);

        store_content_clear(&c3);
        s = open_store(d, &c3);
        assert_int_equal(c3.n_intents, 7);
        assert_int_equal(c3.n_bad, 0);
}

/* What a power cut leaves of an append: some of its pages, in any order. */
static void test_torn_ahead(void **state) {
        static const char *const whole = "garbage of a page that came\nsecond line\n";
        StateDir *d = *state;

        for (unsigned hole = 0; hole < 2; hole++) {
                CLEANUP(store_content_clear) StoreContent c = {}, c2 = {}, c3 = {};
                CLEANUP(store_freep_test) Store *s = open_store(d, &c);
                CLEANUP(fd_closep) int fd = -1;
                off_t size;

                assert_int_equal(commit_one(s, put_of(1, hole, 0)), 0);
                s = store_free(s);
                size = size_of(d, "journal");
                fd = openat(d->fd, "journal", O_WRONLY | O_CLOEXEC);
                assert_int_equal(file_write_all_at(fd, whole, strlen(whole),
                                                   (off_t) journal_length(d) + (hole ? 4096 : 0)),
                                 0);
                assert_int_equal(size_of(d, "journal"), size);

                s = open_store(d, &c2);
                assert_int_equal(c2.n_bad, 0);
                assert_int_equal(c2.n_records, 1 + hole);
                assert_int_equal(commit_one(s, put_of(2, hole, 0)), 0);
                s = store_free(s);
                s = open_store(d, &c3);
                assert_int_equal(c3.n_bad, 0);
                assert_int_equal(c3.n_records, 2);
        }
}

/* Masks */

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

/* Versions */

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

/* Failures of the disk */

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

/* Drops root's right to ignore permissions; nothing to do for others. */
static void become_nobody(const StateDir *d) {
        if (geteuid() == 0) {
                assert_int_equal(fchown(d->fd, 65534, 65534), 0);
                assert_int_equal(seteuid(65534), 0);
        }
}

static void become_root(void) {
        if (getuid() == 0)
                assert_int_equal(seteuid(0), 0);
}

static void test_read_only(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {}, c2 = {};
        CLEANUP(store_freep_test) Store *s = NULL;
        bool writable = true;

        become_nobody(d);
        put_good(d, 1);
        make_bad_files(d);
        assert_int_equal(fchmod(d->fd, 0555), 0);
        s = NULL;
        assert_int_equal(store_open(d->fd, &s, &c, &writable), 0);
        assert_false(writable);
        check_bad_files(&c);
        assert_true(exists(d, "matrices/" U("11") ".xml"));
        assert_true(exists(d, "matrices/." U("01") ".xml.new"));
        assert_int_equal(commit_one(s, put_of(2, 1, 0)), -EACCES);
        assert_int_equal(store_checkpoint(s), -EACCES);
        assert_int_equal(store_reopen(s), -EACCES);

        assert_int_equal(fchmod(d->fd, 0755), 0);
        become_root();
        assert_int_equal(store_reopen(s), 0);
        assert_int_equal(commit_one(s, put_of(2, 1, 0)), 0);
        s = store_free(s);

        s = open_store(d, &c2);
        assert_int_equal(c2.n_records, 2);
        assert_int_equal(c2.n_bad, 14);
}

static void test_unreadable(void **state) {
        StateDir *d = *state;
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = NULL;
        bool writable = false;

        become_nobody(d);
        put_good(d, 1);
        put_good(d, 2);
        assert_int_equal(fchmodat(d->fd, "matrices/" U("01") ".xml", 0, 0), 0);
        assert_int_equal(store_open(d->fd, &s, &c, &writable), 0);
        become_root();
        assert_true(writable);
        assert_int_equal(c.n_records, 1);
        assert_int_equal(c.n_bad, 1);
        assert_string_equal(reason_of(&c, "matrices/" U("01") ".xml"), "Permission denied");
        assert_true(exists(d, "set-aside/" U("01") ".xml"));
}

int main(void) {
#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, state_dir_setup, state_dir_teardown)
        const struct CMUnitTest tests[] = {
                STORE_TEST(test_first_use),
                STORE_TEST(test_all_entries),
                STORE_TEST(test_lock),
                STORE_TEST(test_bad_entries),
                STORE_TEST(test_bad_files),
                STORE_TEST(test_bad_file_with_journal),
                STORE_TEST(test_files_tampered_with),
                STORE_TEST(test_files_in_order),
                STORE_TEST(test_many_files),
                STORE_TEST(test_same_names),
                STORE_TEST(test_names_swapped),
                STORE_TEST(test_torn_tail),
                STORE_TEST(test_damaged_middle),
                STORE_TEST(test_bad_record_in_journal),
                STORE_TEST(test_journal_of_other_kinds),
                STORE_TEST(test_long_journal),
                STORE_TEST(test_too_long_journal),
                STORE_TEST(test_written_ahead),
                STORE_TEST(test_torn_ahead),
                STORE_TEST(test_bad_masks),
                STORE_TEST(test_versions),
                STORE_TEST(test_short_write),
                STORE_TEST(test_poison),
                STORE_TEST(test_removed),
                STORE_TEST(test_read_only),
                STORE_TEST(test_unreadable),
        };

        /* a limit on file sizes is to give an error */
        signal(SIGXFSZ, SIG_IGN);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
