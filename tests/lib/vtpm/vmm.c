/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/vtpm/vmm.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) \
        do { \
                if (!(condition)) { \
                        (void) fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, \
                                       strerror(errno)); \
                        abort(); \
                } \
        } while (0)

#define ROUNDS 2000 /* of the other side, before we take it that there will be no answer */

void vmm_init(Vmm *v, bool vhost, int fd, void (*pump)(void *userdata), void *userdata) {
        const struct timeval patience = { .tv_sec = VMM_PATIENCE_MS / 1000 };

        *v = (Vmm) { .vhost = vhost, .fd = fd, .queue_size = VMM_QUEUE, .pump = pump, .userdata = userdata };
        CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
              setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0);
        v->memory_fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        CHECK(v->memory_fd >= 0);
        CHECK(ftruncate(v->memory_fd, VMM_SIZE) == 0);
        CHECK(fcntl(v->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
        v->memory = mmap(NULL, VMM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, v->memory_fd, 0);
        CHECK(v->memory != MAP_FAILED);
        v->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        v->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        v->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        CHECK(v->kick_fd >= 0 && v->call_fd >= 0 && v->error_fd >= 0);
}

void vmm_done(Vmm *v) {
        (void) munmap(v->memory, VMM_SIZE);
        (void) close(v->memory_fd);
        (void) close(v->kick_fd);
        (void) close(v->call_fd);
        (void) close(v->error_fd);
        if (v->fd >= 0)
                (void) close(v->fd);
}

int vmm_send(Vmm *v, const void *data, size_t size, const int *fds, unsigned n_fds) {
        char control[CMSG_SPACE(sizeof(int) * 16)] = {};
        struct iovec iov = { .iov_base = (void *) data, .iov_len = size };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        CHECK(n_fds <= 16);
        if (n_fds > 0) {
                struct cmsghdr *c;

                m.msg_control = control;
                m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                c = CMSG_FIRSTHDR(&m);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
        }
        n = sendmsg(v->fd, &m, MSG_NOSIGNAL);
        if (n < 0)
                return errno == EAGAIN ? -ETIMEDOUT : -errno;
        CHECK((size_t) n == size);
        return 0;
}

static uint64_t now_ms(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}

int vmm_receive(Vmm *v, void *data, size_t size) {
        uint64_t end = v->patient ? now_ms() + VMM_PATIENCE_MS : 0;
        size_t have = 0;

        for (unsigned i = 0; have < size; i++) {
                ssize_t n;

                if (v->pump)
                        v->pump(v->userdata);
                n = recv(v->fd, (char *) data + have, size - have, v->pump ? MSG_DONTWAIT : 0);
                if (n == 0)
                        return -EPIPE;
                if (n < 0 && errno == EAGAIN && v->pump && (v->patient ? now_ms() < end : i < ROUNDS))
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? -ETIMEDOUT : errno == ECONNRESET ? -EPIPE : -errno;
                have += (size_t) n;
        }
        return 0;
}

int vmm_vfio(Vmm *v, unsigned command, const void *payload, size_t size, const int *fds, unsigned n_fds,
             void *reply, size_t reply_max) {
        struct {
                uint16_t id, command;
                uint32_t size, flags, error;
        } h = { .id = ++v->id, .command = (uint16_t) command, .size = (uint32_t) (16 + size) };
        static uint8_t message[VMM_MESSAGE_MAX];
        int r;

        CHECK(size + 16 <= sizeof message);
        memcpy(message, &h, 16);
        if (size > 0)
                memcpy(message + 16, payload, size);
        r = vmm_send(v, message, 16 + size, fds, n_fds);
        if (r < 0)
                return r;

        do {
                r = vmm_receive(v, &h, 16);
                if (r < 0)
                        return r;
                CHECK((h.id == v->id || (v->killed && (uint16_t) (v->id - h.id) < 8)) &&
                      (h.flags & 0xf) == 1 && h.size >= 16 && h.size <= sizeof message);
                r = vmm_receive(v, message, h.size - 16);
                if (r < 0)
                        return r;
        } while (h.id != v->id);
        CHECK(h.command == command);
        if (h.flags & 0x20) {
                CHECK(h.size == 16 && h.error > 0);
                return -(int) h.error;
        }
        if (reply)
                memcpy(reply, message, h.size - 16 < reply_max ? h.size - 16 : reply_max);
        return (int) h.size - 16;
}

int vmm_read(Vmm *v, uint32_t region, uint64_t offset, void *to, uint32_t size) {
        struct {
                uint64_t offset;
                uint32_t region, count;
        } io = { offset, region, size };
        static uint8_t reply[VMM_MESSAGE_MAX];
        int r;

        r = vmm_vfio(v, 9, &io, sizeof io, NULL, 0, reply, sizeof reply);
        if (r < 0)
                return r;
        CHECK((size_t) r == sizeof io + size && memcmp(reply, &io, sizeof io) == 0);
        memcpy(to, reply + sizeof io, size);
        return 0;
}

int vmm_write(Vmm *v, uint32_t region, uint64_t offset, const void *from, uint32_t size) {
        struct {
                uint64_t offset;
                uint32_t region, count;
        } io = { offset, region, size };
        static uint8_t message[VMM_MESSAGE_MAX];
        int r;

        memcpy(message, &io, sizeof io);
        memcpy(message + sizeof io, from, size);
        r = vmm_vfio(v, 10, message, sizeof io + size, NULL, 0, NULL, 0);
        return r < 0 ? r : 0;
}

uint32_t vmm_get(Vmm *v, uint32_t region, uint64_t offset, unsigned size) {
        uint8_t bytes[4] = {};

        CHECK(size <= 4 && vmm_read(v, region, offset, bytes, size) == 0);
        return (uint32_t) bytes[0] | (uint32_t) bytes[1] << 8 | (uint32_t) bytes[2] << 16 |
               (uint32_t) bytes[3] << 24;
}

int vmm_put(Vmm *v, uint32_t region, uint64_t offset, uint64_t value, unsigned size) {
        uint8_t bytes[8];

        for (unsigned i = 0; i < 8; i++)
                bytes[i] = (uint8_t) (value >> (8 * i));
        return vmm_write(v, region, offset, bytes, size);
}

static bool vhost_answers(unsigned request) {
        return request == 1 || request == 11 || request == 15 || request == 17 || request == 36 ||
               request == 40;
}

int vmm_vhost(Vmm *v, unsigned request, const void *payload, size_t size, const int *fds, unsigned n_fds,
              void *reply, size_t reply_max) {
        struct {
                uint32_t request, flags, size;
        } h = { request, vhost_answers(request) || !(v->features & 1) ? 1 : 9, (uint32_t) size };
        uint8_t message[1024];
        uint64_t ack;
        int r;

        CHECK(size + sizeof h <= sizeof message);
        memcpy(message, &h, sizeof h);
        if (size > 0)
                memcpy(message + sizeof h, payload, size);
        r = vmm_send(v, message, sizeof h + size, fds, n_fds);
        if (r < 0)
                return r;
        if (!vhost_answers(request) &&
            !(v->features & 1)) /* bit 0 is ours: acknowledgements are negotiated */
                return 0;

        r = vmm_receive(v, &h, sizeof h);
        if (r < 0)
                return r;
        CHECK(h.request == request && h.flags == 5 && h.size <= sizeof message);
        r = vmm_receive(v, message, h.size);
        if (r < 0)
                return r;
        if (!vhost_answers(request)) {
                CHECK(h.size == sizeof ack);
                memcpy(&ack, message, sizeof ack);
                return ack == 0 ? 0 : -EREMOTEIO;
        }
        if (reply)
                memcpy(reply, message, h.size < reply_max ? h.size : reply_max);
        return (int) h.size;
}

int vmm_vhost_ring_fd(Vmm *v, unsigned request, int fd) {
        uint64_t n = fd >= 0 ? 0 : 0x100;

        return vmm_vhost(v, request, &n, sizeof n, &fd, fd >= 0, NULL, 0);
}

int vmm_vhost_ring_number(Vmm *v, unsigned request, uint32_t n) {
        uint32_t payload[2] = { 0, n };

        return vmm_vhost(v, request, payload, sizeof payload, NULL, 0, NULL, 0);
}

static int negotiate_vfio(Vmm *v) {
        static const char version[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8}}";
        uint32_t info[4] = { 16 };
        int r;

        r = vmm_vfio(v, 1, version, sizeof version, NULL, 0, NULL, 0);
        if (r >= 0)
                r = vmm_vfio(v, 4, info, sizeof info, NULL, 0, info, sizeof info);
        return r < 0 ? r : 0;
}

static int negotiate_vhost(Vmm *v) {
        uint64_t features, protocol;
        int r;

        r = vmm_vhost(v, 1, NULL, 0, NULL, 0, &features, sizeof features);
        if (r < 0)
                return r;
        CHECK(features >> 30 & 1);
        r = vmm_vhost(v, 15, NULL, 0, NULL, 0, &protocol, sizeof protocol);
        if (r < 0)
                return r;
        CHECK(protocol >> 3 & 1);
        r = vmm_vhost(v, 16, &protocol, sizeof protocol, NULL, 0, NULL, 0);
        if (r < 0)
                return r;
        v->features = features | 1;
        r = vmm_vhost(v, 3, NULL, 0, NULL, 0, NULL, 0);
        features &= ~v->not_features;
        return r < 0 ? r : vmm_vhost(v, 2, &features, sizeof features, NULL, 0, NULL, 0);
}

int vmm_negotiate(Vmm *v) {
        return v->vhost ? negotiate_vhost(v) : negotiate_vfio(v);
}

int vmm_share_memory(Vmm *v) {
        struct {
                uint32_t argsz, flags;
                uint64_t offset, address, size;
        } map = { 32, 3, 0, VMM_BASE, VMM_SIZE };
        struct {
                uint32_t n, padding;
                uint64_t guest, size, user, offset;
        } table = { 1, 0, VMM_BASE, VMM_SIZE, VMM_USER, 0 };
        int r;

        r = v->vhost ? vmm_vhost(v, 5, &table, sizeof table, &v->memory_fd, 1, NULL, 0)
                     : vmm_vfio(v, 2, &map, sizeof map, &v->memory_fd, 1, NULL, 0);
        return r < 0 ? r : 0;
}

static void clear_ring(Vmm *v) {
        memset(vmm_at(v, VMM_RING), 0, VMM_COMMAND - VMM_RING);
        v->next_avail = v->next_used = 0;
}

static int start_vfio(Vmm *v) {
        struct {
                uint32_t argsz, flags, index, start, count;
        } irqs = { 20, 0x24, 2, 0, 2 };
        int fds[2] = { v->error_fd, v->call_fd }, r;
        uint64_t features = 0;

        r = vmm_vfio(v, 8, &irqs, sizeof irqs, fds, 2, NULL, 0);
        if (r < 0)
                return r;

        clear_ring(v);
        r = vmm_put(v, 0, VIRTIO_PCI_COMMON_STATUS, 0, 1);
        if (r >= 0)
                r = vmm_put(v, 7, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
        if (r >= 0)
                r = vmm_put(v, 0, VIRTIO_PCI_COMMON_STATUS, 3, 1);
        for (unsigned i = 0; r >= 0 && i < 2; i++) {
                r = vmm_put(v, 0, VIRTIO_PCI_COMMON_DFSELECT, i, 4);
                if (r >= 0)
                        features |= (uint64_t) vmm_get(v, 0, VIRTIO_PCI_COMMON_DF, 4) << (32 * i);
        }
        v->features = features & ~v->not_features;
        for (unsigned i = 0; r >= 0 && i < 2; i++) {
                r = vmm_put(v, 0, VIRTIO_PCI_COMMON_GFSELECT, i, 4);
                if (r >= 0)
                        r = vmm_put(v, 0, VIRTIO_PCI_COMMON_GF, (uint32_t) (v->features >> (32 * i)), 4);
        }
        if (r >= 0)
                r = vmm_put(v, 0, VIRTIO_PCI_COMMON_STATUS, 11, 1);
        if (r >= 0 && vmm_get(v, 0, VIRTIO_PCI_COMMON_STATUS, 1) != 11)
                return -ENODEV;

        const struct {
                unsigned at, size;
                uint64_t value;
        } registers[] = {
                { VIRTIO_PCI_COMMON_MSIX, 2, 0 },
                { VIRTIO_PCI_COMMON_Q_SELECT, 2, 0 },
                { VIRTIO_PCI_COMMON_Q_SIZE, 2, v->queue_size },
                { VIRTIO_PCI_COMMON_Q_MSIX, 2, 1 },
                { VIRTIO_PCI_COMMON_Q_DESCLO, 8, VMM_RING },
                { VIRTIO_PCI_COMMON_Q_AVAILLO, 4, (uint32_t) VMM_AVAIL },
                { VIRTIO_PCI_COMMON_Q_AVAILHI, 4, VMM_AVAIL >> 32 },
                { VIRTIO_PCI_COMMON_Q_USEDLO, 8, VMM_USED },
                { VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1 },
                { VIRTIO_PCI_COMMON_STATUS, 1, 15 },
        };
        for (size_t i = 0; r >= 0 && i < sizeof registers / sizeof *registers; i++)
                r = vmm_put(v, 0, registers[i].at, registers[i].value, registers[i].size);
        return r;
}

static int start_vhost(Vmm *v) {
        struct {
                uint32_t queue, flags;
                uint64_t desc, used, avail, log;
        } address = { 0,
                      0,
                      VMM_RING - VMM_BASE + VMM_USER,
                      VMM_USED - VMM_BASE + VMM_USER,
                      VMM_AVAIL - VMM_BASE + VMM_USER,
                      0 };
        int r;

        r = vmm_vhost_ring_number(v, 8, v->queue_size);
        if (r >= 0)
                r = vmm_vhost_ring_number(v, 10, v->next_avail);
        if (r >= 0)
                r = vmm_vhost(v, 9, &address, sizeof address, NULL, 0, NULL, 0);
        if (r >= 0)
                r = vmm_vhost_ring_fd(v, 14, v->error_fd);
        if (r >= 0)
                r = vmm_vhost_ring_fd(v, 12, v->kick_fd);
        if (r >= 0)
                r = vmm_vhost_ring_fd(v, 13, v->call_fd);
        return r < 0 ? r : vmm_vhost_ring_number(v, 18, 1);
}

int vmm_start_ring(Vmm *v) {
        return v->vhost ? start_vhost(v) : start_vfio(v);
}

int vmm_start(Vmm *v) {
        int r;

        r = vmm_negotiate(v);
        if (r >= 0)
                r = vmm_share_memory(v);
        if (r >= 0)
                clear_ring(v);
        return r < 0 ? r : vmm_start_ring(v);
}

int vmm_reset(Vmm *v) {
        uint32_t base[2] = {};
        uint64_t status = 0;
        int r;

        if (!v->vhost)
                return vmm_put(v, 0, VIRTIO_PCI_COMMON_STATUS, 0, 1);

        r = vmm_vhost_ring_number(v, 18, 0);
        if (r >= 0)
                r = vmm_vhost(v, 11, base, sizeof base, NULL, 0, base, sizeof base);
        if (r >= 0)
                r = vmm_vhost(v, 39, &status, sizeof status, NULL, 0, NULL, 0);
        if (r >= 0)
                clear_ring(v);
        return r < 0 ? r : 0;
}

void *vmm_at(Vmm *v, uint64_t address) {
        CHECK(address >= VMM_BASE && address < VMM_END);
        return v->memory + (address - VMM_BASE);
}

void vmm_desc(Vmm *v, uint64_t table, unsigned i, VmmDesc d) {
        struct vring_desc wire = { htole64(d.address), htole32(d.length), htole16(d.flags),
                                   htole16(d.next) };

        memcpy(vmm_at(v, table + 16 * i), &wire, sizeof wire);
}

static void put16(Vmm *v, uint64_t address, uint16_t n) {
        n = htole16(n);
        memcpy(vmm_at(v, address), &n, sizeof n);
}

static uint16_t get16(Vmm *v, uint64_t address) {
        uint16_t n;

        memcpy(&n, vmm_at(v, address), sizeof n);
        return le16toh(n);
}

void vmm_set_avail(Vmm *v, uint16_t index) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        put16(v, VMM_AVAIL + 2, index);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void vmm_offer(Vmm *v, uint16_t head) {
        put16(v, VMM_AVAIL + 4 + 2 * (uint64_t) (v->next_avail % v->queue_size), head);
        vmm_set_avail(v, ++v->next_avail);
}

int vmm_kick(Vmm *v) {
        static const uint64_t one = 1;

        if (!v->vhost && v->posted) {
                struct {
                        uint16_t id, command;
                        uint32_t size, flags, error;
                        uint64_t offset;
                        uint32_t region, count;
                        uint16_t value;
                } doorbell = { ++v->id, 10, 34, 0x10, 0, 0x3000, 0, 2, 0 };

                return vmm_send(v, &doorbell, 34, NULL, 0);
        }
        if (!v->vhost)
                return vmm_put(v, 0, 0x3000, 0, 2);

        CHECK(write(v->kick_fd, &one, sizeof one) == sizeof one);
        return 0;
}

int vmm_used(Vmm *v, uint32_t *ret_head, uint32_t *ret_length) {
        uint32_t e[2];

        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (get16(v, VMM_USED + 2) == v->next_used)
                return 0;

        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        memcpy(e, vmm_at(v, VMM_USED + 4 + 8 * (uint64_t) (v->next_used % v->queue_size)), sizeof e);
        v->next_used++;
        *ret_head = le32toh(e[0]);
        *ret_length = le32toh(e[1]);
        return 1;
}

int vmm_wait_used(Vmm *v, int ms, uint32_t *ret_head, uint32_t *ret_length) {
        uint64_t end = now_ms() + (uint64_t) ms;

        for (;;) {
                uint64_t now;

                if (vmm_used(v, ret_head, ret_length))
                        return 1;
                now = now_ms();
                if (now >= end)
                        return 0;
                if (v->pump)
                        v->pump(v->userdata);
                else {
                        struct pollfd p = { .fd = v->call_fd, .events = POLLIN };

                        CHECK(poll(&p, 1, (int) (end - now)) >= 0 || errno == EINTR);
                        (void) vmm_interrupts(v);
                }
        }
}

static uint64_t drain(int fd) {
        uint64_t n;

        return read(fd, &n, sizeof n) == sizeof n ? n : 0;
}

void vmm_tell(Vmm *v) {
        (void) fprintf(
                stderr,
                "the ring: %u offered (of which the guest's memory says %u), %u answered (%u were looked at), "
                "flags %#x; last message number %u; features %#" PRIx64 "\n",
                (unsigned) v->next_avail, (unsigned) get16(v, VMM_AVAIL + 2),
                (unsigned) get16(v, VMM_USED + 2), (unsigned) v->next_used, (unsigned) get16(v, VMM_AVAIL),
                (unsigned) v->id, v->features);
}

uint64_t vmm_interrupts(Vmm *v) {
        return drain(v->call_fd);
}

uint64_t vmm_errors(Vmm *v) {
        return drain(v->error_fd);
}

void vmm_submit(Vmm *v, const void *command, size_t size, size_t room) {
        memcpy(vmm_at(v, VMM_COMMAND), command, size);
        vmm_desc(v, VMM_RING, 0, (VmmDesc) { VMM_COMMAND, (uint32_t) size, VRING_DESC_F_NEXT, 1 });
        vmm_desc(v, VMM_RING, 1, (VmmDesc) { VMM_RESPONSE, (uint32_t) room, VRING_DESC_F_WRITE, 0 });
        vmm_offer(v, 0);
        (void) vmm_kick(v);
}

int vmm_command(Vmm *v, const void *command, size_t size, void *response, size_t room, int ms) {
        uint32_t head, length;

        vmm_submit(v, command, size, room);
        if (!vmm_wait_used(v, ms, &head, &length))
                return -ETIMEDOUT;

        CHECK(head == 0 && length <= room);
        memcpy(response, vmm_at(v, VMM_RESPONSE), length);
        return (int) length;
}
