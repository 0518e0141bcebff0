/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_rules - the masks that udev sets at each boot: etc/udev/rules.d/41-ap.rules, which chzdev of s390-tools writes and
 * ap-check reads. Ours is of their form. What others have written into that file stays. All but the pure ones block:
 * file worker. */

#include <stdbool.h>
#include <stddef.h>

#include <sys/types.h>

#include "core/ap_mask.h"

#define HOST_RULES_PATH "/etc/udev/rules.d/41-ap.rules" /* for people */

typedef struct HostRules {
        bool there;                  /* there is such a file */
        bool has_apmask, has_aqmask; /* it sets them, to: */
        ApMask apmask, aqmask;
        unsigned n_foreign; /* lines that chzdev would not have written, comments included */
        char *problem;      /* why it cannot be used, one line; or NULL */
} HostRules;

void host_rules_clear(HostRules *r);

/* What @text, NUL-terminated, sets; the last assignment counts, as for udev. Pure. 0 or -ENOMEM. */
int host_rules_parse(const char *text, HostRules *ret);

/* @text (NULL: there is no file) such that it sets these masks, all else as it was; free(*ret). Pure. -EEXIST: it has
 * labels of the form without being of it, so that nothing can be added. -ENOMEM. */
int host_rules_edit(const char *text, const ApMask *apmask, const ApMask *aqmask, char **ret);

/* @ret_text (may be NULL): the file's text, NULL if there is none or it cannot be used; free(). 0 or -errno. */
int host_rules_read(int root_fd, HostRules *ret, char **ret_text);

/* Replaces the file as a whole, synced, and reads it again. 0; -ESTALE: what is read is not what was written. */
int host_rules_write(int root_fd, const char *text, HostRules *ret);

#define HOST_RULES_RETRY_US 30000 /* when to try again while the lock is taken */

enum {
        HOST_RULES_LOCKED = 1, /* the AP lock, which chzdev has while it writes the file, is *ret_holder's */
        HOST_RULES_UNUSABLE,   /* *ret has the problem */
        HOST_RULES_FULL,       /* nothing can be added: host_rules_edit() */
};

/* Reads, edits and writes it under the AP lock, for which one attempt is made; @dry_run: without lock and writing.
 * *ret_text: what the file has now, or would have; free(). 0, one of the above, or -errno. */
int host_rules_persist(int root_fd, const ApMask *apmask, const ApMask *aqmask, bool dry_run, HostRules *ret,
                       char **ret_text, bool *ret_changed, pid_t *ret_holder);
