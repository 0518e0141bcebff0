/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcryptd: options, wiring, loop. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/conf.h"
#include "base/log.h"
#include "bus/bus.h"
#include "engine/engine_guest.h"
#include "host/host.h"
#include "virt/virt.h"
#include "vtpm/vtpm.h"

#define STATE_DIR "var/lib/guestcrypt"
#define RUN_DIR   "run/guestcrypt"

typedef struct Daemon {
        sd_event *event;
        sd_bus *sd_bus;
        Host *host;
        Engine *engine;
        Vtpm *vtpm;
        Virt *virt;
        Bus *bus;
        Conf conf;
        int root_fd;
        const char *config_path;
        bool ready; /* others may call */
} Daemon;

static void on_host_changed(void *userdata) {
        Daemon *d = userdata;

        if (d->engine)
                engine_host_changed(d->engine);
}

static EngineConfig engine_config(const Conf *c) {
        return (EngineConfig) {
                .rescan_us = c->rescan_us,
                .max_matrices = c->max_matrices,
                .max_matrices_per_uid = c->max_matrices_per_user,
                .max_calls = c->max_calls_per_caller,
        };
}

/* Timeouts of the host, libvirt and TPMs are those of the start. */
static int reload(void *userdata) {
        Daemon *d = userdata;
        EngineConfig config;
        int r;

        r = conf_load(d->root_fd, d->config_path, &d->conf);
        if (r < 0) {
                log_error("Cannot read the configuration, keeping what there was: %s", strerror(-r));
                return r;
        }
        log_set_max(d->conf.log_level);
        config = engine_config(&d->conf);
        engine_set_config(d->engine, &config);
        return 0;
}

static void on_reloaded(void *userdata, int r) {
        (void) sd_notify(0, "READY=1");
}

static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata) {
        Daemon *d = userdata;
        uint64_t now;

        if (!d->ready) { /* the host is being looked at anyway, and READY=1 comes when it is true */
                (void) reload(d);
                return 0;
        }

        (void) sd_event_now(d->event, CLOCK_MONOTONIC, &now);
        (void) sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long) now);
        (void) reload(d);
        if (engine_rescan(d->engine, on_reloaded, d) < 0)
                on_reloaded(d, 0);
        return 0;
}

/* Recovered: only now may others call. */
static void on_ready(void *userdata) {
        Daemon *d = userdata;
        int r;

        r = sd_bus_request_name(d->sd_bus, BUS_NAME, 0);
        if (r < 0) {
                log_error("Cannot have the name '%s' on the bus: %s", BUS_NAME, strerror(-r));
                (void) sd_event_exit(d->event, r);
                return;
        }
        d->ready = true;
        (void) sd_notify(0, "READY=1");
        log_info("guestcryptd " GUESTCRYPT_VERSION " is ready");
}

static int connect_bus(Daemon *d) {
        int r;

        r = sd_bus_open_system(&d->sd_bus);
        if (r < 0) {
                log_error("Cannot reach the system bus: %s", strerror(-r));
                return r;
        }
        r = sd_bus_set_exit_on_disconnect(d->sd_bus, 1);
        if (r >= 0)
                r = sd_bus_attach_event(d->sd_bus, d->event, SD_EVENT_PRIORITY_NORMAL);
        if (r < 0)
                log_error("Cannot listen to the system bus: %s", strerror(-r));
        return r;
}

static int open_bus(Daemon *d) {
        const BusConfig config = { .reload = reload, .userdata = d };
        int r = bus_new(d->sd_bus, d->engine, &config, &d->bus);

        if (r < 0)
                log_error("Cannot put our objects on the bus: %s", strerror(-r));
        return r;
}

/* Whoever QEMU runs as here. */
static const char *tpm_group(const Conf *c) {
        static const char *const usual[] = { "libvirt-qemu", "qemu" };

        if (c->tpm_group[0])
                return c->tpm_group;
        for (size_t i = 0; i < ELEMENTS(usual); i++)
                if (getgrnam(usual[i]))
                        return usual[i];
        return NULL;
}

/* Installed, or @beside us in a build directory, which goes first: what is tried there belongs together. */
static int find_program(const char *beside, const char *installed, char path[static PATH_MAX]) {
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

        if (n < 0)
                return -errno;
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        if (snprintf(path, PATH_MAX, "%s/%s", self, beside) < PATH_MAX && access(path, X_OK) == 0)
                return 0;
        (void) snprintf(path, PATH_MAX, "%s", installed);
        return access(path, X_OK) < 0 ? -errno : 0;
}

/* A host that can have no TPMs has matrices all the same. */
static void open_vtpm(Daemon *d) {
        bool systemd = faccessat(d->root_fd, "run/systemd/system", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
        char launcher[PATH_MAX];
        const VtpmConfig config = {
                .root_fd = d->root_fd,
                .state_dir = STATE_DIR,
                .run_dir = RUN_DIR,
                .group = tpm_group(&d->conf),
                .uid_base = d->conf.tpm_uid_base,
                .launcher = launcher,
                .units = systemd ? d->sd_bus : NULL,
                .max_tpms = d->conf.max_tpms,
        };
        int r;

        r = find_program("guestcrypt-tpm-launch", LAUNCH_PROGRAM, launcher);
        if (r >= 0)
                r = vtpm_new(d->event, &config, engine_on_vtpm_event, d->engine, &d->vtpm);
        if (r < 0)
                log_error("Cannot have TPMs, going on without: %s", strerror(-r));
        engine_set_vtpm(d->engine, d->vtpm);
}

/* Without libvirt its hook can still be answered. */
static void open_virt(Daemon *d) {
        const VirtConfig config = { .uri = d->conf.libvirt_uri };
        char program[PATH_MAX];
        int r;

        if (strcmp(d->conf.libvirt_uri, CONF_NO_LIBVIRT) == 0)
                return;

        r = find_program("virt/guestcryptd-virt", VIRT_PROGRAM, program);
        if (r >= 0)
                r = virt_child_new(d->event, &config, program, &engine_virt_events, d->engine, &d->virt);
        if (r < 0)
                log_notice("Cannot start '%s', going on without libvirt: %s", VIRT_PROGRAM, strerror(-r));
        engine_set_virt(d->engine, d->virt);
}

static int open_host(Daemon *d, const char *program) {
        const HostConfig config = {
                .root_fd = d->root_fd,
                .lock_timeout_us = d->conf.lock_timeout_us,
                .step_timeout_us = d->conf.step_timeout_us,
                .scan_timeout_us = d->conf.scan_timeout_us,
        };
        int r;

        r = host_child_new(d->event, &config, program, on_host_changed, d, &d->host);
        if (r < 0)
                log_error("Cannot start the process that works on /sys: %s", strerror(-r));
        return r;
}

static int open_engine(Daemon *d) {
        EngineConfig config = engine_config(&d->conf);
        int r;

        r = engine_new(d->event, &config, d->host, d->root_fd, STATE_DIR, RUN_DIR, bus_on_engine_event,
                       &d->bus, &d->engine);
        if (r == -EBUSY)
                log_error("Another guestcryptd uses '/%s'", STATE_DIR);
        else if (r == -EBADMSG)
                log_error(
                        "'/%s' was written by a newer guestcryptd; install that, or move the directory away",
                        STATE_DIR);
        else if (r < 0)
                log_error("Cannot load the state from '/%s': %s", STATE_DIR, strerror(-r));
        return r;
}

static int open_loop(Daemon *d) {
        static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
        sigset_t mask;
        int r;

        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTS(signals); i++)
                (void) sigaddset(&mask, signals[i]);
        (void) sigaddset(&mask, SIGCHLD);
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
                return -errno;
        (void) signal(SIGPIPE, SIG_IGN);

        r = sd_event_default(&d->event);
        if (r < 0)
                return r;
        r = sd_event_add_signal(d->event, NULL, SIGTERM, NULL, NULL); /* ends the loop */
        if (r < 0)
                return r;
        r = sd_event_add_signal(d->event, NULL, SIGINT, NULL, NULL);
        if (r < 0)
                return r;
        r = sd_event_add_signal(d->event, NULL, SIGHUP, on_hangup, d);
        if (r < 0)
                return r;
        return sd_event_set_watchdog(d->event, true);
}

static int run(Daemon *d, const char *program) {
        int r;

        r = conf_load(d->root_fd, d->config_path, &d->conf);
        if (r < 0) {
                log_error("Cannot read the configuration: %s", strerror(-r));
                return r;
        }
        log_set_max(d->conf.log_level);

        r = open_loop(d);
        if (r < 0) {
                log_error("Cannot set up the event loop: %s", strerror(-r));
                return r;
        }
        r = open_host(d, program);
        if (r < 0)
                return r;
        r = connect_bus(d);
        if (r < 0)
                return r;
        r = open_engine(d);
        if (r < 0)
                return r;
        open_vtpm(d);
        open_virt(d);
        r = open_bus(d);
        if (r < 0)
                return r;

        engine_when_ready(d->engine, on_ready, d);
        r = sd_event_loop(d->event);
        if (r < 0)
                log_error("The event loop ended: %s", strerror(-r));
        (void) sd_notify(0, "STOPPING=1");
        return r;
}

static void daemon_close(Daemon *d) {
        if (d->bus)
                bus_flush_signals(d->bus);
        d->bus = bus_free(d->bus);
        d->engine = engine_free(d->engine);
        d->virt = virt_free(d->virt);
        d->vtpm = vtpm_free(d->vtpm);
        d->host = host_free(d->host);
        d->sd_bus = sd_bus_flush_close_unref(d->sd_bus);
        d->event = sd_event_unref(d->event);
        fd_close(d->root_fd);
}

static void help(void) {
        (void) printf(
                "guestcryptd [OPTION...]\n"
                "Gives guests crypto of their own, and keeps them apart (org.guestcrypt1 on the system bus).\n\n"
                "  --root=DIR      everything below DIR instead of /\n"
                "  --config=FILE   instead of etc/guestcrypt/guestcrypt.conf (and FILE.d/*.conf), below the root\n"
                "  --introspect    print the D-Bus interfaces as XML\n"
                "  --version\n"
                "  --help\n\n"
                "See guestcryptd(8).\n");
}

int main(int argc, char *argv[]) {
        enum { OPT_ROOT = 256, OPT_CONFIG, OPT_HOST_CHILD, OPT_INTROSPECT, OPT_VERSION, OPT_HELP };
        static const struct option options[] = {
                { "root", required_argument, NULL, OPT_ROOT },
                { "config", required_argument, NULL, OPT_CONFIG },
                { "host-child", no_argument, NULL, OPT_HOST_CHILD }, /* how we start our own child */
                { "introspect", no_argument, NULL, OPT_INTROSPECT },
                { "version", no_argument, NULL, OPT_VERSION },
                { "help", no_argument, NULL, OPT_HELP },
                {},
        };
        Daemon d = { .root_fd = -1, .config_path = CONF_PATH };
        const char *root = "/";
        bool child = false;
        int r, c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case OPT_ROOT:
                        root = optarg;
                        break;
                case OPT_CONFIG:
                        d.config_path = optarg;
                        break;
                case OPT_HOST_CHILD:
                        child = true;
                        break;
                case OPT_INTROSPECT:
                        return bus_introspect(stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
                case OPT_VERSION:
                        (void) printf("guestcryptd %s\n", GUESTCRYPT_VERSION);
                        return EXIT_SUCCESS;
                case OPT_HELP:
                        help();
                        return EXIT_SUCCESS;
                default:
                        return 2;
                }
        if (optind < argc) {
                (void) fprintf(stderr, "guestcryptd: unexpected argument '%s', see --help\n", argv[optind]);
                return 2;
        }

        if (child) /* these descriptors are host_child_new()'s */
                return host_child_main(HOST_CHILD_SOCKET_FD, HOST_CHILD_ROOT_FD, HOST_CHILD_PAGE_FD);

        d.root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (d.root_fd < 0) {
                log_error("Cannot open '%s': %s", root, strerror(errno));
                return EXIT_FAILURE;
        }
        r = run(&d, "/proc/self/exe");
        daemon_close(&d);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
