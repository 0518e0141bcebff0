/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sandbox - what the process gives up before it looks at the first byte of a guest: its user, its capabilities, all files and sockets
 * that it does not have open yet, all memory beyond a little, and nearly all of the kernel. */

#include <stdbool.h>
#include <sys/types.h>

/* Becomes user @name (or uid) with its group, if we are root; without @name root stays root, without capabilities. 0 or -errno. */
int sandbox_user(const char *name);

/* To be called when all that needs files, sockets or rights is done. 0 or -errno. */
int sandbox_enter(void);
