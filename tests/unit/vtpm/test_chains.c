/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every chain that a guest can make, and what it gets. */

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "unit/vtpm/vtpm_test.h"

#define N VRING_DESC_F_NEXT
#define W VRING_DESC_F_WRITE
#define I VRING_DESC_F_INDIRECT

#define GOOD    0 /* the TPM's own answer, of 28 bytes */
#define FAILURE VIRTIO_TPM_RC_FAILURE
#define SIZE    VIRTIO_TPM_RC_COMMAND_SIZE
#define NOTHING 1 /* used length 0 */

typedef struct Chain {
        const char *name;
        uint32_t want;
        bool no_indirect;     /* not negotiated */
        bool is_4096;         /* the command is 4096 or 4097 bytes long, not 12 */
        uint32_t header_size; /* what its header says; 0: the truth */
        VmmDesc ring[5], table[4];
} Chain;

#define C VMM_COMMAND
#define R VMM_RESPONSE
#define T VMM_TABLE

static const Chain chains[] = {
        { .name = "one and one", .want = GOOD, .ring = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "exact room", .want = GOOD, .ring = { { C, 12, N, 1 }, { R, 28, W } } },
        { .name = "command split",
          .want = GOOD,
          .ring = { { C, 5, N, 1 }, { C + 5, 7, N, 2 }, { R, 4096, W } } },
        { .name = "room split",
          .want = GOOD,
          .ring = { { C, 12, N, 1 }, { R, 7, W | N, 2 }, { R + 7, 100, W } } },
        { .name = "zero-length parts",
          .want = GOOD,
          .ring = { { C, 0, N, 1 }, { C, 12, N, 2 }, { 0, 0, N, 3 }, { R, 0, W | N, 4 }, { R, 50, W } } },
        { .name = "zero-length room before command",
          .want = SIZE,
          .ring = { { R, 0, W | N, 1 }, { C, 12, N, 2 }, { R, 50, W } } },
        { .name = "indirect",
          .want = GOOD,
          .ring = { { T, 32, I } },
          .table = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "indirect after direct",
          .want = GOOD,
          .ring = { { C, 5, N, 1 }, { T, 32, I } },
          .table = { { C + 5, 7, N, 1 }, { R, 4096, W } } },
        { .name = "indirect with WRITE, which is to be ignored",
          .want = GOOD,
          .ring = { { T, 32, I | W } },
          .table = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "reserved flags",
          .want = GOOD,
          .ring = { { C, 12, N | 0xfff8, 1 }, { R, 4096, W | 0xfff8 } } },
        { .name = "4096 bytes",
          .want = GOOD,
          .is_4096 = true,
          .ring = { { C, 4096, N, 1 }, { R, 4096, W } } },
        { .name = "command at the end of memory",
          .want = SIZE,
          .ring = { { VMM_END - 12, 12, N, 1 }, { R, 4096, W } } },

        { .name = "no room", .want = NOTHING, .ring = { { C, 12, 0, 0 } } },
        { .name = "room of 9", .want = NOTHING, .ring = { { C, 12, N, 1 }, { R, 9, W } } },
        { .name = "room of 12 for 28", .want = FAILURE, .ring = { { C, 12, N, 1 }, { R, 12, W } } },
        { .name = "room of 10 for 28", .want = FAILURE, .ring = { { C, 12, N, 1 }, { R, 10, W } } },
        { .name = "only room", .want = SIZE, .ring = { { R, 4096, W } } },
        { .name = "empty command", .want = SIZE, .ring = { { C, 0, N, 1 }, { R, 4096, W } } },
        { .name = "short command", .want = SIZE, .ring = { { C, 9, N, 1 }, { R, 4096, W } } },
        { .name = "header says more",
          .want = SIZE,
          .header_size = 13,
          .ring = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "header says less",
          .want = SIZE,
          .header_size = 11,
          .ring = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "4097 bytes",
          .want = SIZE,
          .is_4096 = true,
          .header_size = 4097,
          .ring = { { C, 4097, N, 1 }, { R, 4096, W } } },
        { .name = "4096 and one",
          .want = SIZE,
          .is_4096 = true,
          .header_size = 4097,
          .ring = { { C, 4096, N, 1 }, { C, 1, N, 2 }, { R, 4096, W } } },
        { .name = "crosses the end of memory",
          .want = SIZE,
          .ring = { { VMM_END - 6, 12, N, 1 }, { R, 4096, W } } },
        { .name = "beyond memory", .want = SIZE, .ring = { { VMM_END, 12, N, 1 }, { R, 4096, W } } },
        { .name = "address 0", .want = SIZE, .ring = { { 0, 12, N, 1 }, { R, 4096, W } } },
        { .name = "wraps", .want = SIZE, .ring = { { UINT64_MAX - 5, 12, N, 1 }, { R, 4096, W } } },
        { .name = "endless command", .want = SIZE, .ring = { { C, UINT32_MAX, N, 1 }, { R, 4096, W } } },
        { .name = "endless room", .want = NOTHING, .ring = { { C, 12, N, 1 }, { R, UINT32_MAX, W } } },
        { .name = "room crosses the end",
          .want = NOTHING,
          .ring = { { C, 12, N, 1 }, { VMM_END - 64, 65, W } } },
        { .name = "room wraps", .want = NOTHING, .ring = { { C, 12, N, 1 }, { UINT64_MAX - 63, 128, W } } },
        { .name = "second room crosses the end",
          .want = SIZE,
          .ring = { { C, 12, N, 1 }, { R, 64, W | N, 2 }, { VMM_END - 64, 65, W } } },
        { .name = "room first", .want = SIZE, .ring = { { R, 4096, W | N, 1 }, { C, 12, 0, 0 } } },
        { .name = "room between",
          .want = SIZE,
          .ring = { { C, 5, N, 1 }, { R, 64, W | N, 2 }, { C + 5, 7 } } },
        { .name = "loop", .want = NOTHING, .ring = { { C, 12, N, 0 } } },
        { .name = "loop in the room", .want = SIZE, .ring = { { C, 12, N, 1 }, { R, 64, W | N, 1 } } },
        { .name = "loop of two", .want = SIZE, .ring = { { C, 1, N, 1 }, { R, 10, W | N, 0 } } },
        { .name = "next beyond the table", .want = NOTHING, .ring = { { C, 12, N, VMM_QUEUE } } },
        { .name = "next far beyond", .want = NOTHING, .ring = { { C, 12, N, 65535 } } },

        { .name = "indirect not negotiated",
          .want = NOTHING,
          .no_indirect = true,
          .ring = { { T, 32, I } },
          .table = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "nested", .want = NOTHING, .ring = { { T, 32, I } }, .table = { { T, 32, I } } },
        { .name = "indirect with NEXT",
          .want = NOTHING,
          .ring = { { T, 32, I | N, 1 }, { R, 64, W } },
          .table = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "empty table", .want = NOTHING, .ring = { { T, 0, I } } },
        { .name = "crooked table",
          .want = NOTHING,
          .ring = { { T, 33, I } },
          .table = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "half an entry", .want = NOTHING, .ring = { { T, 8, I } } },
        { .name = "1025 entries",
          .want = NOTHING,
          .ring = { { T, 1025 * 16, I } },
          .table = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "1024 entries",
          .want = GOOD,
          .ring = { { T, 1024 * 16, I } },
          .table = { { C, 12, N, 1 }, { R, 4096, W } } },
        { .name = "table beyond memory", .want = NOTHING, .ring = { { VMM_END, 32, I } } },
        { .name = "table crosses the end", .want = NOTHING, .ring = { { VMM_END - 16, 32, I } } },
        { .name = "table wraps", .want = NOTHING, .ring = { { UINT64_MAX - 15, 32, I } } },
        { .name = "next beyond the indirect table",
          .want = NOTHING,
          .ring = { { T, 32, I } },
          .table = { { C, 12, N, 2 } } },
        { .name = "loop in the indirect table",
          .want = SIZE,
          .ring = { { T, 32, I } },
          .table = { { C, 12, N, 1 }, { R, 10, W | N, 1 } } },
};

static void offer(Vmm *v, const Chain *c) {
        uint8_t *command = vmm_at(v, VMM_COMMAND);

        memset(command, 0, 5000);
        memcpy(command, get_random, sizeof get_random);
        codec_put32(command + 2, c->header_size > 0 ? c->header_size : c->is_4096 ? 4096 : 12);
        memset(vmm_at(v, VMM_RESPONSE), 0xee, 8192);
        memset(vmm_at(v, VMM_END - 64), 0, 64);
        for (unsigned i = 0; i < ELEMENTS(c->ring); i++)
                vmm_desc(v, VMM_RING, i, c->ring[i]);
        for (unsigned i = 0; i < ELEMENTS(c->table); i++)
                vmm_desc(v, VMM_TABLE, i, c->table[i]);
        vmm_offer(v, 0);
        assert_int_equal(vmm_kick(v), 0);
}

/* The answer, where it was written: the first part of the room. */
static void check(Vmm *v, const Chain *c, const char *front) {
        const uint8_t *response = vmm_at(v, VMM_RESPONSE);
        uint32_t head = 99, length = 99, want = c->want == GOOD ? 28 : c->want == NOTHING ? 0 : 10;

        if (!vmm_wait_used(v, HARNESS_MS, &head, &length))
                fail_msg("%s: %s: no answer", front, c->name);
        if (head != 0 || length != want)
                fail_msg("%s: %s: head %u length %u instead of %u", front, c->name, head, length, want);
        if (want > 0 && (codec_get32(response + 2) != want || codec_code(response) != c->want))
                fail_msg("%s: %s: size %u code 0x%x", front, c->name, codec_get32(response + 2),
                         codec_code(response));
        if (response[want] != 0xee)
                fail_msg("%s: %s: wrote beyond the response", front, c->name);
        if (vmm_used(v, &head, &length))
                fail_msg("%s: %s: answered twice", front, c->name);
}

static void test_chains(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++)
                for (unsigned no_indirect = 0; no_indirect < 2; no_indirect++) {
                        static Harness h;
                        unsigned n_good = 0;

                        harness_init(&h, vhost);
                        if (no_indirect)
                                h.vmm.not_features = UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
                        assert_int_equal(vmm_start(&h.vmm), 0);
                        for (size_t i = 0; i < ELEMENTS(chains); i++) {
                                if (chains[i].no_indirect != no_indirect)
                                        continue;
                                offer(&h.vmm, &chains[i]);
                                check(&h.vmm, &chains[i], front_name(vhost));
                                n_good += chains[i].want == GOOD || chains[i].want == FAILURE ||
                                          strcmp(chains[i].name, "no room") == 0 ||
                                          strcmp(chains[i].name, "room of 9") == 0;
                        }
                        assert_int_equal(h.tpm.n_commands, n_good); /* nothing malformed got to the TPM */
                        assert_int_equal(h.service.device.s->broken, 0);
                        harness_done(&h);
                }
}

/* The room in many small parts, as many as there may be and one more. */
static void test_segments(void **state) {
        for (unsigned n = RING_INDIRECT_MAX - 1; n <= RING_INDIRECT_MAX; n++) {
                static Harness h;
                uint32_t head, length;

                harness_init(&h, true);
                h.tpm.response_size = 1023;
                assert_int_equal(vmm_start(&h.vmm), 0);
                memcpy(vmm_at(&h.vmm, VMM_COMMAND), get_random, sizeof get_random);
                vmm_desc(&h.vmm, VMM_RING, 0, (VmmDesc) { C, 12, N, 1 });
                vmm_desc(&h.vmm, VMM_RING, 1, (VmmDesc) { T, n * 16, I });
                for (unsigned i = 0; i < n; i++)
                        vmm_desc(&h.vmm, VMM_TABLE, i,
                                 (VmmDesc) { R + i, 1, i + 1 < n ? W | N : W, (uint16_t) (i + 1) });
                vmm_offer(&h.vmm, 0);
                assert_int_equal(vmm_kick(&h.vmm), 0);
                assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                assert_int_equal(length, 1023);
                assert_int_equal(((uint8_t *) vmm_at(&h.vmm, VMM_RESPONSE))[1022], 1022 & 0xff);
                harness_done(&h);
        }
}

/* Several at once come back in order, each once; a head that is offered twice is two requests. */
static void test_order(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                static const uint16_t heads[] = { 4, 0, 0, 2, 4 };
                static Harness h;
                uint32_t head, length;

                harness_init(&h, vhost);
                assert_int_equal(vmm_start(&h.vmm), 0);
                memcpy(vmm_at(&h.vmm, VMM_COMMAND), get_random, sizeof get_random);
                for (uint16_t i = 0; i < 6; i += 2) {
                        vmm_desc(&h.vmm, VMM_RING, i, (VmmDesc) { C, 12, N, (uint16_t) (i + 1) });
                        vmm_desc(&h.vmm, VMM_RING, i + 1U, (VmmDesc) { R, 64, W });
                }
                for (size_t i = 0; i < ELEMENTS(heads); i++)
                        vmm_offer(&h.vmm, heads[i]);
                assert_int_equal(vmm_kick(&h.vmm), 0);
                for (size_t i = 0; i < ELEMENTS(heads); i++) {
                        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
                        assert_int_equal(head, heads[i]);
                        assert_int_equal(length, 28);
                }
                assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);
                assert_int_equal(h.tpm.n_commands, ELEMENTS(heads));
                harness_done(&h);
        }
}

/* What is changed after the kick changes nothing: all was copied. */
static void test_copied(void **state) {
        static Harness h;
        uint8_t response[64];
        uint32_t head, length;

        harness_init(&h, true);
        assert_int_equal(vmm_start(&h.vmm), 0);
        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response, sizeof response,
                                     HARNESS_MS),
                         28);
        h.tpm.fault = FAKE_TPM_HELD;
        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
        harness_pump(&h);
        assert_int_equal(h.tpm.n_commands, 2);
        vmm_desc(&h.vmm, VMM_RING, 1, (VmmDesc) { VMM_RING, 4096, W });
        memset(vmm_at(&h.vmm, VMM_COMMAND), 0xff, 12);
        h.tpm.fault = FAKE_TPM_GOOD;
        assert_int_equal(vmm_wait_used(&h.vmm, HARNESS_MS, &head, &length), 1);
        assert_int_equal(length, 28);
        assert_memory_equal(h.tpm.command, get_random, sizeof get_random);
        assert_int_equal(codec_code(vmm_at(&h.vmm, VMM_RESPONSE)), 0);
        harness_done(&h);
}

/* A ring that lies: stopped, told, and well again after a reset. */
static void test_broken(void **state) {
        static const struct {
                const char *name;
                uint16_t head, index;
        } cases[] = {
                { "head beyond the table", VMM_QUEUE, 1 },
                { "head far beyond", 65535, 1 },
                { "index too far ahead", 0, VMM_QUEUE + 1 },
                { "index behind", 0, 65535 },
        };

        for (unsigned vhost = 0; vhost < FRONTS; vhost++)
                for (size_t i = 0; i < ELEMENTS(cases); i++) {
                        static Harness h;
                        uint8_t response[64];
                        uint32_t head, length;

                        harness_init(&h, vhost);
                        assert_int_equal(vmm_start(&h.vmm), 0);
                        (void) vmm_errors(&h.vmm);
                        vmm_offer(&h.vmm, cases[i].head);
                        vmm_set_avail(&h.vmm, cases[i].index);
                        assert_int_equal(vmm_kick(&h.vmm), 0);
                        harness_pump(&h);
                        if (vmm_errors(&h.vmm) == 0)
                                fail_msg("%s: %s: nobody was told", front_name(vhost), cases[i].name);
                        if (!(h.service.device.s->status & VIRTIO_CONFIG_S_NEEDS_RESET))
                                fail_msg("%s: %s: status 0x%x", front_name(vhost), cases[i].name,
                                         h.service.device.s->status);

                        /* good requests are not answered now */
                        h.vmm.next_avail = 0;
                        vmm_submit(&h.vmm, get_random, sizeof get_random, 64);
                        harness_pump(&h);
                        assert_int_equal(vmm_used(&h.vmm, &head, &length), 0);
                        assert_int_equal(h.tpm.n_commands, 0);

                        assert_int_equal(vmm_reset(&h.vmm), 0);
                        assert_int_equal(vmm_start_ring(&h.vmm), 0);
                        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response,
                                                     sizeof response, HARNESS_MS),
                                         28);
                        harness_done(&h);
                }
}

/* Indexes run over. */
static void test_wrap(void **state) {
        for (unsigned vhost = 0; vhost < FRONTS; vhost++) {
                static Harness h;
                uint8_t response[64];

                harness_init(&h, vhost);
                h.vmm.queue_size = 2; /* the smallest that is of use */
                assert_int_equal(vmm_start(&h.vmm), 0);
                for (unsigned i = 0; i < 66000; i += vhost ? 1 : 64) {
                        if (!vhost) { /* each doorbell is a message: in leaps */
                                h.service.device.s->ring.next_avail = h.service.device.s->ring.next_used =
                                        (uint16_t) i;
                                h.vmm.next_avail = h.vmm.next_used = (uint16_t) i;
                                vmm_set_avail(&h.vmm, (uint16_t) i);
                                memset(vmm_at(&h.vmm, VMM_USED + 2), 0, 2);
                                ((uint8_t *) vmm_at(&h.vmm, VMM_USED + 2))[0] = (uint8_t) i;
                                ((uint8_t *) vmm_at(&h.vmm, VMM_USED + 2))[1] = (uint8_t) (i >> 8);
                        }
                        assert_int_equal(vmm_command(&h.vmm, get_random, sizeof get_random, response,
                                                     sizeof response, HARNESS_MS),
                                         28);
                }
                harness_done(&h);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_chains), cmocka_unit_test(test_segments), cmocka_unit_test(test_order),
                cmocka_unit_test(test_copied), cmocka_unit_test(test_broken),   cmocka_unit_test(test_wrap),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
