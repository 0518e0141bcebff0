/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* cleanup - scope-bound release of locals. Destructors take NULL. */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* clang-format off */
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define TAKE(p)     ({ __auto_type _taken = (p); (p) = NULL; _taken; })
#define TAKE_FD(fd) ({ int _taken = (fd); (fd) = -1; _taken; })

#define ELEMENTS(a) (sizeof(a) / sizeof *(a))
#define CONTAINER_OF(p, t, m) ((t *) ((char *) (p) - offsetof(t, m)))
#define MIN(a, b)           ({ __auto_type _a = (a); __auto_type _b = (b); _a < _b ? _a : _b; })
#define MAX(a, b)           ({ __auto_type _a = (a); __auto_type _b = (b); _a > _b ? _a : _b; })
/* clang-format on */

static inline void freep(void *p) {
        free(*(void **) p);
}

static inline void fclosep(FILE **f) {
        if (*f)
                (void) fclose(*f);
}

static inline void closedirp(DIR **d) {
        if (*d)
                (void) closedir(*d);
}

/* Closes @fd, if it is one, keeping errno; returns -1 to be assigned. */
int fd_close(int fd);

static inline void fd_closep(int *fd) {
        *fd = fd_close(*fd);
}
