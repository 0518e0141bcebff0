/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "play.h"

#define NAMES_MAX 256

typedef struct Found {
        char name[NAMES_MAX][40];
        size_t n;
} Found;

static int add_found(void *userdata, const char *name) {
        Found *f = userdata;

        if (f->n < NAMES_MAX && strlen(name) < sizeof *f->name)
                (void) snprintf(f->name[f->n++], sizeof *f->name, "%s", name);
        return 0;
}

static int by_name(const void *a, const void *b) {
        return strcmp(a, b);
}

/* In the order of their names: each host has its own. */
static void find(const char *dir, Found *f) {
        f->n = 0;
        (void) host_readdir(dir, add_found, f);
        qsort(f->name, f->n, sizeof *f->name, by_name);
}

static void put(const char *path, const char *data) {
        (void) host_write(path, data, strlen(data)); /* what it is good for is seen afterwards */
}

static void put_below(const char *dir, const char *name, const char *file, const char *data) {
        char path[256];

        (void) snprintf(path, sizeof path, "%s/%s%s", dir, name, file);
        put(path, data);
}

/* Switches on what is off, without a word if it is not. */
static void switch_on(const char *name, const char *file) {
        char path[256], value[16];

        (void) snprintf(path, sizeof path, "bus/ap/devices/%s/%s", name, file);
        if (host_read(path, value, sizeof value).r > 0 && value[0] == '0')
                put(path, "1\n");
}

static bool has_driver(const char *name) {
        char path[128];
        struct stat st;

        (void) snprintf(path, sizeof path, "bus/ap/devices/%s/driver", name);
        return host_lstat(path, &st) == 0;
}

static void reset_mdevs(bool guests) {
        Found found = {};

        find("devices/vfio_ap/matrix", &found);
        for (size_t i = 0; i < found.n; i++) {
                if (strlen(found.name[i]) != 36)
                        continue;
                if (guests)
                        (void) host_guest(found.name[i], false);
                else
                        put_below("devices/vfio_ap/matrix", found.name[i], "/remove", "1\n");
        }
}

static void reset_devices(void) {
        Found found = {};

        find("bus/ap/devices", &found);
        for (size_t i = 0; i < found.n; i++) {
                const char *name = found.name[i];

                if (strncmp(name, "card", 4) == 0) {
                        if (!has_driver(name))
                                put("bus/ap/drivers/cex4card/bind", name);
                        switch_on(name, "config");
                        switch_on(name, "online");
                } else if (!has_driver(name))
                        put("bus/ap/drivers_probe", name);
        }
        for (size_t i = 0; i < found.n; i++)
                if (strchr(found.name[i], '.'))
                        switch_on(found.name[i], "online");
}

void play_reset(void) {
        static const char full[] = "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\n";
        struct stat st;
        Found found = {};

        for (unsigned i = 0; i < HOST_SLOTS; i++)
                host_hold_close(i);
        (void) host_user(0);
        reset_mdevs(true);
        (void) host_model(
                "+apm 3;+apm 4;+apm 5;+apm 10;-apm 7;+aqm 1;+aqm 2;+aqm 6;+aqm 27;+aqm 76;-aqm 8;"
                "+adm 1;+adm 2;+adm 6;+adm 16;+adm 27;+adm 76;-adm 8;"
                "cfg 3;cfg 4;cfg 5;cfg 10;cfg 7;nochkstop 3;nochkstop 4;nochkstop 5;nochkstop 10;nochkstop 7;"
                "mode 3 accel;mode 4 cca;mode 5 ep11;mode 10 cca;mode 7 cca;"
                "type 3 14;type 4 14;type 5 14;type 10 14;type 7 14;"
                "nohole 3.1;nohole 3.6;nohole 4.2;nohole 4.6;nohole 5.1b;nohole a.4c;rescan");
        if (host_lstat("bus/ap/drivers/vfio_ap", &st) < 0)
                (void) host_module(true);
        find("bus/ap/devices", &found);
        for (size_t i = 0; i < found.n; i++)
                if (strchr(found.name[i], '.'))
                        put_below("bus/ap/devices", found.name[i], "/driver_override", "\n");
        reset_mdevs(false);
        host_settle();
        put("bus/ap/drivers_autoprobe", "1");
        put("bus/ap/apmask", "-255\n"); /* a mask that does not change moves no queue */
        put("bus/ap/apmask", full);
        put("bus/ap/aqmask", full);
        (void) host_model("rescan");
        reset_devices();
        put("bus/ap/ap_domain", "1\n");
        put("bus/ap/config_time", "30\n"); /* and the time up to the next scan begins again */
        (void) host_model("rescan");
}
