/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A mounted /sys: "contract-files ... ROOT kernel|sim". With "kernel" it is that of the guest which
 * tests/vm/ap-kernel boots, with "sim" the simulated host's, through FUSE. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"
#include "vfio_guest.h"

#define CTL          "/sys/kernel/debug/ap_model/ctl"
#define QUEUES       "/sys/kernel/debug/ap_model/queues"
#define BLOCKED_MS   500 /* what takes longer does not come to an end by itself */
#define RECEIVE_SIZE (8 << 20)

static int root = -1, uevents = -1;
static bool kernel;
static bool stuck; /* somewhere a reset does not end */
static int held[HOST_SLOTS];

typedef struct Ended {
        HostAnswer answer;
        size_t n;
        char data[HOST_TEXT];
} Ended;

static struct {
        pid_t pid;
        int fd;     /* of the process: readable when it has ended */
        Ended *end; /* shared with it */
} started[HOST_SLOTS];

int host_begin(char **arguments, const char *boot) {
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
        int size = RECEIVE_SIZE;

        if (!arguments[0] || !arguments[1])
                return 2;
        kernel = strcmp(arguments[1], "kernel") == 0;
        root = open(arguments[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        uevents = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
        if (root < 0 || uevents < 0 ||
            setsockopt(uevents, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0 ||
            bind(uevents, (struct sockaddr *) &address, sizeof address) < 0) {
                perror("cannot begin");
                return 1;
        }
        for (size_t i = 0; i < HOST_SLOTS; i++)
                held[i] = started[i].fd = -1;
        if (kernel) /* the time up to the next scan begins again, so that it is not seen */
                (void) host_write("bus/ap/config_time", "30\n", 3);
        return 0;
}

void host_finish(void) {
        for (unsigned i = 0; i < HOST_SLOTS; i++)
                host_hold_close(i);
        (void) close(root);
        (void) close(uevents);
}

static ssize_t read_all(int fd, char *buf, size_t size) {
        size_t n = 0;
        ssize_t r;

        while ((r = read(fd, buf + n, size - n)) > 0)
                n += (size_t) r;
        return r < 0 ? -errno : (ssize_t) n;
}

static HostAnswer access_file(const char *path, int flags, char *buf, const char *data, size_t n) {
        int fd = openat(root, path, flags | O_CLOEXEC);
        HostAnswer a = { .opened = true };

        if (fd < 0)
                return (HostAnswer) { -errno, false };
        if (flags == O_RDONLY)
                a.r = read_all(fd, buf, n);
        else {
                a.r = write(fd, data, n);
                if (a.r < 0)
                        a.r = -errno;
        }
        (void) close(fd);
        return a;
}

HostAnswer host_read(const char *path, char *buf, size_t size) {
        return access_file(path, O_RDONLY, buf, NULL, size);
}

HostAnswer host_write(const char *path, const char *data, size_t n) {
        return access_file(path, O_WRONLY, NULL, data, n);
}

/* With the rights of a user who is not root go its capabilities; they come back with it. */
int host_user(unsigned uid) {
        return seteuid(uid) < 0 ? -errno : 0;
}

int host_chown(const char *path, unsigned uid) {
        return fchownat(root, path, uid, (gid_t) -1, 0) < 0 ? -errno : 0;
}

int host_lstat(const char *path, struct stat *ret) {
        return fstatat(root, path, ret, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

ssize_t host_readlink(const char *path, char *buf, size_t size) {
        ssize_t n = readlinkat(root, path, buf, size);

        return n < 0 ? -errno : n;
}

int host_readdir(const char *path, host_name_t fn, void *userdata) {
        int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);

        if (!dir)
                return -errno;
        for (const struct dirent *e; r == 0 && (e = readdir(dir));)
                r = fn(userdata, e->d_name);
        (void) closedir(dir);
        return r;
}

int host_hold(unsigned slot, const char *path, int flags) {
        host_hold_close(slot);
        held[slot] = openat(root, path, flags | O_CLOEXEC);
        return held[slot] < 0 ? -errno : 0;
}

ssize_t host_hold_read(unsigned slot, char *buf, size_t size, bool rewind) {
        ssize_t r;

        if (rewind)
                (void) lseek(held[slot], 0, SEEK_SET);
        r = read(held[slot], buf, size);
        return r < 0 ? -errno : r;
}

ssize_t host_hold_write(unsigned slot, const char *data, size_t n) {
        ssize_t r = write(held[slot], data, n);

        return r < 0 ? -errno : r;
}

void host_hold_close(unsigned slot) {
        if (held[slot] >= 0)
                (void) close(held[slot]);
        held[slot] = -1;
}

/* Of the process: D or S; FUSE lets its clients wait in S, whatever the host says. */
static char process_state(pid_t pid) {
        char path[64], text[512], state = '?';
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        f = fopen(path, "re");
        if (!f)
                return state;
        if (fgets(text, sizeof text, f) && strrchr(text, ')'))
                state = strrchr(text, ')')[2];
        (void) fclose(f);
        return state;
}

bool host_start(unsigned slot, bool write, const char *path, const char *data, size_t n, char *ret_state) {
        struct pollfd p = { .events = POLLIN };
        Ended *e = started[slot].end;

        if (!e) {
                e = mmap(NULL, sizeof *e, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
                if (e == MAP_FAILED)
                        abort();
                started[slot].end = e;
        }
        started[slot].pid = fork();
        if (started[slot].pid < 0)
                abort();
        if (started[slot].pid == 0) {
                vfio_guest_forget(); /* or the device would be held for as long as this process */
                e->answer = write ? host_write(path, data, n) : host_read(path, e->data, sizeof e->data);
                e->n = !write && e->answer.r > 0 ? (size_t) e->answer.r : 0;
                _exit(0);
        }
        started[slot].fd = p.fd = pidfd_open(started[slot].pid, 0);
        if (p.fd < 0)
                abort();
        if (poll(&p, 1, BLOCKED_MS) > 0)
                return true;
        *ret_state = process_state(started[slot].pid);
        return false;
}

HostAnswer host_end(unsigned slot, char *buf, size_t size, size_t *ret_n) {
        const Ended *e = started[slot].end;

        (void) waitpid(started[slot].pid, NULL, 0);
        (void) close(started[slot].fd);
        *ret_n = e->n < size ? e->n : size;
        memcpy(buf, e->data, *ret_n);
        return e->answer;
}

/* Whether after @commands some reset does not end. */
static void note_stuck(const char *commands) {
        for (const char *p = commands; (p = strstr(p, "stuck")); p++)
                stuck = p < commands + 2 || memcmp(p - 2, "no", 2) != 0;
}

int host_model(const char *commands) {
        HostAnswer a;

        if (!kernel)
                a = host_write(".sim/ctl", commands, strlen(commands));
        else {
                a = host_write(CTL, commands, strlen(commands));
                note_stuck(commands);
        }
        return a.r < 0 ? (int) a.r : 0;
}

int host_module(bool load) {
        if (!kernel)
                return host_model(load ? "modprobe" : "rmmod") < 0;
        return WEXITSTATUS(system(load ? "modprobe vfio_ap 2> /dev/null" : "rmmod vfio_ap 2> /dev/null"));
}

/* "guest UUID config=N request=N" of the simulated host's state */
static int sim_guest(const char *uuid, unsigned *ret_config, unsigned *ret_request) {
        static char text[HOST_TEXT];
        HostAnswer a = host_read(".sim/ctl", text, sizeof text - 1);
        const char *p;

        if (a.r < 0)
                return (int) a.r;
        text[a.r] = 0;
        for (p = text; (p = strstr(p, "guest ")); p++)
                if (strncmp(p + 6, uuid, strlen(uuid)) == 0)
                        return sscanf(p + 6 + strlen(uuid), " config=%u request=%u", ret_config,
                                      ret_request) == 2
                                       ? 0
                                       : -EBADMSG;
        return -ENOENT;
}

static struct Counts {
        char uuid[40];
        unsigned config, request; /* when last asked */
} counts[HOST_SLOTS];

static struct Counts *counts_of(const char *uuid) {
        struct Counts *found = NULL;

        for (size_t i = 0; i < HOST_SLOTS; i++)
                if (strcmp(counts[i].uuid, uuid) == 0)
                        return &counts[i];
                else if (!counts[i].uuid[0])
                        found = &counts[i];
        return found;
}

int host_guest(const char *uuid, bool on) {
        struct Counts *c = counts_of(uuid);
        char command[128];
        int r;

        if (kernel)
                return on ? vfio_guest_attach(root, uuid) : vfio_guest_detach(uuid);
        (void) snprintf(command, sizeof command, "guest %s %s", uuid, on ? "on" : "off");
        r = host_model(command);
        if (!on && r == -ENOENT)
                r = -EINVAL; /* there is no such guest */
        if (r == 0 && c) {
                memset(c, 0, sizeof *c);
                if (on) {
                        (void) snprintf(c->uuid, sizeof c->uuid, "%s", uuid);
                        r = sim_guest(uuid, &c->config, &c->request);
                }
        }
        return r;
}

int host_guest_events(const char *uuid, bool *ret_config, bool *ret_request) {
        struct Counts *c = counts_of(uuid);
        unsigned config, request;
        int r;

        if (kernel)
                return vfio_guest_events(uuid, ret_config, ret_request);
        if (!c || !c->uuid[0])
                return -ENOENT;
        r = sim_guest(uuid, &config, &request);
        if (r < 0)
                return r;
        *ret_config = config != c->config;
        *ret_request = request != c->request;
        c->config = config;
        c->request = request;
        return 0;
}

int host_zeroized(host_zeroized_t fn) {
        static char text[HOST_TEXT];
        HostAnswer a = host_read(kernel ? QUEUES : ".sim/zeroized", text, sizeof text - 1);
        unsigned adapter, domain, count;

        if (a.r < 0)
                return (int) a.r;
        text[a.r] = 0;
        for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
                if (sscanf(p, "%x.%x zapq %u", &adapter, &domain, &count) == 3 && count > 0)
                        fn(adapter, domain, count);
        return 0;
}

void host_settle(void) {
        if (kernel && !stuck)
                (void) host_model("settle");
}

static void escape(char *d, size_t size, const char *s) {
        size_t n = strlen(d);

        for (; *s && n + 3 < size; s++)
                if (*s == '\n') {
                        d[n++] = '\\';
                        d[n++] = 'n';
                } else
                        d[n++] = *s;
        d[n] = 0;
}

/* What KVM says of itself when a guest is made is not the host's. */
static bool foreign(const char *path) {
        return strncmp(path, "/devices/virtual/misc/kvm", 25) == 0 ||
               strncmp(path, "/devices/virtual/bdi", 20) == 0;
}

void host_events(host_event_t fn) {
        static const char *const skip[] = { "ACTION=", "DEVPATH=", "SEQNUM=" };
        char message[8192], text[8192];
        ssize_t n;

        while ((n = recv(uevents, message, sizeof message - 1, 0)) > 0) {
                const char *path = memchr(message, '@', (size_t) n);

                message[n] = 0;
                if (!path || foreign(path + 1))
                        continue;
                text[0] = 0;
                escape(text, sizeof text, message);
                for (const char *p = message + strlen(message) + 1; p < message + n; p += strlen(p) + 1) {
                        bool skipped = false;

                        for (size_t i = 0; i < sizeof skip / sizeof *skip; i++)
                                skipped |= strncmp(p, skip[i], strlen(skip[i])) == 0;
                        if (skipped)
                                continue;
                        escape(text, sizeof text, " ");
                        escape(text, sizeof text, strncmp(p, "PID=", 4) == 0 ? "PID=*" : p);
                }
                fn(text);
        }
}
