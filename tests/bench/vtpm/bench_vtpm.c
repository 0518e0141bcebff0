/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench_vtpm - what the device process costs: TPM commands through it, from the ring to the interrupt, against the same swtpm straight;
 * and its memory and processor time.
 *
 * usage: bench_vtpm GUESTCRYPT-TPM FDSTORE [COUNT [IDLE-SECONDS]]
 *
 * Beside them stands a relay, which has the guest's memory and gets doorbells as over vfio-user, but waits in each of the four system
 * calls that it makes for a command, trusts all that it finds and could not be restarted: so much it costs on this machine that there is
 * a process between the two at all.
 *
 * Rounds of all paths alternate, so that a busy machine is busy for all of them. Half of the rounds count: those that took least on
 * all paths together; in the others the machine had other work. (Chosen by one path, they would be those in which chance was with it.)
 * All TPMs have the same keys and no process a random place in memory: one RSA key signs up to 16 us faster than another, and one swtpm
 * at times more than 40 than the next. Microseconds: medians, and below them the value that a tenth of the commands stay below. */

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/vtpm/commands.h"
#include "lib/vtpm/process.h"

#define ROUNDS    40
#define COUNTED   20 /* of them */
#define COUNT_MAX 10000
#define MS        20000
#define DOORBELL  34  /* bytes of its message */
#define SETTLE_MS 200 /* whoever still has to go to sleep */

enum { STRAIGHT, RELAY, VFIO, VHOST, PATHS };

static const char *const paths[PATHS] = { "straight", "relay", "vfio-user", "vhost-user" };

typedef struct Path {
        Process process;
        Vmm straight; /* only its ->fd, for the path of that name */
        Command commands[COMMANDS];
        double samples[ROUNDS * (COUNT_MAX / COUNTED)];
        double cpu_us; /* what the device process used for one command */
} Path;

static void print_line(const char *name, Path p[PATHS], unsigned n, unsigned percent) {
        double straight = samples_percentile(p[STRAIGHT].samples, n, percent);

        (void) printf("%-16s %10.1f", name, straight);
        for (int i = STRAIGHT + 1; i < PATHS; i++) {
                double us = samples_percentile(p[i].samples, n, percent);

                (void) printf(" %10.1f (%+5.1f)", us, us - straight);
        }
}

/* What a device cannot do without, between @vmm_fd and @tpm_fd. Returns when either side is gone. */
static void relay(Vmm *v, int vmm_fd, int tpm_fd) {
        uint8_t doorbell[DOORBELL], *command = vmm_at(v, VMM_COMMAND), *used = vmm_at(v, VMM_USED);
        static const uint64_t one = 1;
        uint16_t index = 0;
        ssize_t n;

        while (recv(vmm_fd, doorbell, sizeof doorbell, MSG_WAITALL) == sizeof doorbell) {
                size_t size = (size_t) command[4] << 8 | command[5];
                uint32_t e[2] = {};

                if (send(tpm_fd, command, size, MSG_NOSIGNAL) != (ssize_t) size)
                        return;
                n = recv(tpm_fd, vmm_at(v, VMM_RESPONSE), COMMAND_MAX, 0); /* swtpm sends it in one piece */
                if (n <= 0)
                        return;
                e[1] = htole32((uint32_t) n);
                memcpy(used + 4 + sizeof e * (index % VMM_QUEUE), e, sizeof e);
                __atomic_store_n((uint16_t *) (void *) (used + 2), htole16(++index), __ATOMIC_RELEASE);
                (void) !write(v->call_fd, &one, sizeof one);
        }
}

/* Its process id. */
static pid_t start_relay(Process *p) {
        int pair[2], tpm_fd = process_straight(p);
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -1;
        vmm_init(&p->vmm, false, pair[0], NULL, NULL);
        p->vmm.posted = true;
        pid = fork();
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) close(pair[0]);
                relay(&p->vmm, pair[1], tpm_fd);
                _exit(0);
        }
        (void) close(pair[1]);
        (void) close(tpm_fd);
        return pid;
}

static int exchange(void *path, const uint8_t *command, size_t size, uint8_t *response) {
        Path *p = path;
        uint32_t length;

        if (p->process.vmm.memory) /* there is a device, or a relay */
                return vmm_command(&p->process.vmm, command, size, response, COMMAND_MAX, MS);

        if (vmm_send(&p->straight, command, size, NULL, 0) < 0 ||
            vmm_receive(&p->straight, response, 10) < 0)
                return -EIO;
        length = (uint32_t) response[4] << 8 | response[5];
        if (response[2] | response[3] || length < 10 || length > COMMAND_MAX)
                return -EPROTO;
        return length > 10 && vmm_receive(&p->straight, response + 10, length - 10) < 0 ? -EIO
                                                                                        : (int) length;
}

/* The processor time of the device process, which has one thread; less than 0 where the kernel does not tell. */
static double device_cpu_us(const Process *p) {
        long long ns = -1;
        char name[64];
        FILE *f;

        (void) snprintf(name, sizeof name, "/proc/%d/schedstat", (int) p->device);
        f = fopen(name, "re");
        if (!f)
                return -1;
        if (fscanf(f, "%lld", &ns) != 1)
                ns = -1;
        (void) fclose(f);
        return (double) ns / 1e3;
}

typedef struct Round {
        unsigned first; /* sample */
        double us;      /* sum of all paths' medians */
} Round;

static int faster(const void *a, const void *b) {
        double x = ((const Round *) a)->us, y = ((const Round *) b)->us;

        return (x > y) - (x < y);
}

/* Brings the samples of the rounds that count to the front. */
static void choose_rounds(Path p[PATHS], unsigned size) {
        static double chosen[COUNT_MAX];
        Round rounds[ROUNDS];

        for (unsigned i = 0; i < ROUNDS; i++) {
                rounds[i] = (Round) { .first = i * size };
                for (int path = 0; path < PATHS; path++) {
                        memcpy(chosen, p[path].samples + i * size, size * sizeof *chosen);
                        rounds[i].us += samples_percentile(chosen, size, 50);
                }
        }
        qsort(rounds, ROUNDS, sizeof *rounds, faster);
        for (int path = 0; path < PATHS; path++) {
                for (unsigned i = 0; i < COUNTED; i++)
                        memcpy(chosen + i * size, p[path].samples + rounds[i].first, size * sizeof *chosen);
                memcpy(p[path].samples, chosen, COUNTED * size * sizeof *chosen);
        }
}

static void measure(Path p[PATHS], unsigned command, unsigned count) {
        unsigned round_size = count / COUNTED, n = 0;

        for (int i = VFIO; i < PATHS; i++)
                p[i].cpu_us = -device_cpu_us(&p[i].process);
        for (unsigned round = 0; round < ROUNDS; round++, n += round_size)
                for (int i = 0; i < PATHS; i++)
                        for (unsigned k = 0; k < round_size; k++) {
                                double start = now_us();
                                int r = command_run(&p[i].commands[command], exchange, &p[i]);

                                if (r < 0) {
                                        (void) fprintf(stderr, "%s, %s: %s\n", paths[i],
                                                       p->commands[command].name, strerror(-r));
                                        exit(1);
                                }
                                p[i].samples[n + k] = now_us() - start;
                        }
        for (int i = VFIO; i < PATHS; i++)
                p[i].cpu_us = (p[i].cpu_us + device_cpu_us(&p[i].process)) / n;

        choose_rounds(p, round_size);
        n = COUNTED * round_size;
        print_line(p->commands[command].name, p, n, 50);
        (void) printf("   | %10.1f %10.1f\n", p[VFIO].cpu_us, p[VHOST].cpu_us);
        print_line("  a tenth below", p, n, 10);
        (void) printf("   |\n");
}

static void print_memory(const char *path, const Process *p, long wakeups, unsigned seconds) {
        (void) printf(
                "%-10s %ld KiB resident (%ld anonymous, %ld of files, %ld shared with the guest), %ld KiB as its share (PSS); "
                "%ld wake-ups in %u s idle\n",
                path, process_status(p, "VmRSS"), process_status(p, "RssAnon"), process_status(p, "RssFile"),
                process_status(p, "RssShmem"), process_pss(p), wakeups, seconds);
}

int main(int argc, char **argv) {
        unsigned count = argc > 3 ? (unsigned) atoi(argv[3]) : 1000;
        unsigned seconds = argc > 4 ? (unsigned) atoi(argv[4]) : 2;
        static Path p[PATHS];
        long before[PATHS];
        pid_t relay_pid;
        int r;

        if (argc < 3 || count < COUNTED || count > COUNT_MAX) {
                (void) fprintf(stderr, "usage: bench_vtpm GUESTCRYPT-TPM FDSTORE [COUNT [IDLE-SECONDS]]\n");
                return 2;
        }
        if (!process_possible()) {
                (void) fprintf(stderr, "SKIP: swtpm is not installed\n");
                return 77;
        }

        (void) personality(ADDR_NO_RANDOMIZE); /* the figures vary more where that is forbidden */
        p[STRAIGHT].straight.fd = process_straight(&p[STRAIGHT].process);
        process_same_keys(&p[STRAIGHT].process);
        relay_pid = start_relay(&p[RELAY].process);
        if (relay_pid < 0)
                return 1;
        process_start(&p[VFIO].process, argv[1], argv[2], false, NULL);
        process_start(&p[VHOST].process, argv[1], argv[2], true, NULL);
        if (vmm_start(&p[VFIO].process.vmm) < 0 || vmm_start(&p[VHOST].process.vmm) < 0)
                return 1;
        for (int i = 0; i < PATHS; i++) {
                r = commands_make(p[i].commands, exchange, &p[i]);
                if (r < 0) {
                        (void) fprintf(stderr, "%s: no keys: %s\n", paths[i], strerror(-r));
                        return 1;
                }
        }

        (void) printf("%-16s %10s %18s %18s %18s   | %10s %10s\n", "us", paths[STRAIGHT], paths[RELAY],
                      paths[VFIO], paths[VHOST], "CPU vfio", "CPU vhost");
        for (unsigned i = 0; i < COMMANDS; i++)
                measure(p, i, count);

        (void) poll(NULL, 0, seconds > 0 ? SETTLE_MS : 0);
        for (int i = VFIO; i < PATHS; i++)
                before[i] = process_status(&p[i].process, "voluntary_ctxt_switches");
        (void) poll(NULL, 0, (int) seconds * 1000);
        for (int i = VFIO; i < PATHS && seconds > 0; i++)
                print_memory(paths[i], &p[i].process,
                             process_status(&p[i].process, "voluntary_ctxt_switches") - before[i], seconds);
        vmm_done(&p[RELAY].process.vmm); /* so it ends */
        (void) waitpid(relay_pid, NULL, 0);
        for (int i = 0; i < PATHS; i++)
                process_stop(&p[i].process);
        return 0;
}
