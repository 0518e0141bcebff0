/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench_crowd - what many idle devices cost on one host: each with a swtpm, a device process and a VMM whose guest has used it once.
 *
 * usage: bench_crowd GUESTCRYPT-TPM FDSTORE NUMBER IDLE-SECONDS */

#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "bench/vtpm/commands.h"
#include "lib/vtpm/process.h"

#define MS        60000
#define SETTLE_MS 200 /* whoever still has to go to sleep */
#define FDS_PER   8   /* of each device, on our side; and a few more */

static const uint8_t get_random[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16 };

typedef struct Sum {
        long rss_kib, pss_kib, largest_kib, wakeups;
} Sum;

static Sum add_up(const Process *p, unsigned n) {
        Sum s = {};

        for (unsigned i = 0; i < n; i++) {
                long rss = process_status(&p[i], "VmRSS");

                s.rss_kib += rss;
                s.pss_kib += process_pss(&p[i]);
                s.largest_kib = rss > s.largest_kib ? rss : s.largest_kib;
                s.wakeups += process_status(&p[i], "voluntary_ctxt_switches");
        }
        return s;
}

int main(int argc, char **argv) {
        struct rlimit limit;
        unsigned number, seconds, bad = 0;
        double start, made;
        Sum before, after;
        Process *p;

        if (argc != 5) {
                (void) fprintf(stderr, "usage: bench_crowd GUESTCRYPT-TPM FDSTORE NUMBER IDLE-SECONDS\n");
                return 2;
        }
        if (!process_possible()) {
                (void) fprintf(stderr, "SKIP: swtpm is not installed\n");
                return 77;
        }
        number = (unsigned) atoi(argv[3]);
        seconds = (unsigned) atoi(argv[4]);
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return 1;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < (rlim_t) number * FDS_PER) {
                (void) fprintf(stderr, "SKIP: %u devices need more open files than %lu\n", number,
                               (unsigned long) limit.rlim_cur);
                return 77;
        }
        p = calloc(number, sizeof *p);
        if (!p)
                return 1;

        start = now_us();
        for (unsigned i = 0; i < number; i++) {
                uint8_t response[COMMAND_MAX];

                process_start(&p[i], argv[1], argv[2], false, NULL);
                bad += vmm_start(&p[i].vmm) < 0 || vmm_command(&p[i].vmm, get_random, sizeof get_random,
                                                               response, sizeof response, MS) != 28;
        }
        made = now_us();

        (void) poll(NULL, 0, SETTLE_MS);
        before = add_up(p, number);
        (void) poll(NULL, 0, (int) seconds * 1000);
        after = add_up(p, number);
        (void) printf(
                "%u devices, one after the other in %.1f s: %.1f MiB as their share (PSS), %ld KiB each; %ld KiB resident at most; "
                "%ld wake-ups of all in %u s idle\n",
                number, (made - start) / 1e6, (double) after.pss_kib / 1024, after.pss_kib / (long) number,
                after.largest_kib, after.wakeups - before.wakeups, seconds);

        for (unsigned i = 0; i < number; i++)
                process_stop(&p[i]);
        free(p);
        if (bad > 0)
                (void) fprintf(stderr, "%u of them gave no good answer\n", bad);
        return bad > 0;
}
