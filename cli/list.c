/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "cli/cli.h"

int cli_list(Cli *c, const char *interface, const char *sort_key, int (*add)(Table *t, json_object *o),
             unsigned n_columns, const char *const *titles) {
        CLEANUP(table_freep) Table *t = NULL;
        CLEANUP(json_putp) json_object *all = NULL;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_objects(c, interface, sort_key, &all);
        if (r != CLI_DONE)
                return r;
        if (cli_print_json(c, all))
                return CLI_DONE;

        t = table_new(n_columns, titles);
        r = t ? 0 : -ENOMEM;
        for (size_t i = 0; r >= 0 && i < json_object_array_length(all); i++)
                r = add(t, json_object_array_get_idx(all, i));
        if (r < 0)
                return cli_broken(c, r);

        table_print(t, c->out, c->colour);
        return CLI_DONE;
}
