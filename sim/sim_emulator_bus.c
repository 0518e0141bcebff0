/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sim/sim_emulator.h"

const char *emulator_string(json_object *o, const char *name) {
        json_object *value = json_object_object_get(o, name);

        return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

bool emulator_is_vfio_ap(json_object *options) {
        const char *driver = emulator_string(options, "driver");

        return driver && strcmp(driver, "vfio-ap") == 0;
}

/* Tells the host that @mdev is in use, or is not any more. */
static int tell_host(const char *mdev, const char *state) {
        CLEANUP(fd_closep) int fd = open(EMULATOR_CTL, O_WRONLY | O_CLOEXEC);
        char command[128];
        int n = snprintf(command, sizeof command, "guest %s %s", mdev, state);

        if (n < 0 || (size_t) n >= sizeof command)
                return -EINVAL;
        return fd < 0 || write(fd, command, (size_t) n) < 0 ? -errno : 0;
}

static int fail(char **reterr, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(char **reterr, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        if (vasprintf(reterr, format, ap) < 0)
                *reterr = NULL;
        va_end(ap);
        return -1;
}

int emulator_plug(EmulatorBus *bus, json_object *options, char **reterr) {
        const char *path = emulator_string(options, "sysfsdev") ?: "", *id = emulator_string(options, "id");
        const char *mdev = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, *number;
        CLEANUP(freep) char *link = NULL;
        char group[256];
        struct stat st;
        ssize_t n;
        int r;

        /* a bus that is full is not found either */
        if (!bus->exists || bus->mdev)
                return fail(reterr, "No 'ap-bus' bus found for device 'vfio-ap'");
        if (stat(path, &st) < 0)
                return fail(reterr, "vfio %s: no such host device: %s", path, strerror(errno));
        if (asprintf(&link, "%s/iommu_group", path) < 0) {
                link = NULL;
                return fail(reterr, "%s", strerror(ENOMEM));
        }
        n = readlink(link, group, sizeof group - 1);
        if (n < 0)
                return fail(reterr, "vfio %s: no iommu_group found: %s", mdev, strerror(errno));
        group[n] = '\0';
        number = strrchr(group, '/') ? strrchr(group, '/') + 1 : group;
        r = tell_host(mdev, "on");
        if (r < 0)
                return fail(reterr, "vfio %s: failed to open /dev/vfio/%s: %s", mdev, number, strerror(-r));

        bus->mdev = strdup(mdev);
        bus->id = id ? strdup(id) : NULL;
        if (bus->mdev && (bus->id || !id))
                return 0;
        (void) tell_host(mdev, "off");
        free(TAKE(bus->mdev));
        return fail(reterr, "%s", strerror(ENOMEM));
}

void emulator_unplug(EmulatorBus *bus) {
        if (bus->mdev)
                (void) tell_host(bus->mdev, "off");
        free(TAKE(bus->mdev));
        free(TAKE(bus->id));
}
