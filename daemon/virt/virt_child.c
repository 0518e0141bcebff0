/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/program.h"
#include "virt/virt.h"
#include "virt/virt_socket.h"
#include "virt/virt_wire.h"

#define CALLS_MAX        128
#define DEADLINE_US      (20 * UINT64_C(1000000))
#define RESTART_FIRST_US (100 * UINT64_C(1000))
#define RESTART_MAX_US   (60 * UINT64_C(1000000))
#define READ_SIZE        65536

typedef struct VirtChild VirtChild;

typedef struct Call {
        struct Call *next;
        uint64_t id;
        json_object *message;
        bool connects; /* worth an attempt to connect where there is no connection */
        bool begun;    /* it has begun to change something */
        virt_done_t done;
        void *userdata;
} Call;

/* A process; one that is not the current one has been killed and stays until it has ended. */
typedef struct Process {
        VirtChild *owner;
        struct Process *next;
        pid_t pid;
        int pid_fd, fd;
        sd_event_source *io, *exit;
        WireLines in, out;
} Process;

/* A guest that events have told of. */
typedef struct Told {
        Uuid uuid;
        bool seen; /* since the current process was started */
} Told;

struct VirtChild {
        Virt virt;
        sd_event *event;
        char *uri, *program;
        uint64_t deadline_us, restart_us;
        const VirtEvents *events;
        void *userdata;
        sd_event_source *start;    /* begins the next call from the loop */
        sd_event_source *deadline; /* of the running call */
        sd_event_source *restart;
        sd_event_source *coming; /* there is no libvirt yet; owns its inotify descriptor */
        bool absent;             /* no process was started yet, or none because there was no libvirt */
        Process *process, *left;
        bool up;
        char *why; /* it is not */
        Call *first, **last, *running;
        size_t n_calls;
        uint64_t next_id;
        Told *told;
        size_t n_told, told_capacity;
};

#define CHILD(v) CONTAINER_OF(v, VirtChild, virt)

/* ---- calls ---- */

static void call_free(Call *c) {
        (void) json_object_put(c->message);
        free(c);
}

static void wake(VirtChild *v) {
        (void) sd_event_source_set_enabled(v->start, SD_EVENT_ONESHOT);
}

static void finish(VirtChild *v, const VirtOutcome *outcome) {
        Call *c = TAKE(v->running);

        (void) sd_event_source_set_enabled(v->deadline, SD_EVENT_OFF);
        v->n_calls--;
        if (v->first)
                wake(v);
        c->done(c->userdata, 0, outcome);
        call_free(c);
}

static void finish_unavailable(VirtChild *v) {
        CLEANUP(freep) char *text = NULL;
        VirtOutcome outcome = { .verdict = VIRT_UNAVAILABLE, .unknown = v->running->begun };

        if (asprintf(&text, "libvirt cannot be reached: %s", v->why ?: "not connected yet") < 0)
                text = NULL;
        outcome.text = text;
        finish(v, &outcome);
}

static void set_down(VirtChild *v, const char *why) {
        bool news = v->up || !v->why || strcmp(v->why, why) != 0;
        char *copy;

        v->up = false;
        if (!news)
                return;
        copy = strdup(why);
        free(v->why);
        v->why = copy;
        if (v->events->connection)
                v->events->connection(v->userdata, false, why);
}

static void process_lost(VirtChild *v, const char *why);

static int process_send(Process *p) {
        while (p->out.size > 0) {
                ssize_t n = send(p->fd, p->out.data, p->out.size, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return sd_event_source_set_io_events(p->io, EPOLLIN | EPOLLOUT);
                if (n < 0)
                        return -errno;
                wire_lines_drop(&p->out, (size_t) n);
        }
        return sd_event_source_set_io_events(p->io, EPOLLIN);
}

static int send_call(VirtChild *v, Call *c) {
        int r;

        r = wire_lines_put(&v->process->out, c->message);
        if (r >= 0)
                r = process_send(v->process);
        if (r >= 0)
                r = sd_event_source_set_time_relative(v->deadline, v->deadline_us);
        if (r >= 0)
                r = sd_event_source_set_enabled(v->deadline, SD_EVENT_ONESHOT);
        return r;
}

static int on_restart(sd_event_source *source, uint64_t usec, void *userdata);

/* It may be there already, and its event still to come. */
static void start_now(VirtChild *v) {
        if (v->process || !v->absent || virt_socket_is_missing(v->uri))
                return;
        (void) sd_event_source_set_enabled(v->restart, SD_EVENT_OFF);
        (void) on_restart(NULL, 0, v);
}

static int on_start(sd_event_source *source, void *userdata) {
        VirtChild *v = userdata;

        if (v->running || !v->first)
                return 0;
        v->running = v->first;
        v->first = v->running->next;
        if (!v->first)
                v->last = &v->first;

        if (v->running->connects)
                start_now(v);
        if (!v->process || !(v->up || v->running->connects))
                finish_unavailable(v);
        else if (send_call(v, v->running) < 0)
                process_lost(v, "guestcryptd-virt cannot be talked to");
        return 0;
}

static int submit(VirtChild *v, json_object *message, bool connects, virt_done_t done, void *userdata) {
        Call *c;

        if (!message)
                return -ENOMEM;
        c = calloc(1, sizeof *c);
        if (!c || wire_add_number(message, "id", v->next_id) < 0) {
                free(c);
                (void) json_object_put(message);
                return -ENOMEM;
        }

        *c = (Call) { .id = v->next_id++,
                      .message = message,
                      .connects = connects,
                      .done = done,
                      .userdata = userdata };
        *v->last = c;
        v->last = &c->next;
        v->n_calls++;
        wake(v);
        return 0;
}

static int child_edit(Virt *virt, Uuid guest, const VirtEdit *edit, const char *swtpm_socket, bool live,
                      virt_done_t done, void *userdata) {
        CLEANUP(json_putp) json_object *o = NULL;
        VirtChild *v = CHILD(virt);

        if (v->n_calls >= CALLS_MAX)
                return -EBUSY;
        o = wire_new("call", "edit");
        if (!o || wire_add_uuid(o, "guest", guest) < 0 || wire_put_edit(o, edit, swtpm_socket, live) < 0)
                return -ENOMEM;
        return submit(v, TAKE(o), false, done, userdata);
}

static int child_refresh(Virt *virt, Uuid guest, virt_done_t done, void *userdata) {
        CLEANUP(json_putp) json_object *o = NULL;
        VirtChild *v = CHILD(virt);

        if (v->n_calls >= CALLS_MAX)
                return -EBUSY;
        o = wire_new("call", "refresh");
        if (!o || wire_add_uuid(o, "guest", guest) < 0)
                return -ENOMEM;
        return submit(v, TAKE(o), false, done, userdata);
}

static int child_find(Virt *virt, const char *name, virt_done_t done, void *userdata) {
        CLEANUP(json_putp) json_object *o = NULL;
        VirtChild *v = CHILD(virt);

        if (v->n_calls >= CALLS_MAX)
                return -EBUSY;
        o = wire_new("call", "find");
        if (!o || wire_add_string(o, "name", name) < 0)
                return -ENOMEM;
        return submit(v, TAKE(o), true, done, userdata);
}

static bool child_is_up(const Virt *virt) {
        return CONTAINER_OF(virt, const VirtChild, virt)->up;
}

/* ---- what is told ---- */

static Told *told_find(const VirtChild *v, Uuid id) {
        for (size_t i = 0; i < v->n_told; i++)
                if (uuid_equal(v->told[i].uuid, id))
                        return v->told + i;
        return NULL;
}

static void told_remove(VirtChild *v, Told *t) {
        Uuid id = t->uuid;

        *t = v->told[--v->n_told];
        if (v->events->gone)
                v->events->gone(v->userdata, id);
}

static int told_mark(VirtChild *v, Uuid id) {
        Told *t = told_find(v, id);

        if (!t) {
                if (v->n_told == v->told_capacity) {
                        size_t capacity = 2 * v->told_capacity + 64;
                        Told *bigger = reallocarray(v->told, capacity, sizeof *bigger);

                        if (!bigger)
                                return -ENOMEM;
                        v->told = bigger;
                        v->told_capacity = capacity;
                }
                t = v->told + v->n_told++;
                t->uuid = id;
        }
        t->seen = true;
        return 0;
}

static int on_guest(VirtChild *v, const json_object *o) {
        CLEANUP(virt_guest_clear) VirtGuest g = {};
        int r;

        r = wire_get_guest(o, &g);
        if (r < 0)
                return r;
        r = told_mark(v, g.uuid);
        if (r >= 0 && v->events->guest)
                v->events->guest(v->userdata, &g);
        return r;
}

static void on_listed(VirtChild *v) {
        for (size_t i = 0; i < v->n_told;)
                if (!v->told[i].seen)
                        told_remove(v, v->told + i);
                else
                        i++;
        if (v->events->listed)
                v->events->listed(v->userdata);
}

static int on_done(VirtChild *v, const json_object *o) {
        VirtOutcome outcome;
        int r;

        r = wire_get_outcome(o, &outcome);
        if (r < 0)
                return r;
        finish(v, &outcome);
        return 0;
}

static int handle(VirtChild *v, const json_object *o) {
        const char *event = wire_string(o, "event");
        Told *t;
        Uuid id;
        int r;

        if (strcmp(event, "guest") == 0)
                return on_guest(v, o);
        if (strcmp(event, "up") == 0) {
                v->up = true;
                v->restart_us = RESTART_FIRST_US;
                if (v->events->connection)
                        v->events->connection(v->userdata, true, NULL);
                return 0;
        }
        if (strcmp(event, "down") == 0) {
                set_down(v, wire_string(o, "why"));
                return 0;
        }
        if (strcmp(event, "listed") == 0) {
                on_listed(v);
                return 0;
        }
        if (strcmp(event, "gone") == 0 || strcmp(event, "reboot") == 0) {
                r = wire_uuid(o, "uuid", &id);
                if (r < 0)
                        return r;
                if (*event == 'g') {
                        t = told_find(v, id);
                        if (t)
                                told_remove(v, t);
                } else if (v->events->reboot)
                        v->events->reboot(v->userdata, id);
                return 0;
        }
        if (v->running && wire_number(o, "id") == v->running->id) {
                if (strcmp(event, "done") == 0)
                        return on_done(v, o);
                if (strcmp(event, "begun") == 0) {
                        v->running->begun = true;
                        return 0;
                }
        }
        return -EBADMSG;
}

/* ---- the process ---- */

static Process *process_free(Process *p) {
        if (!p)
                return NULL;
        (void) sd_event_source_disable_unref(p->io);
        (void) sd_event_source_disable_unref(p->exit);
        (void) fd_close(p->fd);
        (void) fd_close(p->pid_fd);
        wire_lines_clear(&p->in);
        wire_lines_clear(&p->out);
        free(p);
        return NULL;
}

static int on_exit_of_left(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Process *p = userdata;
        siginfo_t info = {};

        if (waitid(P_PIDFD, (id_t) p->pid_fd, &info, WEXITED | WNOHANG) == 0 && info.si_pid == 0)
                return 0;
        for (Process **q = &p->owner->left; *q; q = &(*q)->next)
                if (*q == p) {
                        *q = p->next;
                        break;
                }
        (void) process_free(p);
        return 0;
}

/* Kills it, and lets go of it when it has ended. */
static void process_leave(VirtChild *v) {
        Process *p = TAKE(v->process);

        (void) kill(p->pid, SIGKILL);
        p->io = sd_event_source_disable_unref(p->io);
        p->fd = fd_close(p->fd);
        p->next = v->left;
        v->left = p;
        if (sd_event_add_io(v->event, &p->exit, p->pid_fd, EPOLLIN, on_exit_of_left, p) < 0)
                log_debug("Cannot watch process %d end, it stays listed", (int) p->pid);
}

static void restart_later(VirtChild *v) {
        (void) sd_event_source_set_time_relative(v->restart, v->restart_us);
        (void) sd_event_source_set_enabled(v->restart, SD_EVENT_ONESHOT);
        v->restart_us = MIN(2 * v->restart_us, RESTART_MAX_US);
}

static void process_lost(VirtChild *v, const char *why) {
        process_leave(v);
        for (size_t i = 0; i < v->n_told; i++)
                v->told[i].seen = false;
        restart_later(v);
        set_down(v, why);
        if (v->running)
                finish_unavailable(v);
}

static int receive(Process *p) {
        char buffer[READ_SIZE];
        ssize_t n = recv(p->fd, buffer, sizeof buffer, MSG_DONTWAIT);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (n == 0)
                return -ECONNRESET;
        return wire_lines_add(&p->in, buffer, (size_t) n);
}

static int handle_all(VirtChild *v) {
        for (;;) {
                CLEANUP(json_putp) json_object *o = NULL;
                int r;

                r = wire_lines_take(&v->process->in, &o);
                if (r > 0)
                        r = handle(v, o);
                else if (r == 0)
                        return 0;
                if (r < 0)
                        return r;
        }
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        VirtChild *v = userdata;
        int r = 0, k;

        if (events & EPOLLOUT)
                r = process_send(v->process);
        if (r >= 0 && events & (EPOLLIN | EPOLLHUP))
                r = receive(v->process);
        /* what it has said before it ended counts */
        k = handle_all(v);
        if (k < 0)
                process_lost(v, "guestcryptd-virt made no sense");
        else if (r < 0)
                process_lost(v, "guestcryptd-virt has ended");
        return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        VirtChild *v = userdata;
        const Call *running = v->running;
        char why[80];

        if (!running || !v->process)
                return 0;
        (void) on_io(NULL, v->process->fd, EPOLLIN, v); /* just in time? */
        if (v->running != running || !v->process)
                return 0;
        (void) snprintf(why, sizeof why, "it did not answer in %.3g s", (double) v->deadline_us / 1e6);
        process_lost(v, why);
        return 0;
}

static int process_start(VirtChild *v) {
        char *argv[] = { v->program, v->uri, NULL };
        CLEANUP(fd_closep) int theirs = -1;
        Process *p = calloc(1, sizeof *p);
        int pair[2], r;

        if (!p)
                return -ENOMEM;
        p->owner = v;
        p->fd = p->pid_fd = -1;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
                r = -errno;
                goto fail;
        }
        p->fd = pair[0];
        theirs = pair[1];
        r = program_spawn(v->program, argv, environ,
                          (int[]) { PROGRAM_NULL, PROGRAM_NULL, PROGRAM_OURS, [VIRT_CHILD_FD] = theirs },
                          VIRT_CHILD_FD + 1, &p->pid);
        if (r < 0)
                goto fail;

        p->pid_fd = (int) syscall(SYS_pidfd_open, p->pid, 0);
        r = p->pid_fd < 0 ? -errno : 0;
        if (r >= 0)
                r = sd_event_add_io(v->event, &p->io, p->fd, EPOLLIN, on_io, v);
        if (r < 0) {
                (void) kill(p->pid, SIGKILL);
                (void) waitpid(p->pid, NULL, 0);
                goto fail;
        }
        v->process = p;
        return 0;

fail:
        (void) process_free(p);
        return r;
}

static int on_coming(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        VirtChild *v = userdata;

        v->coming = sd_event_source_disable_unref(v->coming); /* it is looked for, and waited for anew */
        v->restart_us = RESTART_FIRST_US;
        restart_later(v);
        return 0;
}

/* Where there is no libvirt its library, which is larger than we are, is not needed. */
static bool wait_for_libvirt(VirtChild *v) {
        CLEANUP(fd_closep) int fd = -1;

        v->coming = sd_event_source_disable_unref(v->coming);
        if (!virt_socket_is_missing(v->uri))
                return false;
        fd = virt_socket_watch();
        if (fd < 0 || sd_event_add_io(v->event, &v->coming, fd, EPOLLIN, on_coming, v) < 0)
                return false;
        (void) sd_event_source_set_io_fd_own(v->coming, true);
        TAKE_FD(fd);
        if (!virt_socket_is_missing(v->uri)) { /* it came meanwhile */
                v->coming = sd_event_source_disable_unref(v->coming);
                return false;
        }
        return true;
}

static int on_restart(sd_event_source *source, uint64_t usec, void *userdata) {
        VirtChild *v = userdata;
        char why[160];
        int r;

        v->absent = wait_for_libvirt(v);
        if (v->absent) {
                set_down(v, "none runs on this host: there is no socket in '" VIRT_SOCKET_DIR "'");
                return 0;
        }
        r = process_start(v);
        if (r < 0) {
                (void) snprintf(why, sizeof why, "%.100s cannot be started: %s", v->program, strerror(-r));
                restart_later(v);
                set_down(v, why);
        }
        return 0;
}

/* ---- life ---- */

static void child_free(Virt *virt) {
        VirtChild *v = CHILD(virt);

        if (v->process)
                process_leave(v);
        while (v->left) {
                Process *p = v->left;

                v->left = p->next;
                /* it was killed, and hangs in nothing that outlives that */
                (void) waitid(P_PIDFD, (id_t) p->pid_fd, NULL, WEXITED);
                (void) process_free(p);
        }
        if (v->running)
                call_free(v->running);
        while (v->first) {
                Call *c = v->first;

                v->first = c->next;
                call_free(c);
        }
        (void) sd_event_source_disable_unref(v->start);
        (void) sd_event_source_disable_unref(v->deadline);
        (void) sd_event_source_disable_unref(v->restart);
        (void) sd_event_source_disable_unref(v->coming);
        (void) sd_event_unref(v->event);
        free(v->told);
        free(v->uri);
        free(v->program);
        free(v->why);
        free(v);
}

Virt *virt_free(Virt *v) {
        if (v)
                v->ops->free(v);
        return NULL;
}

static const VirtOps child_ops = {
        .edit = child_edit,
        .refresh = child_refresh,
        .find = child_find,
        .is_up = child_is_up,
        .free = child_free,
};

int virt_child_new(sd_event *event, const VirtConfig *config, const char *program, const VirtEvents *events,
                   void *userdata, Virt **ret) {
        bool none = !config->uri || !*config->uri;
        VirtChild *v = calloc(1, sizeof *v);
        int r;

        if (!v)
                return -ENOMEM;
        v->virt.ops = &child_ops;
        v->event = sd_event_ref(event);
        v->uri = strdup(config->uri ?: "");
        v->program = strdup(program);
        v->why = none ? strdup("none is configured") : NULL;
        v->absent = !none;
        v->deadline_us = config->deadline_us ?: DEADLINE_US;
        v->restart_us = RESTART_FIRST_US;
        v->events = events;
        v->userdata = userdata;
        v->last = &v->first;
        v->next_id = 1;

        r = v->uri && v->program ? 0 : -ENOMEM;
        if (r >= 0)
                r = sd_event_add_defer(event, &v->start, on_start, v);
        if (r >= 0)
                r = sd_event_source_set_enabled(v->start, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &v->deadline, CLOCK_MONOTONIC, 0, 1000, on_deadline,
                                               v);
        if (r >= 0)
                r = sd_event_source_set_enabled(v->deadline, SD_EVENT_OFF);
        /* the first start is one of the loop's, too, so that no event comes before this has returned */
        if (r >= 0)
                r = sd_event_add_time_relative(event, &v->restart, CLOCK_MONOTONIC, 0, 1000, on_restart, v);
        if (r >= 0)
                r = sd_event_source_set_enabled(v->restart, none ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
        if (r < 0) {
                child_free(&v->virt);
                return r;
        }

        *ret = &v->virt;
        return 0;
}
