/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "drivers/virtio-tpm/report.h"

#define FIRST_FD    3 /* SD_LISTEN_FDS_START */
#define PENDING_MAX 128
#define SHORTAGE_NS (100 * UINT64_C(1000000)) /* then it is tried again */

/* The last word about a name that the manager is to know. */
typedef struct Word {
        char name[16];
        int fd;       /* -1: to be forgotten */
        bool removed; /* it knows already that what had this name before is to be forgotten */
} Word;

static int notify_fd = -1;
static Word pending[PENDING_MAX]; /* what it does not know yet, with descriptors of our own */
static unsigned n_pending;
static uint32_t *notify_unsaid; /* NULL: the manager is waited for */
static bool notify_lost;        /* there is something that it will never know */
static Loop *notify_loop;

static void on_room(void *userdata, uint32_t events);
static void on_again(void *userdata);

static LoopSource room = { .fd = -1, .ready = on_room };
static LoopTimer again = { .elapsed = on_again };

int notify_open(void) {
        const char *path = getenv("NOTIFY_SOCKET");
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        CLEANUP(fd_closep) int fd = -1;
        size_t n;

        if (!path || path[0] == '\0')
                return 0;

        n = strlen(path);
        if ((path[0] != '/' && path[0] != '@') || n < 2 || n >= sizeof address.sun_path)
                return -EINVAL;

        memcpy(address.sun_path, path, n + 1);
        if (path[0] == '@')
                address.sun_path[0] = '\0';

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *) &address,
                    (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n)) < 0)
                return -errno;

        notify_fd = TAKE_FD(fd);
        return 0;
}

static int notify_send_fd(const char *text, int fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr header;
        } control = {};
        struct iovec iov = { .iov_base = (char *) text, .iov_len = strlen(text) };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (notify_fd < 0)
                return 0;

        if (fd >= 0) {
                m.msg_control = control.bytes;
                m.msg_controllen = sizeof control.bytes;
                control.header = (struct cmsghdr) { .cmsg_len = CMSG_LEN(sizeof(int)),
                                                    .cmsg_level = SOL_SOCKET,
                                                    .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof fd);
        }

        return sendmsg(notify_fd, &m, MSG_NOSIGNAL | (notify_unsaid ? MSG_DONTWAIT : 0)) < 0 ? -errno : 0;
}

/* Two messages. That one of them was taken is noted: to begin anew with each try would fill whatever room there is with the first one, for
 * ever, where the manager makes room for one at a time. */
static int say(Word *w) {
        char text[128];
        int r;

        if (!w->removed) {
                (void) snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", w->name);
                r = notify_send(text);
                if (r < 0)
                        return r;
                w->removed = true;
        }
        if (w->fd < 0)
                return 0;

        /* FDPOLL=0: the manager would take a hang-up for a reason to forget it; we want to see the hang-up ourselves */
        (void) snprintf(text, sizeof text, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", w->name);
        return notify_send_fd(text, w->fd);
}

static void pending_drop(unsigned i) {
        fd_close(pending[i].fd);
        pending[i] = pending[--n_pending];
}

/* It is short of memory, or our user has more descriptors under way than one may: there is no event that tells the end of that. */
static bool is_shortage(int r) {
        return r == -ENOBUFS || r == -ENOMEM || r == -ETOOMANYREFS;
}

/* Where it is gone, or refuses, it would not take the word at another time either. */
static void lose(int r) {
        if (!notify_lost)
                report(LOG_WARNING,
                       "the service manager cannot be told what to keep: %s; a restart would cost the VMM the device",
                       strerror(-r));
        notify_lost = true;
        if (notify_unsaid)
                *notify_unsaid = 1;
}

static void wait_after(int r) {
        if (is_shortage(r)) {
                loop_forget(notify_loop, &room);
                again.at = loop_now() + SHORTAGE_NS;
        } else if (room.fd < 0)
                (void) loop_watch(notify_loop, &room, notify_fd,
                                  EPOLLOUT); /* fails: then it is never said */
}

static void on_room(void *userdata, uint32_t events) {
        while (n_pending > 0) {
                int r = say(&pending[0]);

                if (r == -EAGAIN || is_shortage(r))
                        return wait_after(r);
                if (r < 0)
                        lose(r);
                pending_drop(0);
        }
        loop_forget(notify_loop, &room);
        *notify_unsaid = notify_lost;
}

static void on_again(void *userdata) {
        on_room(userdata, 0);
}

/* A copy of the descriptor: the owner may close it meanwhile. */
static int put_off(const Word *w) {
        unsigned i = 0;

        *notify_unsaid = 1;
        while (i < n_pending && strcmp(pending[i].name, w->name) != 0)
                i++;
        if (i < n_pending)
                fd_close(pending[i].fd); /* what was removed for it stays removed */
        else if (n_pending == PENDING_MAX)
                return -ENOSPC; /* more than there are names */
        else
                pending[n_pending++] = *w;
        pending[i].fd = w->fd < 0 ? -1 : fcntl(w->fd, F_DUPFD_CLOEXEC, 0);
        return w->fd >= 0 && pending[i].fd < 0 ? -errno : 0;
}

void notify_begin(Loop *loop, uint32_t *unsaid) {
        notify_loop = loop;
        notify_unsaid = unsaid;
        *unsaid = notify_lost;
        loop_add_timer(loop, &again);
}

void notify_end(void) {
        if (!notify_unsaid)
                return;
        while (n_pending > 0)
                pending_drop(0);
        loop_forget(notify_loop, &room);
        again.at = 0;
        notify_unsaid = NULL;
}

const char *notify_manager(void) {
        return notify_fd < 0 ? "none" : n_pending > 0 || notify_lost ? "behind" : "told";
}

int notify_send(const char *text) {
        return notify_send_fd(text, -1);
}

int notify_store(const char *name, int fd) {
        Word w = { .fd = fd };
        int r;

        if (notify_fd < 0)
                return 0;
        (void) snprintf(w.name, sizeof w.name, "%s", name);
        r = n_pending > 0 ? -EAGAIN : say(&w);
        if (notify_unsaid && (r == -EAGAIN || is_shortage(r))) {
                wait_after(r);
                r = put_off(&w);
        }
        if (r < 0)
                lose(r);
        return r;
}

int notify_discard(const char *name) {
        return notify_store(name, -1);
}

int notify_received(void (*each)(void *userdata, const char *name, int fd), void *userdata) {
        const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"),
                   *names = getenv("LISTEN_FDNAMES");
        long n;

        if (!pid || !count || strtol(pid, NULL, 10) != getpid())
                return 0;

        n = strtol(count, NULL, 10);
        if (n < 0 || n > 4096)
                return -EINVAL;

        for (int i = 0; i < n; i++) {
                char name[64] = "unknown";
                size_t length;

                if (names && *names) {
                        length = strcspn(names, ":");
                        if (length < sizeof name)
                                (void) snprintf(name, sizeof name, "%.*s", (int) length, names);
                        names += length + (names[length] == ':');
                }
                if (fcntl(FIRST_FD + i, F_SETFD, FD_CLOEXEC) < 0)
                        return -errno;
                each(userdata, name, FIRST_FD + i);
        }
        return 0;
}
