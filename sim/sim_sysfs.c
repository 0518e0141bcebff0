/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sim/sim_sysfs.h"

static_assert(SIM_NEVER == SYSFS_NEVER, "one number for what never returns");

typedef struct SimSysfs {
        Sysfs sysfs;
        Sim *sim;
} SimSysfs;

static Sim *sim_of(Sysfs *s) {
        return CONTAINER_OF(s, SimSysfs, sysfs)->sim;
}

static void pause_for(Sim *sim) {
        uint64_t delay = sim_take_delay(sim);

        if (delay > 0)
                (void) usleep((useconds_t) delay);
}

static ssize_t sim_sysfs_read(Sysfs *s, const char *path, char *buf, size_t size) {
        ssize_t r;

        if (size == 0)
                return -EOVERFLOW;
        r = sim_read(sim_of(s), path, buf, size - 1);
        pause_for(sim_of(s));
        if (r == SIM_NEVER)
                return SYSFS_NEVER;
        if (r >= 0)
                buf[r] = 0;
        return r;
}

static int sim_sysfs_write(Sysfs *s, const char *path, const char *data, size_t size) {
        ssize_t r;

        r = sim_write(sim_of(s), path, data, size);
        pause_for(sim_of(s));
        if (r < 0)
                return r == SIM_NEVER ? SYSFS_NEVER : (int) r;
        return (size_t) r == size ? 0 : -EIO;
}

static ssize_t sim_sysfs_readlink(Sysfs *s, const char *path, char *buf, size_t size) {
        return sim_readlink(sim_of(s), path, buf, size);
}

typedef struct Listing {
        sysfs_entry_t fn;
        void *userdata;
} Listing;

static int list_entry(void *userdata, const char *name, mode_t type) {
        const Listing *l = userdata;

        return l->fn(l->userdata, name);
}

static int sim_sysfs_list(Sysfs *s, const char *path, sysfs_entry_t fn, void *userdata) {
        Listing l = { fn, userdata };

        return sim_readdir(sim_of(s), path, list_entry, &l);
}

static int sim_sysfs_exists(Sysfs *s, const char *path) {
        SimStat st;

        return sim_stat(sim_of(s), path, &st);
}

static void sim_sysfs_free(Sysfs *s) {
        free(CONTAINER_OF(s, SimSysfs, sysfs));
}

static const SysfsOps ops = {
        .read = sim_sysfs_read,
        .write = sim_sysfs_write,
        .readlink = sim_sysfs_readlink,
        .list = sim_sysfs_list,
        .exists = sim_sysfs_exists,
        .free = sim_sysfs_free,
};

int sim_sysfs_new(Sim *sim, Sysfs **ret) {
        SimSysfs *s;

        s = malloc(sizeof *s);
        if (!s)
                return -ENOMEM;
        *s = (SimSysfs) { { &ops }, sim };
        *ret = &s->sysfs;
        return 0;
}
