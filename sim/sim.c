/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The model's life, access to its files, and the operations that do not end. */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sim/sim_internal.h"

struct SimFile {
        Sim *sim;
        SimNode node;
};

void text_put(SimText *t, const char *data, size_t size) {
        if (size > t->size - 1 - t->n)
                size = t->size - 1 - t->n;
        memcpy(t->p + t->n, data, size);
        t->n += size;
}

void text_puts(SimText *t, const char *s) {
        text_put(t, s, strlen(s));
}

void text_printf(SimText *t, const char *format, ...) {
        char buf[SIM_PAGE_SIZE + 64];
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(buf, sizeof buf, format, ap);
        va_end(ap);
        if (n > 0)
                text_put(t, buf, (size_t) n < sizeof buf ? (size_t) n : sizeof buf - 1);
}

void text_mask(SimText *t, const SimMask *m) {
        char buf[SIM_MASK_TEXT_SIZE];

        text_puts(t, sim_mask_format(m, buf));
}

int sim_new(const SimProfile *profile, Sim **ret) {
        Sim *s;

        s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        s->queues = calloc(SIM_QUEUES, sizeof *s->queues);
        if (!s->queues) {
                free(s);
                return -ENOMEM;
        }
        s->profile = *profile;
        sim_boot(s, false);
        *ret = s;
        return 0;
}

Sim *sim_free(Sim *s) {
        if (!s)
                return NULL;
        sim_set_done(s, NULL, NULL);
        sim_abort_pending(s, -ENODEV);
        sim_mdev_free_all(s);
        sim_ap_free(s);
        free(s->groups);
        free(s->queues);
        free(s);
        return NULL;
}

/* The machine is as the profile says; nothing of what was set survives. */
void sim_boot(Sim *s, bool delayed) {
        sim_abort_pending(s, -ENODEV);
        sim_mdev_free_all(s);
        sim_ap_free(s);
        s->delayed = delayed;
        sim_ap_boot(s);
        sim_mdev_boot(s);
        sim_scan(s);
}

void sim_set_uevent(Sim *s, sim_uevent_t fn, void *userdata) {
        s->uevent = fn;
        s->uevent_data = userdata;
}

void sim_set_done(Sim *s, sim_done_t fn, void *userdata) {
        s->done = fn;
        s->done_data = userdata;
}

uint64_t sim_pending(const Sim *s) {
        return s->last_pending;
}

size_t sim_pending_count(const Sim *s) {
        size_t n = 0;

        for (const SimPending *p = s->pending; p; p = p->next)
                n++;
        return n;
}

uint64_t sim_take_delay(Sim *s) {
        uint64_t delay = s->delay;

        s->delay = 0;
        return delay;
}

uint64_t sim_writes(const Sim *s) {
        return s->writes;
}

uint64_t sim_overruns(const Sim *s) {
        return s->overruns;
}

unsigned sim_zeroized(const Sim *s, uint8_t adapter, uint8_t domain) {
        return sim_queue(s, adapter, domain)->zeroized;
}

static int node_stat(const SimNode *node, SimStat *ret) {
        mode_t mode = S_IFDIR | 0755;

        if (node->link)
                mode = S_IFLNK | 0777;
        else if (node->attr)
                mode = S_IFREG | node->attr->mode;
        *ret = (SimStat) { mode, node->serial, node->fixed };
        return 0;
}

int sim_lstat(Sim *s, const char *path, SimStat *ret) {
        SimNode node;
        int r;

        r = sim_walk(s, path, false, &node);
        return r < 0 ? r : node_stat(&node, ret);
}

int sim_stat(Sim *s, const char *path, SimStat *ret) {
        SimNode node;
        int r;

        r = sim_walk(s, path, true, &node);
        return r < 0 ? r : node_stat(&node, ret);
}

ssize_t sim_readlink(Sim *s, const char *path, char *buf, size_t size) {
        char target[SIM_PAGE_SIZE];
        SimText t = { target, 0, sizeof target };
        SimNode node;
        int r;

        r = sim_walk(s, path, false, &node);
        if (r < 0)
                return r;
        if (!node.link)
                return -EINVAL;
        node.link->target(s, &node, &t);
        if (t.n >= size)
                return -ENAMETOOLONG;
        memcpy(buf, target, t.n);
        buf[t.n] = 0;
        return (ssize_t) t.n;
}

/* pending operations */

uint64_t sim_op_id(Sim *s) {
        if (!s->op.id)
                s->op.id = ++s->last_id;
        return s->op.id;
}

static void update_held(Sim *s) {
        s->held = 0;
        for (const SimPending *p = s->pending; p; p = p->next)
                s->held |= p->holds;
}

/* Keeps the access being made. */
ssize_t sim_pend(Sim *s, SimPendingKind kind, SimPending values) {
        SimPending **last = &s->pending, *p;
        SimText t;

        p = malloc(sizeof *p);
        if (!p)
                return -ENOMEM;
        *p = values;
        p->next = NULL;
        p->kind = kind;
        p->id = s->last_pending = sim_op_id(s);
        p->waits = s->op.waits;
        p->node = *s->op.node;
        p->write = s->op.write;
        p->size = s->op.size;
        t = (SimText) { p->path, 0, sizeof p->path };
        sim_node_path(s, s->op.node, &t);
        p->path[t.n] = 0;
        p->data = malloc(s->op.size + 1);
        if (!p->data) {
                free(p);
                return -ENOMEM;
        }
        if (s->op.write)
                memcpy(p->data, s->op.data, s->op.size);
        p->data[s->op.size] = 0;
        if (p->node.mdev)
                p->node.mdev->refs++;
        while (*last)
                last = &(*last)->next;
        *last = p;
        update_held(s);
        return SIM_NEVER;
}

static void unlink_pending(Sim *s, SimPending *p) {
        SimPending **at = &s->pending;

        while (*at != p)
                at = &(*at)->next;
        *at = p->next;
        update_held(s);
}

static void free_pending(SimPending *p) {
        if (p->node.mdev)
                sim_mdev_unref(p->node.mdev);
        free(p->data);
        free(p);
}

static void complete(Sim *s, SimPending *p, ssize_t result, const char *data) {
        if (s->done)
                s->done(s->done_data, p->id, result, data);
        free_pending(p);
}

void sim_abort_pending(Sim *s, ssize_t result) {
        while (s->pending) {
                SimPending *p = s->pending;

                unlink_pending(s, p);
                complete(s, p, result, NULL);
        }
}

static bool ends_by_signal(const SimPending *p) {
        return p->kind == SIM_PEND_RETRY && p->needs == SIM_LOCK_PERMS;
}

char sim_waits(const Sim *s, uint64_t id) {
        for (const SimPending *p = s->pending; p; p = p->next)
                if (p->id == id)
                        /* for a guest it sleeps until the first signal, which ends nothing */
                        return ends_by_signal(p) || p->kind == SIM_PEND_GUEST ? 'S' : 'D';
        return 0;
}

bool sim_interrupt(Sim *s, uint64_t id) {
        for (SimPending *p = s->pending; p; p = p->next)
                if (p->id == id && ends_by_signal(p)) {
                        unlink_pending(s, p);
                        complete(s, p, -EINTR, NULL);
                        return true;
                }
        return false;
}

/* The access itself; @id is 0 or that of the pending operation that is tried again. */
static ssize_t perform(Sim *s, const SimNode *node, bool write, const char *data, char *buf, size_t size,
                       uint64_t id, bool faults) {
        uint8_t locks = write ? node->attr->store_locks : node->attr->show_locks;
        ssize_t r;

        if (!sim_node_alive(s, node))
                return -ENODEV;
        s->op.node = node;
        s->op.write = write;
        s->op.data = data;
        s->op.size = write ? size : 0;
        s->op.waits = 0;
        s->op.id = id;

        if (faults && s->n_faults > 0) {
                bool hang = false;
                int error = 0;

                if (sim_fault_hit(s, node, write, &error, &hang)) {
                        if (hang)
                                return sim_pend(s, SIM_PEND_HANG, (SimPending) {});
                        if (error)
                                return -error;
                }
        }
        if (node->parent && node->parent->kind != SIM_PARENT_VFIO_AP)
                locks = 0;
        if (locks & s->held)
                return sim_pend(s, SIM_PEND_RETRY,
                                (SimPending) {
                                        .needs = s->held & SIM_LOCK_PERMS && locks & SIM_LOCK_PERMS
                                                         ? SIM_LOCK_PERMS
                                                         : locks,
                                });
        if (write)
                r = node->attr->store(s, node, data, size);
        else {
                SimText t = { buf, 0, size };

                node->attr->show(s, node, &t);
                r = (ssize_t) t.n;
        }
        return r;
}

static void finish_unbind(Sim *s, const SimPending *p) {
        SimQueue *q = p->queue;

        if (q->exists && q->driver == SIM_VFIO_AP)
                (void) sim_queue_unbind(s, q);
}

/* One that can go on does so; true if the list has changed. */
static bool advance(Sim *s, SimPending *p) {
        char buf[SIM_PAGE_SIZE];
        ssize_t r;

        switch (p->kind) {
        case SIM_PEND_RETRY: {
                uint8_t locks = p->write ? p->node.attr->store_locks : p->node.attr->show_locks;

                if (locks & s->held)
                        return false;
                unlink_pending(s, p);
                r = perform(s, &p->node, p->write, p->data, buf, p->write ? p->size : sizeof buf, p->id,
                            false);
                if (r == SIM_NEVER)
                        free_pending(p);
                else
                        complete(s, p, r, buf);
                return true;
        }
        case SIM_PEND_RESULT:
        case SIM_PEND_UNBIND:
                if (p->waits > 0)
                        return false;
                if (p->kind == SIM_PEND_UNBIND)
                        finish_unbind(s, p);
                unlink_pending(s, p);
                complete(s, p, p->result, NULL);
                return true;
        case SIM_PEND_REBIND:
                if (p->waits > 0)
                        return false;
                s->op.waits = 0;
                s->op.id = p->id;
                if (!sim_rebind(s, &p->cursor)) {
                        p->waits = s->op.waits;
                        return false;
                }
                sim_mask_changed(s, strcmp(p->node.attr->name, "apmask") == 0);
                unlink_pending(s, p);
                complete(s, p, p->result, NULL);
                return true;
        case SIM_PEND_REMOVE:
                if (p->waits > 0)
                        return false;
                unlink_pending(s, p);
                sim_mdev_reset_ended(s, p->mdev, p->keep);
                complete(s, p, p->result, NULL);
                return true;
        case SIM_PEND_HANG:
        case SIM_PEND_GUEST:
                return false; /* sim_release(), sim_complete_guest() */
        }
        return false;
}

void sim_kick(Sim *s) {
again:
        for (SimPending *p = s->pending; p; p = p->next)
                if (advance(s, p))
                        goto again;
}

/* Lets what a fault rule stopped start, if its path ends in @pattern ("" = all). */
void sim_release(Sim *s, const char *pattern) {
again:
        for (SimPending *p = s->pending; p; p = p->next) {
                char buf[SIM_PAGE_SIZE];
                ssize_t r;

                if (p->kind != SIM_PEND_HANG || !strstr(p->path, pattern))
                        continue;
                unlink_pending(s, p);
                r = perform(s, &p->node, p->write, p->data, buf, p->write ? p->size : sizeof buf, p->id,
                            false);
                if (r == SIM_NEVER)
                        free_pending(p);
                else
                        complete(s, p, r, buf);
                goto again;
        }
}

void sim_complete_guest(Sim *s, const SimMdev *m) {
        for (SimPending *p = s->pending; p; p = p->next)
                if (p->kind == SIM_PEND_GUEST && p->mdev == m) {
                        unlink_pending(s, p);
                        sim_mdev_finish(s, p->mdev, p->keep);
                        complete(s, p, p->result, NULL);
                        return;
                }
}

/* files */

int sim_open(Sim *s, const char *path, int flags, uid_t uid, SimFile **ret) {
        mode_t read_bit = uid == 0 ? 0444 : 0004, write_bit = uid == 0 ? 0222 : 0002;
        int access = flags & O_ACCMODE;
        SimFile *f;
        SimNode node;
        int r;

        r = sim_walk(s, path, true, &node);
        if (r < 0)
                return r;
        if (!node.attr)
                return -EISDIR;
        if (access != O_WRONLY && !(node.attr->mode & read_bit))
                return -EACCES;
        if (access != O_RDONLY && !(node.attr->mode & write_bit))
                return -EACCES;
        f = malloc(sizeof *f);
        if (!f)
                return -ENOMEM;
        *f = (SimFile) { s, node };
        if (node.mdev)
                node.mdev->refs++;
        *ret = f;
        return 0;
}

SimFile *sim_close(SimFile *f) {
        if (!f)
                return NULL;
        if (f->node.mdev)
                sim_mdev_unref(f->node.mdev);
        free(f);
        return NULL;
}

static bool is_ctl(const SimNode *node) {
        return node->dir == DIR_SIM && node->attr->store;
}

bool sim_file_alive(const SimFile *f) {
        return sim_node_alive(f->sim, &f->node);
}

ssize_t sim_file_read(SimFile *f, char *buf, size_t size) {
        char page[SIM_PAGE_SIZE];
        ssize_t r;

        if (!f->node.attr->show)
                return -EBADF;
        if (is_ctl(&f->node))
                return (ssize_t) sim_state(f->sim, buf, size);
        r = perform(f->sim, &f->node, false, NULL, page, sizeof page, 0, true);
        if (r < 0)
                return r;
        if ((size_t) r > size)
                return -EOVERFLOW;
        memcpy(buf, page, (size_t) r);
        return r;
}

ssize_t sim_file_write(SimFile *f, const char *data, size_t size) {
        char page[SIM_PAGE_SIZE + 1];
        ssize_t r;

        if (!f->node.attr->store)
                return -EBADF;
        if (size == 0)
                return 0;
        if (size > SIM_PAGE_SIZE)
                size = SIM_PAGE_SIZE;
        memcpy(page, data, size);
        page[size] = 0;
        if (is_ctl(&f->node))
                return f->node.attr->store(f->sim, &f->node, page, size);
        f->sim->writes++;
        r = perform(f->sim, &f->node, true, page, NULL, size, 0, true);
        if (f->sim->pending) {
                uint64_t id = f->sim->last_pending;

                sim_kick(f->sim); /* a scan may have ended what another one waits for */
                f->sim->last_pending = id;
        }
        return r;
}

ssize_t sim_read(Sim *s, const char *path, char *buf, size_t size) {
        SimFile *f;
        ssize_t r;

        r = sim_open(s, path, O_RDONLY, 0, &f);
        if (r < 0)
                return r;
        r = sim_file_read(f, buf, size);
        (void) sim_close(f);
        return r;
}

ssize_t sim_write(Sim *s, const char *path, const char *data, size_t size) {
        SimFile *f;
        ssize_t r;

        r = sim_open(s, path, O_WRONLY, 0, &f);
        if (r < 0)
                return r;
        r = sim_file_write(f, data, size);
        (void) sim_close(f);
        return r;
}
