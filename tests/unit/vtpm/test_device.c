/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The device's life with either front end: resets, stops, restarts, and a TPM that misbehaves. */

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/socket.h>

#include "unit/vtpm/vtpm_test.h"

static Harness h;

/* PCR_Extend stands for all that must not be done twice; here two commands that differ. */
static const uint8_t command_a[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x82, 0, 1 };
static const uint8_t command_b[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x82, 0, 2 };

static int command(const uint8_t *bytes, uint8_t *response) {
        return vmm_command(&h.vmm, bytes, 12, response, 64, HARNESS_MS);
}

static void expect_good(void) {
        uint8_t response[64];

        assert_int_equal(command(get_random, response), 28);
        assert_int_equal(codec_code(response), 0);
}

static void expect_error(uint32_t code) {
        uint8_t response[64];

        assert_int_equal(command(get_random, response), 10);
        assert_int_equal(codec_code(response), code);
}

static void begin(unsigned vhost) {
        harness_init(&h, vhost);
        assert_int_equal(vmm_start(&h.vmm), 0);
}

/* Switched on once, before the first command, and closed to the guest. */
static void test_power_on(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                begin(vhost);
                expect_good();
                assert_int_equal(h.tpm.n_init, 1);
                assert_int_equal(h.tpm.n_startups, 1);
                assert_int_equal(h.tpm.n_locks, 1);
                assert_true(vmm_interrupts(&h.vmm) > 0);
                harness_done(&h);
        }
}

static void test_keep_platform(void **state) {
        const ServiceOptions options = { .front = FRONT_VHOST_USER,
                                         .peer_uid = (uid_t) -1,
                                         .tpm.keep_platform = true };

        harness_init_with(&h, &options);
        assert_int_equal(vmm_start(&h.vmm), 0);
        expect_good();
        assert_int_equal(h.tpm.n_init, 1);
        assert_int_equal(h.tpm.n_startups + h.tpm.n_locks, 0);
        harness_done(&h);
}

static void test_denied(void **state) {
        const ServiceOptions options = {
                .front = FRONT_VFIO_USER, .peer_uid = (uid_t) -1, .denied = { 0x139, 0x17b }, .n_denied = 2
        };
        uint8_t response[64];

        harness_init_with(&h, &options);
        assert_int_equal(vmm_start(&h.vmm), 0);
        expect_error(VIRTIO_TPM_RC_COMMAND_CODE);
        assert_int_equal(command(command_a, response), 28);
        assert_int_equal(h.tpm.n_commands, 1);
        harness_done(&h);
}

/* Whatever a guest's root can do to the device, the TPM is not reset by it. */
static void test_driver_resets(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                begin(vhost);
                expect_good();
                for (unsigned i = 0; i < 3; i++) {
                        assert_int_equal(vmm_reset(&h.vmm), 0);
                        assert_int_equal(vmm_start_ring(&h.vmm), 0);
                        expect_good();
                }
                if (vhost)
                        assert_int_equal(vmm_vhost(&h.vmm, 34, NULL, 0, NULL, 0, NULL, 0), 0);
                else
                        assert_int_equal(vmm_vfio(&h.vmm, 13, NULL, 0, NULL, 0, NULL, 0), 0);
                assert_int_equal(vmm_start_ring(&h.vmm), 0);
                h.vmm.next_avail = h.vmm.next_used = 0;
                vmm_set_avail(&h.vmm, 0);
                assert_int_equal(h.tpm.n_init, 1);
                harness_done(&h);
        }
}

/* A command runs when the driver resets the device: its answer goes nowhere, the next one gets its own. */
static void test_reset_in_flight(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                uint8_t response[64];
                uint32_t head, length;

                begin(vhost);
                expect_good();
                h.tpm.fault = FAKE_TPM_HELD;
                vmm_submit(&h.vmm, command_a, 12, 64);
                harness_pump(&h);
                assert_int_equal(h.tpm.n_commands, 2);
                assert_int_equal(vmm_reset(&h.vmm), 0);
                assert_int_equal(vmm_start_ring(&h.vmm), 0);
                memset(vmm_at(&h.vmm, VMM_RESPONSE), 0xee, 64);

                vmm_submit(&h.vmm, command_b, 12, 64);
                harness_pump(&h);
                assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);
                assert_int_equal(h.tpm.n_commands, 2); /* waits for its turn */
                h.tpm.fault = FAKE_TPM_GOOD;
                assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                assert_int_equal(h.tpm.n_commands, 3);
                assert_memory_equal(h.tpm.command, command_b, 12);
                assert_int_equal(command(command_a, response), 28);
                assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);
                harness_done(&h);
        }
}

/* The machine really was reset: commands wait until the TPM was, too. */
static void test_machine_reset(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                uint32_t head, length;

                begin(vhost);
                expect_good();
                h.tpm.fault = FAKE_TPM_HELD;
                vmm_submit(&h.vmm, command_a, 12, 64);
                harness_pump(&h);
                device_machine_reset(&h.service.device);
                harness_pump(&h);
                assert_int_equal(h.tpm.n_init, 1); /* not under the command that runs */
                h.tpm.fault = FAKE_TPM_GOOD;
                assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                expect_good();
                assert_int_equal(h.tpm.n_init, 2);
                assert_int_equal(h.tpm.n_startups, 2);
                assert_int_equal(h.tpm.n_datafd, 1);

                /* twice in a row, in the middle of it */
                device_machine_reset(&h.service.device);
                device_machine_reset(&h.service.device);
                expect_good();
                assert_int_equal(h.tpm.n_init, 4);
                harness_done(&h);
        }
}

/* The same VMM process is the same machine, another one another. */
static void test_reconnect(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                begin(vhost);
                expect_good();
                harness_reconnect(&h);
                assert_int_equal(vmm_start(&h.vmm), 0);
                expect_good();
                assert_int_equal(h.tpm.n_init, 1);

                h.service.state->server.machine++;
                harness_reconnect(&h);
                assert_int_equal(vmm_start(&h.vmm), 0);
                expect_good();
                assert_int_equal(h.tpm.n_init, 2);
                harness_done(&h);
        }
}

/* A VMM dies with a command in flight. */
static void test_disconnect_in_flight(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                begin(vhost);
                expect_good();
                h.tpm.fault = FAKE_TPM_HELD;
                vmm_submit(&h.vmm, command_a, 12, 64);
                harness_pump(&h);
                harness_reconnect(&h);
                assert_int_equal(h.service.memory.n_ranges, 0);
                h.tpm.fault = FAKE_TPM_GOOD;
                assert_int_equal(vmm_start(&h.vmm), 0);
                expect_good();
                harness_done(&h);
        }
}

/* What swtpm can do wrong: the guest gets an error, now and until the machine is reset, and no command is sent again. */
static void test_tpm_faults(void **state) {
        static const struct {
                FakeTpmFault fault;
                const char *name;
                bool ends;
        } cases[] = {
                { FAKE_TPM_SHORT_SIZE, "short size", false },
                { FAKE_TPM_LONG_SIZE, "long size", false },
                { FAKE_TPM_TRAILING, "trailing byte", false },
                { FAKE_TPM_DATA_HANGUP, "data hang-up", false },
                { FAKE_TPM_CTRL_HANGUP, "control hang-up", true },
        };

        for (unsigned vhost = 0; vhost < FRONTS; vhost++)
                for (size_t i = 0; i < ELEMENTS(cases); i++) {
                        uint8_t response[64];

                        begin(vhost);
                        expect_good();
                        h.tpm.fault = cases[i].fault;
                        if (command(get_random, response) != 10 && !cases[i].ends)
                                fail_msg("%s", cases[i].name);
                        assert_true(h.tpm.n_commands <= 2);
                        h.tpm.fault = FAKE_TPM_GOOD;
                        expect_error(VIRTIO_TPM_RC_FAILURE);
                        assert_int_equal(h.tpm.n_init, 1);

                        device_machine_reset(&h.service.device);
                        if (cases[i].ends)
                                expect_error(VIRTIO_TPM_RC_FAILURE);
                        else {
                                expect_good();
                                assert_int_equal(h.tpm.n_init, 2);
                        }
                        harness_done(&h);
                }
}

/* It cannot even be started. */
static void test_tpm_start_faults(void **state) {
        static const FakeTpmFault faults[] = { FAKE_TPM_CTRL_REFUSES, FAKE_TPM_CTRL_HANGUP };

        for (size_t i = 0; i < ELEMENTS(faults); i++) {
                harness_init(&h, i % 2);
                h.tpm.fault = faults[i];
                assert_int_equal(vmm_start(&h.vmm), 0);
                expect_error(VIRTIO_TPM_RC_FAILURE);
                harness_done(&h);
        }

        /* swtpm has not seen yet that its former client is gone */
        harness_init(&h, true);
        h.tpm.fault = FAKE_TPM_DATAFD_BUSY;
        assert_int_equal(vmm_start(&h.vmm), 0);
        expect_good();
        assert_int_equal(h.tpm.n_datafd, 3);
        harness_done(&h);
}

/* Any number of bytes at a time; a half one is waited for. */
static void test_pieces(void **state) {
        uint32_t head, length;

        begin(true);
        h.tpm.fault = FAKE_TPM_BYTEWISE;
        expect_good();
        h.tpm.fault = FAKE_TPM_HALF;
        vmm_submit(&h.vmm, command_a, 12, 64);
        for (unsigned i = 0; i < 10; i++)
                harness_pump(&h);
        assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);
        h.tpm.fault = FAKE_TPM_GOOD;
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
        assert_int_equal(length, 28);
        harness_done(&h);
}

static void test_long_response(void **state) {
        static uint8_t response[VIRTIO_TPM_MESSAGE_MAX];

        begin(false);
        h.tpm.response_size = VIRTIO_TPM_MESSAGE_MAX;
        assert_int_equal(vmm_command(&h.vmm, get_random, 12, response, sizeof response, HARNESS_MS),
                         VIRTIO_TPM_MESSAGE_MAX);
        assert_int_equal(response[VIRTIO_TPM_MESSAGE_MAX - 1], 0xff);
        assert_int_equal(vmm_command(&h.vmm, get_random, 12, response, sizeof response - 1, HARNESS_MS), 10);
        assert_int_equal(codec_code(response), VIRTIO_TPM_RC_FAILURE);
        harness_done(&h);
}

/* What comes together with a good response is noticed, too, though nothing tells of it a second time. */
static void test_behind_response(void **state) {
        static uint8_t response[VIRTIO_TPM_MESSAGE_MAX];

        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                begin(vhost);
                h.tpm.fault = FAKE_TPM_LAST_WORD;
                expect_good();
                harness_pump(&h);
                assert_string_equal(tpm_step_name(&h.service.tpm), "failed");
                harness_done(&h);

                begin(vhost);
                h.tpm.fault = FAKE_TPM_TRAILING;
                h.tpm.response_size = VIRTIO_TPM_MESSAGE_MAX;
                assert_int_equal(vmm_command(&h.vmm, get_random, 12, response, sizeof response, HARNESS_MS),
                                 VIRTIO_TPM_MESSAGE_MAX);
                harness_pump(&h);
                assert_string_equal(tpm_step_name(&h.service.tpm), "failed");
                harness_done(&h);
        }
}

/* Messages are answered while the TPM thinks, and past the deadline the guest is told; later answers are thrown away. */
static void test_deadline(void **state) {
        const ServiceOptions options = { .front = FRONT_VFIO_USER,
                                         .peer_uid = (uid_t) -1,
                                         .tpm.deadline_ns = 300000000 };
        uint8_t response[64];

        harness_init_with(&h, &options);
        assert_int_equal(vmm_start(&h.vmm), 0);
        expect_good();
        h.tpm.fault = FAKE_TPM_HELD;
        assert_int_equal(command(command_a, response), 10);
        assert_int_equal(codec_code(response), VIRTIO_TPM_RC_FAILURE);
        assert_int_equal(vmm_get(&h.vmm, 0, 0x14, 1), 15);
        assert_string_equal(tpm_step_name(&h.service.tpm), "degraded");
        h.tpm.fault = FAKE_TPM_GOOD;
        expect_good();
        assert_int_equal(h.tpm.n_commands, 3);
        assert_string_equal(tpm_step_name(&h.service.tpm), "ready");

        /* a machine reset does not wait for a command for ever */
        h.tpm.fault = FAKE_TPM_HELD;
        assert_int_equal(command(command_a, response), 10);
        device_machine_reset(&h.service.device);
        h.tpm.fault = FAKE_TPM_GOOD;
        expect_good();
        assert_int_equal(h.tpm.n_init, 2);
        assert_int_equal(h.tpm.n_datafd, 2); /* the late answer cannot be taken for another's */
        harness_done(&h);
}

/* The process ends and another goes on, at every phase of a command. */
static void test_restart(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                uint8_t response[64];
                uint32_t head, length;

                begin(vhost);
                harness_restart(&h); /* in the middle of switching the TPM on */
                expect_good();
                for (unsigned i = 0; i < 20; i++) {
                        harness_restart(&h);
                        expect_good();
                }
                assert_int_equal(h.tpm.n_init, 1);
                assert_int_equal(h.tpm.n_commands, 21);

                /* with a command at the TPM */
                h.tpm.fault = FAKE_TPM_HELD;
                vmm_submit(&h.vmm, command_a, 12, 64);
                harness_pump(&h);
                harness_restart(&h);
                harness_pump(&h);
                assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);
                h.tpm.fault = FAKE_TPM_GOOD;
                assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                assert_int_equal(length, 28);
                assert_int_equal(h.tpm.n_commands, 22);

                /* with half of its response here */
                h.tpm.fault = FAKE_TPM_HALF;
                vmm_submit(&h.vmm, command_b, 12, 64);
                for (unsigned i = 0; i < 3; i++)
                        harness_pump(&h);
                harness_restart(&h);
                h.tpm.fault = FAKE_TPM_GOOD;
                assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                assert_int_equal(length, 28);
                assert_int_equal(codec_code(vmm_at(&h.vmm, VMM_RESPONSE)), 0);
                assert_int_equal(h.tpm.n_commands, 23);

                /* between the answer in memory and the note that it is there */
                h.service.device.s->chain.head = 0;
                h.service.device.s->chain.index = (uint16_t) (h.vmm.next_avail - 1);
                h.service.device.s->ring.next_used--;
                h.service.device.s->used_at = h.service.device.s->ring.next_used;
                h.service.device.s->phase = DEVICE_DONE;
                h.service.device.s->attached = h.service.device.s->answering = 1;
                harness_restart(&h);
                assert_int_equal(h.service.device.s->phase, DEVICE_IDLE);
                h.service.device.s->phase = DEVICE_DONE; /* and after the note, before the end of it */
                h.service.device.s->attached = h.service.device.s->answering = 1;
                harness_restart(&h);
                harness_pump(&h);
                assert_int_equal(vmm_used(&h.vmm, &head, &length), 0); /* not answered twice */
                expect_good();

                /* with a response received: not noted, noted, and half handed over */
                for (unsigned noted = 0; noted < 3; noted++) {
                        TpmState *t = h.service.tpm.s;
                        unsigned n_before = h.tpm.n_commands;

                        h.tpm.fault = FAKE_TPM_HELD;
                        vmm_submit(&h.vmm, command_a, 12, 64);
                        harness_pump(&h);
                        h.tpm.fault = FAKE_TPM_GOOD;
                        fake_tpm_step(&h.tpm);
                        assert_int_equal(recv(h.service.tpm.data_fd, t->response, sizeof t->response, 0),
                                         28);
                        if (noted > 0)
                                t->response_size = 28;
                        if (noted > 1)
                                t->busy = 0;
                        harness_restart(&h);
                        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                        assert_int_equal(length, 28);
                        expect_good();
                        assert_int_equal(h.tpm.n_commands, n_before + 2);
                }

                /* before it was sent: it is; while it is sent: not again */
                for (uint32_t sent = 0; sent < 2; sent++) {
                        unsigned n_before = h.tpm.n_commands;

                        h.tpm.fault = FAKE_TPM_HELD;
                        if (sent)
                                vmm_submit(&h.vmm, command_a, 12, 64);
                        else {
                                /* as if the process ended right before: the record is there, the TPM has nothing */
                                h.service.device.draining = true;
                                vmm_submit(&h.vmm, command_a, 12, 64);
                                h.service.device.draining = false;
                                h.service.tpm.s->again = 1; /* not ready */
                                device_kick(&h.service.device);
                                h.service.tpm.s->again = 0;
                                assert_int_equal(h.service.device.s->phase, DEVICE_QUEUED);
                        }
                        harness_pump(&h);
                        h.service.device.s->phase = DEVICE_SENDING;
                        h.service.tpm.s->sent = sent;
                        harness_restart(&h);
                        assert_int_equal(h.service.device.s->unsure, sent);
                        h.tpm.fault = FAKE_TPM_GOOD;
                        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                        assert_int_equal(length, 28);
                        assert_int_equal(h.tpm.n_commands, n_before + 1);
                }
                assert_int_equal(h.tpm.n_datafd, 1);
                assert_int_equal(h.tpm.n_init, 1);

                /* while nobody looks a request comes */
                memcpy(vmm_at(&h.vmm, VMM_COMMAND), get_random, 12);
                vmm_offer(&h.vmm, 0);
                harness_restart(&h);
                assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                assert_int_equal(command(command_a, response), 28);
                harness_done(&h);
        }
}

/* A restart loses a descriptor: errors, no hang. */
static void test_restart_losses(void **state) {
        for (unsigned lost = 0; lost < 2; lost++) {
                begin(false);
                expect_good();
                if (lost == 0) {
                        loop_forget(&h.service.loop, &h.service.tpm.ctrl);
                        h.service.tpm.ctrl_fd = fd_close(h.service.tpm.ctrl_fd);
                } else {
                        loop_forget(&h.service.loop, &h.service.tpm.data);
                        h.service.tpm.data_fd = fd_close(h.service.tpm.data_fd);
                }
                harness_restart(&h);
                expect_error(VIRTIO_TPM_RC_FAILURE);
                harness_done(&h);
        }
}

/* What a process of another version left is no use: its VMM is told by the end of the connection, the next one is served. */
static void test_other_version(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                uint8_t byte;

                begin(vhost);
                expect_good();
                h.service.state->version++;
                harness_restart(&h);
                assert_int_equal(vmm_receive(&h.vmm, &byte, 1), -EPIPE);
                assert_false(h.service.state->server.connected);
                assert_int_equal(h.service.memory.n_ranges, 0);

                harness_reconnect(&h);
                assert_int_equal(vmm_start(&h.vmm), 0);
                expect_good();
                assert_int_equal(h.tpm.n_init, 2);
                harness_done(&h);
        }
}

/* vhost-user stops the ring with a command in flight: the command is not waited for, and not run twice when it comes again. */
static void test_stop(void **state) {
        for (unsigned done = 0; done < 2; done++)
                for (unsigned other = 0; other < 2; other++) {
                        uint32_t base[2] = {}, head, length;

                        begin(true);
                        expect_good();
                        h.tpm.fault = FAKE_TPM_HELD;
                        vmm_submit(&h.vmm, command_a, 12, 64);
                        harness_pump(&h);
                        assert_int_equal(vmm_vhost_ring_number(&h.vmm, 18, 0), 0);
                        assert_int_equal(vmm_vhost(&h.vmm, 11, base, sizeof base, NULL, 0, base,
                                                   sizeof base),
                                         sizeof base);
                        assert_int_equal(base[1], 1); /* taken back */
                        if (done) {
                                h.tpm.fault = FAKE_TPM_GOOD;
                                harness_pump(&h);
                        }
                        assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);

                        if (other)
                                memcpy(vmm_at(&h.vmm, VMM_COMMAND), command_b, 12);
                        h.vmm.next_avail = (uint16_t) base[1];
                        assert_int_equal(vmm_start_ring(&h.vmm), 0);
                        h.vmm.next_avail++;
                        h.tpm.fault = FAKE_TPM_GOOD;
                        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                        assert_int_equal(length, 28);
                        assert_int_equal(h.tpm.n_commands, other ? 3 : 2);
                        assert_memory_equal(h.tpm.command, other ? command_b : command_a, 12);
                        expect_good();
                        harness_done(&h);
                }
}

static void test_drain(void **state) {
        uint32_t head, length;

        begin(false);
        expect_good();
        h.tpm.fault = FAKE_TPM_HELD;
        vmm_submit(&h.vmm, command_a, 12, 64);
        harness_pump(&h);
        device_set_draining(&h.service.device, true);
        assert_false(device_is_idle(&h.service.device));
        h.tpm.fault = FAKE_TPM_GOOD;
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
        assert_true(device_is_idle(&h.service.device));
        vmm_submit(&h.vmm, command_a, 12, 64);
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 2);
        device_set_draining(&h.service.device, false);
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
        harness_done(&h);
}

/* The memory goes away under a command: its answer goes nowhere. */
static void test_unmap_in_flight(void **state) {
        struct {
                uint32_t argsz, flags;
                uint64_t address, size;
        } unmap = { 24, 0, VMM_BASE, VMM_SIZE };
        struct {
                uint64_t padding, guest, size, user, offset;
        } region = { 0, VMM_BASE, VMM_SIZE, VMM_USER, 0 };

        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                uint32_t head, length;

                begin(vhost);
                expect_good();
                h.tpm.fault = FAKE_TPM_HELD;
                vmm_submit(&h.vmm, command_a, 12, 64);
                harness_pump(&h);
                if (vhost)
                        assert_int_equal(vmm_vhost(&h.vmm, 38, &region, sizeof region, NULL, 0, NULL, 0), 0);
                else
                        assert_int_equal(vmm_vfio(&h.vmm, 3, &unmap, sizeof unmap, NULL, 0, &unmap,
                                                  sizeof unmap),
                                         sizeof unmap);
                assert_int_equal(h.service.memory.n_ranges, 0);
                h.tpm.fault = FAKE_TPM_GOOD;
                harness_pump(&h);
                assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);

                assert_int_equal(vmm_share_memory(&h.vmm), 0);
                assert_int_equal(vmm_reset(&h.vmm), 0);
                assert_int_equal(vmm_start_ring(&h.vmm), 0);
                h.vmm.next_avail = h.vmm.next_used = 0;
                expect_good();
                harness_done(&h);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_power_on),        cmocka_unit_test(test_keep_platform),
                cmocka_unit_test(test_denied),          cmocka_unit_test(test_driver_resets),
                cmocka_unit_test(test_reset_in_flight), cmocka_unit_test(test_machine_reset),
                cmocka_unit_test(test_reconnect),       cmocka_unit_test(test_disconnect_in_flight),
                cmocka_unit_test(test_tpm_faults),      cmocka_unit_test(test_tpm_start_faults),
                cmocka_unit_test(test_pieces),          cmocka_unit_test(test_long_response),
                cmocka_unit_test(test_behind_response), cmocka_unit_test(test_deadline),
                cmocka_unit_test(test_restart),         cmocka_unit_test(test_restart_losses),
                cmocka_unit_test(test_other_version),   cmocka_unit_test(test_stop),
                cmocka_unit_test(test_drain),           cmocka_unit_test(test_unmap_in_flight),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
