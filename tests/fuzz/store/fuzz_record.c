/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Definitions as people and files give them. What is accepted is written; what is written is accepted, by
 * the schema as well, and written the same again. What is refused leaves nothing, and one line of ASCII that
 * says why. */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) \
        do { \
                if (!(condition)) \
                        abort(); \
        } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(record_clear) Record record = {}, back = {}, validated = {};
        CLEANUP(freep) char *error = NULL, *xml = NULL, *again = NULL, *longer = NULL;
        int r;

        r = record_from_xml((const char *) data, size, &record, &error);
        if (r < 0) {
                CHECK(r == -EBADMSG && error && *error && !record.name && !record.guest && !record.unknown);
                for (const char *p = error; *p; p++)
                        CHECK(*p >= 0x20 && *p <= 0x7e);
                return 0;
        }

        CHECK(!error);
        CHECK(record_to_xml(&record, &xml) == 0 && strlen(xml) <= RECORD_XML_MAX);
        CHECK(record_from_xml(xml, strlen(xml), &back, &error) == 0);
        CHECK(record_to_xml(&back, &again) == 0 && strcmp(xml, again) == 0);

        /* one byte more than what we write, so that the schema is asked */
        longer = malloc(strlen(xml) + 2);
        CHECK(longer);
        strcpy(stpcpy(longer, xml), "\n");
        if (strlen(longer) <= RECORD_XML_MAX)
                CHECK(record_from_xml(longer, strlen(longer), &validated, &error) == 0);
        return 0;
}
