/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/worker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"

typedef struct WorkList {
        Work *first, *last;
} WorkList;

struct Worker {
        pthread_t thread;
        sd_event_source *source;
        size_t accepted, max; /* loop thread only */
        int wake_fd;

        pthread_mutex_t lock; /* guards what follows */
        pthread_cond_t filled;
        WorkList in, out;
        bool stop;
};

static void list_push(WorkList *l, Work *w) {
        w->next = NULL;
        if (l->last)
                l->last->next = w;
        else
                l->first = w;
        l->last = w;
}

static Work *list_pop(WorkList *l) {
        Work *w = l->first;

        if (w) {
                l->first = w->next;
                if (!l->first)
                        l->last = NULL;
        }
        return w;
}

static void *worker_main(void *userdata) {
        static const uint64_t one = 1;
        Worker *worker = userdata;

        (void) pthread_mutex_lock(&worker->lock);
        for (;;) {
                Work *w;

                while (!worker->in.first && !worker->stop)
                        (void) pthread_cond_wait(&worker->filled, &worker->lock);

                w = list_pop(&worker->in);
                if (!w)
                        break;

                (void) pthread_mutex_unlock(&worker->lock);
                w->result = w->run(w);
                (void) pthread_mutex_lock(&worker->lock);

                list_push(&worker->out, w);
                (void) !write(worker->wake_fd, &one, sizeof one); /* fails only if it already counts */
        }
        (void) pthread_mutex_unlock(&worker->lock);
        return NULL;
}

static void hand_back(Worker *worker) {
        WorkList out;

        (void) pthread_mutex_lock(&worker->lock);
        out = worker->out;
        worker->out = (WorkList) {};
        (void) pthread_mutex_unlock(&worker->lock);

        for (Work *w; (w = list_pop(&out));) {
                worker->accepted--;
                w->done(w, w->result);
        }
}

static int on_wake(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        uint64_t n;

        (void) !read(fd, &n, sizeof n);
        hand_back(userdata);
        return 0;
}

int worker_new(sd_event *event, size_t max, Worker **ret) {
        sigset_t all, saved;
        Worker *worker;
        int r;

        worker = calloc(1, sizeof *worker);
        if (!worker)
                return -ENOMEM;

        worker->max = max;
        worker->lock = (pthread_mutex_t) PTHREAD_MUTEX_INITIALIZER;
        worker->filled = (pthread_cond_t) PTHREAD_COND_INITIALIZER;
        worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (worker->wake_fd < 0) {
                r = -errno;
                goto fail;
        }

        r = sd_event_add_io(event, &worker->source, worker->wake_fd, EPOLLIN, on_wake, worker);
        if (r < 0)
                goto fail;

        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_BLOCK, &all, &saved); /* signals are the loop's */
        r = -pthread_create(&worker->thread, NULL, worker_main, worker);
        (void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
        if (r < 0)
                goto fail;

        *ret = worker;
        return 0;

fail:
        sd_event_source_disable_unref(worker->source);
        fd_close(worker->wake_fd);
        free(worker);
        return r;
}

int worker_submit(Worker *worker, Work *w) {
        if (worker->accepted >= worker->max)
                return -EBUSY;

        worker->accepted++;
        (void) pthread_mutex_lock(&worker->lock);
        list_push(&worker->in, w);
        (void) pthread_cond_signal(&worker->filled);
        (void) pthread_mutex_unlock(&worker->lock);
        return 0;
}

Worker *worker_free(Worker *worker) {
        if (!worker)
                return NULL;

        (void) pthread_mutex_lock(&worker->lock);
        worker->stop = true;
        (void) pthread_cond_signal(&worker->filled);
        (void) pthread_mutex_unlock(&worker->lock);
        (void) pthread_join(worker->thread, NULL);

        hand_back(worker);
        assert(worker->accepted == 0);

        sd_event_source_disable_unref(worker->source);
        fd_close(worker->wake_fd);
        free(worker);
        return NULL;
}
