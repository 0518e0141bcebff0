/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What comes before swtpm and the device: the lock, sockets that the right ones may connect to, the TPM's own user. The same under
 * systemd and under us; what goes wrong is told with STATUS= to whoever started it. */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "vtpm/vtpm_process.h"
#include "vtpm/vtpm_setup.h"
#include "vtpm/vtpm_tree.h"

#define LISTEN_QUEUE 4

enum { GROUP_MASK = 0117, OWNER_MASK = 0177 }; /* of sockets: QEMU's group may connect, or root alone */

typedef struct Launch {
        const char *uuid;
        int root_fd, tpm_fd, run_fd, state_fd; /* tpm: its directory below STATE; run: below RUN */
        VtpmRecord record;
        VtpmRunRecord run;
        char text[VTPM_TEXT_SIZE];
} Launch;

/* @status is the exit status that says which verdict it is. */
__attribute__((format(printf, 3, 4))) static int refuse(Launch *l, int status, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(l->text, sizeof l->text, format, ap);
        va_end(ap);
        return status;
}

static int open_at(Launch *l, const char *directory, int flags, int *ret_fd) {
        char path[VTPM_PATH_SIZE];
        int fd;

        (void) snprintf(path, sizeof path, "%s/%s", directory, l->uuid);
        fd = openat(l->root_fd, path, O_DIRECTORY | O_CLOEXEC | flags);
        if (fd < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "'%s': %s", path, strerror(errno));
        *ret_fd = fd;
        return 0;
}

static int open_all(Launch *l) {
        CLEANUP(freep) char *text = NULL;
        Uuid id;
        int r;

        if (uuid_parse(l->uuid, &id) < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "'%s' is no uuid", l->uuid);
        r = open_at(l, VTPM_STATE_DIR "/" VTPM_TPMS_DIR, O_RDONLY, &l->tpm_fd);
        if (r == 0)
                r = open_at(l, VTPM_RUN_DIR "/" VTPM_SOCKETS_DIR, O_RDONLY, &l->run_fd);
        if (r != 0)
                return r;

        r = vtpm_record_load(l->tpm_fd, "tpm.json", &l->record, &text);
        if (r < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "tpm.json: %s", text ? text : strerror(-r));
        r = vtpm_run_record_load(l->run_fd, &l->run);
        if (r < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "run.json: %s", strerror(-r));
        return 0;
}

static void close_all(Launch *l) {
        vtpm_record_clear(&l->record);
        fd_close(l->state_fd);
        fd_close(l->run_fd);
        fd_close(l->tpm_fd);
}

/* Held until the process that we become ends, however it does. */
static int take_lock(Launch *l, int dir_fd, const char *name) {
        int fd = vtpm_lock(dir_fd, name);

        if (fd == -EBUSY)
                return refuse(l, VTPM_EXIT_IN_USE, "somebody runs this TPM already");
        if (fd < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "cannot lock the TPM: %s", strerror(-fd));
        return 0;
}

/* So that a later daemon finds this very process, and no other that got its number. */
static int write_pid(Launch *l, VtpmRole role) {
        char text[64];
        uint64_t since;
        int r;

        r = vtpm_process_since(getpid(), &since);
        if (r >= 0) {
                (void) snprintf(text, sizeof text, "%d %" PRIu64 "\n", (int) getpid(), since);
                r = file_replace(l->run_fd, vtpm_pid_file(role), text, strlen(text));
        }
        if (r < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "%s: %s", vtpm_pid_file(role), strerror(-r));

        /* A daemon that wants it stopped takes run.json away and then looks for us; so one of us sees the other. */
        if (faccessat(l->run_fd, "run.json", F_OK, 0) < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "it is not to run any more");
        return 0;
}

/* What we make is of QEMU's group from here on, which may come to the sockets. */
static int take_group(Launch *l) {
        if (setegid(l->run.group) < 0 || fchown(l->run_fd, (uid_t) -1, l->run.group) < 0 ||
            fchmod(l->run_fd, 0750) < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "cannot take group %u: %s", (unsigned) l->run.group,
                              strerror(errno));
        return 0;
}

static int listen_at(Launch *l, const char *name, mode_t mask, int *ret_fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        (void) snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
        fd = socket(AF_UNIX, SOCK_STREAM, 0); /* swtpm inherits it */
        if (fd < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "%s: %s", name, strerror(errno));
        (void) unlink(name);
        (void) umask(mask);
        if (bind(fd, (struct sockaddr *) &address, sizeof address) < 0 || listen(fd, LISTEN_QUEUE) < 0) {
                fd_close(fd);
                return refuse(l, VTPM_EXIT_FAILURE, "%s: %s", name, strerror(errno));
        }
        (void) umask(077);
        *ret_fd = fd;
        return 0;
}

/* The state, which only its user may enter. */
static int open_state(Launch *l) {
        l->state_fd = openat(l->record.ephemeral ? l->run_fd : l->tpm_fd, "state",
                             O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        return l->state_fd < 0 ? refuse(l, VTPM_EXIT_FAILURE, "its state: %s", strerror(errno)) : 0;
}

static void limit(int resource, rlim_t max) {
        (void) setrlimit((__rlimit_resource_t) resource, &(struct rlimit) { max, max });
}

/* swtpm handles what a guest sends: it can do nothing but its work on its own state. */
static int become_user(Launch *l) {
        const uid_t uid = l->record.uid;

        limit(RLIMIT_CORE, 0); /* keys */
        limit(RLIMIT_NOFILE, 64);
        limit(RLIMIT_FSIZE, 8 * 1024 * 1024);
        limit(RLIMIT_DATA, 128 * 1024 * 1024);
        if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0 ||
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "cannot become user %u: %s", (unsigned) uid,
                              strerror(errno));
        if (fchdir(l->state_fd) < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "its state: %s", strerror(errno));
        return 0;
}

/* In PATH, as exec would: told before READY=1. */
static int find_program(Launch *l, const char *name) {
        const char *path = getenv("PATH");
        char file[VTPM_PATH_SIZE];

        path = path ? path : "/usr/sbin:/usr/bin:/sbin:/bin";
        for (size_t n; *path; path += n + (path[n] == ':')) {
                n = strcspn(path, ":");
                if (snprintf(file, sizeof file, "%.*s/%s", (int) n, path, name) < (int) sizeof file &&
                    access(file, X_OK) == 0)
                        return 0;
        }
        return refuse(l, VTPM_EXIT_UNAVAILABLE, "%s is not installed", name);
}

static int fail(Launch *l, int status) {
        (void) sd_notifyf(0, "STATUS=%s", l->text);
        (void) fprintf(stderr, "TPM %s: %s\n", l->uuid, l->text);
        close_all(l);
        return status;
}

static int run_swtpm(Launch *l) {
        CLEANUP(fd_closep) int key_fd = -1;
        char control[48], key[64];
        const char *argv[16];
        int fd = -1, r;
        size_t n = 0;

        r = vtpm_key_open(l->root_fd, l->tpm_fd, &l->record, &key_fd, l->text);
        if (r != VTPM_DONE)
                return r > 0 ? VTPM_EXIT_UNAVAILABLE
                             : refuse(l, VTPM_EXIT_FAILURE, "its key: %s", strerror(-r));
        if (fchdir(l->run_fd) < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "%s", strerror(errno));
        r = l->run.model == TPM_MODEL_VIRTIO ? listen_at(l, VTPM_CTRL_SOCKET, OWNER_MASK, &fd)
                                             : listen_at(l, VTPM_SWTPM_SOCKET, GROUP_MASK, &fd);
        if (r == 0)
                r = write_pid(l, VTPM_ROLE_SWTPM);
        if (r == 0)
                r = find_program(l, "swtpm");
        if (r != 0)
                return r;

        argv[n++] = "swtpm";
        argv[n++] = "socket";
        argv[n++] = "--tpm2";
        argv[n++] = "--tpmstate";
        argv[n++] = "dir=.";
        argv[n++] = "--ctrl";
        (void) snprintf(control, sizeof control, "type=unixio,fd=%d", fd);
        argv[n++] = control;
        argv[n++] = "--seccomp";
        argv[n++] = "action=kill";
        if (key_fd >= 0) {
                if (fcntl(key_fd, F_SETFD, 0) < 0)
                        return refuse(l, VTPM_EXIT_FAILURE, "its key: %s", strerror(errno));
                argv[n++] = "--key";
                (void) snprintf(key, sizeof key, "fd=%d,mode=aes-256-cbc,format=hex", key_fd);
                argv[n++] = key;
        }
        argv[n] = NULL;

        /* One may connect; who is too early waits in the socket's queue. The TPM's user could not tell. */
        (void) sd_notify(1, "READY=1");
        r = become_user(l);
        if (r != 0)
                return r;
        (void) execvp(argv[0], (char **) argv);
        return refuse(l, VTPM_EXIT_FAILURE, "swtpm: %s", strerror(errno));
}

int vtpm_launch_swtpm(int root_fd, const char *uuid) {
        Launch l = { .uuid = uuid, .root_fd = root_fd, .tpm_fd = -1, .run_fd = -1, .state_fd = -1 };
        int r;

        (void) umask(077);
        r = open_all(&l);
        if (r == 0)
                r = take_lock(&l, l.tpm_fd, VTPM_LOCK_FILE);
        if (r == 0)
                r = open_state(&l);
        if (r == 0)
                r = take_group(&l);
        if (r == 0)
                r = run_swtpm(&l);
        return fail(&l, r);
}

static int run_device(Launch *l) {
        CLEANUP(freep) char *deny = NULL;
        const char *argv[16];
        char user[32];
        size_t n = 0, size = 0;
        FILE *f;
        int r;

        r = write_pid(l, VTPM_ROLE_DEVICE);
        if (r == 0)
                r = find_program(l, "guestcrypt-tpm");
        if (r != 0)
                return r;

        argv[n++] = "guestcrypt-tpm";
        argv[n++] = "--tpm=" VTPM_CTRL_SOCKET;
        argv[n++] = "--socket=" VTPM_DEVICE_SOCKET;
        argv[n++] = "--control=" VTPM_CONTROL_SOCKET;
        (void) snprintf(user, sizeof user, "--user=%u", (unsigned) l->record.uid);
        argv[n++] = user;
        if (l->record.platform_keep)
                argv[n++] = "--platform=keep";
        if (l->record.n_denied > 0) {
                f = open_memstream(&deny, &size);
                if (!f)
                        return refuse(l, VTPM_EXIT_FAILURE, "%s", strerror(ENOMEM));
                for (size_t i = 0; i < l->record.n_denied; i++)
                        (void) fprintf(f, "%s0x%" PRIx32, i > 0 ? "," : "--deny=", l->record.denied[i]);
                if (fclose(f) != 0)
                        return refuse(l, VTPM_EXIT_FAILURE, "%s", strerror(ENOMEM));
                argv[n++] = deny;
        }
        argv[n] = NULL;

        if (fchdir(l->run_fd) < 0)
                return refuse(l, VTPM_EXIT_FAILURE, "%s", strerror(errno));
        (void) execvp(argv[0], (char **) argv); /* it says READY=1 itself, when it has given up its rights */
        return refuse(l, VTPM_EXIT_FAILURE, "guestcrypt-tpm: %s", strerror(errno));
}

int vtpm_launch_device(int root_fd, const char *uuid) {
        Launch l = { .uuid = uuid, .root_fd = root_fd, .tpm_fd = -1, .run_fd = -1, .state_fd = -1 };
        int r;

        (void) umask(077);
        r = open_all(&l);
        if (r == 0)
                r = take_lock(&l, l.run_fd, VTPM_DEVICE_LOCK_FILE);
        if (r == 0)
                r = take_group(&l);
        if (r == 0)
                r = run_device(&l);
        return fail(&l, r);
}
