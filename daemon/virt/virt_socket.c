/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "virt/virt_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

bool virt_socket_is_missing(const char *uri) {
        size_t n = strcspn(uri, ":");
        char own[64];

        /* no other host, no transport, no user's own daemon, no socket by name */
        if (strcmp(uri + n, ":///system") != 0 || memchr(uri, '+', n))
                return false;
        /* libvirtd, or the daemon of this driver alone */
        if (snprintf(own, sizeof own, VIRT_SOCKET_DIR "/virt%.*sd-sock", (int) n, uri) >= (int) sizeof own)
                return false;
        return access(VIRT_SOCKET_DIR "/libvirt-sock", F_OK) < 0 && access(own, F_OK) < 0;
}

int virt_socket_watch(void) {
        CLEANUP(fd_closep) int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

        if (fd < 0)
                return -errno;
        /* the directory itself is libvirt's, and comes and goes */
        if (inotify_add_watch(fd, "/run", IN_CREATE | IN_MOVED_TO) < 0)
                return -errno;
        if (inotify_add_watch(fd, VIRT_SOCKET_DIR, IN_CREATE | IN_MOVED_TO) < 0 && errno != ENOENT)
                return -errno;
        return TAKE_FD(fd);
}
