/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The interface between a virtio TPM device and its driver; docs/virtio-tpm.md specifies it.
 *
 * One split virtqueue, no configuration space, no feature bits of its own. A request is one chain of
 * descriptors: first the device-readable ones, together one TPM 2.0 command, then the device-writable
 * ones, together the room for the response. The used length is the number of response bytes.
 * Only constants, for the kernel and for C programs alike.
 */
#ifndef _VIRTIO_TPM_H
#define _VIRTIO_TPM_H

/* The device id that crosvm and ChromeOS use. OASIS has assigned none to TPMs. */
#define VIRTIO_TPM_DEVICE_ID 62

#define VIRTIO_TPM_PCI_VENDOR    0x1af4
#define VIRTIO_TPM_PCI_DEVICE    (0x1040 + VIRTIO_TPM_DEVICE_ID)
#define VIRTIO_TPM_PCI_SUBSYSTEM 0x1100
#define VIRTIO_TPM_PCI_CLASS     0x088000 /* base system peripheral, other */
#define VIRTIO_TPM_PCI_REVISION  1

#define VIRTIO_TPM_QUEUE     0
#define VIRTIO_TPM_QUEUE_NUM 1

/* The queue has at least this many descriptors; a request needs no more. */
#define VIRTIO_TPM_QUEUE_SIZE_MIN 2

/* The longest command, and the longest response. */
#define VIRTIO_TPM_MESSAGE_MAX 4096

/* Commands and responses begin with: be16 tag, be32 size of the whole, be32 command or response code. */
#define VIRTIO_TPM_HEADER_SIZE    10
#define VIRTIO_TPM_HEADER_AT_TAG  0
#define VIRTIO_TPM_HEADER_AT_SIZE 2
#define VIRTIO_TPM_HEADER_AT_CODE 6

/* What a device answers itself, as a bare header with this tag and one of these codes (TPM 2.0 Part 2). */
#define VIRTIO_TPM_TAG_NO_SESSIONS 0x8001
#define VIRTIO_TPM_RC_FAILURE      0x101 /* the TPM is gone, hung, or its response does not fit */
#define VIRTIO_TPM_RC_COMMAND_SIZE 0x142 /* the chain or the command's size makes no sense */
#define VIRTIO_TPM_RC_COMMAND_CODE 0x143 /* a command that this device's owner does not allow */

#endif
