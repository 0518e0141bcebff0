/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "chaos_log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct Entry {
        char kind[16], owner[OWNER_SIZE];
        Ids adapters, domains;
        uint64_t from, to;
} Entry;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Entry *entries;
static size_t n_entries, allocated;

uint64_t log_now(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

size_t log_begin(const char *kind, const char *owner, const Ids *adapters, const Ids *domains) {
        size_t i;

        (void) pthread_mutex_lock(&mutex);
        if (n_entries == allocated) {
                allocated = allocated * 2 + 1024;
                entries = reallocarray(entries, allocated, sizeof *entries);
                if (!entries)
                        abort();
        }
        i = n_entries++;
        entries[i] =
                (Entry) { .adapters = *adapters, .domains = *domains, .from = log_now(), .to = UINT64_MAX };
        (void) snprintf(entries[i].kind, sizeof entries[i].kind, "%s", kind);
        (void) snprintf(entries[i].owner, sizeof entries[i].owner, "%s", owner);
        (void) pthread_mutex_unlock(&mutex);
        return i;
}

void log_end(size_t entry) {
        (void) pthread_mutex_lock(&mutex);
        entries[entry].to = log_now();
        (void) pthread_mutex_unlock(&mutex);
}

bool log_had(const char *kind, const char *owner, unsigned adapter, unsigned domain, uint64_t from,
             uint64_t to) {
        bool had = false;

        (void) pthread_mutex_lock(&mutex);
        for (size_t i = n_entries; i-- > 0 && !had;) {
                const Entry *e = &entries[i];

                had = e->from <= to && e->to >= from && e->adapters.has[adapter] && e->domains.has[domain] &&
                      strcmp(e->kind, kind) == 0 && (!owner || strcmp(e->owner, owner) == 0);
        }
        (void) pthread_mutex_unlock(&mutex);
        return had;
}
