/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The real device process with the real swtpm: usage: test_process GUESTCRYPT-TPM FDSTORE [TEST] */

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "drivers/virtio-tpm/codec.h"
#include "lib/vtpm/process.h"

#define RESTARTS   100
#define RESETS_MAX 100000 /* as many messages fit into no queue */
#define KILLS      300
#define KILL_WITHIN \
        "600" /* times that it enters or leaves a system call: those of a start and of one round */
#define TRIES_MAX      20
#define COMMANDS_MAX   20000
#define PROCESSORS_MAX 8192

#if defined __SANITIZE_ADDRESS__
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static const char *program, *fdstore;
static Process process;

static const uint8_t get_random[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16 };
static const uint8_t pcr_read[] = { 0x80, 0x01, 0, 0, 0, 20,   0, 0, 0x01, 0x7e,
                                    0,    0,    0, 1, 0, 0x0b, 3, 0, 4,    0 };
static const uint8_t pcr_extend[65] = {
        0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 10, 0, 0,    0,
        9,    0x40, 0, 0, 9, 0,  0, 0, 0,    0,    0, 0, 0, 1,  0, 0x0b, 0xaa
};
/* TPM2_Clear with the platform's empty authorisation */
static const uint8_t clear[] = { 0x80, 0x02, 0, 0, 0,    27, 0, 0, 0x01, 0x26, 0x40, 0, 0, 0x0c,
                                 0,    0,    0, 9, 0x40, 0,  0, 9, 0,    0,    0,    0, 0 };

static int run(const uint8_t *command, size_t size, uint8_t *response) {
        return vmm_command(&process.vmm, command, size, response, VMM_QUEUE * 64, VMM_PATIENCE_MS);
}

/* How often a PCR was changed since the TPM was switched on. */
static uint32_t update_counter(void) {
        uint8_t response[4096];

        assert_true(run(pcr_read, sizeof pcr_read, response) > 14);
        assert_int_equal(codec_code(response), 0);
        return codec_get32(response + 10);
}

static void start(bool vhost, const char *option) {
        /* a sanitizer needs what the sandbox takes away */
        process_start(&process, program, fdstore, vhost, SANITIZED && !option ? "--sandbox=no" : option);
        assert_int_equal(vmm_start(&process.vmm), 0);
        process_settle(&process);
}

/* A test that failed leaves its processes. */
static int teardown(void **state) {
        if (process.swtpm > 0) {
                process_tell(&process);
                process_stop(&process);
        }
        return 0;
}

static void test_commands(void **state) {
        for (unsigned vhost = 0; vhost < 2; vhost++) {
                uint8_t response[4096];
                uint32_t before;

                start(vhost, NULL);
                assert_int_equal(run(get_random, sizeof get_random, response), 28);
                assert_int_equal(codec_code(response), 0);
                before = update_counter();
                for (unsigned i = 0; i < 10; i++) {
                        assert_true(run(pcr_extend, sizeof pcr_extend, response) >= 10);
                        assert_int_equal(codec_code(response), 0);
                }
                assert_int_equal(update_counter(), before + 10);
                assert_int_equal(run(clear, sizeof clear, response), 10);
                assert_int_equal(codec_code(response), 0x9a2); /* TPM_RC_BAD_AUTH for the first session */
                if (!SANITIZED) {
                        assert_int_equal(process_status(&process, "CapEff"), 0);
                        assert_int_equal(process_status(&process, "NoNewPrivs"), 1);
                        assert_int_equal(process_status(&process, "Seccomp"), 2);
                        assert_true(process_status(&process, "VmRSS") > 0 &&
                                    process_status(&process, "VmRSS") < 4096);
                }
                process_stop(&process);
        }
}

static void test_keep_platform(void **state) {
        uint8_t response[4096];

        if (SANITIZED)
                skip();
        start(true, "--platform=keep");
        assert_int_equal(run(get_random, sizeof get_random, response), 10);
        assert_int_equal(codec_code(response), 0x100); /* to be started by the guest */
        process_stop(&process);
}

static void share(uint64_t address) {
        struct {
                uint32_t argsz, flags;
                uint64_t offset, address, size;
        } map = { 32, 3, 0, address, VMM_SIZE };
        Vmm *v = &process.vmm;

        assert_int_equal(vmm_vfio(v, 2, &map, sizeof map, &v->memory_fd, 1, NULL, 0), 0);
}

static void take_back(uint64_t address) {
        struct {
                uint32_t argsz, flags;
                uint64_t address, size;
        } unmap = { 24, 0, address, VMM_SIZE };

        assert_int_equal(vmm_vfio(&process.vmm, 3, &unmap, sizeof unmap, NULL, 0, NULL, 0), sizeof unmap);
}

/* What an s390x guest's IOMMU does for each command: memory that is shared, with its descriptor, and taken back. */
static void share_and_take_back(void) {
        share(UINT64_C(0x10000000));
        take_back(UINT64_C(0x10000000));
}

/* Restarts under load: told to end or killed, nothing is lost and nothing is done twice. False: it was killed just as it sent a
 * command, about which nobody can tell (test_killed_before_sending()). */
static bool restarts(bool vhost, int sig) {
        unsigned n_good = 0, n_failed = 0, n_restarts = 0;
        uint8_t response[4096];
        uint32_t before, after;
        time_t since;

        start(vhost, NULL);
        before = update_counter();
        process.vmm.killed = sig == SIGUSR2;
        assert_int_equal(kill(process.store, sig), 0);
        since = time(NULL);
        while (n_restarts < RESTARTS) {
                int r;

                /* first, since it is now that the process may be killed */
                for (unsigned i = 0; i < 3 && !vhost; i++)
                        share_and_take_back();
                r = run(pcr_extend, sizeof pcr_extend, response);
                if (r < 10 && sig == SIGUSR2 && strcmp(process_value(&process, "request"), "unsure") == 0) {
                        process_stop(&process);
                        return false;
                }
                if (r < 10)
                        fail_msg("no answer after %u restarts and %u commands: %d", n_restarts, n_good, r);
                if (codec_code(response) == 0)
                        n_good++;
                else {
                        assert_int_equal(codec_code(response), VIRTIO_TPM_RC_FAILURE);
                        n_failed++;
                }
                if (process_ready(&process, 0)) {
                        since = time(NULL);
                        if (++n_restarts < RESTARTS)
                                assert_int_equal(kill(process.store, sig), 0);
                } else if (time(NULL) - since > VMM_PATIENCE_MS / 1000)
                        fail_msg("no restart after the first %u, but %u commands", n_restarts, n_good);
        }
        after = update_counter();
        (void) printf("%s, signal %d: %u restarts, %u commands, %u answered with an error\n",
                      vhost ? "vhost-user" : "vfio-user", sig, n_restarts, n_good, n_failed);
        assert_int_equal(n_failed, 0);
        assert_int_equal(after - before, n_good);
        process_stop(&process);
        return true;
}

static void test_restarts(void **state) {
        assert_true(restarts(false, SIGUSR1));
        assert_true(restarts(true, SIGUSR1));
}

static void test_kills(void **state) {
        /* where nobody can tell are a few instructions, where it may be killed if other work comes between: once, but not twice */
        assert_true(restarts(false, SIGUSR2) || restarts(false, SIGUSR2));
        assert_true(restarts(true, SIGUSR2) || restarts(true, SIGUSR2));
}

/* One after another of what a VMM does, while the device is killed at one system call after another. */
static void killed_at_calls(bool vhost) {
        uint8_t response[4096];
        uint32_t before;

        if (SANITIZED || !process_traceable()) /* a sanitizer takes long to begin, with calls of its own */
                skip();
        assert_int_equal(setenv("FDSTORE_KILL_WITHIN", KILL_WITHIN, 1), 0);
        process_start(&process, program, fdstore, vhost, NULL);
        assert_int_equal(unsetenv("FDSTORE_KILL_WITHIN"), 0);
        assert_int_equal(vmm_start(&process.vmm), 0);
        before = update_counter();
        for (uint32_t n = 1; process.n_killed < KILLS; n++) {
                if (!vhost)
                        share_and_take_back();
                assert_true(run(pcr_extend, sizeof pcr_extend, response) >= 10);
                assert_int_equal(codec_code(response), 0);
                assert_int_equal(update_counter(), before + n);

                /* a driver's reset, and a machine's memory that is another for a while */
                assert_int_equal(vmm_reset(&process.vmm), 0);
                if (!vhost)
                        take_back(VMM_BASE);
                assert_int_equal(vmm_share_memory(&process.vmm), 0);
                assert_int_equal(vmm_start_ring(&process.vmm), 0);
                assert_int_equal(run(get_random, sizeof get_random, response), 28);
                while (process_ready(&process, 0))
                        ;
        }
        process_stop(&process);
}

static void test_vfio_killed_at_calls(void **state) {
        killed_at_calls(false);
}

static void test_vhost_killed_at_calls(void **state) {
        killed_at_calls(true);
}

/* Between the note that a command is being sent and its sending: nobody can tell, but the guest does not wait for ever. */
static void test_killed_before_sending(void **state) {
        uint8_t response[4096];

        if (SANITIZED || !process_traceable())
                skip();
        /* the third one: the TPM is started, and its platform hierarchy locked before */
        assert_int_equal(setenv("FDSTORE_KILL_COMMAND", "3", 1), 0);
        process_start(&process, program, fdstore, true, "--deadline=1");
        assert_int_equal(unsetenv("FDSTORE_KILL_COMMAND"), 0);
        assert_int_equal(vmm_start(&process.vmm), 0);
        assert_int_equal(run(get_random, sizeof get_random, response), 10);
        assert_int_equal(codec_code(response), VIRTIO_TPM_RC_FAILURE);
        assert_true(process_ready(&process, VMM_PATIENCE_MS));
        assert_int_equal(process.n_killed, 1);
        process_stop(&process);
}

/* Just after one of swtpm's replies to what switches the TPM on, before anything was made of it. */
static void test_killed_at_replies(void **state) {
        static const char *const replies[] = { "1", "2", "3", "4" };
        uint8_t response[4096];

        if (SANITIZED || !process_traceable())
                skip();
        for (unsigned i = 0; i < sizeof replies / sizeof *replies; i++) {
                assert_int_equal(setenv("FDSTORE_KILL_REPLY", replies[i], 1), 0);
                process_start(&process, program, fdstore, false, NULL);
                assert_int_equal(unsetenv("FDSTORE_KILL_REPLY"), 0);
                assert_int_equal(vmm_start(&process.vmm), 0);
                assert_int_equal(run(get_random, sizeof get_random, response), 28);
                assert_int_equal(codec_code(response), 0);
                while (process_ready(&process, 0))
                        ;
                assert_int_equal(process.n_killed, 1);
                process_stop(&process);
        }
}

static void test_swtpm_killed(void **state) {
        uint8_t response[4096];

        start(false, NULL);
        assert_int_equal(run(get_random, sizeof get_random, response), 28);
        assert_int_equal(kill(process.swtpm, SIGKILL), 0);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(run(get_random, sizeof get_random, response), 10);
                assert_int_equal(codec_code(response), VIRTIO_TPM_RC_FAILURE);
        }

        /* not even with a process that has nobody to connect to: the numbers of its options mean nothing any more */
        process_settle(&process);
        assert_int_equal(kill(process.store, SIGUSR2), 0);
        assert_true(process_ready(&process, VMM_PATIENCE_MS));
        assert_int_equal(run(get_random, sizeof get_random, response), 10);
        assert_int_equal(codec_code(response), VIRTIO_TPM_RC_FAILURE);
        process_stop(&process);
}

/* Whether the device has the guest's memory. */
static bool has_memory(void) {
        char path[64], line[512];
        bool has = false;
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/maps", (int) process.device);
        f = fopen(path, "re");
        assert_non_null(f);
        while (fgets(line, sizeof line, f))
                has |= strstr(line, "memfd:guest ") != NULL; /* its own is "guestcrypt-tpm" */
        (void) fclose(f);
        return has;
}

/* All of the guest's memory goes and comes, as at its reset, while the manager that is told of it does not listen, and until there is no
 * room for more in what it has not heard. */
static void reset_unheard(void) {
        uint8_t response[4096];

        assert_int_equal(kill(process.store, SIGSTOP), 0);
        for (unsigned i = 0; strcmp(process_value(&process, "manager"), "behind") != 0; i++) {
                assert_true(i < RESETS_MAX);
                take_back(VMM_BASE);
                share(VMM_BASE);
                assert_int_equal(run(get_random, sizeof get_random, response), 28);
        }
}

static void test_manager_hangs(void **state) {
        uint8_t response[4096];

        /* it listens again, and has everything at the next restart */
        start(false, NULL);
        reset_unheard();
        assert_int_equal(kill(process.store, SIGCONT), 0);
        process_settle(&process);
        assert_int_equal(kill(process.store, SIGUSR2), 0);
        assert_true(process_ready(&process, VMM_PATIENCE_MS));
        assert_true(has_memory());
        assert_int_equal(run(get_random, sizeof get_random, response), 28);

        /* it does not: what it has belongs to another time, and a process that is given that does not go on with it */
        reset_unheard();
        assert_int_equal(kill(process.device, SIGKILL), 0);
        assert_int_equal(kill(process.store, SIGCONT), 0);
        assert_true(process_ready(&process, VMM_PATIENCE_MS));
        assert_false(has_memory());
        process_stop(&process);
}

/* Nothing to do: not even once in a second. On a busy machine it may take some before it has gone to sleep. */
static void test_idle(void **state) {
        uint8_t response[4096];
        unsigned tries = 0;
        long before;

        start(false, NULL);
        assert_int_equal(run(get_random, sizeof get_random, response), 28);
        (void) vmm_get(&process.vmm, 0, 0x14, 1); /* it has gone through its loop */
        do {
                assert_true(tries++ < TRIES_MAX);
                before = process_status(&process, "voluntary_ctxt_switches");
                (void) poll(NULL, 0, 1000); /* the measurement */
        } while (process_status(&process, "voluntary_ctxt_switches") != before);
        process_stop(&process);
}

/* Whether the kernel tells how long somebody waits for a processor. */
static bool tells_waiting(void) {
        FILE *f = fopen("/proc/thread-self/schedstat", "re");
        unsigned long long times = 0;

        if (!f)
                return false;
        assert_int_equal(fscanf(f, "%*u %*u %llu", &times), 1);
        assert_int_equal(fclose(f), 0);
        return times > 0; /* that it had a processor */
}

static struct sched_attr attributes(pid_t pid) {
        struct sched_attr attr = {};

        assert_int_equal(syscall(SYS_sched_getattr, pid, &attr, sizeof attr, 0), 0);
        return attr;
}

/* Whoever rings the doorbell is not interrupted by what it wakes. */
static void test_turn(void **state) {
        struct sched_attr own = attributes(0), attr;

        start(false, NULL);
        attr = attributes(process.device);
        assert_int_equal(attr.sched_policy, tells_waiting() ? SCHED_BATCH : SCHED_NORMAL);
        assert_int_equal(attr.sched_nice, own.sched_nice);
        if (own.sched_runtime > 0) /* Linux 6.12 and later */
                assert_int_equal(attr.sched_runtime, 4000000);
        process_stop(&process);
}

static void set_policy(uint32_t policy) {
        struct sched_attr attr = attributes(0);

        attr.size = sizeof attr;
        attr.sched_policy = policy;
        assert_int_equal(syscall(SYS_sched_setattr, 0, &attr, 0), 0);
}

static void nothing(void *userdata) {
}

/* A guest that computes while it waits has the device wait for the scheduler's next tick on the only processor: that is not for long. */
static void test_turn_lost(void **state) {
        unsigned long all[PROCESSORS_MAX / 64] = {}, one[PROCESSORS_MAX / 64] = {};
        uint8_t response[4096];
        unsigned processor;

        if (!tells_waiting())
                skip();
        start(false, NULL);
        assert_true(syscall(SYS_sched_getaffinity, 0, sizeof all, all) > 0);
        assert_int_equal(syscall(SYS_getcpu, &processor, NULL, NULL), 0);
        one[processor / 64] = 1UL << processor % 64;
        assert_int_equal(syscall(SYS_sched_setaffinity, 0, sizeof one, one), 0);
        assert_int_equal(syscall(SYS_sched_setaffinity, process.device, sizeof one, one), 0);

        process.vmm.pump = nothing;
        for (unsigned i = 0; attributes(process.device).sched_policy == SCHED_BATCH; i++) {
                assert_true(i < COMMANDS_MAX);
                assert_int_equal(run(get_random, sizeof get_random, response), 28);
        }
        assert_int_equal(attributes(process.device).sched_policy, SCHED_NORMAL);

        /* it computes no longer */
        process.vmm.pump = NULL;
        for (unsigned i = 0; attributes(process.device).sched_policy == SCHED_NORMAL; i++) {
                assert_true(i < COMMANDS_MAX);
                assert_int_equal(run(get_random, sizeof get_random, response), 28);
        }
        assert_int_equal(attributes(process.device).sched_policy, SCHED_BATCH);
        assert_int_equal(syscall(SYS_sched_setaffinity, 0, sizeof all, all), 0);
        process_stop(&process);
}

/* What an administrator has chosen stays. */
static void test_turn_chosen(void **state) {
        uint64_t runtime = attributes(0).sched_runtime;

        set_policy(SCHED_BATCH);
        start(false, NULL);
        set_policy(SCHED_NORMAL);
        assert_int_equal(attributes(process.device).sched_policy, SCHED_BATCH);
        assert_int_equal(attributes(process.device).sched_runtime, runtime);
        process_stop(&process);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_commands, teardown),
                cmocka_unit_test_teardown(test_keep_platform, teardown),
                cmocka_unit_test_teardown(test_turn, teardown),
                cmocka_unit_test_teardown(test_turn_lost, teardown),
                cmocka_unit_test_teardown(test_turn_chosen, teardown),
                cmocka_unit_test_teardown(test_restarts, teardown),
                cmocka_unit_test_teardown(test_kills, teardown),
                cmocka_unit_test_teardown(test_vfio_killed_at_calls, teardown),
                cmocka_unit_test_teardown(test_vhost_killed_at_calls, teardown),
                cmocka_unit_test_teardown(test_killed_before_sending, teardown),
                cmocka_unit_test_teardown(test_killed_at_replies, teardown),
                cmocka_unit_test_teardown(test_swtpm_killed, teardown),
                cmocka_unit_test_teardown(test_manager_hangs, teardown),
                cmocka_unit_test_teardown(test_idle, teardown),
        };

        if (argc < 3) {
                (void) fprintf(stderr, "usage: test_process GUESTCRYPT-TPM FDSTORE [TEST]\n");
                return 2;
        }
        if (!process_possible()) {
                (void) fprintf(stderr, "skipped: swtpm is not installed\n");
                return 77;
        }
        program = argv[1];
        fdstore = argv[2];
        if (argc > 3)
                cmocka_set_test_filter(argv[3]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
