/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_page - what the disposable child does and what became of its plans, in memory that it shares with the daemon: a
 * message for each access that may hang would wake the daemon three times for each start of a matrix, only to let it know that
 * nothing hangs.
 *
 * One side writes at a time: the daemon before it sends a job, the child until it has sent the result. The daemon may look at
 * any moment, and may stop the child: whichever comes first, the child's next access or the stop, the other one learns of it.
 *
 * A lane is what one thread of the child does; each has at most one access under way. */

#include "host/host.h"

#define HOST_PAGE_WHAT_SIZE 600
#define HOST_PAGE_PLANS_MAX 4096
#define HOST_PAGE_LANES     5

typedef enum HostPhase {
        HOST_PHASE_REST, /* nothing is under way in this lane */
        HOST_PHASE_LOCK,
        HOST_PHASE_SCAN,
        HOST_PHASE_STEP,
        _HOST_PHASE_MAX
} HostPhase;

typedef struct HostNote {
        HostPhase phase;
        size_t plan, step;     /* STEP */
        uint64_t since_us;     /* CLOCK_MONOTONIC */
        uint64_t allowance_us; /* STEP */
        char what[HOST_PAGE_WHAT_SIZE];
} HostNote;

typedef struct HostPage HostPage;

/* Makes one; *ret_fd is for the child and the caller's to close. 0 or -errno. */
int host_page_new(HostPage **ret, int *ret_fd);

/* The one that was inherited as @fd, which can be closed then. 0 or -errno. */
int host_page_map(int fd, HostPage **ret);

/* Accepts NULL; returns NULL. */
HostPage *host_page_free(HostPage *p);

/* All of @n_plans are SKIPPED. */
void host_page_reset(HostPage *p, size_t n_plans);

/* What is noted begins now in @lane; `since_us` is set. A plan of which a step begins is STUCK until it has ended. -ECANCELED:
 * stopped, nothing may begin. */
int host_page_begin(HostPage *p, unsigned lane, const HostNote *note);
void host_page_ended(HostPage *p, size_t plan, const HostOutcome *o);

/* Fills @ret, and *ret_turn for host_page_stop(). Of one that is not stopped. -EAGAIN: the child goes on all the time;
 * -EBADMSG: makes no sense. */
int host_page_look(const HostPage *p, unsigned lane, HostNote *ret, uint64_t *ret_turn);

/* Nothing begins any more, in any lane. False: something has begun in @lane since that look, and the child was not stopped. */
bool host_page_stop(HostPage *p, unsigned lane, uint64_t turn);

/* Nothing begins any more, whatever is under way. */
void host_page_close(HostPage *p);

/* -EBADMSG: makes no sense. */
int host_page_outcome(const HostPage *p, size_t plan, HostOutcome *ret);

static inline void host_page_freep(HostPage **p) {
        (void) host_page_free(*p);
}
