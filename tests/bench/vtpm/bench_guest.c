/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench_guest - process 1 of a guest that measures all the TPMs it has: static, and all there is in it but kernel modules.
 *
 * /modules/list has a line "FILE PARAMETERS" for each module that is to be loaded. The kernel's command line says bench=MODE,TPMS,COUNT:
 *
 *   time    COUNT runs of each command on each TPM, in rounds that alternate. Lines: "TIME DRIVER COMMAND RUNS MEDIAN TENTH", in us.
 *           Then it says "IDLE", and is idle until it is told something.
 *   count   COUNT runs of each command on each TPM, for QEMU to record each access to a device: a write of MARK_BEGIN to I/O port
 *           0x80, where nothing else is written, comes before them, one of MARK_END after them. Lines, in the order of the marks:
 *           "COUNT DRIVER COMMAND RUNS INTERRUPTS DOORBELLS". The doorbells are counted in this kernel, since QEMU sees those of
 *           vhost-user as little as KVM would.
 *
 * A TPM that has no room for a command has no line for it when timed, and 0 runs when counted.
 *
 * TPMS is how many there have to be. The last line is "GUEST-EXIT STATUS". */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/vtpm/commands.h"

#define TPMS_MAX   4
#define COUNT_MAX  5000
#define ROUNDS     20
#define PORT       0x80
#define TRACING    "/sys/kernel/tracing"
#define MARK_BEGIN 0xb1
#define MARK_END   0xe1

typedef struct Tpm {
        char name[8], device[32], driver[32];
        int fd;
        bool cannot[COMMANDS]; /* has no room for this one */
        Command commands[COMMANDS];
        double samples[COUNT_MAX];
} Tpm;

static Tpm tpms[TPMS_MAX];
static unsigned n_tpms;

static void end(int status) __attribute__((noreturn));

static void end(int status) {
        (void) printf("GUEST-EXIT %d\n", status);
        (void) fflush(stdout);
        sync();
        (void) reboot(RB_POWER_OFF);
        _exit(status);
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vprintf(format, ap);
        va_end(ap);
        (void) printf(": %s\n", strerror(errno));
        end(1);
}

static void mount_all(void) {
        if (mount("proc", "/proc", "proc", 0, NULL) < 0 || mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
                die("mount");
        /* the kernel may have done it already */
        if (mount("dev", "/dev", "devtmpfs", 0, NULL) < 0 && errno != EBUSY)
                die("/dev");
}

static void write_file(const char *path, const char *text) {
        int fd;

        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t) strlen(text))
                die("%s", path);
        (void) close(fd);
}

static void load_modules(void) {
        char line[256];
        FILE *f;

        f = fopen("/modules/list", "re");
        if (!f)
                die("/modules/list");
        while (fgets(line, sizeof line, f)) {
                char path[300], *parameters;
                int fd;

                line[strcspn(line, "\n")] = '\0';
                parameters = strchr(line, ' ');
                if (parameters)
                        *parameters++ = '\0';
                (void) snprintf(path, sizeof path, "/modules/%s", line);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                if (fd < 0 || syscall(SYS_finit_module, fd, parameters ? parameters : "", 0) < 0)
                        die("%s", line);
                (void) close(fd);
        }
        (void) fclose(f);
}

/* The last component of where the link @path leads; "" if it is none. */
static void read_link(const char *path, char *ret_name, size_t size) {
        char target[512];
        const char *slash, *name;
        ssize_t n;

        n = readlink(path, target, sizeof target - 1);
        if (n < 0)
                n = 0;
        target[n] = '\0';
        slash = strrchr(target, '/');
        name = slash ? slash + 1 : target;
        (void) snprintf(ret_name, size, "%.*s", (int) size - 1, name);
}

static int exchange(void *tpm, const uint8_t *command, size_t size, uint8_t *response) {
        const Tpm *t = tpm;
        ssize_t n;

        if (write(t->fd, command, size) != (ssize_t) size)
                return -errno;
        n = read(t->fd, response, COMMAND_MAX);
        return n < 0 ? -errno : (int) n;
}

static void open_tpm(unsigned number) {
        Tpm *t = &tpms[n_tpms++];
        char path[64];
        int r;

        (void) snprintf(path, sizeof path, "/sys/class/tpm/tpm%u/device/driver", number);
        read_link(path, t->driver, sizeof t->driver);
        (void) snprintf(path, sizeof path, "/sys/class/tpm/tpm%u/device", number);
        read_link(path, t->device, sizeof t->device);
        (void) snprintf(t->name, sizeof t->name, "tpm%u", number);
        (void) snprintf(path, sizeof path, "/dev/tpm%u", number);
        t->fd = open(path, O_RDWR | O_CLOEXEC);
        if (t->fd < 0)
                die("%s", path);
        r = commands_make(t->commands, exchange, t);
        if (r < 0) {
                errno = -r;
                die("%s: no keys", t->driver);
        }
}

static void find_tpms(unsigned wanted) {
        struct stat st;
        char path[64];

        /* The kernel's own thread would ask a TPM for random numbers meanwhile. */
        write_file("/sys/class/misc/hw_random/rng_current", "none");

        for (unsigned i = 0; i < TPMS_MAX; i++) {
                (void) snprintf(path, sizeof path, "/sys/class/tpm/tpm%u", i);
                if (stat(path, &st) == 0)
                        open_tpm(i);
        }
        errno = 0;
        if (n_tpms != wanted)
                die("there are %u TPMs instead of %u", n_tpms, wanted);
}

static void run(Tpm *t, unsigned command) {
        int r;

        r = command_run(&t->commands[command], exchange, t);
        if (r == -E2BIG)
                t->cannot[command] = true;
        else if (r < 0) {
                errno = -r;
                die("%s, %s", t->driver, t->commands[command].name);
        }
}

static void measure_time(unsigned count) {
        for (unsigned c = 0; c < COMMANDS; c++) {
                unsigned round_size = count / ROUNDS, n = 0;

                for (unsigned round = 0; round < ROUNDS; round++, n += round_size)
                        for (unsigned t = 0; t < n_tpms; t++)
                                for (unsigned k = 0; k < round_size; k++) {
                                        double start = now_us();

                                        run(&tpms[t], c);
                                        tpms[t].samples[n + k] = now_us() - start;
                                }
                for (unsigned t = 0; t < n_tpms; t++) {
                        if (tpms[t].cannot[c])
                                continue;
                        (void) printf("TIME %s %s %u %.1f %.1f\n", tpms[t].driver, tpms[t].commands[c].name,
                                      n, samples_percentile(tpms[t].samples, n, 50),
                                      samples_percentile(tpms[t].samples, n, 10));
                }
                (void) fflush(stdout);
        }
}

/* All of its interrupts so far: named after the device, or by tpm_tis after the TPM. There is one processor. */
static unsigned long interrupts(const Tpm *t) {
        unsigned long sum = 0;
        char line[512];
        FILE *f;

        f = fopen("/proc/interrupts", "re");
        if (!f)
                die("/proc/interrupts");
        while (fgets(line, sizeof line, f)) {
                char *colon = strchr(line, ':');

                if (colon && (strstr(colon, t->device) || strstr(colon, t->name)))
                        sum += strtoul(colon + 1, NULL, 10);
        }
        (void) fclose(f);
        return sum;
}

/* Has the kernel count how often it rings a doorbell of any virtio PCI device: vp_notify() is one write, nothing else. */
static void watch_doorbells(void) {
        if (mount("tracing", TRACING, "tracefs", 0, NULL) < 0)
                die(TRACING);
        write_file(TRACING "/kprobe_events", "p:doorbell vp_notify");
        write_file(TRACING "/events/kprobes/doorbell/enable", "1");
}

static unsigned long doorbells(void) {
        unsigned long n;
        FILE *f;

        f = fopen(TRACING "/kprobe_profile", "re");
        if (!f || fscanf(f, " doorbell %lu", &n) != 1)
                die("kprobe_profile");
        (void) fclose(f);
        return n;
}

static void measure_count(unsigned count) {
        if (ioperm(PORT, 1, 1) < 0)
                die("ioperm");
        watch_doorbells();
        for (unsigned t = 0; t < n_tpms; t++)
                for (unsigned c = 0; c < COMMANDS; c++) {
                        unsigned long interrupted = interrupts(&tpms[t]), rung = doorbells();

                        outb(MARK_BEGIN, PORT);
                        for (unsigned k = 0; k < count; k++)
                                run(&tpms[t], c);
                        outb(MARK_END, PORT);
                        (void) printf("COUNT %s %s %u %lu %lu\n", tpms[t].driver, tpms[t].commands[c].name,
                                      tpms[t].cannot[c] ? 0 : count, interrupts(&tpms[t]) - interrupted,
                                      doorbells() - rung);
                }
}

/* The kernel's command line, after bench= */
static void read_order(char ret_mode[8], unsigned *ret_tpms, unsigned *ret_count) {
        char line[1024] = "", *at;
        FILE *f;

        f = fopen("/proc/cmdline", "re");
        if (!f || !fgets(line, sizeof line, f))
                die("/proc/cmdline");
        (void) fclose(f);
        at = strstr(line, "bench=");
        errno = EINVAL;
        if (!at || sscanf(at, "bench=%7[a-z],%u,%u", ret_mode, ret_tpms, ret_count) != 3 ||
            *ret_tpms > TPMS_MAX || *ret_count < ROUNDS || *ret_count > COUNT_MAX)
                die("bench=");
}

int main(void) {
        unsigned wanted, count;
        struct utsname name;
        char mode[8];

        mount_all();
        read_order(mode, &wanted, &count);
        load_modules();
        find_tpms(wanted);
        (void) uname(&name);
        (void) printf("KERNEL %s\n", name.release);
        if (strcmp(mode, "count") == 0)
                measure_count(count);
        else {
                measure_time(count);
                (void) puts("IDLE");
                (void) fflush(stdout);
                if (!fgets(mode, sizeof mode, stdin))
                        die("standard input");
        }
        end(0);
}
