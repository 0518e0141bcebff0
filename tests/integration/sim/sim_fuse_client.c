/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What only a mounted simulation can show: argument is the mount point, which sim_fuse.sh has made. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define U1     "11111111-1111-4111-8111-111111111111"
#define U2     "22222222-2222-4222-8222-222222222222"
#define MATRIX "devices/vfio_ap/matrix/"
#define CREATE MATRIX "mdev_supported_types/vfio_ap-passthrough/create"

#define check(condition) \
        do { \
                if (!(condition)) { \
                        (void) fprintf(stderr, "%s:%d: %s (errno %d, %m)\n", __FILE__, __LINE__, \
                                       #condition, errno); \
                        exit(EXIT_FAILURE); \
                } \
        } while (0)

static int root;

/* The result of the one write, or -errno; @fd stays open. */
static int put_fd(int fd, const char *data) {
        ssize_t n = write(fd, data, strlen(data));

        return n < 0 ? -errno : (int) n;
}

static int put(const char *path, const char *data) {
        int fd = openat(root, path, O_WRONLY | O_TRUNC | O_CLOEXEC), r;

        if (fd < 0)
                return -errno;
        r = put_fd(fd, data);
        (void) close(fd);
        return r;
}

static const char *get(const char *path) {
        static char buf[65536];
        int fd = openat(root, path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return strerrorname_np(errno);
        n = read(fd, buf, sizeof buf - 1);
        if (n < 0) {
                (void) close(fd);
                return strerrorname_np(errno);
        }
        buf[n] = 0;
        check(read(fd, buf + n, 1) == 0);
        (void) close(fd);
        return buf;
}

/* A process that writes @data to @path; its exit status is 0 or the errno. */
static pid_t put_aside(const char *path, const char *data) {
        pid_t pid = fork();
        int r;

        check(pid >= 0);
        if (pid == 0) {
                r = put(path, data);
                _exit(r < 0 ? -r : 0);
        }
        return pid;
}

static int exit_of(pid_t pid) {
        int status;

        check(waitpid(pid, &status, 0) == pid);
        check(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static bool running(pid_t pid) {
        int status, r = waitpid(pid, &status, WNOHANG);

        if (r != 0)
                (void) fprintf(stderr, "process has ended with status %#x\n", (unsigned) status);
        return r == 0;
}

/* Until the model has the operation of @pid. The newline tells its line from a fault rule's. */
static void wait_pending(pid_t pid, const char *text) {
        while (!strstr(get(".sim/ctl"), text)) {
                check(running(pid));
                (void) usleep(1000);
        }
}

static void test_files(void) {
        struct stat st;
        char buf[8];
        int fd;

        check(fstatat(root, "bus/ap/apmask", &st, 0) == 0 && st.st_mode == (S_IFREG | 0644) &&
              st.st_size == 4096);
        check(openat(root, CREATE, O_RDONLY) < 0 && errno == EACCES);
        check(openat(root, "bus/ap/bindings", O_WRONLY) < 0 && errno == EACCES);
        check(openat(root, "bus/ap/new", O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES);
        check(mkdirat(root, "bus/new", 0755) < 0 && errno == EPERM);
        check(strcmp(get("bus/ap/none"), "ENOENT") == 0);

        /* the content is made at offset 0 and kept for the rest */
        fd = openat(root, "bus/ap/apmask", O_RDWR | O_CLOEXEC);
        check(read(fd, buf, 4) == 4 && memcmp(buf, "0xc0", 4) == 0);
        check(put_fd(fd, "+2") == 2);
        check(pread(fd, buf, 1, 2) == 1 && *buf == 'c');
        check(pread(fd, buf, 3, 0) == 3 && memcmp(buf, "0xe", 3) == 0);
        check(put_fd(fd, "-2") == 2);
        (void) close(fd);
}

static int count_entries(const char *path, const char *absent) {
        int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
        DIR *d = fdopendir(fd);

        check(d);
        for (const struct dirent *e; (e = readdir(d));) {
                check(strcmp(e->d_name, absent) != 0);
                n++;
        }
        (void) closedir(d);
        return n;
}

static void test_objects(void) {
        int fd, dir;

        check(count_entries(".", ".sim") == 2 + 5);
        check(count_entries("bus/ap/devices", "") == 2 + 6 + 6 * 4);
        check(put(CREATE, U1 "\n") == 37);
        check(put(CREATE, U1 "\n") == -EEXIST);
        check(put(MATRIX U1 "/assign_adapter", "2\n") == 2);
        check(put(MATRIX U1 "/assign_domain", "6") == 1);
        check(strcmp(get("class/mdev_bus/matrix/" U1 "/guest_matrix"), "02.0006\n") == 0);
        check(put(MATRIX U1 "/assign_adapter", "1") == -EADDRNOTAVAIL);

        /* what is open belongs to the old object, also when there is a new one of the same name */
        fd = openat(root, MATRIX U1 "/ap_config", O_RDWR | O_CLOEXEC);
        dir = openat(root, MATRIX U1, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        check(fd >= 0 && dir >= 0);
        check(put(MATRIX U1 "/remove", "1") == 1);
        check(put(CREATE, U1) == 36);
        check(put_fd(fd, "0,0,0\n") == -ENODEV);
        check(openat(dir, "ap_config", O_RDONLY) < 0 && errno == ENOENT);
        check(put(MATRIX U1 "/remove", "1") == 1);
        (void) close(fd);
        (void) close(dir);
}

static void test_owner(void) {
        pid_t pid;
        int r;

        check(fchownat(root, CREATE, 65534, 65534, 0) == 0);
        for (int allowed = 0; allowed < 2; allowed++) {
                pid = fork();
                check(pid >= 0);
                if (pid == 0) {
                        check(setgid(65534) == 0 && setuid(65534) == 0);
                        r = put(allowed ? CREATE : "bus/ap/apmask", U1);
                        _exit(r < 0 ? -r : 0);
                }
                check(exit_of(pid) == (allowed ? 0 : EACCES));
        }
        check(fchownat(root, CREATE, 0, 0, 0) == 0);
        check(put(MATRIX U1 "/remove", "1") == 1);
}

/* One that hangs keeps nobody from anything else. */
static void test_hang(void) {
        pid_t writer, remover, waiter, delayed;
        struct timespec from, to;
        int status;

        check(put(".sim/ctl", "fault write bus/ap/apmask hang 1") > 0);
        writer = put_aside("bus/ap/apmask", "-2");
        wait_pending(writer, "write bus/ap/apmask\n");
        check(running(writer));
        check(put(CREATE, U1) == 36);
        check(put(".sim/ctl", "guest " U1 " on") > 0);
        remover = put_aside(MATRIX U1 "/remove", "1");
        wait_pending(remover, U1 "/remove\n");
        check(strcmp(get(MATRIX U1 "/matrix"), "ENOENT") == 0);
        check(faccessat(root, MATRIX U1, F_OK, 0) == 0);
        check(put(CREATE, U2) == 36);
        check(running(writer) && running(remover));
        check(put(".sim/ctl", "guest " U1 " off") > 0);
        check(exit_of(remover) == 0);
        check(faccessat(root, MATRIX U1, F_OK, 0) < 0);
        check(running(writer));
        check(put(".sim/ctl", "release apmask") > 0);
        check(exit_of(writer) == 0);

        /* behind a reset that does not end: who waits for the bus' lock can be interrupted */
        check(put(".sim/ctl", "stuck 2.6") > 0);
        writer = put_aside("bus/ap/apmask", "+2");
        wait_pending(writer, "write bus/ap/apmask\n");
        waiter = put_aside("bus/ap/aqmask", "-0x1b");
        wait_pending(waiter, "write bus/ap/aqmask\n");
        check(strncmp(get("bus/ap/apmask"), "0xe", 3) == 0);
        check(kill(waiter, SIGINT) == 0);
        check(waitpid(waiter, &status, 0) == waiter && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
        check(kill(writer, SIGINT) == 0 && running(writer));
        check(put(".sim/ctl", "nostuck 2.6") > 0);
        check(waitpid(writer, &status, 0) == writer && WIFSIGNALED(status));
        check(strncmp(get("bus/ap/aqmask"), "0xff", 4) == 0);
        check(put("bus/ap/apmask", "-2") == 2);

        /* a delayed one neither */
        check(put(".sim/ctl", "fault read bus/ap/scans EIO 1 300000") > 0);
        check(clock_gettime(CLOCK_MONOTONIC, &from) == 0);
        delayed = fork();
        check(delayed >= 0);
        if (delayed == 0)
                _exit(strcmp(get("bus/ap/scans"), "EIO") == 0 ? 0 : 1);
        for (int i = 0; i < 20; i++)
                check(put(".sim/ctl", "scan") == 4);
        check(exit_of(delayed) == 0);
        check(clock_gettime(CLOCK_MONOTONIC, &to) == 0);
        check((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 299);
        check(put(".sim/ctl", "clear") > 0);
}

/* What somebody has opened as a shell does for ">" is there for those who have it open and read with io_submit(). */
static void test_truncated(void) {
        int fd = openat(root, "bus/ap/apmask", O_RDONLY | O_CLOEXEC);
        int writer = openat(root, "bus/ap/apmask", O_WRONLY | O_TRUNC | O_CLOEXEC);
        char buf[4096];
        struct iocb cb = { .aio_lio_opcode = IOCB_CMD_PREAD,
                           .aio_fildes = (uint32_t) fd,
                           .aio_buf = (uintptr_t) buf,
                           .aio_nbytes = sizeof buf };
        struct iocb *list = &cb;
        struct io_event event;
        aio_context_t aio = 0;

        check(fd >= 0 && writer >= 0 && syscall(SYS_io_setup, 1, &aio) == 0);
        check(syscall(SYS_io_submit, aio, 1L, &list) == 1);
        check(syscall(SYS_io_getevents, aio, 1L, 1L, &event, NULL) == 1);
        check(event.res == 67);
        (void) syscall(SYS_io_destroy, aio);
        (void) close(writer);
        (void) close(fd);
}

/* The kernel sends what the model says, with a sequence number. */
static void test_uevents(void) {
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
        int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
        struct pollfd p = { fd, POLLIN, 0 };
        char buf[4096];
        bool seen = false;

        check(fd >= 0 && bind(fd, (struct sockaddr *) &address, sizeof address) == 0);
        check(put("bus/ap/aqmask", "-6") == 2);
        while (!seen && poll(&p, 1, 5000) == 1) {
                ssize_t n = recv(fd, buf, sizeof buf - 1, 0);
                bool mask = false, number = false;

                check(n > 0);
                buf[n] = 0;
                for (const char *s = buf; s < buf + n; s += strlen(s) + 1) {
                        mask |= strncmp(s, "AQMASK=0xfd", 11) == 0 && s[strlen(s) - 1] == '\n';
                        number |= strncmp(s, "SEQNUM=", 7) == 0;
                }
                seen = mask && number && strcmp(buf, "change@/devices/ap") == 0;
        }
        check(seen);
        check(put("bus/ap/aqmask", "+6") == 2);
        (void) close(fd);
}

int main(int argc, char **argv) {
        if (argc != 2)
                return 2;
        root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        check(root >= 0);
        test_files();
        test_objects();
        test_owner();
        test_truncated();
        test_hang();
        test_uevents();
        check(put(MATRIX U2 "/ap_config",
                  "0x04,0x0000800000000000000000000000000000000000000000000000000000000000,0\n") > 0);
        return EXIT_SUCCESS;
}
