/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/bus.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "bus/bus_internal.h"

#define AUTHZ_TIMEOUT_US (30 * UINT64_C(1000000))
#define ASKS_PER_UID     512u

/* What is there before the engine's events come. */
static int count(Bus *b) {
        CLEANUP(freep) Uuid *matrices = NULL, *guests = NULL, *tpms = NULL;
        size_t n_matrices, n_guests, n_tpms = 0;
        Vtpm *v = engine_vtpm(b->engine);
        int r;

        r = engine_list_matrices(b->engine, &matrices, &n_matrices);
        if (r >= 0)
                r = engine_list_guests(b->engine, &guests, &n_guests);
        if (r >= 0 && v)
                r = v->ops->list(v, &tpms, &n_tpms);
        if (r < 0)
                return r;

        b->n_matrices = (unsigned) n_matrices;
        b->n_guests = (unsigned) n_guests;
        b->n_tpms = (unsigned) n_tpms;
        return 0;
}

int bus_new(sd_bus *bus, Engine *e, const BusConfig *config, Bus **ret) {
        static int (*const add[])(Bus * b) = { bus_objects_add, bus_manager_add, bus_hook_add,
                                               bus_mdevctl_add, bus_matrix_add,  bus_mdev_add,
                                               bus_host_add,    bus_guest_add,   bus_tpm_add,
                                               bus_own_add };
        Bus *b;
        int r;

        r = bus_error_register();
        if (r < 0)
                return r;

        b = malloc(sizeof *b);
        if (!b)
                return -ENOMEM;

        *b = (Bus) { .bus = sd_bus_ref(bus), .event = sd_event_ref(sd_bus_get_event(bus)), .engine = e };
        b->object.bus = b;
        b->signals_tail = &b->signals;
        b->answers_tail = &b->answers;
        if (config)
                b->config = *config;
        if (b->config.authz_timeout_us == 0)
                b->config.authz_timeout_us = AUTHZ_TIMEOUT_US;
        if (b->config.max_asks_per_uid == 0)
                b->config.max_asks_per_uid = ASKS_PER_UID;

        r = count(b);
        for (size_t i = 0; r >= 0 && i < ELEMENTS(add); i++)
                r = add[i](b);
        if (r < 0) {
                (void) bus_free(b);
                return r;
        }

        *ret = b;
        return 0;
}

Bus *bus_free(Bus *b) {
        if (!b)
                return NULL;

        while (b->calls)
                (void) bus_call_free(b->calls);
        bus_answer_free_all(b);
        authz_free(b);
        bus_signal_free(b);
        for (size_t i = 0; i < b->n_slots; i++)
                (void) sd_bus_slot_unref(b->slots[i]);
        (void) sd_event_unref(b->event);
        (void) sd_bus_unref(b->bus);
        free(b);
        return NULL;
}

int bus_add_root(Bus *b, const char *interface, const sd_bus_vtable *vtable) {
        int r;

        assert(b->n_slots < ELEMENTS(b->slots));

        r = sd_bus_add_object_vtable(b->bus, &b->slots[b->n_slots], BUS_ROOT, interface, vtable, &b->object);
        if (r < 0)
                return r;

        b->n_slots++;
        return 0;
}

int bus_add_objects(Bus *b, const char *kind, const char *interface, const sd_bus_vtable *vtable,
                    sd_bus_object_find_t find, sd_bus_node_enumerator_t enumerate) {
        BusKind *k = &b->kinds[b->n_kinds];
        int r;

        assert(b->n_kinds < ELEMENTS(b->kinds) && b->n_slots + 2 <= ELEMENTS(b->slots));

        *k = (BusKind) { .bus = b,
                         .name = kind,
                         .interface = interface,
                         .vtable = vtable,
                         .find = find,
                         .enumerate = enumerate };
        (void) snprintf(k->prefix, sizeof k->prefix, BUS_ROOT "/%s", kind);
        b->n_kinds++;

        r = sd_bus_add_fallback_vtable(b->bus, &b->slots[b->n_slots], k->prefix, interface, vtable, find, k);
        if (r < 0)
                return r;
        b->n_slots++;

        r = sd_bus_add_node_enumerator(b->bus, &b->slots[b->n_slots], k->prefix, enumerate, k);
        if (r < 0)
                return r;
        b->n_slots++;

        return 0;
}

static int find_uuid(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret,
                     sd_bus_error *error) {
        const BusKind *k = userdata;
        Uuid uuid;
        int r;

        r = bus_path_parse_uuid(path, k->name, &uuid);
        if (r < 0)
                return 0;

        r = k->get(k->bus, uuid);
        if (r < 0)
                return r == -ENOENT ? 0 : r;

        *ret = &k->bus->object;
        return 1;
}

static int enumerate_uuids(sd_bus *bus, const char *prefix, void *userdata, char ***ret,
                           sd_bus_error *error) {
        CLEANUP(freep) Uuid *uuids = NULL;
        const BusKind *k = userdata;
        char path[BUS_PATH_SIZE];
        size_t n = 0;
        int r;

        /* sd-bus asks for each object that is introspected, too: nothing lies below one */
        if (strlen(prefix) > strlen(k->prefix))
                return 0;

        r = k->list(k->bus, &uuids, &n);
        if (r >= 0)
                r = bus_paths_new(n, ret);
        for (size_t i = 0; r >= 0 && i < n; i++)
                r = bus_paths_set(*ret, i, bus_path_uuid(k->name, uuids[i], path));

        return r < 0 ? r : 1;
}

int bus_add_uuids(Bus *b, const char *kind, const char *interface, const sd_bus_vtable *vtable,
                  bus_get_t get, bus_list_t list) {
        BusKind *k = &b->kinds[b->n_kinds];
        int r;

        r = bus_add_objects(b, kind, interface, vtable, find_uuid, enumerate_uuids);
        k->get = get;
        k->list = list;
        return r;
}

static unsigned *counter_of(Bus *b, EngineObject object) {
        switch (object) {
        case ENGINE_MATRIX:
                return &b->n_matrices;
        case ENGINE_GUEST:
                return &b->n_guests;
        case ENGINE_TPM:
                return &b->n_tpms;
        default:
                return NULL;
        }
}

void bus_on_engine_event(void *userdata, const EngineKey *key, EngineChange change) {
        Bus *b = *(Bus **) userdata;
        unsigned *n;

        if (!b)
                return;

        n = counter_of(b, key->object);
        if (n && change == ENGINE_ADDED)
                ++*n;
        if (n && change == ENGINE_REMOVED)
                --*n;

        bus_signal(b, key, change);
}

/* ---- introspection ---- */

static const struct {
        const char *name;
        const sd_bus_vtable *vtable;
} interfaces[] = {
        { BUS_INTERFACE("Manager"), bus_manager_vtable }, { BUS_INTERFACE("Matrix"), bus_matrix_vtable },
        { BUS_INTERFACE("Mdev"), bus_mdev_vtable },       { BUS_INTERFACE("Parent"), bus_parent_vtable },
        { BUS_INTERFACE("Adapter"), bus_adapter_vtable }, { BUS_INTERFACE("Guest"), bus_guest_vtable },
        { BUS_INTERFACE("Tpm"), bus_tpm_vtable },         { BUS_INTERFACE("Hook"), bus_hook_vtable },
        { BUS_INTERFACE("Mdevctl"), bus_mdevctl_vtable }, { BUS_INTERFACE("Host"), bus_own_vtable },
};

static int on_introspected(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        char **ret = userdata;
        const char *xml;
        int r;

        r = sd_bus_message_read_basic(m, 's', &xml);
        if (r < 0)
                return r;

        *ret = strdup(xml);
        return *ret ? 0 : -ENOMEM;
}

static int open_pair(sd_bus **ret_server, sd_bus **ret_client) {
        CLEANUP(sd_bus_unrefp) sd_bus *server = NULL, *client = NULL;
        CLEANUP(fd_closep) int fd0 = -1, fd1 = -1;
        sd_id128_t id;
        int fds[2], r;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
                return -errno;
        fd0 = fds[0];
        fd1 = fds[1];

        if (sd_id128_randomize(&id) < 0 || sd_bus_new(&server) < 0 || sd_bus_new(&client) < 0)
                return -ENOMEM;

        r = sd_bus_set_fd(server, fd0, fd0);
        if (r < 0)
                return r;
        TAKE_FD(fd0);
        r = sd_bus_set_server(server, 1, id);
        if (r < 0)
                return r;

        r = sd_bus_set_fd(client, fd1, fd1);
        if (r < 0)
                return r;
        TAKE_FD(fd1);

        r = sd_bus_start(server);
        if (r < 0)
                return r;
        r = sd_bus_start(client);
        if (r < 0)
                return r;

        *ret_server = TAKE(server);
        *ret_client = TAKE(client);
        return 0;
}

static int introspect_one(sd_bus *server, sd_bus *client, size_t i, FILE *f) {
        CLEANUP(freep) char *xml = NULL;
        char path[32], tag[96], *from, *to;
        int r;

        (void) snprintf(path, sizeof path, "/i%zu", i);
        r = sd_bus_add_object_vtable(server, NULL, path, interfaces[i].name, interfaces[i].vtable, NULL);
        if (r < 0)
                return r;

        r = sd_bus_call_method_async(client, NULL, NULL, path, "org.freedesktop.DBus.Introspectable",
                                     "Introspect", on_introspected, &xml, NULL);
        while (r >= 0 && !xml) {
                r = sd_bus_process(client, NULL);
                if (r >= 0)
                        r = sd_bus_process(server, NULL);
        }
        if (r < 0)
                return r;

        (void) snprintf(tag, sizeof tag, " <interface name=\"%s\">", interfaces[i].name);
        from = strstr(xml, tag);
        to = from ? strstr(from, "</interface>\n") : NULL;
        if (!to)
                return -EBADMSG;

        return fprintf(f, "%.*s", (int) (to + strlen("</interface>\n") - from), from) < 0 ? -EIO : 0;
}

int bus_introspect(FILE *f) {
        CLEANUP(sd_bus_unrefp) sd_bus *server = NULL, *client = NULL;
        int r;

        r = open_pair(&server, &client);
        if (r < 0)
                return r;

        if (fputs("<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n"
                  "\"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n",
                  f) < 0)
                return -EIO;

        for (size_t i = 0; i < ELEMENTS(interfaces); i++) {
                r = introspect_one(server, client, i, f);
                if (r < 0)
                        return r;
        }

        return fputs("</node>\n", f) < 0 || fflush(f) < 0 ? -EIO : 0;
}
