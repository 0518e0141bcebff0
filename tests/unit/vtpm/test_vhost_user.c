/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vhost-user protocol, message by message. */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit/vtpm/vtpm_test.h"

static Harness h;

static int setup(void **state) {
        harness_init(&h, true);
        return 0;
}

static int teardown(void **state) {
        harness_done(&h);
        return 0;
}

static bool alive(void) {
        for (unsigned i = 0; i < 5; i++)
                harness_pump(&h);
        return h.service.server.client_fd >= 0;
}

static void test_messages(void **state) {
        typedef struct Message {
                uint32_t request, flags, size;
                uint8_t payload[64];
        } Message;
        static const struct {
                const char *name;
                Message m;
                size_t length;
                unsigned fds;
                bool lives;
        } cases[] = {
                { "get features", { 1, 1, 0, {} }, 12, 0, true },
                { "version 0", { 1, 0, 0, {} }, 12, 0, false },
                { "version 2", { 1, 2, 0, {} }, 12, 0, false },
                { "a reply", { 1, 5, 0, {} }, 12, 0, false },
                { "half a header", { 1, 1, 0, {} }, 5, 0, true },
                { "half a payload", { 2, 1, 8, {} }, 16, 0, true },
                { "endless", { 2, 1, UINT32_MAX, {} }, 12, 0, false },
                { "too long", { 2, 1, WIRE_MESSAGE_MAX - 11, {} }, 12, 0, false },
                { "features too short", { 2, 1, 4, {} }, 16, 0, false },
                { "features too long", { 2, 1, 16, {} }, 28, 0, false },
                { "features not offered",
                  { 2, 1, 8, { 255, 255, 255, 255, 255, 255, 255, 255 } },
                  20,
                  0,
                  false },
                { "unknown request", { 999, 1, 0, {} }, 12, 0, true },
                { "unknown request that wants a reply", { 999, 9, 0, {} }, 12, 0, true },
                { "a ring that is not there", { 8, 1, 8, { 1, 0, 0, 0, 64 } }, 20, 0, false },
                { "base of a ring that is not there", { 11, 1, 8, { 1 } }, 20, 0, false },
                { "a descriptor for a ring that is not there", { 13, 1, 8, { 1 } }, 20, 1, false },
                { "a call without descriptor", { 13, 1, 8, { 0 } }, 20, 0, false },
                { "a call with two", { 13, 1, 8, { 0 } }, 20, 2, false },
                { "no call", { 13, 1, 8, { 0, 1 } }, 20, 0, true },
                { "no call, with a descriptor", { 13, 1, 8, { 0, 1 } }, 20, 1, false },
                { "a kick that is a file", { 12, 1, 8, { 0 } }, 20, 1, false },
                { "no kick: polling", { 12, 1, 8, { 0, 1 } }, 20, 0, true },
                { "memory without files", { 5, 1, 40, { 1 } }, 52, 0, false },
                { "memory with another number of files", { 5, 1, 40, { 1 } }, 52, 2, false },
                { "nine regions", { 5, 1, 8, { 9 } }, 20, 8, false },
                { "more regions than the message has", { 5, 1, 40, { 2 } }, 52, 2, false },
#ifndef __s390x__ /* an emulator does not tell that some were cut off */
                { "nine descriptors", { 3, 1, 0, {} }, 12, 9, false },
#endif
                { "ring address too short", { 9, 1, 32, {} }, 44, 0, false },
                { "logging", { 9, 1, 40, { 0, 0, 0, 0, 1 } }, 52, 0, false },
                { "status beyond a byte", { 39, 1, 8, { 0, 1 } }, 20, 0, false },
                { "protocol feature that was not offered", { 16, 1, 8, { 2 } }, 20, 0, false },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                int fds[16];

                harness_done(&h);
                harness_init(&h, true);
                for (unsigned k = 0; k < 16; k++)
                        fds[k] = h.vmm.memory_fd;

                Message m = cases[i].m;
                if (m.size == sizeof(uint64_t) && m.request != 8 &&
                    m.request != 11) { /* one number: it stands in the table little-endian */
                        uint64_t number;

                        memcpy(&number, m.payload, sizeof number);
                        number = le64toh(number);
                        memcpy(m.payload, &number, sizeof number);
                }
                assert_int_equal(vmm_send(&h.vmm, &m, cases[i].length, fds, cases[i].fds), 0);
                if (alive() != cases[i].lives)
                        fail_msg("%s", cases[i].name);
        }
}

/* The process is killed while it adds or removes memory, and so perhaps is the next: the next one does it, as far as it was not done. */
static void test_killed(void **state) {
        enum { RECEIVED, NOT_KEPT, NOT_NOTED, HANDLED, STAGES };

        for (unsigned stage = 0; stage < 4 * STAGES; stage++) {
                bool twice = stage / STAGES % 2 > 0, add = stage / STAGES < 2;
                struct {
                        uint32_t request, flags, size, payload[10];
                } m = { add ? 37 : 38, 9, 40, {} };
                struct {
                        uint64_t padding, guest, size, user, offset;
                } region = { 0, VMM_BASE, VMM_SIZE, VMM_USER, 0 };
                uint32_t reply[5];
                Memory *memory;
                Wire *w;

                harness_done(&h);
                harness_init(&h, true);
                memory = &h.service.memory;
                w = &h.service.server.wire;
                assert_int_equal(vmm_negotiate(&h.vmm), 0);
                if (!add)
                        assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, &h.vmm.memory_fd, 1,
                                                   NULL, 0),
                                         0);
                memcpy(m.payload, &region, sizeof region);
                assert_int_equal(vmm_send(&h.vmm, &m, sizeof m, &h.vmm.memory_fd, add), 0);
                assert_int_equal(wire_receive(w), 1);
                if (stage % STAGES > RECEIVED)
                        assert_int_equal(h.service.server.front->handle(&h.service.vhost, w, false), 0);
                if (stage % STAGES == NOT_KEPT && add)
                        memory->files[0].fd = fd_close(memory->files[0].fd);
                if (stage % STAGES == NOT_NOTED && add)
                        h.service.state->vhost.n_regions = 0;
                if (stage % STAGES < HANDLED)
                        w->s->tx_size = 0;
                harness_restart(&h);
                if (twice)
                        harness_restart(&h);

                assert_int_equal(vmm_receive(&h.vmm, reply, sizeof reply), 0);
                assert_int_equal(reply[0], m.request);
                assert_int_equal(reply[3], 0);
                assert_int_equal(memory->n_ranges, add);
                assert_int_equal(h.service.state->vhost.n_regions, add);
                assert_int_equal(memory_has(memory, VMM_BASE, VMM_SIZE), add);
        }
}

/* Refusals are told where they can be. */
static void test_acknowledged(void **state) {
        struct {
                uint64_t padding, guest, size, user, offset;
        } region = { 0, VMM_BASE, VMM_SIZE + 1, VMM_USER, 0 };
        uint64_t n;

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, &h.vmm.memory_fd, 1, NULL, 0),
                         -EREMOTEIO); /* beyond its file */
        region.size = VMM_SIZE;
        region.offset = UINT64_MAX;
        assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, &h.vmm.memory_fd, 1, NULL, 0),
                         -EREMOTEIO);
        region.offset = 0;
        assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, NULL, 0, NULL, 0), -EREMOTEIO);
        assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, &h.vmm.memory_fd, 1, NULL, 0), 0);
        assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, &h.vmm.memory_fd, 1, NULL, 0),
                         -EREMOTEIO); /* there already */
        region.guest = 0;
        assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, &h.vmm.memory_fd, 1, NULL, 0),
                         -EREMOTEIO); /* same user range */
        region.guest = VMM_BASE;
        region.size--;
        assert_int_equal(vmm_vhost(&h.vmm, 38, &region, sizeof region, NULL, 0, NULL, 0), -EREMOTEIO);
        region.size++;
        assert_int_equal(vmm_vhost(&h.vmm, 38, &region, sizeof region, NULL, 0, NULL, 0), 0);
        assert_int_equal(vmm_vhost(&h.vmm, 999, NULL, 0, NULL, 0, NULL, 0), -EREMOTEIO);
        assert_int_equal(vmm_vhost(&h.vmm, 17, NULL, 0, NULL, 0, &n, 8), 8);
        assert_int_equal(n, 1);
        assert_int_equal(vmm_vhost(&h.vmm, 36, NULL, 0, NULL, 0, &n, 8), 8);
        assert_int_equal(n, VHOST_USER_SLOTS);
        for (unsigned i = 0; i <= VHOST_USER_SLOTS; i++) {
                region.guest = region.user = i * VMM_SIZE;
                assert_int_equal(vmm_vhost(&h.vmm, 37, &region, sizeof region, &h.vmm.memory_fd, 1, NULL, 0),
                                 i < VHOST_USER_SLOTS ? 0 : -EREMOTEIO);
        }
        n = 3;
        assert_int_equal(vmm_vhost(&h.vmm, 39, &n, 8, NULL, 0, NULL, 0), 0);
        assert_int_equal(vmm_vhost(&h.vmm, 40, NULL, 0, NULL, 0, &n, 8), 8);
        assert_int_equal(n, 3);
        assert_true(alive());
}

/* No dirty log, no device state: the front end then blocks migration. */
static void test_no_migration(void **state) {
        uint64_t protocol, features;

        assert_int_equal(vmm_vhost(&h.vmm, 15, NULL, 0, NULL, 0, &protocol, 8), 8);
        assert_int_equal(protocol >> 1 & 1, 0);  /* LOG_SHMFD */
        assert_int_equal(protocol >> 19 & 1, 0); /* DEVICE_STATE */
        assert_int_equal(vmm_vhost(&h.vmm, 1, NULL, 0, NULL, 0, &features, 8), 8);
        assert_int_equal(features >> 26 & 1, 0); /* VHOST_F_LOG_ALL */
}

/* The ring's parts in any order, its kick before it is enabled: no request is lost. */
static void test_orders(void **state) {
        struct {
                uint32_t queue, flags;
                uint64_t desc, used, avail, log;
        } address = { 0,
                      0,
                      VMM_RING - VMM_BASE + VMM_USER,
                      VMM_USED - VMM_BASE + VMM_USER,
                      VMM_AVAIL - VMM_BASE + VMM_USER,
                      0 };
        static const char *const orders[] = { "mnbakce", "nbakcem", "ecknbam", "kecbnma", "ambknec" };
        uint32_t head, length;

        for (size_t i = 0; i < ELEMENTS(orders); i++) {
                harness_done(&h);
                harness_init(&h, true);
                assert_int_equal(vmm_negotiate(&h.vmm), 0);
                vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
                for (const char *p = orders[i]; *p; p++) {
                        int r = *p == 'm'   ? vmm_share_memory(&h.vmm)
                                : *p == 'n' ? vmm_vhost_ring_number(&h.vmm, 8, VMM_QUEUE)
                                : *p == 'b' ? vmm_vhost_ring_number(&h.vmm, 10, 0)
                                : *p == 'a'
                                        ? vmm_vhost(&h.vmm, 9, &address, sizeof address, NULL, 0, NULL, 0)
                                : *p == 'k' ? vmm_vhost_ring_fd(&h.vmm, 12, h.vmm.kick_fd)
                                : *p == 'c' ? vmm_vhost_ring_fd(&h.vmm, 13, h.vmm.call_fd)
                                            : vmm_vhost_ring_number(&h.vmm, 18, 1);

                        if (r != 0)
                                fail_msg("%s: %c", orders[i], *p);
                }
                if (!vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length))
                        fail_msg("%s: the request was lost", orders[i]);
                assert_int_equal(length, 28);
        }
}

/* A driver without VIRTIO_F_VERSION_1 gets nothing. */
static void test_legacy(void **state) {
        uint32_t head, length;

        h.vmm.not_features = UINT64_C(1) << VIRTIO_F_VERSION_1;
        assert_int_equal(vmm_start(&h.vmm), 0);
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        harness_pump(&h);
        assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);
        assert_int_equal(h.tpm.n_commands, 0);
}

static void test_bad_rings(void **state) {
        static const struct {
                const char *name;
                uint64_t desc, avail, used;
                uint32_t size;
        } cases[] = {
                { "size 3", VMM_RING, VMM_AVAIL, VMM_USED, 3 },
                { "size 0", VMM_RING, VMM_AVAIL, VMM_USED, 0 },
                { "size 2048", VMM_RING, VMM_AVAIL, VMM_USED, 2048 },
                { "size 65600", VMM_RING, VMM_AVAIL, VMM_USED, 65600 },
                { "table crooked", VMM_RING + 8, VMM_AVAIL, VMM_USED, 64 },
                { "avail crooked", VMM_RING, VMM_AVAIL + 1, VMM_USED, 64 },
                { "used crooked", VMM_RING, VMM_AVAIL, VMM_USED + 2, 64 },
                { "table beyond", VMM_END - 16, VMM_AVAIL, VMM_USED, 64 },
                { "avail unmapped", VMM_RING, VMM_END + 4096, VMM_USED, 64 },
                { "used beyond", VMM_RING, VMM_AVAIL, VMM_END - 4, 64 },
                { "used wraps", VMM_RING, VMM_AVAIL, UINT64_MAX - 3, 64 },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct {
                        uint32_t queue, flags;
                        uint64_t desc, used, avail, log;
                } address = { 0,
                              0,
                              cases[i].desc - VMM_BASE + VMM_USER,
                              cases[i].used - VMM_BASE + VMM_USER,
                              cases[i].avail - VMM_BASE + VMM_USER,
                              0 };
                uint32_t head, length;

                harness_done(&h);
                harness_init(&h, true);
                assert_int_equal(vmm_start(&h.vmm), 0);
                assert_int_equal(vmm_reset(&h.vmm), 0);
                assert_int_equal(vmm_vhost_ring_number(&h.vmm, 8, cases[i].size), 0);
                assert_int_equal(vmm_vhost_ring_number(&h.vmm, 10, 0), 0);
                assert_int_equal(vmm_vhost(&h.vmm, 9, &address, sizeof address, NULL, 0, NULL, 0), 0);
                assert_int_equal(vmm_vhost_ring_fd(&h.vmm, 12, h.vmm.kick_fd), 0);
                assert_int_equal(vmm_vhost_ring_number(&h.vmm, 18, 1), 0);
                vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
                harness_pump(&h);
                if (h.service.device.s->running || vmm_used(&h.vmm, &head, &length))
                        fail_msg("%s", cases[i].name);
                assert_int_equal(h.tpm.n_commands, 0);
        }
}

/* Memory that its owner cuts off under a running ring. */
static void test_shrinking(void **state) {
        struct {
                uint32_t n, padding;
                uint64_t guest, size, user, offset;
        } table = { 1, 0, VMM_BASE, VMM_SIZE, VMM_USER, 0 };
        uint32_t head, length;
        int fd, zero = 0;

        /* cmocka caught our signal handler's place before the device took it: it has it again */
        fd = memfd_create("unsealed", MFD_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t) VMM_SIZE), 0);
        harness_done(&h);
        harness_init(&h, true);
        (void) dup2(fd, h.vmm.memory_fd);
        (void) munmap(h.vmm.memory, VMM_SIZE);
        h.vmm.memory = mmap(NULL, VMM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_int_equal(vmm_start(&h.vmm), 0);
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);

        h.tpm.fault = FAKE_TPM_HELD;
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        harness_pump(&h);
        assert_int_equal(ftruncate(fd, zero), 0);
        h.tpm.fault = FAKE_TPM_GOOD;
        harness_pump(&h);
        (void) vmm_kick(&h.vmm);
        assert_true(alive());
        assert_int_equal(h.service.device.s->counters.dropped, 1);
        assert_int_equal(vmm_vhost(&h.vmm, 5, &table, sizeof table, &fd, 1, NULL, 0),
                         -EREMOTEIO); /* shorter than it says */
        (void) close(fd);
}

/* A kick descriptor that is always ready must not keep us busy. */
static void test_odd_kicks(void **state) {
        struct pollfd loop;
        int pipes[2], fd;

        assert_int_equal(vmm_start(&h.vmm), 0);
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        assert_int_equal(vmm_vhost_ring_fd(&h.vmm, 12, pipes[0]), 0);
        (void) close(pipes[1]);
        harness_pump(&h);
        assert_int_equal(h.service.vhost.kick.fd, -1); /* its end was seen, and it is left alone */
        (void) close(pipes[0]);
        assert_true(alive());

        /* an eventfd that can be read a thousand times: nothing is left to do after the first */
        fd = eventfd(1000, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
        assert_true(fd >= 0);
        assert_int_equal(vmm_vhost_ring_fd(&h.vmm, 12, fd), 0);
        harness_pump(&h);
        loop = (struct pollfd) { .fd = h.service.loop.fd, .events = POLLIN };
        assert_int_equal(poll(&loop, 1, 0), 0);
        (void) close(fd);

        /* an interrupt descriptor that cannot be written, and one whose other end is gone */
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(vmm_vhost_ring_fd(&h.vmm, 13, fd), 0);
        (void) close(fd);
        assert_int_equal(vmm_vhost_ring_fd(&h.vmm, 12, h.vmm.kick_fd), 0);
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        assert_true(alive());
        assert_int_equal(h.tpm.n_commands, 1);
}

/* Whatever a front end does to a ring between two requests, none that was answered is executed again. */
static void test_goes_on(void **state) {
        struct {
                uint32_t queue, flags;
                uint64_t desc, used, avail, log;
        } address = { 0,
                      0,
                      VMM_RING - VMM_BASE + VMM_USER,
                      VMM_USED - VMM_BASE + VMM_USER,
                      VMM_AVAIL - VMM_BASE + VMM_USER,
                      0 };
        uint8_t response[64];
        uint32_t base[2] = {};

        assert_int_equal(vmm_start(&h.vmm), 0);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response,
                                             sizeof response, HARNESS_MS),
                                 28);

        /* stopped for a while, its addresses told anew */
        assert_int_equal(vmm_vhost_ring_number(&h.vmm, 18, 0), 0);
        assert_int_equal(vmm_vhost(&h.vmm, 9, &address, sizeof address, NULL, 0, NULL, 0), 0);
        assert_int_equal(vmm_vhost_ring_number(&h.vmm, 18, 1), 0);
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 3);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        assert_int_equal(h.tpm.n_commands, 4);

        /* set up to go on, and stopped again before it could */
        assert_int_equal(vmm_vhost(&h.vmm, 11, base, sizeof base, NULL, 0, base, sizeof base), 8);
        assert_int_equal(base[1], 4);
        assert_int_equal(vmm_vhost_ring_number(&h.vmm, 18, 0), 0);
        (void) vmm_vhost(&h.vmm, 34, NULL, 0, NULL, 0, NULL, 0);
        assert_int_equal(vmm_vhost_ring_number(&h.vmm, 8, VMM_QUEUE), 0);
        assert_int_equal(vmm_vhost_ring_number(&h.vmm, 10, 4), 0);
        assert_int_equal(vmm_vhost(&h.vmm, 9, &address, sizeof address, NULL, 0, NULL, 0), 0);
        base[1] = 0;
        assert_int_equal(vmm_vhost(&h.vmm, 11, base, sizeof base, NULL, 0, base, sizeof base), 8);
        assert_int_equal(base[1], 4);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_acknowledged, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_migration, setup, teardown),
                cmocka_unit_test_setup_teardown(test_orders, setup, teardown),
                cmocka_unit_test_setup_teardown(test_legacy, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_rings, setup, teardown),
                cmocka_unit_test_setup_teardown(test_shrinking, setup, teardown),
                cmocka_unit_test_setup_teardown(test_odd_kicks, setup, teardown),
                cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
