/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* ap_lock - the lock of s390-tools (ap-check, chzdev) for changes of AP masks and matrices: a file with the
 * holder's pid, made by link(2). Ours carries the pid of the process that makes the change, so that it is
 * stale the moment that process is gone. Never to be taken in a pid namespace of one's own: the pid would
 * look dead to others. */

#include <sys/types.h>

#define AP_LOCK_POLL_US 30000 /* how often to try again, as s390-tools do */

/* One attempt in directory @dir_fd, for process @owner: our own, or one that waits for us. 0: it is that one's; 1: another living process has it, *ret_holder is its pid
 * (0 if it has not written it yet); or -errno. */
int ap_lock_try(int dir_fd, pid_t owner, pid_t *ret_holder);

/* Gives it back if it is @pid's: our own, or that of a child of ours which hangs for ever. 0 or -errno. */
int ap_lock_release(int dir_fd, pid_t pid);
