/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vfio-user protocol and the PCI function behind it, message by message. */

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit/vtpm/vtpm_test.h"

static Harness h;

static int setup(void **state) {
        harness_init(&h, false);
        return 0;
}

static int teardown(void **state) {
        harness_done(&h);
        return 0;
}

/* Sends bytes as they are; whether the connection lives afterwards. */
static bool survives(const void *bytes, size_t size, unsigned n_fds) {
        int fds[16];
        bool alive;

        for (unsigned i = 0; i < n_fds; i++)
                fds[i] = h.vmm.memory_fd;
        harness_done(&h);
        harness_init(&h, false);
        for (unsigned i = 0; i < n_fds; i++)
                fds[i] = h.vmm.memory_fd;
        assert_int_equal(vmm_send(&h.vmm, bytes, size, fds, n_fds), 0);
        for (unsigned i = 0; i < 5; i++)
                harness_pump(&h);
        alive = h.service.server.client_fd >= 0;
        if (!alive)
                assert_int_equal(h.service.memory.n_ranges, 0);
        return alive;
}

static void test_messages(void **state) {
        typedef struct Message {
                uint16_t id, command;
                uint32_t size, flags, error;
                uint8_t payload[64];
        } Message;
        static const struct {
                const char *name;
                Message m;
                size_t length;
                unsigned fds;
                bool lives;
        } cases[] = {
                { "a whole version", { 1, 1, 20, 0, 0, {} }, 20, 0, true },
                { "version with major 1", { 1, 1, 20, 0, 0, { 1, 1 } }, 20, 0, false },
                { "version without end", { 1, 1, 21, 0, 0, { 0, 0, 0, 0, '{' } }, 21, 0, false },
                { "version too short", { 1, 1, 18, 0, 0, {} }, 18, 0, false },
                { "half a header", { 1, 1, 20, 0, 0, {} }, 7, 0, true },
                { "half a payload", { 1, 1, 20, 0, 0, {} }, 18, 0, true },
                { "size 0", { 1, 1, 0, 0, 0, {} }, 16, 0, false },
                { "size 15", { 1, 1, 15, 0, 0, {} }, 16, 0, false },
                { "endless", { 1, 1, UINT32_MAX, 0, 0, {} }, 16, 0, false },
                { "too long", { 1, 1, WIRE_MESSAGE_MAX + 1, 0, 0, {} }, 16, 0, false },
                { "a reply to nothing", { 1, 12, 16, 1, 0, {} }, 16, 0, false },
                { "another type", { 1, 1, 20, 7, 0, {} }, 20, 0, false },
#ifndef __s390x__ /* an emulator does not tell that some were cut off */
                { "nine descriptors", { 1, 2, 48, 0, 0, { 32 } }, 48, 9, false },
#endif
                { "not negotiated", { 1, 13, 16, 0, 0, {} }, 16, 0, true },
                { "no reply wanted", { 1, 13, 16, 0x10, 0, {} }, 16, 0, true },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                if (survives(&cases[i].m, cases[i].length, cases[i].fds) != cases[i].lives)
                        fail_msg("%s", cases[i].name);

        /* and byte by byte */
        harness_done(&h);
        harness_init(&h, false);
        for (size_t i = 0; i < 20; i++) {
                assert_int_equal(vmm_send(&h.vmm, (const char *) &cases[0].m + i, 1, NULL, 0), 0);
                harness_pump(&h);
        }
        uint8_t reply[16];
        assert_int_equal(vmm_receive(&h.vmm, reply, sizeof reply), 0);
        assert_int_equal(reply[0] | reply[1], 1);
}

static void test_version(void **state) {
        static const char version[] = "\0\0\7\0{\"capabilities\":{\"write_multiple\":true}}";
        static char reply[512];
        int r;

        assert_int_equal(vmm_vfio(&h.vmm, 4, version, 16, NULL, 0, NULL, 0), -EINVAL);
        r = vmm_vfio(&h.vmm, 1, version, sizeof version, NULL, 0, reply, sizeof reply);
        assert_true(r > 4);
        assert_int_equal(reply[2], 0);
        assert_int_equal(reply[r - 1], 0);
        assert_non_null(strstr(reply + 4, "\"max_dma_maps\":65535"));
        assert_null(strstr(reply + 4, "write_multiple"));
        assert_null(strstr(reply + 4, "migration"));
}

static void test_info(void **state) {
        static const struct {
                uint32_t index;
                uint64_t size;
        } regions[] = {
                { 0, 0x4000 }, { 1, 0 }, { 2, 0x1000 }, { 3, 0 }, { 6, 0 }, { 7, 256 }, { 8, 0 },
        };
        uint32_t info[4] = { 16 };

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        assert_int_equal(vmm_vfio(&h.vmm, 4, info, 12, NULL, 0, NULL, 0), -EINVAL);
        assert_int_equal(vmm_vfio(&h.vmm, 4, info, 16, NULL, 0, info, 16), 16);
        assert_int_equal(info[1], 3);
        assert_int_equal(info[2], 9);
        assert_int_equal(info[3], 5);

        for (size_t i = 0; i < ELEMENTS(regions); i++) {
                struct {
                        uint32_t argsz, flags, index, cap;
                        uint64_t size, offset;
                } r = { 32, 0, regions[i].index, 0, 9, 9 };

                assert_int_equal(vmm_vfio(&h.vmm, 5, &r, sizeof r, NULL, 0, &r, sizeof r), sizeof r);
                assert_int_equal(r.size, regions[i].size);
                assert_int_equal(r.flags, regions[i].size > 0 ? 3 : 0);
        }
        for (uint32_t i = 0; i < 6; i++) {
                uint32_t irq[4] = { 16, 0, i, 9 };
                int r = vmm_vfio(&h.vmm, 7, irq, sizeof irq, NULL, 0, irq, sizeof irq);

                assert_int_equal(r, i < 5 ? 16 : -EINVAL);
                if (r > 0)
                        assert_int_equal(irq[3], i == 2 ? 2 : 0);
        }
        uint32_t region[8] = { 32, 0, 9 };
        assert_int_equal(vmm_vfio(&h.vmm, 5, region, sizeof region, NULL, 0, NULL, 0), -EINVAL);

        /* nothing of migration, device features or files for regions */
        static const unsigned refused[] = { 0, 6, 11, 12, 14, 15, 16, 17, 18, 19, 65535 };
        for (size_t i = 0; i < ELEMENTS(refused); i++)
                assert_int_equal(vmm_vfio(&h.vmm, refused[i], region, sizeof region, NULL, 0, NULL, 0),
                                 -ENOTSUP);
}

static void test_dma(void **state) {
        typedef struct Map {
                uint32_t argsz, flags;
                uint64_t offset, address, size;
        } Map;
        static const struct {
                const char *name;
                Map m;
                unsigned fds;
                int want;
        } cases[] = {
                { "good", { 32, 3, 0, 0x1000, 0x1000 }, 1, 0 },
                { "again", { 32, 3, 0, 0x1000, 0x1000 }, 1, -EEXIST },
                { "overlaps", { 32, 3, 0, 0x1800, 0x1000 }, 1, -EEXIST },
                { "no file", { 32, 3, 0, 0x2000, 0x1000 }, 0, 0 },
                { "two files", { 32, 3, 0, 0x8000, 0x1000 }, 2, -EINVAL },
                { "empty", { 32, 3, 0, 0x8000, 0 }, 1, -EINVAL },
                { "wraps", { 32, 3, 0, UINT64_MAX, 0x1000 }, 1, -EINVAL },
                { "behind the file", { 32, 3, VMM_SIZE, 0x8000, 0x1000 }, 1, -EINVAL },
                { "over its end", { 32, 3, VMM_SIZE - 0x800, 0x8000, 0x1000 }, 1, -EINVAL },
                { "offset wraps", { 32, 3, UINT64_MAX - 0x800, 0x8000, 0x1000 }, 1, -EINVAL },
                { "unknown flags", { 32, 7, 0, 0x8000, 0x1000 }, 1, -EINVAL },
                { "argsz too small", { 31, 3, 0, 0x8000, 0x1000 }, 1, -EINVAL },
                { "crooked", { 32, 3, 0x123, 0x9001, 0x77 }, 1, 0 },
        };
        typedef struct Unmap {
                uint32_t argsz, flags;
                uint64_t address, size;
        } Unmap;
        static const struct {
                const char *name;
                Unmap u;
                int want;
        } unmaps[] = {
                { "a part", { 24, 0, 0x1000, 0x800 }, -EINVAL },
                { "a part and more", { 24, 0, 0x1800, 0x2000 }, -EINVAL },
                { "nothing", { 24, 0, 0x1000, 0 }, -EINVAL },
                { "unknown flags", { 24, 1, 0x1000, 0x1000 }, -EINVAL },
                { "good", { 24, 0, 0x1000, 0x1000 }, 24 },
                { "again", { 24, 0, 0x1000, 0x1000 }, 24 },
                { "two and nothing", { 24, 0, 0, 0x100000 }, 24 },
                { "all, with an address", { 24, 2, 0x1000, 0 }, -EINVAL },
                { "all", { 24, 2, 0, 0 }, 24 },
        };
        int fds[2] = { h.vmm.memory_fd, h.vmm.memory_fd };

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        for (size_t i = 0; i < ELEMENTS(cases); i++)
                if (vmm_vfio(&h.vmm, 2, &cases[i].m, 32, fds, cases[i].fds, NULL, 0) != cases[i].want)
                        fail_msg("map: %s", cases[i].name);
        assert_int_equal(h.service.memory.n_ranges, 3);
        assert_int_equal(vmm_vfio(&h.vmm, 2, &cases[0].m, 31, fds, 1, NULL, 0), -EINVAL);
        for (size_t i = 0; i < ELEMENTS(unmaps); i++) {
                Unmap echo = {};

                if (vmm_vfio(&h.vmm, 3, &unmaps[i].u, 24, NULL, 0, &echo, 24) != unmaps[i].want)
                        fail_msg("unmap: %s", unmaps[i].name);
                if (unmaps[i].want > 0)
                        assert_memory_equal(&echo, &unmaps[i].u, 24);
        }
        assert_int_equal(h.service.memory.n_ranges, 0);
        assert_int_equal(h.service.memory.files[0].fd, -1); /* nothing kept */
}

static void test_irqs(void **state) {
        typedef struct Set {
                uint32_t argsz, flags, index, start, count;
                uint8_t data[4];
        } Set;
        static const struct {
                const char *name;
                Set s;
                unsigned fds;
                int want;
        } cases[] = {
                { "one", { 20, 0x24, 2, 0, 1, {} }, 1, 0 },
                { "both", { 20, 0x24, 2, 0, 2, {} }, 2, 0 },
                { "the second", { 20, 0x24, 2, 1, 1, {} }, 1, 0 },
                { "more than there are", { 20, 0x24, 2, 1, 2, {} }, 2, -EINVAL },
                { "far more", { 20, 0x24, 2, 0, UINT32_MAX, {} }, 1, -EINVAL },
                { "from far away", { 20, 0x24, 2, UINT32_MAX, 2, {} }, 2, -EINVAL },
                { "too few descriptors", { 20, 0x24, 2, 0, 2, {} }, 1, -EINVAL },
                { "INTx", { 20, 0x24, 0, 0, 1, {} }, 1, -EINVAL },
                { "disable INTx", { 20, 0x21, 0, 0, 0, {} }, 0, 0 },
                { "an index that is not there", { 20, 0x21, 5, 0, 0, {} }, 0, -EINVAL },
                { "mask", { 20, 0x0c, 2, 0, 1, {} }, 0, -EINVAL },
                { "no action", { 20, 0x04, 2, 0, 1, {} }, 0, -EINVAL },
                { "no data type", { 20, 0x20, 2, 0, 1, {} }, 0, -EINVAL },
                { "two data types", { 20, 0x26, 2, 0, 1, {} }, 0, -EINVAL },
                { "unknown flags", { 20, 0x124, 2, 0, 1, {} }, 0, -EINVAL },
                { "trigger", { 20, 0x21, 2, 1, 1, {} }, 0, 0 },
                { "trigger by bools", { 20, 0x22, 2, 0, 2, { 0, 1 } }, 0, 0 },
        };
        int fds[3] = { h.vmm.error_fd, h.vmm.call_fd, h.vmm.call_fd };

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        for (size_t i = 0; i < ELEMENTS(cases); i++)
                if (vmm_vfio(&h.vmm, 8, &cases[i].s, 24, cases[i].s.start == 1 ? fds + 1 : fds, cases[i].fds,
                             NULL, 0) != cases[i].want)
                        fail_msg("%s", cases[i].name);
        assert_true(vmm_interrupts(&h.vmm) > 0); /* two, but qemu-user swaps the bytes of a counter */
        assert_int_equal(vmm_errors(&h.vmm), 0);

        Set bools = { 20, 0x22, 2, 0, 2, {} }, detach = { 20, 0x24, 2, 1, 1, {} },
            all = { 20, 0x21, 2, 0, 0, {} };
        assert_int_equal(vmm_vfio(&h.vmm, 8, &bools, 21, NULL, 0, NULL, 0),
                         -EINVAL); /* one bool is missing */
        assert_int_equal(vmm_vfio(&h.vmm, 8, &detach, 20, NULL, 0, NULL, 0), 0);
        assert_int_equal(h.service.vfio.pci.vector_fds[1], -1);
        assert_true(h.service.vfio.pci.vector_fds[0] >= 0);
        assert_int_equal(vmm_vfio(&h.vmm, 8, &all, 20, NULL, 0, NULL, 0), 0);
        assert_int_equal(h.service.vfio.pci.vector_fds[0], -1);
}

static void test_region_limits(void **state) {
        static const struct {
                uint32_t region;
                uint64_t offset;
                uint32_t count;
                int want;
        } cases[] = {
                { 7, 0, 256, 0 },
                { 7, 0, 257, -EINVAL },
                { 7, 255, 1, 0 },
                { 7, 256, 1, -EINVAL },
                { 7, 256, 0, 0 },
                { 7, 257, 0, -EINVAL },
                { 0, 0x3fff, 1, 0 },
                { 0, 0x4000, 1, -EINVAL },
                { 0, UINT64_MAX, 4, -EINVAL },
                { 0, 0, 0x4000, 0 },
                { 0, 0, 0x4001, -EINVAL },
                { 1, 0, 1, -EINVAL },
                { 8, 0, 1, -EINVAL },
                { 9, 0, 1, -EINVAL },
                { 2, 0, 4096, 0 },
                { UINT32_MAX, 0, 1, -EINVAL },
                { 0, 0, UINT32_MAX, -EINVAL },
        };
        static uint8_t bytes[0x4000];

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct {
                        uint64_t offset;
                        uint32_t region, count;
                } io = { cases[i].offset, cases[i].region, cases[i].count };
                int r = vmm_vfio(&h.vmm, 9, &io, sizeof io, NULL, 0, NULL, 0);

                if (r != (cases[i].want < 0 ? cases[i].want : (int) (16 + cases[i].count)))
                        fail_msg("case %zu: %d", i, r);
        }
        /* a write that brings less than it says */
        struct {
                uint64_t offset;
                uint32_t region, count;
                uint8_t data[3];
        } io = { 4, 7, 4, {} };
        assert_int_equal(vmm_vfio(&h.vmm, 10, &io, 19, NULL, 0, NULL, 0), -EINVAL);
        assert_int_equal(vmm_vfio(&h.vmm, 10, &io, 15, NULL, 0, NULL, 0), -EINVAL);
        /* any write anywhere does no harm */
        memset(bytes, 0xff, sizeof bytes);
        assert_int_equal(vmm_write(&h.vmm, 7, 0, bytes, 256), 0);
        assert_int_equal(vmm_write(&h.vmm, 0, 0, bytes, 0x3000), 0);
        assert_int_equal(vmm_write(&h.vmm, 2, 0, bytes, 4096), 0);
}

/* What a driver looks for. */
static void test_config(void **state) {
        static const uint8_t want_types[] = { 1, 3, 2, 5 };
        uint8_t c[256], ones[256];
        unsigned n = 0, at;

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        assert_int_equal(vmm_read(&h.vmm, 7, 0, c, 256), 0);
        assert_int_equal(c[0] | c[1] << 8, 0x1af4);
        assert_int_equal(c[2] | c[3] << 8, 0x107e);
        assert_int_equal(c[PCI_CLASS_DEVICE] | c[PCI_CLASS_DEVICE + 1] << 8, 0x0880);
        assert_int_equal(c[PCI_REVISION_ID], 1);
        assert_int_equal(c[0x2c] | c[0x2d] << 8, 0x1af4);
        assert_int_equal(c[0x2e] | c[0x2f] << 8, 0x1100);
        assert_int_equal(c[PCI_INTERRUPT_PIN], 0);
        assert_int_equal(c[PCI_BASE_ADDRESS_0], 4);
        assert_true(c[PCI_STATUS] & PCI_STATUS_CAP_LIST);

        at = c[PCI_CAPABILITY_LIST];
        assert_int_equal(c[at], PCI_CAP_ID_MSIX);
        assert_int_equal(c[at + 2], 1); /* two vectors */
        for (at = c[at + 1]; at != 0; at = c[at + 1], n++) {
                assert_true(n < ELEMENTS(want_types) && at >= 0x40 && at + c[at + 2] <= 256);
                assert_int_equal(c[at], PCI_CAP_ID_VNDR);
                assert_int_equal(c[at + 3], want_types[n]);
        }
        assert_int_equal(n, ELEMENTS(want_types));

        /* identity, BARs and the list cannot be written */
        memset(ones, 0xff, sizeof ones);
        assert_int_equal(vmm_write(&h.vmm, 7, 0, ones, 0x3c), 0);
        assert_int_equal(vmm_write(&h.vmm, 7, 0x3d, ones, 256 - 0x3d), 0);
        assert_int_equal(vmm_read(&h.vmm, 7, 0, ones, 256), 0);
        for (unsigned i = 0; i < 256; i++)
                if (i != PCI_COMMAND && i != PCI_COMMAND + 1 && i != 0x43 && i < 0x80)
                        assert_int_equal(ones[i], c[i]);
        assert_int_equal(ones[PCI_COMMAND], 6);
}

/* The registers through the window in the configuration space. */
static void test_window(void **state) {
        unsigned cap = 0x80;

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        assert_int_equal(vmm_get(&h.vmm, 7, cap + 3, 1), 5);
        assert_int_equal(vmm_put(&h.vmm, 7, cap + 4, 0, 1), 0);
        assert_int_equal(vmm_put(&h.vmm, 7, cap + 8, VIRTIO_PCI_COMMON_NUMQ, 4), 0);
        assert_int_equal(vmm_put(&h.vmm, 7, cap + 12, 2, 4), 0);
        assert_int_equal(vmm_get(&h.vmm, 7, cap + 16, 2), 1);
        assert_int_equal(vmm_put(&h.vmm, 7, cap + 8, VIRTIO_PCI_COMMON_STATUS, 4), 0);
        assert_int_equal(vmm_put(&h.vmm, 7, cap + 12, 1, 4), 0);
        assert_int_equal(vmm_put(&h.vmm, 7, cap + 16, 3, 1), 0);
        assert_int_equal(vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_STATUS, 1), 3);

        /* into itself, nowhere, crooked, too long: nothing happens */
        static const uint32_t bad[][3] = { { 7, 0x90, 4 }, { 1, 0, 4 }, { 255, 0, 4 }, { 0, 0xffffffff, 1 },
                                           { 0, 2, 4 },    { 0, 0, 3 }, { 0, 0, 8 } };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                assert_int_equal(vmm_put(&h.vmm, 7, cap + 4, bad[i][0], 1), 0);
                assert_int_equal(vmm_put(&h.vmm, 7, cap + 8, bad[i][1], 4), 0);
                assert_int_equal(vmm_put(&h.vmm, 7, cap + 12, bad[i][2], 4), 0);
                (void) vmm_get(&h.vmm, 7, cap + 16, 4);
                assert_int_equal(vmm_put(&h.vmm, 7, cap + 16, 0, 4), 0);
        }
        assert_int_equal(vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_STATUS, 1), 3);
}

static void test_status(void **state) {
        static const struct {
                const char *name;
                uint64_t features;
                bool ok;
        } cases[] = {
                { "version 1", UINT64_C(1) << VIRTIO_F_VERSION_1, true },
                { "and platform", UINT64_C(3) << VIRTIO_F_VERSION_1, true },
                { "legacy", 0, false },
                { "platform only", UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM, false },
                { "packed ring", UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_F_RING_PACKED,
                  false },
                { "event index", UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << 29, false },
        };

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_STATUS, 0, 1), 0);
                assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_STATUS, 3, 1), 0);
                for (unsigned k = 0; k < 2; k++) {
                        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_GFSELECT, k, 4), 0);
                        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_GF,
                                                 cases[i].features >> (32 * k), 4),
                                         0);
                }
                assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_STATUS, 11, 1), 0);
                if (vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_STATUS, 1) != (cases[i].ok ? 11 : 3))
                        fail_msg("%s", cases[i].name);
        }

        /* feature words beyond the second are empty; other queues are not there; vectors that are not there are refused */
        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_DFSELECT, 2, 4), 0);
        assert_int_equal(vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_DF, 4), 0);
        assert_int_equal(vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2), 0);
        assert_int_equal(vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2), 0);
        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2), 0);
        assert_int_equal(vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_SIZE, 128, 2), 0); /* more than offered */
        assert_int_equal(vmm_get(&h.vmm, 0, VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
}

/* Rings that are none do not start, those that are not there yet do when they are. */
static void test_ring_places(void **state) {
        static const struct {
                const char *name;
                uint64_t desc, avail, used;
                uint16_t size;
        } cases[] = {
                { "size 3", VMM_RING, VMM_AVAIL, VMM_USED, 3 },
                { "size 0", VMM_RING, VMM_AVAIL, VMM_USED, 0 },
                { "table crooked", VMM_RING + 8, VMM_AVAIL, VMM_USED, 64 },
                { "avail crooked", VMM_RING, VMM_AVAIL + 1, VMM_USED, 64 },
                { "used crooked", VMM_RING, VMM_AVAIL, VMM_USED + 2, 64 },
                { "table beyond", VMM_END - 16, VMM_AVAIL, VMM_USED, 64 },
                { "avail beyond", VMM_RING, VMM_END - 4, VMM_USED, 64 },
                { "used beyond", VMM_RING, VMM_AVAIL, VMM_END - 4, 64 },
                { "table wraps", UINT64_MAX - 15, VMM_AVAIL, VMM_USED, 64 },
                { "avail wraps", VMM_RING, UINT64_MAX - 1, VMM_USED, 64 },
        };
        uint8_t response[64];
        uint32_t head, length;

        assert_int_equal(vmm_start(&h.vmm), 0);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                PciState *s = &h.service.state->vfio.pci;

                assert_int_equal(vmm_reset(&h.vmm), 0);
                assert_int_equal(vmm_start_ring(&h.vmm), 0);
                h.service.device.s->running = 0;
                s->desc = cases[i].desc;
                s->avail = cases[i].avail;
                s->used = cases[i].used;
                s->queue_size = cases[i].size;
                vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
                harness_pump(&h);
                if (h.service.device.s->running || vmm_used(&h.vmm, &head, &length))
                        fail_msg("%s", cases[i].name);
        }
        assert_int_equal(h.tpm.n_commands, 0);

        /* kicked before its memory is there */
        struct {
                uint32_t argsz, flags;
                uint64_t address, size;
        } all = { 24, 2, 0, 0 };
        assert_int_equal(vmm_reset(&h.vmm), 0);
        assert_int_equal(vmm_vfio(&h.vmm, 3, &all, sizeof all, NULL, 0, NULL, 0), 24);
        assert_int_equal(vmm_start_ring(&h.vmm), 0);
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 0);
        assert_int_equal(vmm_share_memory(&h.vmm), 0);
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
}

/* Messages that lie in the socket together are all handled, with descriptors between them and the end behind them. */
static void test_together(void **state) {
        struct {
                uint16_t id, command;
                uint32_t size, flags, error;
                uint32_t argsz, info[3];
        } ask = { 0, 4, 32, 0, 0, 16, {} }, reply;
        uint32_t head, length;

        assert_int_equal(vmm_start(&h.vmm), 0);
        h.vmm.posted = true;
        for (unsigned round = 0; round < 2; round++) {
                vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
                for (unsigned i = 0; i < 4; i++) {
                        ask.id = (uint16_t) (0x1000 + i);
                        assert_int_equal(vmm_send(&h.vmm, &ask, sizeof ask, &h.vmm.memory_fd, i % 2 == 0),
                                         0);
                }
                if (round > 0)
                        assert_int_equal(shutdown(h.vmm.fd, SHUT_WR), 0);
                for (unsigned i = 0; i < 4; i++) {
                        assert_int_equal(vmm_receive(&h.vmm, &reply, sizeof reply), 0);
                        assert_int_equal(reply.id, 0x1000 + i);
                }
                if (round == 0) {
                        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                        assert_int_equal(length, 28);
                }
        }
        harness_pump(&h);
        assert_int_equal(h.service.server.client_fd, -1);
}

/* A VMM that does not read its answers is not waited for, and gets all of them later. */
static void test_slow_reader(void **state) {
        struct {
                uint16_t id, command;
                uint32_t size, flags, error;
                uint64_t offset;
                uint32_t region, count;
        } read_all = { 0, 9, 32, 0, 0, 0, 0, 0x4000 };
        static uint8_t reply[32 + 0x4000];
        unsigned n_sent = 0;

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        for (unsigned i = 0; i < 64; i++) {
                read_all.id = (uint16_t) i;
                if (send(h.vmm.fd, &read_all, 32, MSG_DONTWAIT | MSG_NOSIGNAL) == 32)
                        n_sent++;
                harness_pump(&h);
        }
        assert_true(n_sent >= 32);
        for (unsigned i = 0; i < n_sent; i++) {
                assert_int_equal(vmm_receive(&h.vmm, reply, sizeof reply), 0);
                assert_memory_equal(reply, (&(uint16_t) { (uint16_t) i }), 2);
        }
}

/* The process ended between handling a message and its answer. */
static void test_again(void **state) {
        struct {
                uint16_t id, command;
                uint32_t size, flags, error;
                uint32_t argsz, mapflags;
                uint64_t offset, address, size2;
        } map = { 7, 2, 48, 0, 0, 32, 3, 0, VMM_BASE, VMM_SIZE };
        uint32_t reply[4];

        assert_int_equal(vmm_negotiate(&h.vmm), 0);
        assert_int_equal(vmm_share_memory(&h.vmm), 0);
        memcpy(h.service.state->server.wire.rx, &map, 48);
        h.service.state->server.wire.rx_size = 48;
        h.service.state->server.wire.rx_fds = 1;
        harness_restart(&h);
        assert_int_equal(vmm_receive(&h.vmm, reply, sizeof reply), 0);
        assert_int_equal(reply[2], 1); /* a good reply, not EEXIST */
        assert_int_equal(h.service.memory.n_ranges, 1);

        /* its descriptor was lost: an error, not a range without memory */
        map.address = 0;
        map.size2 = 4096;
        memcpy(h.service.state->server.wire.rx, &map, 48);
        h.service.state->server.wire.rx_size = 48;
        h.service.state->server.wire.rx_fds = 1;
        harness_restart(&h);
        assert_int_equal(vmm_receive(&h.vmm, reply, sizeof reply), 0);
        assert_int_equal(reply[3], EIO);
        assert_int_equal(vmm_start_ring(&h.vmm), 0);
}

/* The process is killed while it has a message: however far it came, and if the next one is, too, the message is handled, with its
 * descriptor, and answered once. */
static void test_killed(void **state) {
        enum { RECEIVED, NOT_KEPT, HANDLED, TAKEN_OUT, DONE, STAGES };

        for (unsigned stage = 0; stage < 2 * STAGES; stage++) {
                struct {
                        uint16_t id, command;
                        uint32_t size, flags, error;
                        uint32_t argsz, mapflags;
                        uint64_t offset, address, size2;
                } map = { 7, 2, 48, 0, 0, 32, 3, 0, VMM_BASE, VMM_SIZE };
                uint8_t response[64];
                uint32_t reply[4];
                Wire *w;

                harness_done(&h);
                harness_init(&h, false);
                assert_int_equal(vmm_negotiate(&h.vmm), 0);
                assert_int_equal(vmm_send(&h.vmm, &map, sizeof map, &h.vmm.memory_fd, 1), 0);
                w = &h.service.server.wire;
                assert_int_equal(wire_receive(w), 1);
                if (stage % STAGES >= NOT_KEPT)
                        assert_int_equal(h.service.server.front->handle(&h.service.vfio, w, false), 0);
                if (stage % STAGES ==
                    NOT_KEPT) { /* the range has been noted, its file is not in the store yet */
                        w->s->tx_size = 0;
                        h.service.memory.files[0].fd = fd_close(h.service.memory.files[0].fd);
                }
                if (stage % STAGES == TAKEN_OUT)
                        assert_int_equal(recv(w->fd, w->s->rx, w->s->rx_size, MSG_DONTWAIT), 48);
                if (stage % STAGES == DONE)
                        assert_int_equal(wire_done(w), 0);
                harness_restart(&h);
                if (stage >= STAGES)
                        harness_restart(&h);

                assert_int_equal(vmm_receive(&h.vmm, reply, sizeof reply), 0);
                assert_memory_equal(reply, &map, 4);
                assert_int_equal(reply[2], 1);
                assert_int_equal(h.service.memory.n_ranges, 1);
                /* and there is no second reply in the way */
                assert_int_equal(vmm_start_ring(&h.vmm), 0);
                assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response,
                                             sizeof response, HARNESS_MS),
                                 28);
        }
}

/* An interrupt that nobody takes, through a descriptor that would make a writer wait, makes nobody wait. */
static void test_full_vector(void **state) {
        struct {
                uint32_t argsz, flags, index, start, count;
        } irqs = { 20, 0x24, 2, 0, 2 };
        static const uint8_t some[4096];
        uint8_t response[64];
        int pipes[2], fds[2];

        assert_int_equal(vmm_start(&h.vmm), 0);
        assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
        while (write(pipes[1], some, sizeof some) > 0)
                ;
        assert_int_equal(fcntl(pipes[1], F_SETFL, O_WRONLY), 0);
        fds[0] = h.vmm.error_fd;
        fds[1] = pipes[1];
        assert_int_equal(vmm_vfio(&h.vmm, 8, &irqs, sizeof irqs, fds, 2, NULL, 0), 0);
        (void) alarm(20); /* rather than until somebody reads */
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        (void) alarm(0);
        (void) close(pipes[0]);
        (void) close(pipes[1]);
}

/* A function that is no bus master touches no memory and interrupts nobody, whatever else it is told; nothing is lost of what it has. */
static void test_bus_master(void **state) {
        enum { OFF = PCI_COMMAND_MEMORY, ON = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER };
        static uint8_t before[VMM_SIZE];
        uint8_t response[64], header[8];
        uint32_t head, length;

        assert_int_equal(vmm_start(&h.vmm), 0);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        assert_true(vmm_interrupts(&h.vmm) > 0);

        /* a request is not taken */
        assert_int_equal(vmm_put(&h.vmm, 7, PCI_COMMAND, OFF, 2), 0);
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        memcpy(before, h.vmm.memory, VMM_SIZE);
        assert_int_equal(vmm_put(&h.vmm, 0, VIRTIO_PCI_COMMON_STATUS, 15, 1), 0);
        assert_int_equal(vmm_put(&h.vmm, 7, PCI_COMMAND + 1, PCI_COMMAND_INTX_DISABLE >> 8, 1), 0);
        harness_restart(&h);
        assert_int_equal(vmm_kick(&h.vmm), 0);
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 1);
        assert_memory_equal(before, h.vmm.memory, VMM_SIZE);

        /* until it may, without another doorbell; the bit can be part of a longer write */
        assert_int_equal(vmm_read(&h.vmm, 7, 0, header, sizeof header), 0);
        header[PCI_COMMAND] = ON;
        h.tpm.fault = FAKE_TPM_HELD;
        assert_int_equal(vmm_write(&h.vmm, 7, 0, header, sizeof header), 0);
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 2);

        /* the answer comes while it may not */
        memcpy(before, h.vmm.memory, VMM_SIZE);
        (void) vmm_interrupts(&h.vmm);
        header[PCI_COMMAND] = OFF;
        assert_int_equal(vmm_write(&h.vmm, 7, 0, header, sizeof header), 0);
        h.tpm.fault = FAKE_TPM_GOOD;
        harness_pump(&h);
        assert_int_equal(h.service.device.s->phase, DEVICE_DONE);
        harness_restart(&h);
        assert_int_equal(vmm_kick(&h.vmm), 0);
        harness_pump(&h);
        assert_memory_equal(before, h.vmm.memory, VMM_SIZE);
        assert_int_equal(vmm_interrupts(&h.vmm), 0);

        /* it is given, once, and the TPM has seen its command once */
        assert_int_equal(vmm_put(&h.vmm, 7, PCI_COMMAND, ON, 2), 0);
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
        assert_int_equal(length, 28);
        assert_true(vmm_interrupts(&h.vmm) > 0);
        assert_int_equal(h.tpm.n_commands, 2);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        assert_int_equal(h.tpm.n_commands, 3);

        /* one that nobody fetched is not the next driver's, even if that one asks for the same */
        h.tpm.fault = FAKE_TPM_HELD;
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        harness_pump(&h);
        assert_int_equal(vmm_put(&h.vmm, 7, PCI_COMMAND, OFF, 2), 0);
        h.tpm.fault = FAKE_TPM_GOOD;
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 4);
        assert_int_equal(vmm_reset(&h.vmm), 0);
        assert_int_equal(vmm_start_ring(&h.vmm), 0);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        assert_int_equal(h.tpm.n_commands, 5);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_version, setup, teardown),
                cmocka_unit_test_setup_teardown(test_info, setup, teardown),
                cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
                cmocka_unit_test_setup_teardown(test_irqs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_region_limits, setup, teardown),
                cmocka_unit_test_setup_teardown(test_config, setup, teardown),
                cmocka_unit_test_setup_teardown(test_window, setup, teardown),
                cmocka_unit_test_setup_teardown(test_status, setup, teardown),
                cmocka_unit_test_setup_teardown(test_ring_places, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bus_master, setup, teardown),
                cmocka_unit_test_setup_teardown(test_together, setup, teardown),
                cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
                cmocka_unit_test_setup_teardown(test_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_full_vector, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
