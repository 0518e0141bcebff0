/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/notify.h"
#include "drivers/virtio-tpm/report.h"

#define ANSWER_MAX 4096

typedef struct Answer {
        size_t size;
        char text[ANSWER_MAX];
} Answer;

static void close_client(ControlClient *k) {
        int fd = k->source.fd;

        loop_forget(k->control->loop, &k->source);
        fd_close(fd);
        for (unsigned i = 0; i < k->n_fds; i++)
                fd_close(k->fds[i]);
        k->n_fds = 0;
        k->size = 0;
        k->waits = k->watches = false;
}

/* Answers are small and a socket's buffer is not: who does not read is dropped, not waited for. */
static void say(ControlClient *k, const char *text, size_t size) {
        if (send(k->source.fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) size)
                close_client(k);
}

static void say_ok(ControlClient *k) {
        say(k, "ok\n", 3);
}

__attribute__((format(printf, 2, 3))) static void add(Answer *a, const char *format, ...) {
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(a->text + a->size, sizeof a->text - a->size, format, ap);
        va_end(ap);
        if (n > 0)
                a->size = MIN(a->size + (size_t) n, sizeof a->text - 1);
}

static const char *phase_name(const DeviceState *s) {
        static const char *const names[] = {
                [DEVICE_IDLE] = "idle", [DEVICE_QUEUED] = "queued", [DEVICE_SENDING] = "busy",
                [DEVICE_SENT] = "busy", [DEVICE_DONE] = "done",
        };

        if (s->phase == DEVICE_SENT && s->unsure)
                return "unsure";
        return s->phase < ELEMENTS(names) ? names[s->phase] : "?";
}

static void do_status(ControlClient *k) {
        const Control *c = k->control;
        const DeviceState *s = c->device->s;
        const DeviceCounters *n = &s->counters;
        Answer a = {};

        add(&a, "version=%s\nmanager=%s\nfront=%s\nconnected=%s\nmachine=%d\ntpm=%s\n", GUESTCRYPT_VERSION,
            notify_manager(), c->server->front->name, c->server->s->connected ? "yes" : "no",
            (int) c->server->s->machine, tpm_step_name(c->device->tpm));
        add(&a,
            "device-status=0x%02" PRIx32 "\nfeatures=0x%" PRIx64
            "\nrunning=%s\nrequest=%s\ndraining=%s\nranges=%zu\n",
            s->status, s->features, s->running ? "yes" : "no", phase_name(s),
            c->device->draining ? "yes" : "no", c->device->memory->n_ranges);

        const struct {
                const char *name;
                uint64_t value;
        } counters[] = {
                { "commands", n->commands },
                { "bytes-in", n->bytes_in },
                { "bytes-out", n->bytes_out },
                { "malformed", n->malformed },
                { "denied", n->denied },
                { "failed", n->failed },
                { "late", n->late },
                { "too-large", n->too_large },
                { "dropped", n->dropped },
                { "broken-rings", n->broken_rings },
                { "driver-resets", n->driver_resets },
                { "machine-resets", n->machine_resets },
                { "connections", n->connections },
                { "restarts", n->restarts },
                { "latency-sum-ns", n->latency_sum_ns },
                { "latency-max-ns", n->latency_max_ns },
        };
        for (size_t i = 0; i < ELEMENTS(counters); i++)
                add(&a, "%s=%" PRIu64 "\n", counters[i].name, counters[i].value);
        for (unsigned i = 0; i < DEVICE_LATENCY_BUCKETS; i++)
                if (n->latency[i] > 0)
                        add(&a, "latency-%" PRIu64 "us=%" PRIu64 "\n", UINT64_C(1) << i, n->latency[i]);
        add(&a, "ok\n");
        say(k, a.text, a.size);
}

static void do_watch(ControlClient *k) {
        const Control *c = k->control;
        Answer a = {};

        add(&a, "tpm=%s\nconnected=%s\nok\n", tpm_step_name(c->device->tpm),
            c->server->s->connected ? "yes" : "no");
        say(k, a.text, a.size);
}

static void on_turned(void *userdata) {
        Control *c = userdata;
        const char *tpm = tpm_step_name(c->device->tpm);

        if (tpm == c->tpm && c->server->s->connected == c->connected)
                return;
        c->tpm = tpm;
        c->connected = c->server->s->connected;
        for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
                if (c->clients[i].watches)
                        do_watch(&c->clients[i]);
}

static void do_tpm(ControlClient *k) {
        int data_fd, r;

        if (k->n_fds == 0) {
                say(k, "error no descriptor\n", 20);
                return;
        }

        data_fd = k->n_fds > 1 ? k->fds[1] : -1;
        k->n_fds = 0;
        r = tpm_connect(k->control->device->tpm, k->fds[0], data_fd, false);
        if (r < 0)
                say(k, "error not usable\n", 17);
        else
                say_ok(k);
}

static void run_line(ControlClient *k, const char *line) {
        Device *d = k->control->device;

        if (strcmp(line, "status") == 0)
                do_status(k);
        else if (strcmp(line, "drain") == 0) {
                device_set_draining(d, true);
                if (device_is_idle(d))
                        say_ok(k);
                else
                        k->waits = true;
        } else if (strcmp(line, "resume") == 0) {
                device_set_draining(d, false);
                say_ok(k);
        } else if (strcmp(line, "watch") == 0) {
                k->watches = true;
                do_watch(k);
        } else if (strcmp(line, "reset") == 0) {
                report(LOG_INFO, "told that the machine was reset");
                device_machine_reset(d);
                say_ok(k);
        } else if (strcmp(line, "tpm") == 0)
                do_tpm(k);
        else
                say(k, "error unknown request\n", 22);
}

static ssize_t receive(ControlClient *k) {
        union {
                char bytes[CMSG_SPACE(sizeof(int) * ELEMENTS(k->fds))];
                struct cmsghdr header;
        } control;
        struct iovec iov = { .iov_base = k->line + k->size, .iov_len = sizeof k->line - 1 - k->size };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes };
        ssize_t n;
        int fd;

        n = recvmsg(k->source.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return -errno;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
                        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof fd; i++) {
                                memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
                                if (k->n_fds < ELEMENTS(k->fds))
                                        k->fds[k->n_fds++] = fd;
                                else
                                        fd_close(fd);
                        }
        return n;
}

static void on_client(void *userdata, uint32_t events) {
        ControlClient *k = userdata;
        char *end;
        ssize_t n;

        n = receive(k);
        if (n == -EAGAIN || n == -EINTR)
                return;
        if (n <= 0) {
                close_client(k);
                return;
        }

        k->size += (size_t) n;
        while (k->source.fd >= 0 && (end = memchr(k->line, '\n', k->size))) {
                size_t used = (size_t) (end + 1 - k->line);

                *end = '\0';
                run_line(k, k->line);
                for (; k->n_fds > 0; k->n_fds--)
                        fd_close(k->fds[k->n_fds - 1]); /* nobody took them */
                k->size -= MIN(used, k->size);
                memmove(k->line, end + 1, k->size);
        }
        if (k->size >= sizeof k->line - 1)
                close_client(k);
}

static void on_listener(void *userdata, uint32_t events) {
        Control *c = userdata;
        CLEANUP(fd_closep) int fd = -1;

        fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        for (unsigned i = 0; fd >= 0 && i < CONTROL_CLIENTS_MAX; i++)
                if (c->clients[i].source.fd < 0 &&
                    loop_watch(c->loop, &c->clients[i].source, fd, EPOLLIN) >= 0)
                        TAKE_FD(fd);
}

static void on_idle(void *userdata) {
        Control *c = userdata;

        for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
                if (c->clients[i].waits) {
                        c->clients[i].waits = false;
                        say_ok(&c->clients[i]);
                }
}

void control_init(Control *c, Loop *loop, Device *device, Server *server) {
        *c = (Control) { .loop = loop, .device = device, .server = server, .listen_fd = -1 };
        c->listener = (LoopSource) { .fd = -1, .ready = on_listener, .userdata = c };
        for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
                c->clients[i] = (ControlClient) {
                        .control = c, .source = { .fd = -1, .ready = on_client, .userdata = &c->clients[i] }
                };
        loop->turned = on_turned;
        loop->turned_userdata = c;
        device->idle = on_idle;
        device->idle_userdata = c;
}

void control_done(Control *c) {
        for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
                close_client(&c->clients[i]);
        loop_forget(c->loop, &c->listener);
        c->listen_fd = fd_close(c->listen_fd);
}

int control_listen(Control *c, int fd) {
        int r;

        r = loop_watch(c->loop, &c->listener, fd, EPOLLIN);
        if (r < 0) {
                fd_close(fd);
                return r;
        }

        c->listen_fd = fd;
        return 0;
}
