/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_wire.h"
#include "tests/fuzz/core/fuzz.h"

/* What the decoder takes it writes as it was, and everything in it can be followed. */
static void result(const uint8_t *message, size_t size, WireType type) {
        WireBuffer again = {};
        WireResult w;
        int r = wire_get_snapshot(message, size, &w);

        if (r < 0) {
                FUZZ_CHECK(r == -EBADMSG);
                return;
        }

        FUZZ_CHECK(wire_put_snapshot(&again, type, w.error, w.snapshot) == 0);
        FUZZ_CHECK(again.size == size && memcmp(again.data + WIRE_HEADER_SIZE, message + WIRE_HEADER_SIZE,
                                                size - WIRE_HEADER_SIZE) == 0);
        for (size_t i = 0; w.snapshot && i < w.snapshot->n_mdevs; i++) {
                HostMdev *m = &w.snapshot->mdevs[i];

                FUZZ_CHECK(snapshot_find_mdev(w.snapshot, m->uuid) == m);
                FUZZ_CHECK(snapshot_find_parent(w.snapshot, snapshot_parent_of(w.snapshot, m)->name));
        }
        (void) snapshot_free(w.snapshot);
        wire_buffer_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        WireKnow know;
        WireJob job;
        WireType type;
        ssize_t n = wire_peek(data, size, &type);

        if (n <= 0)
                return 0;

        switch (type) {
        case WIRE_KNOW:
                if (wire_get_know(data, (size_t) n, &know) >= 0)
                        free(know.known);
                break;
        case WIRE_JOB:
                if (wire_get_job(data, (size_t) n, &job) >= 0)
                        wire_job_clear(&job);
                break;
        case WIRE_PARTIAL:
        case WIRE_RESULT:
                result(data, (size_t) n, type);
                break;
        case WIRE_GO_ON:
                break;
        case _WIRE_TYPE_MAX:
                abort();
        }
        return 0;
}
