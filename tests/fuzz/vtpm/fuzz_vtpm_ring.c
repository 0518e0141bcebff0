/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any descriptors, any indexes, in any order of kicks, resets, restarts and answers. */

#include <stdlib.h>

#include "fuzz/vtpm/fuzz_vtpm.h"

enum { DESC, OFFER, KICK, AVAIL, FAULT, RESET, RESTART, COMMAND, OPS };

/* Addresses near those that matter; now and then any. */
static uint64_t input_address(Input *in) {
        static const uint64_t near[] = { VMM_COMMAND,  VMM_RESPONSE, VMM_TABLE,    VMM_RING,
                                         VMM_END - 64, VMM_USED,     VMM_BASE - 8, 0 };
        uint8_t which = input_byte(in);
        uint64_t any;

        if (which < 240)
                return near[which % 8] + input_byte(in);

        input_take(in, &any, sizeof any);
        return any;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static Harness h;
        Input in = { data, size };
        uint16_t index;
        uint8_t setup;

        report_set_max(LOG_EMERG);
        setup = input_byte(&in);
        harness_init(&h, true);
        h.vmm.queue_size = (uint16_t) (1U << (setup & 7));
        h.tpm.response_size = setup & 8 ? VIRTIO_TPM_MESSAGE_MAX : 28;
        if (setup & 16)
                h.vmm.not_features = UINT64_C(1) << 28;
        if (vmm_start(&h.vmm) < 0)
                abort();

        for (unsigned n = 0; in.size > 0 && n < 128; n++)
                switch (input_byte(&in) % OPS) {
                case DESC: {
                        uint8_t where = input_byte(&in);
                        VmmDesc d = { .address = input_address(&in) };

                        input_take(&in, &d.length, 2);
                        if (d.length == 0xffff)
                                input_take(&in, &d.length, 4);
                        d.flags = input_byte(&in) & 7;
                        d.next = input_byte(&in);
                        vmm_desc(&h.vmm, where & 128 ? VMM_TABLE : VMM_RING, where & 127, d);
                        break;
                }
                case OFFER:
                        vmm_offer(&h.vmm, input_byte(&in));
                        break;
                case KICK:
                        (void) vmm_kick(&h.vmm);
                        harness_pump(&h);
                        break;
                case AVAIL:
                        input_take(&in, &index, sizeof index);
                        vmm_set_avail(&h.vmm, index);
                        break;
                case FAULT:
                        h.tpm.fault = (FakeTpmFault) (input_byte(&in) % (FAKE_TPM_TRAILING + 1));
                        break;
                case RESET:
                        if (vmm_reset(&h.vmm) < 0 || vmm_start_ring(&h.vmm) < 0)
                                abort();
                        break;
                case RESTART:
                        harness_restart(&h);
                        break;
                case COMMAND:
                        input_take(&in, vmm_at(&h.vmm, VMM_COMMAND), 12);
                        break;
                }

        (void) vmm_kick(&h.vmm);
        for (unsigned i = 0; i < 3; i++)
                harness_pump(&h);
        harness_done(&h);
        return 0;
}
