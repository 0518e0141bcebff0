/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The verb "matrix": adapters downwards, domains across, a letter for each owner. */

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

#define LABEL_WIDTH 8  /* "05-0c   " */
#define MODE_WIDTH  13 /* "  accelerator" */
#define LETTERS     26u

/* ---- drawing ---- */

void grid_set_symbols(Grid *g) {
        bool one = g->n_owners <= LETTERS;

        for (size_t i = 0; i < g->n_owners; i++) {
                char base = g->owners[i].live ? 'A' : 'a';
                unsigned n = (unsigned) i % (LETTERS * LETTERS);

                if (one)
                        g->owners[i].symbol[0] = (char) (base + (char) n);
                else {
                        g->owners[i].symbol[0] = (char) (base + (char) (n / LETTERS));
                        g->owners[i].symbol[1] = (char) (base + (char) (n % LETTERS));
                }
        }
}

static const char *symbol_of(const Grid *g, uint32_t cell, bool two) {
        switch (cell) {
        case GRID_ABSENT:
                return two ? "  " : " ";
        case GRID_FREE:
                return two ? ". " : ".";
        case GRID_HOST:
                return two ? "# " : "#";
        default:
                return g->owners[cell - GRID_OWNER].symbol;
        }
}

/* One of six colours a owner, bold if live; the host is dim. */
static const char *colour_of(const Grid *g, uint32_t cell, char buf[static 16]) {
        size_t i = cell - GRID_OWNER;

        if (cell == GRID_HOST)
                return "\033[2m";
        if (cell < GRID_OWNER)
                return "";

        (void) snprintf(buf, 16, "\033[%s%um", g->owners[i].live ? "1;" : "", 31 + (unsigned) (i % 6));
        return buf;
}

static void print_cell(const Grid *g, FILE *f, uint32_t cell, bool two, bool colour) {
        char buf[16];
        const char *on = colour ? colour_of(g, cell, buf) : "";

        (void) fprintf(f, "%s%s%s", on, symbol_of(g, cell, two), *on ? "\033[0m" : "");
}

static bool same_line(const Grid *g, unsigned a, unsigned b) {
        return memcmp(g->cells[a], g->cells[b], sizeof g->cells[a]) == 0 &&
               strcmp(g->modes[a] ?: "", g->modes[b] ?: "") == 0;
}

static void print_header(const Grid *g, FILE *f, const uint8_t *domains, size_t n, bool two) {
        for (int digit = 1; digit >= 0; digit--) {
                (void) fprintf(f, "%-*s", LABEL_WIDTH, digit ? "" : "domain");
                for (size_t i = 0; i < n; i++)
                        (void) fprintf(f, "%x%s", domains[i] >> 4 * digit & 15, two ? " " : "");
                (void) fputc('\n', f);
        }
}

static void print_block(const Grid *g, FILE *f, const uint8_t *adapters, size_t n_adapters,
                        const uint8_t *domains, size_t n_domains, bool two, bool colour) {
        print_header(g, f, domains, n_domains, two);

        for (size_t i = 0, last; i < n_adapters; i = last + 1) {
                char label[16];

                for (last = i; last + 1 < n_adapters && adapters[last + 1] == adapters[last] + 1 &&
                               same_line(g, adapters[i], adapters[last + 1]);)
                        last++;

                if (last > i)
                        (void) snprintf(label, sizeof label, "%02x-%02x", adapters[i], adapters[last]);
                else
                        (void) snprintf(label, sizeof label, "%02x", adapters[i]);
                (void) fprintf(f, "%-*s", LABEL_WIDTH, label);

                for (size_t d = 0; d < n_domains; d++)
                        print_cell(g, f, g->cells[adapters[i]][domains[d]], two, colour);
                (void) fprintf(f, "%s%s\n", g->modes[adapters[i]] ? "  " : "", g->modes[adapters[i]] ?: "");
        }
}

static void print_legend(const Grid *g, FILE *f, bool colour) {
        bool two = g->n_owners > LETTERS;

        print_cell(g, f, GRID_FREE, false, colour);
        (void) fputs(" free   ", f);
        print_cell(g, f, GRID_HOST, false, colour);
        (void) fputs(" the host's   upper case: started, lower case: only defined\n", f);

        for (size_t i = 0; i < g->n_owners; i++) {
                print_cell(g, f, GRID_OWNER + (uint32_t) i, two, colour);
                if (g->owners[i].state)
                        (void) fprintf(f, " %s (%s)\n", g->owners[i].name, g->owners[i].state);
                else
                        (void) fprintf(f, " %s %s\n", g->owners[i].kind, g->owners[i].name);
        }
}

bool grid_print_cells(const Grid *g, FILE *f, unsigned columns, bool colour) {
        uint8_t adapters[AP_IDS], domains[AP_IDS];
        size_t n_adapters = 0, n_domains = 0, per_block;
        bool two = g->n_owners > LETTERS, used[AP_IDS] = {};

        for (unsigned a = 0; a < AP_IDS; a++) {
                bool any = false;

                for (unsigned d = 0; d < AP_IDS; d++)
                        if (g->cells[a][d] != GRID_ABSENT)
                                any = used[d] = true;
                if (any)
                        adapters[n_adapters++] = (uint8_t) a;
        }
        for (unsigned d = 0; d < AP_IDS; d++)
                if (used[d])
                        domains[n_domains++] = (uint8_t) d;

        if (n_adapters == 0) {
                (void) fputs("The host has no crypto queues.\n", f);
                return false;
        }

        per_block = columns > LABEL_WIDTH + MODE_WIDTH + 16 ? columns - LABEL_WIDTH - MODE_WIDTH : 16;
        if (two)
                per_block /= 2;
        if (per_block < n_domains && per_block >= 16)
                per_block -= per_block % 16; /* blocks that begin at a round domain where all are there */

        for (size_t from = 0; from < n_domains; from += per_block) {
                print_block(g, f, adapters, n_adapters, domains + from, MIN(per_block, n_domains - from),
                            two, colour);
                (void) fputc('\n', f);
        }
        return true;
}

void grid_print(const Grid *g, FILE *f, unsigned columns, bool colour) {
        if (grid_print_cells(g, f, columns, colour))
                print_legend(g, f, colour);
}

/* ---- who has what ---- */

/* The matrix that is called @owner or has that UUID. */
static json_object *find_matrix(json_object *matrices, const char *owner) {
        for (size_t i = 0; i < json_object_array_length(matrices); i++) {
                json_object *o = json_object_array_get_idx(matrices, i);

                if (strcmp(json_text(o, "name"), owner) == 0 || strcmp(json_text(o, "uuid"), owner) == 0)
                        return o;
        }

        return NULL;
}

static bool is_live(json_object *matrix) {
        const char *state = json_text(matrix, "state");

        return strcmp(state, "defined") != 0 && strcmp(state, "lost") != 0 && strcmp(state, "unknown") != 0;
}

static bool is_owner(const GridOwner *o, const char *kind, const char *name) {
        return strcmp(o->kind, kind) == 0 && strcmp(o->name, name) == 0;
}

/* Index of the owner of @queue, which is added if it is new. -ENOMEM. */
static int owner_index(Grid *g, json_object *matrices, json_object *queue) {
        GridOwner o = { .kind = json_text(queue, "owner_kind"), .name = json_text(queue, "owner") }, *more;
        json_object *matrix = NULL;

        o.live = strcmp(o.kind, "mdev") == 0;
        if (o.live || strcmp(o.kind, "definition") == 0)
                matrix = find_matrix(matrices, o.name);
        if (matrix)
                o = (GridOwner) { .kind = "matrix",
                                  .name = json_text(matrix, "name"),
                                  .state = json_text(matrix, "state"),
                                  .live = is_live(matrix) };

        for (size_t i = 0; i < g->n_owners; i++)
                if (is_owner(&g->owners[i], o.kind, o.name))
                        return (int) i;

        more = reallocarray(g->owners, g->n_owners + 1, sizeof *more);
        if (!more)
                return -ENOMEM;
        g->owners = more;
        g->owners[g->n_owners] = o;
        return (int) g->n_owners++;
}

static int fill_grid(Grid *g, json_object *queues, json_object *matrices) {
        for (size_t i = 0; i < json_object_array_length(queues); i++) {
                json_object *q = json_object_array_get_idx(queues, i);
                uint8_t a = (uint8_t) json_number(q, "adapter"), d = (uint8_t) json_number(q, "domain");
                const char *kind = json_text(q, "owner_kind");
                int r;

                g->modes[a] = json_text(q, "mode");
                if (strcmp(kind, "free") == 0)
                        g->cells[a][d] = GRID_FREE;
                else if (strcmp(kind, "host") == 0)
                        g->cells[a][d] = GRID_HOST;
                else {
                        r = owner_index(g, matrices, q);
                        if (r < 0)
                                return r;
                        g->cells[a][d] = GRID_OWNER + (uint32_t) r;
                }
        }

        grid_set_symbols(g);
        return 0;
}

static void print_undrawn(Cli *c, const Grid *g, json_object *matrices) {
        for (size_t i = 0; i < json_object_array_length(matrices); i++) {
                json_object *o = json_object_array_get_idx(matrices, i);
                bool drawn = false;

                for (size_t k = 0; !drawn && k < g->n_owners; k++)
                        drawn = is_owner(&g->owners[k], "matrix", json_text(o, "name"));
                if (!drawn)
                        (void) fprintf(c->out,
                                       "  %s (%s): none of its queues is here, or others come first\n",
                                       json_text(o, "name"), json_text(o, "state"));
        }
}

static int print_grid_json(Cli *c, const Grid *g, json_object *queues) {
        CLEANUP(json_putp) json_object *doc = json_object_new_object();
        json_object *owners = json_object_new_array();

        for (size_t i = 0; i < g->n_owners; i++) {
                json_object *o = json_object_new_object();

                (void) json_object_object_add(o, "symbol", json_object_new_string(g->owners[i].symbol));
                (void) json_object_object_add(o, "kind", json_object_new_string(g->owners[i].kind));
                (void) json_object_object_add(o, "name", json_object_new_string(g->owners[i].name));
                if (g->owners[i].state)
                        (void) json_object_object_add(o, "state",
                                                      json_object_new_string(g->owners[i].state));
                (void) json_object_object_add(o, "live", json_object_new_boolean(g->owners[i].live));
                (void) json_object_array_add(owners, o);
        }
        (void) json_object_object_add(doc, "owners", owners);
        (void) json_object_object_add(doc, "queues", json_object_get(queues));
        (void) cli_print_json(c, doc);
        return CLI_DONE;
}

static void grid_freep(Grid **g) {
        if (!*g)
                return;

        free((*g)->owners);
        free(*g);
}

int verb_matrix(Cli *c, char **args) {
        CLEANUP(json_putp) json_object *queues = NULL, *matrices = NULL;
        CLEANUP(grid_freep) Grid *g = NULL;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_queues(c, &queues);
        if (r == CLI_DONE)
                r = cli_objects(c, CLI_INTERFACE("Matrix"), "name", &matrices);
        if (r != CLI_DONE)
                return r;

        g = calloc(1, sizeof *g);
        r = g ? fill_grid(g, queues, matrices) : -ENOMEM;
        if (r < 0)
                return cli_broken(c, r);

        if (c->json)
                return print_grid_json(c, g, queues);

        grid_print(g, c->out, c->columns, c->colour);
        print_undrawn(c, g, matrices);
        return CLI_DONE;
}
