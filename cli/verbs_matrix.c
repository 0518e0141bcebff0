/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs about matrices. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define MANAGER CLI_INTERFACE("Manager")
#define MATRIX  CLI_INTERFACE("Matrix")
#define XML_MAX (64 * 1024)

/* ---- looking ---- */

static const char *flags_of(json_object *o, char buf[static 64]) {
        static const struct {
                const char *key, *text;
        } flags[] = { { "autostart", "autostart" },
                      { "alternative", "alternative" },
                      { "from_host", "from-host" },
                      { "in_use", "in-use" } };
        json_object *problems = json_object_object_get(o, "problems");

        *buf = '\0';
        for (size_t i = 0; i < ELEMENTS(flags); i++)
                if (json_flag(o, flags[i].key))
                        (void) snprintf(buf + strlen(buf), 64 - strlen(buf), "%s%s", *buf ? "," : "",
                                        flags[i].text);
        if (problems && json_object_array_length(problems) > 0)
                (void) snprintf(buf + strlen(buf), 64 - strlen(buf), "%sproblems", *buf ? "," : "");

        return buf;
}

static int add_matrix(Table *t, json_object *o) {
        char adapters[AP_MASK_LIST_SIZE], domains[AP_MASK_LIST_SIZE], flags[64];

        return table_add(t, (const char *[]) { json_text(o, "name"), json_text(o, "state"),
                                               json_list(o, "adapters", adapters),
                                               json_list(o, "domains", domains), json_text(o, "owner"),
                                               flags_of(o, flags) });
}

int verb_list(Cli *c, char **args) {
        return cli_list(c, MATRIX, "name", add_matrix, 6,
                        (const char *[]) { "NAME", "STATE", "ADAPTERS", "DOMAINS", "GUEST", "FLAGS" });
}

/* The guest that it is for, and what it does. It may be no guest of this host's libvirt. */
static void print_guest(Cli *c, const char *name) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(json_putp) json_object *guest = NULL;
        const char *path;

        if (*name && cli_lookup(c, "GetGuest", name, &reply) == CLI_DONE &&
            !sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "o", &path) > 0)
                (void) cli_properties(c, path, CLI_INTERFACE("Guest"), &guest);

        (void) fprintf(c->out, "%-18s %s%s%s\n", "guest", *name ? name : "-", guest ? ", " : "",
                       json_text(guest, "state"));
}

static void print_matrix(Cli *c, json_object *o) {
        static const struct {
                const char *title, *key;
        } lists[] = {
                { "adapters", "adapters" },
                { "domains", "domains" },
                { "control domains", "control_domains" },
                { "guest's adapters", "guest_adapters" },
                { "guest's domains", "guest_domains" },
        };
        char list[AP_MASK_LIST_SIZE], flags[64];

        (void) fprintf(c->out, "%-18s %s\n", "name", json_text(o, "name"));
        (void) fprintf(c->out, "%-18s %s\n", "uuid", json_text(o, "uuid"));
        (void) fprintf(c->out, "%-18s %s\n", "state", json_text(o, "state"));
        for (size_t i = 0; i < ELEMENTS(lists); i++)
                (void) fprintf(c->out, "%-18s %s\n", lists[i].title, json_list(o, lists[i].key, list));
        print_guest(c, json_text(o, "owner"));
        (void) fprintf(c->out, "%-18s %d\n", "defined by uid", (int) json_number(o, "uid"));
        (void) fprintf(c->out, "%-18s %s\n", "flags", *flags_of(o, flags) ? flags : "-");
        cli_print_problems(c, o);
}

int verb_show(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *o = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetMatrix", args[0], &path);
        if (r == CLI_DONE)
                r = cli_object(c, path, MATRIX, &o);
        if (r == CLI_DONE && !cli_print_json(c, o))
                print_matrix(c, o);
        return r;
}

/* 3 is for queues that somebody has. With one that this machine cannot have, the matrix fails whoever has the others,
 * as its definition would. */
static int conflict_status(json_object *conflicts) {
        size_t n = conflicts ? json_object_array_length(conflicts) : 0;

        for (size_t i = 0; i < n; i++) {
                json_object *kind = json_object_array_get_idx(json_object_array_get_idx(conflicts, i), 2);

                if (strcmp(json_object_get_string(kind) ?: "", "limit") == 0)
                        return CLI_FAILED;
        }

        return n > 0 ? CLI_CONFLICT : CLI_DONE;
}

/* The conflicts, or @free_text. */
static int tell_conflicts(Cli *c, json_object *conflicts, const char *free_text) {
        CLEANUP(json_putp) json_object *doc = json_object_new_object();
        bool none = !conflicts || json_object_array_length(conflicts) == 0;
        json_object *list = NULL;
        int r = CLI_DONE;

        if (!none || c->json)
                r = cli_print_conflicts(c, conflicts, &list);
        if (r != CLI_DONE)
                return r;

        (void) json_object_object_add(doc, "free", json_object_new_boolean(none));
        (void) json_object_object_add(doc, "conflicts", list);
        if (!cli_print_json(c, doc) && none)
                (void) fprintf(c->out, "%s\n", free_text);

        return conflict_status(conflicts);
}

static int read_sets(Cli *c, ApMask sets[static 3]) {
        static const CliOption options[] = { OPT_ADAPTERS, OPT_DOMAINS, OPT_CONTROL };
        int r = CLI_DONE;

        for (size_t i = 0; r == CLI_DONE && i < ELEMENTS(options); i++)
                if (c->values[options[i]])
                        r = cli_option_mask(c, options[i], &sets[i]);

        return r;
}

static int append_sets(sd_bus_message *m, const ApMask sets[static 3]) {
        int r = 0;

        for (size_t i = 0; r >= 0 && i < 3; i++)
                r = cli_append_mask(m, &sets[i]);

        return r;
}

static int append_options(Cli *c, sd_bus_message *m) {
        static const CliSent sent[] = { { OPT_AUTOSTART, "autostart", SENT_TRUE },
                                        { OPT_START, "start", SENT_TRUE },
                                        { OPT_ALTERNATIVE, "alternative", SENT_TRUE },
                                        { OPT_FROM_HOST, "from-host", SENT_TRUE },
                                        { OPT_STOP, "stop", SENT_TRUE },
                                        { OPT_GUEST, "guest", SENT_TEXT },
                                        { OPT_SELF, "self", SENT_TEXT } };

        return cli_append_options(c, m, sent, ELEMENTS(sent));
}

int verb_check(Cli *c, char **args) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(json_putp) json_object *conflicts = NULL;
        ApMask sets[3] = {};
        int r;

        if (!c->values[OPT_ADAPTERS] || !c->values[OPT_DOMAINS])
                return cli_usage(c, "'check' needs --adapters and --domains");
        r = read_sets(c, sets);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "CheckMatrix", &m);
        if (r != CLI_DONE)
                return r;

        r = append_sets(m, sets);
        if (r >= 0)
                r = append_options(c, m);
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, "checking", &reply);
        if (r != CLI_DONE)
                return r;
        r = json_from_message(reply, &conflicts);
        if (r < 0)
                return cli_broken(c, r);

        return tell_conflicts(c, conflicts, "All of these queues are free.");
}

int verb_explain(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *conflicts = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetMatrix", args[0], &path);
        if (r == CLI_DONE)
                r = cli_ask(c, path, MATRIX, "Explain", "looking for conflicts", &conflicts);
        if (r != CLI_DONE)
                return r;

        return tell_conflicts(c, conflicts, "Nothing stands in its way.");
}

int verb_dumpxml(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *xml = NULL, *doc = json_object_new_object();
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetMatrix", args[0], &path);
        if (r == CLI_DONE)
                r = cli_ask(c, path, MATRIX, "GetXML", "reading the definition", &xml);
        if (r != CLI_DONE)
                return r;

        (void) json_object_object_add(doc, "xml", json_object_get(xml));
        if (!cli_print_json(c, doc))
                (void) fputs(json_text(doc, "xml"), c->out);

        return CLI_DONE;
}

/* ---- changing ---- */

/* What a verb that changed the matrix at @path prints: nothing but a line, or the object as JSON. */
static int tell_changed(Cli *c, const char *path, const char *done) {
        CLEANUP(json_putp) json_object *o = NULL;
        int r;

        if (!c->json) {
                (void) fprintf(c->out, "%s\n", done);
                return CLI_DONE;
        }

        r = cli_object(c, path, MATRIX, &o);
        if (r == CLI_DONE)
                (void) cli_print_json(c, o);
        return r;
}

static const char *defined_text(Cli *c) {
        return c->values[OPT_START] ? "defined and started" : "defined";
}

int verb_define(Cli *c, char **args) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        ApMask sets[3] = {};
        int r;

        if (!c->values[OPT_ADAPTERS] || !c->values[OPT_DOMAINS])
                return cli_usage(c, "'define' needs --adapters and --domains");
        r = read_sets(c, sets);
        if (r == CLI_DONE)
                r = cli_check_uuid(c, c->values[OPT_UUID]);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "DefineMatrix", &m);
        if (r != CLI_DONE)
                return r;

        r = sd_bus_message_append(m, "ss", args[0], c->values[OPT_UUID] ?: "");
        if (r >= 0)
                r = append_sets(m, sets);
        if (r >= 0)
                r = append_options(c, m);
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, "defining the matrix", &reply);
        return r == CLI_DONE ? cli_tell_made(c, reply, MATRIX, "Matrix", defined_text(c)) : r;
}

/* No more than the daemon accepts: what is larger is not even read. */
static int read_xml(Cli *c, const char *name, char **ret) {
        CLEANUP(fclosep) FILE *f = NULL;
        CLEANUP(freep) char *xml = NULL;
        char quoted[CLI_QUOTE_SIZE];
        size_t n;

        (void) cli_quote(name, quoted);
        f = strcmp(name, "-") == 0 ? fdopen(dup(STDIN_FILENO), "re") : fopen(name, "re");
        if (!f)
                return cli_error(c, NULL, "cannot open %s: %s", quoted, strerror(errno));

        xml = malloc(XML_MAX + 2);
        if (!xml)
                return cli_broken(c, -ENOMEM);

        n = fread(xml, 1, XML_MAX + 1, f);
        if (ferror(f))
                return cli_error(c, NULL, "cannot read %s: %s", quoted, strerror(errno));
        if (n > XML_MAX)
                return cli_error(c, NULL, "%s is longer than %d bytes, the most that a definition may have",
                                 quoted, XML_MAX);
        if (memchr(xml, '\0', n))
                return cli_error(c, NULL, "%s is no XML: it has a NUL byte", quoted);

        xml[n] = '\0';
        *ret = TAKE(xml);
        return CLI_DONE;
}

int verb_define_xml(Cli *c, char **args) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(freep) char *xml = NULL;
        int r;

        r = read_xml(c, args[0], &xml);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "DefineMatrixXML", &m);
        if (r != CLI_DONE)
                return r;

        r = sd_bus_message_append(m, "s", xml);
        if (r >= 0)
                r = append_options(c, m);
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, "defining the matrix", &reply);
        return r == CLI_DONE ? cli_tell_made(c, reply, MATRIX, "Matrix", defined_text(c)) : r;
}

static int set_autostart(Cli *c, const char *path, bool autostart) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = cli_call_new(c, path, MATRIX, "SetAutostart", &m);
        if (r != CLI_DONE)
                return r;
        r = sd_bus_message_append(m, "ba{sv}", (int) autostart, 0);
        if (r < 0)
                return cli_unsendable(c, r);

        return cli_call(c, m, "setting autostart", NULL);
}

/* What was not given stays as it is. */
static int modify_sets(Cli *c, const char *path) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        CLEANUP(json_putp) json_object *o = NULL;
        ApMask sets[3];
        int r;

        r = cli_properties(c, path, MATRIX, &o);
        if (r != CLI_DONE)
                return r;

        sets[0] = json_mask(json_object_object_get(o, "adapters"));
        sets[1] = json_mask(json_object_object_get(o, "domains"));
        sets[2] = json_mask(json_object_object_get(o, "control_domains"));
        r = read_sets(c, sets);
        if (r == CLI_DONE)
                r = cli_call_new(c, path, MATRIX, "Modify", &m);
        if (r != CLI_DONE)
                return r;

        r = append_sets(m, sets);
        if (r >= 0)
                r = sd_bus_message_append(m, "a{sv}", 0);
        if (r < 0)
                return cli_unsendable(c, r);

        return cli_call(c, m, "changing the matrix", NULL);
}

int verb_modify(Cli *c, char **args) {
        bool sets = c->values[OPT_ADAPTERS] || c->values[OPT_DOMAINS] || c->values[OPT_CONTROL];
        bool on = c->values[OPT_AUTOSTART], off = c->values[OPT_NO_AUTOSTART];
        CLEANUP(freep) char *path = NULL, *done = NULL;
        ApMask unused[3];
        int r;

        if (!sets && !on && !off)
                return cli_usage(c, "'modify' needs something to change; see 'guestcryptctl --help'");
        if (on && off)
                return cli_usage(c, "--autostart and --no-autostart exclude each other");

        r = read_sets(c, unused); /* usage errors come before anything is done */
        if (r == CLI_DONE)
                r = cli_find(c, "GetMatrix", args[0], &path);
        if (r == CLI_DONE && sets)
                r = modify_sets(c, path);
        if (r == CLI_DONE && (on || off))
                r = set_autostart(c, path, on);
        if (r != CLI_DONE)
                return r;

        if (asprintf(&done, "Matrix %s is changed.", args[0]) < 0) {
                done = NULL;
                return cli_broken(c, -ENOMEM);
        }
        return tell_changed(c, path, done);
}

/* Start, Stop, Undefine. */
static int act(Cli *c, const char *name, const char *method, const char *doing, const char *what) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        CLEANUP(freep) char *path = NULL, *now = NULL, *done = NULL;
        CLEANUP(json_putp) json_object *gone = json_object_new_object();
        int r;

        r = cli_find(c, "GetMatrix", name, &path);
        if (r == CLI_DONE)
                r = cli_call_new(c, path, MATRIX, method, &m);
        if (r != CLI_DONE)
                return r;

        r = append_options(c, m);
        if (r < 0)
                return cli_unsendable(c, r);
        if (asprintf(&now, "%s matrix %s", doing, name) < 0)
                now = NULL;
        if (asprintf(&done, "Matrix %s is %s.", name, what) < 0)
                done = NULL;
        if (!now || !done)
                return cli_broken(c, -ENOMEM);

        r = cli_call(c, m, now, NULL);
        if (r != CLI_DONE)
                return r;
        if (strcmp(method, "Undefine") != 0)
                return tell_changed(c, path, done);

        (void) json_object_object_add(gone, "path", json_object_new_string(path));
        if (!cli_print_json(c, gone))
                (void) fprintf(c->out, "%s\n", done);
        return CLI_DONE;
}

int verb_start(Cli *c, char **args) {
        return act(c, args[0], "Start", "Starting", "started");
}

int verb_stop(Cli *c, char **args) {
        return act(c, args[0], "Stop", "Stopping", "stopped");
}

int verb_undefine(Cli *c, char **args) {
        return act(c, args[0], "Undefine", "Undefining", "undefined");
}
