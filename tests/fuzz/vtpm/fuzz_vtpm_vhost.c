/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any messages in any order, on a fresh or a running device, with restarts of its process in between. */

#include "fuzz/vtpm/fuzz_vtpm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        fuzz_messages(true, data, size);
        return 0;
}
