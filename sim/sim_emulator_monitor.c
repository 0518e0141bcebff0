/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The monitor of a guest: lines of JSON that go through as they are, with the descriptors that come along, but for what is
 * said of vfio-ap devices. Where such a command comes QEMU is asked for its name instead, so that it answers in its turn and
 * only when it would, and then its answer becomes that of the command. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sim/sim_emulator.h"

#define READ_SIZE 65536
#define FDS_MAX   16 /* in one message; QEMU takes no more */

/* What becomes of QEMU's next answer. */
typedef enum Asked {
        ASKED_OTHER,   /* nothing */
        ASKED_PLUG,    /* device_add of a vfio-ap */
        ASKED_UNPLUG,  /* device_del of ours */
        ASKED_LIST,    /* qom-list of the devices: ours is added */
        ASKED_MIGRATE, /* such a device does not migrate, nor is it saved */
} Asked;

typedef struct Side {
        int fd; /* -1: not connected */
        char *data;
        size_t size, allocated;
} Side;

typedef struct Monitor {
        EmulatorBus *bus;
        int gone_fd;
        const struct sockaddr_un *address;
        socklen_t address_size;
        Side client, qemu;
        int fds[FDS_MAX]; /* of the client, for the next line */
        size_t n_fds;
        bool waits; /* for QEMU's answer; it gets no other command before */
        Asked asked;
        json_object *options; /* ASKED_PLUG */
} Monitor;

static void put(json_object **o) {
        (void) json_object_put(*o);
}

/* ---- bytes ---- */

static void drop_fds(Monitor *m) {
        while (m->n_fds > 0)
                (void) fd_close(m->fds[--m->n_fds]);
}

static void side_close(Side *s) {
        s->fd = fd_close(s->fd);
        free(TAKE(s->data));
        s->size = s->allocated = 0;
}

static void take_fds(Monitor *m, struct msghdr *h) {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
                        if (m->n_fds < FDS_MAX)
                                m->fds[m->n_fds++] = fd;
                        else
                                (void) fd_close(fd);
                }
        }
}

/* 0, or -errno if there is nothing more to come. */
static int side_receive(Monitor *m, Side *s) {
        char control[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct msghdr h = { .msg_control = control, .msg_controllen = sizeof control, .msg_iovlen = 1 };
        struct iovec piece;
        ssize_t n;

        if (s->allocated - s->size < READ_SIZE) {
                char *grown = realloc(s->data, s->size + 2 * READ_SIZE);

                if (!grown)
                        return -ENOMEM;
                s->data = grown;
                s->allocated = s->size + 2 * READ_SIZE;
        }
        piece = (struct iovec) { .iov_base = s->data + s->size, .iov_len = READ_SIZE };
        h.msg_iov = &piece;
        n = recvmsg(s->fd, &h, MSG_CMSG_CLOEXEC);
        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        take_fds(m, &h);
        if (n == 0)
                return -ECONNRESET;
        s->size += (size_t) n;
        return 0;
}

/* With @n_fds of the client's descriptors. A reader that does not read holds nobody up after QEMU has ended. */
static int send_all(Monitor *m, int fd, const char *data, size_t size, bool with_fds) {
        char control[CMSG_SPACE(FDS_MAX * sizeof(int))] = {};

        for (size_t done = 0; done < size;) {
                struct iovec piece = { .iov_base = (char *) data + done, .iov_len = size - done };
                struct msghdr h = { .msg_iov = &piece, .msg_iovlen = 1 };
                struct pollfd p[] = { { .fd = fd, .events = POLLOUT },
                                      { .fd = m->gone_fd, .events = POLLIN } };
                ssize_t n;

                if (with_fds && m->n_fds > 0) {
                        struct cmsghdr *c = (struct cmsghdr *) control;

                        h.msg_control = control;
                        h.msg_controllen = CMSG_SPACE(m->n_fds * sizeof(int));
                        c->cmsg_level = SOL_SOCKET;
                        c->cmsg_type = SCM_RIGHTS;
                        c->cmsg_len = CMSG_LEN(m->n_fds * sizeof(int));
                        memcpy(CMSG_DATA(c), m->fds, m->n_fds * sizeof(int));
                }
                n = sendmsg(fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n >= 0) {
                        if (with_fds)
                                drop_fds(m);
                        done += (size_t) n;
                } else if (errno == EAGAIN) {
                        if (poll(p, ELEMENTS(p), -1) > 0 && p[1].revents)
                                return -ECONNRESET;
                } else if (errno != EINTR)
                        return -errno;
        }
        return 0;
}

static int send_json(Monitor *m, int fd, json_object *o, bool with_fds) {
        CLEANUP(freep) char *line = NULL;
        const char *text = o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_SPACED) : NULL;
        int n;

        if (!text)
                return -ENOMEM;
        n = asprintf(&line, "%s\r\n", text);
        if (n < 0) {
                line = NULL;
                return -ENOMEM;
        }
        return send_all(m, fd, line, (size_t) n, with_fds);
}

/* The size of the first line; 0: there is no whole one. */
static size_t side_line(const Side *s) {
        const char *end = s->size > 0 ? memchr(s->data, '\n', s->size) : NULL;

        return end ? (size_t) (end - s->data) + 1 : 0;
}

static void side_drop(Side *s, size_t n) {
        memmove(s->data, s->data + n, s->size - n);
        s->size -= n;
}

/* NULL: it is no object. */
static json_object *parse(const char *line, size_t n) {
        json_tokener *t = json_tokener_new();
        json_object *o = t ? json_tokener_parse_ex(t, line, (int) n) : NULL;

        json_tokener_free(t);
        if (json_object_is_type(o, json_type_object))
                return o;
        (void) json_object_put(o);
        return NULL;
}

/* ---- what is said of vfio-ap ---- */

static bool is_our_device(const Monitor *m, json_object *arguments) {
        const char *id = emulator_string(arguments, "id");

        return id && m->bus->id && strcmp(id, m->bus->id) == 0;
}

static Asked classify(const Monitor *m, json_object *command) {
        json_object *arguments = json_object_object_get(command, "arguments");
        const char *name = emulator_string(command, "execute") ?: "", *path;

        if (strcmp(name, "device_add") == 0 && emulator_is_vfio_ap(arguments))
                return ASKED_PLUG;
        if (strcmp(name, "device_del") == 0 && is_our_device(m, arguments))
                return ASKED_UNPLUG;
        if (strcmp(name, "migrate") == 0 && m->bus->mdev)
                return ASKED_MIGRATE;
        path = strcmp(name, "qom-list") == 0 ? emulator_string(arguments, "path") : NULL;
        if (path && strcmp(path, "/machine/peripheral") == 0)
                return ASKED_LIST;
        return ASKED_OTHER;
}

/* Something that QEMU does not mind, with the same id. */
static int ask_instead(Monitor *m, json_object *command) {
        CLEANUP(put) json_object *o = json_object_new_object();
        json_object *id = json_object_object_get(command, "id");

        if (!o || json_object_object_add(o, "execute", json_object_new_string("query-name")) < 0 ||
            (id && json_object_object_add(o, "id", json_object_get(id)) < 0))
                return -ENOMEM;
        return send_json(m, m->qemu.fd, o, true);
}

static int on_command(Monitor *m, const char *line, size_t n) {
        CLEANUP(put) json_object *command = parse(line, n);

        m->waits = command != NULL;
        m->asked = command ? classify(m, command) : ASKED_OTHER;
        if (m->asked == ASKED_OTHER || m->asked == ASKED_LIST)
                return send_all(m, m->qemu.fd, line, n, true);
        (void) json_object_put(m->options);
        m->options = json_object_get(json_object_object_get(command, "arguments"));
        return ask_instead(m, command);
}

static int turn_into_error(json_object *answer, const char *text) {
        json_object *error = json_object_new_object();

        json_object_object_del(answer, "return");
        if (!error || json_object_object_add(answer, "error", error) < 0 ||
            json_object_object_add(error, "class", json_object_new_string("GenericError")) < 0 ||
            json_object_object_add(error, "desc", json_object_new_string(text)) < 0)
                return -ENOMEM;
        return 0;
}

static int add_device(const Monitor *m, json_object *answer) {
        json_object *list = json_object_object_get(answer, "return"), *o;

        if (!m->bus->id || !json_object_is_type(list, json_type_array))
                return 0;
        o = json_object_new_object();
        if (!o || json_object_object_add(o, "name", json_object_new_string(m->bus->id)) < 0 ||
            json_object_object_add(o, "type", json_object_new_string("child<vfio-ap>")) < 0)
                return -ENOMEM;
        return json_object_array_add(list, o) < 0 ? -ENOMEM : 0;
}

/* What QEMU tells when the device is gone, right after it has answered. */
static int tell_deleted(Monitor *m, const char *id) {
        CLEANUP(put) json_object *o = NULL;
        CLEANUP(freep) char *path = NULL;
        json_object *data, *time;
        struct timeval now;

        if (asprintf(&path, "/machine/peripheral/%s", id) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        (void) gettimeofday(&now, NULL);
        o = json_object_new_object();
        time = json_object_new_object();
        data = json_object_new_object();
        if (!o || json_object_object_add(o, "timestamp", time) < 0 ||
            json_object_object_add(time, "seconds", json_object_new_int64(now.tv_sec)) < 0 ||
            json_object_object_add(time, "microseconds", json_object_new_int64(now.tv_usec)) < 0 ||
            json_object_object_add(o, "event", json_object_new_string("DEVICE_DELETED")) < 0 ||
            json_object_object_add(o, "data", data) < 0 ||
            json_object_object_add(data, "device", json_object_new_string(id)) < 0 ||
            json_object_object_add(data, "path", json_object_new_string(path)) < 0)
                return -ENOMEM;
        return send_json(m, m->client.fd, o, false);
}

/* QEMU has carried out what was asked in place of the command; @answer becomes the command's. */
static int carry_out(Monitor *m, json_object *answer) {
        CLEANUP(freep) char *error = NULL, *id = NULL;
        int r = 0;

        switch (m->asked) {
        case ASKED_PLUG:
                if (emulator_plug(m->bus, m->options, &error) < 0)
                        r = turn_into_error(answer, error ?: strerror(ENOMEM));
                break;
        case ASKED_UNPLUG:
                id = TAKE(m->bus->id);
                emulator_unplug(m->bus);
                break;
        case ASKED_LIST:
                r = add_device(m, answer);
                break;
        case ASKED_MIGRATE:
                r = turn_into_error(answer, "State blocked by non-migratable device '/1/vfio-ap'");
                break;
        case ASKED_OTHER:
                break;
        }
        if (r < 0 || m->client.fd < 0) /* who has asked may be gone */
                return r;
        if (m->asked != ASKED_LIST && !error && m->asked != ASKED_MIGRATE) {
                json_object_object_del(answer, "return");
                if (json_object_object_add(answer, "return", json_object_new_object()) < 0)
                        return -ENOMEM;
        }
        r = send_json(m, m->client.fd, answer, false);
        return r < 0 || !id ? r : tell_deleted(m, id);
}

static int on_said(Monitor *m, const char *line, size_t n) {
        CLEANUP(put) json_object *o = m->waits ? parse(line, n) : NULL;
        bool fine = o && json_object_object_get_ex(o, "return", NULL);
        int r;

        if (!fine && !(o && json_object_object_get_ex(o, "error", NULL)))
                return m->client.fd < 0 ? 0 : send_all(m, m->client.fd, line, n, false);
        if (fine && m->asked != ASKED_OTHER)
                r = carry_out(m, o);
        else
                r = m->client.fd < 0 ? 0 : send_all(m, m->client.fd, line, n, false);
        m->waits = false;
        m->asked = ASKED_OTHER;
        return r;
}

/* ---- connections ---- */

static void client_lost(Monitor *m) {
        side_close(&m->client);
        drop_fds(m);
        /* what QEMU was asked to do it does all the same */
        if (!m->waits || m->asked == ASKED_OTHER) {
                side_close(&m->qemu);
                m->waits = false;
        }
}

static void all_lost(Monitor *m) {
        m->waits = false;
        client_lost(m);
}

static void accept_client(Monitor *m, int listen_fd) {
        m->client.fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (m->client.fd < 0)
                return;
        m->qemu.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (m->qemu.fd < 0 || connect(m->qemu.fd, (const struct sockaddr *) m->address, m->address_size) < 0)
                all_lost(m);
}

/* All whole lines. @from is closed when something fails. */
static int pass_on(Monitor *m, Side *from, int (*on_line)(Monitor *m, const char *line, size_t n)) {
        size_t n;
        int r = 0;

        while (r >= 0 && from->fd >= 0 && !(from == &m->client && m->waits) && (n = side_line(from)) > 0) {
                r = on_line(m, from->data, n);
                side_drop(from, n);
        }
        return r;
}

void emulator_monitor(EmulatorBus *bus, int gone_fd, int listen_fd, const struct sockaddr_un *qemu,
                      socklen_t qemu_size) {
        Monitor m = { .bus = bus,
                      .gone_fd = gone_fd,
                      .address = qemu,
                      .address_size = qemu_size,
                      .client = { .fd = -1 },
                      .qemu = { .fd = -1 } };

        for (;;) {
                bool is_free = m.client.fd < 0 && m.qemu.fd < 0;
                struct pollfd p[] = { { .fd = gone_fd, .events = POLLIN },
                                      { .fd = is_free ? listen_fd : -1, .events = POLLIN },
                                      { .fd = m.client.fd, .events = m.waits ? 0 : POLLIN },
                                      { .fd = m.qemu.fd, .events = POLLIN } };
                int r = 0;

                if (poll(p, ELEMENTS(p), -1) < 0)
                        continue;
                if (p[0].revents)
                        break;
                if (p[1].revents)
                        accept_client(&m, listen_fd);
                if (p[3].revents) {
                        r = side_receive(&m, &m.qemu);
                        if (r >= 0)
                                r = pass_on(&m, &m.qemu, on_said);
                        if (r < 0)
                                all_lost(&m);
                }
                if (m.client.fd >= 0 && p[2].revents)
                        r = m.waits ? -ECONNRESET : side_receive(&m, &m.client);
                if (r >= 0)
                        r = pass_on(&m, &m.client, on_command);
                if (r < 0 || (m.client.fd < 0 && !m.waits))
                        client_lost(&m);
        }
        all_lost(&m);
        (void) json_object_put(m.options);
}
