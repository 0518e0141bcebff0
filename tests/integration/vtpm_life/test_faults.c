/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What becomes of TPMs when processes die or hang, disks are full, files are damaged, programs are missing.
 *
 * usage: test_faults LAUNCHER DIRECTORY-OF-guestcrypt-tpm [TEST] */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#undef stop /* a macro of cmocka 2.0 */

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "lib/vtpm_life/guest.h"
#include "vtpm/vtpm_record.h"
#include "vtpm/vtpm_tree.h"

#define PCR       16
#define STEPS_MAX 60 /* turns of the loop after which a manager may be killed; no operation has more */
#define RESTARTS_US \
        (60 * UINT64_C(1000000)) /* as many restarts as there may be count if they come within it */

static const char *launcher;
static char *tools_path;
static const char *device_dir;
static Life life;

static int setup(void **state) {
        life_init(&life, launcher);
        return 0;
}

static int teardown(void **state) {
        life_done(&life);
        return 0;
}

static Uuid define_plain(const char *name) {
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = name, .no_certificates = true }),
                         VTPM_DONE);
        return life.uuid;
}

/* Running, with a guest that has extended a PCR. */
static void start_guest(Uuid uuid, Vmm *vmm, uint8_t pcr[static 32]) {
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        guest_open(vmm, &life, uuid);
        assert_int_equal(guest_extend(vmm, PCR), 0);
        assert_int_equal(guest_read_pcr(vmm, PCR, pcr), 0);
}

static void assert_pcr(Vmm *vmm, const uint8_t expected[static 32], bool equal) {
        uint8_t pcr[32];

        assert_int_equal(guest_read_pcr(vmm, PCR, pcr), 0);
        assert_int_equal(memcmp(pcr, expected, sizeof pcr) == 0, equal);
}

/* What jobs have left. */
static unsigned count_left(void) {
        static const char *const paths[] = { VTPM_STATE_DIR "/tpms", VTPM_STATE_DIR "/ca/new",
                                             VTPM_RUN_DIR "/tpm-new" };
        unsigned n = 0;

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                DIR *d = opendir(life_path(&life, "%s", paths[i]));

                for (struct dirent *e; d && (e = readdir(d));)
                        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
                             (i > 0 || e->d_name[0] == '.');
                if (d)
                        (void) closedir(d);
        }
        return n;
}

/* Where processes of TPMs tell their managers how they are. */
static unsigned count_sockets(void) {
        DIR *d = opendir(life_path(&life, VTPM_RUN_DIR));
        unsigned n = 0;

        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));)
                n += strncmp(e->d_name, "tpm-notify-", 11) == 0;
        (void) closedir(d);
        return n;
}

static void write_program(const char *name, const char *text) {
        const char *path = life_path(&life, "bin/%s", name);

        life_write(path, text, strlen(text));
        assert_int_equal(chmod(path, 0755), 0);
}

/* ---- processes that die ---- */

static void test_swtpm_killed(void **state) {
        Uuid uuid = define_plain("one");
        uint8_t pcr[32];
        Vmm vmm;

        start_guest(uuid, &vmm, pcr);
        life_kill(&life, uuid, "swtpm.pid");
        life_until(&life, uuid, VTPM_DEGRADED);
        assert_non_null(strstr(life_view(&life, uuid).problems[0], "after its next reboot"));
        assert_int_equal(guest_random(&vmm), 0x101); /* no fresh PCRs for a machine that runs */
        assert_int_equal(life_view(&life, uuid).state, VTPM_DEGRADED);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_DEGRADED); /* its guest still runs */

        assert_int_equal(life_reset(&life, uuid), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_RUNNING);
        assert_null(life_view(&life, uuid).problems[0]);
        assert_pcr(&vmm, pcr, false);

        /* the guest's end does as well, for the next one; this is the same machine yet */
        life_kill(&life, uuid, "swtpm.pid");
        life_until(&life, uuid, VTPM_DEGRADED);
        vmm_done(&vmm);
        life_until(&life, uuid, VTPM_RUNNING);
        assert_null(life_view(&life, uuid).problems[0]);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        guest_open(&vmm, &life, uuid);
        life_until(&life, uuid, VTPM_DEGRADED);
        assert_int_equal(life_reset(&life, uuid), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_RUNNING);
        assert_int_equal(guest_random(&vmm), 0);
        vmm_done(&vmm);
}

/* The device's end of the connection to swtpm, from outside. */
static int steal_control(Uuid uuid) {
        int pid_fd = (int) syscall(SYS_pidfd_open, life_pid(&life, uuid, "device.pid"), 0), fd;

        for (int n = 0;; n++) {
                struct sockaddr_un peer = {};
                socklen_t size = sizeof peer - 1;

                assert_true(n < 64);
                fd = (int) syscall(SYS_pidfd_getfd, pid_fd, n, 0);
                if (fd >= 0 && getpeername(fd, (struct sockaddr *) &peer, &size) == 0 &&
                    strcmp(peer.sun_path, "ctrl.sock") == 0)
                        break;
                fd_close(fd);
        }
        fd_close(pid_fd);
        return fd;
}

/* What only the device can know: nothing has ended, but the guest has no TPM. */
static void test_swtpm_lost(void **state) {
        Uuid uuid = define_plain("one");
        uint8_t pcr[32];
        Vmm vmm;
        int fd;

        start_guest(uuid, &vmm, pcr);
        fd = steal_control(uuid);
        assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
        fd_close(fd);
        life_until(&life, uuid, VTPM_DEGRADED);
        assert_non_null(strstr(life_view(&life, uuid).problems[0], "after its next reboot"));
        assert_int_equal(guest_random(&vmm), 0x101);
        assert_int_equal(life_reset(&life, uuid), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_RUNNING);
        assert_pcr(&vmm, pcr, false);
        vmm_done(&vmm);
}

static void test_reset(void **state) {
        Uuid uuid = define_plain("one");
        uint8_t pcr[32];
        Vmm vmm;

        start_guest(uuid, &vmm, pcr);
        assert_int_equal(vmm_reset(&vmm), 0); /* the driver's: no reset of the TPM */
        assert_int_equal(vmm_start_ring(&vmm), 0);
        assert_pcr(&vmm, pcr, true);
        assert_int_equal(life_reset(&life, uuid), VTPM_DONE);
        assert_pcr(&vmm, pcr, false);
        assert_int_equal(life_counters(&life, uuid), VTPM_DONE);
        assert_int_equal(life_counter(&life, "machine-resets"), 2); /* the machine's start is one */
        vmm_done(&vmm);
}

static void test_device_killed(void **state) {
        Uuid uuid = define_plain("one");
        uint8_t pcr[32];
        Vmm vmm;

        start_guest(uuid, &vmm, pcr);
        vmm.killed = true;
        for (unsigned i = 0; i < 4; i++) {
                pid_t pid = life_pid(&life, uuid, "device.pid");

                life_kill(&life, uuid, "device.pid");
                assert_pcr(&vmm, pcr, true); /* the guest has noticed nothing but a pause */
                assert_int_not_equal(life_pid(&life, uuid, "device.pid"), pid);
                life_until(&life, uuid, VTPM_RUNNING);
        }
        assert_int_equal(life_counters(&life, uuid), VTPM_DONE);
        assert_int_equal(life_counter(&life, "restarts"), 4);
        vmm_done(&vmm);
}

static void test_restart_limit(void **state) {
        Uuid uuid = define_plain("one");
        uint64_t begin = clock_now_us();
        unsigned n;

        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        for (n = 0; n < 20 && life_view(&life, uuid).state != VTPM_FAILED; n++) {
                pid_t pid = life_pid(&life, uuid, "swtpm.pid");

                life_kill(&life, uuid, "swtpm.pid");
                LIFE_PUMP_UNTIL(&life, life_view(&life, uuid).state == VTPM_FAILED ||
                                               (life_pid(&life, uuid, "swtpm.pid") != pid &&
                                                life_pid(&life, uuid, "swtpm.pid") != 0 &&
                                                life_view(&life, uuid).state != VTPM_STOPPING));
        }
        if (clock_now_us() - begin > RESTARTS_US) /* too slow for six in a minute: each is one of few */
                skip();
        assert_int_equal(n, 6);
        assert_non_null(strstr(life_view(&life, uuid).problems[0], "again and again"));
        assert_int_equal(access(life_run_file(&life, uuid, ""), F_OK), -1);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
}

/* ---- managers that die ---- */

static void test_adoption(void **state) {
        Uuid uuid = define_plain("one"), crb = define_plain("two");
        uint8_t pcr[32];
        Vmm vmm;

        assert_int_equal(life_start(&life, crb, TPM_MODEL_CRB), VTPM_DONE);
        start_guest(uuid, &vmm, pcr);
        vmm.pump = NULL; /* nobody is there to be told */
        life_close(&life);
        assert_pcr(&vmm, pcr, true);

        vmm.pump = life_pump;
        assert_int_equal(life_open(&life), 0);
        life_until(&life, uuid, VTPM_RUNNING);
        life_until(&life, crb, VTPM_RUNNING);
        assert_int_equal(life_view(&life, crb).model, TPM_MODEL_CRB);
        assert_pcr(&vmm, pcr, true);
        assert_int_equal(life_counters(&life, uuid), VTPM_DONE);
        assert_true(life_counter(&life, "commands") >= 4);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);

        life_close(&life);
        life_kill(&life, uuid, "swtpm.pid");
        life_kill(&life, crb, "swtpm.pid");
        assert_int_equal(life_open(&life), 0);
        life_until(&life, uuid, VTPM_DEGRADED);
        life_until(&life, crb, VTPM_FAILED);
        assert_non_null(strstr(life_view(&life, crb).problems[0], "ended while"));
        assert_int_equal(life_reset(&life, uuid), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_RUNNING);
        assert_int_equal(guest_random(&vmm), 0);

        life_close(&life);
        life_kill(&life, uuid, "device.pid");
        assert_int_equal(life_open(&life), 0);
        life_until(&life, uuid, VTPM_DEGRADED);
        assert_non_null(strstr(life_view(&life, uuid).problems[0], "after its next start"));
        vmm_done(&vmm);
        guest_open(&vmm, &life, uuid);
        life_until(&life, uuid, VTPM_RUNNING); /* as soon as another VMM has it */
        assert_int_equal(guest_random(&vmm), 0);
        vmm_done(&vmm);

        life_close(&life);
        life_kill(&life, uuid, "device.pid");
        life_kill(&life, uuid, "swtpm.pid");
        assert_int_equal(life_open(&life), 0);
        life_until(&life, uuid, VTPM_FAILED);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
}

/* What another manager does when it is killed. */
typedef enum Deed { DEED_DEFINE, DEED_START, DEED_STOP, DEED_UNDEFINE, _DEED_MAX } Deed;

/* Whether the deed was done before the end. */
static bool die_after(unsigned steps, Deed deed, Uuid uuid) {
        const VtpmSpec spec = { .name = "one", .uuid = uuid, .no_certificates = true };
        int status;
        pid_t pid;

        pid = fork();
        if (pid == 0) {
                Life other = { .root_fd = life.root_fd };
                Vtpm *v;

                (void) strcpy(other.root, life.root);
                if (sd_event_new(&other.event) < 0 || life_open(&other) < 0)
                        _exit(2);
                v = other.vtpm;
                other.waits = 1;
                if (deed == DEED_DEFINE)
                        (void) v->ops->define(v, &spec, life_answer, &other);
                else if (deed == DEED_START)
                        (void) v->ops->start(v, uuid, TPM_MODEL_VIRTIO, life_answer, &other);
                else if (deed == DEED_STOP)
                        (void) v->ops->stop(v, uuid, life_answer, &other);
                else
                        (void) v->ops->undefine(v, uuid, true, life_answer, &other);
                while (steps-- > 0 && other.waits > 0)
                        (void) sd_event_run(other.event, UINT64_MAX);
                (void) kill(getpid(), other.waits > 0 ? SIGKILL : SIGTERM);
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        return WTERMSIG(status) == SIGTERM;
}

static bool settled(Uuid uuid) {
        VtpmView v;

        if (life.vtpm->ops->get(life.vtpm, uuid, &v) < 0)
                return true;
        return v.state == VTPM_DEFINED || v.state == VTPM_RUNNING || v.state == VTPM_FAILED;
}

/* Everything that the dead one has begun comes to an end, and the next one can do everything. */
static void check_after_death(Uuid uuid) {
        VtpmView v;
        Vmm vmm;

        assert_int_equal(life_open(&life), 0);
        (void) life_set_guest(&life, uuid, NULL); /* comes after what is under way */
        LIFE_PUMP_UNTIL(&life, settled(uuid));
        if (life.vtpm->ops->get(life.vtpm, uuid, &v) < 0) {
                /* perhaps it appears yet, when the job has ended that makes it */
                const VtpmSpec spec = { .name = "one", .uuid = uuid, .no_certificates = true };
                int r;

                /* and takes the directory in which it worked with it, perhaps under ours */
                LIFE_PUMP_UNTIL(&life, (r = life_define(&life, &spec)) != VTPM_UNAVAILABLE);
                assert_true(r == VTPM_DONE || r == VTPM_EXISTS);
                LIFE_PUMP_UNTIL(&life, life.vtpm->ops->get(life.vtpm, uuid, &v) >= 0);
        }
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        guest_open(&vmm, &life, uuid);
        assert_int_equal(guest_random(&vmm), 0);
        vmm_done(&vmm);
        assert_int_equal(life_stop(&life, uuid), VTPM_DONE);
        assert_int_equal(count_left(), 0);

        /* what the dead one had forked may have held its socket until now */
        life_close(&life);
        assert_int_equal(life_open(&life), 0);
        assert_int_equal(count_sockets(), 1);
}

static void test_manager_killed(void **state) {
        Uuid uuid;

        assert_int_equal(uuid_random(&uuid), 0);
        for (Deed deed = 0; deed < _DEED_MAX; deed++) {
                bool done = false;
                unsigned steps;

                for (steps = 0; !done && steps < STEPS_MAX; steps++) {
                        VtpmView v;
                        bool there = life.vtpm->ops->get(life.vtpm, uuid, &v) >= 0;

                        if (deed == DEED_DEFINE && there)
                                assert_int_equal(life_undefine(&life, uuid, true), VTPM_DONE);
                        if (deed == DEED_STOP)
                                assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
                        life_close(&life);
                        done = die_after(steps, deed, uuid);
                        check_after_death(uuid);
                }
                assert_true(done && steps > 2);
                (void) fprintf(stderr, "deed %d: killed at %u places\n", (int) deed, steps - 1);
        }
}

/* Its device has been started, but does not listen before the next manager has looked. */
static void test_manager_killed_early(void **state) {
        Uuid uuid = define_plain("one");
        const char *gate = life_path(&life, "gate");
        CLEANUP(freep) char *script = NULL, *path = NULL;
        CLEANUP(fd_closep) int fd = -1;
        int status;
        pid_t pid;
        Vmm vmm;

        assert_int_equal(mkfifo(gate, 0600), 0);
        assert_int_equal(mkdir(life_path(&life, "bin"), 0755), 0);
        assert_true(asprintf(&script, "#!/bin/sh\nread _ < %s\nexec %s/guestcrypt-tpm \"$@\"\n", gate,
                             device_dir) > 0);
        write_program("guestcrypt-tpm", script);
        assert_true(asprintf(&path, "%s:%s", life_path(&life, "bin"), tools_path) > 0);
        assert_int_equal(setenv("PATH", path, 1), 0);

        life_close(&life);
        pid = fork();
        if (pid == 0) {
                Life other = { .root_fd = life.root_fd };

                (void) strcpy(other.root, life.root);
                if (sd_event_new(&other.event) < 0 || life_open(&other) < 0)
                        _exit(2);
                other.waits = 1;
                (void) other.vtpm->ops->start(other.vtpm, uuid, TPM_MODEL_VIRTIO, life_answer, &other);
                while (access(life_run_file(&life, uuid, "device.pid"), F_OK) < 0)
                        (void) sd_event_run(other.event, 10000);
                (void) kill(getpid(), SIGKILL);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));

        assert_int_equal(life_open(&life), 0);
        fd = open(life_path(&life, "gate"), O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "\n", 1), 1);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        guest_open(&vmm, &life, uuid);
        assert_int_equal(guest_random(&vmm), 0);
        vmm_done(&vmm);
        assert_int_equal(setenv("PATH", tools_path, 1), 0);
}

/* Two that know nothing of each other: one wins. */
static void test_two_managers(void **state) {
        Uuid uuid = define_plain("one");
        int to[2], from[2], status;
        VtpmView v;
        pid_t pid;
        char c = 0;

        assert_true(pipe(to) == 0 && pipe(from) == 0);
        pid = fork();
        if (pid == 0) {
                Life other = { .root_fd = life.root_fd };

                (void) strcpy(other.root, life.root);
                if (sd_event_new(&other.event) < 0 || life_open(&other) < 0 || write(from[1], &c, 1) != 1 ||
                    read(to[0], &c, 1) != 1)
                        _exit(99);
                _exit(life_start(&other, uuid, TPM_MODEL_VIRTIO));
        }
        assert_int_equal(read(from[0], &c, 1), 1);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        assert_int_equal(write(to[1], &c, 1), 1);
        assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), VTPM_IN_USE);
        v = life_view(&life, uuid);
        assert_int_equal(v.state, VTPM_RUNNING);
        assert_int_equal(life_counters(&life, uuid), VTPM_DONE);
        for (unsigned i = 0; i < 2; i++) {
                fd_close(to[i]);
                fd_close(from[i]);
        }
}

/* ---- what hangs ---- */

static void test_hung_swtpm(void **state) {
        Uuid uuid = define_plain("one"), crb = define_plain("two");
        uint8_t pcr[32];
        Vmm vmm;

        start_guest(uuid, &vmm, pcr);
        assert_int_equal(life_start(&life, crb, TPM_MODEL_CRB), VTPM_DONE);
        assert_int_equal(kill(life_pid(&life, uuid, "swtpm.pid"), SIGSTOP), 0);
        assert_int_equal(kill(life_pid(&life, uuid, "device.pid"), SIGSTOP), 0);
        assert_int_equal(kill(life_pid(&life, crb, "swtpm.pid"), SIGSTOP), 0);
        assert_int_equal(life_counters(&life, uuid), VTPM_TIMEOUT);
        assert_int_equal(life_stop(&life, uuid), VTPM_DONE);
        assert_int_equal(life_stop(&life, crb), VTPM_DONE);
        vmm_done(&vmm);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
}

static bool flooded;

ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);

/* The manager's: there is always something more that somebody said. */
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags) {
        static const char something[] = "STATUS=x";
        ssize_t n = __real_recvmsg(fd, m, flags);

        if (n >= 0 || errno != EAGAIN || !flooded)
                return n;
        memcpy(m->msg_iov->iov_base, something, sizeof something - 1);
        m->msg_controllen = 0;
        m->msg_flags = 0;
        return sizeof something - 1;
}

/* Who does nothing but talk to the manager keeps nobody from being served. */
static void test_flood(void **state) {
        Uuid uuid = define_plain("one");
        uint8_t pcr[32];
        Vmm vmm;

        flooded = true;
        (void) alarm(VMM_PATIENCE_MS / 1000); /* rather than for ever */
        start_guest(uuid, &vmm, pcr);
        vmm.killed = true;
        life_kill(&life, uuid, "device.pid");
        assert_pcr(&vmm, pcr, true);
        assert_int_equal(life_counters(&life, uuid), VTPM_DONE);
        assert_int_equal(life_stop(&life, uuid), VTPM_DONE);
        (void) alarm(0);
        flooded = false;
        vmm_done(&vmm);
}

/* ---- disks, files, programs ---- */

static void test_disk(void **state) {
        const char *directory = life_path(&life, VTPM_STATE_DIR);
        Uuid kept = define_plain("kept");
        CLEANUP(freep) Uuid *list = NULL;
        size_t n;

        life_close(&life);
        assert_int_equal(mount("full", directory, "tmpfs", 0, "size=24k,mode=700"), 0);
        assert_int_equal(life_open(&life), 0);
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "new" }), VTPM_UNAVAILABLE);
        assert_int_equal(count_left(), 0);
        assert_int_equal(life.vtpm->ops->list(life.vtpm, &list, &n), 0);
        assert_int_equal(n, 0);
        life_close(&life);

        /* with room there is nothing that keeps the next one from being made */
        assert_int_equal(mount("full", directory, "tmpfs", MS_REMOUNT, "size=1m,mode=700"), 0);
        assert_int_equal(life_open(&life), 0);
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "new" }), VTPM_DONE);
        life_close(&life);
        assert_int_equal(umount2(directory, MNT_DETACH), 0);

        assert_int_equal(life_open(&life), 0);
        assert_int_equal(mount(directory, directory, NULL, MS_BIND, NULL), 0);
        assert_int_equal(mount(NULL, directory, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
        life_close(&life);
        assert_int_equal(life_open(&life), 0);
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "new" }), VTPM_UNAVAILABLE);
        assert_int_equal(life_set_guest(&life, kept, "g"), VTPM_UNAVAILABLE);
        assert_null(life_view(&life, kept).spec.guest);
        assert_int_equal(life_undefine(&life, kept, true), VTPM_UNAVAILABLE);
        assert_int_equal(life_view(&life, kept).state, VTPM_DEFINED);
        assert_int_equal(life_start(&life, kept, TPM_MODEL_VIRTIO), VTPM_UNAVAILABLE);
        life_close(&life);
        assert_int_equal(umount2(directory, MNT_DETACH), 0);
        assert_int_equal(life_open(&life), 0);
        assert_int_equal(count_left(), 0);
        assert_int_equal(life_start(&life, kept, TPM_MODEL_VIRTIO), VTPM_DONE);
}

static void test_bad_records(void **state) {
        static const char *const contents[] = {
                "", "{", "[]", "{}", "{\"version\":2}", "{\"version\":1,\"uuid\":\"x\"}"
        };
        Uuid uuid = define_plain("one"), other = define_plain("two");
        CLEANUP(freep) char *good = NULL;
        size_t size, n = 0;

        assert_int_equal(file_read_at(AT_FDCWD, life_state_file(&life, uuid, "tpm.json"), 65536, &good,
                                      &size),
                         0);
        for (size_t i = 0; i < ELEMENTS(contents); i++) {
                life_close(&life);
                life_write(life_state_file(&life, uuid, "tpm.json"), contents[i], strlen(contents[i]));
                assert_int_equal(life_open(&life), 0);
                for (n = 0; life.vtpm->ops->problems(life.vtpm)[n]; n++)
                        ;
                assert_int_equal(n, 1);
                assert_non_null(strstr(life.vtpm->ops->problems(life.vtpm)[0], "tpm.json"));
                assert_int_equal(life.vtpm->ops->find(life.vtpm, "one", &(Uuid) {}), -ENOENT);
                assert_int_equal(life_view(&life, other).state, VTPM_DEFINED);
        }
        assert_int_equal(life_define(&life,
                                     &(VtpmSpec) { .name = "one", .uuid = uuid, .no_certificates = true }),
                         VTPM_BAD_RECORD);
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "one", .no_certificates = true }),
                         VTPM_DONE);
        assert_int_not_equal(life_view(&life, life.uuid).uid, 1900000001); /* that is the unread one's */
        assert_int_equal(life_undefine(&life, life.uuid, true), VTPM_DONE);

        life_close(&life);
        life_write(life_state_file(&life, uuid, "tpm.json"), good, size);
        assert_int_equal(life_open(&life), 0);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);

        /* what is beside them is nobody's affair */
        assert_int_equal(mkdir(life_path(&life, VTPM_STATE_DIR "/tpms/readme"), 0700), 0);
        assert_int_equal(mkdir(life_path(&life,
                                         VTPM_STATE_DIR "/tpms/.new-0fdcd2d6-1a3c-4dc2-8d3c-d7fb0b0ec3ac"),
                               0700),
                         0);
        life_close(&life);
        assert_int_equal(life_open(&life), 0);
        LIFE_PUMP_UNTIL(&life, access(life_path(&life, VTPM_STATE_DIR
                                                "/tpms/.new-0fdcd2d6-1a3c-4dc2-8d3c-d7fb0b0ec3ac"),
                                      F_OK) < 0);
        assert_int_equal(access(life_path(&life, VTPM_STATE_DIR "/tpms/readme"), F_OK), 0);
}

static void tools_at_gate(void) {
        char *path;

        assert_int_equal(mkdir(life_path(&life, "bin"), 0755), 0);
        assert_int_equal(mkfifo(life_path(&life, "bin/gate"), 0666), 0);
        assert_int_equal(chmod(life_path(&life, "bin/gate"), 0666), 0);
        write_program("swtpm_setup", "#!/bin/sh\nPATH=${PATH#*:}\n"
                                     "case $* in *capabilities*) ;; *) read -r line < ${0%/*}/gate ;; esac\n"
                                     "exec swtpm_setup \"$@\"\n");
        assert_true(asprintf(&path, "%s:%s", life_path(&life, "bin"), tools_path) > 0);
        assert_int_equal(setenv("PATH", path, 1), 0);
        free(path);
}

/* A daemon ends while a TPM is made: the next one gives nobody else its name or its user meanwhile. */
static void test_made_meanwhile(void **state) {
        static const Uuid uuid = { .b = { 9 } };
        const VtpmSpec spec = { .name = "slow", .uuid = uuid, .no_certificates = true };
        int fd = -1;
        Uuid other;

        tools_at_gate();
        assert_int_equal(life.vtpm->ops->define(life.vtpm, &spec, life_answer, &life), 0);
        LIFE_PUMP_UNTIL(&life,
                        (fd = open(life_path(&life, "bin/gate"), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0);
        life_close(&life);
        assert_int_equal(setenv("PATH", tools_path, 1), 0);
        for (unsigned i = 0; i < 2; i++) { /* a third one, too, for which the second has asked after it */
                assert_int_equal(life_open(&life), 0);
                assert_int_equal(life_view(&life, uuid).state, VTPM_CREATING);
                assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "slow", .no_certificates = true }),
                                 VTPM_EXISTS);
                if (i == 0)
                        life_close(&life);
        }
        other = define_plain("other");
        assert_int_equal(write(fd, "\n", 1), 1);
        (void) close(fd);
        life_until(&life, uuid, VTPM_DEFINED);

        life_close(&life);
        assert_int_equal(life_open(&life), 0);
        assert_string_equal(life_view(&life, uuid).spec.name, "slow");
        assert_string_equal(life_view(&life, other).spec.name, "other");
        assert_int_not_equal(life_view(&life, uuid).uid, life_view(&life, other).uid);
}

static void test_programs(void **state) {
        Uuid uuid = define_plain("one");
        char *path;

        assert_int_equal(mkdir(life_path(&life, "bin"), 0755), 0);
        assert_int_equal(setenv("PATH", life_path(&life, "bin"), 1), 0);
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "two" }), VTPM_UNAVAILABLE);
        assert_string_equal(life.text, "swtpm_setup is not installed");
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_CRB), VTPM_UNAVAILABLE);
        assert_non_null(strstr(life.text, "swtpm is not installed"));

        assert_true(asprintf(&path, "%s:%s", life_path(&life, "bin"), tools_path) > 0);
        assert_int_equal(setenv("PATH", path, 1), 0);
        free(path);
        write_program("swtpm_setup",
                      "#!/bin/sh\necho '{ \"type\": \"swtpm_setup\", \"features\": [ \"tpm-1.2\" ] }'\n");
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "two" }), VTPM_UNAVAILABLE);
        assert_non_null(strstr(life.text, "too old"));
        write_program("swtpm_setup", "#!/bin/sh\necho libtpms.so.0: cannot open >&2; exit 127\n");
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "two" }), VTPM_UNAVAILABLE);
        assert_non_null(strstr(life.text, "libtpms.so.0: cannot open"));
        write_program(
                "swtpm_setup",
                "#!/bin/sh\ncase $* in *capabilities*) echo '\"tpm-2.0\" \"cmdarg-keyfile-fd\"'; exit;; esac\n"
                "echo one; echo two >&2; echo 'Ending vTPM manufacturing'; exit 3\n");
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "two" }), VTPM_TOOL);
        assert_string_equal(life.text, "swtpm_setup: two");
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "two", .profile = "default-v1" }),
                         VTPM_UNAVAILABLE);
        assert_non_null(strstr(life.text, "0.10"));

        /* a job that is killed leaves nothing */
        write_program("swtpm_setup", "#!/bin/sh\nkill -9 $PPID\n");
        assert_int_equal(life_define(&life, &(VtpmSpec) { .name = "two" }), VTPM_TOOL);
        LIFE_PUMP_UNTIL(&life, count_left() == 0);

        /* swtpm that ends at once: before the device is there, or soon afterwards */
        write_program("swtpm", "#!/bin/sh\nexit 7\n");
        if (life_start(&life, uuid, TPM_MODEL_VIRTIO) == VTPM_DONE)
                life_until(&life, uuid, VTPM_FAILED);
        assert_int_equal(access(life_run_file(&life, uuid, ""), F_OK), -1);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_TIS), VTPM_TOOL);
        assert_non_null(strstr(life.text, "ended as soon as"));
        assert_int_equal(access(life_run_file(&life, uuid, ""), F_OK), -1);
        assert_int_equal(setenv("PATH", tools_path, 1), 0);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_swtpm_killed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_swtpm_lost, setup, teardown),
                cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
                cmocka_unit_test_setup_teardown(test_device_killed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_restart_limit, setup, teardown),
                cmocka_unit_test_setup_teardown(test_adoption, setup, teardown),
                cmocka_unit_test_setup_teardown(test_manager_killed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_manager_killed_early, setup, teardown),
                cmocka_unit_test_setup_teardown(test_two_managers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hung_swtpm, setup, teardown),
                cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
                cmocka_unit_test_setup_teardown(test_disk, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_records, setup, teardown),
                cmocka_unit_test_setup_teardown(test_made_meanwhile, setup, teardown),
                cmocka_unit_test_setup_teardown(test_programs, setup, teardown),
        };

        if (!life_possible() || !life_enclose())
                return 77;
        launcher = argv[1];
        device_dir = argv[2];
        if (asprintf(&tools_path, "%s:%s", argv[2], getenv("PATH")) < 0)
                return EXIT_FAILURE;
        (void) setenv("PATH", tools_path, 1);
        if (argc > 3)
                cmocka_set_test_filter(argv[3]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
