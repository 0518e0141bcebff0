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
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
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
#define STATE         "tpm2-00.permall" /* of a swtpm, in its directory */

static void give_up(const char *why) {
        (void) fprintf(stderr, "%s\n", why);
        abort();
}

bool process_possible(void) {
        return system("command -v swtpm > /dev/null 2>&1") == 0;
}

bool process_traceable(void) {
        pid_t pid = fork();
        int status;

        CHECK(pid >= 0);
        if (pid == 0)
                _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0);
        CHECK(waitpid(pid, &status, 0) == pid);
        return WIFEXITED(status) && WEXITSTATUS(status) == 0;
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

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL); /* it may be stopped, and would hold our standard error */
        for (unsigned i = 0; i < 2; i++)
                if (keep[i] >= 0)
                        (void) fcntl(keep[i], F_SETFD, 0);
        if (output >= 0)
                (void) dup2(output, STDOUT_FILENO);
        (void) execvp(argv[0], argv);
        _exit(127);
}

static const Process *twin; /* whose keys TPMs have */

/* The state of @twin's TPM, which has been initialized, for a TPM that has not been started. */
static void copy_state(const Process *p) {
        char from[128], to[128];
        struct stat status;
        int in, out;

        (void) snprintf(from, sizeof from, "%s/" STATE, twin->directory);
        (void) snprintf(to, sizeof to, "%s/" STATE, p->directory);
        in = open(from, O_RDONLY | O_CLOEXEC);
        out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        CHECK(in >= 0 && out >= 0 && fstat(in, &status) == 0);
        CHECK(sendfile(out, in, NULL, (size_t) status.st_size) == status.st_size);
        (void) close(in);
        (void) close(out);
}

void process_same_keys(const Process *p) {
        twin = p;
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
        if (twin)
                copy_state(p);
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
        if (!process_ready(p, VMM_PATIENCE_MS)) {
                process_tell(p);
                give_up("the device is not ready");
        }
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
                        p->n_killed += strncmp(p->line, "killed ", 7) == 0;
                        if (sscanf(p->line, "ready %d", &p->device) == 1)
                                return true;
                }
                if (poll_fd.revents & POLLHUP)
                        return false;
        }
        return false;
}

/* A connection to the device's control socket on which @request was sent. */
static int ask(const Process *p, const char *request, int seconds) {
        const struct timeval patience = { .tv_sec = seconds };
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
        (void) snprintf(address.sun_path, sizeof address.sun_path, "%s/control", p->directory);
        if (connect(fd, (struct sockaddr *) &address, sizeof address) == 0 &&
            send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t) strlen(request))
                return fd;
        (void) close(fd);
        return -1;
}

/* All that the device says of itself. NULL: it says nothing. Static buffer. */
static char *status(const Process *p, int seconds) {
        static char text[8192];
        int fd = ask(p, "status\n", seconds);
        size_t size = 0;
        ssize_t n = fd < 0 ? -1 : 1;

        while (n > 0 && (size < 4 || strcmp(text + size - 4, "\nok\n") != 0)) {
                n = recv(fd, text + size, sizeof text - 1 - size, 0);
                if (n > 0)
                        size += (size_t) n;
                text[size] = '\0';
        }
        if (fd >= 0)
                (void) close(fd);
        return n > 0 ? text : NULL;
}

const char *process_value(const Process *p, const char *name) {
        char *text = status(p, VMM_PATIENCE_MS / 1000), *save;

        CHECK(text);
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == '=')
                        return line + strlen(name) + 1;
        return "";
}

void process_settle(const Process *p) {
        for (int i = 0; strcmp(process_value(p, "manager"), "told") != 0; i++) {
                CHECK(i < VMM_PATIENCE_MS);
                (void) poll(NULL, 0, 1);
        }
}

static void tell_file(pid_t pid, const char *name) {
        char path[64], line[256];
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/%s", (int) pid, name);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f)) {
                line[strcspn(line, "\n")] = '\0';
                if (strcmp(name, "status") != 0 || strncmp(line, "State:", 6) == 0 || strstr(line, "Pnd:"))
                        (void) fprintf(stderr, "  %s: %s\n", name, line);
        }
        if (f)
                (void) fclose(f);
}

static void tell_process(const char *what, pid_t pid) {
        (void) fprintf(stderr, "%s, process %d:\n", what, (int) pid);
        tell_file(pid, "status");
        tell_file(pid, "wchan");
        tell_file(pid, "syscall");
}

/* Also one that was never ready. */
static void tell_children(pid_t parent) {
        char path[64];
        FILE *f;
        int pid;

        (void) snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int) parent, (int) parent);
        f = fopen(path, "re");
        while (f && fscanf(f, "%d", &pid) == 1)
                tell_process("the device", pid);
        if (f)
                (void) fclose(f);
}

void process_tell(Process *p) {
        const char *text;

        (void) fprintf(stderr, "the device that was ready last was process %d\n", (int) p->device);
        tell_process("the store", p->store);
        tell_children(p->store);
        tell_process("swtpm", p->swtpm);
        if (p->vmm.memory)
                vmm_tell(&p->vmm);
        text = status(p, 2);
        (void) fprintf(stderr, "the device says%s\n%s", text ? ":" : " nothing", text ? text : "");
}

/* Waits for the end, but not for ever. */
static bool ended(pid_t pid, int ms) {
        int fd = (int) syscall(SYS_pidfd_open, pid, 0), status;
        bool has_ended;

        CHECK(fd >= 0);
        has_ended = poll(&(struct pollfd) { .fd = fd, .events = POLLIN }, 1, ms) > 0;
        (void) close(fd);
        if (has_ended)
                CHECK(waitpid(pid, &status, 0) == pid);
        return has_ended;
}

void process_stop(Process *p) {
        struct dirent *e;
        DIR *dir;

        if (p->swtpm <= 0)
                return;
        if (p->store > 0) {
                (void) kill(p->store, SIGTERM);
                (void) kill(p->store, SIGCONT); /* a test that failed may have stopped it */
                if (!ended(p->store, VMM_PATIENCE_MS)) {
                        process_tell(p);
                        give_up("the store does not end when it is told to");
                }
        }
        (void) kill(p->swtpm, SIGKILL); /* its state is of no more use */
        CHECK(ended(p->swtpm, VMM_PATIENCE_MS));
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
        *p = (Process) { .ready_fd = -1 };
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
