/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* callout - mdevctl's callout for AP matrices: has guestcryptd check whatever mdevctl, or virsh by way of mdevctl, is about
 * to do to one, and holds the lock of s390-tools while it does it. mdevctl runs it as "PROGRAM -t TYPE -e EVENT -a ACTION
 * -s STATE -u UUID -p PARENT"; the device is JSON on standard input, what is on standard error is shown to the user.
 *
 * Never by a signal, and with no status but these: mdevctl takes a callout that was killed for one that agrees. */

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/uuid.h"
#include "core/ap_matrix.h"

enum {
        CALLOUT_OK = 0,
        CALLOUT_REFUSED = 1,
        CALLOUT_NOT_MINE = 2, /* another callout may be for this type */
};

#define CALLOUT_TYPE        "vfio_ap-passthrough"
#define CALLOUT_PARENT      "matrix"
#define CALLOUT_VERSION     2 /* of what mdevctl's "capabilities" says that it provides */
#define CALLOUT_DEADLINE_US (10 * UINT64_C(1000000))
#define CALLOUT_LOCK_TRIES  3000 /* times AP_LOCK_POLL_US, as s390-tools */
#define CALLOUT_ASK_TRIES   3    /* of daemons that were replaced meanwhile */

typedef struct Callout {
        const char *event, *action;
        Uuid uuid;
        int root_fd;
        FILE *in, *out, *err;
        pid_t mdevctl; /* who runs it */
} Callout;

/* ---- callout_bus.c; replaced in tests. 0; CALLOUT_REFUSED or -EHOSTDOWN (nobody answers) with a line in *reterr_text
 * (free()); other -errno ---- */

/* *ret_daemon: who has answered; free(). */
int callout_begin(const Callout *c, const char *action, const char *json, pid_t process, char **ret_daemon,
                  char **reterr_text);
/* Whether that one is still there: 1; 0: there is another one, or none. */
int callout_confirm(const char *daemon);
/* What @process has begun is over. */
int callout_end(const Callout *c, pid_t process, char **reterr_text);
/* What the daemon knows of a live mdev, for kernels that do not show it. */
int callout_ask_matrix(const Callout *c, ApMatrix *ret, char **reterr_text);

/* ---- callout.c ---- */

/* Returns the exit status. */
int callout_run(int argc, char *const *argv, const Callout *streams);
