/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* vfio_hold - uses a mediated device as QEMU would: container, group, device; until it is killed.
 *
 * usage: vfio-hold /dev/vfio/GROUP UUID       prints "held" when it has the device */

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int broken(const char *what) {
        (void) printf("%s: %s\n", what, strerror(errno));
        return 1;
}

int main(int argc, char **argv) {
        struct vfio_group_status status = { .argsz = sizeof status };
        int container, group;

        if (argc != 3)
                return 2;

        container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
        if (container < 0)
                return broken("/dev/vfio/vfio");
        group = open(argv[1], O_RDWR | O_CLOEXEC);
        if (group < 0)
                return broken(argv[1]);
        if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0 || !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
                return broken("status of the group");
        if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
                return broken("container of the group");
        if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) < 0)
                return broken("IOMMU of the container");
        if (ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[2]) < 0)
                return broken("device of the group");

        (void) puts("held");
        (void) fflush(stdout);
        for (;;)
                (void) pause();
}
