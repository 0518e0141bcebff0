/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* loop - descriptors and deadlines on one epoll. Sleeps without end when no deadline is set; it wakes up once more, for nothing, when one
 * that was taken back would have come. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

typedef struct Loop Loop;

typedef struct LoopSource {
        int fd; /* the owner's; -1 when not watched */
        void (*ready)(void *userdata, uint32_t events);
        void *userdata;
} LoopSource;

typedef struct LoopTimer {
        uint64_t at; /* nanoseconds, loop_now(); 0: not set */
        void (*elapsed)(void *userdata);
        void *userdata;
        struct LoopTimer *next;
} LoopTimer;

#define LOOP_BATCH 16

/* What comes in, or the end of it, is told once: each sleep would otherwise begin with a look at the descriptor. Whoever leaves something
 * there, or is told of more than input, has it told again with loop_change(). */
#define LOOP_EDGE (EPOLLIN | EPOLLRDHUP | EPOLLET)

struct Loop {
        int fd, alarm_fd;
        bool stop;
        LoopTimer *timers;
        LoopSource alarm;
        uint64_t alarm_at; /* loop_now(); no timer that was set when a sleep began comes before */
        bool due;          /* some timer's time has come, or had if it was not taken back */
        struct epoll_event batch[LOOP_BATCH]; /* what is being worked off */
        int n_batch;
        void (*turned)(void *userdata); /* all that was ready has been worked off; may be NULL */
        void *turned_userdata;
};

int loop_init(Loop *l);
void loop_done(Loop *l);

/* Watches @fd. 0 or -errno. */
int loop_watch(Loop *l, LoopSource *s, int fd, uint32_t events);
int loop_change(Loop *l, LoopSource *s, uint32_t events);

/* To be called before the descriptor is closed; does nothing if it is not watched. @s->ready() is not called afterwards. */
void loop_forget(Loop *l, LoopSource *s);

/* Adds a timer that is not set; its memory outlives the loop. */
void loop_add_timer(Loop *l, LoopTimer *t);

uint64_t loop_now(void);

/* Waits at most @timeout_ms (-1: without end) and calls what is ready. 0 or -errno. */
int loop_once(Loop *l, int timeout_ms);

/* Until @l->stop. */
int loop_run(Loop *l);
