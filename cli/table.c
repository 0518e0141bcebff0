/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

#define TABLE_COLUMNS_MAX 10

struct Table {
        unsigned n_columns;
        size_t n_rows;
        char **cells; /* row by row; the first row has the titles */
        size_t width[TABLE_COLUMNS_MAX];
};

/* Columns that a terminal needs for UTF-8 @s, where each character takes one. */
static size_t text_width(const char *s) {
        size_t n = 0;

        for (; *s; s++)
                n += ((unsigned char) *s & 0xc0) != 0x80;

        return n;
}

Table *table_new(unsigned n_columns, const char *const *titles) {
        Table *t;

        if (n_columns > TABLE_COLUMNS_MAX)
                return NULL;

        t = calloc(1, sizeof *t);
        if (!t)
                return NULL;

        t->n_columns = n_columns;
        if (table_add(t, titles) < 0)
                return table_free(t);

        return t;
}

Table *table_free(Table *t) {
        if (!t)
                return NULL;

        for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
                free(t->cells[i]);
        free(t->cells);
        free(t);
        return NULL;
}

int table_add(Table *t, const char *const *cells) {
        size_t n = t->n_rows * t->n_columns;
        char **more;

        /* doubles whenever the number of rows is a power of two */
        if ((t->n_rows & (t->n_rows - 1)) == 0) {
                more = reallocarray(t->cells, (t->n_rows + 1) * 2 * t->n_columns, sizeof *more);
                if (!more)
                        return -ENOMEM;
                t->cells = more;
        }

        for (unsigned i = 0; i < t->n_columns; i++) {
                t->cells[n + i] = strdup(*cells[i] ? cells[i] : "-");
                if (!t->cells[n + i]) {
                        while (i-- > 0)
                                free(t->cells[n + i]);
                        return -ENOMEM;
                }
        }

        for (unsigned i = 0; i < t->n_columns; i++)
                t->width[i] = MAX(t->width[i], text_width(t->cells[n + i]));
        t->n_rows++;
        return 0;
}

void table_print(const Table *t, FILE *f, bool colour) {
        for (size_t row = 0; row < t->n_rows; row++) {
                if (colour && row == 0)
                        (void) fputs("\033[1m", f);

                for (unsigned i = 0; i < t->n_columns; i++) {
                        const char *cell = t->cells[row * t->n_columns + i];

                        (void) fputs(cell, f);
                        if (i + 1 < t->n_columns)
                                (void) fprintf(f, "%*s", (int) (t->width[i] - text_width(cell)) + 2, "");
                }

                (void) fputs(colour && row == 0 ? "\033[0m\n" : "\n", f);
        }
}
