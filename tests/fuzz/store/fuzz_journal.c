/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Journals as a disk may give them back. To cut off what counts as torn changes nothing, and each batch is
 * written as it was read. The fuzzer cannot guess checksums, so a line that begins with "!" stands for a
 * right one: the rest is its entry. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) \
        do { \
                if (!(condition)) \
                        abort(); \
        } while (0)

typedef struct Seen {
        size_t n_batches, n_items;
} Seen;

static int ignore_batch(void *userdata, JournalItem *items, size_t n) {
        return 0;
}

static int see_batch(void *userdata, JournalItem *items, size_t n) {
        CLEANUP(freep) char *batch = NULL, *journal = NULL;
        JournalDamage damage;
        Seen *seen = userdata;
        size_t size;

        CHECK(n > 0);
        CHECK(journal_format(items, n, &batch, &size) == 0);
        CHECK(asprintf(&journal, JOURNAL_HEADER "%s", batch) > 0);
        CHECK(journal_parse(journal, strlen(journal), ignore_batch, NULL, &damage) == 0);
        CHECK(damage.end == strlen(journal) && damage.n_lines == 0 && !damage.header);

        seen->n_batches++;
        seen->n_items += n;
        return 0;
}

static uint32_t crc32(const char *data, size_t size) {
        uint32_t crc = UINT32_MAX;

        for (size_t i = 0; i < size; i++) {
                crc ^= (uint8_t) data[i];
                for (int bit = 0; bit < 8; bit++)
                        crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        }
        return ~crc;
}

/* Puts frames round the lines that begin with "!". */
static char *with_frames(const uint8_t *data, size_t size, size_t *ret_size) {
        char *text;
        FILE *f = open_memstream(&text, ret_size);

        CHECK(f);
        for (size_t at = 0; at < size;) {
                const uint8_t *newline = memchr(data + at, '\n', size - at);
                size_t length = newline ? (size_t) (newline - data) - at : size - at;

                if (data[at] == '!') {
                        CLEANUP(freep) char *line = NULL;
                        int n = asprintf(&line, "%zu 1/1 %.*s", length - 1, (int) length - 1, data + at + 1);

                        CHECK(n > 0);
                        fprintf(f, "%08x %s", crc32(line, (size_t) n), line);
                } else
                        fwrite(data + at, 1, length, f);
                if (newline)
                        fputc('\n', f);
                at += length + 1;
        }
        CHECK(fclose(f) == 0);
        return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(freep) char *text = with_frames(data, size, &size);
        JournalDamage damage, cut;
        Seen seen = {}, seen_cut = {};

        CHECK(journal_parse(text, size, see_batch, &seen, &damage) == 0);
        CHECK(damage.end <= size && (damage.n_lines == 0) == (damage.line == 0));

        CHECK(journal_parse(text, damage.end, see_batch, &seen_cut, &cut) == 0);
        CHECK(seen.n_batches == seen_cut.n_batches && seen.n_items == seen_cut.n_items);
        CHECK(cut.end == damage.end && cut.n_lines == damage.n_lines);
        return 0;
}
