/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hooks/hook.h"
#include "tests/fuzz/core/fuzz.h"

static unsigned n_sent;

static int send_nothing(const Hook *h, const VirtWiring *w, char **reterr_text) {
        n_sent++;
        FUZZ_CHECK(w->n_mdevs == 0 || w->mdevs);
        FUZZ_CHECK(w->tpm_wish < _TPM_MODEL_MAX && w->tpm_model < _TPM_MODEL_MAX);
        FUZZ_CHECK(w->tpm_model == TPM_MODEL_NONE || w->tpm_socket);
        FUZZ_CHECK(!w->problems || h->operation->forgiving);
        return 0;
}

/* Any XML: either the daemon is asked, or there is one line that says why not, or nothing to ask for. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const HookOperation prepare = { "prepare", 1, 1 }, release = { "release", 1, 1, true, true };
        static const HookOperation *const operations[] = { &prepare, &release };

        for (size_t i = 0; i < ELEMENTS(operations); i++) {
                CLEANUP(freep) char *said = NULL;
                Hook h = { .operation = operations[i], .guest = "g", .suboperation = "", .extra = "" };
                size_t said_size;
                int r;

                h.holds_dir = "/nonexistent";
                h.err = open_memstream(&said, &said_size);
                FUZZ_CHECK(h.err);
                n_sent = 0;
                r = hook_event(&h, (const char *) data, size, send_nothing);
                (void) fclose(h.err);

                FUZZ_CHECK(r == HOOK_OK || (r == HOOK_REFUSED && n_sent == 0));
                FUZZ_CHECK((said_size > 0) == (r == HOOK_REFUSED));
                FUZZ_CHECK(said_size == 0 || strchr(said, '\n') == said + said_size - 1);
        }
        return 0;
}
