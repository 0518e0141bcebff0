/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/mdevctl.h"
#include "tests/fuzz/core/fuzz.h"

static bool is_same(const MdevctlDefinition *a, const MdevctlDefinition *b) {
        return a->autostart == b->autostart && ap_matrix_equal(&a->matrix, &b->matrix);
}

/* What is made of @d, given what it was before, reads as @d. */
static void written(const MdevctlDefinition *d, const char *kept, const char *want) {
        CLEANUP(mdevctl_file_clear) MdevctlFile f = {};
        CLEANUP(freep) char *json = NULL;
        const char *problem = NULL;

        FUZZ_CHECK(mdevctl_format(d, kept, &json) == 0);
        FUZZ_CHECK(mdevctl_parse(json, strlen(json), &f, &problem) == 0);
        FUZZ_CHECK(is_same(&f.d, d));
        FUZZ_CHECK(!want || strcmp(f.json, want) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(mdevctl_file_clear) MdevctlFile f = {};
        CLEANUP(freep) char *text = malloc(size + 1);
        const char *problem = NULL;
        MdevctlDefinition other;
        int r;

        if (!text)
                return 0;
        memcpy(text, data, size);
        text[size] = '\0';

        r = mdevctl_parse(text, size, &f, &problem);
        if (r < 0) {
                FUZZ_CHECK(r == -EBADMSG && problem && !f.json && !f.odd);
                return 0;
        }

        written(&f.d, f.json, f.json); /* nothing is lost */
        written(&f.d, NULL, NULL);
        other = (MdevctlDefinition) { .autostart = !f.d.autostart, .matrix = f.d.matrix };
        ap_mask_set(&other.matrix.adapters, 0xab);
        written(&other, f.json, NULL);
        written(&other, text, NULL);
        return 0;
}
