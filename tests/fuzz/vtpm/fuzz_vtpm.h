/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* what the virtio TPM's fuzz targets share */

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "drivers/virtio-tpm/report.h"
#include "lib/vtpm/harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input, taken from the front; zeros when it is used up. */
typedef struct Input {
        const uint8_t *data;
        size_t size;
} Input;

static inline void input_take(Input *in, void *to, size_t size) {
        size_t n = size < in->size ? size : in->size;

        memset(to, 0, size);
        if (n > 0)
                memcpy(to, in->data, n);
        in->data += n;
        in->size -= n;
}

static inline uint8_t input_byte(Input *in) {
        uint8_t b;

        input_take(in, &b, 1);
        return b;
}

/* Messages back to back, each: request, what to do with it, size of payload, payload. Header as the protocol has it. */
static inline void fuzz_messages(bool vhost, const uint8_t *data, size_t size) {
        static Harness h;
        static uint8_t sink[65536];
        Input in = { data, size };
        bool started;

        report_set_max(LOG_EMERG);
        harness_init(&h, vhost);
        h.vmm.posted = true;
        started = input_byte(&in) & 1;
        if (started)
                (void) vmm_start(&h.vmm);

        for (unsigned n = 0; in.size > 0 && n < 64; n++) {
                uint8_t request = input_byte(&in), how = input_byte(&in), length = input_byte(&in),
                        message[16 + 255] = {};
                uint32_t header[4];
                size_t header_size = vhost ? 12 : 16;
                int fds[4] = { h.vmm.memory_fd, how & 8 ? h.vmm.call_fd : h.vmm.memory_fd, h.vmm.error_fd,
                               h.vmm.kick_fd };

                if (vhost) {
                        header[0] = request;
                        header[1] = how & 1 ? 9 : 1;
                        header[2] = length;
                } else {
                        uint16_t words[2] = { (uint16_t) n, request };

                        memcpy(header, words, sizeof words);
                        header[1] = 16U + length;
                        header[2] = how & 1 ? 0x10 : 0;
                        header[3] = 0;
                }
                if (how & 16) /* or as the input has it */
                        input_take(&in, header, header_size);
                memcpy(message, header, header_size);
                input_take(&in, message + header_size, length);
                if (vmm_send(&h.vmm, message, header_size + length, how & 8 ? fds + 1 : fds, how >> 1 & 3) <
                    0)
                        break;
                if (how & 32)
                        vmm_submit(&h.vmm, (const uint8_t[]) { 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 16 },
                                   12, 64);
                harness_pump(&h);
                while (recv(h.vmm.fd, sink, sizeof sink, MSG_DONTWAIT) > 0)
                        ;
                if (how & 64)
                        harness_restart(&h);
                if (how & 128)
                        h.tpm.fault = (FakeTpmFault) (request % (FAKE_TPM_TRAILING + 1));
        }
        for (unsigned i = 0; i < 3; i++)
                harness_pump(&h);
        harness_done(&h);
}
