/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* replay - a main for fuzz targets: runs each file of the directories and files named on the command line
 * through the target, so that a kept corpus is an ordinary test without clang. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned n_inputs;

static int replay_file(int fd, const char *name) {
        uint8_t *data;
        struct stat st;
        ssize_t n;

        if (fstat(fd, &st) < 0)
                return -errno;

        data = malloc((size_t) st.st_size + 1);
        if (!data)
                return -ENOMEM;

        n = read(fd, data, (size_t) st.st_size);
        if (n == st.st_size) {
                /* an exact copy, so that a sanitizer sees a read behind the end */
                uint8_t *exact = malloc((size_t) n > 0 ? (size_t) n : 1);

                if (exact) {
                        memcpy(exact, data, (size_t) n);
                        (void) LLVMFuzzerTestOneInput(exact, (size_t) n);
                        n_inputs++;
                        free(exact);
                }
        } else
                (void) fprintf(stderr, "replay: '%s' cannot be read\n", name);
        free(data);
        return n == st.st_size ? 0 : -EIO;
}

static int replay_path(int at, const char *path) {
        struct dirent *entry;
        struct stat st;
        DIR *dir;
        int fd, r = 0;

        fd = openat(at, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0) {
                (void) fprintf(stderr, "replay: '%s': %s\n", path, strerror(errno));
                return -errno;
        }
        if (!S_ISDIR(st.st_mode)) {
                r = replay_file(fd, path);
                (void) close(fd);
                return r;
        }

        dir = fdopendir(fd);
        if (!dir)
                return -errno;
        while (r >= 0 && (entry = readdir(dir)))
                if (entry->d_name[0] != '.')
                        r = replay_path(dirfd(dir), entry->d_name);
        (void) closedir(dir);
        return r;
}

int main(int argc, char **argv) {
        for (int i = 1; i < argc; i++)
                if (replay_path(AT_FDCWD, argv[i]) < 0)
                        return 1;

        if (n_inputs == 0) {
                (void) fprintf(stderr, "replay: no input\n");
                return 1;
        }
        (void) printf("%u inputs\n", n_inputs);
        return 0;
}
