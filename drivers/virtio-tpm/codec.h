/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* codec - what the bytes in a chain mean: plain TPM 2.0 messages, nothing around them (docs/virtio-tpm.md). A second wire format
 * would be a second implementation of these functions. Pure. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/include/virtio_tpm.h"

/* 0 if @command, all the device-readable bytes of a chain, may go to the TPM; else the response code that answers it. */
uint32_t codec_check_command(const uint8_t *command, size_t size);

/* The command code, or the response code, of a message of at least VIRTIO_TPM_HEADER_SIZE bytes. */
uint32_t codec_code(const uint8_t *message);

/* The whole size that a response's header of VIRTIO_TPM_HEADER_SIZE bytes announces; -EBADMSG if no response can have it. */
int codec_response_size(const uint8_t *header);

/* Writes a response without parameters; VIRTIO_TPM_HEADER_SIZE bytes. */
void codec_put_error(uint8_t response[static VIRTIO_TPM_HEADER_SIZE], uint32_t code);

/* Big-endian numbers at any address. */
uint32_t codec_get32(const uint8_t *p);
void codec_put32(uint8_t *p, uint32_t v);
