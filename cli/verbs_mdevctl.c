/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs about other tools: import, export. The only one so far is mdevctl. */

#include <errno.h>
#include <string.h>

#include "cli/cli.h"

#define MDEVCTL CLI_INTERFACE("Mdevctl")
#define TOOL    "mdevctl"

static const CliSent sent[] = { { OPT_ALTERNATIVE, "alternative", SENT_TRUE },
                                { OPT_FROM_HOST, "from-host", SENT_TRUE },
                                { OPT_NAME, "name", SENT_TEXT },
                                { OPT_FORCE, "force", SENT_TRUE },
                                { OPT_DRY_RUN, "dry-run", SENT_TRUE } };

static int check_tool(Cli *c, const char *name) {
        char quoted[CLI_QUOTE_SIZE];

        return strcmp(name, TOOL) == 0
                       ? CLI_DONE
                       : cli_usage(c, "there is no tool %s here, only " TOOL, cli_quote(name, quoted));
}

/* Of several the worst is what counts: 1 before 3 before 0. */
static int worse(int a, int b) {
        return a == CLI_FAILED || b == CLI_FAILED ? CLI_FAILED : MAX(a, b);
}

static int call_one(Cli *c, const char *method, const char *name, const char *doing, sd_bus_message **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = cli_call_new(c, CLI_BUS_ROOT, MDEVCTL, method, &m);
        if (r != CLI_DONE)
                return r;
        r = sd_bus_message_append(m, "s", name);
        if (r >= 0)
                r = cli_append_options(c, m, sent, ELEMENTS(sent));
        if (r < 0)
                return cli_unsendable(c, r);
        return cli_exchange(c, m, doing, ret);
}

/* Each has an entry of its own in the answer, so that one refusal does not hide what became of the others. */
static json_object *entry_of(const char *name, sd_bus_message *reply, const char *key, const char *value) {
        json_object *o = json_object_new_object();
        const sd_bus_error *error = sd_bus_message_get_error(reply);

        (void) json_object_object_add(o, "definition", json_object_new_string(name));
        if (error) {
                (void) json_object_object_add(o, "error", json_object_new_string(error->name));
                (void) json_object_object_add(o, "text",
                                              json_object_new_string(error->message ?: error->name));
        } else
                (void) json_object_object_add(o, key, json_object_new_string(value));
        return o;
}

/* If the connection was lost on the way that has been told already, in the one document that there may be. */
static void tell(Cli *c, json_object *all, size_t n) {
        if (json_object_array_length(all) == n)
                (void) cli_print_json(c, all);
}

static int import_one(Cli *c, const char *name, json_object *all) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *path = "";
        int r;

        r = call_one(c, "Import", name, "taking it over", &reply);
        if (r != CLI_DONE)
                return r;
        if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "o", &path) < 0)
                return cli_broken(c, -EBADMSG);

        (void) json_object_array_add(all, entry_of(name, reply, "path", path));
        if (sd_bus_message_is_method_error(reply, NULL))
                return c->json ? cli_status(sd_bus_message_get_error(reply)->name)
                               : cli_refused(c, reply, "taking it over");
        if (!c->json)
                (void) fprintf(c->out, "%s %s.\n", name,
                               c->values[OPT_DRY_RUN] ? "can be taken over from mdevctl"
                                                      : "is guestcrypt's now");
        return CLI_DONE;
}

/* Those that cannot be read are tried, too: the refusal says why. */
static int import_all(Cli *c, json_object *all, size_t *ret_n) {
        CLEANUP(json_putp) json_object *list = NULL;
        int r, result = CLI_DONE;

        r = cli_ask(c, CLI_BUS_ROOT, MDEVCTL, "ListDefinitions", "listing mdevctl's definitions", &list);
        if (r != CLI_DONE)
                return r;
        for (size_t i = 0; list && i < json_object_array_length(list); i++) {
                json_object *name = json_object_array_get_idx(json_object_array_get_idx(list, i), 0);

                r = import_one(c, json_object_get_string(name) ?: "", all);
                result = worse(result, r);
                ++*ret_n;
        }
        if (!c->json && (!list || json_object_array_length(list) == 0))
                (void) fprintf(c->out, "mdevctl has no definition of an AP matrix.\n");
        return result;
}

int verb_import(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *all = json_object_new_array();
        bool everything = c->values[OPT_ALL];
        int r, result = CLI_DONE;
        size_t n = 0;

        r = check_tool(c, args[0]);
        if (r != CLI_DONE)
                return r;
        if (everything == (args[1] != NULL))
                return cli_usage(c, "'import mdevctl' needs UUIDs, or --all");
        if (c->values[OPT_NAME] && (everything || args[2]))
                return cli_usage(c, "--name is for one definition");
        for (char **uuid = args + 1; *uuid && r == CLI_DONE; uuid++)
                r = cli_check_uuid(c, *uuid);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r != CLI_DONE)
                return r;

        if (everything)
                result = import_all(c, all, &n);
        for (char **uuid = args + 1; *uuid; uuid++, n++) {
                r = import_one(c, *uuid, all);
                result = worse(result, r);
        }
        tell(c, all, n);
        return result;
}

static int export_one(Cli *c, const char *name, json_object *all) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *json = "";
        int r;

        r = call_one(c, "Export", name, "giving it to mdevctl", &reply);
        if (r != CLI_DONE)
                return r;
        if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "s", &json) < 0)
                return cli_broken(c, -EBADMSG);

        (void) json_object_array_add(all, entry_of(name, reply, "json", json));
        if (sd_bus_message_is_method_error(reply, NULL))
                return c->json ? cli_status(sd_bus_message_get_error(reply)->name)
                               : cli_refused(c, reply, "giving it to mdevctl");
        if (!c->json && c->values[OPT_DRY_RUN])
                (void) fprintf(c->out, "%s\n", json);
        else if (!c->json)
                (void) fprintf(c->out, "%s is mdevctl's now.\n", name);
        return CLI_DONE;
}

int verb_export(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *all = json_object_new_array();
        int r, result = CLI_DONE;
        size_t n = 0;

        r = check_tool(c, args[0]);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r != CLI_DONE)
                return r;

        for (char **name = args + 1; *name; name++, n++) {
                r = export_one(c, *name, all);
                result = worse(result, r);
        }
        tell(c, all, n);
        return result;
}
