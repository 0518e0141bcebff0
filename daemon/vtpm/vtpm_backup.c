/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vtpm/vtpm_backup.h"

#include <errno.h>
#include <gcrypt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static const char magic[] = "guestcrypt-tpm-backup-1\n";

#define MAGIC_SIZE  (sizeof magic - 1)
#define HEADER_SIZE 8

void vtpm_backup_clear(VtpmBackup *b) {
        for (size_t i = 0; i < b->n; i++) {
                explicit_bzero(b->members[i].data, b->members[i].size);
                free(b->members[i].data);
        }
        *b = (VtpmBackup) {};
}

/* Nothing that would lead out of the directory that it is unpacked to. */
static bool name_is_valid(const char *name, size_t n) {
        static const char prefix[] = "state/";

        if (n == 0 || n > VTPM_BACKUP_NAME_MAX || memchr(name, '\0', n))
                return false;
        if (n > sizeof prefix - 1 && memcmp(name, prefix, sizeof prefix - 1) == 0) {
                name += sizeof prefix - 1;
                n -= sizeof prefix - 1;
        }
        if (name[0] == '.')
                return false;
        return !memchr(name, '/', n);
}

int vtpm_backup_add(VtpmBackup *b, const char *name, uint8_t *data, size_t size) {
        size_t n = strlen(name);

        if (!name_is_valid(name, n) || vtpm_backup_find(b, name))
                return -EINVAL;
        if (b->n == VTPM_BACKUP_MEMBERS_MAX || size > VTPM_BACKUP_MAX)
                return -E2BIG;

        data[size] = '\0';
        memcpy(b->members[b->n].name, name, n + 1);
        b->members[b->n].data = data;
        b->members[b->n].size = size;
        b->n++;
        return 0;
}

const VtpmBackupMember *vtpm_backup_find(const VtpmBackup *b, const char *name) {
        for (size_t i = 0; i < b->n; i++)
                if (strcmp(b->members[i].name, name) == 0)
                        return &b->members[i];
        return NULL;
}

static uint8_t *put_u32(uint8_t *to, size_t v) {
        for (unsigned i = 0; i < 4; i++)
                *to++ = (uint8_t) (v >> (24 - 8 * i));
        return to;
}

static size_t get_u32(const uint8_t *p) {
        return (size_t) p[0] << 24 | (size_t) p[1] << 16 | (size_t) p[2] << 8 | p[3];
}

static uint8_t *put_bytes(uint8_t *to, const void *from, size_t n) {
        memcpy(to, from, n);
        return to + n;
}

int vtpm_backup_write(const VtpmBackup *b, uint8_t **ret, size_t *ret_size) {
        size_t size = MAGIC_SIZE + HEADER_SIZE + VTPM_BACKUP_SUM_SIZE;
        uint8_t *data, *p;

        for (size_t i = 0; i < b->n; i++)
                size += HEADER_SIZE + strlen(b->members[i].name) + b->members[i].size;
        if (size > VTPM_BACKUP_MAX)
                return -E2BIG;

        data = malloc(size);
        if (!data)
                return -ENOMEM;

        p = put_bytes(data, magic, MAGIC_SIZE);
        for (size_t i = 0; i < b->n; i++) {
                const VtpmBackupMember *m = &b->members[i];
                size_t n = strlen(m->name);

                p = put_u32(put_u32(p, n), m->size);
                p = put_bytes(put_bytes(p, m->name, n), m->data, m->size);
        }
        p = put_u32(put_u32(p, 0), 0);
        gcry_md_hash_buffer(GCRY_MD_SHA256, p, data, (size_t) (p - data));

        *ret = data;
        *ret_size = size;
        return 0;
}

static int read_members(const uint8_t *p, const uint8_t *end, VtpmBackup *b) {
        while (end - p >= HEADER_SIZE) {
                size_t n = get_u32(p), size = get_u32(p + 4);
                char name[VTPM_BACKUP_NAME_MAX + 1];
                uint8_t *data;
                int r;

                p += HEADER_SIZE;
                if (n == 0)
                        return size == 0 && p == end ? 0 : -EBADMSG;
                if (n > (size_t) (end - p) || size > (size_t) (end - p) - n ||
                    !name_is_valid((const char *) p, n))
                        return -EBADMSG;
                memcpy(name, p, n);
                name[n] = '\0';

                data = malloc(size + 1);
                if (!data)
                        return -ENOMEM;
                memcpy(data, p + n, size);
                r = vtpm_backup_add(b, name, data, size);
                if (r < 0) {
                        free(data);
                        return -EBADMSG;
                }
                p += n + size;
        }
        return -EBADMSG;
}

int vtpm_backup_read(const uint8_t *data, size_t size, VtpmBackup *ret, const char **reterr_text) {
        CLEANUP(vtpm_backup_clear) VtpmBackup b = {};
        uint8_t sum[VTPM_BACKUP_SUM_SIZE];
        size_t n;
        int r;

        if (size < MAGIC_SIZE || memcmp(data, magic, MAGIC_SIZE) != 0) {
                *reterr_text = "it is no backup of a TPM";
                return -EBADMSG;
        }
        if (size < MAGIC_SIZE + HEADER_SIZE + VTPM_BACKUP_SUM_SIZE || size > VTPM_BACKUP_MAX) {
                *reterr_text = "the backup is too short or too long";
                return -EBADMSG;
        }

        n = size - VTPM_BACKUP_SUM_SIZE;
        gcry_md_hash_buffer(GCRY_MD_SHA256, sum, data, n);
        if (memcmp(sum, data + n, sizeof sum) != 0) {
                *reterr_text = "the backup is damaged: its checksum does not match";
                return -EBADMSG;
        }

        r = read_members(data + MAGIC_SIZE, data + n, &b);
        if (r >= 0 && !vtpm_backup_find(&b, "tpm.json"))
                r = -EBADMSG;
        if (r < 0) {
                *reterr_text = "the backup makes no sense";
                return r;
        }

        *ret = b;
        b = (VtpmBackup) {};
        return 0;
}
