/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* notify - the service manager's side: descriptors that it hands over at start, the store in which it keeps ours over a restart,
 * readiness and status (sd_notify(3), sd_listen_fds(3); the protocol is stable and small, a library would cost a megabyte here).
 * All but notify_open() do nothing without a manager. */

#include <stddef.h>
#include <stdint.h>

#include "drivers/virtio-tpm/loop.h"

/* Connects to $NOTIFY_SOCKET now, since there will be no socket() later. 0 (also if there is none) or -errno. */
int notify_open(void);

/* From here on, until notify_end(), a manager that does not listen is never waited for: what it is to keep or to forget is put off until it
 * does, and *@unsaid is not 0 as long as it does not know everything, which is for ever if it is gone or refuses something. What it gives to a
 * process after us is not to be relied on then. */
void notify_begin(Loop *loop, uint32_t *unsaid);
void notify_end(void);

/* "none"; "told": it knows everything; "behind": it does not. */
const char *notify_manager(void);

/* Sends assignments such as "READY=1", newline-separated. 0 or -errno. */
int notify_send(const char *text);

/* Puts @fd into the store under @name, in place of what has that name. The descriptor stays the caller's. */
int notify_store(const char *name, int fd);

/* Takes what has that name out of the store. */
int notify_discard(const char *name);

/* The descriptors handed over: calls @each for each one, which owns it then; those with no name are called "unknown". */
int notify_received(void (*each)(void *userdata, const char *name, int fd), void *userdata);
