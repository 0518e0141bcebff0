/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* program - starts a program beside us. */

#include <stddef.h>
#include <sys/types.h>

#define PROGRAM_FDS_MAX 8
#define PROGRAM_NULL    (-1) /* /dev/null */
#define PROGRAM_OURS    (-2) /* what we have under that number */

/* Starts @path in a process group of its own, with no signal blocked or ignored. It gets @fds, which stay the caller's, under
 * the numbers 0, 1, ... and nothing else that is open; there are at most PROGRAM_FDS_MAX. *ret is for the caller to wait for. 0 or
 * -errno. */
int program_spawn(const char *path, char *const argv[], char *const env[], const int *fds, size_t n_fds,
                  pid_t *ret);
