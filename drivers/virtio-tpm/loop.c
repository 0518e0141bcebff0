/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/loop.h"

#include <errno.h>
#include <stddef.h>
#include <sys/timerfd.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/file.h"

#define NS_PER_S UINT64_C(1000000000)
#define NEVER    UINT64_MAX

static void on_alarm(void *userdata, uint32_t events) {
        Loop *l = userdata;

        l->alarm_at = NEVER;
        l->due = true;
}

int loop_init(Loop *l) {
        int r;

        *l = (Loop) { .fd = epoll_create1(EPOLL_CLOEXEC), .alarm_at = NEVER };
        if (l->fd < 0)
                return -errno;

        l->alarm = (LoopSource) { .fd = -1, .ready = on_alarm, .userdata = l };
        l->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        r = l->alarm_fd < 0 ? -errno : loop_watch(l, &l->alarm, l->alarm_fd, EPOLLIN | EPOLLET);
        if (r < 0)
                loop_done(l);
        return r;
}

void loop_done(Loop *l) {
        l->alarm_fd = fd_close(l->alarm_fd);
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
        return (uint64_t) t.tv_sec * NS_PER_S + (uint64_t) t.tv_nsec;
}

/* Has the sleep end when the next timer's time comes; 1: that it has, 0, or -errno. Each command sets a deadline and takes it back: were it
 * given to epoll_wait(), there would be a timer in the kernel for each; the alarm is left to ring for nothing instead, some minutes later. */
static int set_alarm(Loop *l) {
        struct itimerspec alarm = {};
        uint64_t next = NEVER;

        for (const LoopTimer *t = l->timers; t; t = t->next)
                if (t->at > 0)
                        next = MIN(next, t->at);
        if (next >= l->alarm_at)
                return 0;
        if (next <= loop_now())
                return 1;

        alarm.it_value = (struct timespec) { .tv_sec = (time_t) (next / NS_PER_S),
                                             .tv_nsec = (long) (next % NS_PER_S) };
        if (timerfd_settime(l->alarm_fd, TFD_TIMER_ABSTIME, &alarm, NULL) < 0)
                return -errno;
        l->alarm_at = next;
        return 0;
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
        int n, r;

        r = set_alarm(l);
        if (r < 0)
                return r;

        l->due = r > 0;
        n = epoll_wait(l->fd, l->batch, LOOP_BATCH, l->due ? 0 : timeout_ms);
        if (n < 0 && errno != EINTR)
                return -errno;

        l->n_batch = n;
        for (int i = 0; i < l->n_batch; i++) {
                LoopSource *s = l->batch[i].data.ptr;

                if (s)
                        s->ready(s->userdata, l->batch[i].events);
        }
        l->n_batch = 0;

        if (l->due)
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
