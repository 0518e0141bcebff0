/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcrypt-callout: the program that mdevctl runs. */

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hooks/callout.h"

int main(int argc, char **argv) {
        CLEANUP(fd_closep) int root_fd = -1;
        int fd;

        /* Where one of the three is closed, nothing else must come to be it. */
        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= STDERR_FILENO);
        if (fd >= 0)
                (void) close(fd);
        (void) signal(SIGPIPE, SIG_IGN);

        root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        return callout_run(argc, argv,
                           &(Callout) { .root_fd = root_fd,
                                        .in = stdin,
                                        .out = stdout,
                                        .err = stderr,
                                        .mdevctl = getppid() });
}
