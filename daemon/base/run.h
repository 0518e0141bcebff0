/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* run - runs a program to its end and keeps what it last said. Blocks: never from the loop. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RUN_TEXT_SIZE 512

typedef struct RunOptions {
        const char *const *argv; /* NULL-terminated; the program is looked for in PATH */
        const char *const *env;  /* NULL-terminated */
        uid_t uid;               /* with the group of the same number and no other; (uid_t) -1: as we are */
        int directory_fd;        /* its working directory; -1: ours */
        int keep_fds[2];         /* it gets these, under the same numbers; -1: none */
        uint64_t timeout_us;
        /* Lines that say nothing of use; NULL: none. */
        int (*is_noise)(const char *line);
} RunOptions;

/* Its exit status (128 + the signal that ended it), or -errno: -ETIME past the timeout (it and what it has started are killed),
 * -ENOENT if there is no such program. @ret_text: the last line of its output, NUL-terminated, perhaps empty. All of its
 * output goes to @ret_output (free()), if that is not NULL; at most 64 KiB. */
int run_program(const RunOptions *o, char ret_text[static RUN_TEXT_SIZE], char **ret_output);

/* The exit status of a child of ours, as above. Waits for it. */
int run_wait(pid_t pid);
