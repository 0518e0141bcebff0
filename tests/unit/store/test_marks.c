/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Marks: those of one kind are links to one file, and whatever a killed process has left, no mark changes with another. */

#include "state_dir.h"
#include "store/marks.h"

static void set(const StateDir *d, unsigned n, MarkKind kind) {
        assert_int_equal(marks_set(d->fd, uuid_of(n), kind), 0);
}

static MarkKind get(const StateDir *d, unsigned n) {
        CLEANUP(freep) Mark *marks = NULL;
        MarkKind kind = MARK_NONE;
        unsigned found = 0;
        size_t n_marks;

        assert_int_equal(marks_read(d->fd, &marks, &n_marks), 0);
        for (size_t i = 0; i < n_marks; i++)
                if (uuid_equal(marks[i].uuid, uuid_of(n))) {
                        kind = marks[i].kind;
                        found++;
                }
        assert_int_equal(found, kind != MARK_NONE);
        return kind;
}

static ino_t inode(const StateDir *d, const char *name) {
        struct stat st;

        assert_int_equal(fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
        return st.st_ino;
}

static void test_kinds(void **state) {
        static const MarkKind kinds[] = { MARK_LIVE, MARK_PENDING, MARK_MDEV };
        StateDir *d = *state;

        for (size_t from = 0; from < ELEMENTS(kinds); from++)
                for (size_t to = 0; to < ELEMENTS(kinds); to++) {
                        set(d, 1, kinds[from]);
                        set(d, 2, kinds[from]);
                        assert_int_equal(inode(d, U("01")), inode(d, U("02")));
                        set(d, 1, kinds[to]);
                        assert_int_equal(get(d, 1), kinds[to]);
                        assert_int_equal(get(d, 2), kinds[from]);
                        set(d, 1, MARK_NONE);
                        set(d, 1, MARK_NONE);
                        assert_int_equal(get(d, 1), MARK_NONE);
                        assert_int_equal(get(d, 2), kinds[from]);
                }
}

/* A process was killed with its new mark linked already, and its successor cannot make links. */
static void test_links_left(void **state) {
        StateDir *d = *state;

        set(d, 2, MARK_LIVE);
        assert_int_equal(linkat(d->fd, ".live", d->fd, "." U("01") ".new", 0), 0);
        assert_int_equal(mkdirat(d->fd, ".mdev", 0700), 0);
        set(d, 1, MARK_MDEV);
        assert_int_equal(get(d, 1), MARK_MDEV);
        assert_int_equal(get(d, 2), MARK_LIVE);
        set(d, 3, MARK_LIVE);
        assert_int_equal(get(d, 3), MARK_LIVE);

        /* the same where links can be made */
        assert_int_equal(linkat(d->fd, ".live", d->fd, "." U("02") ".new", 0), 0);
        set(d, 2, MARK_PENDING);
        assert_int_equal(get(d, 2), MARK_PENDING);
        assert_int_equal(get(d, 3), MARK_LIVE);
}

static void test_no_marks(void **state) {
        StateDir *d = *state;

        write_file(d->fd, U("01"), "");
        write_file(d->fd, U("02"), "alive\n");
        write_file(d->fd, "README", "live\n");
        assert_int_equal(mkdirat(d->fd, U("03"), 0700), 0);
        set(d, 4, MARK_LIVE);
        for (unsigned n = 1; n <= 3; n++)
                assert_int_equal(get(d, n), MARK_NONE);
        assert_int_equal(get(d, 4), MARK_LIVE);
        set(d, 1, MARK_LIVE);
        assert_int_equal(get(d, 1), MARK_LIVE);

        assert_int_equal(marks_is_booted(d->fd), 0);
        assert_int_equal(marks_set_booted(d->fd), 0);
        assert_int_equal(marks_set_booted(d->fd), 0);
        assert_int_equal(marks_is_booted(d->fd), 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                STORE_TEST(test_kinds),
                STORE_TEST(test_links_left),
                STORE_TEST(test_no_marks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
