/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sim/sim_netlink.h"

#define MESSAGE_SIZE 2048 /* the kernel's own limit */

static int only_loopback(void) {
        struct if_nameindex *list = if_nameindex();
        int r = 1;

        if (!list)
                return -errno;
        for (const struct if_nameindex *i = list; i->if_name; i++)
                if (strcmp(i->if_name, "lo") != 0)
                        r = 0;
        if_freenameindex(list);
        return r;
}

int sim_netlink_open(int force) {
        int fd, r;

        if (!force) {
                r = only_loopback();
                if (r < 0)
                        return r;
                if (r == 0)
                        return -EPERM;
        }
        fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
        return fd < 0 ? -errno : fd;
}

void sim_netlink_send(void *userdata, const char *action, const char *devpath, const char *env,
                      size_t size) {
        struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
        union {
                struct nlmsghdr header;
                char bytes[MESSAGE_SIZE];
        } m = { .header = { .nlmsg_type = NLMSG_MIN_TYPE, .nlmsg_flags = NLM_F_REQUEST } };
        char *text = (char *) NLMSG_DATA(&m.header);
        size_t room = MESSAGE_SIZE - NLMSG_HDRLEN, n;
        int k;

        k = snprintf(text, room, "%s@%s%cACTION=%s%cDEVPATH=%s", action, devpath, 0, action, 0, devpath);
        if (k < 0 || (size_t) k + 1 + size > room)
                return;
        n = (size_t) k + 1;
        memcpy(text + n, env, size);
        n += size;
        m.header.nlmsg_len = (uint32_t) (NLMSG_HDRLEN + n);
        if (sendto(*(const int *) userdata, &m, m.header.nlmsg_len, 0, (struct sockaddr *) &kernel,
                   sizeof kernel) < 0)
                (void) fprintf(stderr, "guestcrypt-sim: Cannot send uevent '%s@%s': %m\n", action, devpath);
}
