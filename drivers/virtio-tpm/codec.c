/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/codec.h"

#include <errno.h>

uint32_t codec_get32(const uint8_t *p) {
        return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

void codec_put32(uint8_t *p, uint32_t v) {
        p[0] = (uint8_t) (v >> 24);
        p[1] = (uint8_t) (v >> 16);
        p[2] = (uint8_t) (v >> 8);
        p[3] = (uint8_t) v;
}

uint32_t codec_check_command(const uint8_t *command, size_t size) {
        if (size < VIRTIO_TPM_HEADER_SIZE || size > VIRTIO_TPM_MESSAGE_MAX)
                return VIRTIO_TPM_RC_COMMAND_SIZE;

        if (codec_get32(command + VIRTIO_TPM_HEADER_AT_SIZE) != size)
                return VIRTIO_TPM_RC_COMMAND_SIZE;

        return 0;
}

uint32_t codec_code(const uint8_t *message) {
        return codec_get32(message + VIRTIO_TPM_HEADER_AT_CODE);
}

int codec_response_size(const uint8_t *header) {
        uint32_t size = codec_get32(header + VIRTIO_TPM_HEADER_AT_SIZE);

        if (size < VIRTIO_TPM_HEADER_SIZE || size > VIRTIO_TPM_MESSAGE_MAX)
                return -EBADMSG;

        return (int) size;
}

void codec_put_error(uint8_t response[static VIRTIO_TPM_HEADER_SIZE], uint32_t code) {
        response[0] = VIRTIO_TPM_TAG_NO_SESSIONS >> 8;
        response[1] = VIRTIO_TPM_TAG_NO_SESSIONS & 0xff;
        codec_put32(response + VIRTIO_TPM_HEADER_AT_SIZE, VIRTIO_TPM_HEADER_SIZE);
        codec_put32(response + VIRTIO_TPM_HEADER_AT_CODE, code);
}
