/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/plan.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/fuzz/core/fuzz.h"

/* A plan that was read is written as it was, and nothing in it makes its use on some host fail. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(freep) char *s = fuzz_text(data, size), *again = NULL;
        CLEANUP(snapshot_freep) Snapshot *host = snapshot_new();
        CLEANUP(plan_clear) Plan p = { .n_steps = 77 }, undo = {}, finish = {};
        bool foreign;
        Apqn q;
        int r = plan_parse(s, &p);

        if (r < 0) {
                FUZZ_CHECK(r == -EBADMSG && !p.steps && p.n_steps == 77);
                return 0;
        }

        FUZZ_CHECK(host && plan_serialize(&p, &again) == 0 && strcmp(again, s) == 0);
        (void) plan_check(&p, host, &q);
        (void) plan_progress(&p, host);
        r = plan_undo(&p, host, &undo, &foreign);
        FUZZ_CHECK(r == 0 || r == -E2BIG);
        r = plan_finish(&p, host, &finish, &foreign);
        FUZZ_CHECK(r == 0 || r == -E2BIG);
        FUZZ_CHECK(plan_apply(&p, host) == 0);
        return 0;
}
