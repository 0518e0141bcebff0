/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* GetManagedObjects, which sd-bus would answer in one turn: 10,000 objects take some hundred ms. What goes meanwhile
 * is not in the answer, or goes by a signal after it; signals wait for the answer, so that it never tells what was true
 * before a signal that came earlier. */

#include <errno.h>

#include "bus/bus_internal.h"

#define OBJECTS_PER_TURN 64 /* about 2 ms */

typedef struct Inventory {
        Answer answer;
        sd_bus_message *reply;
        size_t kind;
        char **paths; /* of this kind; NULL: not looked for yet */
        size_t next;
} Inventory;

static char **paths_free(char **paths) {
        for (char **p = paths; p && *p; p++)
                free(*p);
        free(paths);
        return NULL;
}

static void inventory_free(Answer *a) {
        Inventory *v = CONTAINER_OF(a, Inventory, answer);

        (void) sd_bus_message_unref(v->reply);
        (void) paths_free(v->paths);
        free(v);
}

static int append_property(Bus *b, sd_bus_message *m, const BusKind *k, const sd_bus_vtable *p,
                           const char *path, void *object, sd_bus_error *error) {
        int r;

        r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', p->x.property.member);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', p->x.property.signature);
        if (r >= 0)
                r = p->x.property.get(b->bus, path, k->interface, p->x.property.member, m, object, error);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_message_close_container(m);

        return r;
}

static int append_interface(Bus *b, sd_bus_message *m, const BusKind *k, const char *path, void *object,
                            sd_bus_error *error) {
        int r;

        r = sd_bus_message_open_container(m, 'e', "sa{sv}");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', k->interface);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sv}");
        for (const sd_bus_vtable *p = k->vtable; r >= 0 && p->type != _SD_BUS_VTABLE_END; p++)
                if (p->type == _SD_BUS_VTABLE_PROPERTY)
                        r = append_property(b, m, k, p, path, object, error);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_message_close_container(m);

        return r;
}

static int append_object(Bus *b, sd_bus_message *m, BusKind *k, const char *path, sd_bus_error *error) {
        void *object;
        int r;

        r = k->find(b->bus, path, k->interface, k, &object, error);
        if (r <= 0)
                return r; /* 0: it has gone */

        r = sd_bus_message_open_container(m, 'e', "oa{sa{sv}}");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 'o', path);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sa{sv}}");
        if (r >= 0) /* sd-bus gives them to every object */
                r = sd_bus_message_append(m, "{sa{sv}}{sa{sv}}{sa{sv}}", "org.freedesktop.DBus.Peer", 0,
                                          "org.freedesktop.DBus.Introspectable", 0,
                                          "org.freedesktop.DBus.Properties", 0);
        if (r >= 0)
                r = append_interface(b, m, k, path, object, error);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_message_close_container(m);

        return r;
}

static int finish(Inventory *v) {
        int r;

        r = sd_bus_message_close_container(v->reply);
        if (r >= 0)
                r = sd_bus_send(NULL, v->reply, NULL);

        return r < 0 ? r : 1;
}

static int append_some(Answer *a, sd_bus_error *error) {
        Inventory *v = CONTAINER_OF(a, Inventory, answer);
        Bus *b = a->bus;
        BusKind *k = &b->kinds[v->kind];
        int r;

        if (v->kind == b->n_kinds)
                return finish(v);

        if (!v->paths) {
                r = k->enumerate(b->bus, k->prefix, k, &v->paths, error);
                return r < 0 ? r : 0;
        }

        for (unsigned i = 0; i < OBJECTS_PER_TURN && v->paths[v->next]; i++) {
                r = append_object(b, v->reply, k, v->paths[v->next++], error);
                if (r < 0)
                        return r;
        }
        if (!v->paths[v->next]) {
                v->paths = paths_free(v->paths);
                v->next = 0;
                v->kind++;
        }

        return 0;
}

static int begin(Bus *b, sd_bus_message *m, sd_bus_error *error) {
        Inventory *v;
        int r;

        v = malloc(sizeof *v);
        if (!v)
                return -ENOMEM;

        *v = (Inventory) {
                .answer = { .step = append_some, .free = inventory_free, .is_quiet = true, .is_long = true }
        };
        r = bus_answer_init(&v->answer, b, m, error);
        if (r < 0) {
                free(v);
                return r;
        }

        r = sd_bus_message_new_method_return(m, &v->reply);
        if (r >= 0)
                r = sd_bus_message_open_container(v->reply, 'a', "{oa{sa{sv}}}");
        if (r >= 0)
                r = bus_answer_ready(&v->answer);
        if (r < 0) {
                bus_answer_free(&v->answer);
                return r;
        }

        return 1;
}

/* Before sd-bus looks at the call. */
static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        if (!sd_bus_message_is_method_call(m, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects") ||
            !sd_bus_message_has_signature(m, ""))
                return 0;
        if (!sd_bus_message_get_expect_reply(m))
                return 1;

        return begin(userdata, m, error);
}

int bus_objects_add(Bus *b) {
        int r;

        r = sd_bus_add_object_manager(b->bus, &b->slots[b->n_slots], BUS_ROOT);
        if (r < 0)
                return r;
        b->n_slots++;

        return sd_bus_add_object(b->bus, &b->slots[b->n_slots++], BUS_ROOT, on_call, b);
}
