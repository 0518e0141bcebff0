/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* chaos_interfere - colleagues who know nothing of guestcryptd: one types into sysfs, one uses mdevctl. They write down beforehand what
 * they may come to have. */

#include <stdatomic.h>

#include "chaos_check.h"

/* Where everything happens: some queues are the host's, some adapters and domains are not there. */
extern const unsigned chaos_adapters[], chaos_domains[];
#define CHAOS_ADAPTERS 6
#define CHAOS_DOMAINS  5

/* A random part of them, small. */
void chaos_pick(unsigned *seed, Ids *ret_adapters, Ids *ret_domains);

typedef struct Interference {
        const atomic_bool *stop;
        unsigned seed;
        const char *scratch; /* a directory */
        unsigned long done, refused;
} Interference;

/* pthread start routines; @userdata is an Interference. */
void *interfere_sysfs(void *userdata);
void *interfere_mdevctl(void *userdata);
