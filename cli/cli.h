/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* guestcryptctl - what its files share. Every verb asks the daemon, has the answer as one JSON value, and
 * prints that value or a text made from it. */

#include <stdio.h>
#include <systemd/sd-bus.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "core/ap_mask.h"

#define CLI_BUS_NAME        "org.guestcrypt1"
#define CLI_BUS_ROOT        "/org/guestcrypt1"
#define CLI_INTERFACE(name) CLI_BUS_NAME "." name

/* Exit statuses are interface. */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_CONFLICT = 3 };

typedef enum CliOption {
        OPT_JSON,
        OPT_HOST,
        OPT_NO_ASK_PASSWORD,
        OPT_HELP,
        OPT_VERSION, /* of all verbs */
        OPT_ADAPTERS,
        OPT_DOMAINS,
        OPT_CONTROL,
        OPT_UUID,
        OPT_GUEST,
        OPT_AUTOSTART,
        OPT_NO_AUTOSTART,
        OPT_START,
        OPT_ALTERNATIVE,
        OPT_FROM_HOST,
        OPT_STOP,
        OPT_SELF,
        OPT_ATTR,
        OPT_ADAPTER,
        OPT_DOMAIN,
        OPT_FREE,
        OPT_OWNER,
        OPT_NO_LIVE,
        OPT_TPM,
        OPT_MODEL,
        OPT_EPHEMERAL,
        OPT_ENCRYPTED,
        OPT_KEY_FILE,
        OPT_PCR_BANKS,
        OPT_PROFILE,
        OPT_CA_CONFIG,
        OPT_NO_CERTIFICATES,
        OPT_PLATFORM_KEEP,
        OPT_DENY,
        OPT_WIPE,
        OPT_NAME,
        OPT_FORCE,
        OPT_ALL,
        OPT_DRY_RUN,
        OPT_TAKE_OTHERS,
        OPT_BY,
        _OPT_MAX
} CliOption;

#define OPT_BIT(option) (UINT64_C(1) << (option))
#define CLI_ATTRS_MAX   256
#define CLI_CODES_MAX   64 /* TPM commands that are denied */

typedef struct Cli {
        sd_bus *bus;
        FILE *out, *err;
        bool json, colour, progress;
        unsigned columns;
        const char *values[_OPT_MAX];     /* "" for a switch; NULL: not given */
        const char *attrs[CLI_ATTRS_MAX]; /* of --attr, which may be repeated */
        size_t n_attrs;
} Cli;

typedef struct CliVerb {
        const char *name, *args, *help;
        int min_args, max_args; /* without the verb itself; -1: any number */
        uint64_t options;
        int (*run)(Cli *c, char **args); /* NULL-terminated; returns the exit status */
} CliVerb;

/* Parses arguments, connects, runs the verb. Returns the exit status. */
int cli_main(int argc, char **argv, FILE *out, FILE *err);

/* ---- errors: one line on stderr, or one JSON document on stdout; they return the exit status ---- */

#define CLI_QUOTE_MAX  60
#define CLI_QUOTE_SIZE (CLI_QUOTE_MAX + 6)
/* What was typed, in quotes, shortened so that the line can be read. Returns @buf. */
const char *cli_quote(const char *arg, char buf[static CLI_QUOTE_SIZE]);

int cli_usage(Cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* @name: the error's name on the bus, or NULL */
int cli_error(Cli *c, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
int cli_errno(Cli *c, int r, const char *doing);
/* The exit status for the error of that name. */
int cli_status(const char *name);

/* ---- client.c: calls. All return an exit status; other than CLI_DONE the error is already told ---- */

int cli_connect(Cli *c);
int cli_call_new(Cli *c, const char *path, const char *interface, const char *method, sd_bus_message **ret);
/* @doing completes "guestcryptctl: ..." while it takes long: "starting 'x'". */
int cli_call(Cli *c, sd_bus_message *m, const char *doing, sd_bus_message **ret);
/* Calls without arguments and returns the answer as JSON (NULL if it is empty). */
int cli_ask(Cli *c, const char *path, const char *interface, const char *method, const char *doing,
            json_object **ret);
/* Waits for the reply, which may be an error: to be told with cli_refused(), or not to be told. */
int cli_exchange(Cli *c, sd_bus_message *m, const char *doing, sd_bus_message **ret);
int cli_refused(Cli *c, sd_bus_message *reply, const char *doing);
/* Asks the manager's @method ("GetMatrix", "GetGuest", "GetTpm") for @name. As cli_exchange(). */
int cli_lookup(Cli *c, const char *method, const char *name, sd_bus_message **ret);
/* The same once it is connected; the path, free(). */
int cli_find(Cli *c, const char *method, const char *name, char **ret);
/* The path that a reply has; free(). */
int cli_read_path(Cli *c, sd_bus_message *reply, char **ret);
/* The properties of one object, keys as in JSON output. */
int cli_properties(Cli *c, const char *path, const char *interface, json_object **ret);
/* The same with "path". */
int cli_object(Cli *c, const char *path, const char *interface, json_object **ret);
/* Prints the object as JSON, or that the @kind of its name is @what. */
int cli_tell(Cli *c, const char *path, const char *interface, const char *kind, const char *what);
/* The same of one whose path is the reply. */
int cli_tell_made(Cli *c, sd_bus_message *reply, const char *interface, const char *kind, const char *what);
/* The lines of "problems" among others that tell of @o. */
void cli_print_problems(Cli *c, json_object *o);
/* All objects that have @interface, in order of @sort_key: an array of their properties with "path". */
int cli_objects(Cli *c, const char *interface, const char *sort_key, json_object **ret);
int cli_broken(Cli *c, int r);
/* A call could not be put together: an argument is no text, or there is no memory. */
int cli_unsendable(Cli *c, int r);

/* ---- arguments.c ---- */

int cli_append_mask(sd_bus_message *m, const ApMask *mask);
/* --adapters and the like: the empty set if it was not given; "none" is the empty set too. */
int cli_option_mask(Cli *c, CliOption option, ApMask *ret);
/* A number of an id, decimal or with 0x. */
int cli_option_id(Cli *c, CliOption option, uint16_t *ret);
/* @text: a UUID that was given, or NULL. */
int cli_check_uuid(Cli *c, const char *text);
/* --deny and --model, if they were given. */
int cli_check_codes(Cli *c);
int cli_check_model(Cli *c);
/* Of a file that the daemon is to read: here there is no telling what a relative path means on another host. */
int cli_check_path(Cli *c, const char *path);
/* free(*ret). 0 or -errno. */
int cli_absolute(const char *path, char **ret);

/* How an option that was given is sent in a{sv}. */
typedef struct CliSent {
        CliOption option;
        const char *name;
        enum {
                SENT_TEXT,
                SENT_TRUE,
                SENT_FALSE,
                SENT_PATH, /* made absolute */
                SENT_CODES
        } as;
} CliSent;

/* Those of @sent that were given. 0 or -errno. */
int cli_append_options(Cli *c, sd_bus_message *m, const CliSent *sent, size_t n);

/* ---- output.c: a file that is complete, or is not there ---- */

typedef struct CliOutput {
        int fd; /* to be written to */
        const char *name;
        char *temporary; /* what it is called until it is complete */
        bool replace;
} CliOutput;

/* Only its owner can read it. @name must live on. 0 or -errno; -EEXIST: it is there, and not to be replaced; -EINVAL: and no
 * file, so that it never is. */
int cli_output_begin(const char *name, bool replace, CliOutput *ret);
/* It is on stable storage under its name. 0 or -errno; -ENODATA: nothing was written. */
int cli_output_finish(CliOutput *o, off_t *ret_size);
/* What was not finished is removed. */
void cli_output_discard(CliOutput *o);

/* ---- json.c ---- */

/* The rest of @m: NULL if nothing, the value if one, else an array. -errno. */
int json_from_message(sd_bus_message *m, json_object **ret);
/* "GuestAdapters" -> "guest_adapters". */
char *json_key(const char *property, char buf[static 64]);
const char *json_text(json_object *o, const char *key); /* "" if there is none */
bool json_flag(json_object *o, const char *key);
int64_t json_number(json_object *o, const char *key);
/* An array of ids as a list "0x04,0x10-0x13"; "-" for none. */
char *json_list(json_object *o, const char *key, char buf[static AP_MASK_LIST_SIZE]);
ApMask json_mask(json_object *ids);
/* Prints @o and a newline, if --json; whether it did. */
bool cli_print_json(Cli *c, json_object *o);

/* ---- table.c: aligned columns ---- */

typedef struct Table Table;
Table *table_new(unsigned n_columns, const char *const *titles);
Table *table_free(Table *t);
static inline void table_freep(Table **t) {
        (void) table_free(*t);
}
/* Copies; an empty cell is printed as "-". 0 or -ENOMEM. */
int table_add(Table *t, const char *const *cells);
void table_print(const Table *t, FILE *f, bool colour);

/* ---- list.c ---- */

/* Connects and prints all objects that have @interface, in order of @sort_key: as JSON, or as a table, to which @add adds
 * a row for each. */
int cli_list(Cli *c, const char *interface, const char *sort_key, int (*add)(Table *t, json_object *o),
             unsigned n_columns, const char *const *titles);

/* ---- the verbs ---- */

int verb_status(Cli *c, char **args);
int verb_adapters(Cli *c, char **args);
int verb_queues(Cli *c, char **args);
int verb_masks(Cli *c, char **args);
int verb_host_show(Cli *c, char **args);
int verb_host_reserve(Cli *c, char **args);
int verb_host_release(Cli *c, char **args);
int verb_host_persist(Cli *c, char **args);
int verb_reconcile(Cli *c, char **args);
int verb_reload(Cli *c, char **args);
int verb_list(Cli *c, char **args);
int verb_show(Cli *c, char **args);
int verb_check(Cli *c, char **args);
int verb_define(Cli *c, char **args);
int verb_define_xml(Cli *c, char **args);
int verb_dumpxml(Cli *c, char **args);
int verb_modify(Cli *c, char **args);
int verb_start(Cli *c, char **args);
int verb_stop(Cli *c, char **args);
int verb_undefine(Cli *c, char **args);
int verb_explain(Cli *c, char **args);
int verb_matrix(Cli *c, char **args);
int verb_watch(Cli *c, char **args);
int verb_mdev_types(Cli *c, char **args);
int verb_mdev_create(Cli *c, char **args);
int verb_mdev_remove(Cli *c, char **args);
int verb_mdev_list(Cli *c, char **args);
int verb_guest_list(Cli *c, char **args);
int verb_guest_show(Cli *c, char **args);
int verb_guest_attach_matrix(Cli *c, char **args);
int verb_guest_detach_matrix(Cli *c, char **args);
int verb_guest_attach_tpm(Cli *c, char **args);
int verb_guest_detach_tpm(Cli *c, char **args);
int verb_tpm_define(Cli *c, char **args);
int verb_tpm_start(Cli *c, char **args);
int verb_tpm_stop(Cli *c, char **args);
int verb_tpm_undefine(Cli *c, char **args);
int verb_tpm_list(Cli *c, char **args);
int verb_tpm_show(Cli *c, char **args);
int verb_tpm_backup(Cli *c, char **args);
int verb_tpm_restore(Cli *c, char **args);
int verb_tpm_import(Cli *c, char **args);
int verb_import(Cli *c, char **args);
int verb_export(Cli *c, char **args);

/* The queues that the filter options leave, as objects. */
int cli_queues(Cli *c, json_object **ret);

/* a(qqss) as a table; with --json as objects in *ret, else NULL there. */
int cli_print_conflicts(Cli *c, json_object *conflicts, json_object **ret);

/* ---- grid.c ---- */

/* The texts are those of the JSON values that the grid was made from. */
typedef struct GridOwner {
        const char *kind; /* "matrix": one of ours; else as ListQueues says */
        const char *name;
        const char *state; /* of a matrix; else NULL */
        bool live;         /* a started matrix or an mdev of somebody else */
        char symbol[3];
} GridOwner;

#define GRID_ABSENT 0
#define GRID_FREE   1
#define GRID_HOST   2
#define GRID_OWNER  3 /* and above: index into owners */

typedef struct Grid {
        uint32_t cells[AP_IDS][AP_IDS]; /* adapter, domain */
        const char *modes[AP_IDS];      /* of the adapters, or NULL */
        GridOwner *owners;
        size_t n_owners;
} Grid;

/* Gives the owners their symbols: one letter each if there are letters enough, else two. Upper case:
 * live. */
void grid_set_symbols(Grid *g);
/* At most @columns wide: domains that do not fit go into a further block; equal adapters in a row share a
 * line. */
void grid_print(const Grid *g, FILE *f, unsigned columns, bool colour);
/* The same without its legend; whether there was anything. */
bool grid_print_cells(const Grid *g, FILE *f, unsigned columns, bool colour);
