/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ap-guest - has a mediated device of vfio_ap as QEMU would, until its standard input ends.
 *
 * usage: ap-guest UUID      prints "has it"; then for each line that it reads what the driver told it since: "config", "request",
 *                           both or an empty line */

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tests/contract/vfio_guest.h"

int main(int argc, char **argv) {
        char line[80];
        bool config, request;
        int sys_fd, r;

        if (argc != 2)
                return 2;
        sys_fd = open("/sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
        r = vfio_guest_attach(sys_fd, argv[1]);
        if (r < 0) {
                (void) printf("%s\n", strerror(-r));
                return 1;
        }

        (void) puts("has it");
        (void) fflush(stdout);
        while (fgets(line, sizeof line, stdin)) {
                (void) vfio_guest_events(argv[1], &config, &request);
                (void) printf("%s%s%s\n", config ? "config" : "", config && request ? " " : "",
                              request ? "request" : "");
                (void) fflush(stdout);
        }
        (void) vfio_guest_detach(argv[1]);
        return 0;
}
