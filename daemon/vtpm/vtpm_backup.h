/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm_backup - a TPM as one file: a few members, and a checksum over all. Pure.
 *
 *   "guestcrypt-tpm-backup-1\n"
 *   for each member: u32 length of its name, u32 length of its content (both big-endian, name not 0), name, content
 *   u32 0, u32 0
 *   SHA-256 of all before it
 *
 * Members: "tpm.json"; "state/NAME", the files of swtpm's state; "key", if the TPM has one of its own. */

#include <stddef.h>
#include <stdint.h>

#define VTPM_BACKUP_MAX         (8 * 1024 * 1024)
#define VTPM_BACKUP_MEMBERS_MAX 16
#define VTPM_BACKUP_NAME_MAX    64
#define VTPM_BACKUP_SUM_SIZE    32

typedef struct VtpmBackupMember {
        char name[VTPM_BACKUP_NAME_MAX + 1];
        uint8_t *data; /* NUL-terminated, besides */
        size_t size;
} VtpmBackupMember;

typedef struct VtpmBackup {
        size_t n;
        VtpmBackupMember members[VTPM_BACKUP_MEMBERS_MAX];
} VtpmBackup;

/* All content is wiped: there may be a key. */
void vtpm_backup_clear(VtpmBackup *b);

/* Takes @data, allocated with one byte more than @size. -E2BIG, -EINVAL; then it stays the caller's. */
int vtpm_backup_add(VtpmBackup *b, const char *name, uint8_t *data, size_t size);
const VtpmBackupMember *vtpm_backup_find(const VtpmBackup *b, const char *name);

int vtpm_backup_write(const VtpmBackup *b, uint8_t **ret, size_t *ret_size);
/* -EBADMSG with *reterr_text, a constant. */
int vtpm_backup_read(const uint8_t *data, size_t size, VtpmBackup *ret, const char **reterr_text);
