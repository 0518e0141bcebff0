/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* kill_driver ROOT GUESTCRYPTD STEP [OFFSET]: kills the daemon with SIGKILL at its system calls (of all its threads and of its child on the
 * host together, counted from the request on), one after another, each STEP-th beginning with OFFSET. A new daemon is started then, and there
 * must be the old state or the new one, the new one if the client had its answer. What the state is is read from sysfs and from the definitions on
 * disk. ROOT has a simulated sys/ and is ours; DBUS_SYSTEM_BUS_ADDRESS is a private bus. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#define BUS_NAME   "org.guestcrypt1"
#define MATRIX     "00000000-0000-4000-8000-000000000001"
#define PATH       "/org/guestcrypt1/matrix/00000000_0000_4000_8000_000000000001"
#define TRACEES    64
#define CALL_US    (20 * UINT64_C(1000000))

/* Whom the signal is for. */
typedef enum Victim {
        VICTIM_ALL,               /* daemon and child at once */
        VICTIM_DAEMON,            /* its child goes on with what it has been told */
        VICTIM_CALLER,            /* the process that makes the call: the child alone, if it is the child's */
        _VICTIM_MAX
} Victim;

static const char *const victims[] = { "all", "the daemon", "the caller" };

static const char *root, *program;

static void die(const char *what) {
        (void) fprintf(stderr, "kill_driver: %s: %s\n", what, strerror(errno));
        exit(1);
}

/* ---- the host and the disk ---- */

static char *path_of(const char *below) {
        static char buf[2][512];
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

static void print_file(FILE *f, const char *path) {
        char buf[8192];
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf);

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

/* What there is, without asking the daemon; it must not run. */
static char *look(void) {
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        print_file(f, path_of("sys/bus/ap/apmask"));
        print_file(f, path_of("sys/bus/ap/aqmask"));
        print_dir(f, "sys/bus/mdev/devices", "/ap_config");
        print_dir(f, "var/lib/guestcrypt/matrices", "");
        (void) fclose(f);
        return text;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
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
        write_file("sys/bus/ap/apmask", "0xc000000000000000000000000000000000000000000000000000000000000000");
        (void) nftw(path_of("var"), remove_one, 16, FTW_DEPTH | FTW_PHYS);
        (void) nftw(path_of("run/guestcrypt"), remove_one, 16, FTW_DEPTH | FTW_PHYS);
        (void) nftw(path_of("run/lock"), remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- the daemon ---- */

static int notify_fd;
static struct sockaddr_un notify_address = { .sun_family = AF_UNIX };

static void open_notify(void) {
        notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        (void) snprintf(notify_address.sun_path, sizeof notify_address.sun_path, "%s/notify", root);
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

static int append_list(sd_bus_message *m, const char *list) {
        uint16_t ids[8];
        size_t n = 0;

        for (char *end; *list; list = *end ? end + 1 : end)
                ids[n++] = (uint16_t) strtoul(list, &end, 0);
        return sd_bus_message_append_array(m, 'q', ids, n * sizeof *ids);
}

static int append_options(sd_bus_message *m, const char *option) {
        return option ? sd_bus_message_append(m, "a{sv}", 1, option, "b", 1) : sd_bus_message_append(m, "a{sv}", 0);
}

static int request(const char *op) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *m = NULL, *reply = NULL;
        sd_bus *bus = NULL;
        bool define = strncmp(op, "Define", 6) == 0, modify = strcmp(op, "Modify") == 0;
        int r;

        r = sd_bus_open_system(&bus);
        if (r >= 0)
                r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, define ? "/org/guestcrypt1" : PATH,
                                                   define ? BUS_NAME ".Manager" : BUS_NAME ".Matrix",
                                                   define                     ? "DefineMatrix"
                                                   : strncmp(op, "Un", 2) == 0 ? "Undefine"
                                                                              : op);
        if (r >= 0 && define)
                r = sd_bus_message_append(m, "ss", "payments-1", MATRIX);
        if (r >= 0 && (define || modify)) {
                r = append_list(m, modify ? "3,4" : "2,3");
                if (r >= 0)
                        r = append_list(m, modify ? "16" : "6,16");
                if (r >= 0)
                        r = append_list(m, "");
        }
        if (r >= 0)
                r = append_options(m, strcmp(op, "DefineStart") == 0 ? "start" : strcmp(op, "UndefineStop") == 0 ? "stop" : NULL);
        if (r >= 0)
                r = sd_bus_call(bus, m, CALL_US, &error, &reply);
        if (r < 0 && getenv("KILL_DRIVER_LOG"))
                (void) fprintf(stderr, "%s: %s\n", error.name ?: "-", error.message ?: strerror(-r));
        if (r >= 0)
                return 0;
        return error.name && strncmp(error.name, BUS_NAME ".Error.", 23) == 0 ? 1 : 2;
}

static pid_t spawn_request(const char *op) {
        pid_t pid = fork();

        if (pid < 0)
                die("fork");
        if (pid == 0)
                _exit(request(op));
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
        bool entering[TRACEES];
        size_t n;
        bool counting, killed;
        unsigned calls, kill_at;  /* 0: never */
        int answer;               /* -1: not yet */
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
        t->entering[t->n] = false;
        return t->n++;
}

static void forget(Trace *t, pid_t thread) {
        for (size_t i = 0; i < t->n; i++)
                if (t->thread[i] == thread) {
                        t->n--;
                        t->thread[i] = t->thread[t->n];
                        t->process[i] = t->process[t->n];
                        t->entering[i] = t->entering[t->n];
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
                if (t->entering[i] && t->counting && !t->killed && ++t->calls == t->kill_at)
                        strike(t, t->process[i]);
                sig = 0;
        } else if (event != 0 || sig == SIGSTOP || sig == SIGTRAP)
                sig = 0;
        (void) ptrace(PTRACE_SYSCALL, thread, NULL, (void *) (intptr_t) sig);
}

/* Runs the daemon under trace through @op. Returns with no process of it left. */
static void run_traced(Trace *t, const char *op) {
        const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                             PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
        bool ending = false;
        int status;

        t->answer = -1;
        t->daemon = spawn_daemon(true);
        if (waitpid(t->daemon, &status, WUNTRACED) != t->daemon || ptrace(PTRACE_SEIZE, t->daemon, NULL, (void *) options) < 0)
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
                if (pid == t->waiter) { /* ready */
                        t->counting = true;
                        t->client = spawn_request(op);
                } else if (pid == t->client) {
                        t->answer = WEXITSTATUS(status);
                        t->client = 0;
                } else if (WIFSTOPPED(status))
                        on_stop(t, pid, status);
                else
                        forget(t, pid);

                if (t->answer >= 0 && !ending && (!t->killed || t->victim == VICTIM_CALLER)) {
                        ending = true; /* it has lived through it: what comes later than the answer is another number's */
                        if (!t->killed && t->calls < t->kill_at)
                                t->kill_at = 0;
                        (void) kill(t->daemon, t->killed ? SIGTERM : SIGKILL);
                }
        }
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
        const char *before[2];
} Case;

static const Case cases[] = {
        { "Define", {} },
        { "DefineStart", {} },
        { "Start", { "Define" } },
        { "Modify", { "DefineStart" } },
        { "Stop", { "DefineStart" } },
        { "Undefine", { "Define" } },
        { "UndefineStop", { "DefineStart" } },
};

static void prepare(const Case *c) {
        pid_t pid;

        clean();
        pid = spawn_daemon(false);
        wait_ready();
        for (size_t i = 0; c->before[i]; i++)
                request_done(c->before[i]);
        (void) kill(pid, SIGTERM);
        (void) wait_for(pid);
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

        for (unsigned i = 1 + offset % step;; i += step) {
                Trace t = { .kill_at = i, .victim = (Victim) ((i / step + offset) % _VICTIM_MAX) };
                char *now;

                prepare(c);
                run_traced(&t, c->op);
                if (t.kill_at == 0)
                        break;
                points++;
                now = state_after_recovery();
                if ((strcmp(now, was) != 0 && strcmp(now, is) != 0) || (t.answer == 0 && strcmp(now, is) != 0) ||
                    (t.answer == 1 && strcmp(now, was) != 0)) {
                        (void) fprintf(stderr, "%s: %s killed at call %u, answer %d:\n%sinstead of\n%sor\n%s", c->op,
                                       victims[t.victim], i, t.answer, now, was, is);
                        bad++;
                }
                free(now);
        }
        (void) printf("%-14s %u points, %u bad\n", c->op, points, bad);
        (void) fflush(stdout);
        free(was);
        free(is);
        return bad + (points == 0);
}

int main(int argc, char *argv[]) {
        unsigned step, offset, bad = 0;

        if (argc < 4)
                return 2;
        root = argv[1];
        program = argv[2];
        step = (unsigned) strtoul(argv[3], NULL, 10);
        offset = argc > 4 ? (unsigned) strtoul(argv[4], NULL, 10) : 0;
        open_notify();
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                bad += run_case(&cases[i], step ? step : 1, offset);
        return bad > 0;
}
