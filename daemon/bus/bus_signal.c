/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Signals wait for a moment, so that many changes of one object become one signal and replies go first, and so
 * that a host that changes as a whole does not keep callers waiting: a turn sends a bounded number. They
 * also wait for an answer that lists all objects, see bus_objects.c. */

#include <errno.h>
#include <search.h>
#include <string.h>

#include "base/log.h"
#include "bus/bus_internal.h"

#define SIGNALS_PER_TURN 32 /* about 1 ms */

struct Signal {
        EngineKey key;
        EngineChange change;
        bool part; /* nothing has changed but what emit_part() names */
        bool told; /* somebody may know of the object already */
        Signal *next, **link;
        char name[]; /* key.name's copy */
};

static int key_compare(const void *pa, const void *pb) {
        const EngineKey *a = &((const Signal *) pa)->key, *b = &((const Signal *) pb)->key;
        int r;

        if (a->object != b->object)
                return a->object < b->object ? -1 : 1;
        if (a->id != b->id)
                return a->id < b->id ? -1 : 1;

        r = strcmp(a->name ?: "", b->name ?: "");
        return r != 0 ? r : uuid_compare(a->uuid, b->uuid);
}

static const char *interface_of(EngineObject object) {
        static const char *const names[] = {
                [ENGINE_MANAGER] = BUS_INTERFACE("Manager"), [ENGINE_MATRIX] = BUS_INTERFACE("Matrix"),
                [ENGINE_MDEV] = BUS_INTERFACE("Mdev"),       [ENGINE_PARENT] = BUS_INTERFACE("Parent"),
                [ENGINE_ADAPTER] = BUS_INTERFACE("Adapter"), [ENGINE_GUEST] = BUS_INTERFACE("Guest"),
                [ENGINE_TPM] = BUS_INTERFACE("Tpm"),
        };

        return names[object];
}

static int path_of(const EngineKey *key, char buf[static BUS_PATH_SIZE]) {
        CLEANUP(freep) char *encoded = NULL;
        int r;

        switch (key->object) {
        case ENGINE_MATRIX:
                (void) bus_path_uuid("matrix", key->uuid, buf);
                return 0;
        case ENGINE_MDEV:
                (void) bus_path_uuid("mdev", key->uuid, buf);
                return 0;
        case ENGINE_GUEST:
                (void) bus_path_uuid("guest", key->uuid, buf);
                return 0;
        case ENGINE_TPM:
                (void) bus_path_uuid("tpm", key->uuid, buf);
                return 0;
        case ENGINE_PARENT:
                r = sd_bus_path_encode(BUS_ROOT "/parent", key->name, &encoded);
                if (r < 0)
                        return r;
                if (strlen(encoded) >= BUS_PATH_SIZE)
                        return -ENAMETOOLONG;
                strcpy(buf, encoded);
                return 0;
        case ENGINE_ADAPTER:
                (void) snprintf(buf, BUS_PATH_SIZE, BUS_ROOT "/adapter/%02x", key->id);
                return 0;
        default:
                strcpy(buf, BUS_ROOT);
                return 0;
        }
}

/* What changes most: of the manager its counters, of a matrix what the host has of it. */
static int emit_part(Bus *b, EngineObject object, const char *path) {
        const char *interface = interface_of(object);

        if (object == ENGINE_MATRIX)
                return sd_bus_emit_properties_changed(b->bus, path, interface, "State", "GuestAdapters",
                                                      "GuestDomains", "InUse", "Problems", NULL);
        return sd_bus_emit_properties_changed(b->bus, path, interface, "NMatrices", "NMdevs", "NGuests",
                                              "NTpms", NULL);
}

static int emit(Bus *b, const Signal *s) {
        const char *interface = interface_of(s->key.object);
        char path[BUS_PATH_SIZE];
        int r;

        r = path_of(&s->key, path);
        if (r < 0)
                return r;

        if (s->change == ENGINE_CHANGED && s->part)
                return emit_part(b, s->key.object, path);

        switch (s->change) {
        case ENGINE_ADDED:
                return sd_bus_emit_interfaces_added(b->bus, path, interface, NULL);
        case ENGINE_REMOVED:
                return sd_bus_emit_interfaces_removed(b->bus, path, interface, NULL);
        default:
                return sd_bus_emit_properties_changed_strv(b->bus, path, interface, NULL);
        }
}

static void drop(Bus *b, Signal *s) {
        (void) tdelete(s, &b->signal_tree, key_compare);
        *s->link = s->next;
        if (s->next)
                s->next->link = s->link;
        else
                b->signals_tail = s->link;
        b->n_signals--;
        free(s);
}

static void tell(Bus *b, const Signal *s) {
        int r;

        r = emit(b, s);
        /* -ENOENT, -ESRCH: it went while its signal waited, and the one that says so waits too */
        if (r < 0 && r != -ENOENT && r != -ESRCH && r != -ENOTCONN)
                log_debug("Signal of a changed '%s' was not sent: %s", interface_of(s->key.object),
                          strerror(-r));
}

static void send_one(Bus *b, Signal *s) {
        tell(b, s);
        drop(b, s);
}

static Signal *find(Bus *b, const EngineKey *key) {
        Signal probe = { .key = *key }, **found = tfind(&probe, &b->signal_tree, key_compare);

        return found ? *found : NULL;
}

static int queue(Bus *b, const EngineKey *key, EngineChange change, bool part) {
        const char *name = key->name ?: "";
        Signal *s;

        s = malloc(sizeof *s + strlen(name) + 1);
        if (!s)
                return -ENOMEM;

        *s = (Signal) { .key = *key, .change = change, .part = part, .link = b->signals_tail };
        strcpy(s->name, name);
        s->key.name = s->name;

        if (!tsearch(s, &b->signal_tree, key_compare)) {
                free(s);
                return -ENOMEM;
        }
        *b->signals_tail = s;
        b->signals_tail = &s->next;
        b->n_signals++;

        return b->quiet ? 0 : bus_wake_soon(b);
}

static int merge(Bus *b, const EngineKey *key, EngineChange change, bool part) {
        Signal *s = find(b, key);

        if (!s)
                return queue(b, key, change, part);

        switch (change) {
        case ENGINE_ADDED:
                send_one(b, s); /* removed and made again: both are told */
                return queue(b, key, change, part);
        case ENGINE_CHANGED:
                s->part = s->part && part;
                return 0;
        default:
                if (s->change == ENGINE_ADDED && !s->told && !b->quiet)
                        drop(b, s); /* nobody has heard of it */
                else
                        s->change = change;
                return 0;
        }
}

/* Only what identifies such an object counts. */
static EngineKey clean_key(const EngineKey *key) {
        switch (key->object) {
        case ENGINE_MATRIX:
        case ENGINE_MDEV:
        case ENGINE_GUEST:
        case ENGINE_TPM:
                return (EngineKey) { .object = key->object, .uuid = key->uuid };
        case ENGINE_PARENT:
                return (EngineKey) { .object = key->object, .name = key->name };
        case ENGINE_ADAPTER:
                return (EngineKey) { .object = key->object, .id = key->id };
        default:
                return (EngineKey) { .object = ENGINE_MANAGER };
        }
}

static bool is_counted(EngineObject object) {
        return object == ENGINE_MATRIX || object == ENGINE_MDEV || object == ENGINE_GUEST ||
               object == ENGINE_TPM;
}

void bus_signal(Bus *b, const EngineKey *key, EngineChange change) {
        EngineKey clean = clean_key(key);
        int r;

        if (change == ENGINE_LIVED)
                r = merge(b, &clean, ENGINE_CHANGED, true);
        else
                r = merge(b, &clean, change, false);
        if (r >= 0 && (change == ENGINE_ADDED || change == ENGINE_REMOVED) && is_counted(key->object))
                r = merge(b, &(EngineKey) { .object = ENGINE_MANAGER }, ENGINE_CHANGED, true);
        if (r < 0)
                log_warning("A change signal is lost: %s", strerror(-r));
}

void bus_signal_flush_uuid(Bus *b, Uuid uuid) {
        static const EngineObject objects[] = { ENGINE_MATRIX, ENGINE_MDEV, ENGINE_GUEST, ENGINE_TPM };

        for (size_t i = 0; i < ELEMENTS(objects); i++) {
                Signal *s = find(b, &(EngineKey) { .object = objects[i], .uuid = uuid });

                if (!s)
                        continue;
                if (!b->quiet)
                        return send_one(b, s);
                tell(b, s); /* and once more after the answer, which may be older */
                s->told = true;
                return;
        }
}

void bus_signal_some(Bus *b) {
        for (unsigned i = 0; i < SIGNALS_PER_TURN && b->signals && !b->quiet; i++) {
                send_one(b, b->signals);
                b->n_due -= b->n_due > 0;
        }
}

void bus_signal_release(Bus *b) {
        b->quiet = NULL;
        b->n_due = b->n_signals;
        for (Signal *s = b->signals; s; s = s->next)
                s->told = true;
}

bool bus_signal_is_due(const Bus *b) {
        return b->n_due > 0 && b->signals;
}

void bus_flush_signals(Bus *b) {
        while (b->signals)
                send_one(b, b->signals);
}

void bus_signal_free(Bus *b) {
        while (b->signals)
                drop(b, b->signals);
}
