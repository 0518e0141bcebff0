/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vtpm/vtpm_process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define STAT_SIZE   1024
#define START_FIELD 22 /* proc(5), counted from 1 */

static const char *const role_names[_VTPM_ROLE_MAX] = {
        [VTPM_ROLE_JOB] = "job", [VTPM_ROLE_SWTPM] = "swtpm", [VTPM_ROLE_DEVICE] = "device"
};

const char *vtpm_role_name(VtpmRole role) {
        return role_names[role];
}

const char *vtpm_pid_file(VtpmRole role) {
        return role == VTPM_ROLE_SWTPM ? "swtpm.pid" : "device.pid";
}

int vtpm_process_since(pid_t pid, uint64_t *ret) {
        char path[32], text[STAT_SIZE];
        CLEANUP(fd_closep) int fd = -1;
        const char *p;
        ssize_t n;

        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        n = read(fd, text, sizeof text - 1);
        if (n < 0)
                return -errno;
        text[n] = '\0';

        /* the name may have blanks and brackets; the third field follows the last one */
        p = strrchr(text, ')');
        for (unsigned field = 2; p && field < START_FIELD; field++)
                p = strchr(p + 1, ' ');
        return p && sscanf(p, " %" SCNu64, ret) == 1 ? 0 : -EBADMSG;
}

int vtpm_process_open(int run_fd, VtpmRole role, pid_t *ret_pid) {
        CLEANUP(freep) char *text = NULL;
        CLEANUP(fd_closep) int fd = -1;
        uint64_t since, actual;
        int pid, r;

        r = file_read_at(run_fd, vtpm_pid_file(role), 64, &text, NULL);
        if (r < 0)
                return r == -ENOENT ? -ESRCH : r;
        if (sscanf(text, "%d %" SCNu64, &pid, &since) != 2 || pid <= 1)
                return -ESRCH;

        fd = (int) syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0)
                return errno == EINVAL ? -ESRCH : -errno;
        r = vtpm_process_since(pid, &actual);
        if (r < 0)
                return r;
        if (actual != since || poll(&(struct pollfd) { .fd = fd, .events = POLLIN }, 1, 0) > 0)
                return -ESRCH; /* another one; or it has ended, and nobody has taken notice */

        *ret_pid = pid;
        return TAKE_FD(fd);
}
