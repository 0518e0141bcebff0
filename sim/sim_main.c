/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcrypt-sim - a simulated host as a file system. */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "sim/sim_fuse.h"
#include "sim/sim_netlink.h"
#include "sim/sim_save.h"

static int usage(FILE *f) {
        (void) fputs("Usage: guestcrypt-sim [OPTION]... MOUNTPOINT\n"
                     "Mounts a simulated /sys with crypto adapters, serves it until unmounted or killed.\n\n"
                     "  --profile=NAME|FILE   the host: small (default), z16, full, lab, or a file\n"
                     "  --dialect=6.1|6.12|7.2  kernel to behave like, instead of the profile's\n"
                     "  --uevents             send uevents to this network namespace by the kernel; it\n"
                     "                        may have no interface but lo (--uevents=force: any)\n"
                     "  --save=FILE           start with the state in FILE, if any, and leave it there\n"
                     "  --ready-fd=N          write \"ready\" and a newline there when mounted\n"
                     "  --help, --version\n\n"
                     "Faults, hardware events and guests: write to MOUNTPOINT/.sim/ctl.\n",
                     f);
        return f == stdout ? EXIT_SUCCESS : 2;
}

static int fail(const char *what, const char *name, int error) {
        (void) fprintf(stderr, "guestcrypt-sim: %s '%s': %s\n", what, name, strerror(-error));
        return EXIT_FAILURE;
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                { "profile", required_argument, NULL, 'p' },  { "dialect", required_argument, NULL, 'd' },
                { "uevents", optional_argument, NULL, 'u' },  { "save", required_argument, NULL, 's' },
                { "ready-fd", required_argument, NULL, 'r' }, { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'v' },        {},
        };
        const char *profile_name = "small", *dialect = NULL, *save = NULL;
        CLEANUP(sim_freep)
        Sim *sim = NULL;
        int netlink_fd = -1; /* to the end of the process */
        bool uevents = false, force = false;
        int ready_fd = -1, c, r;
        SimProfile *profile;
        unsigned line;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case 'p':
                        profile_name = optarg;
                        break;
                case 'd':
                        dialect = optarg;
                        break;
                case 'u':
                        uevents = true;
                        force = optarg && strcmp(optarg, "force") == 0;
                        if (optarg && !force)
                                return usage(stderr);
                        break;
                case 's':
                        save = optarg;
                        break;
                case 'r': {
                        char *end;
                        long fd = strtol(optarg, &end, 10);

                        if (*end || end == optarg || fd < 0 || fd > 1 << 20)
                                return usage(stderr);
                        ready_fd = (int) fd;
                        break;
                }
                case 'h':
                        return usage(stdout);
                case 'v':
                        (void) puts("guestcrypt-sim " GUESTCRYPT_VERSION);
                        return EXIT_SUCCESS;
                default:
                        return usage(stderr);
                }
        if (optind + 1 != argc)
                return usage(stderr);

        profile = malloc(sizeof *profile);
        if (!profile)
                return fail("Cannot start", profile_name, -ENOMEM);
        r = sim_profile_load(profile_name, profile, &line);
        if (r == -EINVAL && line > 0)
                (void) fprintf(stderr, "guestcrypt-sim: Line %u of the profile is not understood.\n", line);
        if (r >= 0 && dialect)
                r = sim_dialect_parse(dialect, &profile->dialect);
        if (r >= 0)
                r = sim_new(profile, &sim);
        free(profile);
        if (r < 0)
                return fail("Cannot use profile or dialect", profile_name, r);

        if (uevents) {
                netlink_fd = sim_netlink_open(force);
                if (netlink_fd == -EPERM)
                        (void) fputs("guestcrypt-sim: This network namespace has an interface but lo and "
                                     "may be the machine's; use 'unshare -n', or --uevents=force.\n",
                                     stderr);
                if (netlink_fd < 0)
                        return fail("Cannot send uevents from", argv[0], netlink_fd);
                sim_set_uevent(sim, sim_netlink_send, &netlink_fd);
        }
        if (save) {
                r = sim_load(sim, save);
                if (r < 0 && r != -ENOENT)
                        return fail("Cannot load", save, r);
        }
        r = sim_fuse_serve(sim, argv[optind], ready_fd);
        if (r < 0)
                return fail("Cannot serve", argv[optind], r);
        if (save) {
                r = sim_save(sim, save);
                if (r < 0)
                        return fail("Cannot save", save, r);
        }
        return EXIT_SUCCESS;
}
