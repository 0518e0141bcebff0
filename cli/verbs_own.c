/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs about what the host itself has: host-show, host-reserve, host-release, host-persist. */

#include <errno.h>
#include <string.h>

#include "cli/cli.h"

#define HOST  CLI_INTERFACE("Host")
#define TITLE 18 /* width, as in "status" */

/* What a queue is, or becomes. The first ones are the grid's own. */
enum {
        CELL_DEFAULT = GRID_OWNER, /* the host's, and the default domain's */
        CELL_TAKEN,
        CELL_OVERRIDE,
        CELL_BLOCKS,
        CELL_MOVES,
        CELL_OTHER,
};

static const GridOwner kinds[] = {
        { .kind = "default", .symbol = "*" },  { .kind = "taken", .symbol = "x" },
        { .kind = "override", .symbol = "o" }, { .kind = "blocks", .symbol = "!" },
        { .kind = "moves", .symbol = ">" },    { .kind = "other", .symbol = "!" },
};

static void grid_freep(Grid **g) {
        if (*g)
                free((*g)->owners);
        free(*g);
}

static int grid_new(json_object *queues, Grid **ret) {
        CLEANUP(grid_freep) Grid *g = calloc(1, sizeof *g);

        if (!g)
                return -ENOMEM;
        g->owners = calloc(ELEMENTS(kinds), sizeof *g->owners);
        if (!g->owners)
                return -ENOMEM;
        memcpy(g->owners, kinds, sizeof kinds);
        g->n_owners = ELEMENTS(kinds);

        for (size_t i = 0; i < json_object_array_length(queues); i++) {
                json_object *q = json_object_array_get_idx(queues, i);
                uint8_t a = (uint8_t) json_number(q, "adapter"), d = (uint8_t) json_number(q, "domain");
                const char *kind = json_text(q, "owner_kind");

                if (!json_flag(q, "present")) /* somebody counts on it, but there is nothing to move */
                        continue;
                g->modes[a] = json_text(q, "mode");
                g->cells[a][d] = strcmp(kind, "host") == 0   ? GRID_HOST
                                 : strcmp(kind, "free") == 0 ? GRID_FREE
                                                             : CELL_TAKEN;
        }
        *ret = TAKE(g);
        return 0;
}

/* Marks the queues in a(qq) of @o; where @only is not 0, those that are it. Returns how many there are in the list. */
static unsigned grid_mark(Grid *g, json_object *o, const char *key, uint32_t cell, uint32_t only) {
        json_object *list = json_object_object_get(o, key);
        unsigned n = list ? (unsigned) json_object_array_length(list) : 0;

        for (unsigned i = 0; i < n; i++) {
                json_object *q = json_object_array_get_idx(list, i);
                uint32_t *at = &g->cells[(uint8_t) json_object_get_int(json_object_array_get_idx(q, 0))]
                                        [(uint8_t) json_object_get_int(json_object_array_get_idx(q, 1))];

                if (*at != GRID_ABSENT && (only == 0 || *at == only))
                        *at = cell;
        }
        return n;
}

static void print_lines(Cli *c, const char *title, json_object *o, const char *key) {
        json_object *lines = json_object_object_get(o, key);

        for (size_t i = 0; lines && i < json_object_array_length(lines); i++)
                (void) fprintf(c->out, "%-*s %s\n", TITLE, i == 0 ? title : "",
                               json_object_get_string(json_object_array_get_idx(lines, i)));
}

static void print_masks(Cli *c, const char *title, json_object *o, const char *adapters,
                        const char *domains) {
        char a[AP_MASK_LIST_SIZE], d[AP_MASK_LIST_SIZE];

        (void) fprintf(c->out, "%-*s adapters %s, domains %s\n", TITLE, title,
                       json_object_object_get(o, adapters) ? json_list(o, adapters, a) : "not set",
                       json_object_object_get(o, domains) ? json_list(o, domains, d) : "not set");
}

/* "file-exists" as in all our JSON: "file_exists". */
static json_object *with_json_keys(json_object *o) {
        json_object *copy = json_object_new_object();

        json_object_object_foreach(o, key, value) {
                char name[64];

                (void) snprintf(name, sizeof name, "%s", key);
                for (char *p = name; *p; p++)
                        if (*p == '-')
                                *p = '_';
                (void) json_object_object_add(copy, name, json_object_get(value));
        }
        return copy;
}

static bool print_as_json(Cli *c, json_object *o) {
        CLEANUP(json_putp) json_object *copy = c->json ? with_json_keys(o) : NULL;

        return c->json && cli_print_json(c, copy);
}

/* ---- host-show ---- */

static void print_default_domain(Cli *c, json_object *o) {
        json_object *queues = json_object_object_get(o, "default-queues");
        size_t n = queues ? json_object_array_length(queues) : 0;
        int domain = (int) json_number(o, "default-domain");

        (void) fprintf(c->out, "%-*s ", TITLE, "default domain");
        if (domain < 0)
                (void) fputs("none\n", c->out);
        else if (n == 0)
                (void) fprintf(c->out, "0x%02x, with no queue that the host can use\n", (unsigned) domain);
        else
                (void) fprintf(c->out, "0x%02x, usable with %zu queue%s%s\n", (unsigned) domain, n,
                               n == 1 ? "" : "s", n == 1 ? ", which stays with the host unless forced" : "");
}

static void print_host(Cli *c, json_object *o) {
        const char *means = json_text(o, "means");

        print_masks(c, "host's masks", o, "adapters", "domains");
        (void) fprintf(c->out, "%-*s %s\n", TITLE, "given to guests by",
                       strcmp(means, "none") == 0 ? "nothing: the host has all queues"
                       : strcmp(means, "masks") == 0
                               ? "masks"
                               : "driver overrides, and as long as there is one the kernel takes no masks");
        (void) fprintf(c->out, "%-*s %s\n", TITLE, "single queues",
                       json_flag(o, "overrides-supported")
                               ? "can be given by driver override while both masks are full"
                               : "cannot be given: this kernel has no driver overrides");
        print_default_domain(c, o);
        if (json_flag(o, "file-exists"))
                print_masks(c, "set at boot by", o, "file-adapters", "file-domains");
        (void) fprintf(c->out, "%-*s %s%s\n", TITLE, json_flag(o, "file-exists") ? "" : "set at boot by",
                       json_flag(o, "file-exists") ? "in " : "nothing: there is no ", json_text(o, "file"));
        if (json_object_object_get(o, "kept-adapters"))
                print_masks(c, "and guestcryptd", o, "kept-adapters", "kept-domains");
        print_lines(c, "notes", o, "notes");
}

int verb_host_show(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *o = NULL, *queues = NULL;
        CLEANUP(grid_freep) Grid *g = NULL;
        unsigned overrides, blocks;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_ask(c, CLI_BUS_ROOT, HOST, "Show", "looking at the host", &o);
        if (r == CLI_DONE && !c->json)
                r = cli_queues(c, &queues);
        if (r != CLI_DONE)
                return r;
        if (print_as_json(c, o))
                return CLI_DONE;

        r = grid_new(queues, &g);
        if (r < 0)
                return cli_broken(c, r);
        (void) grid_mark(g, o, "default-queues", CELL_DEFAULT, GRID_HOST);
        overrides = grid_mark(g, o, "overrides", CELL_OVERRIDE, GRID_FREE);
        blocks = grid_mark(g, o, "foreign-overrides", CELL_BLOCKS, 0);

        print_host(c, o);
        (void) fputc('\n', c->out);
        grid_print_cells(g, c->out, c->columns, c->colour);
        (void) fprintf(
                c->out,
                "# the host's   * of its default domain, usable   . for guests, free   x in a matrix%s%s\n",
                overrides ? "   o for guests by override, free" : "",
                blocks ? "   ! overridden by somebody, blocks the masks" : "");
        return CLI_DONE;
}

/* ---- host-reserve, host-release ---- */

static int read_matrix(Cli *c, bool release, ApMask *ret_adapters, ApMask *ret_domains) {
        const char *by = c->values[OPT_BY];
        char quoted[CLI_QUOTE_SIZE];
        int r;

        if (by && strcmp(by, "masks") != 0 && strcmp(by, "overrides") != 0)
                return cli_usage(c, "%s is neither masks nor overrides", cli_quote(by, quoted));
        if (c->values[OPT_ALL]) {
                if (c->values[OPT_ADAPTERS] || c->values[OPT_DOMAINS])
                        return cli_usage(c, "--all and a list exclude each other");
                *ret_adapters = *ret_domains = AP_MASK_ALL;
                return CLI_DONE;
        }
        if (!c->values[OPT_ADAPTERS] || !c->values[OPT_DOMAINS])
                return cli_usage(c, "both --adapters and --domains are needed%s",
                                 release ? ", or --all" : "");

        r = cli_option_mask(c, OPT_ADAPTERS, ret_adapters);
        if (r == CLI_DONE)
                r = cli_option_mask(c, OPT_DOMAINS, ret_domains);
        if (r == CLI_DONE && (ap_mask_is_empty(ret_adapters) || ap_mask_is_empty(ret_domains)))
                return cli_usage(c, "at least one adapter and one domain must be named");
        return r;
}

static int call_change(Cli *c, bool release, bool dry_run, const ApMask *adapters, const ApMask *domains,
                       json_object **ret) {
        static const CliSent sent[] = { { OPT_TAKE_OTHERS, "take-others", SENT_TRUE },
                                        { OPT_FORCE, "force", SENT_TRUE },
                                        { OPT_BY, "by", SENT_TEXT },
                                        { OPT_DRY_RUN, "dry-run", SENT_TRUE } };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        const char *given = c->values[OPT_DRY_RUN];
        int r;

        r = cli_call_new(c, CLI_BUS_ROOT, HOST, release ? "Release" : "Reserve", &m);
        if (r != CLI_DONE)
                return r;
        c->values[OPT_DRY_RUN] = dry_run ? "" : NULL;
        r = cli_append_mask(m, adapters);
        if (r >= 0)
                r = cli_append_mask(m, domains);
        if (r >= 0)
                r = cli_append_options(c, m, sent, ELEMENTS(sent));
        c->values[OPT_DRY_RUN] = given;
        if (r < 0)
                return cli_unsendable(c, r);

        r = cli_call(c, m, release ? "giving queues to the host" : "taking queues from the host", &reply);
        if (r != CLI_DONE)
                return r;
        r = json_from_message(reply, ret);
        return r < 0 ? cli_broken(c, r) : CLI_DONE;
}

/* What of a mask comes or goes. */
static void print_mask_change(Cli *c, const char *what, json_object *o, const char *before,
                              const char *after) {
        ApMask was = json_mask(json_object_object_get(o, before)),
               is = json_mask(json_object_object_get(o, after));
        ApMask gone = ap_mask_and_not(&was, &is), come = ap_mask_and_not(&is, &was);
        char list[AP_MASK_LIST_SIZE];

        if (!ap_mask_is_empty(&gone))
                (void) fprintf(c->out, "%-*s %s %s leave the host\n", TITLE, "", what,
                               ap_mask_format_list(&gone, list));
        if (!ap_mask_is_empty(&come))
                (void) fprintf(c->out, "%-*s %s %s come to the host\n", TITLE, "", what,
                               ap_mask_format_list(&come, list));
}

static int print_change(Cli *c, bool release, json_object *o, json_object *queues) {
        CLEANUP(grid_freep) Grid *g = NULL;
        unsigned moves, others;
        int r;

        r = grid_new(queues, &g);
        if (r < 0)
                return cli_broken(c, r);
        g->owners[CELL_MOVES - GRID_OWNER].symbol[0] = release ? '<' : '>';
        moves = grid_mark(g, o, "queues", CELL_MOVES, 0);
        others = grid_mark(g, o, "others", CELL_OTHER, 0);

        if (moves + others > 0) {
                grid_print_cells(g, c->out, c->columns, c->colour);
                (void) fprintf(c->out, "# the host's   . for guests, free   x in a matrix   %c %s: %u",
                               release ? '<' : '>', release ? "to the host" : "to guests", moves);
                if (others > 0)
                        (void) fprintf(c->out, "   ! with them, though not asked for: %u", others);
                (void) fputs("\n\n", c->out);
        }
        (void) fprintf(c->out, "%-*s %s\n", TITLE, "by", json_text(o, "means"));
        print_mask_change(c, "adapters", o, "adapters-before", "adapters");
        print_mask_change(c, "domains", o, "domains-before", "domains");
        print_lines(c, "notes", o, "notes");
        return CLI_DONE;
}

static int tell_dry_run(Cli *c, json_object *o) {
        const char *name = json_text(o, "refusal-name");

        if (print_as_json(c, o))
                return *name ? cli_status(name) : CLI_DONE;
        if (!*name)
                (void) fputs("Nothing was changed: a dry run.\n", c->out);
        else
                (void) fprintf(c->out, "%-*s %s\n", TITLE, "would be refused", json_text(o, "refusal"));
        return *name ? cli_status(name) : CLI_DONE;
}

static int change(Cli *c, bool release) {
        CLEANUP(json_putp) json_object *dry = NULL, *done = NULL, *queues = NULL;
        ApMask adapters = {}, domains = {};
        bool only_dry = c->values[OPT_DRY_RUN];
        int r;

        r = read_matrix(c, release, &adapters, &domains);
        if (r == CLI_DONE)
                r = cli_connect(c);
        if (r == CLI_DONE && (only_dry || !c->json)) /* a person is told first what it takes */
                r = call_change(c, release, true, &adapters, &domains, &dry);
        if (r == CLI_DONE && dry && !c->json)
                r = cli_queues(c, &queues);
        if (r == CLI_DONE && queues && (only_dry || !*json_text(dry, "refusal-name")))
                r = print_change(c, release, dry, queues);
        if (r != CLI_DONE)
                return r;
        if (only_dry)
                return tell_dry_run(c, dry);

        (void) fflush(c->out);
        r = call_change(c, release, false, &adapters, &domains, &done);
        if (r == CLI_DONE && !print_as_json(c, done) && strcmp(json_text(done, "means"), "none") != 0)
                (void) fputs("Done.\n", c->out);
        return r;
}

int verb_host_reserve(Cli *c, char **args) {
        return change(c, false);
}

int verb_host_release(Cli *c, char **args) {
        return change(c, true);
}

/* ---- host-persist ---- */

int verb_host_persist(Cli *c, char **args) {
        static const CliSent sent[] = { { OPT_DRY_RUN, "dry-run", SENT_TRUE } };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(json_putp) json_object *o = NULL;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_call_new(c, CLI_BUS_ROOT, HOST, "Persist", &m);
        if (r != CLI_DONE)
                return r;
        r = cli_append_options(c, m, sent, ELEMENTS(sent));
        if (r < 0)
                return cli_unsendable(c, r);
        r = cli_call(c, m, "writing the masks", &reply);
        if (r != CLI_DONE)
                return r;
        r = json_from_message(reply, &o);
        if (r < 0)
                return cli_broken(c, r);
        if (print_as_json(c, o))
                return CLI_DONE;

        if (c->values[OPT_DRY_RUN])
                (void) fprintf(c->out, "%s\n", json_text(o, "content"));
        print_masks(c, "set at boot", o, "file-adapters", "file-domains");
        (void) fprintf(c->out, "%-*s %s\n", TITLE, "by", json_text(o, "file"));
        if (json_number(o, "file-foreign-lines") > 0)
                (void) fprintf(c->out, "%-*s %d, left as they are\n", TITLE, "lines of others",
                               (int) json_number(o, "file-foreign-lines"));
        print_lines(c, "notes", o, "notes");
        (void) fputs(c->values[OPT_DRY_RUN]    ? "Nothing was changed: a dry run.\n"
                     : json_flag(o, "changed") ? "Done.\n"
                                               : "The file was so already.\n",
                     c->out);
        return CLI_DONE;
}
