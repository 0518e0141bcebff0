/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* gang - threads that wait until their owner has something for all of them, and do it together with it. What they share
 * meanwhile is their affair. */

#include <stddef.h>

typedef struct Gang Gang;

/* What each of them does: @member is 0 in the owner's thread, 1 and on in the others. 0 or negative. */
typedef int (*gang_work_t)(void *userdata, size_t member);

/* @n threads, with all signals blocked. 0 or -errno. */
int gang_new(size_t n, Gang **ret);

/* Without the owner. */
size_t gang_size(const Gang *g);

/* Returns when all have returned from @fn: 0, or what was negative, the owner's first. */
int gang_work(Gang *g, gang_work_t fn, void *userdata);

/* Ends the threads. Accepts NULL; returns NULL. */
Gang *gang_free(Gang *g);
