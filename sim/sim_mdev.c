/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The mdev core: parents, types, creation and removal, and the users of mdevs. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_internal.h"

static unsigned hash(const char *uuid) {
        unsigned h = 2166136261u;

        for (; *uuid; uuid++)
                h = (h ^ (unsigned char) *uuid) * 16777619u;
        return h % SIM_MDEV_HASH;
}

/* By the name of its directory: 36 characters, lower case. */
SimMdev *sim_mdev_find(const Sim *s, const char *uuid, size_t n) {
        char name[SIM_UUID_SIZE];

        if (n != SIM_UUID_SIZE - 1)
                return NULL;
        memcpy(name, uuid, n);
        name[n] = 0;
        for (SimMdev *m = s->hash[hash(name)]; m; m = m->hash_next)
                if (strcmp(m->uuid, name) == 0)
                        return m;
        return NULL;
}

unsigned sim_types(const SimParent *p) {
        return p->kind == SIM_PARENT_VFIO_AP ? 1 : SIM_TYPES;
}

const char *sim_type_name(const SimParent *p, unsigned type, char buf[static 64]) {
        if (p->kind == SIM_PARENT_VFIO_AP)
                return "vfio_ap-passthrough";
        (void) snprintf(buf, 64, "%s-%u", p->name, type + 1);
        return buf;
}

const char *sim_mdev_driver_name(const SimParent *p) {
        return p->kind == SIM_PARENT_VFIO_AP ? "vfio_ap_mdev" : p->name;
}

/* Instances, or ports, that one mdev of this type takes. */
static unsigned cost(const SimParent *p, unsigned type) {
        return p->kind == SIM_PARENT_VFIO_AP ? 1 : type + 1;
}

static int take_group(Sim *s, SimMdev *m) {
        while (s->free_group < s->n_groups && s->groups[s->free_group])
                s->free_group++;
        if (s->free_group == s->n_groups) {
                size_t n = s->n_groups ? s->n_groups * 2 : 64;
                SimMdev **groups = realloc(s->groups, n * sizeof *groups);

                if (!groups)
                        return -ENOMEM;
                memset(groups + s->n_groups, 0, (n - s->n_groups) * sizeof *groups);
                s->groups = groups;
                s->n_groups = n;
        }
        m->group = (int) s->free_group;
        s->groups[s->free_group++] = m;
        return 0;
}

static void drop_group(Sim *s, SimMdev *m) {
        s->groups[m->group] = NULL;
        if ((size_t) m->group < s->free_group)
                s->free_group = (size_t) m->group;
        m->group = -1;
}

static void insert(Sim *s, SimMdev *m) {
        SimMdev **bucket = &s->hash[hash(m->uuid)];
        SimParent *p = m->parent;

        m->hash_next = *bucket;
        *bucket = m;
        m->prev = p->last;
        if (p->last)
                p->last->next = m;
        else
                p->first = m;
        p->last = m;
        p->left -= cost(p, m->type);
        s->n_mdevs++;
}

void sim_mdev_unref(SimMdev *m) {
        if (--m->refs == 0)
                free(m);
}

static void forget(Sim *s, SimMdev *m) {
        SimMdev **bucket = &s->hash[hash(m->uuid)];
        SimParent *p = m->parent;

        while (*bucket != m)
                bucket = &(*bucket)->hash_next;
        *bucket = m->hash_next;
        if (m->prev)
                m->prev->next = m->next;
        else
                p->first = m->next;
        if (m->next)
                m->next->prev = m->prev;
        else
                p->last = m->prev;
        p->left += cost(p, m->type);
        s->n_mdevs--;
        if (m->group >= 0)
                drop_group(s, m);
        m->dead = true;
        sim_mdev_unref(m);
}

static bool valid_uuid(const char *s) {
        for (size_t i = 0; i < SIM_UUID_SIZE - 1; i++) {
                bool dash = i == 8 || i == 13 || i == 18 || i == 23;

                if (dash ? s[i] != '-' : !s[i] || !strchr("0123456789abcdefABCDEF", s[i]))
                        return false;
        }
        return true;
}

static ssize_t create_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimParent *p = node->parent;
        char uuid[SIM_UUID_SIZE];
        SimMdev *m;

        if (size < SIM_UUID_SIZE - 1 || size > SIM_UUID_SIZE || !valid_uuid(data))
                return -EINVAL;
        for (size_t i = 0; i < SIM_UUID_SIZE - 1; i++)
                uuid[i] = (char) (data[i] >= 'A' && data[i] <= 'F' ? data[i] + 'a' - 'A' : data[i]);
        uuid[SIM_UUID_SIZE - 1] = 0;
        if (sim_mdev_find(s, uuid, SIM_UUID_SIZE - 1))
                return -EEXIST;
        if (p->kind == SIM_PARENT_VFIO_AP && p->left == 0)
                return -EUSERS;

        m = calloc(1, sizeof *m);
        if (!m)
                return -ENOMEM;
        memcpy(m->uuid, uuid, sizeof uuid);
        m->parent = p;
        m->type = node->index;
        m->serial = ++s->serial;
        m->group = -1;
        m->refs = 1;
        if (p->left < cost(p, m->type)) {
                /* the sample driver counts its ports when it probes, so the device has been there */
                sim_emit_mdev(s, "add", m, NULL);
                sim_emit_mdev(s, "remove", m, NULL);
                free(m);
                return -ENOSPC;
        }
        if (take_group(s, m) < 0) {
                free(m);
                return -ENOMEM;
        }
        insert(s, m);
        sim_emit_mdev(s, "add", m, NULL);
        sim_emit_vfio(s, "add", m, true);
        sim_emit_vfio(s, "add", m, false);
        m->bound = true;
        sim_emit_mdev(s, "bind", m, NULL);
        return (ssize_t) size;
}

/* The first part of a removal, or with it of taking the mdev from its driver, when no guest has it: its queues are reset. */
static void finish_begin(Sim *s, SimMdev *m) {
        if (m->bound) {
                if (!m->removing)
                        sim_emit_vfio(s, "remove", m, false);
                sim_emit_vfio(s, "remove", m, true);
        }
        if (m->parent->kind == SIM_PARENT_VFIO_AP)
                sim_matrix_free_queues(s, m, true);
}

/* With @keep it stays, without a driver. */
static void finish_end(Sim *s, SimMdev *m, bool keep) {
        if (m->bound) {
                drop_group(s, m);
                m->bound = false;
                sim_emit_mdev(s, "unbind", m, NULL);
        }
        m->removing = false;
        if (keep)
                return;
        sim_emit_mdev(s, "remove", m, NULL);
        forget(s, m);
}

void sim_mdev_finish(Sim *s, SimMdev *m, bool keep) {
        finish_begin(s, m);
        finish_end(s, m, keep);
}

void sim_mdev_reset_ended(Sim *s, SimMdev *m, bool keep) {
        finish_end(s, m, keep);
}

static ssize_t let_go(Sim *s, SimMdev *m, bool keep, size_t size) {
        if (m->guest) {
                m->removing = true;
                m->request_events++;
                if (m->parent->kind == SIM_PARENT_VFIO_AP && s->profile.dialect >= SIM_LINUX_7_2)
                        m->config_events++;
                sim_emit_vfio(s, "remove", m, false);
                return sim_pend(s, SIM_PEND_GUEST,
                                (SimPending) { .mdev = m, .keep = keep, .result = (ssize_t) size });
        }
        finish_begin(s, m);
        if (s->op.waits > 0) {
                m->removing = true;
                return sim_pend(s, SIM_PEND_REMOVE,
                                (SimPending) {
                                        .holds = SIM_LOCK_MDEVS,
                                        .mdev = m,
                                        .keep = keep,
                                        .result = (ssize_t) size,
                                });
        }
        finish_end(s, m, keep);
        return (ssize_t) size;
}

static ssize_t remove_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        uint64_t v;

        if (sim_parse_number(data, &v) < 0)
                return -EINVAL;
        if (v == 0)
                return (ssize_t) size;
        return let_go(s, node->mdev, false, size);
}

/* The name of a device as bind and unbind take it: an optional newline at its end. */
static SimMdev *named(const Sim *s, const char *data) {
        return sim_mdev_find(s, data, strcspn(data, "\n"));
}

static ssize_t unbind_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimMdev *m = named(s, data);

        if (!m || m->parent != node->parent || !m->bound || m->removing)
                return -ENODEV;
        return let_go(s, m, true, size);
}

static ssize_t bind_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return -ENODEV; /* the mdev bus matches no driver: only create binds */
}

int sim_mdev_guest(Sim *s, const char *uuid, bool on) {
        SimMdev *m = sim_mdev_find(s, uuid, strlen(uuid));

        if (!m || !m->bound)
                return -ENOENT;
        if (m->guest == on)
                return on ? -EBUSY : -EINVAL;
        if (on && m->removing)
                return -ENODEV;
        m->guest = on;
        if (on) {
                s->n_guests++;
                return 0;
        }
        s->n_guests--;
        sim_matrix_reset(s, m, false);
        if (m->removing)
                sim_complete_guest(s, m);
        return 0;
}

int sim_guest_events(Sim *s, const char *uuid, unsigned *ret_config, unsigned *ret_request) {
        const SimMdev *m = sim_mdev_find(s, uuid, strlen(uuid));

        if (!m)
                return -ENOENT;
        *ret_config = m->config_events;
        *ret_request = m->request_events;
        return 0;
}

static int by_binding(const void *a, const void *b) {
        const SimQueue *x = *(SimQueue *const *) a, *y = *(SimQueue *const *) b;

        return x->bound_serial < y->bound_serial ? 1 : -1; /* the last one first */
}

/* rmmod: takes every idle mdev with it. */
int sim_vfio_ap_unload(Sim *s) {
        SimParent *p = &s->parents[0];
        SimQueue **queues;
        size_t n = 0;

        if (!s->vfio_ap)
                return -ENOENT;
        for (const SimMdev *m = p->first; m; m = m->next)
                if (m->guest)
                        return -EAGAIN;
        queues = calloc(s->n_queues + 1, sizeof *queues);
        if (!queues)
                return -ENOMEM;

        for (SimMdev *m = p->first, *next; m; m = next) {
                next = m->next;
                sim_mdev_finish(s, m, false);
        }
        sim_emit_parent(s, "change", p, "MDEV_STATE=unregistered");
        sim_emit(s, "remove", "/bus/mdev/drivers/vfio_ap_mdev", "drivers", NULL, NULL);
        for (SimQueue *q = s->first; q; q = q->next)
                if (q->driver == SIM_VFIO_AP)
                        queues[n++] = q;
        qsort(queues, n, sizeof *queues, by_binding);
        for (size_t i = 0; i < n; i++) {
                sim_queue_unstick(s, queues[i]);
                (void) sim_queue_unbind(s, queues[i]);
        }
        free(queues);
        sim_emit(s, "remove", "/bus/ap/drivers/vfio_ap", "drivers", NULL, NULL);
        s->vfio_ap = p->present = false;
        sim_emit_parent(s, "unbind", p, NULL);
        sim_emit(s, "remove", "/bus/matrix/drivers/vfio_ap", "drivers", NULL, NULL);
        sim_emit_parent(s, "remove", p, NULL);
        sim_emit(s, "remove", "/bus/matrix", "bus", NULL, NULL);
        sim_emit(s, "remove", "/module/vfio_ap", "module", NULL, NULL);
        return 0;
}

int sim_vfio_ap_load(Sim *s) {
        SimParent *p = &s->parents[0];

        if (s->profile.no_ap)
                return -ENODEV;
        if (s->vfio_ap)
                return 0;
        sim_emit(s, "add", "/bus/matrix", "bus", NULL, NULL);
        sim_emit_parent(s, "add", p, NULL);
        s->vfio_ap = p->present = true;
        sim_matrix_load(s);
        sim_emit_parent(s, "bind", p, NULL);
        sim_emit(s, "add", "/bus/matrix/drivers/vfio_ap", "drivers", NULL, NULL);
        for (SimQueue *q = s->first; q && s->autoprobe && !s->delayed; q = q->next)
                if (!q->driver)
                        (void) sim_queue_bind(s, q,
                                              SIM_VFIO_AP); /* what the host's driver could have stays */
        sim_emit(s, "add", "/bus/ap/drivers/vfio_ap", "drivers", NULL, NULL);
        sim_bindings_check(s);
        sim_emit(s, "add", "/bus/mdev/drivers/vfio_ap_mdev", "drivers", NULL, NULL);
        sim_emit_parent(s, "change", p, "MDEV_STATE=registered");
        sim_emit(s, "add", "/module/vfio_ap", "module", NULL, NULL);
        return 0;
}

int sim_parent_plug(Sim *s, const char *name, bool add) {
        SimParent *p = NULL;

        for (size_t i = 0; i < s->n_parents && !p; i++)
                if (s->parents[i].kind != SIM_PARENT_VFIO_AP && strcmp(s->parents[i].name, name) == 0)
                        p = &s->parents[i];
        if (!p)
                return -ENODEV;
        if (p->present == add)
                return 0;

        if (add) {
                p->present = true;
                sim_emit_parent(s, "add", p, NULL);
                sim_emit_parent(s, "change", p, "MDEV_STATE=registered");
                return 0;
        }

        for (const SimMdev *m = p->first; m; m = m->next)
                if (m->guest)
                        return -EAGAIN;
        for (SimMdev *m = p->first, *next; m; m = next) {
                next = m->next;
                sim_mdev_finish(s, m, false);
        }
        sim_emit_parent(s, "change", p, "MDEV_STATE=unregistered");
        p->present = false;
        sim_emit_parent(s, "remove", p, NULL);
        return 0;
}

void sim_mdev_boot(Sim *s) {
        const SimProfile *p = &s->profile;

        s->n_parents = 1 + p->n_parents;
        s->parents[0] = (SimParent) { .kind = SIM_PARENT_VFIO_AP, .name = "matrix", .left = p->instances };
        s->vfio_ap = s->parents[0].present = !p->no_ap && !p->no_vfio_ap;
        for (size_t i = 0; i < p->n_parents; i++) {
                SimParent *parent = &s->parents[1 + i];

                *parent = (SimParent) { .kind = SIM_PARENT_MTTY,
                                        .left = p->parents[i].ports,
                                        .present = true };
                memcpy(parent->name, p->parents[i].name, sizeof parent->name);
        }
}

/* As a power cut does it: no event, no reset. */
void sim_mdev_free_all(Sim *s) {
        for (size_t i = 0; i < s->n_parents; i++)
                for (SimMdev *m = s->parents[i].first, *next; m; m = next) {
                        next = m->next;
                        if (m->parent->kind == SIM_PARENT_VFIO_AP)
                                sim_matrix_free_queues(s, m, false);
                        forget(s, m);
                }
        s->n_guests = 0;
}

static void uevent_show(Sim *s, const SimNode *node, SimText *t) {
        if (node->dir == DIR_MDEV) {
                if (node->mdev->bound)
                        text_printf(t, "DRIVER=%s\n", sim_mdev_driver_name(node->parent));
        } else if (node->dir == DIR_PARENT && node->parent->kind == SIM_PARENT_VFIO_AP)
                text_puts(t, "DRIVER=vfio_ap\n");
}

static void features_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "guest_matrix hotplug ap_config\n");
}

static bool has_features(const Sim *s, const SimNode *node) {
        return node->parent->kind == SIM_PARENT_VFIO_AP && s->profile.dialect >= SIM_LINUX_6_12;
}

static void available_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u\n", node->parent->left / cost(node->parent, node->index));
}

static void api_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, node->parent->kind == SIM_PARENT_VFIO_AP ? "vfio-ap\n" : "vfio-pci\n");
}

static void name_show(Sim *s, const SimNode *node, SimText *t) {
        static const char *const mtty_names[SIM_TYPES] = { "Single port serial\n", "Dual port serial\n" };

        text_puts(t, node->parent->kind == SIM_PARENT_VFIO_AP ? "VFIO AP Passthrough Device\n"
                                                              : mtty_names[node->index]);
}

static void group_name_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "vfio-noiommu\n");
}

static void group_type_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "unknown\n");
}

static ssize_t group_type_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return -EINVAL; /* an emulated group has no domain whose type could change */
}

static void nothing_show(Sim *s, const SimNode *node, SimText *t) {
}

static void sample_dev_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "This is phy device\n");
}

static void sample_mdev_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "This is MDEV %s\n", node->mdev->uuid);
}

static void autoprobe_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "1\n");
}

static ssize_t autoprobe_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return data[0] == '0' ? -EINVAL
                              : (ssize_t) size; /* these buses bind in create only: no second state here */
}

static ssize_t probe_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        if (node->dir == DIR_BUS_MDEV ? !named(s, data) : strncmp(data, "matrix", strcspn(data, "\n")) != 0)
                return -ENODEV;
        return (ssize_t) size;
}

static bool there(const Sim *s, const SimNode *node) {
        return !node->mdev->removing;
}

const SimAttr sim_bus_attrs[] = {
        { "drivers_autoprobe", 0644, autoprobe_show, autoprobe_store },
        { "drivers_probe", 0200, NULL, probe_store },
        { "uevent", 0200, NULL, sim_uevent_store },
        {},
};

const SimAttr sim_mdev_driver_attrs[] = {
        { "bind", 0200, NULL, bind_store },
        { "uevent", 0200, NULL, sim_uevent_store },
        { "unbind", 0200, NULL, unbind_store, NULL, 0, SIM_LOCK_MDEVS },
        {},
};

const SimAttr sim_parent_attrs[] = {
        { "features", 0444, features_show, NULL, has_features },
        { "uevent", 0644, uevent_show, sim_uevent_store },
        {},
};

const SimAttr sim_type_attrs[] = {
        { "available_instances", 0444, available_show },
        { "create", 0200, NULL, create_store, NULL, 0, SIM_LOCK_MDEVS },
        { "device_api", 0444, api_show },
        { "name", 0444, name_show },
        {},
};

const SimAttr sim_vfio_attrs[] = {
        { "remove", 0200, NULL, remove_store, there, 0, SIM_LOCK_MDEVS },
        { "uevent", 0644, uevent_show, sim_uevent_store, there },
        {},
};

const SimAttr sim_iommu_group_attrs[] = {
        { "name", 0444, group_name_show },
        { "reserved_regions", 0444, nothing_show },
        { "type", 0644, group_type_show, group_type_store },
        {},
};

const SimAttr sim_mtty_attrs[] = { { "sample_mtty_dev", 0444, sample_dev_show }, {} };
const SimAttr sim_mtty_vendor_attrs[] = { { "sample_mdev_dev", 0444, sample_mdev_show }, {} };
const SimAttr sim_driver_uevent_attrs[] = { { "uevent", 0200, NULL, sim_uevent_store }, {} };
const SimAttr sim_dev_uevent_attrs[] = { { "uevent", 0644, nothing_show, sim_uevent_store }, {} };
