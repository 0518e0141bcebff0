/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TPMs from definition to end, with real programs, and an own front end in QEMU's place.
 *
 * usage: test_life LAUNCHER DIRECTORY-OF-guestcrypt-tpm [TEST] */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#undef stop /* a macro of cmocka 2.0 */

#include "base/cleanup.h"
#include "base/file.h"
#include "lib/vtpm_life/guest.h"
#include "vtpm/vtpm_backup.h"

#define TPM_RC_COMMAND_CODE 0x143
#define TPM_RC_BAD_AUTH     0x9a2 /* of session 1 */
#define NV_INDEX            0x01500010
#define OTHER_UID           65533

static const char *launcher;
static Life life;

static int setup(void **state) {
        life_init(&life, launcher);
        return 0;
}

static int teardown(void **state) {
        life_done(&life);
        return 0;
}

static Uuid define(const VtpmSpec *spec) {
        assert_int_equal(life_define(&life, spec), VTPM_DONE);
        return life.uuid;
}

static Uuid define_plain(const char *name) {
        return define(&(VtpmSpec) { .name = name, .no_certificates = true });
}

static void start(Uuid uuid, TpmModel model) {
        assert_int_equal(life_start(&life, uuid, model), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_RUNNING);
        assert_int_equal(life_view(&life, uuid).model, model);
}

static void stop(Uuid uuid) {
        assert_int_equal(life_stop(&life, uuid), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_DEFINED);
        assert_int_equal(access(life_run_file(&life, uuid, ""), F_OK), -1);
}

/* The endorsement key's name: what a TPM is. */
static void read_key(Uuid uuid, uint8_t ret[static GUEST_NAME_MAX], size_t *ret_size) {
        Vmm vmm;

        start(uuid, TPM_MODEL_VIRTIO);
        guest_open(&vmm, &life, uuid);
        assert_int_equal(guest_key_name(&vmm, GUEST_EK, ret, ret_size), 0);
        vmm_done(&vmm);
        stop(uuid);
}

/* Entries of a directory. */
static unsigned count_files(const char *path) {
        unsigned n = 0;
        DIR *d = opendir(path);

        for (struct dirent *e; d && (e = readdir(d));)
                n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        if (d)
                (void) closedir(d);
        return n;
}

/* ---- a whole life ---- */

static void test_virtio(void **state) {
        Uuid uuid = define_plain("tpm-1");
        Vmm vmm;

        assert_int_equal(life_view(&life, uuid).state, VTPM_DEFINED);
        assert_int_equal(life_view(&life, uuid).model, TPM_MODEL_NONE);
        start(uuid, TPM_MODEL_VIRTIO);
        start(uuid, TPM_MODEL_VIRTIO); /* again is as good */
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_CRB), VTPM_BAD_STATE);

        assert_string_equal(life_view(&life, uuid).device_socket + 1,
                            life_run_file(&life, uuid, "device.sock") + strlen(life.root) + 1);
        guest_open(&vmm, &life, uuid);
        assert_int_equal(guest_random(&vmm), 0);
        assert_int_equal(guest_nv_public(&vmm, GUEST_EK_CERT) & 0xff, 0x8b); /* no such handle */
        assert_int_equal(life_counters(&life, uuid), VTPM_DONE);
        assert_int_equal(life_counter(&life, "commands"), 2);
        assert_int_equal(life_counter(&life, "connections"), 1);

        /* the platform hierarchy is closed; it would be open without that */
        assert_int_equal(guest_clear_control(&vmm), TPM_RC_BAD_AUTH);
        vmm_done(&vmm);

        assert_int_equal(life_undefine(&life, uuid, true), VTPM_BAD_STATE);
        stop(uuid);
        stop(uuid);
        assert_int_equal(life_counters(&life, uuid), VTPM_BAD_STATE);
        assert_int_equal(life_undefine(&life, uuid, false), VTPM_BAD_STATE);
        assert_int_equal(life_undefine(&life, uuid, true), VTPM_DONE);
        assert_int_equal(access(life_state_file(&life, uuid, ""), F_OK), -1);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_NO_SUCH);
        assert_int_equal(count_files(life_path(&life, "var/lib/guestcrypt/tpms")), 0);
        assert_int_equal(count_files(life_path(&life, "run/guestcrypt/tpm-jobs")), 0);
        assert_int_equal(count_files(life_path(&life, "var/lib/guestcrypt/ca/new")), 0);
}

static void test_options(void **state) {
        const uint32_t denied[] = { 0x17b, 0x139 };
        Uuid uuid = define(&(VtpmSpec) { .name = "keeps",
                                         .no_certificates = true,
                                         .platform_keep = true,
                                         .denied = denied,
                                         .n_denied = ELEMENTS(denied),
                                         .pcr_banks = "sha256,sha384",
                                         .guest = "guest-1",
                                         .owner = 1000 });
        uint8_t name[GUEST_NAME_MAX];
        VtpmView view;
        size_t size;
        Vmm vmm;

        start(uuid, TPM_MODEL_VIRTIO);
        guest_open(&vmm, &life, uuid);
        assert_int_equal(guest_random(&vmm), TPM_RC_COMMAND_CODE);
        /* its firmware has not sent TPM2_Startup */
        assert_int_equal(guest_key_name(&vmm, GUEST_EK, name, &size), 0x100);
        vmm_done(&vmm);
        stop(uuid);

        life_close(&life);
        assert_int_equal(life_open(&life), 0);
        view = life_view(&life, uuid);
        assert_string_equal(view.spec.name, "keeps");
        assert_string_equal(view.spec.guest, "guest-1");
        assert_string_equal(view.spec.pcr_banks, "sha256,sha384");
        assert_true(view.spec.platform_keep && view.spec.no_certificates && !view.spec.ephemeral &&
                    !view.spec.encrypted);
        assert_int_equal(view.spec.n_denied, 2);
        assert_int_equal(view.spec.denied[1], 0x139);
        assert_int_equal(view.spec.owner, 1000);

        assert_int_equal(life_set_guest(&life, uuid, "guest-2"), VTPM_DONE);
        assert_int_equal(life_set_guest(&life, uuid, "a\nb"), VTPM_INVALID);
        life_close(&life);
        assert_int_equal(life_open(&life), 0);
        assert_string_equal(life_view(&life, uuid).spec.guest, "guest-2");
        assert_int_equal(life_set_guest(&life, uuid, NULL), VTPM_DONE);
        assert_null(life_view(&life, uuid).spec.guest);
}

static void test_certificates(void **state) {
        Uuid uuid = define(&(VtpmSpec) { .name = "certified" });
        struct stat st;
        Vmm vmm;

        start(uuid, TPM_MODEL_VIRTIO);
        guest_open(&vmm, &life, uuid);
        assert_int_equal(guest_nv_public(&vmm, GUEST_EK_CERT), 0);
        assert_int_equal(guest_nv_public(&vmm, 0x01c08000), 0); /* the platform's */
        vmm_done(&vmm);
        stop(uuid);

        /* the authority's keys are for its own user, which is no TPM's */
        assert_int_equal(stat(life_path(&life, "var/lib/guestcrypt/ca/signkey.pem"), &st), 0);
        assert_int_equal(st.st_uid, 1900000000);
        assert_int_not_equal(life_view(&life, uuid).uid, st.st_uid);
        assert_int_equal(stat(life_path(&life, "var/lib/guestcrypt/ca"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0700);

        /* an authority of one's own has to be root's */
        life_write(life_path(&life, "mine.conf"), "create_certs_tool = /bin/false\n", 31);
        assert_int_equal(chmod(life_path(&life, "mine.conf"), 0666), 0);
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "other", .ca_config = "/mine.conf" }),
                         VTPM_INVALID);
        assert_int_equal(chmod(life_path(&life, "mine.conf"), 0644), 0);
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "other", .ca_config = "/none.conf" }),
                         VTPM_INVALID);
        assert_int_equal(count_files(life_path(&life, "var/lib/guestcrypt/ca/new")), 0);
}

/* Who may come to what. */
static void test_permissions(void **state) {
        Uuid one = define_plain("one"), two = define_plain("two");
        gid_t group = getgrnam(LIFE_GROUP)->gr_gid;
        uid_t uid_one, uid_two;

        start(one, TPM_MODEL_VIRTIO);
        start(two, TPM_MODEL_TIS);
        uid_one = life_view(&life, one).uid;
        uid_two = life_view(&life, two).uid;
        assert_int_not_equal(uid_one, uid_two);

        assert_int_equal(life_connect_as(OTHER_UID, group, life_run_file(&life, one, "device.sock")), 0);
        assert_int_equal(life_connect_as(OTHER_UID, group, life_run_file(&life, two, "swtpm.sock")), 0);
        assert_int_equal(life_connect_as(OTHER_UID, group, life_run_file(&life, one, "control.sock")),
                         -EACCES);
        assert_int_equal(life_connect_as(OTHER_UID, group, life_run_file(&life, one, "ctrl.sock")), -EACCES);
        assert_int_equal(life_connect_as(OTHER_UID, OTHER_UID, life_run_file(&life, one, "device.sock")),
                         -EACCES);
        assert_int_equal(life_connect_as(uid_two, uid_two, life_run_file(&life, one, "device.sock")),
                         -EACCES);
        assert_int_equal(life_connect_as(uid_one, uid_one, life_run_file(&life, one, "ctrl.sock")), -EACCES);
        assert_int_equal(life_connect_as(uid_one, uid_one, life_run_file(&life, two, "swtpm.sock")),
                         -EACCES);
        assert_int_equal(life_open_as(uid_two, life_state_file(&life, one, "state/tpm2-00.permall")),
                         -EACCES);
        assert_int_equal(life_open_as(OTHER_UID, life_state_file(&life, one, "state/tpm2-00.permall")),
                         -EACCES);
        assert_int_equal(life_open_as(uid_one, life_path(&life, "var/lib/guestcrypt/ca/swtpm_setup.conf")),
                         -EACCES);

        /* as whom the processes run, and what they could become */
        for (unsigned i = 0; i < 2; i++) {
                CLEANUP(freep) char *text = NULL;
                char path[64], line[80];

                (void) snprintf(path, sizeof path, "/proc/%d/status",
                                (int) life_pid(&life, one, i ? "device.pid" : "swtpm.pid"));
                assert_true(file_read_at(AT_FDCWD, path, 65536, &text, NULL) <
                            0); /* grows: no size in /proc */
                FILE *f = fopen(path, "re");
                bool uid = false, gid = false, groups = false, privs = false, seccomp = false;

                assert_non_null(f);
                while (fgets(line, sizeof line, f)) {
                        unsigned a, b, c, d;

                        if (sscanf(line, "Uid: %u %u %u %u", &a, &b, &c, &d) == 4)
                                uid = a == uid_one && b == a && c == a && d == a;
                        else if (sscanf(line, "Gid: %u %u %u %u", &a, &b, &c, &d) == 4)
                                gid = a == uid_one && b == a && c == a && d == a;
                        else if (strncmp(line, "Groups:", 7) == 0)
                                groups = strspn(line + 7, " \t\n") == strlen(line + 7);
                        else if (strncmp(line, "NoNewPrivs:\t1", 13) == 0)
                                privs = true;
                        else if (strncmp(line, "Seccomp:\t2", 10) == 0)
                                seccomp = true;
                }
                (void) fclose(f);
                assert_true(uid && gid && groups);
#ifdef __SANITIZE_ADDRESS__
                if (i == 1) /* the device: a sanitizer needs what its sandbox takes away */
                        continue;
#endif
                assert_true(privs && seccomp);
        }
        stop(two);
        stop(one);
}

/* What QEMU does first with swtpm's own socket. */
static uint32_t swtpm_init(const char *path) {
        static const uint8_t init[] = { 0, 0, 0, 2, 0, 0, 0, 0 };
        uint8_t answer[4] = { 0xff };
        int fd = life_connect(path);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, init, sizeof init), sizeof init);
        assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), 4);
        fd_close(fd);
        return (uint32_t) answer[0] << 24 | (uint32_t) answer[1] << 16 | (uint32_t) answer[2] << 8 |
               answer[3];
}

/* Where swtpm has profiles they are its own; else the wish is refused. */
static void test_profile(void **state) {
        const VtpmSpec spec = { .name = "profiled", .profile = "default-v1", .no_certificates = true };
        FILE *f = popen("swtpm_setup --tpm2 --print-capabilities", "re");
        uint8_t name[GUEST_NAME_MAX];
        char line[1024] = "";
        size_t size;
        bool can;

        assert_true(f && fgets(line, sizeof line, f));
        assert_int_equal(pclose(f), 0);
        can = strstr(line, "cmdarg-profile");
        assert_int_equal(life_define(&life, &spec), can ? VTPM_DONE : VTPM_UNAVAILABLE);
        if (can) {
                read_key(life.uuid, name, &size);
                assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "odd", .profile = "no-such" }),
                                 VTPM_TOOL);
        } else
                assert_non_null(strstr(life.text, "0.10"));
}

static void test_crb(void **state) {
        Uuid uuid = define_plain("crb");

        start(uuid, TPM_MODEL_CRB);
        assert_int_equal(access(life_run_file(&life, uuid, "device.sock"), F_OK), -1);
        assert_int_equal(swtpm_init(life_run_file(&life, uuid, "swtpm.sock")), 0);
        assert_int_equal(life_reset(&life, uuid), VTPM_BAD_STATE); /* QEMU does that */
        stop(uuid);

        /* a socket that is left of a host's crash does not matter */
        start(uuid, TPM_MODEL_TIS);
        assert_int_equal(kill(life_pid(&life, uuid, "swtpm.pid"), SIGKILL), 0);
        life_until(&life, uuid, VTPM_FAILED);
        assert_non_null(strstr(life_view(&life, uuid).problems[0], "swtpm ended"));
        assert_null(life_view(&life, uuid).problems[1]);
        start(uuid, TPM_MODEL_TIS);
        assert_null(life_view(&life, uuid).problems[0]);
        stop(uuid);
}

static void test_ephemeral(void **state) {
        Uuid uuid = define(&(VtpmSpec) { .name = "short", .ephemeral = true });
        uint8_t first[GUEST_NAME_MAX], second[GUEST_NAME_MAX];
        size_t n_first, n_second;

        assert_int_equal(access(life_state_file(&life, uuid, "state"), F_OK), -1);
        read_key(uuid, first, &n_first);
        read_key(uuid, second, &n_second);
        assert_int_equal(n_first, n_second);
        assert_memory_not_equal(first, second, n_first);
        assert_int_equal(access(life_state_file(&life, uuid, "state"), F_OK), -1);
        assert_int_equal(count_files(life_path(&life, "run/guestcrypt/tpm-new")), 0);
        assert_int_equal(life_define(&life,
                                     &(VtpmSpec) { .name = "odd", .ephemeral = true, .encrypted = true }),
                         VTPM_INVALID);
        assert_int_equal(life_undefine(&life, uuid, false), VTPM_DONE);
}

/* ---- keys ---- */

static int open_backup(void) {
        int fd = memfd_create("backup", MFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static void rewind_fd(int fd) {
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
}

static void test_encrypted(void **state) {
        Uuid uuid = define(&(VtpmSpec) { .name = "secret", .encrypted = true, .no_certificates = true });
        uint8_t name[GUEST_NAME_MAX];
        CLEANUP(fd_closep) int fd = open_backup();
        struct stat st;
        size_t size;

        assert_true(life_view(&life, uuid).spec.encrypted);
        assert_int_equal(stat(life_state_file(&life, uuid, "key"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0400);
        assert_int_equal(st.st_uid, 0);
        assert_int_equal(st.st_size, 32);
        read_key(uuid, name, &size);

        /* with another key the state is of no use, and says so */
        start(uuid, TPM_MODEL_CRB);
        stop(uuid);
        life_write(life_state_file(&life, uuid, "key"), "0123456789abcdef0123456789abcdef", 32);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_CRB), VTPM_TOOL);
        assert_non_null(strstr(life.text, "its key is another one"));
        assert_int_equal(life_view(&life, uuid).state, VTPM_FAILED);
        assert_int_equal(access(life_run_file(&life, uuid, ""), F_OK), -1);
        assert_int_equal(life_backup(&life, uuid, fd), VTPM_DONE);
        assert_int_equal(life_undefine(&life, uuid, true), VTPM_DONE);
        rewind_fd(fd);
        assert_int_equal(life_restore(&life, fd, &(VtpmSpec) {}), VTPM_BAD_RECORD);
        assert_non_null(strstr(life.text, "with that key"));
        assert_int_equal(count_files(life_path(&life, "var/lib/guestcrypt/tpms")), 0);
}

static void test_key_file(void **state) {
        static const char hex[] = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\n";
        const VtpmSpec spec = { .name = "filed", .key_file = "/keys/1", .no_certificates = true };
        uint8_t name[GUEST_NAME_MAX];
        size_t size;
        Uuid uuid;

        assert_int_equal(mkdir(life_path(&life, "keys"), 0755), 0);
        assert_int_equal(life_define(&life, &spec), VTPM_UNAVAILABLE);
        life_write(life_path(&life, "keys/1"), hex, 20);
        assert_int_equal(life_define(&life, &spec), VTPM_INVALID);
        life_write(life_path(&life, "keys/1"), hex, sizeof hex - 1);
        assert_int_equal(chmod(life_path(&life, "keys/1"), 0640), 0);
        assert_int_equal(life_define(&life, &spec), VTPM_INVALID); /* others could read it */
        assert_int_equal(chmod(life_path(&life, "keys/1"), 0600), 0);
        uuid = define(&spec);
        read_key(uuid, name, &size);
        assert_int_equal(access(life_state_file(&life, uuid, "key"), F_OK), -1);

        assert_int_equal(unlink(life_path(&life, "keys/1")), 0);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_UNAVAILABLE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_FAILED);
        assert_non_null(strstr(life_view(&life, uuid).problems[0], "/keys/1"));
}

/* The key is what systemd gave to the unit; without systemd a directory does. */
static void test_credential(void **state) {
        uint8_t name[GUEST_NAME_MAX];
        size_t size;
        Uuid uuid;

        assert_int_equal(mkdir(life_path(&life, "credentials"), 0700), 0);
        life_write(life_path(&life, "credentials/tpm-given"), "0123456789abcdef0123456789abcdef", 32);
        assert_int_equal(setenv("CREDENTIALS_DIRECTORY", life_path(&life, "credentials"), 1), 0);
        uuid = define(&(VtpmSpec) { .name = "given", .encrypted = true, .no_certificates = true });
        assert_int_equal(access(life_state_file(&life, uuid, "key"), F_OK), -1);
        read_key(uuid, name, &size);

        assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_UNAVAILABLE);
        assert_non_null(strstr(life.text, "tpm-given"));
}

/* ---- copies ---- */

static void test_backup(void **state) {
        static const char *const names[] = { "plain", "locked" };

        for (unsigned i = 0; i < ELEMENTS(names); i++) {
                Uuid uuid = define(&(VtpmSpec) { .name = names[i], .encrypted = i > 0, .guest = "g" }), copy;
                uint8_t before[GUEST_NAME_MAX], after[GUEST_NAME_MAX];
                CLEANUP(fd_closep) int fd = open_backup();
                char data[8];
                size_t n, m;
                Vmm vmm;

                start(uuid, TPM_MODEL_VIRTIO);
                guest_open(&vmm, &life, uuid);
                assert_int_equal(guest_nv_write(&vmm, NV_INDEX, "treasure"), 0);
                vmm_done(&vmm);
                assert_int_equal(life_backup(&life, uuid, fd), VTPM_BAD_STATE);
                stop(uuid);
                read_key(uuid, before, &n);
                assert_int_equal(life_backup(&life, uuid, fd), VTPM_DONE);

                rewind_fd(fd);
                assert_int_equal(life_restore(&life, fd, &(VtpmSpec) {}), VTPM_EXISTS);
                rewind_fd(fd);
                assert_int_equal(life_restore(&life, fd, &(VtpmSpec) { .name = "copy" }),
                                 VTPM_EXISTS); /* the uuid */
                assert_int_equal(life_undefine(&life, uuid, true), VTPM_DONE);
                rewind_fd(fd);
                assert_int_equal(life_restore(&life, fd, &(VtpmSpec) {}), VTPM_DONE);
                assert_true(uuid_equal(life.uuid, uuid));
                assert_string_equal(life_view(&life, uuid).spec.guest, "g");
                assert_int_equal(life_view(&life, uuid).spec.encrypted, i > 0);
                start(uuid, TPM_MODEL_VIRTIO);
                guest_open(&vmm, &life, uuid);
                assert_int_equal(guest_key_name(&vmm, GUEST_EK, after, &m), 0);
                assert_int_equal(guest_nv_read(&vmm, NV_INDEX, data), 0);
                assert_memory_equal(data, "treasure", 8);
                vmm_done(&vmm);
                stop(uuid);
                assert_int_equal(n, m);
                assert_memory_equal(before, after, n);

                /* as another one */
                rewind_fd(fd);
                assert_int_equal(uuid_random(&copy), 0);
                assert_int_equal(life_restore(&life, fd,
                                              &(VtpmSpec) { .name = "copy", .uuid = copy, .guest = "h" }),
                                 VTPM_DONE);
                assert_string_equal(life_view(&life, copy).spec.guest, "h");
                assert_int_not_equal(life_view(&life, copy).uid, life_view(&life, uuid).uid);
                read_key(copy, after, &m);
                assert_memory_equal(before, after, n);
                assert_int_equal(life_undefine(&life, copy, true), VTPM_DONE);
        }
}

static void test_bad_backup(void **state) {
        Uuid uuid = define_plain("kept");
        CLEANUP(fd_closep) int fd = open_backup();
        struct stat st;
        char c;

        assert_int_equal(life_backup(&life, uuid, fd), VTPM_DONE);
        assert_int_equal(life_undefine(&life, uuid, true), VTPM_DONE);
        assert_int_equal(fstat(fd, &st), 0);

        for (off_t at = 0; at < st.st_size; at += st.st_size / 12) {
                assert_int_equal(pread(fd, &c, 1, at), 1);
                c ^= 0x10;
                assert_int_equal(pwrite(fd, &c, 1, at), 1);
                rewind_fd(fd);
                assert_int_equal(life_restore(&life, fd, &(VtpmSpec) {}), VTPM_BAD_RECORD);
                c ^= 0x10;
                assert_int_equal(pwrite(fd, &c, 1, at), 1);
        }
        for (off_t size = 0; size < st.st_size; size += st.st_size / 5) {
                CLEANUP(fd_closep) int part = open_backup();
                char buffer[65536];

                assert_true(size <= (off_t) sizeof buffer && pread(fd, buffer, (size_t) size, 0) == size);
                assert_int_equal(write(part, buffer, (size_t) size), size);
                rewind_fd(part);
                assert_int_equal(life_restore(&life, part, &(VtpmSpec) {}), VTPM_BAD_RECORD);
        }
        assert_int_equal(count_files(life_path(&life, "var/lib/guestcrypt/tpms")), 0);
        rewind_fd(fd);
        assert_int_equal(life_restore(&life, fd, &(VtpmSpec) {}), VTPM_DONE);
}

/* libvirt's directory: STATE/UUID/tpm2, with a swtpm at work in it or not. */
static void test_import(void **state) {
        Uuid uuid = define_plain("origin"), copy;
        uint8_t before[GUEST_NAME_MAX], after[GUEST_NAME_MAX];
        const VtpmSpec spec = { .name = "imported" };
        char command[1024], option[300];
        size_t n, m;
        pid_t pid;
        int fd;

        read_key(uuid, before, &n);
        (void) snprintf(command, sizeof command, "mkdir -p '%s' && cp '%s' '%s'",
                        life_path(&life, "libvirt/x/tpm2"),
                        life_state_file(&life, uuid, "state/tpm2-00.permall"),
                        life_path(&life, "libvirt/x/tpm2"));
        assert_int_equal(system(command), 0);
        assert_int_equal(life_import(&life, "/libvirt/none", &spec), VTPM_BAD_RECORD);
        assert_int_equal(life_import(&life, "/libvirt", &spec), VTPM_BAD_RECORD);
        assert_int_equal(life_import(&life, "libvirt/x", &spec), VTPM_INVALID);

        (void) snprintf(command, sizeof command, "type=unixio,path=%s", life_path(&life, "foreign.sock"));
        (void) snprintf(option, sizeof option, "dir=%s", life_path(&life, "libvirt/x/tpm2"));
        pid = fork();
        if (pid == 0) {
                (void) execlp("swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", option, "--ctrl", command,
                              NULL);
                _exit(127);
        }
        while ((fd = life_connect(life_path(&life, "foreign.sock"))) < 0)
                (void) poll(NULL, 0, 5);
        fd_close(fd);
        assert_int_equal(swtpm_init(life_path(&life, "foreign.sock")), 0);
        assert_int_equal(life_import(&life, "/libvirt/x", &spec), VTPM_IN_USE);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);

        assert_int_equal(life_import(&life, "/libvirt/x", &spec), VTPM_DONE);
        copy = life.uuid;
        read_key(copy, after, &m);
        assert_int_equal(n, m);
        assert_memory_equal(before, after, n);
        assert_int_equal(access(life_path(&life, "libvirt/x/tpm2/tpm2-00.permall"), F_OK), 0);

        /* the path that is named is the file's */
        assert_int_equal(symlink("nowhere", life_path(&life, "libvirt/x/tpm2/tpm2-01.x")), 0);
        assert_int_equal(life_import(&life, "/libvirt/x", &(VtpmSpec) { .name = "again" }), VTPM_BAD_RECORD);
        assert_non_null(strstr(life.text, "'/libvirt/x/tpm2/tpm2-01.x': "));
        assert_int_equal(life_import(&life, "/libvirt/x/tpm2", &(VtpmSpec) { .name = "again" }),
                         VTPM_BAD_RECORD);
        assert_non_null(strstr(life.text, "'/libvirt/x/tpm2/tpm2-01.x': "));
        assert_int_equal(unlink(life_path(&life, "libvirt/x/tpm2/tpm2-01.x")), 0);

        /* not a state, though it looks like one */
        life_write(life_path(&life, "libvirt/x/tpm2/tpm2-00.permall"), "rubbish", 7);
        assert_int_equal(life_import(&life, "/libvirt/x", &(VtpmSpec) { .name = "again" }), VTPM_BAD_RECORD);
}

/* ---- the table ---- */

static void test_refusals(void **state) {
        Uuid uuid = define_plain("one"), other = { .b = { 7 } }, found;
        char text[UUID_STRING_SIZE], other_text[UUID_STRING_SIZE];
        uint32_t denied[65] = {};
        const struct {
                VtpmSpec spec;
                int verdict;
        } cases[] = {
                { { .name = "one" }, VTPM_EXISTS },
                { { .name = "two", .uuid = uuid }, VTPM_EXISTS },
                { { .name = uuid_format(uuid, text) }, VTPM_EXISTS }, /* who would be meant by that? */
                { { .name = NULL }, VTPM_INVALID },
                { { .name = "" }, VTPM_INVALID },
                { { .name = "a b" }, VTPM_INVALID },
                { { .name = "../x" }, VTPM_INVALID },
                { { .name = "x", .guest = "\x01" }, VTPM_INVALID },
                { { .name = "x", .pcr_banks = "" }, VTPM_INVALID },
                { { .name = "x", .pcr_banks = "sha256,sha256" }, VTPM_INVALID },
                { { .name = "x", .pcr_banks = "sha256,md5" }, VTPM_INVALID },
                { { .name = "x", .pcr_banks = "sha256," }, VTPM_INVALID },
                { { .name = "x", .key_file = "key" }, VTPM_INVALID },
                { { .name = "x", .ca_config = "conf" }, VTPM_INVALID },
                { { .name = "x", .profile = "a b" }, VTPM_INVALID },
                { { .name = "x", .denied = denied, .n_denied = 65 }, VTPM_INVALID },
        };
        CLEANUP(freep) Uuid *list = NULL;
        size_t n;

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                assert_int_equal(life_define(&life, &cases[i].spec), cases[i].verdict);
        assert_int_equal(life.vtpm->ops->list(life.vtpm, &list, &n), 0);
        assert_int_equal(n, 1);
        assert_int_equal(life.vtpm->ops->find(life.vtpm, "one", &found), 0);
        assert_true(uuid_equal(found, uuid));
        assert_int_equal(life.vtpm->ops->find(life.vtpm, "two", &found), -ENOENT);
        assert_int_equal(count_files(life_path(&life, "run/guestcrypt/tpm-jobs")), 0);

        (void) define_plain(uuid_format(other, other_text)); /* as guests are named by some */
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "two", .uuid = other }), VTPM_EXISTS);
}

static void take_verdict(void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid) {
        *(VtpmVerdict *) userdata = verdict;
        life.waits--;
}

/* Many at once, of which each gets its own user; requests of one come one after the other. */
static void test_crowd(void **state) {
        enum { CROWD = 100 };
        VtpmVerdict verdict = VTPM_DONE;
        Uuid uuids[CROWD];
        char name[32];

        for (unsigned i = 0; i < CROWD; i++) {
                (void) snprintf(name, sizeof name, "crowd-%u", i);
                assert_int_equal(uuid_random(&uuids[i]), 0);
                life.waits++;
                assert_int_equal(life.vtpm->ops->define(life.vtpm,
                                                        &(VtpmSpec) { .name = name,
                                                                      .uuid = uuids[i],
                                                                      .no_certificates = true },
                                                        life_answer, &life),
                                 0);
        }
        life.waits++;
        assert_int_equal(life.vtpm->ops->define(life.vtpm, &(VtpmSpec) { .name = "crowd-7" }, take_verdict,
                                                &verdict),
                         0);
        life_wait(&life);
        assert_int_equal(life.n_refused, 0);
        assert_int_equal(verdict, VTPM_EXISTS); /* also while it is made */
        for (unsigned i = 0; i < CROWD; i++) {
                assert_int_equal(life_view(&life, uuids[i]).state, VTPM_DEFINED);
                assert_int_equal(life_view(&life, uuids[i]).uid, 1900000001 + i);
        }

        for (unsigned i = 0; i < 3; i++) {
                life.waits += 2;
                assert_int_equal(life.vtpm->ops->start(life.vtpm, uuids[0], TPM_MODEL_VIRTIO, life_answer,
                                                       &life),
                                 0);
                assert_int_equal(life.vtpm->ops->stop(life.vtpm, uuids[0], life_answer, &life), 0);
        }
        life_wait(&life);
        assert_int_equal(life.verdict, VTPM_DONE);
        assert_int_equal(life_view(&life, uuids[0]).state, VTPM_DEFINED);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_virtio, setup, teardown),
                cmocka_unit_test_setup_teardown(test_options, setup, teardown),
                cmocka_unit_test_setup_teardown(test_certificates, setup, teardown),
                cmocka_unit_test_setup_teardown(test_permissions, setup, teardown),
                cmocka_unit_test_setup_teardown(test_profile, setup, teardown),
                cmocka_unit_test_setup_teardown(test_crb, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ephemeral, setup, teardown),
                cmocka_unit_test_setup_teardown(test_encrypted, setup, teardown),
                cmocka_unit_test_setup_teardown(test_key_file, setup, teardown),
                cmocka_unit_test_setup_teardown(test_credential, setup, teardown),
                cmocka_unit_test_setup_teardown(test_backup, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_backup, setup, teardown),
                cmocka_unit_test_setup_teardown(test_import, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_crowd, setup, teardown),
        };
        char *path;

        if (!life_possible() || !life_enclose())
                return 77;
        launcher = argv[1];
        if (asprintf(&path, "%s:%s", argv[2], getenv("PATH")) < 0)
                return EXIT_FAILURE;
        (void) setenv("PATH", path, 1);
        free(path);
        if (argc > 3)
                cmocka_set_test_filter(argv[3]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
