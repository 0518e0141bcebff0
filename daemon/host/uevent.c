/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#define GROUP_KERNEL 1
#define BUFFER_SIZE  (8 << 20) /* of the socket: unplugging a full machine is 65,536 messages */
#define MESSAGE_MAX  8192
#define AT_ONCE      16

struct Uevent {
        int fd;
        sd_event_source *io, *timer;
        uint64_t last; /* when the timer last ended, CLOCK_MONOTONIC */
        uevent_changed_t changed;
        void *userdata;
};

static const char *const ap_subsystems[] = { "ap", NULL }, *const ap_paths[] = { "/devices/ap", NULL };

/* The lists end with NULL. */
static bool uevent_is_of(const char *message, size_t size, const char *const subsystems[],
                         const char *const paths[]) {
        for (const char *p = message, *end = message + size; p < end;) {
                size_t n = strnlen(p, (size_t) (end - p));

                if (n == (size_t) (end - p)) /* not terminated */
                        return false;
                for (size_t i = 0; subsystems[i]; i++)
                        if (strncmp(p, "SUBSYSTEM=", 10) == 0 && strcmp(p + 10, subsystems[i]) == 0)
                                return true;
                for (size_t i = 0; paths[i]; i++) {
                        size_t m = strlen(paths[i]);

                        if (strncmp(p, "DEVPATH=", 8) == 0 && strncmp(p + 8, paths[i], m) == 0 &&
                            (p[8 + m] == '/' || p[8 + m] == '\0'))
                                return true;
                }
                p += n + 1;
        }
        return false;
}

bool uevent_matters(const char *message, size_t size) {
        static const char *const subsystems[] = { "ap", "mdev", "matrix", "mdev_bus", "vfio", NULL };
        static const char *const paths[] = { "/devices/ap", "/devices/vfio_ap", NULL };

        if (uevent_is_of(message, size, subsystems, paths))
                return true;
        for (const char *p = message, *end = message + size; p < end;
             p += strnlen(p, (size_t) (end - p)) + 1)
                if (strnlen(p, (size_t) (end - p)) < (size_t) (end - p) &&
                    strncmp(p, "MDEV_STATE=", 11) == 0)
                        return true;
        return false;
}

/* The value of @key ("ACTION="), NULL if there is none. */
static const char *uevent_value(const char *message, size_t size, const char *key) {
        for (const char *p = message, *end = message + size; p < end;) {
                size_t n = strnlen(p, (size_t) (end - p));

                if (n == (size_t) (end - p))
                        return NULL;
                if (strncmp(p, key, strlen(key)) == 0)
                        return p + strlen(key);
                p += n + 1;
        }
        return NULL;
}

void uevent_read(const char *message, size_t size, uevent_own_t own, void *userdata, UeventNews *news) {
        static const char *const vfio[] = { "vfio", "vfio-dev", NULL }, *const none[] = { NULL };
        const char *action, *path, *subsystem, *name;
        Uuid uuid;

        if (uevent_is_of(message, size, ap_subsystems, ap_paths)) {
                news->ap = true;
                return;
        }
        /* what follows an mdev into VFIO says nothing new */
        if (!uevent_matters(message, size) || uevent_is_of(message, size, vfio, none))
                return;

        action = uevent_value(message, size, "ACTION=");
        path = uevent_value(message, size, "DEVPATH=");
        subsystem = uevent_value(message, size, "SUBSYSTEM=");
        name = path ? strrchr(path, '/') : NULL;
        if (action && name && subsystem && strcmp(subsystem, "mdev") == 0) {
                bool added = strcmp(action, "add") == 0;

                if (strcmp(action, "bind") == 0 || strcmp(action, "unbind") == 0)
                        return;
                if (own && (added || strcmp(action, "remove") == 0) && uuid_parse(name + 1, &uuid) >= 0 &&
                    own(userdata, uuid, added))
                        return;
        }
        news->mdevs = true;
}

/* Messages that are taken with one system call. */
typedef struct Post {
        struct mmsghdr headers[AT_ONCE];
        struct iovec parts[AT_ONCE];
        struct sockaddr_nl senders[AT_ONCE];
        char controls[AT_ONCE][CMSG_SPACE(sizeof(struct ucred))];
        char data[AT_ONCE][MESSAGE_MAX];
} Post;

/* How many there are, at least one; -EAGAIN: none left; -ENOBUFS: some were lost. */
static int post_receive(int fd, Post *p) {
        for (size_t i = 0; i < AT_ONCE; i++) {
                p->parts[i] = (struct iovec) { p->data[i], MESSAGE_MAX };
                p->headers[i].msg_hdr = (struct msghdr) {
                        .msg_name = &p->senders[i],
                        .msg_namelen = sizeof p->senders[i],
                        .msg_iov = &p->parts[i],
                        .msg_iovlen = 1,
                        .msg_control = p->controls[i],
                        .msg_controllen = sizeof p->controls[i],
                };
        }
        return ret_errno(recvmmsg(fd, p->headers, AT_ONCE, MSG_DONTWAIT, NULL));
}

/* The kernel sends as port 0 and as root; anybody may send to the group in his own name. NULL: not whole, or somebody else's. */
static const char *post_of_kernel(const Post *p, int i, size_t *ret_size) {
        const struct msghdr *m = &p->headers[i].msg_hdr;
        struct ucred cred;

        if (m->msg_flags & MSG_TRUNC || m->msg_namelen != sizeof p->senders[i] || p->senders[i].nl_pid != 0)
                return NULL;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR((struct msghdr *) m, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
                        continue;
                memcpy(&cred, CMSG_DATA(c), sizeof cred);
                *ret_size = p->headers[i].msg_len;
                return cred.uid == 0 ? p->data[i] : NULL;
        }
        return NULL;
}

/* Until the timer ends nobody asks what else there is: it would only be a wakeup for each. */
static int uevent_notice(Uevent *u) {
        int r;

        r = sd_event_source_set_time(u->timer,
                                     MAX(clock_now_us() + UEVENT_COALESCE_US, u->last + UEVENT_PERIOD_US));
        if (r >= 0)
                r = sd_event_source_set_enabled(u->timer, SD_EVENT_ONESHOT);
        if (r >= 0)
                r = sd_event_source_set_enabled(u->io, SD_EVENT_OFF);
        return r;
}

static int uevent_on_io(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        Uevent *u = userdata;
        Post post;

        for (;;) {
                int n = post_receive(fd, &post);

                if (n == -ENOBUFS)
                        return uevent_notice(u);
                if (n < 0)
                        return n == -EAGAIN || n == -EINTR ? 0 : n;
                for (int i = 0; i < n; i++) {
                        size_t size;
                        const char *message = post_of_kernel(&post, i, &size);

                        if (message && uevent_matters(message, size))
                                return uevent_notice(u);
                }
        }
}

static int uevent_on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        Uevent *u = userdata;
        Post post;
        int r;

        /* all that came meanwhile is told by the same call; a real error is the next one's to report */
        do
                r = post_receive(u->fd, &post);
        while (r >= 0 || r == -ENOBUFS || r == -EINTR);
        u->last = clock_now_us();
        r = sd_event_source_set_enabled(u->io, SD_EVENT_ON);
        u->changed(u->userdata);
        return r;
}

void uevent_take(int fd, uevent_own_t own, void *userdata, UeventNews *news) {
        Post post;

        for (;;) {
                int n = post_receive(fd, &post);

                if (n == -EAGAIN)
                        return;
                if (n < 0 && n != -EINTR) {
                        *news = (UeventNews) { .ap = true, .mdevs = true };
                        if (n != -ENOBUFS) /* deaf: whatever may have happened */
                                return;
                }
                for (int i = 0; i < n; i++) {
                        size_t size;
                        const char *message = post_of_kernel(&post, i, &size);

                        if (message)
                                uevent_read(message, size, own, userdata, news);
                }
        }
}

Uevent *uevent_free(Uevent *u) {
        if (!u)
                return NULL;

        (void) sd_event_source_disable_unref(u->io);
        (void) sd_event_source_disable_unref(u->timer);
        (void) fd_close(u->fd);
        free(u);
        return NULL;
}

int uevent_open(void) {
        const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = GROUP_KERNEL };
        const int on = 1, size = BUFFER_SIZE;
        CLEANUP(fd_closep) int fd = -1;

        fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
        if (fd < 0)
                return -errno;
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
                (void) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* what we are allowed */
        if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *) &address, sizeof address) < 0)
                return -errno;

        return TAKE_FD(fd);
}

int uevent_new(sd_event *event, uevent_changed_t changed, void *userdata, Uevent **ret) {
        Uevent *u = calloc(1, sizeof *u);
        int r;

        if (!u)
                return -ENOMEM;
        u->changed = changed;
        u->userdata = userdata;

        r = u->fd = uevent_open();
        if (r >= 0)
                r = sd_event_add_io(event, &u->io, u->fd, EPOLLIN, uevent_on_io, u);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &u->timer, CLOCK_MONOTONIC, 0, 1000, uevent_on_timer,
                                               u);
        if (r >= 0)
                r = sd_event_source_set_enabled(u->timer, SD_EVENT_OFF);
        if (r < 0) {
                (void) uevent_free(u);
                return r;
        }

        *ret = u;
        return 0;
}
