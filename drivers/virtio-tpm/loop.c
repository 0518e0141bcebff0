/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/loop.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/file.h"

#define NS_PER_MS UINT64_C(1000000)

int loop_init(Loop *l) {
        *l = (Loop) { .fd = epoll_create1(EPOLL_CLOEXEC) };
        return l->fd < 0 ? -errno : 0;
}

void loop_done(Loop *l) {
        l->fd = fd_close(l->fd);
        l->timers = NULL;
}

int loop_watch(Loop *l, LoopSource *s, int fd, uint32_t events) {
        struct epoll_event e = { .events = events, .data.ptr = s };

        if (epoll_ctl(l->fd, EPOLL_CTL_ADD, fd, &e) < 0)
                return -errno;

        s->fd = fd;
        return 0;
}

int loop_change(Loop *l, LoopSource *s, uint32_t events) {
        struct epoll_event e = { .events = events, .data.ptr = s };

        return ret_errno(epoll_ctl(l->fd, EPOLL_CTL_MOD, s->fd, &e));
}

void loop_forget(Loop *l, LoopSource *s) {
        if (s->fd < 0)
                return;

        (void) epoll_ctl(l->fd, EPOLL_CTL_DEL, s->fd, NULL);
        s->fd = -1;
        for (int i = 0; i < l->n_batch; i++)
                if (l->batch[i].data.ptr == s)
                        l->batch[i].data.ptr = NULL;
}

void loop_add_timer(Loop *l, LoopTimer *t) {
        t->at = 0;
        t->next = l->timers;
        l->timers = t;
}

uint64_t loop_now(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * UINT64_C(1000000000) + (uint64_t) t.tv_nsec;
}

/* Milliseconds, rounded up, until the next timer: at most @timeout_ms, if that is not negative. *@ret_due: its time has come. */
static int wait_time(const Loop *l, int timeout_ms, bool *ret_due) {
        uint64_t next = UINT64_MAX, now, ms;

        *ret_due = false;

        for (const LoopTimer *t = l->timers; t; t = t->next)
                if (t->at > 0)
                        next = MIN(next, t->at);
        if (next == UINT64_MAX)
                return timeout_ms;

        now = loop_now();
        *ret_due = next <= now;
        ms = next <= now ? 0 : MIN((next - now + NS_PER_MS - 1) / NS_PER_MS, (uint64_t) INT_MAX);
        return timeout_ms < 0 ? (int) ms : MIN((int) ms, timeout_ms);
}

static void run_timers(Loop *l) {
        uint64_t now = 0;

        for (LoopTimer *t = l->timers; t; t = t->next) {
                if (t->at == 0)
                        continue;
                if (now == 0)
                        now = loop_now();
                if (t->at <= now) {
                        t->at = 0;
                        t->elapsed(t->userdata);
                }
        }
}

int loop_once(Loop *l, int timeout_ms) {
        bool due;
        int n;

        timeout_ms = wait_time(l, timeout_ms, &due);
        n = epoll_wait(l->fd, l->batch, LOOP_BATCH, timeout_ms);
        if (n < 0 && errno != EINTR)
                return -errno;

        l->n_batch = n;
        for (int i = 0; i < l->n_batch; i++) {
                LoopSource *s = l->batch[i].data.ptr;

                if (s)
                        s->ready(s->userdata, l->batch[i].events);
        }
        l->n_batch = 0;

        if (due || n == 0) /* else none was when the sleep began, and the clock is not asked again */
                run_timers(l);
        if (l->turned)
                l->turned(l->turned_userdata);
        return 0;
}

int loop_run(Loop *l) {
        while (!l->stop) {
                int r = loop_once(l, -1);

                if (r < 0)
                        return r;
        }
        return 0;
}
