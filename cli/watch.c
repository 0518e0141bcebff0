/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The verb "watch": one line for each change, until it is interrupted. What the objects were like is
 * kept, so that only what has changed is told. */

#include <errno.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

typedef struct Watch {
        Cli *cli;
        json_object *objects; /* path -> properties, keys as in JSON output */
        bool stale;           /* the daemon was started anew */
} Watch;

/* "/org/guestcrypt1/matrix/..." -> "matrix" */
static const char *kind_of(const char *path, char buf[static 16]) {
        const char *s = path + strlen(CLI_BUS_ROOT);

        if (strncmp(path, CLI_BUS_ROOT, strlen(CLI_BUS_ROOT)) != 0 || *s != '/')
                return "manager";

        (void) snprintf(buf, 16, "%.*s", (int) MIN(strcspn(s + 1, "/"), (size_t) 15), s + 1);
        return buf;
}

/* What a person calls it. */
static const char *name_of(json_object *o, const char *path) {
        static const char *const keys[] = { "name", "uuid" };

        for (size_t i = 0; i < ELEMENTS(keys); i++)
                if (*json_text(o, keys[i]))
                        return json_text(o, keys[i]);

        return strrchr(path, '/') + 1;
}

static bool is_id_array(json_object *o) {
        if (!json_object_is_type(o, json_type_array))
                return false;
        for (size_t i = 0; i < json_object_array_length(o); i++)
                if (!json_object_is_type(json_object_array_get_idx(o, i), json_type_int))
                        return false;

        return true;
}

static void print_value(FILE *f, const char *key, json_object *value) {
        char list[AP_MASK_LIST_SIZE];
        ApMask mask;

        if (is_id_array(value) && (strstr(key, "adapters") || strstr(key, "domains"))) {
                mask = json_mask(value);
                (void) fprintf(f, " %s=%s", key,
                               ap_mask_is_empty(&mask) ? "-" : ap_mask_format_list(&mask, list));
        } else
                (void) fprintf(f, " %s=%s", key,
                               json_object_is_type(value, json_type_string)
                                       ? json_object_get_string(value)
                                       : json_object_to_json_string_ext(
                                                 value,
                                                 JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* @event: "added", "changed", "removed". @what: properties, or NULL. */
static void tell(Watch *w, const char *event, const char *path, json_object *object, json_object *what) {
        CLEANUP(json_putp) json_object *doc = NULL;
        char kind[16], stamp[16];
        time_t now = time(NULL);
        struct tm tm;

        if (w->cli->json) {
                doc = json_object_new_object();
                (void) json_object_object_add(doc, "event", json_object_new_string(event));
                (void) json_object_object_add(doc, "object", json_object_new_string(kind_of(path, kind)));
                (void) json_object_object_add(doc, "name", json_object_new_string(name_of(object, path)));
                (void) json_object_object_add(doc, "path", json_object_new_string(path));
                if (what)
                        (void) json_object_object_add(doc, "properties", json_object_get(what));
                (void) cli_print_json(w->cli, doc);
        } else {
                (void) strftime(stamp, sizeof stamp, "%H:%M:%S", localtime_r(&now, &tm));
                (void) fprintf(w->cli->out, "%s %s %s %s", stamp, kind_of(path, kind), name_of(object, path),
                               event);
                if (what) {
                        json_object_object_foreach(what, key, value) print_value(w->cli->out, key, value);
                }
                (void) fputc('\n', w->cli->out);
        }

        (void) fflush(w->cli->out);
}

/* Of an object's interfaces a{sa{sv}} the properties of ours; NULL if it has none. */
static json_object *our_properties(json_object *interfaces) {
        json_object *o = NULL;
        char key[64];

        json_object_object_foreach(interfaces, interface, properties) {
                if (strncmp(interface, CLI_BUS_NAME ".", strlen(CLI_BUS_NAME) + 1) != 0)
                        continue;
                if (!o)
                        o = json_object_new_object();
                json_object_object_foreach(properties, name, value)(void)
                        json_object_object_add(o, json_key(name, key), json_object_get(value));
        }

        return o;
}

static int on_added(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        CLEANUP(json_putp) json_object *args = NULL;
        json_object *o;
        Watch *w = userdata;
        const char *path;

        if (json_from_message(m, &args) < 0 || !json_object_is_type(args, json_type_array))
                return 0;

        path = json_object_get_string(json_object_array_get_idx(args, 0));
        o = our_properties(json_object_array_get_idx(args, 1));
        if (!o)
                return 0;

        tell(w, "added", path, o, o);
        (void) json_object_object_add(w->objects, path, o);
        return 0;
}

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        CLEANUP(json_putp) json_object *args = NULL;
        Watch *w = userdata;
        const char *path;

        if (json_from_message(m, &args) < 0 || !json_object_is_type(args, json_type_array))
                return 0;

        path = json_object_get_string(json_object_array_get_idx(args, 0));
        tell(w, "removed", path, json_object_object_get(w->objects, path), NULL);
        json_object_object_del(w->objects, path);
        return 0;
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        CLEANUP(json_putp) json_object *args = NULL, *changed = json_object_new_object();
        const char *path = sd_bus_message_get_path(m);
        json_object *o, *properties;
        Watch *w = userdata;
        char key[64];

        if (json_from_message(m, &args) < 0 || !json_object_is_type(args, json_type_array))
                return 0;
        properties = json_object_array_get_idx(args, 1);
        if (!json_object_is_type(properties, json_type_object))
                return 0;

        o = json_object_object_get(w->objects, path);
        if (!o) {
                o = json_object_new_object();
                (void) json_object_object_add(w->objects, path, o);
        }
        json_object_object_foreach(properties, name, value) {
                (void) json_key(name, key);
                if (json_object_equal(json_object_object_get(o, key), value))
                        continue;
                (void) json_object_object_add(o, key, json_object_get(value));
                (void) json_object_object_add(changed, key, json_object_get(value));
        }

        if (json_object_object_length(changed) > 0)
                tell(w, "changed", path, o, changed);
        return 0;
}

/* What there is now. An error is told; the exit status. */
static int load(Watch *w) {
        CLEANUP(json_putp) json_object *all = NULL;
        json_object *manager;
        int r;

        r = cli_ask(w->cli, CLI_BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects",
                    "listing objects", &all);
        if (r != CLI_DONE)
                return r;
        if (!json_object_is_type(all, json_type_object))
                return cli_broken(w->cli, -EBADMSG);

        /* the object manager does not list itself */
        r = cli_properties(w->cli, CLI_BUS_ROOT, CLI_INTERFACE("Manager"), &manager);
        if (r != CLI_DONE)
                return r;

        json_putp(&w->objects);
        w->objects = json_object_new_object();
        (void) json_object_object_add(w->objects, CLI_BUS_ROOT, manager);
        json_object_object_foreach(all, path, interfaces) {
                json_object *o = our_properties(interfaces);

                if (o)
                        (void) json_object_object_add(w->objects, path, o);
        }

        return CLI_DONE;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        CLEANUP(json_putp) json_object *what = json_object_new_object();
        const char *name, *from, *to;
        Watch *w = userdata;

        if (sd_bus_message_read(m, "sss", &name, &from, &to) < 0)
                return 0;

        w->stale = *to != '\0';
        (void) json_object_object_add(what, "running", json_object_new_boolean(w->stale));
        tell(w, "changed", CLI_BUS_ROOT, NULL, what);
        return 0;
}

static int match(Watch *w, const char *interface, const char *member, sd_bus_message_handler_t handler) {
        char rule[256];

        (void) snprintf(rule, sizeof rule,
                        "type='signal',sender='" CLI_BUS_NAME "',path_namespace='" CLI_BUS_ROOT
                        "',interface='%s',member='%s'",
                        interface, member);
        return sd_bus_add_match(w->cli->bus, NULL, rule, handler, w);
}

static int watch(Watch *w) {
        sd_bus *bus = w->cli->bus;
        int r;

        r = match(w, "org.freedesktop.DBus.ObjectManager", "InterfacesAdded", on_added);
        if (r >= 0)
                r = match(w, "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved", on_removed);
        if (r >= 0)
                r = match(w, "org.freedesktop.DBus.Properties", "PropertiesChanged", on_changed);
        if (r >= 0)
                r = sd_bus_add_match(
                        bus, NULL,
                        "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                        "member='NameOwnerChanged',arg0='" CLI_BUS_NAME "'",
                        on_owner, w);
        if (r < 0)
                return cli_errno(w->cli, r, "watching");

        w->objects = json_object_new_object();
        r = load(w);
        if (r != CLI_DONE)
                return r;

        for (;;) {
                if (w->stale) {
                        w->stale = false;
                        r = load(w);
                        if (r != CLI_DONE)
                                return r;
                }

                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
                if (r < 0 && r != -EINTR)
                        return cli_error(w->cli, NULL, "the connection to the bus is lost: %s",
                                         strerror(-r));
                if (ferror(w->cli->out))
                        return CLI_FAILED; /* whom we told has gone */
        }
}

int verb_watch(Cli *c, char **args) {
        Watch w = { .cli = c };
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = watch(&w);
        json_putp(&w.objects);
        return r;
}
