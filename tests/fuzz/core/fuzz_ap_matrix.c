/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/ap_matrix.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/fuzz/core/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(freep) char *s = fuzz_text(data, size);
        ApMatrix before = { AP_MASK_ALL, {}, AP_MASK_ALL }, m = before, back;
        char text[AP_MATRIX_STRING_SIZE];
        int r = ap_matrix_parse(s, &m);

        if (r < 0) {
                FUZZ_CHECK((r == -EINVAL || r == -ERANGE) && ap_matrix_equal(&m, &before));
                return 0;
        }

        FUZZ_CHECK(r == 0);
        FUZZ_CHECK(ap_matrix_parse(ap_matrix_format(&m, text), &back) == 0 && ap_matrix_equal(&m, &back));
        return 0;
}
