/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/program.h"

static char *const no_env[] = { NULL };

/* What is to be 3 and 4 stands at 4 and 3, as it may where few files are open, and what is no program's business at 5. */
static void test_each_has_its_number(void **state) {
        char *argv[] = { (char *) "sh", (char *) "-c",
                         (char *) "read a <&3; read b <&4; [ -e /proc/$$/fd/5 ]; echo $a $b $?", NULL };
        int first[2], second[2], output[2], status = 0;
        char text[32] = "";
        pid_t pid;

        for (int fd = 3; fd < 6; fd++) /* so that nothing else stands there */
                assert_true(dup2(STDERR_FILENO, fd) == fd);
        assert_int_equal(pipe2(first, O_CLOEXEC), 0);
        assert_int_equal(pipe2(second, O_CLOEXEC), 0);
        assert_int_equal(pipe2(output, O_CLOEXEC), 0);
        assert_int_equal(write(first[1], "first\n", 6), 6);
        assert_int_equal(write(second[1], "second\n", 7), 7);
        assert_int_equal(dup3(first[0], 4, O_CLOEXEC), 4);
        assert_int_equal(dup3(second[0], 3, O_CLOEXEC), 3);

        assert_int_equal(program_spawn("/bin/sh", argv, no_env,
                                       (int[]) { PROGRAM_NULL, output[1], PROGRAM_OURS, 4, 3 }, 5, &pid),
                         0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_true(read(output[0], text, sizeof text - 1) > 0);
        assert_string_equal(text, "first second 1\n");
        for (int i = 0; i < 2; i++) {
                (void) fd_close(first[i]);
                (void) fd_close(second[i]);
                (void) fd_close(output[i]);
        }
        for (int fd = 3; fd < 6; fd++)
                (void) fd_close(fd);
}

static void test_no_program(void **state) {
        char *argv[] = { (char *) "none", NULL };
        int status = 0, r;
        pid_t pid = -1;

        r = program_spawn("/nonexistent/none", argv, no_env, (int[]) { PROGRAM_NULL }, 1, &pid);
        if (r == 0) { /* an emulator's vfork() has a memory of its own, so that nobody but the child knows */
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 127);
        } else
                assert_int_equal(r, -ENOENT);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_each_has_its_number),
                cmocka_unit_test(test_no_program),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
