/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "drivers/virtio-tpm/memory.h"
#include "unit/vtpm/vtpm_test.h"

#define KIB UINT64_C(1024)

static MemoryTable *table;
static Memory memory;
static int last_file = -1, last_fd = -1;

static void on_file(void *userdata, unsigned file, int fd) {
        last_file = (int) file;
        last_fd = fd;
}

static int setup(void **state) {
        table = calloc(1, sizeof *table);
        return table ? memory_init(&memory, table, on_file, NULL) : -1;
}

static int teardown(void **state) {
        memory_done(&memory);
        free(table);
        return 0;
}

static int file(uint64_t size) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t) size), 0);
        return fd;
}

static void test_map(void **state) {
        static const struct {
                const char *name;
                uint64_t start, size, offset;
                int want;
        } cases[] = {
                { "nothing", 0, 0, 0, -EINVAL },
                { "wraps", UINT64_MAX, 2, 0, -EINVAL },
                { "wraps by far", 4096, UINT64_MAX, 0, -EINVAL },
                { "offset wraps", 0, 4096, UINT64_MAX - 100, -EINVAL },
                { "longer than its file", 0, 65537, 0, -EINVAL },
                { "behind its file", 0, 4096, 65536, -EINVAL },
                { "good", 65536, 65536, 0, 0 },
                { "the same again", 65536, 65536, 0, -EEXIST },
                { "within", 70000, 1, 0, -EEXIST },
                { "over the start", 65535, 2, 0, -EEXIST },
                { "over the end", 131071, 2, 0, -EEXIST },
                { "around", 0, 65536 * 3, 0, -EEXIST },
                { "before", 65535, 1, 0, 0 },
                { "behind, at an odd offset", 131072, 100, 4097, 0 },
                { "at the very end of all addresses", UINT64_MAX, 1, 0, 0 },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                if (memory_map(&memory, cases[i].start, cases[i].size, cases[i].offset,
                               MEMORY_READ | MEMORY_WRITE, file(65536)) != cases[i].want)
                        fail_msg("%s", cases[i].name);
        assert_int_equal(memory.n_ranges, 4);
        assert_int_equal(memory_unmap(&memory, 65536, 65535), -ENOENT);
        assert_int_equal(memory_unmap(&memory, 65537, 65535), -ENOENT);
        assert_int_equal(memory_unmap(&memory, 65536, 65536), 0);
        assert_int_equal(memory_unmap(&memory, 65536, 65536), -ENOENT);
        assert_int_equal(memory_unmap_within(&memory, 131072, 99), -EINVAL);
        assert_int_equal(memory_unmap_within(&memory, 131073, 200), -EINVAL);
        assert_int_equal(memory_unmap_within(&memory, 2, UINT64_MAX), -EINVAL);
        assert_int_equal(memory.n_ranges, 3);
        assert_int_equal(memory_unmap_within(&memory, 0, 65536 * 3), 0);
        assert_int_equal(memory.n_ranges, 1); /* the one at the very end */
        assert_int_equal(memory_unmap_within(&memory, 0, 65536 * 3), 0);
        memory_clear(&memory);
        assert_int_equal(memory.n_ranges, 0);
}

static void test_access(void **state) {
        uint8_t in[200], out[200] = {};
        uint16_t n = 77;
        int fd = file(64 * KIB), dup1 = fcntl(fd, F_DUPFD_CLOEXEC, 0), dup2 = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        for (size_t i = 0; i < sizeof in; i++)
                in[i] = (uint8_t) (i + 1);
        /* side by side in addresses, far apart in the file */
        assert_int_equal(memory_map(&memory, 1000, 100, 0, MEMORY_READ | MEMORY_WRITE, fd), 0);
        assert_int_equal(memory_map(&memory, 1100, 100, 8 * KIB, MEMORY_READ | MEMORY_WRITE, dup1), 0);
        assert_int_equal(memory_map(&memory, 1200, 100, 0, MEMORY_READ, dup2), 0);
        assert_int_equal(memory_map(&memory, 1300, 100, 0, MEMORY_READ | MEMORY_WRITE, -1), 0);

        assert_int_equal(memory_write(&memory, 1000, in, 200), 0);
        assert_int_equal(memory_read(&memory, 1000, out, 200), 0);
        assert_memory_equal(in, out, 200);
        assert_int_equal(memory_read(&memory, 1200, out, 100), 0); /* the first piece again, read-only */
        assert_memory_equal(in, out, 100);

        assert_int_equal(memory_write(&memory, 1200, in, 1), -EFAULT);
        assert_int_equal(memory_read(&memory, 1300, out, 1), -EFAULT); /* no file */
        assert_int_equal(memory_read(&memory, 999, out, 2), -EFAULT);
        assert_int_equal(memory_read(&memory, UINT64_MAX, out, 2), -EFAULT);
        assert_int_equal(memory_check(&memory, 1000, 300, MEMORY_READ), 0);
        assert_int_equal(memory_check(&memory, 1000, 300, MEMORY_WRITE), -EFAULT);
        assert_int_equal(memory_check(&memory, 1000, 401, MEMORY_READ), -EFAULT);
        assert_int_equal(memory_check(&memory, 1000, UINT64_MAX, MEMORY_READ), -EFAULT);
        assert_int_equal(memory_check(&memory, 5, 0, MEMORY_READ), 0);
        assert_int_equal(memory_read16(&memory, 1099, &n), -EFAULT); /* over two ranges */
        assert_int_equal(n, 77);
        assert_int_equal(memory_read16(&memory, 1000, &n), 0);
        assert_int_equal(n, 0x0201); /* little-endian */
        assert_int_equal(memory_write16(&memory, 1001, 0x0304), 0);
        assert_int_equal(memory_read(&memory, 1001, out, 2), 0);
        assert_int_equal(out[0], 4);

        assert_int_equal(memory.files[0].refs, 3); /* one file, however it came */
        memory_clear(&memory);
}

/* A file that shrinks below its mapping costs the access, not the process. */
static void test_shrink(void **state) {
        int fd = file(64 * KIB);
        uint8_t out[16];

        memory_done(&memory); /* cmocka took our signal handler away */
        assert_int_equal(memory_init(&memory, table, on_file, NULL), 0);
        assert_int_equal(memory_map(&memory, 0, 64 * KIB, 0, MEMORY_READ | MEMORY_WRITE,
                                    fcntl(fd, F_DUPFD_CLOEXEC, 0)),
                         0);
        assert_int_equal(memory_read(&memory, 60 * KIB, out, sizeof out), 0);
        assert_int_equal(ftruncate(fd, 4 * KIB), 0);
        assert_int_equal(memory_read(&memory, 60 * KIB, out, sizeof out), -EFAULT);
        assert_int_equal(memory_write(&memory, 60 * KIB, out, sizeof out), -EFAULT);
        assert_int_equal(memory_read(&memory, 60 * KIB, out, sizeof out), -EFAULT); /* and again */
        assert_int_equal(memory_read(&memory, 0, out, sizeof out), 0);
        (void) close(fd);
        memory_clear(&memory);
}

static void test_rights(void **state) {
        int fd = file(4 * KIB), reader, pipes[2];
        char path[64];

        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        reader = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(reader >= 0);
        assert_int_equal(memory_map(&memory, 0, 4 * KIB, 0, MEMORY_READ | MEMORY_WRITE,
                                    fcntl(reader, F_DUPFD_CLOEXEC, 0)),
                         -EACCES);
        assert_int_equal(memory_map(&memory, 0, 4 * KIB, 0, MEMORY_READ, reader), 0);
        assert_int_equal(memory_map(&memory, 4 * KIB, 4 * KIB, 0, MEMORY_READ | MEMORY_WRITE, fd), 0);

        /* no file at all: known, but nothing to look at */
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        assert_int_equal(memory_map(&memory, 8 * KIB, 4 * KIB, 0, MEMORY_READ, pipes[0]), 0);
        assert_int_equal(memory_map(&memory, 8 * KIB, 4 * KIB, 0, MEMORY_READ, -1), -EEXIST);
        assert_false(memory_has(&memory, 8 * KIB, 4 * KIB));
        assert_true(memory_has(&memory, 4 * KIB, 4 * KIB));
        assert_int_equal(memory_check(&memory, 8 * KIB, 1, MEMORY_READ), -EFAULT);
        (void) close(pipes[1]);
        memory_clear(&memory);
}

/* A file that grew is mapped as it is now. */
static void test_grow(void **state) {
        int fd = file(4 * KIB);
        uint8_t byte = 9, got = 0;

        assert_int_equal(memory_map(&memory, 0, 4 * KIB, 0, MEMORY_READ | MEMORY_WRITE,
                                    fcntl(fd, F_DUPFD_CLOEXEC, 0)),
                         0);
        assert_int_equal(ftruncate(fd, 1024 * KIB), 0);
        assert_int_equal(memory_map(&memory, 4 * KIB, 4 * KIB, 1020 * KIB, MEMORY_READ | MEMORY_WRITE, fd),
                         0);
        assert_int_equal(memory_write(&memory, 8 * KIB - 1, &byte, 1), 0);
        assert_int_equal(memory_read(&memory, 8 * KIB - 1, &got, 1), 0);
        assert_int_equal(got, 9);
        memory_clear(&memory);
}

/* As many as are announced, then no more; all is found; slots are used again. */
static void test_many(void **state) {
        int fd = file(4 * KIB);
        uint8_t out[4];

        for (uint64_t i = 0; i < MEMORY_RANGES_MAX; i++)
                assert_int_equal(memory_map(&memory, i * 2 * 4096, 4096, 0, MEMORY_READ,
                                            fcntl(fd, F_DUPFD_CLOEXEC, 0)),
                                 0);
        assert_int_equal(memory_map(&memory, 4096, 4096, 0, MEMORY_READ, fcntl(fd, F_DUPFD_CLOEXEC, 0)),
                         -ENOSPC);
        assert_int_equal(memory_read(&memory, UINT64_C(65534) * 8192, out, sizeof out), 0);
        assert_int_equal(memory_read(&memory, UINT64_C(65534) * 8192 + 4096, out, sizeof out), -EFAULT);
        for (uint64_t i = 0; i < MEMORY_RANGES_MAX; i += 2)
                assert_int_equal(memory_unmap(&memory, i * 2 * 4096, 4096), 0);
        assert_int_equal(memory_map(&memory, 4096, 4096, 0, MEMORY_READ, fcntl(fd, F_DUPFD_CLOEXEC, 0)), 0);

        /* what the next process makes of it: the file is missing first, then there */
        memory_done(&memory);
        assert_int_equal(memory_init(&memory, table, on_file, NULL), 0);
        assert_int_equal(memory_restore_file(&memory, 0, fcntl(fd, F_DUPFD_CLOEXEC, 0)), 0);
        assert_int_equal(memory_restore(&memory), 0);
        assert_int_equal(memory.n_ranges, 65535 / 2 + 1);
        assert_int_equal(memory_read(&memory, 4096, out, sizeof out), 0);
        memory_clear(&memory);
        assert_int_equal(last_file, 0);
        assert_int_equal(last_fd, -1);
        (void) close(fd);
}

/* A descriptor over more pieces than anybody has is not looked at for ever. */
static void test_scattered(void **state) {
        int fd = file(4 * KIB);

        for (uint64_t i = 0; i < 1000; i++)
                assert_int_equal(memory_map(&memory, i * 16, 16, 0, MEMORY_READ,
                                            fcntl(fd, F_DUPFD_CLOEXEC, 0)),
                                 0);
        assert_int_equal(memory_check(&memory, 0, 16 * 64, MEMORY_READ), 0);
        assert_int_equal(memory_check(&memory, 0, 16 * 65, MEMORY_READ), -EFAULT);
        memory_clear(&memory);
        (void) close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_map, setup, teardown),
                cmocka_unit_test_setup_teardown(test_access, setup, teardown),
                cmocka_unit_test_setup_teardown(test_shrink, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
                cmocka_unit_test_setup_teardown(test_grow, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many, setup, teardown),
                cmocka_unit_test_setup_teardown(test_scattered, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
