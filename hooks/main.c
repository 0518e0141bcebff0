/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcrypt-hook: the program that libvirt runs. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "hooks/hook.h"

/* Makes the XML standard input again. 0 or -errno. */
static int rewind_input(const char *xml, size_t size) {
        CLEANUP(fd_closep)
        int fd = memfd_create("domain-xml", MFD_CLOEXEC);
        int r;

        if (fd < 0)
                return -errno;
        r = file_write_all(fd, xml, size);
        if (r < 0)
                return r;
        if (lseek(fd, 0, SEEK_SET) < 0)
                return -errno;
        return ret_errno(dup2(fd, STDIN_FILENO));
}

/* The other program's path: libvirt knows this one by a link elsewhere. 0 or -errno. */
static int event_program(char path[static PATH_MAX]) {
        static const char name[] = HOOK_EVENT_PROGRAM;
        ssize_t n;
        char *end;

        n = readlink("/proc/self/exe", path, PATH_MAX - 1);
        if (n < 0)
                return -errno;
        path[n] = 0;
        end = strrchr(path, '/');
        if (!end || (size_t) (end + 1 - path) + sizeof name > PATH_MAX)
                return -ENAMETOOLONG;
        memcpy(end + 1, name, sizeof name);
        return 0;
}

static int become_event(const Hook *h, const char *xml, size_t size) {
        char path[PATH_MAX];
        int r;

        r = rewind_input(xml, size);
        if (r >= 0)
                r = event_program(path);
        if (r >= 0) {
                (void) execv(path, h->argv);
                r = -errno;
        }
        hook_tell(h, "'%s' cannot be run: %s", HOOK_EVENT_PROGRAM, strerror(-r));
        return HOOK_REFUSED;
}

int main(int argc, char **argv) {
        int fd;

        /* Where one of the three is closed, nothing else must come to be it. */
        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= STDERR_FILENO);
        if (fd >= 0)
                (void) close(fd);

        return hook_run(argc, argv, STDIN_FILENO, stderr, HOOK_HOLDS_DIR, become_event);
}
