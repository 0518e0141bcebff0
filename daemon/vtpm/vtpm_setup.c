/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vtpm/vtpm_setup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/run.h"
#include "vtpm/vtpm_tree.h"

#define SETUP_TIMEOUT_US (120 * UINT64_C(1000000)) /* certificate tools wait for each other */
#define TRY_TIMEOUT_US   (30 * UINT64_C(1000000))
#define DISK_FULL        (64 * 1024) /* a state and its certificates need more */
#define KEY_SIZE         32
#define KEY_FILE_MAX     256
#define OLDEST           "0.7"

#define VERDICT(text, verdict, ...) ((void) snprintf((text), VTPM_TEXT_SIZE, __VA_ARGS__), (int) (verdict))

static const char *const environment_fixed[] = { "LC_ALL=C", "HOME=/nonexistent" };

/* What a tool gets of our environment: where programs are. */
static void environment(char path[static 1024], const char *ret[static 4]) {
        const char *p = getenv("PATH");

        (void) snprintf(path, 1024, "PATH=%s", p ? p : "/usr/sbin:/usr/bin:/sbin:/bin");
        ret[0] = path;
        ret[1] = environment_fixed[0];
        ret[2] = environment_fixed[1];
        ret[3] = NULL;
}

/* ---- the key ---- */

static int hex_digits(const char *data, size_t size, char ret[static 2 * KEY_SIZE + 1]) {
        while (size > 0 && size != KEY_SIZE && (data[size - 1] == '\n' || data[size - 1] == '\r'))
                size--;
        if (size == KEY_SIZE) {
                for (size_t i = 0; i < KEY_SIZE; i++)
                        (void) snprintf(ret + 2 * i, 3, "%02x", (unsigned char) data[i]);
                return 0;
        }
        if (size != 2 * KEY_SIZE)
                return -EBADMSG;
        for (size_t i = 0; i < size; i++)
                if (!isxdigit((unsigned char) data[i]))
                        return -EBADMSG;
        memcpy(ret, data, size);
        ret[size] = '\0';
        return 0;
}

static int credential_name(const VtpmRecord *r, char ret[static VTPM_PATH_SIZE]) {
        return snprintf(ret, VTPM_PATH_SIZE, "tpm-%s", r->name) < VTPM_PATH_SIZE ? 0 : -ENAMETOOLONG;
}

static int credentials_open(void) {
        const char *directory = getenv("CREDENTIALS_DIRECTORY");

        return directory ? ret_errno(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) : -ENOENT;
}

bool vtpm_key_has_credential(const VtpmRecord *r) {
        CLEANUP(fd_closep) int fd = credentials_open();
        char name[VTPM_PATH_SIZE];

        return fd >= 0 && credential_name(r, name) >= 0 && faccessat(fd, name, R_OK, 0) == 0;
}

/* Somebody else's file must not become a key: root's, and nobody else may look or write. */
static int read_key_file(int root_fd, const char *path, char **ret, size_t *ret_size,
                         char ret_text[static VTPM_TEXT_SIZE]) {
        CLEANUP(fd_closep)
        int fd = openat(root_fd, path + strspn(path, "/"), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        CLEANUP(freep) char *data = NULL;
        struct stat st;
        ssize_t n;

        if (fd < 0 || fstat(fd, &st) < 0)
                return VERDICT(ret_text, VTPM_UNAVAILABLE, "key file '%s': %s", path, strerror(errno));
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
                return VERDICT(ret_text, VTPM_INVALID,
                               "key file '%s' has to be a file that root alone may read", path);

        data = malloc(KEY_FILE_MAX);
        if (!data)
                return -ENOMEM;
        n = read(fd, data, KEY_FILE_MAX);
        if (n < 0)
                return -errno;

        *ret = TAKE(data);
        *ret_size = (size_t) n;
        return VTPM_DONE;
}

int vtpm_key_open(int root_fd, int tpm_fd, const VtpmRecord *r, int *ret_fd,
                  char ret_text[static VTPM_TEXT_SIZE]) {
        CLEANUP(fd_closep) int credentials = -1, fd = -1;
        char hex[2 * KEY_SIZE + 1], name[VTPM_PATH_SIZE];
        CLEANUP(freep) char *data = NULL;
        size_t size = 0;
        int v = VTPM_DONE;

        switch (r->key) {
        case VTPM_KEY_NONE:
                *ret_fd = -1;
                return VTPM_DONE;
        case VTPM_KEY_OWN:
                v = file_read_at(tpm_fd, "key", KEY_FILE_MAX, &data, &size);
                if (v < 0)
                        return VERDICT(ret_text, VTPM_BAD_RECORD, "the key of TPM '%s' cannot be read: %s",
                                       r->name, strerror(-v));
                break;
        case VTPM_KEY_FILE:
                v = read_key_file(root_fd, r->key_file, &data, &size, ret_text);
                break;
        default:
                credentials = credentials_open();
                v = credentials < 0 ? credentials : credential_name(r, name);
                if (v >= 0)
                        v = file_read_at(credentials, name, KEY_FILE_MAX, &data, &size);
                if (v < 0)
                        return VERDICT(ret_text, VTPM_UNAVAILABLE,
                                       "the unit was not given the credential 'tpm-%s' with the key: %s",
                                       r->name, strerror(-v));
        }
        if (v != VTPM_DONE)
                return v;

        v = hex_digits(data, size, hex);
        explicit_bzero(data, size);
        if (v < 0)
                return VERDICT(ret_text, VTPM_INVALID,
                               "the key of TPM '%s' has to be 32 bytes, or 64 hex digits", r->name);

        fd = memfd_create("key", MFD_CLOEXEC);
        if (fd < 0)
                return -errno;
        v = file_write_all(fd, hex, sizeof hex - 1);
        explicit_bzero(hex, sizeof hex);
        if (v < 0)
                return v;
        if (lseek(fd, 0, SEEK_SET) < 0)
                return -errno;

        *ret_fd = TAKE_FD(fd);
        return VTPM_DONE;
}

/* ---- the authority ---- */

/* An operator may edit these; what is there stays. */
static const struct {
        const char *name, *text;
} authority_files[] = {
        { "swtpm_setup.conf", "create_certs_tool = swtpm_localca\n"
                              "create_certs_tool_config = swtpm-localca.conf\n"
                              "create_certs_tool_options = swtpm-localca.options\n"
                              "active_pcr_banks = sha256\n" },
        { "swtpm-localca.conf", "statedir = .\n"
                                "signingkey = signkey.pem\n"
                                "issuercert = issuercert.pem\n"
                                "certserial = certserial\n" },
        { "swtpm-localca.options", "--platform-manufacturer guestcrypt\n"
                                   "--platform-version 1\n"
                                   "--platform-model virtual-machine\n" },
};

static int write_authority(int ca_fd, uid_t ca_uid) {
        CLEANUP(fd_closep) int new_fd = -1;
        int r;

        for (size_t i = 0; i < ELEMENTS(authority_files); i++) {
                const char *name = authority_files[i].name, *text = authority_files[i].text;

                if (faccessat(ca_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                        continue;
                r = file_replace(ca_fd, name, text, strlen(text));
                if (r < 0)
                        return r;
                if (fchmodat(ca_fd, name, 0644, 0) < 0)
                        return -errno;
        }
        new_fd = vtpm_dir_open(ca_fd, "new", 0700);
        if (new_fd < 0)
                return new_fd;
        return fchown(new_fd, ca_uid, ca_uid) < 0 || fchown(ca_fd, ca_uid, ca_uid) < 0 ? -errno : 0;
}

int vtpm_setup_authority(int state_fd, uid_t ca_uid) {
        CLEANUP(fd_closep) int ca_fd = -1;
        int r;

        ca_fd = vtpm_dir_open(state_fd, VTPM_CA_DIR, 0700);
        if (ca_fd < 0)
                return ca_fd;
        if (flock(ca_fd, LOCK_EX) < 0) /* other jobs do the same */
                return -errno;
        r = write_authority(ca_fd, ca_uid);
        if (flock(ca_fd, LOCK_UN) < 0 && r >= 0)
                r = -errno;
        return r < 0 ? r : TAKE_FD(ca_fd);
}

/* An authority that a full disk has kept from being made would be taken for a whole one by the next who looks. */
static void drop_unfinished_authority(int ca_fd) {
        static const char *const files[] = { "signkey.pem", "issuercert.pem",
                                             "swtpm-localca-rootca-privkey.pem",
                                             "swtpm-localca-rootca-cert.pem" };
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        CLEANUP(fd_closep) int lock_fd = -1;
        struct stat st;

        /* swtpm_localca's own */
        lock_fd = openat(ca_fd, ".lock.swtpm-localca", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (lock_fd < 0 || fcntl(lock_fd, F_SETLKW, &lock) < 0)
                return;
        if (fstatat(ca_fd, "issuercert.pem", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > 0)
                return; /* made last */
        for (size_t i = 0; i < ELEMENTS(files); i++)
                (void) unlinkat(ca_fd, files[i], 0);
}

/* What decides which programs run must be root's alone. */
static int check_ca_config(int root_fd, const char *path, char ret_text[static VTPM_TEXT_SIZE]) {
        struct stat st;

        if (fstatat(root_fd, path + strspn(path, "/"), &st, 0) < 0)
                return VERDICT(ret_text, VTPM_INVALID, "'%s': %s", path, strerror(errno));
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
                return VERDICT(ret_text, VTPM_INVALID, "'%s' has to be a file that root alone may write",
                               path);
        return VTPM_DONE;
}

/* ---- swtpm_setup ---- */

static int is_noise(const char *line) {
        static const char *const begins[] = { "Ending vTPM", "An error occurred",
                                              "(process:", "Starting vTPM", "Invoking " };

        for (size_t i = 0; i < ELEMENTS(begins); i++)
                if (strncmp(line, begins[i], strlen(begins[i])) == 0)
                        return 1;
        return 0;
}

/* Whether it is there, and can what we need. */
static int check_tool(const VtpmRecord *r, char ret_text[static VTPM_TEXT_SIZE]) {
        static const char *const argv[] = { "swtpm_setup", "--tpm2", "--print-capabilities", NULL };
        char path[1024], text[RUN_TEXT_SIZE];
        CLEANUP(freep) char *output = NULL;
        const char *env[4];
        int status;

        environment(path, env);
        status = run_program(&(RunOptions) { .argv = argv,
                                             .env = env,
                                             .uid = (uid_t) -1,
                                             .directory_fd = -1,
                                             .keep_fds = { -1, -1 },
                                             .timeout_us = TRY_TIMEOUT_US },
                             text, &output);
        if (status == -ENOENT)
                return VERDICT(ret_text, VTPM_UNAVAILABLE, "swtpm_setup is not installed");
        if (status == -ETIME)
                return VERDICT(ret_text, VTPM_TIMEOUT, "swtpm_setup does not say in time what it can");
        if (status < 0)
                return VERDICT(ret_text, VTPM_UNAVAILABLE, "swtpm_setup cannot be run: %s",
                               strerror(-status));
        if (status > 0) /* a library is missing, for instance, or it does not know the option */
                return VERDICT(ret_text, VTPM_UNAVAILABLE,
                               "swtpm_setup cannot be used, " OLDEST " or later is needed: %s",
                               text[0] ? text : "it failed without a word");
        if (!strstr(output, "\"tpm-2.0\"") || !strstr(output, "\"cmdarg-keyfile-fd\""))
                return VERDICT(ret_text, VTPM_UNAVAILABLE,
                               "swtpm_setup is too old, " OLDEST " or later is needed");
        if (r->profile && !strstr(output, "\"cmdarg-profile\""))
                return VERDICT(ret_text, VTPM_UNAVAILABLE,
                               "this swtpm_setup has no profiles, 0.10 or later is needed");
        return VTPM_DONE;
}

/* @directory: the new state's, as seen from @ca_fd. */
static int run_setup(const VtpmSetup *s, int ca_fd, const char *directory,
                     char ret_text[static VTPM_TEXT_SIZE]) {
        char path[1024], text[RUN_TEXT_SIZE], key[16];
        const VtpmRecord *r = s->record;
        const char *env[4], *argv[32];
        struct statvfs disk;
        size_t n = 0;
        int status;

        argv[n++] = "swtpm_setup";
        argv[n++] = "--tpm2";
        argv[n++] = "--tpmstate";
        argv[n++] = directory;
        argv[n++] = "--config";
        argv[n++] = r->ca_config ? r->ca_config : "swtpm_setup.conf";
        argv[n++] = "--pcr-banks";
        argv[n++] = r->pcr_banks;
        argv[n++] = "--createek";
        argv[n++] = "--lock-nvram";
        if (!r->no_certificates) {
                argv[n++] = "--create-ek-cert";
                argv[n++] = "--create-platform-cert";
        }
        if (r->profile) {
                argv[n++] = *r->profile == '{' ? "--profile" : "--profile-name";
                argv[n++] = r->profile;
        }
        if (s->key_fd >= 0) {
                (void) snprintf(key, sizeof key, "%d", s->key_fd);
                argv[n++] = "--keyfile-fd";
                argv[n++] = key;
                argv[n++] = "--cipher";
                argv[n++] = "aes-256-cbc";
        }
        argv[n] = NULL;

        environment(path, env);
        status = run_program(&(RunOptions) { .argv = argv,
                                             .env = env,
                                             .uid = s->ca_uid,
                                             .directory_fd = ca_fd,
                                             .keep_fds = { s->key_fd, -1 },
                                             .timeout_us = SETUP_TIMEOUT_US,
                                             .is_noise = is_noise },
                             text, NULL);
        if (status == 0)
                return VTPM_DONE;
        drop_unfinished_authority(ca_fd);
        if (status > 0 && fstatvfs(ca_fd, &disk) == 0 && disk.f_bavail * disk.f_frsize < DISK_FULL)
                return -ENOSPC; /* its words say nothing of that */
        if (status == -ETIME)
                return VERDICT(ret_text, VTPM_TIMEOUT, "swtpm_setup did not end in time: %s", text);
        if (status > 0)
                return VERDICT(ret_text, VTPM_TOOL, "swtpm_setup: %s",
                               text[0] ? text : "failed without a word");
        return status;
}

int vtpm_setup_state(const VtpmSetup *s, int dir_fd, const char *name, const char *path,
                     char ret_text[static VTPM_TEXT_SIZE]) {
        CLEANUP(fd_closep) int ca_fd = -1, fd = -1;
        char directory[VTPM_PATH_SIZE + 8];
        struct stat st;
        int r;

        r = check_tool(s->record, ret_text);
        if (r == VTPM_DONE && s->record->ca_config)
                r = check_ca_config(s->root_fd, s->record->ca_config, ret_text);
        if (r != VTPM_DONE)
                return r;

        ca_fd = vtpm_setup_authority(s->state_fd, s->ca_uid);
        if (ca_fd < 0)
                return ca_fd;
        r = vtpm_tree_remove(dir_fd, name);
        if (r < 0)
                return r;
        fd = vtpm_dir_make(dir_fd, name, 0700);
        if (fd < 0)
                return fd;
        if (fchown(fd, s->ca_uid, s->ca_uid) < 0)
                return -errno;

        (void) snprintf(directory, sizeof directory, "new/%s", name);
        r = run_setup(s, ca_fd, path ? path : directory, ret_text);
        if (r != VTPM_DONE)
                return r;
        if (fstatat(fd, "tpm2-00.permall", &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_size == 0)
                return VERDICT(ret_text, VTPM_TOOL, "swtpm_setup has made no state");
        return VTPM_DONE;
}

/* ---- trying out ---- */

/* swtpm's control channel: switch on (2, no flags), and end (3). Each is answered with a result of four bytes. */
static int switch_on(int fd, uint32_t *ret_result) {
        static const uint8_t init[] = { 0, 0, 0, 2, 0, 0, 0, 0 }, shutdown_it[] = { 0, 0, 0, 3 };
        uint8_t reply[4], ignored[4];

        if (send(fd, init, sizeof init, MSG_NOSIGNAL) != sizeof init)
                return -EPIPE;
        if (recv(fd, reply, sizeof reply, MSG_WAITALL) != sizeof reply)
                return -EPIPE;
        (void) send(fd, shutdown_it, sizeof shutdown_it, MSG_NOSIGNAL);
        (void) !recv(fd, &ignored, sizeof ignored, MSG_WAITALL); /* it complains if nobody listens */
        *ret_result =
                (uint32_t) reply[0] << 24 | (uint32_t) reply[1] << 16 | (uint32_t) reply[2] << 8 | reply[3];
        return 0;
}

int vtpm_setup_try(const VtpmSetup *s, int fd, char ret_text[static VTPM_TEXT_SIZE]) {
        char path[1024], text[RUN_TEXT_SIZE] = "", control[40], key[64];
        const char *env[4], *argv[16];
        struct timeval wait = { .tv_sec = TRY_TIMEOUT_US / 1000000 };
        uint32_t result = 1;
        int fds[2], status;
        size_t n = 0;
        pid_t pid;
        int r;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        (void) setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);

        (void) snprintf(control, sizeof control, "type=unixio,clientfd=%d", fds[1]);
        argv[n++] = "swtpm";
        argv[n++] = "socket";
        argv[n++] = "--tpm2";
        argv[n++] = "--tpmstate";
        argv[n++] = "dir=.";
        argv[n++] = "--ctrl";
        argv[n++] = control;
        if (s->key_fd >= 0) {
                (void) snprintf(key, sizeof key, "fd=%d,mode=aes-256-cbc,format=hex", s->key_fd);
                argv[n++] = "--key";
                argv[n++] = key;
        }
        argv[n] = NULL;
        environment(path, env);

        /* One process talks to it while the other waits for its end. */
        pid = fork();
        if (pid == 0) {
                fd_close(fds[1]);
                r = switch_on(fds[0], &result);
                _exit(r >= 0 && result == 0 ? 0 : 1);
        }
        fd_close(fds[0]);
        if (pid < 0) {
                fd_close(fds[1]);
                return -errno;
        }
        status = run_program(&(RunOptions) { .argv = argv,
                                             .env = env,
                                             .uid = s->record->uid,
                                             .directory_fd = fd,
                                             .keep_fds = { fds[1], s->key_fd },
                                             .timeout_us = TRY_TIMEOUT_US },
                             text, NULL);
        fd_close(fds[1]);
        r = run_wait(pid);
        if (status == -ENOENT)
                return VERDICT(ret_text, VTPM_UNAVAILABLE, "swtpm is not installed");
        if (status == -ETIME)
                return VERDICT(ret_text, VTPM_TIMEOUT, "swtpm did not end in time: %s", text);
        if (status < 0)
                return VERDICT(ret_text, VTPM_UNAVAILABLE, "swtpm cannot be run: %s", strerror(-status));
        if (r != 0)
                return VERDICT(ret_text, VTPM_BAD_RECORD, "swtpm cannot use that state%s: %s",
                               s->key_fd >= 0 ? " with that key" : "", text[0] ? text : "it says nothing");
        return VTPM_DONE;
}
