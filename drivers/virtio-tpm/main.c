/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "drivers/virtio-tpm/notify.h"
#include "drivers/virtio-tpm/report.h"
#include "drivers/virtio-tpm/sandbox.h"
#include "drivers/virtio-tpm/service.h"
#include "drivers/virtio-tpm/turn.h"

#define NS_PER_S     UINT64_C(1000000000)
#define DEADLINE_S   300
#define GOODBYE_NS   (200 * UINT64_C(1000000)) /* for a message that is half here when we are told to end */
#define LISTEN_QUEUE 4

enum { EXIT_USAGE = 2 };

/* Who may connect: QEMU, by its group; the owner alone, for he can reset the TPM. */
enum { GROUP_MASK = 0117, OWNER_MASK = 0177 };

/* A sanitizer needs what the sandbox takes away. */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

typedef struct Options {
        ServiceOptions service;
        const char *user, *socket, *control, *tpm;
        bool sandbox;
} Options;

static const char help[] =
        "guestcrypt-tpm - a virtio TPM for one virtual machine, backed by swtpm\n"
        "\n"
        "usage: guestcrypt-tpm [OPTION...]\n"
        "\n"
        "The VMM's side:\n"
        "  --socket=PATH        listen there for the VMM\n"
        "  --listen-fd=N        listen on descriptor N\n"
        "  --client-fd=N        the connection to the VMM is descriptor N\n"
        "  --front=PROTOCOL     vfio-user (default) or vhost-user\n"
        "  --indirect=yes|no    offer indirect descriptors (default: yes, on s390x no)\n"
        "  --peer-uid=UID       let only this user's and root's VMM in\n"
        "  --once               end when the VMM does\n"
        "\n"
        "The TPM's side:\n"
        "  --tpm=PATH           connect to swtpm's control socket\n"
        "  --tpm-fd=N           swtpm's control channel is descriptor N\n"
        "  --tpm-data-fd=N      its data channel is N (default: one is made and given to swtpm)\n"
        "  --platform=lock|keep close the platform hierarchy before the guest's first command (default),\n"
        "                       or leave it to the guest\n"
        "  --deny=CODE[,CODE]   answer these commands with TPM_RC_COMMAND_CODE\n"
        "  --deadline=SECONDS   for one command (default: 300)\n"
        "\n"
        "The owner's side:\n"
        "  --control=PATH       listen there for status, drain, resume, reset, tpm\n"
        "  --control-fd=N       or on descriptor N\n"
        "  --user=NAME          become this user\n"
        "  --sandbox=yes|no     no: keep all rights, for debuggers and sanitizers\n"
        "  --verbose            report every message that is refused\n"
        "  --help  --version\n"
        "\n"
        "By hand, with QEMU 10.1 or later; guestcrypt-tpm(8) has more, and s390x, vhost-user, libvirt, systemd:\n"
        "\n"
        "  mkdir STATE\n"
        "  swtpm_setup --tpm2 --tpmstate STATE --create-ek-cert --create-platform-cert --lock-nvram --not-overwrite\n"
        "  swtpm socket --daemon --pid file=swtpm.pid --tpm2 --tpmstate dir=$PWD/STATE --ctrl type=unixio,path=ctrl.sock\n"
        "  guestcrypt-tpm --tpm=ctrl.sock --socket=vtpm.sock --control=control.sock &\n"
        "\n"
        "  qemu-system-x86_64 -m 768 -nodefaults -nographic -no-reboot -serial stdio \\\n"
        "    -object memory-backend-memfd,id=mem0,size=768M,share=on \\\n"
        "    -machine q35,accel=kvm,memory-backend=mem0 -cpu max \\\n"
        "    -device '{\"driver\":\"vfio-user-pci\",\"id\":\"tpm0\",\"socket\":{\"type\":\"unix\",\"path\":\"vtpm.sock\"}}' \\\n"
        "    -kernel vmlinuz -initrd initrd.gz -append 'console=ttyS0'\n";

static int usage(const char *what, const char *value) {
        (void) fprintf(stderr, "guestcrypt-tpm: %s%s%s\nTry 'guestcrypt-tpm --help'.\n", what,
                       value ? ": " : "", value ? value : "");
        return -EINVAL;
}

static int parse_number(const char *text, unsigned long max, unsigned long *ret) {
        unsigned long v;
        char *end;

        errno = 0;
        v = strtoul(text, &end, 0);
        if (errno > 0 || end == text || *end != '\0' || text[0] == '-' || v > max)
                return usage("not a number in range", text);

        *ret = v;
        return 0;
}

/* One of two words. */
static int parse_choice(const char *text, const char *no, const char *yes, bool *ret) {
        if (strcmp(text, yes) != 0 && strcmp(text, no) != 0)
                return usage("unknown value", text);

        *ret = strcmp(text, yes) == 0;
        return 0;
}

static int parse_denied(char *text, ServiceOptions *o) {
        unsigned long code;
        int r;

        for (char *save, *p = strtok_r(text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
                if (o->n_denied >= DEVICE_DENIED_MAX)
                        return usage("too many commands to deny", NULL);
                r = parse_number(p, UINT32_MAX, &code);
                if (r < 0)
                        return r;
                o->denied[o->n_denied++] = (uint32_t) code;
        }
        return 0;
}

static int parse_fd(const char *text, const char *name, ServiceFds *fds) {
        unsigned long fd;
        int r;

        r = parse_number(text, INT32_MAX, &fd);
        if (r < 0)
                return r;
        if (service_fds_has(fds, name) || service_fds_has(fds, "state"))
                return 0; /* kept over a restart, or lost in it; number @fd may be anything now */
        if (fcntl((int) fd, F_SETFD, FD_CLOEXEC) < 0)
                return usage("not an open descriptor", text);

        service_fds_add(fds, name, (int) fd);
        return 0;
}

enum {
        OPT_FRONT = 256,
        OPT_SOCKET,
        OPT_LISTEN_FD,
        OPT_CLIENT_FD,
        OPT_INDIRECT,
        OPT_PEER_UID,
        OPT_ONCE,
        OPT_TPM,
        OPT_TPM_FD,
        OPT_DATA_FD,
        OPT_PLATFORM,
        OPT_DENY,
        OPT_DEADLINE,
        OPT_CONTROL,
        OPT_CONTROL_FD,
        OPT_USER,
        OPT_SANDBOX,
        OPT_VERBOSE,
        OPT_HELP,
        OPT_VERSION
};

static int parse_option(int option, char *value, Options *o, ServiceFds *fds) {
        unsigned long n;
        bool yes;
        int r = 0;

        switch (option) {
        case OPT_FRONT:
                r = parse_choice(value, "vfio-user", "vhost-user", &yes);
                if (r >= 0)
                        o->service.front = yes ? FRONT_VHOST_USER : FRONT_VFIO_USER;
                return r;
        case OPT_SOCKET:
                o->socket = value;
                return 0;
        case OPT_LISTEN_FD:
                return parse_fd(value, "listen", fds);
        case OPT_CLIENT_FD:
                return parse_fd(value, "client", fds);
        case OPT_INDIRECT:
                return parse_choice(value, "no", "yes", &o->service.indirect);
        case OPT_PEER_UID:
                r = parse_number(value, UINT32_MAX - 1, &n);
                if (r >= 0)
                        o->service.peer_uid = (uid_t) n;
                return r;
        case OPT_ONCE:
                o->service.once = true;
                return 0;
        case OPT_TPM:
                o->tpm = value;
                return 0;
        case OPT_TPM_FD:
                return parse_fd(value, "tpm", fds);
        case OPT_DATA_FD:
                return parse_fd(value, "data", fds);
        case OPT_PLATFORM:
                return parse_choice(value, "lock", "keep", &o->service.tpm.keep_platform);
        case OPT_DENY:
                return parse_denied(value, &o->service);
        case OPT_DEADLINE:
                r = parse_number(value, 86400, &n);
                if (r >= 0)
                        o->service.tpm.deadline_ns = MAX(n, 1UL) * NS_PER_S;
                return r;
        case OPT_CONTROL:
                o->control = value;
                return 0;
        case OPT_CONTROL_FD:
                return parse_fd(value, "control", fds);
        case OPT_USER:
                o->user = value;
                return 0;
        case OPT_SANDBOX:
                return parse_choice(value, "no", "yes", &o->sandbox);
        case OPT_VERBOSE:
                report_set_max(LOG_DEBUG);
                return 0;
        case OPT_HELP:
                (void) fputs(help, stdout);
                return 1;
        case OPT_VERSION:
                (void) puts("guestcrypt-tpm " GUESTCRYPT_VERSION);
                return 1;
        default:
                (void) fprintf(stderr, "Try 'guestcrypt-tpm --help'.\n");
                return -EINVAL;
        }
}

/* 1: there is nothing more to do. */
static int parse_options(int argc, char **argv, Options *o, ServiceFds *fds) {
        static const struct option options[] = {
                { "front", required_argument, NULL, OPT_FRONT },
                { "socket", required_argument, NULL, OPT_SOCKET },
                { "listen-fd", required_argument, NULL, OPT_LISTEN_FD },
                { "client-fd", required_argument, NULL, OPT_CLIENT_FD },
                { "indirect", required_argument, NULL, OPT_INDIRECT },
                { "peer-uid", required_argument, NULL, OPT_PEER_UID },
                { "once", no_argument, NULL, OPT_ONCE },
                { "tpm", required_argument, NULL, OPT_TPM },
                { "tpm-fd", required_argument, NULL, OPT_TPM_FD },
                { "tpm-data-fd", required_argument, NULL, OPT_DATA_FD },
                { "platform", required_argument, NULL, OPT_PLATFORM },
                { "deny", required_argument, NULL, OPT_DENY },
                { "deadline", required_argument, NULL, OPT_DEADLINE },
                { "control", required_argument, NULL, OPT_CONTROL },
                { "control-fd", required_argument, NULL, OPT_CONTROL_FD },
                { "user", required_argument, NULL, OPT_USER },
                { "sandbox", required_argument, NULL, OPT_SANDBOX },
                { "verbose", no_argument, NULL, OPT_VERBOSE },
                { "help", no_argument, NULL, OPT_HELP },
                { "version", no_argument, NULL, OPT_VERSION },
                {},
        };
        int option, r;

        while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                r = parse_option(option, optarg, o, fds);
                if (r != 0)
                        return r;
        }
        return optind < argc ? usage("unexpected argument", argv[optind]) : 0;
}

static int unix_address(const char *path, struct sockaddr_un *ret) {
        if (strlen(path) >= sizeof ret->sun_path)
                return -ENAMETOOLONG;

        *ret = (struct sockaddr_un) { .sun_family = AF_UNIX };
        (void) snprintf(ret->sun_path, sizeof ret->sun_path, "%s", path);
        return 0;
}

/* Whether @fd still listens at @path: the manager may have kept it longer than its directory, or be told another path now. */
static bool listens_at(int fd, const char *path) {
        struct sockaddr_un address = {};
        socklen_t size = sizeof address - 1;
        struct stat st;

        return getsockname(fd, (struct sockaddr *) &address, &size) == 0 &&
               strcmp(address.sun_path, path) == 0 && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* What an earlier process left there is replaced. @mask: of the socket's permissions. */
static int listen_at(const char *path, mode_t mask) {
        CLEANUP(fd_closep) int fd = -1;
        struct sockaddr_un address;
        struct stat st;
        mode_t old;
        int r;

        r = unix_address(path, &address);
        if (r < 0)
                return r;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
                (void) unlink(path);

        old = umask(mask);
        r = ret_errno(bind(fd, (struct sockaddr *) &address, sizeof address));
        (void) umask(old);
        if (r < 0)
                return r;
        if (listen(fd, LISTEN_QUEUE) < 0)
                return -errno;
        return TAKE_FD(fd);
}

static int connect_to(const char *path) {
        CLEANUP(fd_closep) int fd = -1;
        struct sockaddr_un address;
        int r;

        r = unix_address(path, &address);
        if (r < 0)
                return r;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
                return -errno;
        return TAKE_FD(fd);
}

/* Opens a listening socket that was named by its path, unless it is here already, perhaps from before a restart. */
static int open_listener(ServiceFds *fds, const char *name, const char *path, mode_t mask) {
        int fd;

        if (!path)
                return 0;

        fd = service_fds_take(fds, name);
        if (fd < 0 || !listens_at(fd, path)) {
                fd_close(fd);
                fd = listen_at(path, mask);
                if (fd < 0) {
                        report(LOG_ERR, "'%s': %s", path, strerror(-fd));
                        return fd;
                }
                (void) notify_store(name, fd);
        }
        service_fds_add(fds, name, fd);
        return 0;
}

/* Connects to swtpm, unless that was done before a restart. A guest that had a TPM gets errors rather than no device. */
static int open_tpm(ServiceFds *fds, const char *path) {
        int fd;

        if (!path || service_fds_has(fds, "tpm"))
                return 0;

        fd = connect_to(path);
        if (fd < 0) {
                report(LOG_ERR, "'%s': %s", path, strerror(-fd));
                return service_fds_has(fds, "state") ? 0 : fd;
        }
        service_fds_add(fds, "tpm", fd);
        return 0;
}

static void add_received(void *userdata, const char *name, int fd) {
        service_fds_add(userdata, name, fd);
}

typedef struct Goodbye {
        Service *service;
        LoopSource signals;
        LoopTimer timer;
} Goodbye;

static void on_goodbye(void *userdata) {
        Goodbye *g = userdata;

        g->service->loop.stop = true;
}

/* SIGTERM: between two messages at once; else the rest of this one is waited for, but not long. */
static void on_signal(void *userdata, uint32_t events) {
        struct signalfd_siginfo info;
        Goodbye *g = userdata;

        if (read(g->signals.fd, &info, sizeof info) != sizeof info)
                return;
        if (server_is_between_messages(&g->service->server))
                g->service->loop.stop = true;
        else
                g->timer.at = loop_now() + GOODBYE_NS;
}

static int watch_signals(Goodbye *g, Service *service) {
        sigset_t set;
        int fd;

        *g = (Goodbye) { .service = service };
        g->signals = (LoopSource) { .fd = -1, .ready = on_signal, .userdata = g };
        g->timer = (LoopTimer) { .elapsed = on_goodbye, .userdata = g };
        loop_add_timer(&service->loop, &g->timer);

        (void) signal(SIGPIPE, SIG_IGN);
        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGTERM);
        (void) sigaddset(&set, SIGINT);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;

        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (fd < 0)
                return -errno;
        return loop_watch(&service->loop, &g->signals, fd, EPOLLIN);
}

static int run(const Options *o, ServiceFds *fds) {
        static Service service; /* large */
        Goodbye goodbye;
        int r;

        r = sandbox_user(o->user);
        if (r < 0) {
                report(LOG_ERR, "cannot become user '%s': %s", o->user, strerror(-r));
                return r;
        }

        r = service_init(&service, &o->service, fds);
        if (r < 0) {
                report(LOG_ERR, "cannot start: %s", strerror(-r));
                return r;
        }

        turn_ask();
        r = watch_signals(&goodbye, &service);
        if (r >= 0 && o->sandbox)
                r = sandbox_enter();
        if (r < 0)
                report(LOG_ERR, "cannot shut myself in: %s", strerror(-r));
        else {
                (void) notify_send("READY=1");
                notify_begin(&service.loop, &service.state->unsaid);
                r = loop_run(&service.loop);
        }

        service_done(&service);
        return r;
}

int main(int argc, char **argv) {
        Options o = {
                .service = { .peer_uid = (uid_t) -1, .tpm.deadline_ns = DEADLINE_S * NS_PER_S },
                .sandbox = !SANITIZED,
        };
        static ServiceFds fds;
        int r;

#ifndef __s390x__
        o.service.indirect = true;
#endif
        r = notify_open();
        if (r < 0)
                report(LOG_WARNING, "the service manager cannot be told anything: %s", strerror(-r));
        r = notify_received(add_received, &fds);
        if (r >= 0)
                r = parse_options(argc, argv, &o, &fds);
        if (r != 0)
                return r > 0 ? EXIT_SUCCESS : EXIT_USAGE;

        if (!o.socket && !service_fds_has(&fds, "listen") && !service_fds_has(&fds, "client")) {
                (void) usage("no VMM to serve; give --socket, --listen-fd or --client-fd", NULL);
                return EXIT_USAGE;
        }
        if (!o.tpm && !service_fds_has(&fds, "tpm") && !service_fds_has(&fds, "state")) {
                (void) usage("no TPM; give --tpm or --tpm-fd", NULL);
                return EXIT_USAGE;
        }
        if (open_tpm(&fds, o.tpm) < 0 || open_listener(&fds, "listen", o.socket, GROUP_MASK) < 0 ||
            open_listener(&fds, "control", o.control, OWNER_MASK) < 0)
                return EXIT_FAILURE;

        return run(&o, &fds) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
