/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/vfio_user.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/notify.h"
#include "drivers/virtio-tpm/report.h"

enum {
        COMMAND_VERSION = 1,
        COMMAND_DMA_MAP = 2,
        COMMAND_DMA_UNMAP = 3,
        COMMAND_GET_INFO = 4,
        COMMAND_REGION_INFO = 5,
        COMMAND_IRQ_INFO = 7,
        COMMAND_SET_IRQS = 8,
        COMMAND_REGION_READ = 9,
        COMMAND_REGION_WRITE = 10,
        COMMAND_RESET = 13,
};

enum { TYPE_MASK = 0xf, TYPE_COMMAND = 0, TYPE_REPLY = 1, NO_REPLY = 0x10, ERROR = 0x20 };

enum { UNMAP_ALL = 2, MAP_ACCESS = 3 };

#define MAJOR        0
#define MINOR        0
#define TRANSFER_MAX (16 * 1024)
#define STRINGIFY(x) #x
#define STRING(x)    STRINGIFY(x)
#define CAPABILITIES \
        "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":16384,\"max_dma_maps\":" STRING( \
                MEMORY_RANGES_MAX) "}}"

_Static_assert(MEMORY_RANGES_MAX == 65535, "a number can be made a string"); /* QEMU refuses 65536 */
_Static_assert(TRANSFER_MAX + 64 <= WIRE_MESSAGE_MAX, "a transfer is one message");
_Static_assert(WIRE_FDS_MAX == 8, "as announced");

typedef struct Header {
        uint16_t id, command;
        uint32_t size, flags, error;
} Header;

typedef struct Version {
        uint16_t major, minor;
        char capabilities[]; /* JSON, with its NUL */
} Version;

typedef struct DmaMap {
        uint32_t argsz, flags;
        uint64_t offset, address, size;
} DmaMap;

typedef struct DmaUnmap {
        uint32_t argsz, flags;
        uint64_t address, size;
} DmaUnmap;

typedef struct RegionIo {
        uint64_t offset;
        uint32_t region, count;
} RegionIo;

typedef struct Request {
        const uint8_t *data; /* behind the header */
        size_t size;
        Wire *wire;
        bool again;
        uint8_t *reply; /* TRANSFER_MAX + 64 - sizeof(Header) bytes are there */
        size_t reply_size;
} Request;

static int64_t whole_size(const uint8_t *header) {
        Header h;

        memcpy(&h, header, sizeof h);
        return h.size < sizeof h ? -EPROTO : (int64_t) h.size;
}

/* Most do not, either; but doorbells are the ones that are waited for. */
static bool brings_fds(const uint8_t *header) {
        Header h;

        memcpy(&h, header, sizeof h);
        return h.command != COMMAND_REGION_WRITE;
}

static int do_version(VfioUser *v, Request *q) {
        Version version;

        if (q->size < sizeof version)
                return -EINVAL;

        memcpy(&version, q->data, sizeof version);
        if (version.major != MAJOR)
                return -EPROTONOSUPPORT;
        if (q->size > sizeof version && q->data[q->size - 1] != '\0')
                return -EINVAL;

        /* what the client can do concerns nothing that we would do; the minor version is the lower of both */
        version.minor = MINOR;
        memcpy(q->reply, &version, sizeof version);
        memcpy(q->reply + sizeof version, CAPABILITIES, sizeof CAPABILITIES);
        q->reply_size = sizeof version + sizeof CAPABILITIES;
        v->s->negotiated = 1;
        return 0;
}

static int do_dma_map(VfioUser *v, Request *q) {
        DmaMap map;
        int r;

        if (q->size < sizeof map)
                return -EINVAL;

        memcpy(&map, q->data, sizeof map);
        if (map.argsz < sizeof map || (map.flags & ~(uint32_t) MAP_ACCESS) != 0 || q->wire->n_fds > 1)
                return -EINVAL;
        if (q->again && memory_has(v->memory, map.address, map.size))
                return 0;
        if (q->wire->s->rx_fds != q->wire->n_fds)
                return -EIO; /* its descriptor went with the process that received it */
        if (q->again)
                (void) memory_unmap(v->memory, map.address, map.size); /* its file had not been kept yet */

        r = memory_map(v->memory, map.address, map.size, map.offset, map.flags & MAP_ACCESS,
                       wire_take_fd(q->wire, 0));
        if (r >= 0)
                pci_memory_changed(&v->pci);
        return r;
}

static int do_dma_unmap(VfioUser *v, Request *q) {
        DmaUnmap unmap;
        int r = 0;

        if (q->size < sizeof unmap)
                return -EINVAL;

        memcpy(&unmap, q->data, sizeof unmap);
        if (unmap.argsz < sizeof unmap || (unmap.flags & ~(uint32_t) UNMAP_ALL) != 0)
                return -EINVAL;

        if (unmap.flags & UNMAP_ALL) {
                if (unmap.address != 0 || unmap.size != 0)
                        return -EINVAL;
                memory_clear(v->memory);
        } else
                /* An s390x guest that has its I/O addresses invalidated all at once unmaps in pieces of its own. */
                r = memory_unmap_within(v->memory, unmap.address, unmap.size);
        if (r < 0)
                return r;

        memcpy(q->reply, &unmap, sizeof unmap);
        q->reply_size = sizeof unmap;
        return 0;
}

static int do_get_info(VfioUser *v, Request *q) {
        struct {
                uint32_t argsz, flags, regions, irqs;
        } info;

        if (q->size < sizeof info)
                return -EINVAL;

        memcpy(&info, q->data, sizeof info);
        if (info.argsz < sizeof info)
                return -EINVAL;

        info.argsz = sizeof info;
        info.flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI;
        info.regions = VFIO_PCI_NUM_REGIONS;
        info.irqs = VFIO_PCI_NUM_IRQS;
        memcpy(q->reply, &info, sizeof info);
        q->reply_size = sizeof info;
        return 0;
}

static int do_region_info(VfioUser *v, Request *q) {
        struct {
                uint32_t argsz, flags, index, cap_offset;
                uint64_t size, offset;
        } info;

        if (q->size < sizeof info)
                return -EINVAL;

        memcpy(&info, q->data, sizeof info);
        if (info.argsz < sizeof info || info.index >= VFIO_PCI_NUM_REGIONS)
                return -EINVAL;

        info.argsz = sizeof info;
        info.size = pci_region_size(info.index);
        info.flags = info.size > 0 ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
        info.cap_offset = 0;
        info.offset = 0;
        memcpy(q->reply, &info, sizeof info);
        q->reply_size = sizeof info;
        return 0;
}

static int do_irq_info(VfioUser *v, Request *q) {
        struct vfio_irq_info info;

        if (q->size < sizeof info)
                return -EINVAL;

        memcpy(&info, q->data, sizeof info);
        if (info.argsz < sizeof info || info.index >= VFIO_PCI_NUM_IRQS)
                return -EINVAL;

        info.argsz = sizeof info;
        info.flags = 0;
        info.count = 0;
        if (info.index == VFIO_PCI_MSIX_IRQ_INDEX) {
                info.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
                info.count = PCI_VECTORS;
        }
        memcpy(q->reply, &info, sizeof info);
        q->reply_size = sizeof info;
        return 0;
}

static void set_vector(VfioUser *v, unsigned vector, int fd) {
        char name[16];

        (void) snprintf(name, sizeof name, "irq%u", vector);
        if (fd >= 0)
                (void) notify_store(name, fd);
        else if (v->pci.vector_fds[vector] >= 0)
                (void) notify_discard(name);
        pci_set_vector(&v->pci, vector, fd);
}

static int do_set_irqs(VfioUser *v, Request *q) {
        struct {
                uint32_t argsz, flags, index, start, count;
        } set;
        const uint8_t *data = q->data + sizeof set;
        uint32_t what, action;

        if (q->size < sizeof set)
                return -EINVAL;

        memcpy(&set, q->data, sizeof set);
        what = set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
        action = set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
        if (set.argsz < sizeof set ||
            (set.flags & ~(uint32_t) (VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK)) != 0)
                return -EINVAL;

        if (set.index != VFIO_PCI_MSIX_IRQ_INDEX)
                /* there are none: they can all be switched off */
                return set.index < VFIO_PCI_NUM_IRQS && set.count == 0 && q->wire->n_fds == 0 ? 0 : -EINVAL;
        if (set.start > PCI_VECTORS || set.count > PCI_VECTORS - set.start ||
            action != VFIO_IRQ_SET_ACTION_TRIGGER)
                return -EINVAL;

        switch (what) {
        case VFIO_IRQ_SET_DATA_NONE:
                if (set.count == 0)
                        for (unsigned i = 0; i < PCI_VECTORS; i++)
                                set_vector(v, i, -1);
                for (uint32_t i = 0; i < set.count; i++)
                        pci_fire(&v->pci, set.start + i);
                return 0;
        case VFIO_IRQ_SET_DATA_BOOL:
                if (q->size - sizeof set < set.count)
                        return -EINVAL;
                for (uint32_t i = 0; i < set.count; i++)
                        if (data[i])
                                pci_fire(&v->pci, set.start + i);
                return 0;
        case VFIO_IRQ_SET_DATA_EVENTFD:
                if (q->wire->s->rx_fds != q->wire->n_fds)
                        return -EIO;
                if (q->wire->n_fds != 0 && q->wire->n_fds != set.count)
                        return -EINVAL;
                for (unsigned i = 0; i < q->wire->n_fds; i++)
                        if (wire_fd_nonblock(q->wire->fds[i]) < 0)
                                return -EINVAL;
                for (uint32_t i = 0; i < set.count; i++)
                        set_vector(v, set.start + i, wire_take_fd(q->wire, i));
                return 0;
        default:
                return -EINVAL;
        }
}

static int do_region_io(VfioUser *v, Request *q, bool write) {
        RegionIo io;
        int r;

        if (q->size < sizeof io)
                return -EINVAL;

        memcpy(&io, q->data, sizeof io);
        if (io.count > TRANSFER_MAX || (write && q->size - sizeof io < io.count))
                return -EINVAL;

        r = write ? pci_write(&v->pci, io.region, io.offset, q->data + sizeof io, io.count)
                  : pci_read(&v->pci, io.region, io.offset, q->reply + sizeof io, io.count);
        if (r < 0)
                return r;

        memcpy(q->reply, &io, sizeof io);
        q->reply_size = sizeof io + (write ? 0 : io.count);
        return 0;
}

static int dispatch(VfioUser *v, unsigned command, Request *q) {
        if (!v->s->negotiated && command != COMMAND_VERSION)
                return -EINVAL;

        switch (command) {
        case COMMAND_VERSION:
                return do_version(v, q);
        case COMMAND_DMA_MAP:
                return do_dma_map(v, q);
        case COMMAND_DMA_UNMAP:
                return do_dma_unmap(v, q);
        case COMMAND_GET_INFO:
                return do_get_info(v, q);
        case COMMAND_REGION_INFO:
                return do_region_info(v, q);
        case COMMAND_IRQ_INFO:
                return do_irq_info(v, q);
        case COMMAND_SET_IRQS:
                return do_set_irqs(v, q);
        case COMMAND_REGION_READ:
                return do_region_io(v, q, false);
        case COMMAND_REGION_WRITE:
                return do_region_io(v, q, true);
        case COMMAND_RESET:
                /* any guest's root can cause one: a reset of the registers, never of the TPM */
                pci_reset(&v->pci);
                return 0;
        default:
                return -ENOTSUP; /* also all of migration: the TPM's state would not be in it */
        }
}

static int handle(void *userdata, Wire *w, bool again) {
        VfioUser *v = userdata;
        Request q = { .data = w->s->rx + sizeof(Header),
                      .wire = w,
                      .again = again,
                      .reply = w->s->tx + sizeof(Header) };
        Header h;
        int r;

        memcpy(&h, w->s->rx, sizeof h);
        if ((h.flags & TYPE_MASK) != TYPE_COMMAND)
                return -EPROTO; /* we ask nothing, so there is nothing to reply to */

        q.size = h.size - sizeof h;
        r = dispatch(v, h.command, &q);
        if (r < 0 && r != -ENOTSUP)
                report(LOG_NOTICE, "vfio-user command %u refused: %s", (unsigned) h.command, strerror(-r));
        if (h.command == COMMAND_VERSION && r < 0)
                return r;
        if (h.flags & NO_REPLY)
                return 0;

        h.size = (uint32_t) (sizeof h + (r < 0 ? 0 : q.reply_size));
        h.flags = TYPE_REPLY | (r < 0 ? ERROR : 0);
        h.error = r < 0 ? (uint32_t) -r : 0;
        memcpy(w->s->tx, &h, sizeof h);
        wire_answer(w, h.size);
        return 0;
}

static void closed(void *userdata) {
        VfioUser *v = userdata;

        pci_reset(&v->pci);
        for (unsigned i = 0; i < PCI_VECTORS; i++)
                set_vector(v, i, -1);
        memory_clear(v->memory);
        v->s->negotiated = 0;
}

void vfio_user_init(VfioUser *v, VfioUserState *s, Memory *memory, Device *device, bool resume) {
        v->s = s;
        v->memory = memory;
        v->front = (Front) { .name = "vfio-user",
                             .header_size = sizeof(Header),
                             .whole_size = whole_size,
                             .brings_fds = brings_fds,
                             .handle = handle,
                             .closed = closed,
                             .userdata = v };
        pci_init(&v->pci, &s->pci, device, resume);
}

void vfio_user_done(VfioUser *v) {
        pci_done(&v->pci);
}

bool vfio_user_restore_fd(VfioUser *v, const char *name, int fd) {
        if (strcmp(name, "irq0") != 0 && strcmp(name, "irq1") != 0)
                return false;

        pci_set_vector(&v->pci, (unsigned) (name[3] - '0'), fd);
        return true;
}
