/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs about mediated devices of any type. */

#include <errno.h>
#include <string.h>

#include "base/uuid.h"
#include "cli/cli.h"

#define MDEV CLI_INTERFACE("Mdev")

int verb_mdev_types(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *parents = NULL, *all = json_object_new_array();
        CLEANUP(table_freep) Table *t = NULL;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_objects(c, CLI_INTERFACE("Parent"), "name", &parents);
        if (r != CLI_DONE)
                return r;

        for (size_t i = 0; i < json_object_array_length(parents); i++) {
                json_object *parent = json_object_array_get_idx(parents, i);
                json_object *types = json_object_object_get(parent, "types");

                for (size_t j = 0; types && j < json_object_array_length(types); j++) {
                        static const char *const keys[] = { "type", "name", "device_api", "available" };
                        json_object *o = json_object_new_object(),
                                    *type = json_object_array_get_idx(types, j);

                        (void) json_object_object_add(o, "parent",
                                                      json_object_get(
                                                              json_object_object_get(parent, "name")));
                        for (size_t k = 0; k < ELEMENTS(keys); k++)
                                (void) json_object_object_add(o, keys[k],
                                                              json_object_get(
                                                                      json_object_array_get_idx(type, k)));
                        (void) json_object_array_add(all, o);
                }
        }
        if (cli_print_json(c, all))
                return CLI_DONE;

        t = table_new(5, (const char *[]) { "PARENT", "TYPE", "API", "AVAILABLE", "NAME" });
        r = t ? 0 : -ENOMEM;
        for (size_t i = 0; r >= 0 && i < json_object_array_length(all); i++) {
                json_object *o = json_object_array_get_idx(all, i);

                r = table_add(t, (const char *[]) { json_text(o, "parent"), json_text(o, "type"),
                                                    json_text(o, "device_api"), json_text(o, "available"),
                                                    json_text(o, "name") });
        }
        if (r < 0)
                return cli_broken(c, r);

        table_print(t, c->out, c->colour);
        return CLI_DONE;
}

static int add_mdev(Table *t, json_object *o) {

        return table_add(t, (const char *[]) {
                                    json_text(o, "uuid"), json_text(o, "parent"), json_text(o, "type"),
                                    json_text(o, "state"), json_flag(o, "ours") ? "yes" : "no",
                                    json_flag(o, "in_use") ? "yes" : "no", json_text(o, "guest") });
}

int verb_mdev_list(Cli *c, char **args) {
        return cli_list(c, MDEV, "uuid", add_mdev, 7,
                        (const char *[]) { "UUID", "PARENT", "TYPE", "STATE", "OURS", "IN USE", "GUEST" });
}

static int append_attrs(Cli *c, sd_bus_message *m) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "(ss)");
        for (size_t i = 0; r >= 0 && i < c->n_attrs; i++) {
                const char *equals = strchr(c->attrs[i], '=');
                CLEANUP(freep) char *name = strndup(c->attrs[i], (size_t) (equals - c->attrs[i]));

                if (!name)
                        return -ENOMEM;
                r = sd_bus_message_append(m, "(ss)", name, equals + 1);
        }

        return r < 0 ? r : sd_bus_message_close_container(m);
}

int verb_mdev_create(Cli *c, char **args) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(json_putp) json_object *o = NULL;
        char quoted[CLI_QUOTE_SIZE];
        const char *path;
        int r;

        for (size_t i = 0; i < c->n_attrs; i++)
                if (!strchr(c->attrs[i], '=') || c->attrs[i][0] == '=')
                        return cli_usage(c, "%s is not NAME=VALUE", cli_quote(c->attrs[i], quoted));

        r = cli_check_uuid(c, c->values[OPT_UUID]);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, CLI_INTERFACE("Manager"), "CreateMdev", &m);
        if (r != CLI_DONE)
                return r;

        r = sd_bus_message_append(m, "sss", args[0], args[1], c->values[OPT_UUID] ?: "");
        if (r >= 0)
                r = append_attrs(c, m);
        if (r >= 0)
                r = sd_bus_message_append(m, "a{sv}", 0);
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, "creating the device", &reply);
        if (r != CLI_DONE)
                return r;
        r = sd_bus_message_read(reply, "o", &path);
        if (r < 0)
                return cli_broken(c, r);

        r = cli_object(c, path, MDEV, &o);
        if (r == CLI_DONE && !cli_print_json(c, o))
                (void) fprintf(c->out, "%s\n", json_text(o, "uuid")); /* for scripts: nothing but the UUID */
        return r;
}

int verb_mdev_remove(Cli *c, char **args) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(json_putp) json_object *gone = json_object_new_object();
        char path[128], text[UUID_STRING_SIZE];
        Uuid uuid = {};
        int r;

        r = cli_check_uuid(c, args[0]);
        if (r != CLI_DONE)
                return r;

        (void) uuid_parse(args[0], &uuid);
        (void) uuid_format(uuid, text);
        for (char *p = text; *p; p++)
                if (*p == '-')
                        *p = '_';
        (void) snprintf(path, sizeof path, CLI_BUS_ROOT "/mdev/%s", text);

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, path, MDEV, "Remove", &m);
        if (r != CLI_DONE)
                return r;
        r = sd_bus_message_append(m, "a{sv}", 0);
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_exchange(c, m, "removing the device", &reply);
        if (r != CLI_DONE)
                return r;
        if (sd_bus_message_is_method_error(reply, SD_BUS_ERROR_UNKNOWN_OBJECT))
                return cli_error(c, CLI_BUS_NAME ".Error.NoSuchMdev", "there is no mediated device %s",
                                 args[0]);
        if (sd_bus_message_is_method_error(reply, NULL))
                return cli_refused(c, reply, "removing the device");

        (void) json_object_object_add(gone, "path", json_object_new_string(path));
        if (!cli_print_json(c, gone))
                (void) fprintf(c->out, "Mediated device %s is removed.\n", args[0]);
        return CLI_DONE;
}
