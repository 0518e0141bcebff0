/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/pci.h"

#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "base/cleanup.h"
#include "drivers/include/virtio_tpm.h"
#include "drivers/virtio-tpm/report.h"

#define BAR_SIZE     0x4000
#define MSIX_SIZE    0x1000
#define MSIX_PBA     0x800
#define AT_COMMON    0x0000
#define COMMON_SIZE  0x38
#define AT_ISR       0x1000
#define AT_NOTIFY    0x3000
#define NOTIFY_TIMES 4

/* The list of capabilities. */
#define CAP_MSIX    0x40
#define CAP_COMMON  0x4c
#define CAP_ISR     0x5c
#define CAP_NOTIFY  0x6c
#define CAP_WINDOW  0x80 /* struct virtio_pci_cfg_cap */
#define WINDOW_BAR  (CAP_WINDOW + 4)
#define WINDOW_AT   (CAP_WINDOW + 8)
#define WINDOW_SIZE (CAP_WINDOW + 12)
#define WINDOW_DATA (CAP_WINDOW + 16)
#define CAP_END     (CAP_WINDOW + 20)

#define QUEUE_SIZE 64 /* a driver needs one request at a time; this is the most that may wait */

static void put16(uint8_t *p, uint16_t v) {
        v = htole16(v);
        memcpy(p, &v, sizeof v);
}

static void put32(uint8_t *p, uint32_t v) {
        v = htole32(v);
        memcpy(p, &v, sizeof v);
}

static void put64(uint8_t *p, uint64_t v) {
        v = htole64(v);
        memcpy(p, &v, sizeof v);
}

static uint32_t get(const uint8_t *p, size_t size) {
        uint32_t v = 0;

        while (size-- > 0)
                v = v << 8 | p[size];
        return v;
}

uint64_t pci_region_size(uint32_t region) {
        switch (region) {
        case PCI_REGION_BAR:
                return BAR_SIZE;
        case PCI_REGION_MSIX:
                return MSIX_SIZE;
        case PCI_REGION_CONFIG:
                return PCI_CONFIG_SIZE;
        default:
                return 0;
        }
}

static void put_virtio_cap(uint8_t *c, uint8_t at, uint8_t next, uint8_t size, uint8_t type, uint32_t offset,
                           uint32_t length) {
        c[at] = PCI_CAP_ID_VNDR;
        c[at + 1] = next;
        c[at + 2] = size;
        c[at + 3] = type;
        c[at + 4] = PCI_REGION_BAR;
        put32(c + at + 8, offset);
        put32(c + at + 12, length);
}

static void config_reset(uint8_t c[PCI_CONFIG_SIZE]) {
        memset(c, 0, PCI_CONFIG_SIZE);
        put16(c + PCI_VENDOR_ID, VIRTIO_TPM_PCI_VENDOR);
        put16(c + PCI_DEVICE_ID, VIRTIO_TPM_PCI_DEVICE);
        put16(c + PCI_STATUS, PCI_STATUS_CAP_LIST);
        put32(c + PCI_CLASS_REVISION, VIRTIO_TPM_PCI_CLASS << 8 | VIRTIO_TPM_PCI_REVISION);
        put32(c + PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_MEM_TYPE_64);
        put16(c + PCI_SUBSYSTEM_VENDOR_ID, VIRTIO_TPM_PCI_VENDOR);
        put16(c + PCI_SUBSYSTEM_ID, VIRTIO_TPM_PCI_SUBSYSTEM);
        c[PCI_CAPABILITY_LIST] = CAP_MSIX;

        c[CAP_MSIX] = PCI_CAP_ID_MSIX;
        c[CAP_MSIX + 1] = CAP_COMMON;
        put16(c + CAP_MSIX + PCI_MSIX_FLAGS, PCI_VECTORS - 1);
        put32(c + CAP_MSIX + PCI_MSIX_TABLE, PCI_REGION_MSIX);
        put32(c + CAP_MSIX + PCI_MSIX_PBA, MSIX_PBA | PCI_REGION_MSIX);

        put_virtio_cap(c, CAP_COMMON, CAP_ISR, 16, VIRTIO_PCI_CAP_COMMON_CFG, AT_COMMON, COMMON_SIZE);
        put_virtio_cap(c, CAP_ISR, CAP_NOTIFY, 16, VIRTIO_PCI_CAP_ISR_CFG, AT_ISR, 1);
        put_virtio_cap(c, CAP_NOTIFY, CAP_WINDOW, 20, VIRTIO_PCI_CAP_NOTIFY_CFG, AT_NOTIFY, NOTIFY_TIMES);
        put32(c + CAP_NOTIFY + 16, NOTIFY_TIMES);
        put_virtio_cap(c, CAP_WINDOW, 0, 20, VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
}

/* The bits of byte @i of the configuration space that a driver may set. The VMM keeps BARs to itself. */
static uint8_t config_writable(unsigned i) {
        switch (i) {
        case PCI_COMMAND:
                return PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
        case PCI_COMMAND + 1:
                return PCI_COMMAND_INTX_DISABLE >> 8;
        case PCI_INTERRUPT_LINE:
        case WINDOW_BAR:
        case WINDOW_AT ... WINDOW_AT + 3:
        case WINDOW_SIZE ... WINDOW_SIZE + 3:
                return 0xff;
        case CAP_MSIX + PCI_MSIX_FLAGS + 1:
                return (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
        default:
                return 0;
        }
}

/* What the window of struct virtio_pci_cfg_cap shows; 0 if it shows nothing. */
static size_t window(const Pci *p, uint32_t *ret_region, uint32_t *ret_offset) {
        const uint8_t *c = p->s->config;
        uint32_t size = get(c + WINDOW_SIZE, 4);

        *ret_region = c[WINDOW_BAR];
        *ret_offset = get(c + WINDOW_AT, 4);
        if (*ret_region == PCI_REGION_CONFIG || (size != 1 && size != 2 && size != 4) ||
            *ret_offset % size != 0)
                return 0;
        return size;
}

static int config_read(Pci *p, size_t offset, uint8_t *to, size_t size) {
        uint32_t region, at;
        uint8_t *c = p->s->config;
        size_t n = 0;

        if (offset < CAP_END && offset + size > WINDOW_DATA) {
                n = window(p, &region, &at);
                if (n > 0 && pci_read(p, region, at, c + WINDOW_DATA, n) < 0)
                        memset(c + WINDOW_DATA, 0xff, n);
        }

        memcpy(to, c + offset, size);
        return 0;
}

static void try_start(Pci *p) {
        DeviceState *d = p->device->s;
        int r;

        if (!p->s->queue_enable || !(d->status & VIRTIO_CONFIG_S_DRIVER_OK) ||
            !(d->status & VIRTIO_CONFIG_S_FEATURES_OK) || d->running || d->broken)
                return;
        if (!(p->s->config[PCI_COMMAND] & PCI_COMMAND_MASTER))
                return; /* then neither memory nor interrupts, which are writes to memory too, are a function's to touch */

        d->ring.desc = p->s->desc;
        d->ring.avail = p->s->avail;
        d->ring.used = p->s->used;
        d->ring.size = p->s->queue_size;
        r = device_start(p->device);
        if (r == -EINVAL)
                report(LOG_WARNING, "the guest's ring has no possible size or place; not started");
}

static int config_write(Pci *p, size_t offset, const uint8_t *from, size_t size) {
        bool command = offset <= PCI_COMMAND && offset + size > PCI_COMMAND;
        uint32_t region, at;
        size_t n;

        /* Before the bit is gone: at whatever instruction the process ends, no ring runs without it. */
        if (command && !(from[PCI_COMMAND - offset] & PCI_COMMAND_MASTER))
                device_hold(p->device);

        for (size_t i = 0; i < size; i++) {
                uint8_t mask = config_writable((unsigned) (offset + i)), *byte = &p->s->config[offset + i];

                *byte = (uint8_t) ((*byte & ~mask) | (from[i] & mask));
        }
        if (command)
                try_start(p);

        if (offset == WINDOW_DATA) {
                n = window(p, &region, &at);
                if (n > 0 && n <= size)
                        (void) pci_write(p, region, at, from, n);
        }
        return 0;
}

void pci_fire(Pci *p, unsigned vector) {
        static const uint64_t one = 1;

        if (vector < PCI_VECTORS && p->vector_fds[vector] >= 0)
                (void) !write(p->vector_fds[vector], &one, sizeof one); /* fails only if it already counts */
}

void pci_set_vector(Pci *p, unsigned vector, int fd) {
        fd_close(p->vector_fds[vector]);
        p->vector_fds[vector] = fd;
}

static void on_used(void *userdata) {
        Pci *p = userdata;

        if (p->s->queue_vector == VIRTIO_MSI_NO_VECTOR)
                p->s->isr |= 1;
        else
                pci_fire(p, p->s->queue_vector);
}

static void on_broken(void *userdata) {
        Pci *p = userdata;

        p->s->isr |= VIRTIO_PCI_ISR_CONFIG;
        pci_fire(p, p->s->config_vector);
}

static const DeviceOps pci_device_ops = { .used = on_used, .broken = on_broken };

static void registers_reset(Pci *p) {
        PciState *s = p->s;

        s->driver_features = s->desc = s->avail = s->used = 0;
        s->device_feature_select = s->driver_feature_select = 0;
        s->config_vector = s->queue_vector = VIRTIO_MSI_NO_VECTOR;
        s->queue_select = s->queue_enable = 0;
        s->queue_size = QUEUE_SIZE;
        s->isr = 0;
}

void pci_reset(Pci *p) {
        device_reset(p->device);
        registers_reset(p);
        config_reset(p->s->config);
        memset(p->s->msix, 0, sizeof p->s->msix);
}

void pci_init(Pci *p, PciState *s, Device *device, bool resume) {
        p->s = s;
        p->device = device;
        for (unsigned i = 0; i < PCI_VECTORS; i++)
                p->vector_fds[i] = -1;
        if (!resume) {
                registers_reset(p);
                config_reset(s->config);
                memset(s->msix, 0, sizeof s->msix);
        }
        device_set_front(device, &pci_device_ops, p);
}

void pci_done(Pci *p) {
        for (unsigned i = 0; i < PCI_VECTORS; i++)
                pci_set_vector(p, i, -1);
}

void pci_memory_changed(Pci *p) {
        if (p->device->s->running)
                device_kick(p->device);
        else
                try_start(p);
}

static void write_status(Pci *p, uint8_t status) {
        DeviceState *d = p->device->s;
        uint64_t features = p->s->driver_features;

        if (status == 0) {
                device_reset(p->device);
                registers_reset(p);
                return;
        }

        if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && !(d->status & VIRTIO_CONFIG_S_FEATURES_OK)) {
                if ((features & ~p->device->offered) != 0 || !(features >> VIRTIO_F_VERSION_1 & 1))
                        status &= (uint8_t) ~VIRTIO_CONFIG_S_FEATURES_OK;
                else
                        d->features = features;
        }

        d->status = status | (d->status & VIRTIO_CONFIG_S_NEEDS_RESET);
        try_start(p);
}

static uint64_t with_half(uint64_t old, uint32_t v, bool high) {
        return high ? (old & UINT32_MAX) | (uint64_t) v << 32 : (old & ~(uint64_t) UINT32_MAX) | v;
}

static uint16_t valid_vector(uint32_t v) {
        return v < PCI_VECTORS ? (uint16_t) v : VIRTIO_MSI_NO_VECTOR;
}

/* @size is that of the register, or half of one of 8 bytes. */
static void common_write(Pci *p, size_t offset, uint32_t v, size_t size) {
        PciState *s = p->s;
        bool queue = s->queue_select == VIRTIO_TPM_QUEUE, stopped = queue && !s->queue_enable;
        DeviceState *d = p->device->s;

        switch (offset << 4 | size) {
        case VIRTIO_PCI_COMMON_DFSELECT << 4 | 4:
                s->device_feature_select = v;
                break;
        case VIRTIO_PCI_COMMON_GFSELECT << 4 | 4:
                s->driver_feature_select = v;
                break;
        case VIRTIO_PCI_COMMON_GF << 4 | 4:
                if (s->driver_feature_select < 2 && !(d->status & VIRTIO_CONFIG_S_FEATURES_OK))
                        s->driver_features = with_half(s->driver_features, v, s->driver_feature_select == 1);
                break;
        case VIRTIO_PCI_COMMON_MSIX << 4 | 2:
                s->config_vector = valid_vector(v);
                break;
        case VIRTIO_PCI_COMMON_STATUS << 4 | 1:
                write_status(p, (uint8_t) v);
                break;
        case VIRTIO_PCI_COMMON_Q_SELECT << 4 | 2:
                s->queue_select = (uint16_t) v;
                break;
        case VIRTIO_PCI_COMMON_Q_SIZE << 4 | 2:
                if (stopped && v <= QUEUE_SIZE)
                        s->queue_size = (uint16_t) v;
                break;
        case VIRTIO_PCI_COMMON_Q_MSIX << 4 | 2:
                if (queue)
                        s->queue_vector = valid_vector(v);
                break;
        case VIRTIO_PCI_COMMON_Q_ENABLE << 4 | 2:
                if (stopped && v == 1) { /* 0 is not for the driver to write */
                        s->queue_enable = 1;
                        try_start(p);
                }
                break;
        case VIRTIO_PCI_COMMON_Q_DESCLO << 4 | 4:
        case VIRTIO_PCI_COMMON_Q_DESCHI << 4 | 4:
                if (stopped)
                        s->desc = with_half(s->desc, v, offset == VIRTIO_PCI_COMMON_Q_DESCHI);
                break;
        case VIRTIO_PCI_COMMON_Q_AVAILLO << 4 | 4:
        case VIRTIO_PCI_COMMON_Q_AVAILHI << 4 | 4:
                if (stopped)
                        s->avail = with_half(s->avail, v, offset == VIRTIO_PCI_COMMON_Q_AVAILHI);
                break;
        case VIRTIO_PCI_COMMON_Q_USEDLO << 4 | 4:
        case VIRTIO_PCI_COMMON_Q_USEDHI << 4 | 4:
                if (stopped)
                        s->used = with_half(s->used, v, offset == VIRTIO_PCI_COMMON_Q_USEDHI);
                break;
        }
}

static void common_image(const Pci *p, uint8_t image[COMMON_SIZE]) {
        bool queue = p->s->queue_select == VIRTIO_TPM_QUEUE;
        const PciState *s = p->s;

        memset(image, 0, COMMON_SIZE);
        put32(image + VIRTIO_PCI_COMMON_DFSELECT, s->device_feature_select);
        if (s->device_feature_select < 2)
                put32(image + VIRTIO_PCI_COMMON_DF,
                      (uint32_t) (p->device->offered >> (32 * s->device_feature_select)));
        put32(image + VIRTIO_PCI_COMMON_GFSELECT, s->driver_feature_select);
        if (s->driver_feature_select < 2)
                put32(image + VIRTIO_PCI_COMMON_GF,
                      (uint32_t) (s->driver_features >> (32 * s->driver_feature_select)));
        put16(image + VIRTIO_PCI_COMMON_MSIX, s->config_vector);
        put16(image + VIRTIO_PCI_COMMON_NUMQ, VIRTIO_TPM_QUEUE_NUM);
        image[VIRTIO_PCI_COMMON_STATUS] = (uint8_t) p->device->s->status;
        put16(image + VIRTIO_PCI_COMMON_Q_SELECT, s->queue_select);
        if (!queue)
                return; /* size 0: there is no such queue */

        put16(image + VIRTIO_PCI_COMMON_Q_SIZE, s->queue_size);
        put16(image + VIRTIO_PCI_COMMON_Q_MSIX, s->queue_vector);
        put16(image + VIRTIO_PCI_COMMON_Q_ENABLE, s->queue_enable);
        put64(image + VIRTIO_PCI_COMMON_Q_DESCLO, s->desc);
        put64(image + VIRTIO_PCI_COMMON_Q_AVAILLO, s->avail);
        put64(image + VIRTIO_PCI_COMMON_Q_USEDLO, s->used);
}

/* Copies what of [@offset, @offset + @size) lies in the @n bytes @from at @at. */
static void overlay(uint8_t *to, size_t offset, size_t size, size_t at, const uint8_t *from, size_t n) {
        size_t first = MAX(offset, at), end = MIN(offset + size, at + n);

        if (first < end)
                memcpy(to + (first - offset), from + (first - at), end - first);
}

int pci_read(Pci *p, uint32_t region, uint64_t offset, uint8_t *to, size_t size) {
        uint64_t region_size = pci_region_size(region);
        uint8_t image[COMMON_SIZE];

        if (offset > region_size || size > region_size - offset)
                return -EINVAL;
        if (region == PCI_REGION_CONFIG)
                return config_read(p, offset, to, size);

        memset(to, 0, size);
        if (region == PCI_REGION_MSIX) {
                overlay(to, offset, size, 0, p->s->msix, sizeof p->s->msix);
                return 0;
        }

        if (offset < COMMON_SIZE) {
                common_image(p, image);
                overlay(to, offset, size, AT_COMMON, image, sizeof image);
        }
        if (offset <= AT_ISR && offset + size > AT_ISR) {
                overlay(to, offset, size, AT_ISR, &p->s->isr, 1);
                p->s->isr = 0;
        }
        return 0;
}

int pci_write(Pci *p, uint32_t region, uint64_t offset, const uint8_t *from, size_t size) {
        uint64_t region_size = pci_region_size(region);

        if (offset > region_size || size > region_size - offset)
                return -EINVAL;
        if (region == PCI_REGION_CONFIG)
                return config_write(p, offset, from, size);

        if (region == PCI_REGION_MSIX) {
                if (offset < sizeof p->s->msix)
                        memcpy(p->s->msix + offset, from, MIN(size, sizeof p->s->msix - offset));
                return 0;
        }

        if (offset == AT_NOTIFY) {
                pci_memory_changed(p);
                return 0;
        }
        if (size == 8) {
                common_write(p, offset, get(from, 4), 4);
                common_write(p, offset + 4, get(from + 4, 4), 4);
        } else if (size == 1 || size == 2 || size == 4)
                common_write(p, offset, get(from, size), size);
        return 0;
}
