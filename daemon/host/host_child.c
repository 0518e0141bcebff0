/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/program.h"
#include "host/ap_lock.h"
#include "host/host.h"
#include "host/host_job.h"
#include "host/host_page.h"
#include "host/host_paths.h"
#include "host/host_wire.h"
#include "host/uevent.h"

#define CHILDREN_LEFT_MAX 8 /* that hang; with more the host is not touched any more */
#define READ_SIZE         65536

typedef struct HostChild HostChild;

/* One process. A child that is not the current one has been killed, and stays in the list until it has
 * ended, which one that hangs in the kernel does not. */
typedef struct Child {
        HostChild *host;
        struct Child *next;
        pid_t pid;
        int pid_fd, fd;
        HostPage *page;
        sd_event_source *io, *exit;
        WireBuffer out;
        size_t sent;
        uint8_t *in;
        size_t in_size, in_capacity;
        uint64_t generation; /* of what it was told to know */
        bool hangs;          /* it missed its deadline */
        HostNote note;       /* in this */
} Child;

struct HostChild {
        Host host;
        HostConfig config;
        char *program;
        sd_event *event;
        sd_event_source *timer; /* of the running job */
        sd_event_source *start; /* begins the next job from the loop */
        Uevent *uevent;
        host_changed_t changed;
        void *userdata;
        int lock_fd;
        Child *child; /* NULL: one is started for the next job */
        Child *left;  /* the oldest last */
        HostJobs jobs;
        HostJob *running;
        Snapshot *partial;
        HostKnown *known;
        size_t n_known;
        uint64_t generation;
        char what[HOST_PAGE_WHAT_SIZE + 40];
};

#define CHILD(h) CONTAINER_OF(h, HostChild, host)

static Child *child_free(Child *c) {
        if (!c)
                return NULL;

        (void) sd_event_source_disable_unref(c->io);
        (void) sd_event_source_disable_unref(c->exit);
        (void) fd_close(c->pid_fd);
        (void) fd_close(c->fd);
        (void) host_page_free(c->page);
        wire_buffer_clear(&c->out);
        free(c->in);
        free(c);
        return NULL;
}

static int child_on_exit(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Child *c = userdata;
        siginfo_t info = {};

        if (waitid(P_PIDFD, (id_t) c->pid_fd, &info, WEXITED | WNOHANG) == 0 && info.si_pid == 0)
                return 0;

        for (Child **p = &c->host->left; *p; p = &(*p)->next) {
                if (*p != c)
                        continue;
                *p = c->next;
                break;
        }
        (void) child_free(c);
        return 0;
}

/* Parts with the current child: killed, if the kernel lets it. It may hang with the AP lock, which is taken
 * from it. */
static void child_leave(HostChild *h) {
        Child *c = TAKE(h->child);

        host_page_close(c->page);
        (void) kill(c->pid, SIGKILL);
        c->io = sd_event_source_disable_unref(c->io);
        c->fd = fd_close(c->fd);
        (void) ap_lock_release(h->lock_fd, c->pid);
        c->next = h->left;
        h->left = c;
        if (sd_event_add_io(h->event, &c->exit, c->pid_fd, EPOLLIN, child_on_exit, c) < 0)
                log_debug("Cannot watch process %d end, it stays listed", (int) c->pid);
}

static unsigned children_hanging(const HostChild *h, const Child **ret_oldest) {
        unsigned n = 0;

        for (const Child *c = h->left; c; c = c->next) {
                if (!c->hangs)
                        continue;
                if (ret_oldest)
                        *ret_oldest = c;
                n++;
        }
        return n;
}

static bool details_hang(const HostChild *h) {
        for (const Child *c = h->left; c; c = c->next)
                if (c->hangs && c->note.phase == HOST_PHASE_SCAN)
                        return true;
        return false;
}

static int child_on_io(sd_event_source *source, int fd, uint32_t events, void *userdata);

static int child_spawn(HostChild *h) {
        char *argv[] = { h->program, (char *) "--host-child", NULL };
        CLEANUP(fd_closep) int theirs = -1;
        CLEANUP(fd_closep) int page = -1;
        int pair[2], r;
        Child *c;

        if (children_hanging(h, NULL) >= CHILDREN_LEFT_MAX)
                return -EHOSTDOWN;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        theirs = pair[1];
        c = calloc(1, sizeof *c);
        if (!c) {
                (void) fd_close(pair[0]);
                return -ENOMEM;
        }
        c->host = h;
        c->pid_fd = -1;
        c->fd = pair[0];
        r = host_page_new(&c->page, &page);
        if (r >= 0)
                r = program_spawn(h->program, argv, environ,
                                  (int[]) {
                                          PROGRAM_NULL,
                                          PROGRAM_NULL,
                                          PROGRAM_OURS,
                                          [HOST_CHILD_SOCKET_FD] = theirs,
                                          [HOST_CHILD_ROOT_FD] = h->config.root_fd,
                                          [HOST_CHILD_PAGE_FD] = page,
                                  },
                                  HOST_CHILD_PAGE_FD + 1, &c->pid);
        if (r < 0) {
                (void) child_free(c);
                return r;
        }

        c->pid_fd = (int) syscall(SYS_pidfd_open, c->pid, 0);
        r = c->pid_fd < 0 ? -errno : 0;
        if (r >= 0)
                r = sd_event_add_io(h->event, &c->io, c->fd, EPOLLIN, child_on_io, c);
        if (r < 0) {
                /* it has no job yet, so it ends */
                (void) kill(c->pid, SIGKILL);
                (void) waitpid(c->pid, NULL, 0);
                (void) child_free(c);
                return r;
        }

        h->child = c;
        return 0;
}

static int deadline_set(HostChild *h, uint64_t after_us) {
        int r;

        r = sd_event_source_set_time_relative(h->timer, after_us);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(h->timer, SD_EVENT_ONESHOT);
}

/* When to look at the page next: at the end of what is under way, unless what comes after it might have to end before. */
static void watch(HostChild *h, uint64_t left_us) {
        uint64_t shortest_us = MIN(h->config.step_timeout_us, h->config.scan_timeout_us);

        (void) deadline_set(h, MIN(left_us, shortest_us));
}

static uint64_t note_limit(const HostChild *h, const HostNote *n) {
        switch (n->phase) {
        case HOST_PHASE_LOCK:
                return h->config.lock_timeout_us + h->config.step_timeout_us;
        case HOST_PHASE_STEP:
                return h->config.step_timeout_us + MIN(n->allowance_us, UINT64_C(3600000000));
        default:
                return h->config.scan_timeout_us;
        }
}

/* Ends the running job. The host may be gone when this returns. */
static void job_finish(HostChild *h, int r, Snapshot *s) {
        HostJob *j = TAKE(h->running);

        h->partial = snapshot_free(h->partial);
        (void) sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
        if (h->jobs.first)
                (void) sd_event_source_set_enabled(h->start, SD_EVENT_ONESHOT);
        host_job_finish(j, r, s);
}

/* Takes the outcomes from the child's page. -EBADMSG: some make no sense, and nothing is known of those plans. */
static int job_outcomes(HostChild *h, const Child *c) {
        HostJob *j = h->running;
        int result = 0;

        for (size_t i = 0; i < j->n_plans; i++) {
                int r = host_page_outcome(c->page, i, &j->outcomes[i]);

                if (r < 0) {
                        j->outcomes[i] = (HostOutcome) { .verdict = HOST_STUCK };
                        result = r;
                }
        }
        return result;
}

/* The child @c will not end its job: it hangs (-ETIME) or has died (-EHOSTDOWN). What a plan that had begun has
 * done is not known: STUCK either way. Parts with the child; the host may be gone when this returns. */
static void job_lost(HostChild *h, int error) {
        Child *c = h->child;
        Snapshot *s = NULL;
        HostJob *j = h->running;

        child_leave(h);

        if (!j->execute) {
                s = TAKE(h->partial);
                if (s) {
                        s->detail_stuck = true;
                        error = 0;
                }
        } else {
                (void) job_outcomes(h, c);
                for (size_t i = 0; i < j->n_plans; i++)
                        if (j->outcomes[i].verdict != HOST_SKIPPED)
                                error = 0; /* there is something to tell */
        }
        job_finish(h, error, s);
}

static int child_receive(Child *c);
static int child_parse(Child *c);
static void child_lost(HostChild *h);

/* The lane that has passed its limit, stopped with all others. -EAGAIN: none, look again; -EBADMSG: makes no sense. */
static int child_stop_late(HostChild *h, HostNote *ret) {
        uint64_t now = clock_now_us(), left = UINT64_MAX;

        for (unsigned lane = 0; lane < HOST_PAGE_LANES; lane++) {
                uint64_t turn, until;
                HostNote note;
                int r;

                r = host_page_look(h->child->page, lane, &note, &turn);
                if (r == -EBADMSG)
                        return r;
                if (r < 0 || note.phase == HOST_PHASE_REST)
                        continue;

                until = MIN(note.since_us, now) + note_limit(h, &note);
                if (now < until)
                        left = MIN(left, until - now);
                else if (host_page_stop(h->child->page, lane, turn)) {
                        *ret = note;
                        return 0;
                }
        }
        watch(h, left);
        return -EAGAIN;
}

static int host_on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        HostChild *h = userdata;
        HostNote note;
        int r;

        if (!h->running || !h->child)
                return 0;

        r = child_stop_late(h, &note);
        if (r == -EBADMSG)
                child_lost(h);
        if (r < 0)
                return 0;

        log_debug("Process %d hangs in %s, left behind", (int) h->child->pid, note.what);
        /* it begins nothing more; what it has told already counts */
        (void) shutdown(h->child->fd, SHUT_RDWR);
        while (child_receive(h->child) >= 0)
                ;
        r = child_parse(h->child);
        if (r > 0)
                return 0; /* just in time; that its socket is shut is noticed by the loop */
        if (r < 0) {
                child_lost(h);
                return 0;
        }

        h->child->hangs = true;
        h->child->note = note;
        job_lost(h, -ETIME);
        return 0;
}

/* The child has ended or makes no sense. */
static void child_lost(HostChild *h) {
        if (h->running)
                job_lost(h, -EHOSTDOWN);
        else
                child_leave(h);
}

/* 0; 1: the job has ended, the host may be gone; -EBADMSG and other errors: the child makes no sense. */
static int child_message(HostChild *h, WireType type, const uint8_t *message, size_t size) {
        HostJob *j = h->running;
        WireResult result;
        int r;

        if (!j)
                return -EBADMSG;

        switch (type) {
        case WIRE_PARTIAL:
                r = wire_get_snapshot(message, size, &result);
                if (r < 0)
                        return r;
                (void) snapshot_free(h->partial);
                h->partial = result.snapshot;
                return 0;
        case WIRE_RESULT:
                r = wire_get_snapshot(message, size, &result);
                if (r < 0)
                        return r;
                if (!j->execute && result.error == 0 && !result.snapshot)
                        return -EBADMSG;
                if (j->execute) {
                        r = job_outcomes(h, h->child);
                        if (r < 0) {
                                (void) snapshot_free(result.snapshot);
                                return r;
                        }
                }
                job_finish(h, result.error, result.snapshot);
                return 1;
        case WIRE_KNOW:
        case WIRE_JOB:
        case WIRE_GO_ON:
        case _WIRE_TYPE_MAX:
                break;
        }
        return -EBADMSG;
}

static int child_receive(Child *c) {
        ssize_t n;

        if (c->in_capacity - c->in_size < READ_SIZE) {
                size_t capacity = 2 * c->in_capacity + READ_SIZE;
                uint8_t *bigger = realloc(c->in, capacity);

                if (!bigger)
                        return -ENOMEM;
                c->in = bigger;
                c->in_capacity = capacity;
        }

        n = recv(c->fd, c->in + c->in_size, c->in_capacity - c->in_size, MSG_DONTWAIT);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (n == 0)
                return -ECONNRESET;
        c->in_size += (size_t) n;
        return 0;
}

/* Sends what is left; waits in the loop for room. */
static int child_send(Child *c) {
        while (c->sent < c->out.size) {
                ssize_t n = send(c->fd, c->out.data + c->sent, c->out.size - c->sent,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return sd_event_source_set_io_events(c->io, EPOLLIN | EPOLLOUT);
                if (n < 0)
                        return -errno;
                c->sent += (size_t) n;
        }

        wire_buffer_clear(&c->out);
        c->sent = 0;
        return sd_event_source_set_io_events(c->io, EPOLLIN);
}

/* Takes all whole messages that were received. Returns as child_message(). */
static int child_parse(Child *c) {
        HostChild *h = c->host;
        int r = 0;

        while (r >= 0) {
                WireType type;
                ssize_t n = wire_peek(c->in, c->in_size, &type);

                if (n == 0)
                        return 0;
                if (n < 0) {
                        r = (int) n;
                        break;
                }

                if (type == WIRE_RESULT && (size_t) n == c->in_size) {
                        /* the last thing of a job: what it took need not stay while nothing happens */
                        CLEANUP(freep)
                        uint8_t *message = TAKE(c->in);

                        c->in_size = c->in_capacity = 0;
                        r = child_message(h, type, message, (size_t) n);
                        if (r > 0)
                                return 1;
                        continue;
                }
                r = type == WIRE_RESULT ? -EBADMSG : child_message(h, type, c->in, (size_t) n);
                if (r >= 0) {
                        c->in_size -= (size_t) n;
                        memmove(c->in, c->in + n, c->in_size);
                }
        }

        return r;
}

static int child_on_io(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Child *c = userdata;
        HostChild *h = c->host;
        int r = 0;

        if (events & EPOLLOUT)
                r = child_send(c);
        if (r >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                r = child_receive(c);

        if (r >= 0)
                r = child_parse(c);
        if (r < 0)
                child_lost(h);
        return 0;
}

static int job_send(HostChild *h) {
        Child *c = h->child;
        WireJob job = {
                .execute = h->running->execute,
                .careful = details_hang(h),
                .held = h->running->held,
                .depth = h->running->depth,
                .lock_timeout_us = h->config.lock_timeout_us,
                .plans = h->running->plans,
                .n_plans = h->running->n_plans,
        };
        const HostNote start = { .phase = HOST_PHASE_SCAN, .what = "start" };
        int r;

        host_page_reset(c->page, h->running->n_plans);
        if (host_page_begin(c->page, 0, &start) <
            0) /* it was too late with the last job, and is gone or will be */
                return -ECONNRESET;
        if (c->generation != h->generation) {
                r = wire_put_know(&c->out, h->known, h->n_known);
                if (r < 0)
                        return r;
                c->generation = h->generation;
        }
        r = wire_put_job(&c->out, &job);
        if (r < 0)
                return r;

        watch(h, UINT64_MAX);
        return child_send(c);
}

static int host_on_start(sd_event_source *source, void *userdata) {
        HostChild *h = userdata;
        int r = 0;

        if (h->running)
                return 0;
        h->running = host_jobs_take(&h->jobs);
        if (!h->running)
                return 0;

        if (!h->child)
                r = child_spawn(h);
        if (r >= 0) {
                r = job_send(h);
                if (r == -EPIPE || r == -ECONNRESET) { /* it has died since the last job: one more try */
                        child_leave(h);
                        r = child_spawn(h);
                        if (r >= 0)
                                r = job_send(h);
                }
                if (r < 0 && h->child)
                        child_leave(h);
        }
        if (r < 0)
                job_finish(h, r, NULL);
        return 0;
}

static int host_submitted(HostChild *h, int r) {
        if (r < 0 || h->running)
                return r;
        return sd_event_source_set_enabled(h->start, SD_EVENT_ONESHOT);
}

static int host_scan_submit(Host *host, HostScan depth, host_scanned_t done, void *userdata) {
        HostChild *h = CHILD(host);

        return host_submitted(h, host_jobs_add_scan(&h->jobs, depth, done, userdata));
}

static int submit_plans(HostChild *h, const Plan *plans, size_t n, bool held, host_executed_t done,
                        void *userdata) {
        if (n > WIRE_PLANS_MAX)
                return -E2BIG;
        return host_submitted(h, host_jobs_add_execute(&h->jobs, plans, n, held, done, userdata));
}

static int host_execute_submit(Host *host, const Plan *plans, size_t n, host_executed_t done,
                               void *userdata) {
        return submit_plans(CHILD(host), plans, n, false, done, userdata);
}

static int host_prepare(Host *host, const Plan *plans, size_t n, host_executed_t done, void *userdata) {
        return submit_plans(CHILD(host), plans, n, true, done, userdata);
}

/* Where that cannot be told, the child gives up, or its end is noticed by the loop. */
static void host_go_on(Host *host) {
        HostChild *h = CHILD(host);

        host_jobs_go_on(&h->jobs);
        if (!h->running || !h->running->held)
                return;
        h->running->held = false;
        if (wire_put_go_on(&h->child->out) >= 0)
                (void) child_send(h->child);
}

static int host_know(Host *host, const HostKnown *known, size_t n) {
        HostChild *h = CHILD(host);
        int r;

        r = host_known_copy(known, n, &h->known);
        if (r < 0)
                return r;

        h->n_known = n;
        h->generation++;
        return 0;
}

static unsigned host_stuck(Host *host, const char **ret_what) {
        HostChild *h = CHILD(host);
        const Child *oldest = NULL;
        unsigned n = children_hanging(h, &oldest);

        if (oldest && ret_what) {
                (void) snprintf(h->what, sizeof h->what, "%s for %llu s", oldest->note.what,
                                (unsigned long long) (clock_now_us() - oldest->note.since_us) / 1000000);
                *ret_what = h->what;
        }
        return n;
}

static void host_child_free(Host *host) {
        HostChild *h = CHILD(host);

        if (h->child) {
                /* an idle one ends at once; a busy one ends before its next write, and nobody waits for it
                 */
                if (!h->running) {
                        (void) kill(h->child->pid, SIGKILL);
                        (void) waitpid(h->child->pid, NULL, 0);
                }
                (void) child_free(h->child);
        }
        while (h->left) {
                Child *c = h->left;

                h->left = c->next;
                (void) waitpid(c->pid, NULL, WNOHANG);
                (void) child_free(c);
        }
        (void) sd_event_source_disable_unref(h->timer);
        (void) sd_event_source_disable_unref(h->start);
        (void) uevent_free(h->uevent);
        (void) sd_event_unref(h->event);
        host_jobs_clear(&h->jobs);
        (void) host_job_free(h->running);
        (void) snapshot_free(h->partial);
        (void) fd_close(h->lock_fd);
        (void) fd_close(h->config.root_fd);
        free(h->known);
        free(h->program);
        free(h);
}

static void host_on_uevent(void *userdata) {
        HostChild *h = userdata;

        h->changed(h->userdata);
}

static const HostOps child_ops = {
        .scan = host_scan_submit,
        .execute = host_execute_submit,
        .prepare = host_prepare,
        .go_on = host_go_on,
        .know = host_know,
        .stuck = host_stuck,
        .free = host_child_free,
};

int host_child_new(sd_event *event, const HostConfig *config, const char *program, host_changed_t changed,
                   void *userdata, Host **ret) {
        HostChild *h = calloc(1, sizeof *h);
        int r;

        if (!h)
                return -ENOMEM;
        h->host.ops = &child_ops;
        h->config = *config;
        h->event = sd_event_ref(event);
        h->changed = changed;
        h->userdata = userdata;
        h->lock_fd = -1;
        h->program = strdup(program);
        h->config.root_fd = fcntl(config->root_fd, F_DUPFD_CLOEXEC, 3);
        r = h->config.root_fd < 0 ? -errno : h->program ? 0 : -ENOMEM;
        if (r >= 0)
                r = h->lock_fd = file_open_dir(h->config.root_fd, HOST_PATH_LOCK_DIR);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &h->timer, CLOCK_MONOTONIC, 0, 1000, host_on_deadline,
                                               h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(event, &h->start, host_on_start, h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h->start, SD_EVENT_OFF);
        if (r >= 0)
                r = uevent_new(event, host_on_uevent, h, &h->uevent);
        if (r < 0) {
                host_child_free(&h->host);
                return r;
        }

        *ret = &h->host;
        return 0;
}
