/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Uevents in the kernel's order of variables: SUBSYSTEM, what the caller adds, then what the device says of
 * itself.
 * Environments are built with newlines, which no value holds but the mask's last character: that one is put
 * in by sim_emit() itself. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sim/sim_internal.h"

#define ENV_SIZE 1024

/* @env: KEY=value lines, each ended by a newline. */
void sim_emit(Sim *s, const char *action, const char *devpath, const char *subsystem, const char *extra,
              const char *env) {
        char buf[ENV_SIZE];
        SimText t = { buf, 0, sizeof buf };

        if (!s->uevent)
                return;
        text_printf(&t, "SUBSYSTEM=%s", subsystem);
        text_put(&t, "", 1);
        if (extra) {
                text_puts(&t, extra);
                text_put(&t, "", 1);
        }
        for (const char *p = env; p && *p;) {
                size_t n = strcspn(p, "\n");

                text_put(&t, p, n);
                text_put(&t, "", 1);
                p += n + (p[n] == '\n');
        }
        s->uevent(s->uevent_data, action, devpath, buf, t.n);
}

void sim_card_env(const Sim *s, unsigned adapter, bool modalias, SimText *t) {
        const SimCard *c = &s->cards[adapter];
        unsigned type = c->raw_type > SIM_TYPE_NEWEST ? SIM_TYPE_NEWEST : c->raw_type;

        text_puts(t, "DEVTYPE=ap_card\n");
        if (c->bound)
                text_puts(t, "DRIVER=cex4card\n");
        text_printf(t, "DEV_TYPE=%04X\n", type);
        if (modalias)
                text_printf(t, "MODALIAS=ap:t%02X\n", type);
        text_printf(t, "MODE=%s\n", sim_mode_name(c->mode));
}

void sim_queue_env(const Sim *s, const SimQueue *q, SimText *t) {
        text_puts(t, "DEVTYPE=ap_queue\n");
        if (q->driver)
                text_printf(t, "DRIVER=%s\n", q->driver == SIM_VFIO_AP ? "vfio_ap" : "cex4queue");
        text_printf(t, "MODE=%s\n", sim_mode_name(s->cards[sim_queue_adapter(s, q)].mode));
}

void sim_emit_card(Sim *s, const char *action, unsigned adapter, const char *extra) {
        char path[64], env[ENV_SIZE];
        SimText t = { env, 0, sizeof env };

        if (!s->uevent)
                return;
        (void) snprintf(path, sizeof path, "/devices/ap/card%02x", adapter);
        sim_card_env(s, adapter, strcmp(action, "unbind") != 0, &t);
        env[t.n] = 0;
        sim_emit(s, action, path, "ap", extra, env);
}

void sim_emit_queue(Sim *s, const char *action, const SimQueue *q, const char *extra) {
        unsigned a = sim_queue_adapter(s, q), d = sim_queue_domain(s, q);
        char path[64], env[ENV_SIZE];
        SimText t = { env, 0, sizeof env };

        if (!s->uevent)
                return;
        (void) snprintf(path, sizeof path, "/devices/ap/card%02x/%02x.%04x", a, a, d);
        sim_queue_env(s, q, &t);
        env[t.n] = 0;
        sim_emit(s, action, path, "ap", extra, env);
}

static void parent_path(const SimParent *p, char *buf, size_t size) {
        if (p->kind == SIM_PARENT_VFIO_AP)
                (void) snprintf(buf, size, "/devices/vfio_ap/matrix");
        else
                (void) snprintf(buf, size, "/devices/%s/%s", p->name, p->name);
}

void sim_emit_parent(Sim *s, const char *action, const SimParent *p, const char *extra) {
        char path[128];
        bool bound = p->kind == SIM_PARENT_VFIO_AP && s->vfio_ap;

        parent_path(p, path, sizeof path);
        sim_emit(s, action, path, p->name, extra, bound ? "DRIVER=vfio_ap\n" : NULL);
}

void sim_emit_mdev(Sim *s, const char *action, const SimMdev *m, const char *extra) {
        char path[192], env[64] = "";

        if (!s->uevent)
                return;
        parent_path(m->parent, path, sizeof path);
        (void) snprintf(path + strlen(path), sizeof path - strlen(path), "/%s", m->uuid);
        if (m->bound)
                (void) snprintf(env, sizeof env, "DRIVER=%s\n", sim_mdev_driver_name(m->parent));
        sim_emit(s, action, path, "mdev", extra, env);
}

void sim_emit_vfio(Sim *s, const char *action, const SimMdev *m, bool group) {
        char path[224], env[96];

        if (!s->uevent)
                return;
        if (group) {
                (void) snprintf(path, sizeof path, "/devices/virtual/vfio/%d", m->group);
                (void) snprintf(env, sizeof env, "MAJOR=253\nMINOR=%d\nDEVNAME=vfio/%d\n", m->group,
                                m->group);
                sim_emit(s, action, path, "vfio", NULL, env);
                return;
        }
        parent_path(m->parent, path, sizeof path);
        (void) snprintf(path + strlen(path), sizeof path - strlen(path), "/%s/vfio-dev/vfio%d", m->uuid,
                        m->group);
        sim_emit(s, action, path, "vfio-dev", NULL, NULL);
}

/* "ACTION" or "ACTION UUID" as udevadm trigger writes it. */
ssize_t sim_uevent_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        static const char *const actions[] = { "add",    "remove",  "change", "move",
                                               "online", "offline", "bind",   "unbind" };
        size_t n = strcspn(data, " \n");
        char path[256], extra[64];
        SimText t = { path, 0, sizeof path };
        SimNode dir = *node;
        const char *action = NULL, *uuid = data + n;

        for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
                if (strlen(actions[i]) == n && memcmp(actions[i], data, n) == 0)
                        action = actions[i];
        if (!action)
                return -EINVAL;
        uuid += *uuid == ' ';
        n = strcspn(uuid, " \n");
        if (n != 0 && n != SIM_UUID_SIZE - 1)
                return -EINVAL;
        (void) snprintf(extra, sizeof extra, "SYNTH_UUID=%.*s", n ? (int) n : 1, n ? uuid : "0");

        dir.attr = NULL;
        path[t.n++] = '/';
        sim_node_path(s, &dir, &t);
        path[t.n] = 0;
        switch (node->dir) {
        case DIR_CARD:
                sim_emit_card(s, action, node->adapter, extra);
                break;
        case DIR_QUEUE:
                sim_emit_queue(s, action, sim_queue(s, node->adapter, node->domain), extra);
                break;
        case DIR_PARENT:
                sim_emit_parent(s, action, node->parent, extra);
                break;
        case DIR_MDEV:
                sim_emit_mdev(s, action, node->mdev, extra);
                break;
        case DIR_VFIO:
                sim_emit(s, action, path, "vfio-dev", extra, NULL);
                break;
        case DIR_BUS_AP:
        case DIR_BUS_MATRIX:
        case DIR_BUS_MDEV:
                sim_emit(s, action, path, "bus", extra, NULL);
                break;
        case DIR_AP_DRIVER:
        case DIR_MATRIX_DRIVER:
        case DIR_MDEV_DRIVER:
                sim_emit(s, action, path, "drivers", extra, NULL);
                break;
        default:
                break; /* root devices: no subsystem, so the kernel's filter drops them */
        }
        return (ssize_t) size;
}
