/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"

/* ---- properties ---- */

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const BusObject *o = userdata;
        const Snapshot *s = engine_snapshot(o->bus->engine);
        char text[UUID_STRING_SIZE];

        if (strcmp(property, "Parent") == 0)
                return bus_append_text(reply, snapshot_parent_of(s, o->mdev)->name);
        if (strcmp(property, "Type") == 0)
                return bus_append_text(reply, snapshot_type_of(s, o->mdev)->id);
        if (strcmp(property, "State") == 0)
                return sd_bus_message_append_basic(reply, 's',
                                                   engine_mdev_state(o->bus->engine, o->mdev->uuid));

        if (strcmp(property, "Guest") == 0)
                return bus_append_text(reply, engine_mdev_guest(o->bus->engine, o->mdev->uuid));

        return sd_bus_message_append_basic(reply, 's', uuid_format(o->mdev->uuid, text));
}

static int get_flag(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const BusObject *o = userdata;
        bool flag = strcmp(property, "InUse") == 0 ? engine_mdev_in_use(o->bus->engine, o->mdev)
                                                   : engine_is_ours(o->bus->engine, o->mdev->uuid);

        return sd_bus_message_append(reply, "b", (int) flag);
}

static int get_attributes(sd_bus *bus, const char *path, const char *interface, const char *property,
                          sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const BusObject *o = userdata;
        char text[AP_MATRIX_STRING_SIZE];

        if (!o->mdev->ap || !o->mdev->matrix_known)
                return sd_bus_message_append(reply, "a(ss)", 0);

        return sd_bus_message_append(reply, "a(ss)", 1, "ap_config",
                                     ap_matrix_format(&o->mdev->matrix, text));
}

/* ---- methods ---- */

static int method_remove(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        Call *c;
        int r;

        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;
        r = bus_call_begin(b, m, AUTHZ_MANAGE_MDEV, method_remove, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_remove_mdev(b->engine, c->object, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

const sd_bus_vtable bus_mdev_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Remove", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_remove,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("UUID", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Parent", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Type", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Ours", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("InUse", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Guest", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Attributes", "a(ss)", get_attributes, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int get(Bus *b, Uuid uuid) {
        b->object.mdev = snapshot_find_mdev(engine_snapshot(b->engine), uuid);
        return b->object.mdev ? 0 : -ENOENT;
}

static int list(Bus *b, Uuid **ret, size_t *ret_n) {
        const Snapshot *s = engine_snapshot(b->engine);

        *ret = calloc(s->n_mdevs + 1, sizeof **ret);
        if (!*ret)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_mdevs; i++)
                (*ret)[i] = s->mdevs[i].uuid;
        *ret_n = s->n_mdevs;
        return 0;
}

int bus_mdev_add(Bus *b) {
        return bus_add_uuids(b, "mdev", BUS_INTERFACE("Mdev"), bus_mdev_vtable, get, list);
}
