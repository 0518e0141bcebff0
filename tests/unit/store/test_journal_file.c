/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The journal on the disk: torn, damaged, long, and written ahead. */

#include <limits.h>
#include <signal.h>
#include <sys/resource.h>

#include "state_dir.h"

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

static bool is_long(const Store *s) {
        return store_journal_size(s) > STORE_JOURNAL_MAX;
}

/* As somebody does who is to answer meanwhile. Returns in how many steps. */
static unsigned checkpoint_in_steps(Store *s) {
        unsigned n = 0;

        for (; store_write_files(s, 8) > 0 || store_sync_files(s, 8) > 0; n++)
                assert_true(is_long(s));
        assert_int_equal(store_checkpoint(s), 0);
        assert_false(is_long(s));
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
                assert_int_equal(is_long(s), journal_length(d) > STORE_JOURNAL_MAX);
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
        assert_true(longest > STORE_JOURNAL_LIMIT - 1000000 && longest < STORE_JOURNAL_LIMIT + 2000000);
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

int main(void) {
        const struct CMUnitTest tests[] = {
                STORE_TEST(test_torn_tail),
                STORE_TEST(test_damaged_middle),
                STORE_TEST(test_bad_record_in_journal),
                STORE_TEST(test_journal_of_other_kinds),
                STORE_TEST(test_long_journal),
                STORE_TEST(test_too_long_journal),
                STORE_TEST(test_written_ahead),
                STORE_TEST(test_torn_ahead),
        };

        /* a limit on file sizes is to give an error */
        signal(SIGXFSZ, SIG_IGN);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
