/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* verdict - what the engine answers besides "done" and "broken". bus/bus_error.c maps each to an error
 * name. */

#include <stdlib.h>

typedef enum Verdict {
        VERDICT_OK,
        VERDICT_OVERLAP,       /* an APQN is in another matrix, definition or operation */
        VERDICT_HOST_OWNED,    /* an APQN is left to the host's drivers */
        VERDICT_NOT_INSTALLED, /* an id is above the machine's maximum */
        VERDICT_LIMIT_HIT,     /* quota, queue full */
        VERDICT_NO_SUCH_MATRIX,
        VERDICT_NO_SUCH_MDEV,
        VERDICT_NO_SUCH_PARENT, /* parent or type */
        VERDICT_NO_INSTANCES,   /* the type has none left */
        VERDICT_EXISTS,         /* name or uuid is taken */
        VERDICT_IN_USE,         /* a guest runs with it */
        VERDICT_BAD_STATE,      /* started already, not started, an operation on it is under way */
        VERDICT_CONFIG_LOCKED,  /* AP lock not had in time */
        VERDICT_STUCK,          /* a kernel operation hangs */
        VERDICT_NOT_OURS,       /* a foreign object, left alone */
        VERDICT_BAD_RECORD,     /* its record was set aside */
        VERDICT_BACKEND,        /* sysfs, AP bus or state directory cannot be used */
        VERDICT_KERNEL,         /* the kernel refused a write; `error` */
        VERDICT_NO_SUCH_GUEST,
        VERDICT_NO_SUCH_TPM,
        VERDICT_LIBVIRT,     /* libvirt refused; its text */
        VERDICT_TPM,         /* swtpm or its tools refused; their text */
        VERDICT_UNSUPPORTED, /* not with this guest, emulator, or version: the text says what would work */
        VERDICT_INVALID,     /* the request makes no sense: InvalidArgs */
        _VERDICT_MAX
} Verdict;

typedef struct Refusal {
        Verdict verdict;
        int error;  /* the negative errno behind it, or 0 */
        char *text; /* one line: what was refused, by whom, what to do */
} Refusal;

static inline void refusal_clear(Refusal *r) {
        free(r->text);
        *r = (Refusal) {};
}
