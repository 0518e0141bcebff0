/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Objects for what the machine has: parents of mediated devices, and crypto adapters. They have no
 * methods. */

#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"

/* ---- parents ---- */

static int get_parent_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const HostParent *p = ((const BusObject *) userdata)->parent;

        return bus_append_text(reply, strcmp(property, "Name") == 0 ? p->name : p->path);
}

static int append_type(sd_bus_message *m, const HostType *t) {
        int r;

        r = sd_bus_message_open_container(m, 'r', "sssu");
        if (r >= 0)
                r = bus_append_text(m, t->id);
        if (r >= 0)
                r = bus_append_text(m, t->name);
        if (r >= 0)
                r = bus_append_text(m, t->device_api);
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 'u', &t->available);
        if (r < 0)
                return r;

        return sd_bus_message_close_container(m);
}

static int get_types(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const BusObject *o = userdata;
        const Snapshot *s = engine_snapshot(o->bus->engine);
        int r;

        r = sd_bus_message_open_container(reply, 'a', "(sssu)");
        if (r < 0)
                return r;

        for (const HostType *t = s->types; t < s->types + s->n_types; t++) {
                if (&s->parents[t->parent] != o->parent)
                        continue;

                r = append_type(reply, t);
                if (r < 0)
                        return r;
        }

        return sd_bus_message_close_container(reply);
}

const sd_bus_vtable bus_parent_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Name", "s", get_parent_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Path", "s", get_parent_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Types", "a(sssu)", get_types, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int find_parent(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret,
                       sd_bus_error *error) {
        CLEANUP(freep) char *name = NULL;
        Bus *b = ((const BusKind *) userdata)->bus;
        int r;

        r = sd_bus_path_decode(path, BUS_ROOT "/parent", &name);
        if (r <= 0)
                return r;

        b->object.parent = snapshot_find_parent(engine_snapshot(b->engine), name);
        if (!b->object.parent)
                return 0;

        *ret = &b->object;
        return 1;
}

static int enumerate_parents(sd_bus *bus, const char *prefix, void *userdata, char ***ret,
                             sd_bus_error *error) {
        Bus *b = ((const BusKind *) userdata)->bus;
        const Snapshot *s = engine_snapshot(b->engine);
        int r;

        r = bus_paths_new(s->n_parents, ret);
        for (size_t i = 0; r >= 0 && i < s->n_parents; i++)
                r = sd_bus_path_encode(BUS_ROOT "/parent", s->parents[i].name, &(*ret)[i]);

        return r < 0 ? r : 1;
}

/* ---- adapters ---- */

static int get_adapter_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                            sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const HostCard *card = ((const BusObject *) userdata)->card;

        return bus_append_text(reply, strcmp(property, "Type") == 0 ? card->type : bus_card_mode(card));
}

static int get_adapter_flag(sd_bus *bus, const char *path, const char *interface, const char *property,
                            sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const HostCard *card = ((const BusObject *) userdata)->card;
        bool flag = card->chkstop;

        if (strcmp(property, "Online") == 0)
                flag = card->online;
        else if (strcmp(property, "Configured") == 0)
                flag = card->config;

        return sd_bus_message_append(reply, "b", (int) flag);
}

static int get_adapter_number(sd_bus *bus, const char *path, const char *interface, const char *property,
                              sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const HostCard *card = ((const BusObject *) userdata)->card;
        uint16_t id = card->id;
        int32_t hwtype = card->hwtype;

        if (strcmp(property, "Id") == 0)
                return sd_bus_message_append_basic(reply, 'q', &id);

        return sd_bus_message_append_basic(reply, 'i', &hwtype);
}

/* Domains of @adapter that are in a live AP mdev. */
static ApMask assigned_domains(const Snapshot *s, uint8_t adapter) {
        ApMask domains = {};

        for (const HostMdev *m = s->mdevs; m < s->mdevs + s->n_mdevs; m++)
                if (m->ap && m->matrix_known && ap_mask_test(&m->matrix.adapters, adapter))
                        domains = ap_mask_or(&domains, &m->matrix.domains);

        return domains;
}

static int get_adapter_domains(sd_bus *bus, const char *path, const char *interface, const char *property,
                               sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const BusObject *o = userdata;
        const Snapshot *s = engine_snapshot(o->bus->engine);
        const ApMask *present = &s->queue_present[o->card->id];
        ApMask some;

        if (strcmp(property, "Domains") == 0)
                return bus_append_mask(reply, present);

        if (strcmp(property, "HostDomains") == 0)
                some = snapshot_host_owned(s, o->card->id);
        else
                some = assigned_domains(s, o->card->id);

        some = ap_mask_and(&some, present);
        return bus_append_mask(reply, &some);
}

const sd_bus_vtable bus_adapter_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Id", "q", get_adapter_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Type", "s", get_adapter_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Mode", "s", get_adapter_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("HardwareType", "i", get_adapter_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Online", "b", get_adapter_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Configured", "b", get_adapter_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Checkstopped", "b", get_adapter_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Domains", "aq", get_adapter_domains, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("HostDomains", "aq", get_adapter_domains, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("AssignedDomains", "aq", get_adapter_domains, 0,
                        SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static char *adapter_path(uint8_t id, char buf[static BUS_PATH_SIZE]) {
        (void) snprintf(buf, BUS_PATH_SIZE, BUS_ROOT "/adapter/%02x", id);
        return buf;
}

static int find_adapter(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret,
                        sd_bus_error *error) {
        Bus *b = ((const BusKind *) userdata)->bus;
        const Snapshot *s = engine_snapshot(b->engine);
        char own[BUS_PATH_SIZE];

        for (const HostCard *c = s->cards; c < s->cards + s->n_cards; c++)
                if (strcmp(adapter_path(c->id, own), path) == 0) {
                        b->object.card = c;
                        *ret = &b->object;
                        return 1;
                }

        return 0;
}

static int enumerate_adapters(sd_bus *bus, const char *prefix, void *userdata, char ***ret,
                              sd_bus_error *error) {
        Bus *b = ((const BusKind *) userdata)->bus;
        const Snapshot *s = engine_snapshot(b->engine);
        char path[BUS_PATH_SIZE];
        int r;

        r = bus_paths_new(s->n_cards, ret);
        for (size_t i = 0; r >= 0 && i < s->n_cards; i++)
                r = bus_paths_set(*ret, i, adapter_path(s->cards[i].id, path));

        return r < 0 ? r : 1;
}

int bus_host_add(Bus *b) {
        int r;

        r = bus_add_objects(b, "parent", BUS_INTERFACE("Parent"), bus_parent_vtable, find_parent,
                            enumerate_parents);
        if (r < 0)
                return r;

        return bus_add_objects(b, "adapter", BUS_INTERFACE("Adapter"), bus_adapter_vtable, find_adapter,
                               enumerate_adapters);
}
