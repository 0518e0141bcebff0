/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keeper - starts a program as systemd would, and keeps the descriptors that it stores (FDSTORE) for its next start
 *
 * usage: keeper PROGRAM [ARGUMENT]...
 *
 * Each line on standard input is an order; "ready" is the answer once the program has said READY=1 after it.
 *   restart   end the program with SIGTERM, wait, start it again
 *   kill      the same with SIGKILL
 *   end       end it with SIGTERM, forget what is stored, end
 * A program that ends by itself, or with another status than 0 when asked to, ends this one with status 1. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define STORE_MAX    512 /* a guest's memory and interrupts, and then some */
#define FIRST_FD     3   /* SD_LISTEN_FDS_START */
#define NAME_SIZE    256
#define MESSAGE_SIZE 4096
#define READY_MS     20000

typedef struct Stored {
        char name[NAME_SIZE];
        int fd;
} Stored;

static Stored store[STORE_MAX];
static int n_store;
static struct sockaddr_un address;
static socklen_t address_size;

static void die(const char *what) {
        (void) fprintf(stderr, "keeper: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void forget(const char *name) {
        int kept = 0;

        for (int i = 0; i < n_store; i++) {
                if (strcmp(store[i].name, name) == 0)
                        (void) close(store[i].fd);
                else
                        store[kept++] = store[i];
        }
        n_store = kept;
}

/* One datagram of sd_notify(3). 1: the program is ready; 0: it is not; -1: there is none. */
static int take_message(int notify_fd) {
        char text[MESSAGE_SIZE], name[NAME_SIZE] = "stored";
        union {
                char bytes[CMSG_SPACE(64 * sizeof(int))];
                struct cmsghdr header;
        } control;
        struct iovec iov = { .iov_base = text, .iov_len = sizeof text - 1 };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes };
        int ready = 0, add = 0, drop = 0;
        ssize_t n;

        n = recvmsg(notify_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return -1;

        text[n] = '\0';
        for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                ready |= strcmp(line, "READY=1") == 0;
                add |= strcmp(line, "FDSTORE=1") == 0;
                drop |= strcmp(line, "FDSTOREREMOVE=1") == 0;
                if (strncmp(line, "FDNAME=", 7) == 0)
                        (void) snprintf(name, sizeof name, "%s", line + 7);
        }
        if (drop)
                forget(name);
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
                int *fds = (int *) (void *) CMSG_DATA(c);

                for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                        if (!add || n_store == STORE_MAX) {
                                (void) close(fds[i]);
                                continue;
                        }
                        (void) snprintf(store[n_store].name, sizeof store[n_store].name, "%s", name);
                        store[n_store++].fd = fds[i];
                }
        }
        return ready;
}

/* Puts the stored descriptors to where the program looks for them, and becomes it. */
static void become(char **argv) {
        static char names[STORE_MAX * (NAME_SIZE + 1)];
        char number[32];
        int high[STORE_MAX];

        for (int i = 0; i < n_store; i++) {
                high[i] = fcntl(store[i].fd, F_DUPFD, FIRST_FD + STORE_MAX);
                if (high[i] < 0)
                        die("dup");
                if (i > 0)
                        (void) strcat(names, ":");
                (void) strcat(names, store[i].name);
        }
        for (int i = 0; i < n_store; i++) {
                if (dup2(high[i], FIRST_FD + i) < 0)
                        die("dup2");
                (void) close(high[i]);
        }

        (void) snprintf(number, sizeof number, "%d", getpid());
        (void) setenv("LISTEN_PID", number, 1);
        (void) snprintf(number, sizeof number, "%d", n_store);
        (void) setenv("LISTEN_FDS", number, 1);
        (void) setenv("LISTEN_FDNAMES", names, 1);
        (void) execv(argv[0], argv);
        die(argv[0]);
}

static pid_t start(char **argv, int notify_fd, int *ret_pidfd) {
        struct pollfd fds[2] = { { .fd = notify_fd, .events = POLLIN }, { .events = POLLIN } };
        pid_t pid;

        pid = fork();
        if (pid < 0)
                die("fork");
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                become(argv);
        }

        fds[1].fd = *ret_pidfd = pidfd_open(pid, 0);
        if (*ret_pidfd < 0)
                die("pidfd_open");
        while (poll(fds, 2, READY_MS) > 0) {
                if (take_message(notify_fd) > 0) {
                        (void) puts("ready");
                        (void) fflush(stdout);
                        return pid;
                }
                if (fds[1].revents) {
                        errno = ECHILD;
                        die("the program ended before it was ready");
                }
        }
        errno = ETIMEDOUT;
        die("the program does not become ready");
        return -1;
}

static void end(pid_t pid, int pidfd, int sig, int notify_fd) {
        int status;

        if (kill(pid, sig) < 0 || waitpid(pid, &status, 0) < 0)
                die("kill");
        (void) close(pidfd);
        while (take_message(notify_fd) >= 0)
                ;
        if (sig == SIGTERM && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
                (void) fprintf(stderr, "keeper: the program ended with status %#x\n", status);
                exit(1);
        }
}

int main(int argc, char **argv) {
        struct pollfd fds[3] = { { .fd = STDIN_FILENO, .events = POLLIN } };
        int notify_fd, pidfd;
        char order[64];
        pid_t pid;

        if (argc < 2)
                return 2;

        address = (struct sockaddr_un) { .sun_family = AF_UNIX };
        address_size = sizeof address;
        notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        /* An address of the kernel's choice, in the abstract name space. */
        if (notify_fd < 0 || bind(notify_fd, (struct sockaddr *) &address, sizeof(sa_family_t)) < 0 ||
            getsockname(notify_fd, (struct sockaddr *) &address, &address_size) < 0)
                die("socket");
        address.sun_path[0] = '@';
        (void) setenv("NOTIFY_SOCKET", address.sun_path, 1);
        (void) setvbuf(stdin, NULL, _IONBF, 0);

        pid = start(argv + 1, notify_fd, &pidfd);
        for (;;) {
                fds[1] = (struct pollfd) { .fd = notify_fd, .events = POLLIN };
                fds[2] = (struct pollfd) { .fd = pidfd, .events = POLLIN };
                if (poll(fds, 3, -1) < 0)
                        die("poll");
                if (fds[1].revents)
                        (void) take_message(notify_fd);
                if (fds[2].revents) {
                        (void) fprintf(stderr, "keeper: the program has ended\n");
                        return 1;
                }
                if (fds[0].revents) {
                        if (!fgets(order, sizeof order, stdin))
                                return 1;
                        end(pid, pidfd, strcmp(order, "kill\n") == 0 ? SIGKILL : SIGTERM, notify_fd);
                        if (strcmp(order, "end\n") == 0)
                                return 0;
                        pid = start(argv + 1, notify_fd, &pidfd);
                }
        }
}
