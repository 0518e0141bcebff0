/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* guest - what a guest does with its TPM, through the front end in QEMU's place. */

#include <stdint.h>

#include "lib/vtpm/vmm.h"
#include "lib/vtpm_life/life.h"

#define GUEST_NAME_MAX 128

/* Connects to the TPM's device, as a machine that is switched on. */
void guest_open(Vmm *v, Life *l, Uuid uuid);

/* Each: the response code of the TPM, 0 if all is well. */
uint32_t guest_random(Vmm *v);
uint32_t guest_extend(Vmm *v, unsigned pcr);
/* In the bank of SHA-256. */
uint32_t guest_read_pcr(Vmm *v, unsigned pcr, uint8_t ret[static 32]);
/* The name of a persistent key: a digest of its public part. */
uint32_t guest_key_name(Vmm *v, uint32_t handle, uint8_t ret[static GUEST_NAME_MAX], size_t *ret_size);
/* Whether there is such an index. */
uint32_t guest_nv_public(Vmm *v, uint32_t index);
/* With the platform's empty authorisation: TPM2_ClearControl. */
uint32_t guest_clear_control(Vmm *v);
/* With the owner's: defines an index of 8 bytes and writes it; reads it. */
uint32_t guest_nv_write(Vmm *v, uint32_t index, const char data[static 8]);
uint32_t guest_nv_read(Vmm *v, uint32_t index, char ret[static 8]);

#define GUEST_EK      0x81010001 /* what swtpm_setup makes */
#define GUEST_EK_CERT 0x01c00002
