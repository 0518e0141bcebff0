/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GUESTS_MAX 10

enum { FD_CONTAINER, FD_GROUP, FD_VM, FD_KVM_VFIO, FD_DEVICE, FD_REQUEST, FD_CONFIG, _FD_MAX };

static struct VfioGuest {
        char uuid[40];
        int fd[_FD_MAX];
} guests[GUESTS_MAX];

/* In the order in which QEMU's go. */
static void release(struct VfioGuest *g) {
        static const uint8_t order[] = { FD_DEVICE,    FD_KVM_VFIO, FD_VM,    FD_GROUP,
                                         FD_CONTAINER, FD_REQUEST,  FD_CONFIG };

        for (unsigned i = 0; i < sizeof order; i++)
                if (g->fd[order[i]] >= 0)
                        (void) close(g->fd[order[i]]);
        g->uuid[0] = 0;
}

static int open_group(struct VfioGuest *g, int sys_fd) {
        char path[256], target[200];
        const char *slash;
        ssize_t n;

        (void) snprintf(path, sizeof path, "bus/mdev/devices/%s/iommu_group", g->uuid);
        n = readlinkat(sys_fd, path, target, sizeof target - 1);
        if (n < 0)
                return -errno;
        target[n] = 0;
        slash = strrchr(target, '/');
        (void) snprintf(path, sizeof path, "/dev/vfio/%s", slash ? slash + 1 : target);
        g->fd[FD_GROUP] = open(path, O_RDWR | O_CLOEXEC);
        if (g->fd[FD_GROUP] < 0)
                return -errno;
        g->fd[FD_CONTAINER] = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
        if (g->fd[FD_CONTAINER] < 0 ||
            ioctl(g->fd[FD_GROUP], VFIO_GROUP_SET_CONTAINER, &g->fd[FD_CONTAINER]) < 0 ||
            ioctl(g->fd[FD_CONTAINER], VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) < 0)
                return -errno;
        return 0;
}

static int make_vm(struct VfioGuest *g) {
        struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
        struct kvm_device_attr attr = {
                .group = KVM_DEV_VFIO_GROUP,
                .attr = KVM_DEV_VFIO_GROUP_ADD,
                .addr = (uintptr_t) &g->fd[FD_GROUP],
        };
        int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

        if (kvm < 0)
                return -errno;
        g->fd[FD_VM] = ioctl(kvm, KVM_CREATE_VM, 0);
        (void) close(kvm);
        if (g->fd[FD_VM] < 0 || ioctl(g->fd[FD_VM], KVM_CREATE_DEVICE, &create) < 0)
                return -errno;
        g->fd[FD_KVM_VFIO] = (int) create.fd;
        return ioctl(g->fd[FD_KVM_VFIO], KVM_SET_DEVICE_ATTR, &attr) < 0 ? -errno : 0;
}

/* Kernels before 7.2 have no interrupt for a new configuration; then there is never one. */
static void listen_to(const struct VfioGuest *g, unsigned index, int fd) {
        char bytes[sizeof(struct vfio_irq_set) + sizeof fd];
        struct vfio_irq_set set = {
                .argsz = sizeof bytes,
                .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                .index = index,
                .count = 1,
        };

        memcpy(bytes, &set, sizeof set);
        memcpy(bytes + sizeof set, &fd, sizeof fd);
        (void) ioctl(g->fd[FD_DEVICE], VFIO_DEVICE_SET_IRQS, bytes);
}

static struct VfioGuest *find(const char *uuid) {
        for (unsigned i = 0; i < GUESTS_MAX; i++)
                if (strcmp(guests[i].uuid, uuid) == 0)
                        return &guests[i];
        return NULL;
}

int vfio_guest_attach(int sys_fd, const char *uuid) {
        struct VfioGuest *g = find("");
        int r;

        if (!g)
                return -EMFILE;
        (void) snprintf(g->uuid, sizeof g->uuid, "%s", uuid);
        for (unsigned i = 0; i < _FD_MAX; i++)
                g->fd[i] = -1;
        r = open_group(g, sys_fd);
        if (r == 0)
                r = make_vm(g);
        if (r == 0) {
                g->fd[FD_DEVICE] = ioctl(g->fd[FD_GROUP], VFIO_GROUP_GET_DEVICE_FD, uuid);
                r = g->fd[FD_DEVICE] < 0 ? -errno : 0;
        }
        if (r < 0) {
                release(g);
                return r;
        }
        g->fd[FD_REQUEST] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        g->fd[FD_CONFIG] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        listen_to(g, 0, g->fd[FD_REQUEST]);
        listen_to(g, 1, g->fd[FD_CONFIG]);
        return 0;
}

int vfio_guest_detach(const char *uuid) {
        struct VfioGuest *g = find(uuid);

        if (!g)
                return -EINVAL;
        release(g);
        return 0;
}

int vfio_guest_events(const char *uuid, bool *ret_config, bool *ret_request) {
        struct VfioGuest *g = find(uuid);
        uint64_t n;

        if (!g)
                return -ENOENT;
        *ret_config = read(g->fd[FD_CONFIG], &n, sizeof n) == sizeof n;
        *ret_request = read(g->fd[FD_REQUEST], &n, sizeof n) == sizeof n;
        return 0;
}

void vfio_guest_forget(void) {
        for (unsigned i = 0; i < GUESTS_MAX; i++)
                if (guests[i].uuid[0])
                        release(&guests[i]);
}
