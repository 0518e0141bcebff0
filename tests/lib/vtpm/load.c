/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* load - a guest's worth of commands through a device process that somebody else started and may restart
 *
 * usage: load SOCKET vfio-user|vhost-user
 *
 * Extends a PCR as fast as it goes, each command answered before the next one. For each line on standard input it prints how many
 * commands there were, after one more that began when the line had been read; with the line "end" it ends. Status 0: the TPM has
 * executed each command, each once, and none was answered with an error. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "drivers/virtio-tpm/codec.h"
#include "lib/vtpm/vmm.h"

#define MS 60000 /* longer than any restart, shorter than the caller's patience */

static const uint8_t pcr_read[] = { 0x80, 0x01, 0, 0, 0, 20,   0, 0, 0x01, 0x7e,
                                    0,    0,    0, 1, 0, 0x0b, 3, 0, 4,    0 };
static const uint8_t pcr_extend[65] = {
        0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 10, 0, 0,    0,
        9,    0x40, 0, 0, 9, 0,  0, 0, 0,    0,    0, 0, 0, 1,  0, 0x0b, 0xaa
};

static Vmm vmm;
static unsigned n_commands;
static long longest_us;

__attribute__((noreturn)) static void die(const char *what, int error) {
        (void) fprintf(stderr, "load: after %u commands: %s: %s\n", n_commands, what, strerror(error));
        exit(1);
}

static int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        (void) snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
                die(path, errno);
        return fd;
}

/* The response's code is 0, or we end. */
static void run(const uint8_t *command, size_t size, uint8_t response[static 4096]) {
        struct timespec begin, end;
        long us;
        int r;

        (void) clock_gettime(CLOCK_MONOTONIC, &begin);
        r = vmm_command(&vmm, command, size, response, 4096, MS);
        (void) clock_gettime(CLOCK_MONOTONIC, &end);
        if (r < 0)
                die("no answer", -r);
        if (r < VIRTIO_TPM_HEADER_SIZE || codec_code(response) != 0)
                die("answered with an error", EREMOTEIO);

        us = (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000;
        longest_us = us > longest_us ? us : longest_us;
}

/* How often a PCR was changed since the TPM was switched on. */
static uint32_t update_counter(void) {
        uint8_t response[4096];

        run(pcr_read, sizeof pcr_read, response);
        return codec_get32(response + VIRTIO_TPM_HEADER_SIZE);
}

int main(int argc, char **argv) {
        struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
        uint8_t response[4096];
        bool asked = false;
        uint32_t before;
        char line[64];
        int r;

        if (argc != 3 || (strcmp(argv[2], "vfio-user") != 0 && strcmp(argv[2], "vhost-user") != 0)) {
                (void) fprintf(stderr, "usage: load SOCKET vfio-user|vhost-user\n");
                return 2;
        }
        (void) setvbuf(stdin, NULL, _IONBF, 0);

        vmm_init(&vmm, strcmp(argv[2], "vhost-user") == 0, connect_to(argv[1]), NULL, NULL);
        vmm.posted = true;
        r = vmm_start(&vmm);
        if (r < 0)
                die("the device does not start", -r);

        before = update_counter();
        for (;;) {
                run(pcr_extend, sizeof pcr_extend, response);
                n_commands++;
                if (asked) {
                        (void) printf("%u\n", n_commands);
                        (void) fflush(stdout);
                        asked = false;
                }
                if (poll(&input, 1, 0) == 0)
                        continue;
                if (!fgets(line, sizeof line, stdin) || strcmp(line, "end\n") == 0)
                        break;
                asked = true;
        }

        if (update_counter() - before != n_commands)
                die("the TPM has executed another number of them", EPROTO);
        (void) printf("%u commands, longest %ld us\n", n_commands, longest_us);
        vmm_done(&vmm);
        return 0;
}
