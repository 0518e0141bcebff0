/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs about TPMs. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cli/cli.h"

#define MANAGER CLI_INTERFACE("Manager")
#define TPM     CLI_INTERFACE("Tpm")

/* ---- looking ---- */

static const char *flags_of(json_object *o, char buf[static 64]) {
        json_object *problems = json_object_object_get(o, "problems");
        const struct {
                bool set;
                const char *text;
        } flags[] = { { json_flag(o, "ephemeral"), "ephemeral" },
                      { json_flag(o, "encrypted"), "encrypted" },
                      { problems && json_object_array_length(problems) > 0, "problems" } };

        *buf = '\0';
        for (size_t i = 0; i < ELEMENTS(flags); i++)
                if (flags[i].set)
                        (void) snprintf(buf + strlen(buf), 64 - strlen(buf), "%s%s", *buf ? "," : "",
                                        flags[i].text);

        return buf;
}

static int add_tpm(Table *t, json_object *o) {
        char flags[64];

        return table_add(t, (const char *[]) { json_text(o, "name"), json_text(o, "state"),
                                               json_text(o, "model"), json_text(o, "guest"),
                                               flags_of(o, flags) });
}

int verb_tpm_list(Cli *c, char **args) {
        return cli_list(c, TPM, "name", add_tpm, 5,
                        (const char *[]) { "NAME", "STATE", "MODEL", "GUEST", "FLAGS" });
}

/* Counters are the device's, which crb and tis have not. That they cannot be had is no reason to show nothing. */
static int add_counters(Cli *c, json_object *o) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        json_object *counters = NULL;
        int r;

        if (strcmp(json_text(o, "model"), "virtio") != 0)
                return CLI_DONE;

        r = cli_call_new(c, json_text(o, "path"), TPM, "GetCounters", &m);
        if (r == CLI_DONE)
                r = cli_exchange(c, m, "reading the TPM's counters", &reply);
        if (r != CLI_DONE)
                return r;
        if (sd_bus_message_is_method_error(reply, NULL)) {
                (void) json_object_object_add(o, "counters_error",
                                              json_object_new_string(sd_bus_message_get_error(reply)->message
                                                                             ?: ""));
                return CLI_DONE;
        }

        r = json_from_message(reply, &counters);
        if (r < 0)
                return cli_broken(c, r);
        (void) json_object_object_add(o, "counters", counters);
        return CLI_DONE;
}

static void print_denied(Cli *c, json_object *codes) {
        size_t n = codes ? json_object_array_length(codes) : 0;

        (void) fprintf(c->out, "%-18s ", "denied commands");
        for (size_t i = 0; i < n; i++)
                (void) fprintf(c->out, "%s0x%x", i ? "," : "",
                               (unsigned) json_object_get_int64(json_object_array_get_idx(codes, i)));
        (void) fputs(n ? "\n" : "-\n", c->out);
}

static void print_tpm(Cli *c, json_object *o) {
        static const struct {
                const char *title, *key;
        } texts[] = {
                { "name", "name" },   { "uuid", "uuid" },           { "state", "state" },
                { "model", "model" }, { "guest", "guest" },         { "PCR banks", "pcr_banks" },
        }, sockets[] = {
                { "device's socket", "device_socket" }, { "swtpm's socket", "swtpm_socket" },
        };
        json_object *counters = json_object_object_get(o, "counters");
        char flags[64];

        for (size_t i = 0; i < ELEMENTS(texts); i++)
                (void) fprintf(c->out, "%-18s %s\n", texts[i].title,
                               *json_text(o, texts[i].key) ? json_text(o, texts[i].key) : "-");
        (void) fprintf(c->out, "%-18s %s\n", "flags", *flags_of(o, flags) ? flags : "-");
        print_denied(c, json_object_object_get(o, "denied"));
        for (size_t i = 0; i < ELEMENTS(sockets); i++)
                (void) fprintf(c->out, "%-18s %s\n", sockets[i].title,
                               *json_text(o, sockets[i].key) ? json_text(o, sockets[i].key) : "-");
        (void) fprintf(c->out, "%-18s %u\n", "own uid", (unsigned) json_number(o, "own_uid"));
        (void) fprintf(c->out, "%-18s %u\n", "defined by uid", (unsigned) json_number(o, "uid"));
        cli_print_problems(c, o);
        if (*json_text(o, "counters_error"))
                (void) fprintf(c->out, "%-18s %s\n", "no counters", json_text(o, "counters_error"));
        if (counters) {
                (void) fputs("counters\n", c->out);
                json_object_object_foreach(counters, name, value)(void)
                        fprintf(c->out, "  %-16s %s\n", name, json_object_get_string(value));
        }
}

int verb_tpm_show(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *o = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetTpm", args[0], &path);
        if (r == CLI_DONE)
                r = cli_object(c, path, TPM, &o);
        if (r == CLI_DONE)
                r = add_counters(c, o);
        if (r != CLI_DONE)
                return r;

        if (!cli_print_json(c, o))
                print_tpm(c, o);
        return CLI_DONE;
}

/* ---- making ---- */

/* What the arguments of verbs that make a TPM alone show. */
static int check_options(Cli *c) {
        static const CliOption files[] = { OPT_KEY_FILE, OPT_CA_CONFIG };
        int r;

        r = cli_check_uuid(c, c->values[OPT_UUID]);
        if (r == CLI_DONE)
                r = cli_check_codes(c);
        for (size_t i = 0; r == CLI_DONE && i < ELEMENTS(files); i++)
                if (c->values[files[i]])
                        r = cli_check_path(c, c->values[files[i]]);

        return r;
}

int verb_tpm_define(Cli *c, char **args) {
        static const CliSent sent[] = { { OPT_GUEST, "guest", SENT_TEXT },
                                        { OPT_EPHEMERAL, "ephemeral", SENT_TRUE },
                                        { OPT_ENCRYPTED, "encrypted", SENT_TRUE },
                                        { OPT_KEY_FILE, "key-file", SENT_PATH },
                                        { OPT_PCR_BANKS, "pcr-banks", SENT_TEXT },
                                        { OPT_PROFILE, "profile", SENT_TEXT },
                                        { OPT_CA_CONFIG, "ca-config", SENT_PATH },
                                        { OPT_NO_CERTIFICATES, "certificates", SENT_FALSE },
                                        { OPT_PLATFORM_KEEP, "platform-keep", SENT_TRUE },
                                        { OPT_DENY, "deny", SENT_CODES } };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        int r;

        r = check_options(c);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "DefineTpm", &m);
        if (r != CLI_DONE)
                return r;

        r = sd_bus_message_append(m, "ss", args[0], c->values[OPT_UUID] ?: "");
        if (r >= 0)
                r = cli_append_options(c, m, sent, ELEMENTS(sent));
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, "making the TPM", &reply);
        return r == CLI_DONE ? cli_tell_made(c, reply, TPM, "TPM", "defined") : r;
}

int verb_tpm_import(Cli *c, char **args) {
        static const CliSent sent[] = { { OPT_UUID, "uuid", SENT_TEXT },
                                        { OPT_GUEST, "guest", SENT_TEXT },
                                        { OPT_KEY_FILE, "key-file", SENT_PATH },
                                        { OPT_PLATFORM_KEEP, "platform-keep", SENT_TRUE },
                                        { OPT_DENY, "deny", SENT_CODES } };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(freep) char *directory = NULL;
        int r;

        r = check_options(c);
        if (r == CLI_DONE)
                r = cli_check_path(c, args[0]);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "ImportTpm", &m);
        if (r != CLI_DONE)
                return r;

        r = cli_absolute(args[0], &directory);
        if (r >= 0)
                r = sd_bus_message_append(m, "ss", directory, args[1]);
        if (r >= 0)
                r = cli_append_options(c, m, sent, ELEMENTS(sent));
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, "importing the TPM", &reply);
        return r == CLI_DONE ? cli_tell_made(c, reply, TPM, "TPM", "imported") : r;
}

/* An open file goes through the bus, but not through ssh. */
static int check_local(Cli *c, const char *verb) {
        if (c->values[OPT_HOST])
                return cli_usage(c, "'%s' hands an open file to the daemon, which --host cannot", verb);

        return CLI_DONE;
}

int verb_tpm_restore(Cli *c, char **args) {
        static const CliSent sent[] = { { OPT_UUID, "uuid", SENT_TEXT }, { OPT_GUEST, "guest", SENT_TEXT } };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(fd_closep) int fd = -1;
        char quoted[CLI_QUOTE_SIZE];
        int r;

        r = check_options(c);
        if (r == CLI_DONE)
                r = check_local(c, "tpm-restore");
        if (r != CLI_DONE)
                return r;

        fd = open(args[0], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return cli_error(c, NULL, "cannot open %s: %s", cli_quote(args[0], quoted), strerror(errno));

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, MANAGER, "RestoreTpm", &m);
        if (r != CLI_DONE)
                return r;

        r = sd_bus_message_append(m, "hs", fd, c->values[OPT_NAME] ?: "");
        if (r >= 0)
                r = cli_append_options(c, m, sent, ELEMENTS(sent));
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, "restoring the TPM", &reply);
        return r == CLI_DONE ? cli_tell_made(c, reply, TPM, "TPM", "restored") : r;
}

/* ---- running, forgetting ---- */

/* Also returns an error as reply. */
static int act(Cli *c, const char *path, const char *method, const char *doing, sd_bus_message **ret) {
        static const CliSent sent[] = { { OPT_MODEL, "model", SENT_TEXT }, { OPT_WIPE, "wipe", SENT_TRUE } };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = cli_call_new(c, path, TPM, method, &m);
        if (r != CLI_DONE)
                return r;
        r = cli_append_options(c, m, sent, ELEMENTS(sent));
        if (r < 0)
                return cli_unsendable(c, r);

        return cli_exchange(c, m, doing, ret);
}

static int act_and_tell(Cli *c, const char *name, const char *method, const char *doing, const char *what) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_check_model(c);
        if (r == CLI_DONE)
                r = cli_find(c, "GetTpm", name, &path);
        if (r == CLI_DONE)
                r = act(c, path, method, doing, &reply);
        if (r != CLI_DONE)
                return r;
        if (sd_bus_message_is_method_error(reply, NULL))
                return cli_refused(c, reply, doing);

        return cli_tell(c, path, TPM, "TPM", what);
}

int verb_tpm_start(Cli *c, char **args) {
        return act_and_tell(c, args[0], "Start", "starting the TPM", "started");
}

int verb_tpm_stop(Cli *c, char **args) {
        return act_and_tell(c, args[0], "Stop", "stopping the TPM", "stopped");
}

/* A TPM that does not run and cannot be forgotten has state, which somebody may miss. */
static int refuse_undefine(Cli *c, const char *path, const char *name, sd_bus_message *reply) {
        const sd_bus_error *e = sd_bus_message_get_error(reply);
        CLEANUP(json_putp) json_object *o = NULL;

        if (c->values[OPT_WIPE] || !sd_bus_error_has_name(e, CLI_BUS_NAME ".Error.BadState") ||
            cli_properties(c, path, TPM, &o) != CLI_DONE || *json_text(o, "model"))
                return cli_refused(c, reply, "undefining the TPM");

        return cli_error(c, e->name, "%s (--wipe; 'guestcryptctl tpm-backup %s FILE' saves it first)",
                         e->message ?: e->name, name);
}

int verb_tpm_undefine(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *gone = json_object_new_object();
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetTpm", args[0], &path);
        if (r == CLI_DONE)
                r = act(c, path, "Undefine", "undefining the TPM", &reply);
        if (r != CLI_DONE)
                return r;
        if (sd_bus_message_is_method_error(reply, NULL))
                return refuse_undefine(c, path, args[0], reply);

        (void) json_object_object_add(gone, "path", json_object_new_string(path));
        if (!cli_print_json(c, gone))
                (void) fprintf(c->out, "TPM %s is undefined.\n", args[0]);
        return CLI_DONE;
}

/* ---- saving ---- */

static int save(Cli *c, const char *name, int fd) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        CLEANUP(freep) char *path = NULL;
        int r;

        r = cli_find(c, "GetTpm", name, &path);
        if (r == CLI_DONE)
                r = cli_call_new(c, path, TPM, "Backup", &m);
        if (r != CLI_DONE)
                return r;
        r = sd_bus_message_append(m, "ha{sv}", fd, 0);
        if (r < 0)
                return cli_unsendable(c, r);

        return cli_call(c, m, "saving the TPM", NULL);
}

int verb_tpm_backup(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *doc = json_object_new_object();
        CLEANUP(cli_output_discard) CliOutput output = { .fd = -1 };
        char quoted[CLI_QUOTE_SIZE];
        off_t size;
        int r;

        r = check_local(c, "tpm-backup");
        if (r != CLI_DONE)
                return r;

        r = cli_output_begin(args[1], c->values[OPT_FORCE], &output);
        if (r == -EEXIST)
                return cli_error(c, NULL, "%s is there already; --force replaces it",
                                 cli_quote(args[1], quoted));
        if (r == -EINVAL)
                return cli_error(c, NULL, "%s is there already, and no file", cli_quote(args[1], quoted));
        if (r < 0)
                return cli_error(c, NULL, "cannot write %s: %s", cli_quote(args[1], quoted), strerror(-r));

        r = save(c, args[0], output.fd);
        if (r != CLI_DONE)
                return r;
        r = cli_output_finish(&output, &size);
        if (r < 0)
                return cli_error(c, NULL, "cannot write %s: %s", cli_quote(args[1], quoted), strerror(-r));

        (void) json_object_object_add(doc, "file", json_object_new_string(args[1]));
        (void) json_object_object_add(doc, "size", json_object_new_int64(size));
        if (!cli_print_json(c, doc))
                (void) fprintf(c->out, "TPM %s is saved in %s: whoever has that file has the TPM.\n",
                               args[0], args[1]);
        return CLI_DONE;
}
