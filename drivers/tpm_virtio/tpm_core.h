/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the TPM core exports to its drivers but declares only in
 * drivers/char/tpm/tpm.h, which is no part of a distribution's kernel headers.
 * In the kernel's tree this file is that one.
 */
#ifndef _TPM_VIRTIO_CORE_H
#define _TPM_VIRTIO_CORE_H

#include <linux/device.h>
#include <linux/tpm.h>

struct tpm_chip *tpm_chip_alloc(struct device *dev, const struct tpm_class_ops *ops);
int tpm_chip_register(struct tpm_chip *chip);
void tpm_chip_unregister(struct tpm_chip *chip);
unsigned long tpm_calc_ordinal_duration(struct tpm_chip *chip, u32 ordinal);
int tpm_pm_suspend(struct device *dev);
int tpm_pm_resume(struct device *dev);

#endif
