/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/program.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

#include "base/cleanup.h"

int program_spawn(const char *path, char *const argv[], char *const env[], const int *fds, size_t n_fds,
                  pid_t *ret) {
        int copies[PROGRAM_FDS_MAX], r = 0;
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t all, none;
        size_t n = 0;

        assert(n_fds <= ELEMENTS(copies));

        (void) sigfillset(&all);
        (void) sigemptyset(&none);
        (void) posix_spawn_file_actions_init(&actions);
        (void) posix_spawnattr_init(&attributes);
        for (size_t i = 0; r == 0 && i < n_fds; i++)
                if (fds[i] >= 0) {
                        /* out of the way of the numbers that they will have there */
                        copies[n] = fcntl(fds[i], F_DUPFD_CLOEXEC, (int) n_fds);
                        r = copies[n] < 0 ? errno
                                          : posix_spawn_file_actions_adddup2(&actions, copies[n], (int) i);
                        n++;
                } else if (fds[i] == PROGRAM_NULL)
                        r = posix_spawn_file_actions_addopen(&actions, (int) i, "/dev/null", O_RDWR, 0);
        if (r == 0)
                r = posix_spawn_file_actions_addclosefrom_np(&actions, (int) n_fds);
        if (r == 0)
                r = posix_spawnattr_setsigdefault(&attributes, &all);
        if (r == 0)
                r = posix_spawnattr_setsigmask(&attributes, &none);
        if (r == 0)
                r = posix_spawnattr_setpgroup(&attributes, 0);
        if (r == 0)
                r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                                                  POSIX_SPAWN_SETPGROUP);
        if (r == 0)
                r = posix_spawn(ret, path, &actions, &attributes, argv, env);
        (void) posix_spawn_file_actions_destroy(&actions);
        (void) posix_spawnattr_destroy(&attributes);
        while (n > 0)
                (void) fd_close(copies[--n]);
        return -r;
}
