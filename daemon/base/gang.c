/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/gang.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define STACK_SIZE (512 * 1024)

typedef struct Member {
        Gang *gang;
        pthread_t thread;
        sem_t go;
        int result;
} Member;

struct Gang {
        gang_work_t fn; /* NULL: the end */
        void *userdata;
        _Atomic(size_t) n_working;
        sem_t done; /* by the last one */
        size_t n;
        Member members[];
};

static void wait_for(sem_t *s) {
        while (sem_wait(s) < 0) /* EINTR */
                ;
}

static void *member_main(void *argument) {
        Member *m = argument;
        Gang *g = m->gang;

        for (;;) {
                wait_for(&m->go);
                if (!g->fn)
                        return NULL;
                m->result = g->fn(g->userdata, (size_t) (m - g->members) + 1);
                if (atomic_fetch_sub(&g->n_working, 1) == 1)
                        (void) sem_post(&g->done);
        }
}

static int member_start(Member *m) {
        pthread_attr_t attributes;
        sigset_t all, old;
        int r;

        r = -pthread_attr_init(&attributes);
        if (r < 0)
                return r;
        (void) pthread_attr_setstacksize(&attributes, STACK_SIZE);
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &old);
        r = -pthread_create(&m->thread, &attributes, member_main, m);
        (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
        (void) pthread_attr_destroy(&attributes);
        return r;
}

int gang_new(size_t n, Gang **ret) {
        Gang *g = calloc(1, sizeof *g + n * sizeof *g->members);

        if (!g)
                return -ENOMEM;

        (void) sem_init(&g->done, 0, 0);
        for (; g->n < n; g->n++) {
                Member *m = &g->members[g->n];
                int r;

                m->gang = g;
                (void) sem_init(&m->go, 0, 0);
                r = member_start(m);
                if (r < 0) {
                        (void) sem_destroy(&m->go);
                        (void) gang_free(g);
                        return r;
                }
        }

        *ret = g;
        return 0;
}

size_t gang_size(const Gang *g) {
        return g->n;
}

int gang_work(Gang *g, gang_work_t fn, void *userdata) {
        int r;

        g->fn = fn;
        g->userdata = userdata;
        atomic_store(&g->n_working, g->n + 1);
        for (size_t i = 0; i < g->n; i++)
                (void) sem_post(&g->members[i].go);

        r = fn(userdata, 0);
        if (atomic_fetch_sub(&g->n_working, 1) > 1)
                wait_for(&g->done);
        for (size_t i = 0; i < g->n && r >= 0; i++)
                r = g->members[i].result;
        return r < 0 ? r : 0;
}

Gang *gang_free(Gang *g) {
        if (!g)
                return NULL;

        g->fn = NULL;
        for (size_t i = 0; i < g->n; i++)
                (void) sem_post(&g->members[i].go);
        for (size_t i = 0; i < g->n; i++) {
                (void) pthread_join(g->members[i].thread, NULL);
                (void) sem_destroy(&g->members[i].go);
        }
        (void) sem_destroy(&g->done);
        free(g);
        return NULL;
}
