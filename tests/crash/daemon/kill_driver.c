/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* kill_driver ROOT GUESTCRYPTD STEP OFFSET [host|mdevctl]: kills the daemon with SIGKILL at its system calls (of all its threads and of its child on the
 * host together, counted from the request on), one after another, each STEP-th beginning with OFFSET; "host": at those of what changes the host's own queues, "mdevctl": of definitions that change hands. A new daemon is started then, and there
 * must be the old state or the new one, the new one if the client had its answer. What the state is is read from sysfs and from the definitions on
 * disk. ROOT has a simulated sys/ and is ours; DBUS_SYSTEM_BUS_ADDRESS is a private bus. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#define BUS_NAME    "org.guestcrypt1"
#define MATRIX      "00000000-0000-4000-8000-000000000001"
#define MDEV        "00000000-0000-4000-8000-000000000002"
#define TRACEES     64
#define MDEVCTL_DIR "etc/mdevctl.d/matrix"
#define CALL_US     (60 * UINT64_C(1000000))
#define READY_S     120

/* Whom the signal is for. */
typedef enum Victim {
        VICTIM_ALL,    /* daemon and child at once */
        VICTIM_DAEMON, /* its child goes on with what it has been told */
        VICTIM_CALLER, /* the process that makes the call: the child alone, if it is the child's */
        _VICTIM_MAX
} Victim;

static const char *const victims[] = { "all", "the daemon", "the caller" };

static const char *root, *program;

_Noreturn static void die(const char *what) {
        (void) fprintf(stderr, "kill_driver: %s: %s\n", what, strerror(errno));
        exit(1);
}

/* ---- the host and the disk ---- */

static char *path_of(const char *below) {
        static char buf[2][PATH_MAX];
        static unsigned k;

        k ^= 1;
        (void) snprintf(buf[k], sizeof buf[k], "%s/%s", root, below);
        return buf[k];
}

static void write_file(const char *path, const char *text) {
        int fd = open(path_of(path), O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, text, strlen(text)) < 0)
                die(path);
        (void) close(fd);
}

/* "-" if there is none: an mdev may be of another type, masks need not be kept. */
static void print_file(FILE *f, const char *path) {
        char buf[8192];
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0 && errno == ENOENT) {
                (void) fputs("-\n", f);
                return;
        }
        n = fd < 0 ? -1 : read(fd, buf, sizeof buf);
        if (n < 0)
                die(path);
        (void) fwrite(buf, 1, (size_t) n, f);
        (void) close(fd);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *e) {
        return e->d_name[0] != '.';
}

static void print_dir(FILE *f, const char *dir, const char *attr) {
        struct dirent **names;
        int n = scandir(path_of(dir), &names, not_hidden, by_name);

        for (int i = 0; i < n; i++) {
                char path[1024];

                (void) snprintf(path, sizeof path, "%s/%s%s", path_of(dir), names[i]->d_name, attr);
                (void) fprintf(f, "%s: ", names[i]->d_name);
                print_file(f, path);
                free(names[i]);
        }
        if (n >= 0)
                free(names);
}

#define QUEUES "sys/bus/ap/devices"

static int is_queue(const struct dirent *e) {
        return strchr(e->d_name, '.') && e->d_name[0] != '.';
}

static const char *driver_of(const char *queue) {
        static char target[PATH_MAX];
        char path[PATH_MAX];
        ssize_t n;

        (void) snprintf(path, sizeof path, "%s/%s/driver", path_of(QUEUES), queue);
        n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = '\0';
        return strrchr(target, '/') ? strrchr(target, '/') + 1 : "";
}

/* Its override without newline; "" if there is none, or the kernel has none. */
static void override_of(const char *queue, char buf[static 64]) {
        char path[PATH_MAX];
        int fd;
        ssize_t n;

        (void) snprintf(path, sizeof path, "%s/%s/driver_override", path_of(QUEUES), queue);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? 0 : read(fd, buf, 63);
        buf[n < 0 ? 0 : n] = '\0';
        buf[strcspn(buf, "\n")] = '\0';
        (void) close(fd);
}

static void override_to(const char *queue, const char *driver) {
        char path[400], now[64];

        (void) snprintf(path, sizeof path, QUEUES "/%.40s/driver_override", queue);
        write_file(path, driver);
        (void) snprintf(now, sizeof now, "%.60s", driver_of(queue));
        if (strcmp(now, driver) != 0 && now[0]) {
                (void) snprintf(path, sizeof path, "sys/bus/ap/drivers/%.60s/unbind", now);
                write_file(path, queue);
        }
        if (strcmp(now, driver) != 0)
                write_file("sys/bus/ap/drivers_probe", queue);
}

static void each_queue(void (*fn)(const char *queue, void *userdata), void *userdata) {
        struct dirent **names;
        int n = scandir(path_of(QUEUES), &names, is_queue, by_name);

        for (int i = 0; i < n; i++) {
                fn(names[i]->d_name, userdata);
                free(names[i]);
        }
        if (n >= 0)
                free(names);
}

static void clean_queue(const char *queue, void *userdata) {
        char override[64], path[400];

        override_of(queue, override);
        if (!override[0])
                return;
        override_to(queue, "cex4queue");
        (void) snprintf(path, sizeof path, QUEUES "/%.40s/driver_override", queue);
        write_file(path, "\n");
}

static void print_queue(const char *queue, void *userdata) {
        char override[64];

        override_of(queue, override);
        (void) fprintf(userdata, "%s %s %s\n", queue, driver_of(queue), override);
}

/* What there is, without asking the daemon; it must not run. */
static char *look(void) {
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        print_file(f, path_of("sys/bus/ap/apmask"));
        print_file(f, path_of("sys/bus/ap/aqmask"));
        each_queue(print_queue, f);
        print_dir(f, "sys/bus/mdev/devices", "/ap_config");
        print_dir(f, "var/lib/guestcrypt/matrices", "");
        print_file(f, path_of("var/lib/guestcrypt/masks"));
        print_dir(f, "run/guestcrypt/live", "");
        print_dir(f, MDEVCTL_DIR, "");
        print_file(f, path_of("etc/udev/rules.d/41-ap.rules"));
        (void) fclose(f);
        return text;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static void remove_tree(const char *path) {
        (void) nftw(path_of(path), remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void copy_tree(const char *from, const char *to) {
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                (void) execlp("cp", "cp", "-a", path_of(from), path_of(to), NULL);
                _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
                die("cp");
}

static void clean(void) {
        struct dirent **names;
        int n = scandir(path_of("sys/bus/mdev/devices"), &names, not_hidden, by_name);

        for (int i = 0; i < n; i++) {
                char path[400];

                (void) snprintf(path, sizeof path, "sys/bus/mdev/devices/%s/remove", names[i]->d_name);
                write_file(path, "1");
                free(names[i]);
        }
        if (n >= 0)
                free(names);
        each_queue(clean_queue, NULL);
        write_file("sys/bus/ap/apmask",
                   "0xc000000000000000000000000000000000000000000000000000000000000000");
        write_file("sys/bus/ap/aqmask",
                   "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff");
        remove_tree("var");
        remove_tree("etc");
        remove_tree("run/guestcrypt");
        remove_tree("run/lock");
}

/* What a case begins with, so that it need not be made by a daemon for each point anew. */
static struct {
        char uuid[64], create[PATH_MAX], config[512]; /* of the one mdev, if there is one */
        char apmask[80], aqmask[80], overridden[32][16];
        unsigned n_overridden;
} saved;

static void save_queue(const char *queue, void *userdata) {
        char override[64];

        override_of(queue, override);
        if (strcmp(override, "vfio_ap") == 0 && saved.n_overridden < 32)
                (void) snprintf(saved.overridden[saved.n_overridden++], sizeof saved.overridden[0], "%.15s",
                                queue);
}

static void save_mask(const char *path, char buf[static 80]) {
        int fd = open(path_of(path), O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, 79);

        if (n < 0)
                die(path);
        buf[n] = '\0';
        (void) close(fd);
}

static void save(void) {
        struct dirent **names;
        int n = scandir(path_of("sys/bus/mdev/devices"), &names, not_hidden, by_name), fd;
        char path[400], real[PATH_MAX];
        ssize_t size;

        remove_tree("saved");
        if (mkdir(path_of("saved"), 0700) < 0)
                die("saved");
        copy_tree("var", "saved/var");
        copy_tree("etc", "saved/etc");
        copy_tree("run/guestcrypt", "saved/run");

        save_mask("sys/bus/ap/apmask", saved.apmask);
        save_mask("sys/bus/ap/aqmask", saved.aqmask);
        saved.n_overridden = 0;
        each_queue(save_queue, NULL);
        saved.uuid[0] = '\0';
        if (n < 0 || n > 1)
                die("mdevs");
        if (n == 1) {
                (void) snprintf(saved.uuid, sizeof saved.uuid, "%.60s", names[0]->d_name);
                (void) snprintf(path, sizeof path, "sys/bus/mdev/devices/%s/mdev_type", saved.uuid);
                if (!realpath(path_of(path), real))
                        die(path);
                (void) snprintf(saved.create, sizeof saved.create, "%.3000s/create",
                                real + strlen(root) + 1);
                (void) snprintf(path, sizeof path, "sys/bus/mdev/devices/%s/ap_config", saved.uuid);
                fd = open(path_of(path), O_RDONLY | O_CLOEXEC);
                size = read(fd, saved.config, sizeof saved.config - 1);
                if (size < 0)
                        die(path);
                saved.config[size] = '\0';
                (void) close(fd);
                free(names[0]);
        }
        free(names);
}

static void restore(void) {
        char path[400];

        clean();
        copy_tree("saved/var", "var");
        copy_tree("saved/etc", "etc");
        copy_tree("saved/run", "run/guestcrypt");
        write_file("sys/bus/ap/apmask", saved.apmask);
        write_file("sys/bus/ap/aqmask", saved.aqmask);
        for (unsigned i = 0; i < saved.n_overridden; i++)
                override_to(saved.overridden[i], "vfio_ap");
        if (saved.uuid[0]) {
                write_file(saved.create, saved.uuid);
                (void) snprintf(path, sizeof path, "sys/bus/mdev/devices/%s/ap_config", saved.uuid);
                write_file(path, saved.config);
        }
}

/* ---- the daemon ---- */

static int notify_fd;
static struct sockaddr_un notify_address = { .sun_family = AF_UNIX };

static void open_notify(void) {
        notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        (void) snprintf(notify_address.sun_path, sizeof notify_address.sun_path, "%s/notify", root);
        /* a daemon that dies at its start is an error, not a wait without end */
        if (notify_fd >= 0)
                (void) setsockopt(notify_fd, SOL_SOCKET, SO_RCVTIMEO,
                                  &(struct timeval) { .tv_sec = READY_S }, sizeof(struct timeval));
        if (notify_fd < 0 || bind(notify_fd, (struct sockaddr *) &notify_address, sizeof notify_address) < 0)
                die("notify socket");
}

static pid_t spawn_daemon(bool trace) {
        char message[256];
        char option[512];
        pid_t pid;

        while (recv(notify_fd, message, sizeof message, MSG_DONTWAIT) > 0) /* of the one before */
                ;
        (void) snprintf(option, sizeof option, "--root=%s", root);
        pid = fork();
        if (pid < 0)
                die("fork");
        if (pid > 0)
                return pid;

        (void) setenv("NOTIFY_SOCKET", notify_address.sun_path, 1);
        if (!getenv("KILL_DRIVER_LOG")) {
                int null = open("/dev/null", O_WRONLY);

                (void) dup2(null, STDERR_FILENO);
        }
        if (trace)
                (void) raise(SIGSTOP);
        (void) execl(program, program, option, NULL);
        _exit(127);
}

static void wait_ready(void) {
        char message[256];

        do {
                ssize_t n = recv(notify_fd, message, sizeof message - 1, 0);

                if (n < 0)
                        die("readiness");
                message[n] = '\0';
        } while (!strstr(message, "READY=1"));
}

/* ---- requests: in a process of their own, as their answers may not come. Exit status 0: done, 1: refused, 2: no answer ---- */

typedef struct Request {
        const char *name, *object, *interface, *method;
        const char *adapters, *domains; /* of a matrix, or the host's masks */
        const char *option;             /* one that is true, or NULL */
        const char *parent, *type;      /* of an mdev */
} Request;

#define ROOT_OBJECT   "/org/guestcrypt1", BUS_NAME ".Manager"
#define HOST_OBJECT   "/org/guestcrypt1", BUS_NAME ".Host"
#define HANDS_OBJECT  "/org/guestcrypt1", BUS_NAME ".Mdevctl"
#define MATRIX_OBJECT "/org/guestcrypt1/matrix/00000000_0000_4000_8000_000000000001", BUS_NAME ".Matrix"
#define MDEV_OBJECT   "/org/guestcrypt1/mdev/00000000_0000_4000_8000_000000000002", BUS_NAME ".Mdev"

static const Request requests[] = {
        { "Define", ROOT_OBJECT, "DefineMatrix", "2-3", "6,16" },
        { "DefineStart", ROOT_OBJECT, "DefineMatrix", "2-3", "6,16", "start" },
        { "DefineFromHost", ROOT_OBJECT, "DefineMatrix", "1-2", "6,16", "from-host" },
        { "Start", MATRIX_OBJECT, "Start" },
        { "Modify", MATRIX_OBJECT, "Modify", "3-4", "16" },
        { "Stop", MATRIX_OBJECT, "Stop" },
        { "Undefine", MATRIX_OBJECT, "Undefine" },
        { "UndefineStop", MATRIX_OBJECT, "Undefine", .option = "stop" },
        { "Masks", ROOT_OBJECT, "SetHostMasks", "0,4", "0-70,72-255" }, /* takes and gives, in both masks */
        { "CreateMatrix", ROOT_OBJECT, "CreateMdev", .parent = "matrix", .type = "vfio_ap-passthrough" },
        { "CreateOther", ROOT_OBJECT, "CreateMdev", .parent = "mtty", .type = "mtty-1" },
        { "Remove", MDEV_OBJECT, "Remove" },
        { "Reserve", HOST_OBJECT, "Reserve", "1", "6,16,27,71" },
        { "ReserveSingle", HOST_OBJECT, "Reserve", "2-3", "16" },
        { "Release", HOST_OBJECT, "Release", "1", "71", "take-others" }, /* after Masks: in both masks */
        { "ReleaseSingle", HOST_OBJECT, "Release", "2-3", "16" },
        { "ReleaseAll", HOST_OBJECT, "Release", "0-255", "0-255" },
        { "Persist", HOST_OBJECT, "Persist" },
        { "Import", HANDS_OBJECT, "Import" },
        { "Export", HANDS_OBJECT, "Export", .option = "force" }, /* mdevctl has no place for the name */
};

static const Request *find_request(const char *name) {
        for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
                if (strcmp(requests[i].name, name) == 0)
                        return &requests[i];
        errno = EINVAL;
        die(name);
}

static int append_list(sd_bus_message *m, const char *list) {
        uint16_t ids[256];
        size_t n = 0;

        for (char *end; *list; list = *end ? end + 1 : end) {
                unsigned long from = strtoul(list, &end, 10), to = from;

                if (*end == '-')
                        to = strtoul(end + 1, &end, 10);
                while (from <= to)
                        ids[n++] = (uint16_t) from++;
        }
        return sd_bus_message_append_array(m, 'q', ids, n * sizeof *ids);
}

/* What comes before the options. */
static int append_arguments(sd_bus_message *m, const Request *q) {
        bool ap = q->parent && strcmp(q->parent, "matrix") == 0;
        int r = 0;

        if (strcmp(q->method, "DefineMatrix") == 0)
                r = sd_bus_message_append(m, "ss", "payments-1", MATRIX);
        else if (strcmp(q->interface, BUS_NAME ".Mdevctl") == 0)
                r = sd_bus_message_append(m, "s", MATRIX);
        if (r >= 0 && q->parent)
                r = ap ? sd_bus_message_append(m, "sssa(ss)", q->parent, q->type, MDEV, 2, "assign_adapter",
                                               "2", "assign_domain", "6")
                       : sd_bus_message_append(m, "sssa(ss)", q->parent, q->type, MDEV, 0);
        if (r >= 0 && q->adapters)
                r = append_list(m, q->adapters);
        if (r >= 0 && q->domains)
                r = append_list(m, q->domains);
        if (r >= 0 && q->domains && strcmp(q->method, "SetHostMasks") != 0 &&
            strcmp(q->interface, BUS_NAME ".Host") != 0)
                r = append_list(m, ""); /* control domains */
        return r;
}

static int request(const Request *q) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *m = NULL, *reply = NULL;
        sd_bus *bus = NULL;
        int r;

        r = sd_bus_open_system(&bus);
        if (r >= 0)
                r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, q->object, q->interface, q->method);
        if (r >= 0)
                r = append_arguments(m, q);
        if (r >= 0)
                r = q->option ? sd_bus_message_append(m, "a{sv}", 1, q->option, "b", 1)
                              : sd_bus_message_append(m, "a{sv}", 0);
        if (r >= 0)
                r = sd_bus_call(bus, m, CALL_US, &error, &reply);
        if (r < 0 && getenv("KILL_DRIVER_LOG"))
                (void) fprintf(stderr, "%s: %s\n", error.name ?: "-", error.message ?: strerror(-r));
        if (r >= 0)
                return 0;
        if (sd_bus_error_has_name(&error, BUS_NAME ".Error.Stuck")) /* it says that it does not know */
                return 2;
        return error.name && strncmp(error.name, BUS_NAME ".Error.", strlen(BUS_NAME ".Error.")) == 0 ? 1
                                                                                                      : 2;
}

static pid_t spawn_request(const char *op) {
        pid_t pid = fork();

        if (pid < 0)
                die("fork");
        if (pid == 0)
                _exit(request(find_request(op)));
        return pid;
}

static int wait_for(pid_t pid) {
        int status;

        if (waitpid(pid, &status, 0) != pid)
                die("waitpid");
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void request_done(const char *op) {
        if (wait_for(spawn_request(op)) != 0) {
                (void) fprintf(stderr, "kill_driver: '%s' failed with nobody to disturb it\n", op);
                exit(1);
        }
}

/* ---- one run ---- */

typedef struct Trace {
        pid_t daemon, waiter, client;
        pid_t thread[TRACEES], process[TRACEES];
        bool entering[TRACEES], counted[TRACEES];
        size_t n;
        bool ready, killed;
        unsigned calls, kill_at; /* 0: never */
        int answer;              /* -1: not yet */
        Victim victim;
} Trace;

static pid_t process_of(pid_t thread) {
        char path[64], line[128];
        pid_t pid = thread;
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/status", thread);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
                if (sscanf(line, "Tgid: %d", &pid) == 1)
                        break;
        if (f)
                (void) fclose(f);
        return pid;
}

static size_t tracee(Trace *t, pid_t thread) {
        for (size_t i = 0; i < t->n; i++)
                if (t->thread[i] == thread)
                        return i;
        if (t->n == TRACEES)
                die("too many threads");
        t->thread[t->n] = thread;
        t->process[t->n] = process_of(thread);
        t->entering[t->n] = t->counted[t->n] = false;
        return t->n++;
}

static void forget(Trace *t, pid_t thread) {
        for (size_t i = 0; i < t->n; i++)
                if (t->thread[i] == thread) {
                        t->n--;
                        t->thread[i] = t->thread[t->n];
                        t->process[i] = t->process[t->n];
                        t->entering[i] = t->entering[t->n];
                        t->counted[i] = t->counted[t->n];
                        return;
                }
}

static void strike(Trace *t, pid_t caller) {
        t->killed = true;
        if (t->victim == VICTIM_CALLER)
                (void) kill(caller, SIGKILL);
        else
                (void) kill(t->daemon, SIGKILL);
        for (size_t i = 0; i < t->n && t->victim == VICTIM_ALL; i++)
                (void) kill(t->process[i], SIGKILL);
}

static void on_stop(Trace *t, pid_t thread, int status) {
        size_t i = tracee(t, thread);
        int sig = WSTOPSIG(status), event = status >> 16;

        if (sig == (SIGTRAP | 0x80)) {
                t->entering[i] = !t->entering[i];
                if (t->entering[i] && !t->killed && ++t->calls == t->kill_at)
                        strike(t, t->process[i]);
                sig = 0;
        } else if (event != 0 || sig == SIGSTOP || sig == SIGTRAP)
                sig = 0;
        /* up to the request it runs undisturbed */
        t->counted[i] = t->ready;
        (void) ptrace(t->ready ? PTRACE_SYSCALL : PTRACE_CONT, thread, NULL, (void *) (intptr_t) sig);
}

/* From now on each thread stops at its calls. */
static void begin_counting(Trace *t) {
        t->ready = true;
        for (size_t i = 0; i < t->n; i++)
                (void) ptrace(PTRACE_INTERRUPT, t->thread[i], NULL, NULL);
}

static bool all_are_counted(const Trace *t) {
        for (size_t i = 0; i < t->n; i++)
                if (!t->counted[i])
                        return false;
        return t->ready;
}

/* Runs the daemon under trace through @op. Returns with no process of it left. */
static void run_traced(Trace *t, const char *op) {
        const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                             PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
        bool asked = false, ending = false;
        int status;

        t->answer = -1;
        t->daemon = spawn_daemon(true);
        if (waitpid(t->daemon, &status, WUNTRACED) != t->daemon ||
            ptrace(PTRACE_SEIZE, t->daemon, NULL, (void *) options) < 0)
                die("ptrace");
        (void) tracee(t, t->daemon);
        (void) kill(t->daemon, SIGCONT);
        t->waiter = fork();
        if (t->waiter == 0) {
                wait_ready();
                _exit(0);
        }

        while (t->n > 0 || t->client) {
                pid_t pid = waitpid(-1, &status, __WALL);

                if (pid < 0)
                        die("waitpid");
                if (pid == t->waiter)
                        begin_counting(t);
                else if (pid == t->client) {
                        t->answer = WEXITSTATUS(status);
                        t->client = 0;
                } else if (WIFSTOPPED(status))
                        on_stop(t, pid, status);
                else
                        forget(t, pid);

                if (!asked && all_are_counted(t)) {
                        asked = true;
                        t->client = spawn_request(op);
                }
                if (t->answer >= 0 && !ending && (!t->killed || t->victim == VICTIM_CALLER)) {
                        ending =
                                true; /* it has lived through it: what comes later than the answer is another number's */
                        if (!t->killed && t->calls < t->kill_at)
                                t->kill_at = 0;
                        (void) kill(t->daemon, t->killed ? SIGTERM : SIGKILL);
                }
        }
}

/* The daemon's child becomes ours when that is dead: as a zombie it would look alive to the AP lock. */
static void reap(void) {
        while (waitpid(-1, NULL, __WALL) > 0)
                ;
}

/* Recovers, and ends in good order so that all is in files. */
static char *state_after_recovery(void) {
        pid_t pid = spawn_daemon(false);

        wait_ready();
        (void) kill(pid, SIGTERM);
        if (wait_for(pid) != 0) {
                (void) fprintf(stderr, "kill_driver: the daemon does not end well\n");
                exit(1);
        }
        return look();
}

typedef struct Case {
        const char *op;
        const char *before[3];
        bool theirs; /* mdevctl has a definition of the matrix, too, before all of it */
} Case;

static const Case cases[] = {
        { "Define", {} },
        { "DefineStart", {} },
        { "Start", { "Define" } },
        { "Modify", { "DefineStart" } },
        { "Stop", { "DefineStart" } },
        { "Undefine", { "Define" } },
        { "UndefineStop", { "DefineStart" } },
        { "Start", { "DefineFromHost" } },
        { "Masks", {} },
        { "CreateMatrix", {} },
        { "CreateOther", {} },
        { "Remove", { "CreateMatrix" } },
};

static const Case host_cases[] = {
        { "Reserve", {} },
        { "Release", { "Masks" } },
        { "ReserveSingle", { "ReleaseAll" } },
        { "ReleaseSingle", { "ReleaseAll", "ReserveSingle" } },
        { "Persist", { "Reserve" } },
};

static const Case mdevctl_cases[] = {
        { "Import", .theirs = true },
        { "Export", { "Define" } },
        { "Export", { "DefineStart" } },
};

/* As mdevctl writes it. */
static void define_theirs(void) {
        static const char definition[] =
                "{\n  \"mdev_type\": \"vfio_ap-passthrough\",\n  \"start\": \"auto\",\n"
                "  \"attrs\": [\n    {\n      \"assign_adapter\": \"2\"\n    },\n"
                "    {\n      \"assign_domain\": \"6\"\n    }\n  ]\n}";
        FILE *f;

        if (mkdir(path_of("etc/mdevctl.d"), 0755) < 0 || mkdir(path_of(MDEVCTL_DIR), 0755) < 0)
                die(MDEVCTL_DIR);
        f = fopen(path_of(MDEVCTL_DIR "/" MATRIX), "we");
        if (!f || fputs(definition, f) < 0 || fclose(f) != 0)
                die(MDEVCTL_DIR);
}

static void prepare(const Case *c) {
        pid_t pid;

        clean();
        if (mkdir(path_of("etc"), 0755) < 0)
                die("etc");
        if (c->theirs)
                define_theirs();
        pid = spawn_daemon(false);
        wait_ready();
        for (size_t i = 0; c->before[i]; i++)
                request_done(c->before[i]);
        (void) kill(pid, SIGTERM);
        (void) wait_for(pid);
        save();
}

static bool is_bad(const Trace *t, const char *now, const char *was, const char *is) {
        bool old = strcmp(now, was) == 0, new = strcmp(now, is) == 0;

        return (!old && !new) || (t->answer == 0 && !new) || (t->answer == 1 && !old);
}

/* Kills at call @at. 1: all is well, 0: there are not so many calls, -1: not so. */
static int run_point(const Case *c, unsigned at, Victim victim, const char *was, const char *is) {
        Trace t = { .kill_at = at, .victim = victim };
        char *now;
        bool bad;

        restore();
        run_traced(&t, c->op);
        if (t.kill_at == 0)
                return 0;

        reap();
        now = state_after_recovery();
        bad = is_bad(&t, now, was, is);
        if (bad)
                (void) fprintf(stderr, "%s: %s killed at call %u, answer %d:\n%sinstead of\n%sor\n%s", c->op,
                               victims[t.victim], at, t.answer, now, was, is);
        free(now);
        return bad ? -1 : 1;
}

static unsigned run_case(const Case *c, unsigned step, unsigned offset) {
        char *was, *is;
        unsigned bad = 0, points = 0;
        pid_t pid;

        prepare(c);
        was = look();
        pid = spawn_daemon(false);
        wait_ready();
        request_done(c->op);
        (void) kill(pid, SIGTERM);
        (void) wait_for(pid);
        is = look();
        if (strcmp(was, is) == 0) {
                (void) fprintf(stderr, "kill_driver: '%s' changes nothing\n", c->op);
                return 1;
        }

        /* The daemon dies at each call, its child with it or not; at some of them only whoever makes the call. */
        for (unsigned i = 1 + offset % step, ok = 1; ok; i += step) {
                unsigned turn = i / step + offset;

                for (Victim v = 0; v < _VICTIM_MAX && ok; v++) {
                        int r;

                        if (v == VICTIM_CALLER ? turn % 3 != 0 : turn % 2 != v)
                                continue;
                        r = run_point(c, i, v, was, is);
                        ok = r != 0;
                        points += ok;
                        bad += r < 0;
                }
        }
        (void) printf("%-14s %-14s %u points, %u bad\n", c->op, c->before[0] ?: "", points, bad);
        (void) fflush(stdout);
        free(was);
        free(is);
        return bad + (points == 0);
}

int main(int argc, char *argv[]) {
        const Case *chosen = cases;
        size_t n = sizeof cases / sizeof *cases;
        unsigned step, offset, bad = 0;

        if (argc < 5)
                return 2;
        if (argc > 5 && strcmp(argv[5], "host") == 0) {
                chosen = host_cases;
                n = sizeof host_cases / sizeof *host_cases;
        } else if (argc > 5 && strcmp(argv[5], "mdevctl") == 0) {
                chosen = mdevctl_cases;
                n = sizeof mdevctl_cases / sizeof *mdevctl_cases;
        }
        root = realpath(argv[1], NULL);
        if (!root)
                die(argv[1]);
        program = argv[2];
        step = (unsigned) strtoul(argv[3], NULL, 10);
        offset = (unsigned) strtoul(argv[4], NULL, 10);
        if (prctl(PR_SET_CHILD_SUBREAPER, 1) <
            0) /* a dead child must not look alive to the lock, for want of an init */
                die("subreaper");
        open_notify();
        for (size_t i = 0; i < n; i++)
                bad += run_case(&chosen[i], step ? step : 1, offset);
        return bad > 0;
}
