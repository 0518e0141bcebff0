/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcrypt-sim-emulator - is qemu-system-s390x on the simulated host: becomes the real one, without what only a mainframe
 * has, which a second process stands in for as long as QEMU lives. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sim/sim_emulator.h"

#define MONITOR "socket,id=charmonitor,fd="

typedef struct Emulator {
        EmulatorBus bus;
        char **arguments; /* the real one's */
        size_t n_arguments;
        int monitor_fd; /* libvirt's, where it listens; -1: none */
        int listen_fd;  /* the same for the real one */
        struct sockaddr_un address;
        socklen_t address_size;
} Emulator;

static void clear(Emulator *e) {
        for (size_t i = 0; i < e->n_arguments; i++)
                free(e->arguments[i]);
        free(e->arguments);
}

static int die(const char *what, const char *why) {
        (void) fprintf(stderr, "qemu-system-s390x: %s: %s\n", what, why);
        return 1;
}

/* Without the features that TCG does not have. */
static char *strip_cpu(const char *cpu, bool *ret_ap) {
        static const char *const features[] = { "ap=on", "apft=on", "apqci=on", "apqi=on" };
        char *all = strdup(cpu), *kept = calloc(1, strlen(cpu) + 2), *end = kept, *state = NULL;

        if (!all || !kept) {
                free(all);
                free(kept);
                return NULL;
        }
        for (char *f = strtok_r(all, ",", &state); f; f = strtok_r(NULL, ",", &state)) {
                bool is_ours = false;

                for (size_t i = 0; i < ELEMENTS(features); i++)
                        is_ours |= strcmp(f, features[i]) == 0;
                *ret_ap |= strcmp(f, features[0]) == 0;
                if (is_ours)
                        continue;
                if (end != kept)
                        end = stpcpy(end, ",");
                end = stpcpy(end, f);
        }
        free(all);
        return kept;
}

/* libvirt's clients are ours from now on, and QEMU's client are we. */
static int take_monitor(Emulator *e, const char *chardev, char **ret) {
        int fd, n = 0;

        if (sscanf(chardev, MONITOR "%d%n", &fd, &n) != 1)
                return -EINVAL;
        e->address = (struct sockaddr_un) { .sun_family = AF_UNIX };
        e->address_size = sizeof e->address;
        e->listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
        /* of the size of its family: the kernel finds a name, which is no file */
        if (e->listen_fd < 0 ||
            bind(e->listen_fd, (struct sockaddr *) &e->address, sizeof e->address.sun_family) < 0 ||
            listen(e->listen_fd, 1) < 0 ||
            getsockname(e->listen_fd, (struct sockaddr *) &e->address, &e->address_size) < 0 ||
            fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
                return -errno;
        e->monitor_fd = fd;
        return asprintf(ret, MONITOR "%d%s", e->listen_fd, chardev + n) < 0 ? -ENOMEM : 0;
}

/* Takes it, also if it is NULL for want of memory. */
static int add(Emulator *e, char *argument) {
        if (!argument)
                return -ENOMEM;
        e->arguments[e->n_arguments++] = argument;
        return 0;
}

/* Takes out what the real one cannot have. 0, or an exit status. */
static int take_over(Emulator *e, int argc, char *argv[]) {
        const char *device = NULL;
        CLEANUP(freep) char *error = NULL;
        int r;

        r = add(e, strdup(EMULATOR_REAL));
        for (int i = 1; r >= 0 && i < argc; i++) {
                const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
                json_object *o = strcmp(option, "-device") == 0 ? json_tokener_parse(value) : NULL;
                bool is_vfio_ap = emulator_is_vfio_ap(o);

                (void) json_object_put(o);
                if (is_vfio_ap) {
                        if (device)
                                return die(value, "No 'ap-bus' bus found for device 'vfio-ap'");
                        device = value;
                        i++;
                        continue;
                }
                r = add(e, strdup(option));
                if (r >= 0 && strcmp(option, "-cpu") == 0 && *value) {
                        r = add(e, strip_cpu(value, &e->bus.exists));
                        i++;
                } else if (r >= 0 && strcmp(option, "-chardev") == 0 &&
                           strncmp(value, MONITOR, strlen(MONITOR)) == 0) {
                        char *chardev = NULL;

                        r = take_monitor(e, value, &chardev);
                        if (r >= 0)
                                r = add(e, chardev);
                        i++;
                }
        }
        if (r < 0)
                return die("start", strerror(-r));
        if (device) {
                CLEANUP(freep) char *what = NULL;
                json_object *o = json_tokener_parse(device);

                r = emulator_plug(&e->bus, o, &error);
                (void) json_object_put(o);
                if (r < 0 && asprintf(&what, "-device %s", device) < 0)
                        what = NULL;
                if (r < 0)
                        return die(what ?: "-device", error ?: strerror(ENOMEM));
        }
        return 0;
}

/* Of what QEMU is given nothing must stay open here. */
static void let_go(int a, int b) {
        int null = open("/dev/null", O_RDWR);

        (void) dup2(null, 0);
        (void) dup2(null, 1);
        for (int low = 3, next;; low = next + 1) {
                next = a >= low && (b < low || a < b) ? a : b >= low ? b : -1;
                (void) close_range((unsigned) low, next < 0 ? ~0U : (unsigned) next - 1, 0);
                if (next < 0)
                        return;
        }
}

int main(int argc, char *argv[]) {
        CLEANUP(clear) Emulator e = { .monitor_fd = -1, .listen_fd = -1 };
        int gone_fd, r;
        pid_t pid;

        e.arguments = calloc((size_t) argc + 1, sizeof *e.arguments);
        if (!e.arguments)
                return die("start", strerror(ENOMEM));
        r = take_over(&e, argc, argv);
        if (r != 0)
                return r;

        if (e.monitor_fd >= 0 || e.bus.mdev) {
                /* this process will be QEMU, so that it has the number that libvirt knows */
                gone_fd = (int) syscall(SYS_pidfd_open, getpid(), 0);
                pid = gone_fd < 0 ? -1 : fork();
                if (pid < 0) {
                        r = errno;
                        emulator_unplug(&e.bus);
                        return die("start", strerror(r));
                }
                if (pid == 0) {
                        (void) setsid();
                        (void) prctl(PR_SET_NAME, "sim-monitor");
                        let_go(gone_fd, e.monitor_fd);
                        emulator_monitor(&e.bus, gone_fd, e.monitor_fd, &e.address, e.address_size);
                        emulator_unplug(&e.bus);
                        _exit(0);
                }
        }
        (void) execv(EMULATOR_REAL, e.arguments);
        return die(EMULATOR_REAL, strerror(errno));
}
