/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/program.h"
#include "virt/virt_emulator.h"

#define TIMEOUT_US 5000000
#define OUTPUT_MAX (512 * 1024)
#define CACHE_MAX  16

typedef struct Asked {
        char *path;
        dev_t device;
        ino_t inode;
        off_t size;
        struct timespec modified;
        Emulator answer;
} Asked;

static Asked cache[CACHE_MAX];
static size_t next_cached;

/* All it writes until it closes its output, or until @until_us. */
static int read_output(int fd, uint64_t until_us, char *buffer, size_t size) {
        size_t n = 0;

        for (;;) {
                struct pollfd p = { .fd = fd, .events = POLLIN };
                uint64_t now = clock_now_us();
                ssize_t k;

                if (now >= until_us || poll(&p, 1, (int) ((until_us - now) / 1000 + 1)) == 0)
                        return -ETIME;
                if (n + 1 >= size)
                        break;
                k = read(fd, buffer + n, size - n - 1);
                if (k < 0 && errno != EINTR)
                        return -errno;
                if (k == 0)
                        break;
                if (k > 0)
                        n += (size_t) k;
        }
        buffer[n] = '\0';
        return 0;
}

static int run(const char *path, char *const argv[], char *buffer, size_t size) {
        char *env[] = { (char *) "PATH=/usr/sbin:/usr/bin:/sbin:/bin", (char *) "LC_ALL=C", NULL };
        int pipe_fd[2], r;
        pid_t pid;

        if (pipe2(pipe_fd, O_CLOEXEC) < 0)
                return -errno;
        r = program_spawn(path, argv, env, (int[]) { PROGRAM_NULL, pipe_fd[1], PROGRAM_NULL }, 3, &pid);
        (void) fd_close(pipe_fd[1]);
        if (r >= 0) {
                r = read_output(pipe_fd[0], clock_now_us() + TIMEOUT_US, buffer, size);
                /* also those that it may have started; the process is not waited for yet, so that the number is its own */
                (void) kill(-pid, SIGKILL);
                (void) waitpid(pid, NULL, 0);
        }
        (void) fd_close(pipe_fd[0]);
        return r;
}

static int ask(const char *path, char *buffer, Emulator *ret) {
        char *help[] = { (char *) path, (char *) "-device", (char *) "help", NULL };
        char *version[] = { (char *) path, (char *) "--version", NULL };
        Emulator e = {};
        const char *p;
        int r;

        r = run(path, help, buffer, OUTPUT_MAX);
        if (r < 0)
                return r;
        if (!strstr(buffer, "name \""))
                return -EBADMSG;
        e.vfio_user = strstr(buffer, "name \"vfio-user-pci\"");
        e.crb = strstr(buffer, "name \"tpm-crb\"");
        e.tis = strstr(buffer, "name \"tpm-tis\"") || strstr(buffer, "name \"tpm-tis-device\"");

        r = run(path, version, buffer, OUTPUT_MAX);
        p = r >= 0 ? strstr(buffer, "version ") : NULL;
        if (p) {
                size_t n = strspn(p + strlen("version "), "0123456789.");

                if (n < sizeof e.version)
                        memcpy(e.version, p + strlen("version "), n);
        }
        *ret = e;
        return 0;
}

static bool is_same(const Asked *a, const char *path, const struct stat *st) {
        return a->path && strcmp(a->path, path) == 0 && a->device == st->st_dev && a->inode == st->st_ino &&
               a->size == st->st_size && a->modified.tv_sec == st->st_mtim.tv_sec &&
               a->modified.tv_nsec == st->st_mtim.tv_nsec;
}

int emulator_ask(const char *path, Emulator *ret) {
        CLEANUP(freep) char *buffer = NULL;
        struct stat st;
        Asked *a;
        int r;

        if (*path != '/')
                return -ENOENT;
        if (stat(path, &st) < 0)
                return -errno;
        for (size_t i = 0; i < CACHE_MAX; i++)
                if (is_same(cache + i, path, &st)) {
                        *ret = cache[i].answer;
                        return 0;
                }

        buffer = malloc(OUTPUT_MAX);
        if (!buffer)
                return -ENOMEM;
        r = ask(path, buffer, ret);
        if (r < 0)
                return r;

        a = cache + next_cached++ % CACHE_MAX;
        free(a->path);
        *a = (Asked) { .path = strdup(path),
                       .device = st.st_dev,
                       .inode = st.st_ino,
                       .size = st.st_size,
                       .modified = st.st_mtim,
                       .answer = *ret };
        return 0;
}
