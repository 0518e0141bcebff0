/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs about the host: status, adapters, queues, masks, reconcile, reload. */

#include <errno.h>
#include <string.h>

#include "cli/cli.h"

#define MANAGER CLI_INTERFACE("Manager")

static void print_list(Cli *c, const char *title, json_object *o, const char *key) {
        char list[AP_MASK_LIST_SIZE];

        (void) fprintf(c->out, "%-18s %s\n", title, json_list(o, key, list));
}

int verb_status(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *o = NULL;
        json_object *problems;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_properties(c, CLI_BUS_ROOT, MANAGER, &o);
        if (r != CLI_DONE)
                return r;
        if (cli_print_json(c, o))
                return CLI_DONE;

        (void) fprintf(c->out, "%-18s %s%s\n", "guestcryptd", json_text(o, "version"),
                       json_flag(o, "settled") ? "" : ", still settling");
        (void) fprintf(c->out, "%-18s %d\n", "matrices", (int) json_number(o, "n_matrices"));
        (void) fprintf(c->out, "%-18s %d\n", "mediated devices", (int) json_number(o, "n_mdevs"));
        (void) fprintf(c->out, "%-18s %d\n", "guests", (int) json_number(o, "n_guests"));
        (void) fprintf(c->out, "%-18s %d\n", "TPMs", (int) json_number(o, "n_tpms"));
        (void) fprintf(c->out, "%-18s %s\n", "libvirt", json_text(o, "libvirt"));
        print_list(c, "adapters", o, "installed_adapters");
        print_list(c, "domains", o, "installed_domains");
        print_list(c, "control domains", o, "installed_control_domains");
        print_list(c, "host's adapters", o, "host_adapters");
        print_list(c, "host's domains", o, "host_domains");

        problems = json_object_object_get(o, "problems");
        for (size_t i = 0; problems && i < json_object_array_length(problems); i++)
                (void) fprintf(c->out, "%-18s %s%s%s\n", i == 0 ? "problems" : "",
                               c->colour ? "\033[31m" : "",
                               json_object_get_string(json_object_array_get_idx(problems, i)),
                               c->colour ? "\033[0m" : "");

        return CLI_DONE;
}

static const char *adapter_state(json_object *o) {
        if (json_flag(o, "checkstopped"))
                return "checkstopped";
        if (!json_flag(o, "configured"))
                return "deconfigured";

        return json_flag(o, "online") ? "online" : "offline";
}

static int add_adapter(Table *t, json_object *o) {
        char domains[AP_MASK_LIST_SIZE], host[AP_MASK_LIST_SIZE], assigned[AP_MASK_LIST_SIZE], id[8];

        (void) snprintf(id, sizeof id, "0x%02x", (unsigned) json_number(o, "id") & 0xff);
        return table_add(t, (const char *[]) { id, json_text(o, "type"), json_text(o, "mode"),
                                               adapter_state(o), json_list(o, "domains", domains),
                                               json_list(o, "host_domains", host),
                                               json_list(o, "assigned_domains", assigned) });
}

int verb_adapters(Cli *c, char **args) {
        return cli_list(c, CLI_INTERFACE("Adapter"), "id", add_adapter, 7,
                        (const char *[]) { "ADAPTER", "TYPE", "MODE", "STATE", "DOMAINS", "HOST'S",
                                           "ASSIGNED" });
}

static int append_filter(Cli *c, sd_bus_message *m) {
        static const struct {
                CliOption option;
                const char *name;
        } ids[] = { { OPT_ADAPTER, "adapter" }, { OPT_DOMAIN, "domain" } };
        uint16_t id;
        int r;

        r = sd_bus_message_open_container(m, 'a', "{sv}");
        for (size_t i = 0; r >= 0 && i < ELEMENTS(ids); i++)
                if (c->values[ids[i].option]) {
                        r = cli_option_id(c, ids[i].option, &id);
                        if (r != CLI_DONE)
                                return r;
                        r = sd_bus_message_append(m, "{sv}", ids[i].name, "q", id);
                }
        if (r >= 0 && c->values[OPT_FREE])
                r = sd_bus_message_append(m, "{sv}", "free", "b", 1);
        if (r >= 0 && c->values[OPT_OWNER])
                r = sd_bus_message_append(m, "{sv}", "owner", "s", c->values[OPT_OWNER]);
        if (r >= 0)
                r = sd_bus_message_close_container(m);

        return r < 0 ? cli_unsendable(c, r) : CLI_DONE;
}

/* (qqssa{sv}) as an object. */
static json_object *queue_object(json_object *tuple) {
        json_object *o = json_object_new_object(), *details = json_object_array_get_idx(tuple, 4);
        unsigned adapter = (unsigned) json_object_get_int(json_object_array_get_idx(tuple, 0));
        unsigned domain = (unsigned) json_object_get_int(json_object_array_get_idx(tuple, 1));
        char apqn[24];

        if (adapter < AP_IDS)
                (void) snprintf(apqn, sizeof apqn, "%02x.%04x", adapter, domain);
        else
                (void) snprintf(apqn, sizeof apqn, ".%04x",
                                domain); /* of a control domain, which is of no adapter */
        (void) json_object_object_add(o, "apqn", json_object_new_string(apqn));
        (void) json_object_object_add(o, "adapter", json_object_new_int((int) adapter));
        (void) json_object_object_add(o, "domain", json_object_new_int((int) domain));
        (void) json_object_object_add(o, "owner_kind", json_object_get(json_object_array_get_idx(tuple, 2)));
        (void) json_object_object_add(o, "owner", json_object_get(json_object_array_get_idx(tuple, 3)));
        if (details) {
                json_object_object_foreach(details, key, value)(void)
                        json_object_object_add(o, key, json_object_get(value));
        }

        return o;
}

static json_object *queue_objects(json_object *tuples) {
        json_object *array = json_object_new_array();

        for (size_t i = 0; tuples && i < json_object_array_length(tuples); i++)
                (void) json_object_array_add(array, queue_object(json_object_array_get_idx(tuples, i)));

        return array;
}

int cli_queues(Cli *c, json_object **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(json_putp) json_object *tuples = NULL;
        int r;

        r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "ListQueues", &m);
        if (r == CLI_DONE)
                r = append_filter(c, m);
        if (r == CLI_DONE)
                r = cli_call(c, m, "listing queues", &reply);
        if (r != CLI_DONE)
                return r;

        r = json_from_message(reply, &tuples);
        if (r < 0)
                return cli_broken(c, r);

        *ret = queue_objects(tuples);
        return CLI_DONE;
}

int verb_queues(Cli *c, char **args) {
        CLEANUP(table_freep) Table *t = NULL;
        CLEANUP(json_putp) json_object *all = NULL;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_queues(c, &all);
        if (r != CLI_DONE)
                return r;
        if (cli_print_json(c, all))
                return CLI_DONE;

        t = table_new(5, (const char *[]) { "QUEUE", "MODE", "DRIVER", "HELD BY", "OWNER" });
        r = t ? 0 : -ENOMEM;
        for (size_t i = 0; r >= 0 && i < json_object_array_length(all); i++) {
                json_object *o = json_object_array_get_idx(all, i);

                r = table_add(t, (const char *[]) { json_text(o, "apqn"), json_text(o, "mode"),
                                                    json_text(o, "driver"), json_text(o, "owner_kind"),
                                                    json_text(o, "owner") });
        }
        if (r < 0)
                return cli_broken(c, r);

        table_print(t, c->out, c->colour);
        return CLI_DONE;
}

int cli_print_conflicts(Cli *c, json_object *conflicts, json_object **ret_json) {
        CLEANUP(json_putp) json_object *all = queue_objects(conflicts);
        CLEANUP(table_freep) Table *t = NULL;
        int r;

        if (c->json) {
                *ret_json = TAKE(all);
                return CLI_DONE;
        }

        t = table_new(3, (const char *[]) { "QUEUE", "HELD BY", "OWNER" });
        r = t ? 0 : -ENOMEM;
        for (size_t i = 0; r >= 0 && i < json_object_array_length(all); i++) {
                json_object *o = json_object_array_get_idx(all, i);
                const char *kind = json_text(o, "owner_kind");

                if (strcmp(kind, "limit") == 0)
                        r = table_add(t, (const char *[]) { json_text(o, "apqn"), "nobody",
                                                            "not installed: above the machine's maximum" });
                else
                        r = table_add(t, (const char *[]) { json_text(o, "apqn"), kind,
                                                            json_text(o, "owner") });
        }
        if (r < 0)
                return cli_broken(c, r);

        table_print(t, c->out, c->colour);
        *ret_json = NULL;
        return CLI_DONE;
}

static int set_masks(Cli *c) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        ApMask adapters, domains;
        int r;

        if (!c->values[OPT_ADAPTERS] || !c->values[OPT_DOMAINS])
                return cli_usage(c, "both --adapters and --domains are needed ('none' for none of them)");
        r = cli_option_mask(c, OPT_ADAPTERS, &adapters);
        if (r == CLI_DONE)
                r = cli_option_mask(c, OPT_DOMAINS, &domains);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "SetHostMasks", &m);
        if (r != CLI_DONE)
                return r;

        r = cli_append_mask(m, &adapters);
        if (r >= 0)
                r = cli_append_mask(m, &domains);
        if (r >= 0)
                r = sd_bus_message_append(m, "a{sv}", 0);
        if (r < 0)
                return cli_unsendable(c, r);

        return cli_call(c, m, "setting the host's masks", NULL);
}

int verb_masks(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *all = NULL, *o = json_object_new_object();
        int r;

        if (c->values[OPT_ADAPTERS] || c->values[OPT_DOMAINS])
                r = set_masks(c);
        else
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_properties(c, CLI_BUS_ROOT, MANAGER, &all);
        if (r != CLI_DONE)
                return r;

        (void) json_object_object_add(o, "adapters",
                                      json_object_get(json_object_object_get(all, "host_adapters")));
        (void) json_object_object_add(o, "domains",
                                      json_object_get(json_object_object_get(all, "host_domains")));
        if (cli_print_json(c, o))
                return CLI_DONE;

        print_list(c, "host's adapters", o, "adapters");
        print_list(c, "host's domains", o, "domains");
        return CLI_DONE;
}

int verb_reconcile(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *healed = NULL, *all = json_object_new_array();
        int r, result = CLI_DONE;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_ask(c, CLI_BUS_ROOT, MANAGER, "Reconcile", "reconciling", &healed);
        if (r != CLI_DONE)
                return r;

        for (size_t i = 0; healed && i < json_object_array_length(healed); i++) {
                json_object *pair = json_object_array_get_idx(healed, i), *o = json_object_new_object();

                (void) json_object_object_add(o, "name",
                                              json_object_get(json_object_array_get_idx(pair, 0)));
                (void) json_object_object_add(o, "what",
                                              json_object_get(json_object_array_get_idx(pair, 1)));
                (void) json_object_array_add(all, o);
                if (strcmp(json_text(o, "what"), "healed") != 0)
                        result = CLI_FAILED;
        }
        if (cli_print_json(c, all))
                return result;

        for (size_t i = 0; i < json_object_array_length(all); i++) {
                json_object *o = json_object_array_get_idx(all, i);

                (void) fprintf(c->out, "%s: %s\n", json_text(o, "name"), json_text(o, "what"));
        }
        if (json_object_array_length(all) == 0)
                (void) fputs("Nothing to heal.\n", c->out);

        return result;
}

int verb_reload(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *none = NULL, *empty = json_object_new_object();
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_ask(c, CLI_BUS_ROOT, MANAGER, "Reload", "reloading", &none);
        if (r == CLI_DONE)
                (void) cli_print_json(c, empty);

        return r;
}
