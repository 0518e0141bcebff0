/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* tpm_model - the ways in which a guest can see its TPM. */

#include <stddef.h>
#include <string.h>

typedef enum TpmModel {
        TPM_MODEL_NONE,   /* no TPM; as a wish: whatever the emulator can, virtio before crb before tis */
        TPM_MODEL_VIRTIO, /* vfio-user device of our process: x86_64 and s390x, QEMU 10.1 or later */
        TPM_MODEL_CRB,    /* libvirt's <tpm model='tpm-crb'> whose external backend is our swtpm: x86_64 */
        TPM_MODEL_TIS,    /* the same with tpm-tis */
        _TPM_MODEL_MAX
} TpmModel;

/* "", "virtio", "crb", "tis". */
static inline const char *tpm_model_name(TpmModel m) {
        static const char *const names[] = { "", "virtio", "crb", "tis" };

        return names[m];
}

/* _TPM_MODEL_MAX: there is none of that name. */
static inline TpmModel tpm_model_from_name(const char *name) {
        TpmModel m = TPM_MODEL_NONE;

        while (m < _TPM_MODEL_MAX && strcmp(tpm_model_name(m), name) != 0)
                m++;
        return m;
}
