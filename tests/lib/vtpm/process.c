/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/vtpm/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition) \
        do { \
                if (!(condition)) { \
                        (void) fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, \
                                       strerror(errno)); \
                        abort(); \
                } \
        } while (0)

#define ARGUMENTS_MAX 16

bool process_possible(void) {
        return system("command -v swtpm > /dev/null 2>&1") == 0;
}

static void pair(int fds[2]) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
}

/* Leaves @keep, up to two descriptors, and @output (if any) as standard output open in the child. */
static pid_t spawn(char **argv, const int keep[2], int output) {
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid > 0)
                return pid;

        (void) prctl(PR_SET_PDEATHSIG, SIGTERM);
        for (unsigned i = 0; i < 2; i++)
                if (keep[i] >= 0)
                        (void) fcntl(keep[i], F_SETFD, 0);
        if (output >= 0)
                (void) dup2(output, STDOUT_FILENO);
        (void) execvp(argv[0], argv);
        _exit(127);
}

/* Returns our end of its control channel. */
static int start_swtpm(Process *p) {
        char state[128], ctrl[64];
        char *argv[] = { (char *) "swtpm",
                         (char *) "socket",
                         (char *) "--tpm2",
                         (char *) "--tpmstate",
                         state,
                         (char *) "--ctrl",
                         ctrl,
                         NULL };
        int fds[2], none[2];

        (void) snprintf(p->directory, sizeof p->directory, "/tmp/guestcrypt-vtpm-XXXXXX");
        CHECK(mkdtemp(p->directory));
        pair(fds);
        (void) snprintf(state, sizeof state, "dir=%s", p->directory);
        (void) snprintf(ctrl, sizeof ctrl, "type=unixio,clientfd=%d", fds[1]);
        none[0] = fds[1];
        none[1] = -1;
        p->swtpm = spawn(argv, none, -1);
        (void) close(fds[1]);
        return fds[0];
}

void process_start(Process *p, const char *program, const char *fdstore, bool vhost, const char *option) {
        char tpm[32], client[32], control[128];
        char *argv[ARGUMENTS_MAX] = { (char *) fdstore,
                                      (char *) program,
                                      tpm,
                                      client,
                                      control,
                                      (char *) (vhost ? "--front=vhost-user" : "--front=vfio-user"),
                                      (char *) option,
                                      NULL };
        int fds[2], output[2], keep[2];

        *p = (Process) { .ready_fd = -1 };
        keep[0] = start_swtpm(p);
        pair(fds);
        keep[1] = fds[1];
        (void) snprintf(tpm, sizeof tpm, "--tpm-fd=%d", keep[0]);
        (void) snprintf(client, sizeof client, "--client-fd=%d", keep[1]);
        (void) snprintf(control, sizeof control, "--control=%s/control", p->directory);
        CHECK(pipe2(output, O_CLOEXEC) == 0);
        p->store = spawn(argv, keep, output[1]);
        (void) close(output[1]);
        (void) close(keep[0]);
        (void) close(keep[1]);
        p->ready_fd = output[0];
        CHECK(fcntl(p->ready_fd, F_SETFL, O_NONBLOCK) == 0);
        vmm_init(&p->vmm, vhost, fds[0], NULL, NULL);
        p->vmm.posted = true;
        CHECK(process_ready(p, 10000));
}

bool process_ready(Process *p, int ms) {
        struct pollfd poll_fd = { .fd = p->ready_fd, .events = POLLIN };
        char c;

        while (poll(&poll_fd, 1, ms) > 0) {
                while (read(p->ready_fd, &c, 1) == 1) {
                        if (c != '\n' && p->n_line < sizeof p->line - 1)
                                p->line[p->n_line++] = c;
                        if (c != '\n')
                                continue;
                        p->line[p->n_line] = '\0';
                        p->n_line = 0;
                        if (sscanf(p->line, "ready %d", &p->device) == 1)
                                return true;
                }
                if (poll_fd.revents & POLLHUP)
                        return false;
        }
        return false;
}

static void end(pid_t pid, int sig) {
        int status;

        if (pid <= 0)
                return;
        (void) kill(pid, sig);
        (void) waitpid(pid, &status, 0);
}

void process_stop(Process *p) {
        struct dirent *e;
        DIR *dir;

        end(p->store, SIGTERM);
        end(p->swtpm, SIGKILL); /* its state is of no more use */
        if (p->ready_fd >= 0) {
                (void) close(p->ready_fd);
                vmm_done(&p->vmm);
        }
        dir = opendir(p->directory);
        while (dir && (e = readdir(dir)))
                if (e->d_name[0] != '.' || e->d_name[1] == 'l')
                        (void) unlinkat(dirfd(dir), e->d_name, 0);
        if (dir)
                (void) closedir(dir);
        (void) rmdir(p->directory);
}

int process_straight(Process *p) {
        static const uint8_t datafd[] = { 0, 0, 0, 0x10 }, init[] = { 0, 0, 0, 2, 0, 0, 0, 0 };
        static const uint8_t startup[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0 };
        Vmm ctrl = {}, data = {};
        uint8_t answer[16];
        int fds[2];

        *p = (Process) { .ready_fd = -1 };
        ctrl.fd = start_swtpm(p);
        pair(fds);
        CHECK(vmm_send(&ctrl, datafd, sizeof datafd, &fds[1], 1) == 0);
        CHECK(vmm_receive(&ctrl, answer, 4) == 0 && answer[3] == 0);
        CHECK(vmm_send(&ctrl, init, sizeof init, NULL, 0) == 0);
        CHECK(vmm_receive(&ctrl, answer, 4) == 0 && answer[3] == 0);
        (void) close(fds[1]);
        data.fd = fds[0];
        CHECK(vmm_send(&data, startup, sizeof startup, NULL, 0) == 0);
        CHECK(vmm_receive(&data, answer, 10) == 0);
        return fds[0]; /* the control channel stays open until we end */
}

/* A number after its name in a file of /proc/PID of the device. */
static long read_number(const Process *p, const char *file, const char *name) {
        char path[64], line[256];
        long value = -1;
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/%s", (int) p->device, file);
        f = fopen(path, "re");
        CHECK(f);
        while (fgets(line, sizeof line, f))
                if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
                        value = strtol(line + strlen(name) + 1, NULL, 0);
        (void) fclose(f);
        return value;
}

long process_status(const Process *p, const char *name) {
        return read_number(p, "status", name);
}

long process_pss(const Process *p) {
        return read_number(p, "smaps_rollup", "Pss");
}
