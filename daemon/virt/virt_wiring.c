/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "virt/virt_xml.h"

void virt_wiring_clear(VirtWiring *w) {
        free(w->name);
        free(w->arch);
        free(w->type);
        free(w->machine);
        free(w->emulator);
        free(w->mdevs);
        free(w->others);
        free(w->matrix);
        free(w->tpm);
        free(w->tpm_socket);
        for (char **p = w->problems; p && *p; p++)
                free(*p);
        free(w->problems);
        *w = (VirtWiring) {};
}

static int copy(const char *s, char **ret) {
        *ret = s ? strdup(s) : NULL;
        return s && !*ret ? -ENOMEM : 0;
}

static int copy_uuids(const Uuid *list, size_t n, Uuid **ret) {
        *ret = n > 0 ? reallocarray(NULL, n, sizeof *list) : NULL;
        if (n > 0 && !*ret)
                return -ENOMEM;
        if (n > 0)
                memcpy(*ret, list, n * sizeof *list);
        return 0;
}

int virt_wiring_copy(const VirtWiring *w, VirtWiring *ret) {
        CLEANUP(virt_wiring_clear)
        VirtWiring c = { .uuid = w->uuid,
                         .n_mdevs = w->n_mdevs,
                         .n_others = w->n_others,
                         .tpm_wish = w->tpm_wish,
                         .tpm_model = w->tpm_model,
                         .foreign_tpm = w->foreign_tpm };
        size_t n = 0;

        if (copy(w->name, &c.name) < 0 || copy(w->arch, &c.arch) < 0 || copy(w->type, &c.type) < 0 ||
            copy(w->machine, &c.machine) < 0 || copy(w->emulator, &c.emulator) < 0 ||
            copy(w->matrix, &c.matrix) < 0 || copy(w->tpm, &c.tpm) < 0 ||
            copy(w->tpm_socket, &c.tpm_socket) < 0)
                return -ENOMEM;
        if (copy_uuids(w->mdevs, w->n_mdevs, &c.mdevs) < 0 ||
            copy_uuids(w->others, w->n_others, &c.others) < 0)
                return -ENOMEM;
        for (char **p = w->problems; p && *p; p++)
                n++;
        if (n > 0) {
                c.problems = calloc(n + 1, sizeof *c.problems);
                if (!c.problems)
                        return -ENOMEM;
                for (size_t i = 0; i < n; i++)
                        if (copy(w->problems[i], &c.problems[i]) < 0)
                                return -ENOMEM;
        }

        *ret = c;
        c = (VirtWiring) {};
        return 0;
}
