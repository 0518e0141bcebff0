/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs about libvirt's guests. */

#include <errno.h>
#include <string.h>

#include "cli/cli.h"

#define MANAGER CLI_INTERFACE("Manager")
#define GUEST   CLI_INTERFACE("Guest")

/* ---- looking ---- */

/* What the guest has now, or will have when it is started. */
static const char *in_effect(json_object *o, const char *key, const char *live_key) {
        return json_text(o, json_flag(o, "active") ? live_key : key);
}

/* Whether a running guest has something else than its next start gives it. */
static bool is_pending(json_object *o) {
        static const char *const keys[][2] = { { "matrix", "live_matrix" },
                                               { "tpm", "live_tpm" },
                                               { "tpm_model", "live_tpm_model" } };

        if (!json_flag(o, "active") || !json_flag(o, "persistent"))
                return false;
        for (size_t i = 0; i < ELEMENTS(keys); i++)
                if (strcmp(json_text(o, keys[i][0]), json_text(o, keys[i][1])) != 0)
                        return true;

        return false;
}

static const char *flags_of(json_object *o, char buf[static 64]) {
        json_object *problems = json_object_object_get(o, "problems");
        bool transient = !json_flag(o, "persistent"), pending = is_pending(o);
        bool troubled = problems && json_object_array_length(problems) > 0;

        (void) snprintf(buf, 64, "%s%s%s%s%s", transient ? "transient" : "",
                        transient && troubled ? "," : "", pending ? "next-start" : "",
                        pending && troubled ? "," : "", troubled ? "problems" : "");
        return buf;
}

static int add_guest(Table *t, json_object *o) {
        char flags[64];

        return table_add(t, (const char *[]) {
                                    json_text(o, "name"), json_text(o, "state"),
                                    in_effect(o, "matrix", "live_matrix"), in_effect(o, "tpm", "live_tpm"),
                                    in_effect(o, "tpm_model", "live_tpm_model"), flags_of(o, flags) });
}

int verb_guest_list(Cli *c, char **args) {
        return cli_list(c, GUEST, "name", add_guest, 6,
                        (const char *[]) { "NAME", "STATE", "MATRIX", "TPM", "MODEL", "FLAGS" });
}

static const char *or_dash(const char *s) {
        return *s ? s : "-";
}

static void print_tpm(Cli *c, const char *title, json_object *o, const char *key, const char *model_key) {
        const char *model = json_text(o, model_key);

        (void) fprintf(c->out, "%-18s %s%s%s%s\n", title, or_dash(json_text(o, key)), *model ? " (" : "",
                       model, *model ? ")" : "");
}

static void print_guest(Cli *c, json_object *o) {
        bool persistent = json_flag(o, "persistent");

        (void) fprintf(c->out, "%-18s %s\n", "name", json_text(o, "name"));
        (void) fprintf(c->out, "%-18s %s\n", "uuid", json_text(o, "uuid"));
        (void) fprintf(c->out, "%-18s %s%s\n", "state", json_text(o, "state"),
                       persistent ? "" : ", transient");
        if (json_flag(o, "active")) {
                (void) fprintf(c->out, "%-18s %s\n", "matrix now", or_dash(json_text(o, "live_matrix")));
                print_tpm(c, "TPM now", o, "live_tpm", "live_tpm_model");
        }
        if (persistent) {
                (void) fprintf(c->out, "%-18s %s\n", "matrix at start", or_dash(json_text(o, "matrix")));
                print_tpm(c, "TPM at start", o, "tpm", "tpm_model");
        }
        cli_print_problems(c, o);
}

int verb_guest_show(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *o = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetGuest", args[0], &path);
        if (r == CLI_DONE)
                r = cli_object(c, path, GUEST, &o);
        if (r != CLI_DONE)
                return r;

        if (!cli_print_json(c, o))
                print_guest(c, o);
        return CLI_DONE;
}

/* ---- changing ---- */

/* A line, and what is to be known besides; or the guest as JSON with the notes. A TPM's line has its model, which may have
 * been chosen. */
static int tell_changed(Cli *c, const char *path, json_object *notes, const char *what, const char *name,
                        const char *done) {
        CLEANUP(json_putp) json_object *o = NULL;
        const char *model;
        int r;

        r = cli_object(c, path, GUEST, &o);
        if (r != CLI_DONE)
                return r;

        (void) json_object_object_add(o, "notes", json_object_get(notes));
        if (cli_print_json(c, o))
                return CLI_DONE;

        model = strcmp(what, "TPM") == 0 ? json_text(o, "tpm_model") : "";
        (void) fprintf(c->out, "%s%s%s%s%s%s %s guest %s.\n", what, name ? " " : "", name ?: "",
                       *model ? " (" : "", model, *model ? ")" : "", done, json_text(o, "name"));
        for (size_t i = 0; notes && i < json_object_array_length(notes); i++)
                (void) fprintf(c->out, "Note: %s\n",
                               json_object_get_string(json_object_array_get_idx(notes, i)));
        return CLI_DONE;
}

/* Calls @method of the guest at @path with @name (if it is not NULL) and the options that were given. Also returns an error as
 * reply. */
static int wire(Cli *c, const char *path, const char *method, const char *name, const char *doing,
                sd_bus_message **ret) {
        static const CliSent sent[] = { { OPT_NO_LIVE, "live", SENT_FALSE },
                                        { OPT_MODEL, "model", SENT_TEXT } };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = cli_call_new(c, path, GUEST, method, &m);
        if (r != CLI_DONE)
                return r;

        r = name ? sd_bus_message_append(m, "s", name) : 0;
        if (r >= 0)
                r = cli_append_options(c, m, sent, ELEMENTS(sent));
        if (r < 0)
                return cli_unsendable(c, r);

        return cli_exchange(c, m, doing, ret);
}

static int wire_and_tell(Cli *c, char **args, const char *method, const char *doing, const char *what,
                         const char *done) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(json_putp) json_object *notes = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetGuest", args[0], &path);
        if (r == CLI_DONE)
                r = wire(c, path, method, args[1], doing, &reply);
        if (r != CLI_DONE)
                return r;
        if (sd_bus_message_is_method_error(reply, NULL))
                return cli_refused(c, reply, doing);

        r = json_from_message(reply, &notes);
        return r < 0 ? cli_broken(c, r) : tell_changed(c, path, notes, what, args[1], done);
}

int verb_guest_attach_matrix(Cli *c, char **args) {
        return wire_and_tell(c, args, "AttachMatrix", "attaching the matrix", "Matrix", "is attached to");
}

int verb_guest_detach_matrix(Cli *c, char **args) {
        return wire_and_tell(c, args, "DetachMatrix", "detaching the matrix", "The matrix",
                             "is detached from");
}

int verb_guest_detach_tpm(Cli *c, char **args) {
        return wire_and_tell(c, args, "DetachTpm", "detaching the TPM", "The TPM", "is detached from");
}

/* The TPM with the guest's name is there, or it is defined for the guest: then *ret is its path, else NULL. */
static int ensure_tpm(Cli *c, const char *name, char **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *found = NULL, *m = NULL, *reply = NULL;
        const sd_bus_error *e;
        int r;

        r = cli_lookup(c, "GetTpm", name, &found);
        if (r != CLI_DONE)
                return r;
        *ret = NULL;
        e = sd_bus_message_get_error(found);
        if (!e)
                return CLI_DONE;
        if (!sd_bus_error_has_name(e, CLI_BUS_NAME ".Error.NoSuchTpm"))
                return cli_refused(c, found, "looking the TPM up");

        r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "DefineTpm", &m);
        if (r != CLI_DONE)
                return r;
        r = sd_bus_message_append(m, "ssa{sv}", name, "", 1, "guest", "s", name);
        if (r < 0)
                return cli_unsendable(c, r);
        r = cli_exchange(c, m, "defining the guest's TPM", &reply);
        if (r != CLI_DONE)
                return r;

        e = sd_bus_message_get_error(reply);
        if (e &&
            sd_bus_error_has_name(e, SD_BUS_ERROR_INVALID_ARGS)) /* guests may have names that TPMs cannot */
                return cli_error(c, e->name, "no TPM can be defined as '%s': %s; name one with --tpm", name,
                                 e->message ?: e->name);

        return e ? cli_refused(c, reply, "defining the guest's TPM") : cli_read_path(c, reply, ret);
}

/* Whether the guest certainly has no TPM for this reason. With libvirt gone in the middle of a change it may have. */
static bool is_refusal(const sd_bus_error *why) {
        static const char prefix[] = CLI_BUS_NAME ".Error.";

        return strncmp(why->name, prefix, strlen(prefix)) == 0 &&
               strcmp(why->name + strlen(prefix), "BackendUnavailable") != 0;
}

/* What was defined for a guest that has refused it is of no use. */
static bool undo_define(Cli *c, const char *path, const sd_bus_error *why) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;

        if (!is_refusal(why) || cli_call_new(c, path, CLI_INTERFACE("Tpm"), "Undefine", &m) != CLI_DONE ||
            sd_bus_message_append(m, "a{sv}", 1, "wipe", "b", 1) < 0)
                return false;

        return cli_exchange(c, m, "undefining the TPM", &reply) == CLI_DONE &&
               !sd_bus_message_is_method_error(reply, NULL);
}

static int attach_tpm(Cli *c, const char *path, const char *name, const char *defined) {
        static const char doing[] = "attaching the TPM";
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(json_putp) json_object *notes = NULL;
        const sd_bus_error *e;
        int r;

        r = wire(c, path, "AttachTpm", name, doing, &reply);
        if (r != CLI_DONE)
                return r;

        e = sd_bus_message_get_error(reply);
        if (e && defined)
                return cli_error(c, e->name, "%s (TPM '%s', which was made for this, is %s)",
                                 e->message ?: e->name, name,
                                 undo_define(c, defined, e) ? "undefined again" : "still defined");
        if (e)
                return cli_refused(c, reply, doing);

        r = json_from_message(reply, &notes);
        return r < 0 ? cli_broken(c, r) : tell_changed(c, path, notes, "TPM", name, "is attached to");
}

int verb_guest_attach_tpm(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *guest = NULL;
        CLEANUP(freep) char *path = NULL, *defined = NULL;
        const char *name = c->values[OPT_TPM];
        int r;

        r = cli_check_model(c);
        if (r == CLI_DONE)
                r = cli_find(c, "GetGuest", args[0], &path);
        if (r == CLI_DONE && !name) { /* it may have been found by its UUID */
                r = cli_properties(c, path, GUEST, &guest);
                name = json_text(guest, "name");
                if (r == CLI_DONE)
                        r = ensure_tpm(c, name, &defined);
        }

        return r == CLI_DONE ? attach_tpm(c, path, name, defined) : r;
}
