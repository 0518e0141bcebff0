/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "base/cleanup.h"
#include "store/store.h"
#include "tests/fuzz/core/fuzz.h"
#include "vtpm/vtpm_record.h"

/* What is taken keeps all its promises, and is read from what is written of it as it was. */
static void check(const VtpmRecord *r) {
        CLEANUP(vtpm_record_clear) VtpmRecord back = {};
        CLEANUP(freep) char *json = NULL, *again = NULL, *text = NULL;
        VtpmSpec spec;

        FUZZ_CHECK(record_name_is_valid(r->name) && (!r->guest || record_guest_is_valid(r->guest)));
        FUZZ_CHECK(!uuid_is_null(r->uuid) && r->uid != 0 && r->n_denied <= VTPM_DENIED_MAX && r->pcr_banks);
        FUZZ_CHECK(r->key < _VTPM_KEY_MAX && (r->key == VTPM_KEY_FILE) == (r->key_file != NULL));
        FUZZ_CHECK(r->guest || uuid_is_null(r->guest_uuid));
        vtpm_record_to_spec(r, &spec);
        FUZZ_CHECK(spec.encrypted == (r->key != VTPM_KEY_NONE));

        FUZZ_CHECK(vtpm_record_to_json(r, &json) == 0);
        FUZZ_CHECK(vtpm_record_from_json(json, &back, &text) == 0);
        FUZZ_CHECK(vtpm_record_to_json(&back, &again) == 0 && strcmp(json, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(freep) char *s = fuzz_text(data, size), *text = NULL;
        VtpmRecord record = {};
        int r;

        r = vtpm_record_from_json(s, &record, &text);
        if (r < 0)
                FUZZ_CHECK(r == -EBADMSG && text && *text && !record.name && !record.denied);
        else
                check(&record);
        vtpm_record_clear(&record);
        return 0;
}
