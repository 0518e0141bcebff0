/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm_tree - directories of TPMs: made, given to their user, made durable, removed. Never through a symbolic link. All block. */

#include <sys/types.h>

/* A directory that is opened, and made with @mode where missing. A descriptor or -errno. */
int vtpm_dir_open(int dir_fd, const char *name, mode_t mode);
/* The same as a new one; -EEXIST. */
int vtpm_dir_make(int dir_fd, const char *name, mode_t mode);

/* Everything of that name; nothing there is no error. */
int vtpm_tree_remove(int dir_fd, const char *name);

/* Gives @fd, a directory with files only, and all in it to @uid and its group; files 0600, the directory 0700; all on stable storage. */
int vtpm_tree_give(int fd, uid_t uid);

/* The lock in a TPM's directory, held by who runs it or changes it: a descriptor whose end gives it up, -EBUSY, or -errno. Goes
 * to children. */
int vtpm_lock(int tpm_fd, const char *name);
/* The same, waiting for it. */
int vtpm_lock_wait(int tpm_fd, const char *name);
