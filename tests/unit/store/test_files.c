/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The definitions' files: bad ones are named with their reason and moved away, and all else is there; ours follow the commits. */

#include "state_dir.h"

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
        const struct CMUnitTest tests[] = {
                STORE_TEST(test_bad_files),           STORE_TEST(test_bad_file_with_journal),
                STORE_TEST(test_files_tampered_with), STORE_TEST(test_files_in_order),
                STORE_TEST(test_same_names),          STORE_TEST(test_many_files),
                STORE_TEST(test_names_swapped),       STORE_TEST(test_read_only),
                STORE_TEST(test_unreadable),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
