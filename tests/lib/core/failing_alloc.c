/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/lib/core/failing_alloc.h"

#include <errno.h>
#include <stddef.h>

static int countdown = -1;
static bool done;

void failing_alloc_arm(int n) {
        countdown = n;
        done = false;
}

bool failing_alloc_done(void) {
        countdown = -1;
        return done;
}

static bool fails(void) {
        if (countdown < 0 || countdown-- > 0)
                return false;
        done = true;
        errno = ENOMEM;
        return true;
}

/* What the linker's --wrap makes of calls to NAME (__wrap_NAME) and to __real_NAME. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t size) {
        return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size) {
        return fails() ? NULL : __real_realloc(p, size);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size) {
        return fails() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *s) {
        return fails() ? NULL : __real_strdup(s);
}
