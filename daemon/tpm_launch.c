/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcrypt-tpm-launch: what guestcryptd, or systemd, starts for a TPM, and what becomes swtpm or its device. A program of its own
 * since guestcryptd's libraries take longer to load than all that it does. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vtpm/vtpm.h"

int main(int argc, char *argv[]) {
        enum { OPT_ROOT = 256, OPT_JOB, OPT_SWTPM, OPT_DEVICE };
        static const struct option options[] = {
                { "root", required_argument, NULL, OPT_ROOT },
                { "tpm-job", required_argument, NULL, OPT_JOB },
                { "tpm-swtpm", required_argument, NULL, OPT_SWTPM },
                { "tpm-device", required_argument, NULL, OPT_DEVICE },
                {},
        };
        int (*launch)(int root_fd, const char *uuid) = NULL;
        const char *root = "/", *tpm = NULL;
        int root_fd, c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case OPT_ROOT:
                        root = optarg;
                        break;
                case OPT_JOB:
                        launch = vtpm_launch_job;
                        tpm = optarg;
                        break;
                case OPT_SWTPM:
                        launch = vtpm_launch_swtpm;
                        tpm = optarg;
                        break;
                case OPT_DEVICE:
                        launch = vtpm_launch_device;
                        tpm = optarg;
                        break;
                default:
                        return 2;
                }
        if (optind < argc || !launch) {
                (void) fprintf(stderr,
                               "usage: guestcrypt-tpm-launch [--root=DIR] --tpm-job=UUID|--tpm-swtpm=UUID|"
                               "--tpm-device=UUID; this program is for guestcryptd to run\n");
                return 2;
        }

        root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0) {
                (void) fprintf(stderr, "guestcrypt-tpm-launch: '%s': %s\n", root, strerror(errno));
                return EXIT_FAILURE;
        }
        return launch(root_fd, tpm);
}
