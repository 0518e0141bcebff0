/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define GROUP_KERNEL 1
#define BUFFER_SIZE  (8 << 20) /* of the socket: unplugging a full machine is 65,536 messages */
#define MESSAGE_MAX  8192

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

/* The kernel sends as port 0 and as root; anybody may send to the group in his own name. */
static bool is_from_kernel(struct msghdr *m, const struct sockaddr_nl *from) {
        if (m->msg_namelen != sizeof *from || from->nl_pid != 0)
                return false;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
                struct ucred cred;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
                        continue;
                memcpy(&cred, CMSG_DATA(c), sizeof cred);
                return cred.uid == 0;
        }
        return false;
}

/* 1: a message of the kernel's; 0: of somebody else's; -EAGAIN: none left; -ENOBUFS: some were lost. */
static int uevent_receive(int fd, char data[static MESSAGE_MAX], size_t *ret_size) {
        char control[CMSG_SPACE(sizeof(struct ucred))];
        struct iovec iov = { data, MESSAGE_MAX };
        struct sockaddr_nl from;
        struct msghdr m = {
                .msg_name = &from,
                .msg_namelen = sizeof from,
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = control,
                .msg_controllen = sizeof control,
        };
        ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);

        if (n < 0)
                return -errno;
        *ret_size = (size_t) n;
        return !(m.msg_flags & MSG_TRUNC) && is_from_kernel(&m, &from);
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

        for (;;) {
                char data[MESSAGE_MAX];
                size_t size;
                int r = uevent_receive(fd, data, &size);

                if (r == -ENOBUFS || (r > 0 && uevent_matters(data, size)))
                        return uevent_notice(u);
                if (r < 0)
                        return r == -EAGAIN || r == -EINTR ? 0 : r;
        }
}

static int uevent_on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        char data[MESSAGE_MAX];
        Uevent *u = userdata;
        size_t size;
        int r;

        /* all that came meanwhile is told by the same call; a real error is the next one's to report */
        do
                r = uevent_receive(u->fd, data, &size);
        while (r >= 0 || r == -ENOBUFS || r == -EINTR);
        u->last = clock_now_us();
        r = sd_event_source_set_enabled(u->io, SD_EVENT_ON);
        u->changed(u->userdata);
        return r;
}

void uevent_take(int fd, uevent_own_t own, void *userdata, UeventNews *news) {
        for (;;) {
                char data[MESSAGE_MAX];
                size_t size;
                int r = uevent_receive(fd, data, &size);

                if (r == -EAGAIN)
                        return;
                if (r > 0)
                        uevent_read(data, size, own, userdata, news);
                else if (r < 0 && r != -EINTR) {
                        *news = (UeventNews) { .ap = true, .mdevs = true };
                        if (r != -ENOBUFS) /* deaf: whatever may have happened */
                                return;
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
