/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "chaos_interfere.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "chaos_log.h"

#define FOREIGN     5
#define PAUSE_MAX   20000 /* us between two actions of one */
#define SYS_AP      "/sys/bus/ap/"
#define SYS_MATRIX  "/sys/devices/vfio_ap/matrix/"
#define SYS_CREATE  SYS_MATRIX "mdev_supported_types/vfio_ap-passthrough/create"
#define CONFIG_SIZE 256

const unsigned chaos_adapters[CHAOS_ADAPTERS] = { 1, 2, 3, 4, 5, 0x20 };
const unsigned chaos_domains[CHAOS_DOMAINS] = { 0x06, 0x10, 0x1b, 0x47, 0x28 };

extern char **environ;

static unsigned pick(unsigned *seed, unsigned n) {
        return (unsigned) rand_r(seed) % n;
}

void chaos_pick(unsigned *seed, Ids *ret_adapters, Ids *ret_domains) {
        *ret_adapters = *ret_domains = (Ids) {};
        for (unsigned n = 1 + pick(seed, 2); n > 0; n--)
                ret_adapters->has[chaos_adapters[pick(seed, CHAOS_ADAPTERS)]] = true;
        for (unsigned n = 1 + pick(seed, 2); n > 0; n--)
                ret_domains->has[chaos_domains[pick(seed, CHAOS_DOMAINS)]] = true;
}

static int put(const char *path, const char *text) {
        CLEANUP(fd_closep) int fd = -1;
        ssize_t n;

        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = write(fd, text, strlen(text));
        return n < 0 ? -errno : 0;
}

/* ---- sysfs ---- */

typedef struct Foreign {
        char uuid[37];
        bool made;
        Ids adapters, domains; /* what it has */
        size_t entry;
        bool logged;
} Foreign;

static void mask_format(const Ids *ids, char *buf) {
        buf += sprintf(buf, "0x");
        for (unsigned i = 0; i < IDS; i += 4)
                buf += sprintf(buf, "%x",
                               ids->has[i] << 3 | ids->has[i + 1] << 2 | ids->has[i + 2] << 1 |
                                       ids->has[i + 3]);
}

static int foreign_put(const Foreign *f, const char *name, const char *text) {
        char path[128];

        (void) snprintf(path, sizeof path, SYS_MATRIX "%s/%s", f->uuid, name);
        return put(path, text);
}

/* Changes what @f has by one write, which may be refused. */
static int foreign_change(Foreign *f, unsigned *seed) {
        char text[CONFIG_SIZE];
        Ids adapters, domains;
        const char *name = "ap_config";
        size_t entry;
        int r;

        chaos_pick(seed, &adapters, &domains);
        mask_format(&adapters, text);
        (void) strcat(text, ",");
        mask_format(&domains, text + strlen(text));
        (void) strcat(text, ",0x0000000000000000000000000000000000000000000000000000000000000000");
        if (pick(seed, 2)) {
                bool adapter = pick(seed, 2), set = pick(seed, 3) > 0;
                unsigned id = adapter ? chaos_adapters[pick(seed, CHAOS_ADAPTERS)]
                                      : chaos_domains[pick(seed, CHAOS_DOMAINS)];

                adapters = f->adapters;
                domains = f->domains;
                (adapter ? &adapters : &domains)->has[id] = set;
                name = adapter ? (set ? "assign_adapter" : "unassign_adapter")
                       : set   ? "assign_domain"
                               : "unassign_domain";
                (void) snprintf(text, sizeof text, "%u", id);
        }

        entry = log_begin("mdev", f->uuid, &adapters, &domains);
        r = foreign_put(f, name, text);
        if (r < 0) {
                log_end(entry);
                return r;
        }
        if (f->logged)
                log_end(f->entry);
        f->adapters = adapters;
        f->domains = domains;
        f->entry = entry;
        f->logged = true;
        return 0;
}

static int foreign_remove(Foreign *f) {
        int r = foreign_put(f, "remove", "1");

        if (r < 0)
                return r;
        if (f->logged)
                log_end(f->entry);
        *f = (Foreign) { .uuid = "" };
        return 0;
}

static int foreign_act(Foreign *f, unsigned i, unsigned *seed) {
        int r;

        if (f->made)
                return pick(seed, 4) ? foreign_change(f, seed) : foreign_remove(f);

        (void) snprintf(f->uuid, sizeof f->uuid, "f0000000-0000-4000-8000-%04x%08x", i,
                        (unsigned) rand_r(seed));
        r = put(SYS_CREATE, f->uuid);
        f->made = r >= 0;
        return r;
}

typedef struct HostMasks {
        Ids apmask, aqmask;
        size_t entry;
} HostMasks;

static void masks_read(Ids *apmask, Ids *aqmask) {
        static const char *const paths[] = { SYS_AP "apmask", SYS_AP "aqmask" };
        Ids *into[] = { apmask, aqmask };

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                char text[80] = "";
                CLEANUP(fd_closep) int fd = open(paths[i], O_RDONLY | O_CLOEXEC);

                if (fd < 0 || read(fd, text, sizeof text - 1) < 0 || !ids_parse_mask(text, into[i]))
                        abort();
        }
}

/* Gives one adapter or domain to the host, or takes it. Nobody else writes the masks. */
static int masks_act(HostMasks *m, unsigned *seed) {
        bool adapter = pick(seed, 3) > 0, set = pick(seed, 2);
        unsigned id = adapter ? chaos_adapters[pick(seed, CHAOS_ADAPTERS)]
                              : chaos_domains[pick(seed, CHAOS_DOMAINS)];
        Ids apmask = m->apmask, aqmask = m->aqmask;
        char text[16];
        size_t entry;
        int r;

        (adapter ? &apmask : &aqmask)->has[id] = set;
        (void) snprintf(text, sizeof text, "%c%u", set ? '+' : '-', id);
        entry = log_begin("host", "", &apmask, &aqmask);
        r = put(adapter ? SYS_AP "apmask" : SYS_AP "aqmask", text);
        if (r < 0) {
                log_end(entry);
                return r;
        }
        log_end(m->entry);
        *m = (HostMasks) { apmask, aqmask, entry };
        return 0;
}

void *interfere_sysfs(void *userdata) {
        Interference *it = userdata;
        Foreign foreign[FOREIGN] = {};
        HostMasks masks = {};

        masks_read(&masks.apmask, &masks.aqmask);
        masks.entry = log_begin("host", "", &masks.apmask, &masks.aqmask);
        while (!atomic_load(it->stop)) {
                unsigned i = pick(&it->seed, FOREIGN + 2);
                int r = i < FOREIGN ? foreign_act(&foreign[i], i, &it->seed) : masks_act(&masks, &it->seed);

                it->done += r >= 0;
                it->refused += r < 0;
                (void) usleep(pick(&it->seed, PAUSE_MAX)); /* so that others get a turn */
        }
        return NULL;
}

/* ---- mdevctl ---- */

static bool mdevctl(const char *const *arguments) {
        posix_spawn_file_actions_t actions;
        char *argv[16] = { (char *) "mdevctl" };
        pid_t pid;
        int status;

        for (size_t i = 0; arguments[i]; i++)
                argv[i + 1] = (char *) arguments[i];
        (void) posix_spawn_file_actions_init(&actions);
        (void) posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        (void) posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
        if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) < 0)
                abort();
        (void) posix_spawn_file_actions_destroy(&actions);
        return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

typedef struct Theirs {
        char uuid[37];
        bool defined, started;
        size_t entry, live_entry;
        Ids adapters, domains;
} Theirs;

static bool theirs_define(Theirs *t, Interference *it) {
        char path[256];
        FILE *f;

        chaos_pick(&it->seed, &t->adapters, &t->domains);
        (void) snprintf(t->uuid, sizeof t->uuid, "dddddddd-0000-4000-8000-0000%08x",
                        (unsigned) rand_r(&it->seed));
        (void) snprintf(path, sizeof path, "%s/theirs.json", it->scratch);
        f = fopen(path, "we");
        if (!f)
                abort();
        (void) fprintf(f, "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"manual\",\"attrs\":[");
        for (unsigned i = 0, n = 0; i < 2 * IDS; i++)
                if ((i < IDS ? &t->adapters : &t->domains)->has[i % IDS])
                        (void) fprintf(f, "%s{\"%s\":\"%u\"}", n++ > 0 ? "," : "",
                                       i < IDS ? "assign_adapter" : "assign_domain", i % IDS);
        (void) fprintf(f, "]}\n");
        if (fclose(f) != 0)
                abort();

        t->entry = log_begin("mdevctl", t->uuid, &t->adapters, &t->domains);
        t->defined = mdevctl((const char *const[]) { "define", "--uuid", t->uuid, "--parent", "matrix",
                                                     "--jsonfile", path, NULL });
        if (!t->defined)
                log_end(t->entry);
        return t->defined;
}

static bool theirs_start(Theirs *t) {
        t->live_entry = log_begin("mdev", t->uuid, &t->adapters, &t->domains);
        t->started = mdevctl((const char *const[]) { "start", "--uuid", t->uuid, NULL });
        /* it removes again what it could not finish; what if not, is gone with the next stop */
        if (!t->started) {
                (void) mdevctl((const char *const[]) { "stop", "--uuid", t->uuid, NULL });
                log_end(t->live_entry);
        }
        return t->started;
}

static bool theirs_stop(Theirs *t) {
        bool ok = mdevctl((const char *const[]) { "stop", "--uuid", t->uuid, NULL });

        if (ok) {
                log_end(t->live_entry);
                t->started = false;
        }
        return ok;
}

static bool theirs_undefine(Theirs *t) {
        bool ok =
                mdevctl((const char *const[]) { "undefine", "--uuid", t->uuid, "--parent", "matrix", NULL });

        if (ok) {
                log_end(t->entry);
                t->defined = false;
        }
        return ok;
}

void *interfere_mdevctl(void *userdata) {
        Interference *it = userdata;
        Theirs theirs[3] = {};

        while (!atomic_load(it->stop)) {
                Theirs *t = &theirs[pick(&it->seed, ELEMENTS(theirs))];
                bool ok;

                if (t->started)
                        ok = theirs_stop(t);
                else if (!t->defined)
                        ok = theirs_define(t, it);
                else
                        ok = pick(&it->seed, 2) ? theirs_start(t) : theirs_undefine(t);
                it->done += ok;
                it->refused += !ok;
                (void) usleep(pick(&it->seed, 4 * PAUSE_MAX));
        }
        return NULL;
}
