/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The input is a file, and what is between a file's first line and its checksum: no fuzzer finds one that matches. */

#include <errno.h>
#include <gcrypt.h>

#include "base/cleanup.h"
#include "tests/fuzz/core/fuzz.h"
#include "vtpm/vtpm_backup.h"

#define MAGIC "guestcrypt-tpm-backup-1\n"

static void check(const VtpmBackup *b, const uint8_t *data, size_t size) {
        CLEANUP(freep) uint8_t *again = NULL;
        size_t again_size;

        FUZZ_CHECK(b->n > 0 && b->n <= VTPM_BACKUP_MEMBERS_MAX && vtpm_backup_find(b, "tpm.json"));
        for (size_t i = 0; i < b->n; i++) {
                const VtpmBackupMember *m = &b->members[i];

                FUZZ_CHECK(vtpm_backup_find(b, m->name) == m); /* each name once */
                FUZZ_CHECK(m->name[0] != '.' && m->name[0] != '/' && !strstr(m->name, "/."));
                FUZZ_CHECK(!strchr(m->name, '/') ||
                           (strncmp(m->name, "state/", 6) == 0 && !strchr(m->name + 6, '/') && m->name[6]));
                FUZZ_CHECK(m->size < size && m->data[m->size] == '\0');
        }
        FUZZ_CHECK(vtpm_backup_write(b, &again, &again_size) == 0);
        FUZZ_CHECK(again_size == size && memcmp(again, data, size) == 0);
}

static void try(const uint8_t *data, size_t size) {
        CLEANUP(vtpm_backup_clear) VtpmBackup b = {};
        const char *text = NULL;
        int r;

        r = vtpm_backup_read(data, size, &b, &text);
        if (r < 0)
                FUZZ_CHECK(r == -EBADMSG && text && b.n == 0);
        else
                check(&b, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const size_t magic_size = strlen(MAGIC), n = magic_size + size;
        CLEANUP(freep) uint8_t *file = malloc(n + VTPM_BACKUP_SUM_SIZE);

        FUZZ_CHECK(file);
        try(data, size);
        memcpy(file, MAGIC, magic_size);
        if (size > 0)
                memcpy(file + magic_size, data, size);
        gcry_md_hash_buffer(GCRY_MD_SHA256, file + n, file, n);
        try(file, n + VTPM_BACKUP_SUM_SIZE);
        return 0;
}
