/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/run.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define OUTPUT_MAX (64 * 1024)

/* In the new process. Only system calls: other threads may have held locks. */
static int become(const RunOptions *o, int output_fd) {
        sigset_t none;
        int null_fd;

        (void) setpgid(0, 0);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) signal(SIGPIPE, SIG_DFL);

        null_fd = open("/dev/null", O_RDONLY);
        if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
            dup2(output_fd, STDERR_FILENO) < 0)
                return -errno;
        for (size_t i = 0; i < ELEMENTS(o->keep_fds); i++)
                if (o->keep_fds[i] >= 0 && fcntl(o->keep_fds[i], F_SETFD, 0) < 0)
                        return -errno;
        if (o->uid != (uid_t) -1 &&
            (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, o->uid, o->uid, o->uid) < 0 ||
             syscall(SYS_setresuid, o->uid, o->uid, o->uid) < 0))
                return -errno;
        /* as that user: above it may be directories that he cannot pass */
        return o->directory_fd >= 0 && fchdir(o->directory_fd) < 0 ? -errno : 0;
}

/* Starts it; what it cannot do comes back through the pipe that its start closes. */
static int start(const RunOptions *o, int output_fd, pid_t *ret_pid) {
        int error_fds[2], error = 0;
        ssize_t n;
        pid_t pid;

        if (pipe2(error_fds, O_CLOEXEC) < 0)
                return -errno;

        pid = fork();
        if (pid == 0) {
                error = become(o, output_fd);
                if (error == 0) {
                        (void) execvpe(o->argv[0], (char **) o->argv, (char **) o->env);
                        error = -errno;
                }
                _exit(write(error_fds[1], &error, sizeof error) > 0 ? 127 : 126);
        }
        if (pid < 0)
                error = -errno;
        (void) fd_close(error_fds[1]);
        while (pid > 0 && (n = read(error_fds[0], &error, sizeof error)) < 0 && errno == EINTR)
                ;
        (void) fd_close(error_fds[0]);
        if (error < 0 && pid > 0)
                while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        if (error == 0)
                *ret_pid = pid;
        return error;
}

static void last_line(char *output, int (*is_noise)(const char *line), char ret[static RUN_TEXT_SIZE]) {
        ret[0] = '\0';
        for (char *save, *line = strtok_r(output, "\r\n", &save); line;
             line = strtok_r(NULL, "\r\n", &save)) {
                line += strspn(line, " \t");
                if (*line == '\0' || (is_noise && is_noise(line)))
                        continue;
                (void) strncpy(ret, line, RUN_TEXT_SIZE - 1);
                ret[RUN_TEXT_SIZE - 1] = '\0';
        }
        for (char *c = ret; *c; c++)
                if ((unsigned char) *c < ' ' || *c == 0x7f)
                        *c = ' ';
}

/* Reads until the last who has it open is gone. What is beyond the limit replaces the oldest half. */
static int collect(int fd, uint64_t deadline, char *output, size_t *size) {
        for (;;) {
                struct pollfd p = { .fd = fd, .events = POLLIN };
                uint64_t now = clock_now_us();
                ssize_t n;
                int r;

                if (now >= deadline)
                        return -ETIME;
                r = poll(&p, 1, (int) MIN((deadline - now) / 1000 + 1, UINT64_C(1000000)));
                if (r < 0 && errno != EINTR)
                        return -errno;
                if (r <= 0)
                        continue;

                if (*size == OUTPUT_MAX) {
                        memmove(output, output + OUTPUT_MAX / 2, OUTPUT_MAX / 2);
                        *size = OUTPUT_MAX / 2;
                }
                n = read(fd, output + *size, OUTPUT_MAX - *size);
                if (n == 0)
                        return 0;
                if (n > 0)
                        *size += (size_t) n;
                else if (errno != EINTR)
                        return -errno;
        }
}

/* It may have closed its output and go on. */
static int await(pid_t pid, uint64_t deadline, int *ret_status) {
        CLEANUP(fd_closep) int pid_fd = (int) syscall(SYS_pidfd_open, pid, 0);
        struct pollfd p = { .fd = pid_fd, .events = POLLIN };
        uint64_t now;

        if (pid_fd < 0)
                return -errno;
        while ((now = clock_now_us()) < deadline)
                if (poll(&p, 1, (int) MIN((deadline - now) / 1000 + 1, UINT64_C(1000000))) > 0)
                        return waitpid(pid, ret_status, 0) < 0 ? -errno : 0;
        return -ETIME;
}

int run_wait(pid_t pid) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int run_program(const RunOptions *o, char ret_text[static RUN_TEXT_SIZE], char **ret_output) {
        uint64_t deadline = clock_now_us() + o->timeout_us;
        CLEANUP(freep) char *output = NULL;
        int fds[2], status = 0, r;
        size_t size = 0;
        pid_t pid = -1;

        ret_text[0] = '\0';
        output = malloc(OUTPUT_MAX + 1);
        if (!output)
                return -ENOMEM;
        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;

        r = start(o, fds[1], &pid);
        (void) fd_close(fds[1]);
        if (r >= 0) {
                r = collect(fds[0], deadline, output, &size);
                if (r >= 0)
                        r = await(pid, deadline, &status);
                if (r < 0) {
                        (void) kill(-pid, SIGKILL);
                        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                                ;
                }
        }
        (void) fd_close(fds[0]);
        if (r < 0 && r != -ETIME)
                return r;

        output[size] = '\0';
        if (ret_output) {
                *ret_output = strdup(output);
                if (!*ret_output)
                        return -ENOMEM;
        }
        last_line(output, o->is_noise, ret_text);
        if (r < 0)
                return r;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
