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
        free(w->matrix);
        free(w->tpm);
        free(w->tpm_socket);
        for (char **p = w->problems; p && *p; p++)
                free(*p);
        free(w->problems);
        *w = (VirtWiring) {};
}

static int copy_string(const char *s, char **ret) {
        if (!s)
                return 0;
        *ret = strdup(s);
        return *ret ? 0 : -ENOMEM;
}

static int copy_lines(char *const *lines, char ***ret) {
        size_t n = 0;

        if (!lines)
                return 0;
        while (lines[n])
                n++;
        *ret = calloc(n + 1, sizeof **ret);
        for (size_t i = 0; i < n && *ret; i++)
                if (copy_string(lines[i], &(*ret)[i]) < 0)
                        return -ENOMEM;
        return *ret ? 0 : -ENOMEM;
}

int virt_wiring_copy(const VirtWiring *w, VirtWiring *ret) {
        CLEANUP(virt_wiring_clear)
        VirtWiring copy = {
                .uuid = w->uuid,
                .tpm_wish = w->tpm_wish,
                .tpm_model = w->tpm_model,
                .foreign_tpm = w->foreign_tpm,
        };
        const struct {
                const char *from;
                char **to;
        } strings[] = {
                { w->name, &copy.name },         { w->arch, &copy.arch },
                { w->type, &copy.type },         { w->machine, &copy.machine },
                { w->emulator, &copy.emulator }, { w->matrix, &copy.matrix },
                { w->tpm, &copy.tpm },           { w->tpm_socket, &copy.tpm_socket },
        };

        for (size_t i = 0; i < ELEMENTS(strings); i++)
                if (copy_string(strings[i].from, strings[i].to) < 0)
                        return -ENOMEM;
        if (w->n_mdevs > 0) {
                copy.mdevs = calloc(w->n_mdevs, sizeof *copy.mdevs);
                if (!copy.mdevs)
                        return -ENOMEM;
                memcpy(copy.mdevs, w->mdevs, w->n_mdevs * sizeof *copy.mdevs);
                copy.n_mdevs = w->n_mdevs;
        }
        if (copy_lines(w->problems, &copy.problems) < 0)
                return -ENOMEM;

        *ret = copy;
        copy = (VirtWiring) {};
        return 0;
}
