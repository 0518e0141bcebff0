/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fdstore - as much of a service manager as a service with a descriptor store needs, where systemd is not process 1.
 *
 * usage: fdstore COMMAND [ARGUMENT...]
 *
 * Runs COMMAND with $NOTIFY_SOCKET, keeps the descriptors that it stores, and runs it again with them ($LISTEN_FDS) whenever it ends.
 * SIGUSR1 ends it with SIGTERM, SIGUSR2 with SIGKILL; SIGTERM ends both. Descriptors from 3 on that fdstore was started with are left
 * where they are for --...-fd options of the first run, and are not given to later ones. Prints "ready PID" for each READY=1.
 *
 * With $FDSTORE_KILL_WITHIN=N it traces COMMAND and kills it each time after up to N times that it entered or left a system call, the first
 * one's counted from READY=1 on; and prints "killed NUMBER-OF-THE-CALL". It does so before anything that may be seen by others is done, or
 * after it was noted; what nobody can tell is left out: whether a command that is about to be sent was sent, and whether an answer was.
 * With $FDSTORE_KILL_COMMAND=N it kills it there, once, before the Nth command; with $FDSTORE_KILL_REPLY=N just after it received swtpm's
 * Nth reply on the control channel. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define STORE_MAX 128
#define FIRST_FD  3
#define SYSCALL   (SIGTRAP | 0x80)

typedef struct Stored {
        char name[64];
        int fd;
} Stored;

static Stored store[STORE_MAX];
static unsigned n_stored;
static int notify_fd;
static char notify_name[128];

/* What is traced. */
static struct {
        unsigned within, at, n, seed, commands, replies;
        bool wanted, counts, inside, is_command, is_answer, is_reply;
        long call;
        uint64_t fd, control_fd; /* the call's, and that of the control channel */
} trace;

static void die(const char *what) {
        (void) fprintf(stderr, "fdstore: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void open_notify(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int n;

        n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "guestcrypt-fdstore-%d",
                     (int) getpid());
        (void) snprintf(notify_name, sizeof notify_name, "@%s", address.sun_path + 1);
        notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (notify_fd < 0 || bind(notify_fd, (struct sockaddr *) &address,
                                  (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1 + (size_t) n)) < 0)
                die("notify socket");
}

static void discard(const char *name) {
        for (unsigned i = 0; i < n_stored;)
                if (strcmp(store[i].name, name) == 0) {
                        (void) close(store[i].fd);
                        store[i] = store[--n_stored];
                } else
                        i++;
}

static void read_notifications(pid_t child) {
        for (;;) {
                char text[1024], control[CMSG_SPACE(sizeof(int) * 8)], *name;
                struct iovec iov = { .iov_base = text, .iov_len = sizeof text - 1 };
                struct msghdr m = { .msg_iov = &iov,
                                    .msg_iovlen = 1,
                                    .msg_control = control,
                                    .msg_controllen = sizeof control };
                struct cmsghdr *c;
                int fd = -1;
                ssize_t n;

                n = recvmsg(notify_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                if (n < 0)
                        return;
                text[n] = '\0';
                c = CMSG_FIRSTHDR(&m);
                if (c && c->cmsg_type == SCM_RIGHTS)
                        memcpy(&fd, CMSG_DATA(c), sizeof fd);

                name = strstr(text, "FDNAME=");
                if (name) {
                        name += strlen("FDNAME=");
                        name[strcspn(name, "\n")] = '\0';
                }
                if (name && strstr(text, "FDSTOREREMOVE=1"))
                        discard(name);
                else if (name && fd >= 0 && n_stored < STORE_MAX) {
                        (void) snprintf(store[n_stored].name, sizeof store[n_stored].name, "%s", name);
                        store[n_stored++].fd = fd;
                } else if (fd >= 0)
                        (void) close(fd);
                if (strncmp(text, "READY=1", 7) == 0) {
                        (void) printf("ready %d\n", (int) child);
                        (void) fflush(stdout);
                        trace.counts = true;
                }
        }
}

/* In the child: the stored descriptors from FIRST_FD on. */
static void hand_over(void) {
        char names[STORE_MAX * 65] = "", number[16];
        int high[STORE_MAX];

        for (unsigned i = 0; i < n_stored; i++) {
                high[i] = fcntl(store[i].fd, F_DUPFD_CLOEXEC, FIRST_FD + STORE_MAX);
                if (high[i] < 0)
                        die("dup");
        }
        for (unsigned i = 0; i < n_stored; i++) {
                if (dup2(high[i], FIRST_FD + (int) i) < 0)
                        die("dup2");
                (void) strcat(names, i > 0 ? ":" : "");
                (void) strcat(names, store[i].name);
        }
        (void) snprintf(number, sizeof number, "%u", n_stored);
        (void) setenv("LISTEN_FDS", number, 1);
        (void) setenv("LISTEN_FDNAMES", names, 1);
        (void) snprintf(number, sizeof number, "%d", (int) getpid());
        (void) setenv("LISTEN_PID", number, 1);
}

static pid_t spawn(char **argv, const sigset_t *set) {
        pid_t pid = fork();

        if (pid < 0)
                die("fork");
        if (pid > 0) {
                trace.seed = trace.seed * 1103515245 + 12345;
                trace.at = trace.within > 0 ? 1 + (trace.seed >> 8) % trace.within : 0;
                trace.n = 0;
                return pid;
        }

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void) sigprocmask(SIG_UNBLOCK, set, NULL);
        if (trace.wanted && ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
                die("ptrace");
        (void) setenv("NOTIFY_SOCKET", notify_name, 1);
        if (n_stored > 0)
                hand_over();
        (void) execvp(argv[1], argv + 1);
        die(argv[1]);
        return -1;
}

static void peek(pid_t child, uint64_t address, void *to, size_t size) {
        for (size_t i = 0; i < size; i += sizeof(long)) {
                long word = ptrace(PTRACE_PEEKDATA, child, address + i, NULL);

                memcpy((char *) to + i, &word, sizeof word);
        }
}

/* Each control command begins with a number below 256, the first byte of a message to the service manager is a letter. */
static bool is_control(pid_t child, uint64_t header) {
        uint8_t bytes[sizeof(long)];
        struct msghdr m;
        struct iovec iov;

        peek(child, header, &m, sizeof m);
        peek(child, (uint64_t) (uintptr_t) m.msg_iov, &iov, sizeof iov);
        peek(child, (uint64_t) (uintptr_t) iov.iov_base, bytes, sizeof bytes);
        return bytes[0] == 0 && bytes[1] == 0 && bytes[2] == 0;
}

/* It enters or leaves a system call: which, and whether that sends a command to the TPM, or an answer to the VMM, or received a reply. */
static void look(pid_t child) {
        struct __ptrace_syscall_info info = {};
        uint8_t bytes[sizeof(long)];

        if (ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) < 0)
                die("ptrace");
        trace.inside = info.op == PTRACE_SYSCALL_INFO_ENTRY;
        if (!trace.inside) {
                trace.is_reply =
                        trace.call == SYS_recvfrom && trace.fd == trace.control_fd && info.exit.rval > 0;
                return;
        }

        trace.call = (long) info.entry.nr;
        trace.fd = info.entry.args[0];
        trace.is_command = trace.is_answer = trace.is_reply = false;
        if (trace.call == SYS_sendmsg && is_control(child, info.entry.args[1])) {
                trace.is_command = true;
                trace.control_fd = trace.fd;
        } else if (trace.call == SYS_sendto) {
                peek(child, info.entry.args[1], bytes, sizeof bytes);
                trace.is_command = bytes[0] == 0x80 && bytes[1] > 0 && bytes[2] == 0 && bytes[3] == 0;
                trace.is_answer = !trace.is_command;
        }
}

/* Whether it is to be killed where it has stopped. */
static bool is_due(void) {
        if (trace.commands > 0)
                return trace.inside && trace.is_command && trace.call == SYS_sendto && --trace.commands == 0;
        if (trace.replies > 0)
                return trace.is_reply && --trace.replies == 0;
        return trace.within > 0 && trace.n >= trace.at &&
               !(trace.inside ? trace.is_command : trace.is_answer);
}

/* It has stopped: goes on, or is killed. */
static void step(pid_t child, int sig) {
        if (sig != SYSCALL) {
                if (trace.n == 0 && sig == SIGTRAP) { /* it has become COMMAND */
                        if (ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD) < 0)
                                die("ptrace");
                        sig = 0;
                }
        } else {
                sig = 0;
                look(child);
                trace.n += trace.counts;
                if (is_due()) {
                        (void) printf("killed %ld\n", trace.call);
                        (void) fflush(stdout);
                        (void) kill(child, SIGKILL);
                        return;
                }
        }
        (void) ptrace(PTRACE_SYSCALL, child, NULL, sig); /* fails if it was killed meanwhile */
}

int main(int argc, char **argv) {
        const char *within = getenv("FDSTORE_KILL_WITHIN"), *commands = getenv("FDSTORE_KILL_COMMAND"),
                   *replies = getenv("FDSTORE_KILL_REPLY");
        int signal_fd, status = 0;
        sigset_t set;
        pid_t child;

        if (argc < 2) {
                (void) fprintf(stderr, "usage: fdstore COMMAND [ARGUMENT...]\n");
                return 2;
        }

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGCHLD);
        (void) sigaddset(&set, SIGTERM);
        (void) sigaddset(&set, SIGINT);
        (void) sigaddset(&set, SIGUSR1);
        (void) sigaddset(&set, SIGUSR2);
        (void) sigprocmask(SIG_BLOCK, &set, NULL);
        trace.within = within ? (unsigned) strtoul(within, NULL, 10) : 0;
        trace.commands = commands ? (unsigned) strtoul(commands, NULL, 10) : 0;
        trace.replies = replies ? (unsigned) strtoul(replies, NULL, 10) : 0;
        trace.wanted = within || commands || replies;
        signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
        if (signal_fd < 0)
                die("signalfd");
        open_notify();
        child = spawn(argv, &set);

        for (;;) {
                struct pollfd p[2] = { { .fd = signal_fd, .events = POLLIN },
                                       { .fd = notify_fd, .events = POLLIN } };
                struct signalfd_siginfo info;

                if (poll(p, 2, -1) < 0 && errno != EINTR)
                        die("poll");
                read_notifications(child);
                if (!(p[0].revents & POLLIN) || read(signal_fd, &info, sizeof info) != sizeof info)
                        continue;

                switch (info.ssi_signo) {
                case SIGUSR1:
                        (void) kill(child, SIGTERM);
                        break;
                case SIGUSR2:
                        (void) kill(child, SIGKILL);
                        break;
                case SIGCHLD:
                        if (waitpid(child, &status, WNOHANG) != child)
                                break;
                        if (WIFSTOPPED(status)) {
                                step(child, WSTOPSIG(status));
                                break;
                        }
                        read_notifications(child); /* all that it said before */
                        if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
                                return WEXITSTATUS(status);
                        if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
                                (void) fprintf(stderr, "fdstore: it died of signal %d\n", WTERMSIG(status));
                                return 1;
                        }
                        child = spawn(argv, &set);
                        break;
                default:
                        (void) kill(child, trace.wanted ? SIGKILL : SIGTERM);
                        do
                                (void) waitpid(child, &status, 0);
                        while (WIFSTOPPED(status));
                        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
                }
        }
}
