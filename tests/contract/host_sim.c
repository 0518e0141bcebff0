/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The simulated host in this process: "contract-sim ... DIALECT". */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "sim/sim.h"

#include "host.h"
#include "profile.h"

typedef struct Started {
        uint64_t id;
        bool write, never, ended;
        HostAnswer answer;
        char *data;
        size_t n;
} Started;

static Sim *sim;
static unsigned user;
static struct {
        SimFile *file;
        size_t at; /* in what was read last: a read behind its end gives nothing */
} held[HOST_SLOTS];
static Started started[HOST_SLOTS];
static char **events;
static size_t n_events, events_size;

static struct Guest {
        char uuid[40];
        unsigned config, request; /* when last asked */
} guests[HOST_SLOTS];

static void on_event(void *userdata, const char *action, const char *devpath, const char *env, size_t size) {
        char text[4096];
        size_t n;

        if (n_events == events_size) {
                events_size = events_size ? events_size * 2 : 64;
                events = realloc(events, events_size * sizeof *events);
                if (!events)
                        abort();
        }
        n = (size_t) snprintf(text, sizeof text, "%s@%s", action, devpath);
        for (size_t i = 0; i < size; i += strlen(env + i) + 1) {
                text[n++] = ' ';
                for (const char *p = env + i; *p && n < sizeof text - 3; p++)
                        if (*p == '\n') {
                                text[n++] = '\\';
                                text[n++] = 'n';
                        } else
                                text[n++] = *p;
        }
        text[n] = 0;
        events[n_events++] = strdup(text);
}

static void on_done(void *userdata, uint64_t id, ssize_t result, const char *data) {
        for (size_t i = 0; i < HOST_SLOTS; i++) {
                Started *s = &started[i];

                if (!s->never || s->id != id)
                        continue;
                s->ended = true;
                s->answer.r = result;
                if (!s->write && data && result > 0) {
                        s->n = (size_t) result;
                        s->data = malloc(s->n);
                        if (!s->data)
                                abort();
                        memcpy(s->data, data, s->n);
                }
        }
}

int host_begin(char **arguments, const char *boot) {
        CLEANUP(freep)
        SimProfile *p = malloc(sizeof *p);
        char text[8192];
        unsigned line;
        int r;

        if (!p || !arguments[0])
                return 2;
        r = profile_of(boot, text, sizeof text);
        if (r >= 0)
                r = sim_profile_parse(text, p, &line);
        if (r >= 0)
                r = sim_dialect_parse(arguments[0], &p->dialect);
        if (r < 0) {
                (void) fprintf(stderr, "the kernel or its arguments '%s' are not understood\n", boot);
                return 2;
        }
        if (sim_new(p, &sim) < 0)
                return 1;
        sim_set_uevent(sim, on_event, NULL);
        sim_set_done(sim, on_done, NULL);
        return 0;
}

void host_finish(void) {
        for (unsigned i = 0; i < HOST_SLOTS; i++) {
                host_hold_close(i);
                free(started[i].data);
                started[i] = (Started) {};
        }
        memset(guests, 0, sizeof guests);
        user = 0;
        sim = sim_free(sim);
        host_events(NULL);
        free(events);
        events = NULL;
        events_size = 0;
}

static HostAnswer access_file(const char *path, int flags, char *buf, const char *data, size_t n) {
        HostAnswer a = {};
        SimFile *f;

        a.r = sim_open(sim, path, flags, user, &f);
        if (a.r < 0)
                return a;
        a.opened = true;
        a.r = flags == O_RDONLY ? sim_file_read(f, buf, n) : sim_file_write(f, data, n);
        (void) sim_close(f);
        return a;
}

HostAnswer host_read(const char *path, char *buf, size_t size) {
        return access_file(path, O_RDONLY, buf, NULL, size);
}

HostAnswer host_write(const char *path, const char *data, size_t n) {
        return access_file(path, O_WRONLY, NULL, data, n);
}

int host_user(unsigned uid) {
        user = uid;
        return 0;
}

int host_chown(const char *path, unsigned uid) {
        return -EOPNOTSUPP; /* owners belong to the FUSE front */
}

int host_lstat(const char *path, struct stat *ret) {
        SimStat st;
        int r;

        r = sim_lstat(sim, path, &st);
        if (r < 0)
                return r;
        *ret = (struct stat) { .st_mode = st.mode };
        return 0;
}

ssize_t host_readlink(const char *path, char *buf, size_t size) {
        return sim_readlink(sim, path, buf, size);
}

typedef struct Lister {
        host_name_t fn;
        void *userdata;
} Lister;

static int on_entry(void *userdata, const char *name, mode_t type) {
        const Lister *l = userdata;

        return l->fn(l->userdata, name);
}

int host_readdir(const char *path, host_name_t fn, void *userdata) {
        Lister l = { fn, userdata };

        return sim_readdir(sim, path, on_entry, &l);
}

int host_hold(unsigned slot, const char *path, int flags) {
        host_hold_close(slot);
        held[slot].at = 0;
        return sim_open(sim, path, flags, user, &held[slot].file);
}

ssize_t host_hold_read(unsigned slot, char *buf, size_t size, bool rewind) {
        ssize_t r;

        if (!held[slot].file)
                return -EBADF;
        if (!sim_file_alive(held[slot].file))
                return -ENODEV;
        r = sim_file_read(held[slot].file, buf, size);
        if (r < 0)
                return r;
        if (!rewind && held[slot].at >= (size_t) r)
                r = 0;
        else
                held[slot].at = (size_t) r;
        return r;
}

ssize_t host_hold_write(unsigned slot, const char *data, size_t n) {
        return held[slot].file ? sim_file_write(held[slot].file, data, n) : -EBADF;
}

void host_hold_close(unsigned slot) {
        held[slot].file = sim_close(held[slot].file);
}

bool host_start(unsigned slot, bool write, const char *path, const char *data, size_t n, char *ret_state) {
        Started *s = &started[slot];
        char buf[HOST_TEXT];

        free(s->data);
        *s = (Started) { .write = write };
        s->answer = write ? host_write(path, data, n) : host_read(path, buf, sizeof buf);
        s->never = s->answer.r == SIM_NEVER;
        if (s->never) {
                s->id = sim_pending(sim);
                *ret_state = sim_waits(sim, s->id);
                return false;
        }
        s->ended = true;
        if (!write && s->answer.r > 0) {
                s->n = (size_t) s->answer.r;
                s->data = malloc(s->n);
                if (!s->data)
                        abort();
                memcpy(s->data, buf, s->n);
        }
        return true;
}

HostAnswer host_end(unsigned slot, char *buf, size_t size, size_t *ret_n) {
        const Started *s = &started[slot];

        *ret_n = 0;
        if (!s->ended)
                return (HostAnswer) { SIM_NEVER, true };
        if (s->n > 0) {
                memcpy(buf, s->data, s->n);
                *ret_n = s->n;
        }
        return s->answer;
}

int host_model(const char *commands) {
        return sim_ctl(sim, commands);
}

int host_module(bool load) {
        return sim_ctl(sim, load ? "modprobe" : "rmmod") < 0;
}

static struct Guest *guest(const char *uuid) {
        struct Guest *free_one = NULL;

        for (size_t i = 0; i < HOST_SLOTS; i++) {
                if (strcmp(guests[i].uuid, uuid) == 0)
                        return &guests[i];
                if (!guests[i].uuid[0])
                        free_one = &guests[i];
        }
        return free_one;
}

int host_guest(const char *uuid, bool on) {
        struct Guest *g = guest(uuid);
        char command[128];
        int r;

        (void) snprintf(command, sizeof command, "guest %s %s", uuid, on ? "on" : "off");
        r = sim_ctl(sim, command);
        if (!on && r == -ENOENT)
                r = -EINVAL; /* there is no such guest */
        if (r == 0 && g) {
                memset(g, 0, sizeof *g);
                if (on) {
                        (void) snprintf(g->uuid, sizeof g->uuid, "%s", uuid);
                        (void) sim_guest_events(sim, uuid, &g->config, &g->request);
                }
        }
        return r;
}

int host_guest_events(const char *uuid, bool *ret_config, bool *ret_request) {
        struct Guest *g = guest(uuid);
        unsigned config, request;

        if (!g || !g->uuid[0] || sim_guest_events(sim, uuid, &config, &request) < 0)
                return -ENOENT;
        *ret_config = config != g->config;
        *ret_request = request != g->request;
        g->config = config;
        g->request = request;
        return 0;
}

int host_zeroized(host_zeroized_t fn) {
        for (unsigned a = 0; a < 256; a++)
                for (unsigned d = 0; d < 256; d++)
                        if (sim_zeroized(sim, (uint8_t) a, (uint8_t) d) > 0)
                                fn(a, d, sim_zeroized(sim, (uint8_t) a, (uint8_t) d));
        return 0;
}

void host_settle(void) {
}

void host_events(host_event_t fn) {
        for (size_t i = 0; i < n_events; i++) {
                if (fn)
                        fn(events[i]);
                free(events[i]);
        }
        n_events = 0;
}
