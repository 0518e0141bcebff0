/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which directories there are, what is in them, and how paths are walked. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sim/sim_internal.h"

#define DEPTH_MAX 16
#define LINKS_MAX 16
#define PATH_SIZE 4096

typedef struct SimChild {
        const char *name;
        SimDirId dir;
        bool (*visible)(const Sim *s, const SimNode *parent);
        uint8_t index;
        bool hidden; /* reachable, but not listed */
} SimChild;

typedef int (*child_t)(void *userdata, const char *name, const SimNode *child);

typedef struct SimDirClass {
        const SimChild *children;
        const SimAttr *attrs;
        const SimLink *links;
        /* Entries that come and go. lookup: by name, false if none. list: all of them. */
        bool (*lookup)(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret);
        int (*list)(const Sim *s, const SimNode *dir, child_t fn, void *userdata);
} SimDirClass;

static bool has_ap(const Sim *s, const SimNode *dir) {
        return !s->profile.no_ap;
}

static bool has_vfio_ap(const Sim *s, const SimNode *dir) {
        return s->vfio_ap;
}

static bool is_mtty(const Sim *s, const SimNode *dir) {
        return dir->parent->kind == SIM_PARENT_MTTY;
}

static bool mdev_bound(const Sim *s, const SimNode *dir) {
        return dir->mdev->bound && !dir->mdev->removing;
}

static bool mtty_bound(const Sim *s, const SimNode *dir) {
        return is_mtty(s, dir) && mdev_bound(s, dir);
}

/* names */

static bool parse_hex(const char *s, size_t n, unsigned *ret) {
        unsigned v = 0;

        for (size_t i = 0; i < n; i++) {
                if (s[i] >= '0' && s[i] <= '9')
                        v = v * 16 + (unsigned) (s[i] - '0');
                else if (s[i] >= 'a' && s[i] <= 'f')
                        v = v * 16 + (unsigned) (s[i] - 'a' + 10);
                else
                        return false;
        }
        *ret = v;
        return true;
}

static bool find_card(const Sim *s, const char *name, size_t n, SimNode *ret) {
        unsigned a;

        if (n != 6 || memcmp(name, "card", 4) != 0 || !parse_hex(name + 4, 2, &a) || !s->cards[a].exists)
                return false;
        *ret = (SimNode) { .dir = DIR_CARD, .adapter = (uint8_t) a, .serial = s->cards[a].serial };
        return true;
}

static bool find_queue(const Sim *s, const char *name, size_t n, SimNode *ret) {
        unsigned a, d;

        if (n != 7 || name[2] != '.' || !parse_hex(name, 2, &a) || !parse_hex(name + 3, 4, &d) ||
            d >= SIM_IDS || !sim_queue(s, a, d)->exists)
                return false;
        *ret = (SimNode) {
                .dir = DIR_QUEUE,
                .adapter = (uint8_t) a,
                .domain = (uint8_t) d,
                .serial = sim_queue(s, a, d)->serial,
        };
        return true;
}

static SimNode mdev_node(const SimMdev *m) {
        return (SimNode) {
                .dir = DIR_MDEV,
                .parent = m->parent,
                .mdev = (SimMdev *) m,
                .index = (uint8_t) m->type,
                .serial = m->serial,
        };
}

static bool find_mdev(const Sim *s, const char *name, size_t n, SimNode *ret) {
        const SimMdev *m = sim_mdev_find(s, name, n);

        if (!m)
                return false;
        *ret = mdev_node(m);
        return true;
}

static bool is_name(const char *name, size_t n, const char *expected) {
        return strlen(expected) == n && memcmp(name, expected, n) == 0;
}

static SimNode as_link(SimNode node, const SimNode *dir, const SimLink *link) {
        node.dir = dir->dir;
        node.index = dir->index;
        node.link = link;
        return node;
}

/* links that list functions make */

static void queue_path(const SimNode *node, SimText *t) {
        text_printf(t, "devices/ap/card%02x/%02x.%04x", node->adapter, node->adapter, node->domain);
}

static void parent_path(const SimParent *p, SimText *t) {
        if (p->kind == SIM_PARENT_VFIO_AP)
                text_puts(t, "devices/vfio_ap/matrix");
        else
                text_printf(t, "devices/%s/%s", p->name, p->name);
}

static void card_target(const Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%sdevices/ap/card%02x", node->dir == DIR_AP_DEVICES ? "../../../" : "../../../../",
                    node->adapter);
}

static void queue_target(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, node->dir == DIR_AP_DEVICES ? "../../../" : "../../../../");
        queue_path(node, t);
}

static void mdev_target(const Sim *s, const SimNode *node, SimText *t) {
        if (node->dir == DIR_TYPE_DEVICES)
                text_puts(t, "../../..");
        else {
                text_puts(t, node->dir == DIR_MDEV_DEVICES ? "../../../" : "../../../../");
                parent_path(node->parent, t);
        }
        text_printf(t, "/%s", node->mdev->uuid);
}

static void parent_target(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../");
        parent_path(node->parent, t);
}

static void vfio_target(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../");
        parent_path(node->parent, t);
        text_printf(t, "/%s/vfio-dev/vfio%d", node->mdev->uuid, node->mdev->group);
}

static const SimLink card_link = { NULL, card_target, NULL }, queue_link = { NULL, queue_target, NULL },
                     mdev_link = { NULL, mdev_target, NULL }, parent_link = { NULL, parent_target, NULL },
                     vfio_link = { NULL, vfio_target, NULL };

/* bus/ap/devices, bus/ap/drivers/X */

static bool on_ap_bus(const Sim *s, const SimNode *dir, const SimNode *node) {
        if (dir->dir == DIR_AP_DEVICES)
                return true;
        if (node->dir == DIR_CARD)
                return dir->index == SIM_CEX4CARD && s->cards[node->adapter].bound;
        return sim_queue(s, node->adapter, node->domain)->driver == dir->index;
}

static bool ap_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        SimNode node;

        if ((!find_card(s, name, n, &node) && !find_queue(s, name, n, &node)) || !on_ap_bus(s, dir, &node))
                return false;
        *ret = as_link(node, dir, node.dir == DIR_CARD ? &card_link : &queue_link);
        return true;
}

static int list_cards(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        char name[16];
        SimNode node;
        int r;

        for (unsigned a = 0; a < SIM_IDS; a++) {
                (void) snprintf(name, sizeof name, "card%02x", a);
                if (!find_card(s, name, 6, &node) || (dir->dir != DIR_DEV_AP && !on_ap_bus(s, dir, &node)))
                        continue;
                if (dir->dir != DIR_DEV_AP)
                        node = as_link(node, dir, &card_link);
                r = fn(userdata, name, &node);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int ap_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        char name[16];
        int r;

        r = list_cards(s, dir, fn, userdata);
        if (r != 0)
                return r;
        for (const SimQueue *q = s->first; q; q = q->next) {
                SimNode node = {
                        .dir = DIR_QUEUE,
                        .adapter = (uint8_t) sim_queue_adapter(s, q),
                        .domain = (uint8_t) sim_queue_domain(s, q),
                        .serial = q->serial,
                };

                if (!on_ap_bus(s, dir, &node))
                        continue;
                (void) snprintf(name, sizeof name, "%02x.%04x", node.adapter, node.domain);
                node = as_link(node, dir, &queue_link);
                r = fn(userdata, name, &node);
                if (r != 0)
                        return r;
        }
        return 0;
}

/* devices/ap, devices/ap/cardXX */

static bool dev_ap_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        return find_card(s, name, n, ret);
}

static bool card_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        return find_queue(s, name, n, ret) && ret->adapter == dir->adapter;
}

static int card_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        char name[16];
        int r;

        for (unsigned d = 0; d < SIM_IDS; d++) {
                const SimQueue *q = sim_queue(s, dir->adapter, d);
                SimNode node = {
                        .dir = DIR_QUEUE, .adapter = dir->adapter, .domain = (uint8_t) d, .serial = q->serial
                };

                if (!q->exists)
                        continue;
                (void) snprintf(name, sizeof name, "%02x.%04x", dir->adapter, d);
                r = fn(userdata, name, &node);
                if (r != 0)
                        return r;
        }
        return 0;
}

/* directories full of mdevs */

static bool shows_mdev(const SimNode *dir, const SimMdev *m) {
        switch (dir->dir) {
        case DIR_PARENT:
                return m->parent == dir->parent; /* also while its removal waits */
        case DIR_TYPE_DEVICES:
                return !m->removing && m->parent == dir->parent && m->type == dir->index;
        case DIR_MDEV_DRIVER:
                return !m->removing && m->parent == dir->parent && m->bound;
        case DIR_CLASS_VFIO_DEV:
                return !m->removing && m->bound;
        default:
                return !m->removing;
        }
}

static SimNode mdev_entry(const SimNode *dir, const SimMdev *m) {
        SimNode node = mdev_node(m);

        if (dir->dir == DIR_PARENT)
                return node;
        node.dir = dir->dir;
        node.link = dir->dir == DIR_CLASS_VFIO_DEV ? &vfio_link : &mdev_link;
        return node;
}

static bool mdev_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        SimNode node;

        if (!find_mdev(s, name, n, &node) || !shows_mdev(dir, node.mdev))
                return false;
        *ret = mdev_entry(dir, node.mdev);
        return true;
}

static int mdev_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        int r;

        for (size_t i = 0; i < s->n_parents; i++)
                for (const SimMdev *m = s->parents[i].first; m; m = m->next) {
                        char name[SIM_UUID_SIZE];
                        SimNode node;

                        if (!shows_mdev(dir, m))
                                continue;
                        (void) snprintf(name, sizeof name, "%s", m->uuid);
                        if (dir->dir == DIR_CLASS_VFIO_DEV)
                                (void) snprintf(name, sizeof name, "vfio%d", m->group);
                        node = mdev_entry(dir, m);
                        r = fn(userdata, name, &node);
                        if (r != 0)
                                return r;
                }
        return 0;
}

/* by group number: kernel/iommu_groups/N, class/vfio-dev/vfioN, U/vfio-dev/vfioN */

static SimMdev *grouped(const Sim *s, const char *name, size_t n) {
        size_t v = 0;

        if (n == 0 || n > 7 || (n > 1 && name[0] == '0'))
                return NULL;
        for (size_t i = 0; i < n; i++) {
                if (name[i] < '0' || name[i] > '9')
                        return NULL;
                v = v * 10 + (size_t) (name[i] - '0');
        }
        return v < s->n_groups ? s->groups[v] : NULL;
}

static bool class_vfio_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        const SimMdev *m = n > 4 && memcmp(name, "vfio", 4) == 0 ? grouped(s, name + 4, n - 4) : NULL;

        if (!m || !shows_mdev(dir, m))
                return false;
        *ret = mdev_entry(dir, m);
        return true;
}

static bool vfio_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        if (n <= 4 || memcmp(name, "vfio", 4) != 0 || grouped(s, name + 4, n - 4) != dir->mdev)
                return false;
        *ret = *dir;
        ret->dir = DIR_VFIO;
        return true;
}

static int vfio_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        SimNode node = *dir;
        char name[32];

        node.dir = DIR_VFIO;
        (void) snprintf(name, sizeof name, "vfio%d", dir->mdev->group);
        return fn(userdata, name, &node);
}

static bool group_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        const SimMdev *m = grouped(s, name, n);

        if (!m)
                return false;
        *ret = mdev_node(m);
        ret->dir = DIR_IOMMU_GROUP;
        return true;
}

static int group_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        char name[32];
        int r;

        for (size_t i = 0; i < s->n_groups; i++) {
                SimNode node;

                if (!s->groups[i])
                        continue;
                node = mdev_node(s->groups[i]);
                node.dir = DIR_IOMMU_GROUP;
                (void) snprintf(name, sizeof name, "%zu", i);
                r = fn(userdata, name, &node);
                if (r != 0)
                        return r;
        }
        return 0;
}

static void group_mdev_target(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../../../");
        parent_path(node->parent, t);
        text_printf(t, "/%s", node->mdev->uuid);
}

static const SimLink group_mdev_link = { NULL, group_mdev_target, NULL };

static bool group_devices_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n,
                                 SimNode *ret) {
        if (!is_name(name, n, dir->mdev->uuid))
                return false;
        *ret = as_link(*dir, dir, &group_mdev_link);
        return true;
}

static int group_devices_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        SimNode node = as_link(*dir, dir, &group_mdev_link);

        return fn(userdata, dir->mdev->uuid, &node);
}

/* by parent */

static bool parent_entry(const Sim *s, const SimNode *dir, SimParent *p, const char **ret_name,
                         SimNode *ret) {
        bool mtty = p->kind == SIM_PARENT_MTTY;

        *ret = (SimNode) { .parent = p };
        *ret_name = p->name;
        switch (dir->dir) {
        case DIR_CLASS_MDEV_BUS:
        case DIR_CLASS_PARENT:
                if (dir->dir == DIR_CLASS_PARENT && p != dir->parent)
                        return false;
                ret->dir = dir->dir;
                ret->link = &parent_link;
                return true;
        case DIR_MDEV_DRIVERS:
                *ret_name = sim_mdev_driver_name(p);
                ret->dir = DIR_MDEV_DRIVER;
                return true;
        case DIR_CLASS:
                ret->dir = DIR_CLASS_PARENT;
                return mtty;
        case DIR_DEVICES:
                ret->dir = DIR_DEV_OTHER;
                return mtty;
        case DIR_DEV_VFIO_AP:
                ret->dir = DIR_PARENT;
                return !mtty;
        case DIR_DEV_OTHER:
                ret->dir = DIR_PARENT;
                return p == dir->parent;
        case DIR_MODULE:
                ret->dir = DIR_MODULE_OTHER;
                return mtty;
        default:
                return false;
        }
}

static bool parent_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        for (size_t i = 0; i < s->n_parents; i++) {
                const char *own;

                if (s->parents[i].present && parent_entry(s, dir, (SimParent *) &s->parents[i], &own, ret) &&
                    is_name(name, n, own))
                        return true;
        }
        return false;
}

static int parent_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        int r;

        for (size_t i = 0; i < s->n_parents; i++) {
                const char *name;
                SimNode node;

                if (!s->parents[i].present ||
                    !parent_entry(s, dir, (SimParent *) &s->parents[i], &name, &node))
                        continue;
                r = fn(userdata, name, &node);
                if (r != 0)
                        return r;
        }
        return 0;
}

static bool types_lookup(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        char buf[64];

        for (unsigned i = 0; i < sim_types(dir->parent); i++)
                if (is_name(name, n, sim_type_name(dir->parent, i, buf))) {
                        *ret = (SimNode) { .dir = DIR_TYPE, .parent = dir->parent, .index = (uint8_t) i };
                        return true;
                }
        return false;
}

static int types_list(const Sim *s, const SimNode *dir, child_t fn, void *userdata) {
        char buf[64];
        int r;

        for (unsigned i = 0; i < sim_types(dir->parent); i++) {
                SimNode node = { .dir = DIR_TYPE, .parent = dir->parent, .index = (uint8_t) i };

                r = fn(userdata, sim_type_name(dir->parent, i, buf), &node);
                if (r != 0)
                        return r;
        }
        return 0;
}

/* fixed links */

static void up_module_target(const Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%smodule/%s", node->dir == DIR_DEV_VFIO_AP ? "../../" : "../../../../",
                    node->parent && node->parent->kind == SIM_PARENT_MTTY ? node->parent->name : "vfio_ap");
}

static bool driver_has_module(const Sim *s, const SimNode *node) {
        return node->dir != DIR_AP_DRIVER || node->index == SIM_VFIO_AP;
}

static void matrix_target(const Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%sdevices/vfio_ap/matrix",
                    node->dir == DIR_MATRIX_DEVICES ? "../../../" : "../../../../");
}

static void parent_driver_target(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../../bus/matrix/drivers/vfio_ap");
}

static bool is_vfio_ap(const Sim *s, const SimNode *node) {
        return node->parent->kind == SIM_PARENT_VFIO_AP;
}

static void parent_subsystem_target(const Sim *s, const SimNode *node, SimText *t) {
        if (is_vfio_ap(s, node))
                text_puts(t, "../../../bus/matrix");
        else
                text_printf(t, "../../../class/%s", node->parent->name);
}

static void mdev_driver_target(const Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "../../../../bus/mdev/drivers/%s", sim_mdev_driver_name(node->parent));
}

static void mdev_group_target(const Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "../../../../kernel/iommu_groups/%d", node->mdev->group);
}

static bool mdev_has_group(const Sim *s, const SimNode *node) {
        return node->mdev->group >= 0;
}

static void mdev_type_target(const Sim *s, const SimNode *node, SimText *t) {
        char buf[64];

        text_printf(t, "../mdev_supported_types/%s", sim_type_name(node->parent, node->mdev->type, buf));
}

static void mdev_subsystem_target(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../../../bus/mdev");
}

static bool mdev_there(const Sim *s, const SimNode *node) {
        return !node->mdev->removing;
}

static void vfio_device_target(const Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "../../../%s", node->mdev->uuid);
}

static void vfio_subsystem_target(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../../../../../class/vfio-dev");
}

static const SimLink driver_links[] = { { "module", up_module_target, driver_has_module }, {} };
static const SimLink dev_vfio_ap_links[] = { { "module", up_module_target, NULL }, {} };
static const SimLink matrix_links[] = { { "matrix", matrix_target, NULL }, {} };
static const SimLink parent_links[] = {
        { "driver", parent_driver_target, is_vfio_ap },
        { "subsystem", parent_subsystem_target, NULL },
        {},
};
static const SimLink mdev_links[] = {
        { "driver", mdev_driver_target, mdev_bound },
        { "iommu_group", mdev_group_target, mdev_has_group },
        { "mdev_type", mdev_type_target, mdev_there },
        { "subsystem", mdev_subsystem_target, mdev_there },
        {},
};
static const SimLink vfio_links[] = { { "device", vfio_device_target, NULL },
                                      { "subsystem", vfio_subsystem_target, NULL },
                                      {} };

#define CHILDREN(...) \
        (const SimChild[]) { \
                __VA_ARGS__, { \
                } \
        }

static const SimDirClass classes[_DIR_MAX] = {
        [DIR_ROOT] = { CHILDREN({ "bus", DIR_BUS }, { "class", DIR_CLASS }, { "devices", DIR_DEVICES },
                                { "kernel", DIR_KERNEL }, { "module", DIR_MODULE },
                                { ".sim", DIR_SIM, .hidden = true }) },
        [DIR_BUS] = { CHILDREN({ "ap", DIR_BUS_AP, has_ap }, { "matrix", DIR_BUS_MATRIX, has_vfio_ap },
                               { "mdev", DIR_BUS_MDEV }) },
        [DIR_BUS_AP] = { CHILDREN({ "devices", DIR_AP_DEVICES }, { "drivers", DIR_AP_DRIVERS }),
                         sim_bus_ap_attrs },
        [DIR_AP_DEVICES] = { .lookup = ap_lookup, .list = ap_list },
        [DIR_AP_DRIVERS] = { CHILDREN({ "cex4card", DIR_AP_DRIVER, NULL, SIM_CEX4CARD },
                                      { "cex4queue", DIR_AP_DRIVER, NULL, SIM_CEX4QUEUE },
                                      { "vfio_ap", DIR_AP_DRIVER, has_vfio_ap, SIM_VFIO_AP }) },
        [DIR_AP_DRIVER] = { NULL, sim_ap_driver_attrs, driver_links, ap_lookup, ap_list },
        [DIR_BUS_MATRIX] = { CHILDREN({ "devices", DIR_MATRIX_DEVICES }, { "drivers", DIR_MATRIX_DRIVERS }),
                             sim_bus_attrs },
        [DIR_MATRIX_DEVICES] = { .links = matrix_links },
        [DIR_MATRIX_DRIVERS] = { CHILDREN({ "vfio_ap", DIR_MATRIX_DRIVER }) },
        [DIR_MATRIX_DRIVER] = { NULL, sim_driver_uevent_attrs, matrix_links },
        [DIR_BUS_MDEV] = { CHILDREN({ "devices", DIR_MDEV_DEVICES }, { "drivers", DIR_MDEV_DRIVERS }),
                           sim_bus_attrs },
        [DIR_MDEV_DEVICES] = { .lookup = mdev_lookup, .list = mdev_list },
        [DIR_MDEV_DRIVERS] = { .lookup = parent_lookup, .list = parent_list },
        [DIR_MDEV_DRIVER] = { NULL, sim_mdev_driver_attrs, driver_links, mdev_lookup, mdev_list },
        [DIR_CLASS] = { CHILDREN({ "mdev_bus", DIR_CLASS_MDEV_BUS }, { "vfio-dev", DIR_CLASS_VFIO_DEV }),
                        .lookup = parent_lookup, .list = parent_list },
        [DIR_CLASS_MDEV_BUS] = { .lookup = parent_lookup, .list = parent_list },
        [DIR_CLASS_VFIO_DEV] = { .lookup = class_vfio_lookup, .list = mdev_list },
        [DIR_CLASS_PARENT] = { .lookup = parent_lookup, .list = parent_list },
        [DIR_DEVICES] = { CHILDREN({ "ap", DIR_DEV_AP, has_ap },
                                   { "vfio_ap", DIR_DEV_VFIO_AP, has_vfio_ap }),
                          .lookup = parent_lookup, .list = parent_list },
        [DIR_DEV_AP] = { NULL, sim_dev_ap_attrs, NULL, dev_ap_lookup, list_cards },
        [DIR_CARD] = { NULL, sim_card_attrs, sim_card_links, card_lookup, card_list },
        [DIR_QUEUE] = { NULL, sim_queue_attrs, sim_queue_links },
        [DIR_DEV_VFIO_AP] = { NULL, sim_dev_uevent_attrs, dev_vfio_ap_links, parent_lookup, parent_list },
        [DIR_DEV_OTHER] = { NULL, sim_dev_uevent_attrs, NULL, parent_lookup, parent_list },
        [DIR_PARENT] = { CHILDREN({ "mdev_supported_types", DIR_TYPES }, { "mtty_dev", DIR_MTTY, is_mtty }),
                         sim_parent_attrs, parent_links, mdev_lookup, mdev_list },
        [DIR_MTTY] = { NULL, sim_mtty_attrs },
        [DIR_TYPES] = { .lookup = types_lookup, .list = types_list },
        [DIR_TYPE] = { CHILDREN({ "devices", DIR_TYPE_DEVICES }), sim_type_attrs },
        [DIR_TYPE_DEVICES] = { .lookup = mdev_lookup, .list = mdev_list },
        [DIR_MDEV] = { CHILDREN({ "vendor", DIR_MTTY_VENDOR, mtty_bound },
                                { "vfio-dev", DIR_VFIO_DIR, mdev_bound }),
                       sim_vfio_attrs, mdev_links },
        [DIR_MTTY_VENDOR] = { NULL, sim_mtty_vendor_attrs },
        [DIR_VFIO_DIR] = { .lookup = vfio_lookup, .list = vfio_list },
        [DIR_VFIO] = { NULL, sim_dev_uevent_attrs, vfio_links },
        [DIR_KERNEL] = { CHILDREN({ "iommu_groups", DIR_IOMMU_GROUPS }) },
        [DIR_IOMMU_GROUPS] = { .lookup = group_lookup, .list = group_list },
        [DIR_IOMMU_GROUP] = { CHILDREN({ "devices", DIR_IOMMU_GROUP_DEVICES }), sim_iommu_group_attrs },
        [DIR_IOMMU_GROUP_DEVICES] = { .lookup = group_devices_lookup, .list = group_devices_list },
        [DIR_MODULE] = { CHILDREN({ "ap", DIR_MODULE_AP }, { "vfio_ap", DIR_MODULE_OTHER, has_vfio_ap }),
                         .lookup = parent_lookup, .list = parent_list },
        [DIR_MODULE_AP] = { CHILDREN({ "parameters", DIR_AP_PARAMETERS }) },
        [DIR_AP_PARAMETERS] = { NULL, sim_ap_parameter_attrs },
        [DIR_MODULE_OTHER] = {},
        [DIR_SIM] = { NULL, sim_ctl_attrs },
};

/* The attributes of a directory: an mdev's are in two tables. */
static const SimAttr *attrs_of(const SimNode *dir, unsigned table) {
        if (table == 0)
                return classes[dir->dir].attrs;
        return table == 1 && dir->dir == DIR_MDEV ? sim_matrix_mdev_attrs : NULL;
}

static bool find_child(const Sim *s, const SimNode *dir, const char *name, size_t n, SimNode *ret) {
        const SimDirClass *c = &classes[dir->dir];

        for (const SimChild *k = c->children; k && k->name; k++)
                if (is_name(name, n, k->name) && (!k->visible || k->visible(s, dir))) {
                        *ret = *dir;
                        ret->dir = (uint8_t) k->dir;
                        if (k->index)
                                ret->index = k->index;
                        ret->fixed = !k->visible;
                        return true;
                }
        for (unsigned table = 0; table < 2; table++)
                for (const SimAttr *a = attrs_of(dir, table); a && a->name; a++)
                        if (is_name(name, n, a->name) && (!a->visible || a->visible(s, dir))) {
                                *ret = *dir;
                                ret->attr = a;
                                ret->fixed = !a->visible;
                                return true;
                        }
        for (const SimLink *l = c->links; l && l->name; l++)
                if (is_name(name, n, l->name) && (!l->visible || l->visible(s, dir))) {
                        *ret = *dir;
                        ret->link = l;
                        ret->fixed = false;
                        return true;
                }
        if (!c->lookup || !c->lookup(s, dir, name, n, ret))
                return false;
        ret->fixed = c->lookup == types_lookup;
        return true;
}

int sim_walk(const Sim *s, const char *path, bool follow, SimNode *ret) {
        SimNode stack[DEPTH_MAX] = { { .dir = DIR_ROOT } };
        char work[2][PATH_SIZE];
        unsigned depth = 0, links = 0;
        const char *p = path;

        for (;;) {
                SimNode node;
                size_t n;

                p += strspn(p, "/");
                n = strcspn(p, "/");
                if (n == 0)
                        break;
                if (n == 1 && p[0] == '.') {
                        p += n;
                        continue;
                }
                if (n == 2 && p[0] == '.' && p[1] == '.') {
                        depth -= depth > 0;
                        p += n;
                        continue;
                }
                if (!find_child(s, &stack[depth], p, n, &node))
                        return -ENOENT;
                p += n;
                if (node.link && (*p || follow)) {
                        char *next = work[links % 2];
                        SimText t = { next, 0, PATH_SIZE };

                        if (++links > LINKS_MAX)
                                return -ELOOP;
                        node.link->target(s, &node, &t);
                        text_puts(&t, p);
                        if (t.n + 1 >= t.size)
                                return -ENAMETOOLONG;
                        next[t.n] = 0;
                        p = next;
                        continue;
                }
                if (node.link || node.attr) {
                        if (*p)
                                return -ENOTDIR;
                        *ret = node;
                        return 0;
                }
                if (++depth == DEPTH_MAX)
                        return -ENAMETOOLONG;
                stack[depth] = node;
        }
        *ret = stack[depth];
        return 0;
}

/* Whether what an open file points to is still the same object, and still has this file. */
bool sim_node_alive(const Sim *s, const SimNode *node) {
        if (node->mdev && node->mdev->dead)
                return false;
        if (node->dir == DIR_CARD &&
            (!s->cards[node->adapter].exists || s->cards[node->adapter].serial != node->serial))
                return false;
        if (node->dir == DIR_QUEUE) {
                const SimQueue *q = sim_queue(s, node->adapter, node->domain);

                if (!q->exists || q->serial != node->serial)
                        return false;
        }
        if (node->parent && !node->parent->present)
                return false;
        return !node->attr->visible || node->attr->visible(s, node);
}

typedef struct Lister {
        sim_entry_t fn;
        void *userdata;
} Lister;

static int list_entry(void *userdata, const char *name, const SimNode *node) {
        const Lister *l = userdata;

        return l->fn(l->userdata, name, node->link ? S_IFLNK : S_IFDIR);
}

int sim_readdir(Sim *s, const char *path, sim_entry_t fn, void *userdata) {
        Lister l = { fn, userdata };
        const SimDirClass *c;
        SimNode dir;
        int r;

        r = sim_walk(s, path, true, &dir);
        if (r < 0)
                return r;
        if (dir.attr)
                return -ENOTDIR;
        c = &classes[dir.dir];
        for (const SimChild *k = c->children; k && k->name; k++)
                if (!k->hidden && (!k->visible || k->visible(s, &dir))) {
                        r = fn(userdata, k->name, S_IFDIR);
                        if (r != 0)
                                return r;
                }
        for (unsigned table = 0; table < 2; table++)
                for (const SimAttr *a = attrs_of(&dir, table); a && a->name; a++)
                        if (!a->visible || a->visible(s, &dir)) {
                                r = fn(userdata, a->name, S_IFREG);
                                if (r != 0)
                                        return r;
                        }
        for (const SimLink *k = c->links; k && k->name; k++)
                if (!k->visible || k->visible(s, &dir)) {
                        r = fn(userdata, k->name, S_IFLNK);
                        if (r != 0)
                                return r;
                }
        return c->list ? c->list(s, &dir, list_entry, &l) : 0;
}

/* The path without links, for fault rules and messages. */
void sim_node_path(const Sim *s, const SimNode *node, SimText *t) {
        static const char *const fixed[_DIR_MAX] = {
                [DIR_BUS_AP] = "bus/ap",
                [DIR_BUS_MATRIX] = "bus/matrix",
                [DIR_BUS_MDEV] = "bus/mdev",
                [DIR_MATRIX_DRIVER] = "bus/matrix/drivers/vfio_ap",
                [DIR_DEV_AP] = "devices/ap",
                [DIR_DEV_VFIO_AP] = "devices/vfio_ap",
                [DIR_AP_PARAMETERS] = "module/ap/parameters",
                [DIR_SIM] = ".sim",
        };
        static const char *const drivers[] = { "", "cex4card", "cex4queue", "vfio_ap" };
        char buf[64];

        switch (node->dir) {
        case DIR_AP_DRIVER:
                text_printf(t, "bus/ap/drivers/%s", drivers[node->index]);
                break;
        case DIR_MDEV_DRIVER:
                text_printf(t, "bus/mdev/drivers/%s", sim_mdev_driver_name(node->parent));
                break;
        case DIR_CARD:
                text_printf(t, "devices/ap/card%02x", node->adapter);
                break;
        case DIR_QUEUE:
                queue_path(node, t);
                break;
        case DIR_DEV_OTHER:
                text_printf(t, "devices/%s", node->parent->name);
                break;
        case DIR_PARENT:
        case DIR_MTTY:
        case DIR_TYPE:
        case DIR_MDEV:
        case DIR_MTTY_VENDOR:
        case DIR_VFIO:
                parent_path(node->parent, t);
                if (node->dir == DIR_MTTY)
                        text_puts(t, "/mtty_dev");
                if (node->dir == DIR_TYPE)
                        text_printf(t, "/mdev_supported_types/%s",
                                    sim_type_name(node->parent, node->index, buf));
                if (node->mdev)
                        text_printf(t, "/%s", node->mdev->uuid);
                if (node->dir == DIR_MTTY_VENDOR)
                        text_puts(t, "/vendor");
                if (node->dir == DIR_VFIO)
                        text_printf(t, "/vfio-dev/vfio%d", node->mdev->group);
                break;
        case DIR_IOMMU_GROUP:
                text_printf(t, "kernel/iommu_groups/%d", node->mdev->group);
                break;
        default:
                text_puts(t, fixed[node->dir] ? fixed[node->dir] : "");
        }
        if (node->attr)
                text_printf(t, "/%s", node->attr->name);
}
