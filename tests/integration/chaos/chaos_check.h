/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* chaos_check - the independent witness: looks at sysfs and at the definitions on disk, and at nothing else, and says where
 * two have the same queue. Shares no code with the daemon, so that no error of one hides an error of the other. */

#include <stdbool.h>
#include <stddef.h>

#define IDS        256
#define OWNER_SIZE 80

typedef struct Ids {
        bool has[IDS];
} Ids;

bool ids_any(const Ids *a);
/* Whether the matrices share a queue; which. */
bool matrix_overlaps(const Ids *adapters, const Ids *domains, const Ids *other_adapters,
                     const Ids *other_domains, unsigned *ret_adapter, unsigned *ret_domain);
/* "0x" and 64 digits, as the kernel prints them. */
bool ids_parse_mask(const char *text, Ids *ret);

typedef struct Checker {
        const char *sys;         /* "/sys" */
        const char *definitions; /* ".../var/lib/guestcrypt/matrices" */
        unsigned long looks;
        unsigned long mdevs, records; /* seen, in all looks together */
        unsigned n_overlaps;
        char first[512]; /* what the first one was */
} Checker;

/* One look at everything. An overlap counts if the same device, or file, has the queue each time that both sides are read once more:
 * they are read one after the other, and a queue may have moved from one to the next in between. */
void checker_look(Checker *c);
