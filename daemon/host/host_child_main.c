/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The disposable child: takes one job after the other from the daemon's socket. When the daemon dies it
 * stops before its next write and undoes nothing: the journal decides what becomes of the half-made, and the
 * next daemon waits at the AP lock until this process has ended. Signals that end a service are ignored for
 * the same reason. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/gang.h"
#include "host/ap_lock.h"
#include "host/host.h"
#include "host/host_execute.h"
#include "host/host_page.h"
#include "host/host_paths.h"
#include "host/host_scan.h"
#include "host/host_wire.h"
#include "host/uevent.h"

#define READ_SIZE  65536
#define STIRRED_US 1000000 /* an mdev is announced before it is linked everywhere */
#define RECENT_US  100000 /* as old as the first readings of a large host are at the end of a batch, anyway */
#define LISTED_US  25000000 /* so that the slow rescan always lists */
#define HELPERS    (HOST_PAGE_LANES - 1)

typedef struct ChildMain ChildMain;

/* The last job that has changed something: its events come after it. */
typedef struct Done {
        WireJob job;
        HostOutcome *outcomes; /* of each plan */
        bool *heard;
} Done;

/* What a thread besides the main one has for itself. */
typedef struct Lane {
        ChildMain *main;
        unsigned lane;
        Sysfs *sysfs; /* NULL until it is needed, and if it cannot be had */
} Lane;

struct ChildMain {
        int fd, root_fd, sys_fd, lock_fd, uevent_fd;
        HostPage *page;
        bool moved;          /* the AP bus has sent events since `previous`: it is to be listed */
        uint64_t stirred_us; /* when somebody else was last heard to make or remove mdevs */
        uint64_t listed_us;  /* when mdevs were last listed */
        Sysfs *sysfs;
        Lane lanes[HELPERS];
        Gang *gang; /* of a thread for each lane, from the first batch on; NULL: it cannot be had */
        Snapshot *previous;
        Done done;
        WireKnow known;
        WireBuffer out;
        uint8_t *in;
        size_t in_size, in_capacity;
};

/* uid 0 is all that sysfs asks for. */
static int capabilities_drop(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};

        for (unsigned long cap = 0; cap < 64; cap++)
                if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL && errno != EPERM)
                        return -errno;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;

        return ret_errno((int) syscall(SYS_capset, &header, none));
}

/* A descriptor for each mdev saves two system calls of three in a scan. */
static void files_raise(void) {
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
                l.rlim_cur = l.rlim_max;
                (void) setrlimit(RLIMIT_NOFILE, &l);
        }
}

/* More of what the daemon sends; -ECONNRESET: it has ended. */
static int child_receive(ChildMain *c) {
        ssize_t n;

        if (c->in_capacity - c->in_size < READ_SIZE) {
                uint8_t *bigger = realloc(c->in, 2 * c->in_capacity + READ_SIZE);

                if (!bigger)
                        return -ENOMEM;
                c->in = bigger;
                c->in_capacity = 2 * c->in_capacity + READ_SIZE;
        }

        n = recv(c->fd, c->in + c->in_size, c->in_capacity - c->in_size, 0);
        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        if (n == 0)
                return -ECONNRESET;
        c->in_size += (size_t) n;
        return 0;
}

static void child_received(ChildMain *c, size_t size) {
        c->in_size -= size;
        memmove(c->in, c->in + size, c->in_size);
}

/* Sends what is in the buffer. An error means that there is nobody to work for. */
static int child_send(ChildMain *c) {
        size_t sent = 0;

        while (sent < c->out.size) {
                ssize_t n = send(c->fd, c->out.data + sent, c->out.size - sent, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                sent += (size_t) n;
        }

        if (c->out.capacity > 65536)
                wire_buffer_clear(&c->out);
        c->out.size = 0;
        return 0;
}

/* Nothing begins when the daemon has gone or has given this process up. */
static int lane_note(const ChildMain *c, unsigned lane, const HostNote *n) {
        struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };
        int r;

        r = poll(&p, 1, 0);
        if (r < 0 && errno != EINTR)
                return -errno;
        if (r > 0)
                return -ECONNRESET;
        return host_page_begin(c->page, lane, n);
}

static int child_note(const ChildMain *c, const HostNote *n) {
        return lane_note(c, 0, n);
}

static int lane_begin(void *userdata, const HostAccess *a) {
        const Lane *l = userdata;
        HostNote n = {
                .phase = HOST_PHASE_STEP, .plan = a->plan, .step = a->step, .allowance_us = a->allowance_us
        };

        (void) snprintf(n.what, sizeof n.what, "%s", a->what);
        return lane_note(l->main, l->lane, &n);
}

static const HostNote scan_note = { .phase = HOST_PHASE_SCAN, .what = "scan" };
static const HostNote rest_note = { .phase = HOST_PHASE_REST };

static int lane_ended(void *userdata, size_t plan, const HostOutcome *o) {
        const Lane *l = userdata;

        host_page_ended(l->main->page, plan, o);
        return lane_note(l->main, l->lane, l->lane == 0 ? &scan_note : &rest_note);
}

static int lane_waits(void *userdata, bool waits) {
        const Lane *l = userdata;

        return lane_note(l->main, l->lane, waits ? &rest_note : &scan_note);
}

/* Waits with the lock until what is held may be written. 1: not in time. It is a phase that may not take forever: what
 * is held may be stopped here. */
static int child_held(void *userdata) {
        ChildMain *c = ((Lane *) userdata)->main;
        uint64_t until = clock_now_us() + HOST_HOLD_US;
        int r;

        r = child_note(c, &scan_note);
        while (r >= 0) {
                struct pollfd p = { .fd = c->fd, .events = POLLIN | POLLRDHUP };
                uint64_t now = clock_now_us();
                WireType type;
                ssize_t n = wire_peek(c->in, c->in_size, &type);

                if (n < 0 || (n > 0 && type != WIRE_GO_ON))
                        return -EBADMSG;
                if (n > 0) {
                        child_received(c, (size_t) n);
                        return 0;
                }
                if (now >= until)
                        return 1;

                r = poll(&p, 1, (int) ((until - now) / 1000 + 1));
                if (r < 0)
                        r = errno == EINTR ? 0 : -errno;
                else if (p.revents & POLLIN)
                        r = child_receive(c);
                else if (r > 0)
                        r = -ECONNRESET;
        }
        return r;
}

static int child_risky(void *userdata, const Snapshot *s) {
        static const HostNote details = { .phase = HOST_PHASE_SCAN, .what = "reading mdev details" };
        ChildMain *c = userdata;
        int r;

        r = wire_put_snapshot(&c->out, WIRE_PARTIAL, 0, s);
        if (r >= 0)
                r = child_send(c);
        return r < 0 ? r : child_note(c, &details);
}

static void done_clear(Done *d) {
        wire_job_clear(&d->job);
        free(d->outcomes);
        free(d->heard);
        *d = (Done) {};
}

static bool is_done_by_us(void *userdata, Uuid uuid, bool added) {
        Done *d = userdata;

        for (size_t i = 0; i < d->job.n_plans; i++) {
                const Plan *p = &d->job.plans[i];

                if (d->heard[i] || d->outcomes[i].verdict != HOST_DONE || !uuid_equal(p->uuid, uuid))
                        continue;
                for (size_t k = 0; k < p->n_steps; k++)
                        if (p->steps[k].type == (added ? PLAN_CREATE : PLAN_REMOVE))
                                return d->heard[i] = true;
        }
        return false;
}

/* What others have done since it last listened. */
static void child_listen(ChildMain *c) {
        UeventNews news = {};

        uevent_take(c->uevent_fd, is_done_by_us, &c->done, &news);
        c->moved |= news.ap;
        if (news.mdevs)
                c->stirred_us = clock_now_us();
        done_clear(&c->done);
}

/* Ends the job; @s is kept for the next scan. */
static int child_result(ChildMain *c, int error, Snapshot *s) {
        int r;

        r = wire_put_snapshot(&c->out, WIRE_RESULT, error, s);
        if (s) {
                (void) snapshot_free(c->previous);
                c->previous = s;
                c->moved = false;
        } else
                c->listed_us = 0;
        return r < 0 ? r : child_send(c);
}

/* 0: had; 1: not in time; -ECONNRESET: the daemon has gone. */
static int child_lock(ChildMain *c, uint64_t timeout_us, pid_t *ret_holder) {
        uint64_t until = clock_now_us() + timeout_us;

        for (;;) {
                struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };
                int r;

                r = ap_lock_try(c->lock_fd, getpid(), ret_holder);
                if (r <= 0 || clock_now_us() >= until)
                        return r;

                r = poll(&p, 1, AP_LOCK_POLL_US / 1000);
                if (r < 0 && errno != EINTR)
                        return -errno;
                if (r > 0)
                        return -ECONNRESET;
        }
}

/* For a scan that begins now: what is heard during it counts for the next one. */
static HostScanner child_scanner(ChildMain *c, const WireJob *job) {
        bool basic = job->depth == HOST_SCAN_BASIC;
        uint64_t now = clock_now_us();
        HostScanner scanner = { .sysfs = c->sysfs,
                                .root_fd = c->root_fd,
                                .risky = child_risky,
                                .userdata = c,
                                .previous = c->previous,
                                .known = c->known.known,
                                .n_known = c->known.n,
                                .careful = job->careful };

        child_listen(c);
        scanner.quiet = !c->moved && basic;
        scanner.quiet_mdevs = now - c->listed_us < LISTED_US && now > c->stirred_us + STIRRED_US && basic;
        if (!scanner.quiet_mdevs)
                c->listed_us = now;
        if (job->execute) /* the kernel refuses what it misses; a question is answered by what is there now */
                scanner.recent_us = now - RECENT_US;
        return scanner;
}

static int child_scan(ChildMain *c, const WireJob *job) {
        HostScanner scanner;
        Snapshot *s = NULL;
        int r;

        r = child_note(c, &scan_note);
        if (r < 0)
                return r;
        scanner = child_scanner(c, job);
        r = host_scan(&scanner, job->depth, &s);
        return child_result(c, r, s);
}

/* For a batch. Threads, and what they keep open, stay for the next one. */
static void child_help(ChildMain *c, HostExecution *x, HostHelper *helpers) {
        if (!c->gang && gang_new(HELPERS, &c->gang) < 0)
                return;

        for (size_t i = 0; i < HELPERS; i++) {
                Lane *l = &c->lanes[i];

                if (!l->sysfs)
                        (void) sysfs_real_new(c->sys_fd, &l->sysfs);
                helpers[i] = (HostHelper) { .sysfs = l->sysfs, .userdata = l };
        }
        x->gang = c->gang;
        x->helpers = helpers;
}

/* Takes @job over. */
static int child_execute(ChildMain *c, WireJob *job) {
        static const HostNote lock = { .phase = HOST_PHASE_LOCK, .what = "wait for the AP lock" };
        Lane self = { .main = c };
        HostHelper helpers[HELPERS];
        HostExecution x = { .root_fd = c->root_fd,
                            .begin = lane_begin,
                            .ended = lane_ended,
                            .waits = lane_waits,
                            .looked = job->held ? child_held : NULL,
                            .userdata = &self };
        CLEANUP(freep)
        HostOutcome *outcomes = calloc(job->n_plans + 1, sizeof *outcomes);
        CLEANUP(freep)
        bool *heard = calloc(job->n_plans + 1, sizeof *heard);
        Snapshot *after = NULL;
        pid_t holder = 0;
        int r;

        if (!outcomes || !heard)
                return child_result(c, -ENOMEM, NULL);
        r = child_note(c, &lock);
        if (r < 0)
                return r;
        r = child_lock(c, job->lock_timeout_us, &holder);
        if (r == -ECONNRESET)
                return r;
        if (r < 0)
                return child_result(c, r, NULL);
        if (r > 0) {
                const HostOutcome locked = { .verdict = HOST_LOCKED, .holder = holder };

                for (size_t i = 0; i < job->n_plans; i++) {
                        r = lane_ended(&self, i, &locked);
                        if (r < 0)
                                return r;
                }
                return child_result(c, 0, NULL);
        }

        if (job->n_plans > 1)
                child_help(c, &x, helpers);
        r = child_note(c, &scan_note);
        if (r >= 0) {
                x.scanner = child_scanner(c, job); /* the lock may have taken its time */
                r = host_execute(&x, job->plans, job->n_plans, outcomes, &after);
        }
        (void) ap_lock_release(c->lock_fd, getpid());
        c->done = (Done) { .job = *job, .outcomes = TAKE(outcomes), .heard = TAKE(heard) };
        *job = (WireJob) {};
        return child_result(c, r, after); /* fails if the daemon has gone */
}

/* The first of what was received, @size bytes. */
static int child_handle(ChildMain *c, WireType type, size_t size) {
        WireJob job;
        WireKnow known;
        int r;

        switch (type) {
        case WIRE_KNOW:
                r = wire_get_know(c->in, size, &known);
                if (r < 0)
                        return r;
                child_received(c, size);
                free(c->known.known);
                c->known = known;
                return 0;
        case WIRE_JOB:
                r = wire_get_job(c->in, size, &job);
                if (r < 0)
                        return r;
                child_received(c, size); /* the job may wait for what comes after it */
                r = job.execute ? child_execute(c, &job) : child_scan(c, &job);
                wire_job_clear(&job);
                return r;
        case WIRE_GO_ON: /* too late */
                child_received(c, size);
                return 0;
        case WIRE_PARTIAL:
        case WIRE_RESULT:
        case _WIRE_TYPE_MAX:
                break;
        }
        return -EBADMSG;
}

/* 0 at the end of the stream. */
static int child_serve(ChildMain *c) {
        for (;;) {
                WireType type;
                ssize_t n = wire_peek(c->in, c->in_size, &type);
                int r;

                if (n < 0)
                        return (int) n;
                r = n > 0 ? child_handle(c, type, (size_t) n) : child_receive(c);
                if (r < 0)
                        return r == -ECONNRESET ? 0 : r;
        }
}

int host_child_main(int fd, int root_fd, int page_fd) {
        static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE };
        ChildMain c = { .fd = fd,
                        .root_fd = root_fd,
                        .sys_fd = -1,
                        .lock_fd = -1,
                        .uevent_fd = -1,
                        .stirred_us = clock_now_us() };
        int r;

        for (unsigned i = 0; i < HELPERS; i++)
                c.lanes[i] = (Lane) { .main = &c, .lane = i + 1 };

        for (size_t i = 0; i < ELEMENTS(ignored); i++)
                (void) signal(ignored[i], SIG_IGN);
        files_raise();

        r = host_page_map(page_fd, &c.page);
        (void) fd_close(page_fd);
        if (r >= 0) {
                c.sys_fd = openat(root_fd, HOST_PATH_SYS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                r = ret_errno(c.sys_fd);
        }
        if (r >= 0)
                r = c.lock_fd = file_open_dir(root_fd, HOST_PATH_LOCK_DIR);
        if (r >= 0)
                r = c.uevent_fd = uevent_open(); /* first, for its large buffer */
        if (r >= 0 && geteuid() == 0)
                r = capabilities_drop();
        if (r >= 0)
                r = sysfs_real_new(c.sys_fd, &c.sysfs);
        if (r >= 0)
                r = child_serve(&c);

        (void) gang_free(c.gang);
        for (size_t i = 0; i < HELPERS; i++)
                (void) sysfs_free(c.lanes[i].sysfs);
        (void) sysfs_free(c.sysfs);
        (void) host_page_free(c.page);
        (void) snapshot_free(c.previous);
        free(c.known.known);
        done_clear(&c.done);
        wire_buffer_clear(&c.out);
        free(c.in);
        (void) fd_close(c.sys_fd);
        (void) fd_close(c.lock_fd);
        (void) fd_close(c.uevent_fd);
        return r < 0 ? 1 : 0;
}
