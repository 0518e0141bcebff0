/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* hook - libvirt's hook of QEMU guests: tells guestcryptd what becomes of a guest that asks for something of ours in its
 * domain XML, and refuses its start in the daemon's words. libvirt runs it as "PROGRAM GUEST OPERATION SUBOPERATION EXTRA"
 * with the XML on standard input, and shows what it says on standard error. Nothing is ever written to standard
 * output: libvirt would take that for the guest's new XML.
 *
 * There are two programs. guestcrypt-hook is the one that libvirt knows; it has no library but libc, since most guests have
 * nothing of ours and shall not wait until a parser and a bus are loaded. Only where something of ours may be does it
 * become guestcrypt-hook-event, which begins anew with the same arguments and input. While a hook runs libvirt answers
 * nothing about its guest, so that there are deadlines. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "virt/virt_xml.h"

#define HOOK_EVENT_PROGRAM "guestcrypt-hook-event" /* beside guestcrypt-hook */
#define HOOK_HOLDS_DIR     "/run/guestcrypt/guests" /* a file for each guest that holds something, by its UUID */

enum {
        HOOK_OK = 0,
        HOOK_REFUSED = 1,
        HOOK_USAGE = 2,
};

typedef struct HookOperation {
        const char *name;
        uint64_t deadline_us,
                tpm_deadline_us; /* for the daemon's answer; the latter if a TPM may have to start */
        bool forgiving; /* nothing can be refused (any more): a failure is told, but the status is 0 */
        bool gives_up;  /* concerns what the guest holds, also if its XML does not tell any more */
} HookOperation;

typedef struct Hook {
        const HookOperation *operation;
        const char *guest, *suboperation, *extra; /* as libvirt gave them; "" where it did not */
        char *const *argv;
        const char *holds_dir;
        FILE *err;
} Hook;

/* One line to @h->err, whatever is in it. */
void hook_tell(const Hook *h, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* All that can be read from @fd. *ret is NUL-terminated, free(). -EFBIG above @max bytes. */
int hook_read(int fd, size_t max, char **ret, size_t *ret_size);

/* What is to be done with an XML that there may be something of ours in. HOOK_OK or HOOK_REFUSED, told. */
typedef int (*hook_next_t)(const Hook *h, const char *xml, size_t size);

/* Whether @guest holds something: it may be started or runs, for all that the daemon knows. */
bool hook_holds(const Hook *h, Uuid guest);

/* Reads @in and leaves what may concern us to @next. Returns the exit status. */
int hook_run(int argc, char *const *argv, int in, FILE *err, const char *holds_dir, hook_next_t next);

/* Asks the daemon. 0; HOOK_REFUSED with a line in *reterr_text (free()), also if it cannot be reached; -errno. */
typedef int (*hook_send_t)(const Hook *h, const VirtWiring *needs, char **reterr_text);
int hook_send(const Hook *h, const VirtWiring *needs, char **reterr_text);

/* Reads what the XML asks for, and lets @send ask the daemon for it. */
int hook_event(const Hook *h, const char *xml, size_t size, hook_send_t send);
