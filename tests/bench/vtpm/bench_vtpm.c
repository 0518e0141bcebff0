/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench_vtpm - what the device process costs: TPM commands through it, from the ring to the interrupt, against the same swtpm straight.
 *
 * usage: bench_vtpm GUESTCRYPT-TPM FDSTORE [COUNT]
 *
 * Rounds of all paths alternate, so that a busy machine is busy for all of them. Microseconds: medians, and below them the value that
 * a tenth of the commands stay below, which says more on a machine with other work. */

#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/vtpm/process.h"

#define ROUNDS    20
#define COUNT_MAX 10000
#define MS        20000

enum { STRAIGHT, VFIO, VHOST, PATHS };

static const char *const paths[PATHS] = { "straight", "vfio-user", "vhost-user" };

static const uint8_t get_random[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16 };
static const uint8_t pcr_read[] = { 0x80, 0x01, 0, 0, 0, 20,   0, 0,    0x01, 0x7e,
                                    0,    0,    0, 1, 0, 0x0b, 3, 0xff, 0,    0 };
static uint8_t hash_1k[10 + 2 + 1000 + 2 + 4], hash_max[10 + 2 + 1024 + 2 + 4];

typedef struct Case {
        const char *name;
        const uint8_t *command;
        size_t size;
} Case;

static const Case cases[] = {
        { "GetRandom(16)", get_random, sizeof get_random },
        { "PCR_Read(8)", pcr_read, sizeof pcr_read },
        { "Hash(1000)", hash_1k, sizeof hash_1k },
        { "Hash(1024)", hash_max, sizeof hash_max },
};

/* TPM2_Hash of as much as fits; swtpm takes no longer buffer than 1024 bytes */
static void make_hash(uint8_t *command, size_t size) {
        size_t data = size - 18;

        memset(command, 0, size);
        memcpy(command,
               (const uint8_t[]) { 0x80, 0x01, 0, 0, (uint8_t) (size >> 8), (uint8_t) size, 0, 0, 0x01, 0x7d,
                                   (uint8_t) (data >> 8), (uint8_t) data },
               12);
        memcpy(command + size - 6, (const uint8_t[]) { 0, 0x0b, 0x40, 0, 0, 0x07 }, 6);
}

static double now_us(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return x < y ? -1 : x > y;
}

/* The value that @percent of the samples stay below; sorts them. */
static double percentile(double *v, unsigned n, unsigned percent) {
        qsort(v, n, sizeof *v, compare);
        return v[n * percent / 100];
}

static void print_line(const char *name, double samples[PATHS][COUNT_MAX], unsigned n, unsigned percent) {
        double p[PATHS];

        for (int path = 0; path < PATHS; path++)
                p[path] = percentile(samples[path], n, percent);
        (void) printf("%-16s %10.1f %10.1f (%+5.1f) %10.1f (%+5.1f)\n", name, p[STRAIGHT], p[VFIO],
                      p[VFIO] - p[STRAIGHT], p[VHOST], p[VHOST] - p[STRAIGHT]);
}

/* The response's size, or a negative number. */
static int exchange(Process *p, int path, int straight, const Case *c) {
        uint8_t response[4096];
        Vmm v = { .fd = straight };
        uint32_t size;

        if (path != STRAIGHT)
                return vmm_command(&p->vmm, c->command, c->size, response, sizeof response, MS);

        if (vmm_send(&v, c->command, c->size, NULL, 0) < 0 || vmm_receive(&v, response, 10) < 0)
                return -1;
        size = (uint32_t) response[4] << 8 | response[5];
        if (response[6] | response[7] | response[8] | response[9] || size < 10 || size > sizeof response)
                return -1;
        return vmm_receive(&v, response + 10, size - 10) < 0 ? -1 : (int) size;
}

int main(int argc, char **argv) {
        static double samples[PATHS][COUNT_MAX];
        unsigned count = argc > 3 ? (unsigned) atoi(argv[3]) : 1000;
        static Process processes[PATHS];
        int straight;

        if (argc < 3 || count < ROUNDS || count > COUNT_MAX) {
                (void) fprintf(stderr, "usage: bench_vtpm GUESTCRYPT-TPM FDSTORE [COUNT]\n");
                return 2;
        }
        if (!process_possible()) {
                (void) fprintf(stderr, "skipped: swtpm is not installed\n");
                return 77;
        }

        make_hash(hash_1k, sizeof hash_1k);
        make_hash(hash_max, sizeof hash_max);
        straight = process_straight(&processes[STRAIGHT]);
        process_start(&processes[VFIO], argv[1], argv[2], false, NULL);
        process_start(&processes[VHOST], argv[1], argv[2], true, NULL);
        if (vmm_start(&processes[VFIO].vmm) < 0 || vmm_start(&processes[VHOST].vmm) < 0)
                return 1;

        (void) printf("%-16s %10s %18s %18s\n", "us", paths[STRAIGHT], paths[VFIO], paths[VHOST]);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                for (unsigned round = 0; round < ROUNDS; round++)
                        for (int path = 0; path < PATHS; path++)
                                for (unsigned k = 0; k < count / ROUNDS; k++) {
                                        double start = now_us();

                                        if (exchange(&processes[path], path, straight, &cases[i]) < 10) {
                                                (void) fprintf(stderr, "%s, %s: no good answer\n",
                                                               paths[path], cases[i].name);
                                                return 1;
                                        }
                                        samples[path][round * (count / ROUNDS) + k] = now_us() - start;
                                }
                print_line(cases[i].name, samples, count / ROUNDS * ROUNDS, 50);
                print_line("  a tenth below", samples, count / ROUNDS * ROUNDS, 10);
        }

        for (int path = VFIO; path < PATHS; path++) {
                Process *p = &processes[path];
                long before = process_status(p, "voluntary_ctxt_switches");

                (void) poll(NULL, 0, 2000);
                (void) printf(
                        "%s: %ld KiB resident (%ld anonymous, %ld of files, %ld shared with the guest), %ld wake-ups in 2 s idle\n",
                        paths[path], process_status(p, "VmRSS"), process_status(p, "RssAnon"),
                        process_status(p, "RssFile"), process_status(p, "RssShmem"),
                        process_status(p, "voluntary_ctxt_switches") - before);
                process_stop(p);
        }
        process_stop(&processes[STRAIGHT]);
        return 0;
}
