/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_prefetch - attributes that will be read one by one, read all at once: a Sysfs before another one.
 *
 * What was loaded is given out once, to the first who reads it; all else goes through. So nobody sees anything older than the
 * last load, and nobody the same reading twice. */

#include <stdbool.h>

#include "host/sysfs.h"

#define HOST_PREFETCH_MAX 64

typedef struct HostPrefetch HostPrefetch;

/* @sysfs stays the caller's. 0 or -ENOMEM. */
int host_prefetch_new(Sysfs *sysfs, HostPrefetch **ret);

/* Accepts NULL; returns NULL. */
HostPrefetch *host_prefetch_free(HostPrefetch *p);

/* To read from; the prefetch's. */
Sysfs *host_prefetch_sysfs(HostPrefetch *p);

/* Forgets what is left from the last time. */
void host_prefetch_clear(HostPrefetch *p);

/* Notes @path for the next load; one too many, or one that is too long, is left out. */
void host_prefetch_add(HostPrefetch *p, const char *path);
bool host_prefetch_is_full(const HostPrefetch *p);

/* Reads what was noted. */
void host_prefetch_load(HostPrefetch *p);

static inline void host_prefetch_freep(HostPrefetch **p) {
        (void) host_prefetch_free(*p);
}
