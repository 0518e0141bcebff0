/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/ap_mask.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/fuzz/core/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(freep) char *s = fuzz_text(data, size);
        ApMask before = { { 1, 2, 3, 4 } }, m = before, back;
        char text[AP_MASK_STRING_SIZE];
        int r = ap_mask_parse(s, &m);

        if (r < 0) {
                FUZZ_CHECK((r == -EINVAL || r == -ERANGE) && ap_mask_equal(&m, &before));
                return 0;
        }

        FUZZ_CHECK(r == 0 && strlen(s) <= AP_MASK_STRING_SIZE);
        FUZZ_CHECK(ap_mask_parse(ap_mask_format(&m, text), &back) == 0 && ap_mask_equal(&m, &back));
        return 0;
}
