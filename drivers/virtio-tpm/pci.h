/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* pci - the device as a modern virtio-pci function: configuration space, one BAR of virtio registers, one for MSI-X. Registers are
 * little-endian bytes whatever the host is. Regions are numbered as in VFIO. */

#include <stddef.h>
#include <stdint.h>

#include "drivers/virtio-tpm/device.h"

#define PCI_REGIONS       9
#define PCI_REGION_BAR    0 /* virtio registers */
#define PCI_REGION_MSIX   2
#define PCI_REGION_CONFIG 7
#define PCI_VECTORS       2
#define PCI_CONFIG_SIZE   256

typedef struct PciState {
        uint64_t driver_features, desc, avail, used;
        uint32_t device_feature_select, driver_feature_select;
        uint16_t config_vector, queue_vector, queue_select, queue_size, queue_enable;
        uint8_t isr, reserved;
        uint8_t config[PCI_CONFIG_SIZE];
        uint8_t msix[PCI_VECTORS * 16];
} PciState;

typedef struct Pci {
        PciState *s;
        Device *device;
        int vector_fds[PCI_VECTORS]; /* eventfds or -1; ours */
} Pci;

/* Registers as after power-on, if *@s is not what an earlier process left. Becomes the device's front end. */
void pci_init(Pci *p, PciState *s, Device *device, bool resume);
void pci_done(Pci *p);

/* Power-on values; the device is reset, the TPM is not. */
void pci_reset(Pci *p);

/* 0 for regions that are not there. */
uint64_t pci_region_size(uint32_t region);

/* -EINVAL: not within the region. Bytes that are no register read as 0; writes to them are ignored. */
int pci_read(Pci *p, uint32_t region, uint64_t offset, uint8_t *to, size_t size);
int pci_write(Pci *p, uint32_t region, uint64_t offset, const uint8_t *from, size_t size);

/* Interrupts through @fd (taken; -1: no longer). */
void pci_set_vector(Pci *p, unsigned vector, int fd);
void pci_fire(Pci *p, unsigned vector);

/* The mappings changed: a ring that was not there may be now. */
void pci_memory_changed(Pci *p);
