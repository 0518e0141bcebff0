/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* notify SOCKET - plays the service manager: prints what is sent there, as it comes. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char text[4096];
        ssize_t n;
        int fd;

        if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path)
                return EXIT_FAILURE;

        strcpy(address.sun_path, argv[1]);
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (const struct sockaddr *) &address, sizeof address) < 0)
                return EXIT_FAILURE;

        while ((n = recv(fd, text, sizeof text - 1, 0)) >= 0) {
                text[n] = '\0';
                (void) printf("%s\n", text);
                (void) fflush(stdout);
        }

        return EXIT_FAILURE;
}
