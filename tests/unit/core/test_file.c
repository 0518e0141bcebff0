/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "tests/lib/core/test.h"

static char dir_name[64];
static int dir = -1;

static int setup(void **state) {
        strcpy(dir_name, "/tmp/guestcrypt-test-file-XXXXXX");
        if (!mkdtemp(dir_name))
                return -1;
        dir = open(dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return dir < 0 ? -1 : 0;
}

static int teardown(void **state) {
        static const char *const files[] = { "f", "link", "fifo", ".f.new" };
        static const char *const dirs[] = { "a/b/c", "a/b", "a", "d" };

        for (size_t i = 0; i < ELEMENTS(files); i++)
                (void) unlinkat(dir, files[i], 0);
        for (size_t i = 0; i < ELEMENTS(dirs); i++)
                (void) unlinkat(dir, dirs[i], AT_REMOVEDIR);
        dir = fd_close(dir);
        return rmdir(dir_name);
}

static void expect(const char *content) {
        CLEANUP(freep) char *text = NULL;
        size_t size = 0;

        assert_int_equal(file_read_at(dir, "f", 100, &text, &size), 0);
        assert_string_equal(text, content);
        assert_int_equal(size, strlen(content));
}

static void test_replace(void **state) {
        struct stat st;

        assert_int_equal(file_replace(dir, "f", "old", 3), 0);
        expect("old");
        assert_int_equal(file_replace(dir, "f", "newer", 5), 0);
        expect("newer");
        assert_int_equal(file_replace(dir, "f", "", 0), 0);
        expect("");
        assert_int_equal(fstatat(dir, "f", &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(faccessat(dir, ".f.new", F_OK, AT_SYMLINK_NOFOLLOW), -1);

        /* what stands there is replaced, not written through; what cannot be replaced stays, and nothing is
         * left lying */
        assert_int_equal(symlinkat("f", dir, "link"), 0);
        assert_int_equal(file_replace(dir, "link", "text", 4), 0);
        expect("");
        assert_int_equal(mkdirat(dir, "d", 0700), 0);
        assert_int_equal(file_replace(dir, "d", "text", 4), -EISDIR);
        assert_int_equal(faccessat(dir, ".d.new", F_OK, AT_SYMLINK_NOFOLLOW), -1);
        assert_int_equal(file_replace(dir, "no/f", "text", 4), -ENOENT);
}

static void test_read_refuses(void **state) {
        char byte, *text = &byte;
        size_t size = 77;

        assert_int_equal(file_write_synced(dir, "f", "four", 4), 0);
        assert_int_equal(symlinkat("f", dir, "link"), 0);
        assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);

        assert_int_equal(file_read_at(dir, "f", 3, &text, &size), -EFBIG);
        assert_int_equal(file_read_at(dir, "none", 100, &text, &size), -ENOENT);
        assert_int_equal(file_read_at(dir, "link", 100, &text, &size), -ELOOP);
        assert_int_equal(file_read_at(dir, "fifo", 100, &text, &size), -EBADMSG);
        assert_int_equal(file_read_at(dir, ".", 4096, &text, &size), -EBADMSG);
        assert_true(text == &byte && size == 77);

        assert_int_equal(file_read_at(dir, "f", 4, &text, NULL), 0);
        assert_string_equal(text, "four");
        free(text);
}

static void test_write_synced(void **state) {
        assert_int_equal(file_write_synced(dir, "f", "a long text", 11), 0);
        assert_int_equal(file_write_synced(dir, "f", "short", 5), 0);
        expect("short");
        assert_int_equal(symlinkat("f", dir, "link"), 0);
        assert_int_equal(file_write_synced(dir, "link", "x", 1), -ELOOP);
        expect("short");
}

static void test_write_all(void **state) {
        int full;

        full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        assert_true(full >= 0);
        assert_int_equal(file_write_all(full, "x", 1), -ENOSPC);
        assert_int_equal(file_write_all(full, "", 0), 0);
        assert_int_equal(fd_close(full), -1);
        assert_int_equal(file_write_all(-1, "x", 1), -EBADF);
        errno = EXDEV;
        assert_int_equal(fd_close(-1), -1);
        assert_int_equal(errno, EXDEV);
}

static void test_open_dir(void **state) {
        CLEANUP(fd_closep) int fd = -1, again = -1;
        struct stat a, b;

        fd = file_open_dir(dir, "a/b/c");
        assert_true(fd >= 0);
        again = file_open_dir(dir, "a/b/c");
        assert_true(again >= 0);
        assert_int_equal(fstat(fd, &a), 0);
        assert_int_equal(fstatat(dir, "a/b/c", &b, 0), 0);
        assert_true(a.st_ino == b.st_ino);

        assert_int_equal(file_write_synced(dir, "f", "", 0), 0);
        assert_int_equal(file_open_dir(dir, "f"), -ENOTDIR);
        assert_int_equal(file_open_dir(dir, "f/x"), -ENOTDIR);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_replace, setup, teardown),
                cmocka_unit_test_setup_teardown(test_read_refuses, setup, teardown),
                cmocka_unit_test_setup_teardown(test_write_synced, setup, teardown),
                cmocka_unit_test(test_write_all),
                cmocka_unit_test_setup_teardown(test_open_dir, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
