/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/file.h"

#define FIRST_FD 3 /* SD_LISTEN_FDS_START */

static int notify_fd = -1;

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

        return sendmsg(notify_fd, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int notify_send(const char *text) {
        return notify_send_fd(text, -1);
}

int notify_store(const char *name, int fd) {
        char text[128];
        int r;

        r = notify_discard(name);
        if (r < 0)
                return r;

        /* FDPOLL=0: the manager would take a hang-up for a reason to forget it; we want to see the hang-up ourselves */
        (void) snprintf(text, sizeof text, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
        return notify_send_fd(text, fd);
}

int notify_discard(const char *name) {
        char text[128];

        (void) snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", name);
        return notify_send(text);
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
