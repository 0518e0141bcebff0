/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm_record - what is on disk of a TPM besides swtpm's own state, and where. All JSON: tpm.json (the definition),
 * run.json (how it runs now), request.json and result.json (what a job is to do, and what came of it). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/uuid.h"
#include "core/tpm_model.h"
#include "vtpm/vtpm.h"

/* Below the root. The launchers know no other; main gives them to vtpm_new(), too. */
#define VTPM_STATE_DIR "var/lib/guestcrypt"
#define VTPM_RUN_DIR   "run/guestcrypt"

/* Below STATE. */
#define VTPM_TPMS_DIR "tpms"
#define VTPM_CA_DIR   "ca"
/* Below RUN. */
#define VTPM_SOCKETS_DIR "tpm"      /* one directory for each TPM that runs */
#define VTPM_JOBS_DIR    "tpm-jobs" /* one for each job */
#define VTPM_NEW_DIR     "tpm-new"  /* ephemeral states while they are made */
/* A TPM's directory that is being made, or taken away: no uuid, so never mistaken for a TPM. */
#define VTPM_NEW_PREFIX  ".new-"
#define VTPM_GONE_PREFIX ".gone-"

#define VTPM_RECORD_MAX (64 * 1024)
#define VTPM_DENIED_MAX 64 /* as many as the device takes */
#define VTPM_PATH_SIZE  160

typedef enum VtpmKey {
        VTPM_KEY_NONE,
        VTPM_KEY_OWN,        /* "key" beside tpm.json, made with it */
        VTPM_KEY_FILE,       /* the operator's */
        VTPM_KEY_CREDENTIAL, /* "tpm-NAME" in $CREDENTIALS_DIRECTORY of the unit that wants it */
        _VTPM_KEY_MAX
} VtpmKey;

typedef struct VtpmRecord {
        Uuid uuid, guest_uuid;
        char *name, *guest, *key_file, *pcr_banks, *profile,
                *ca_config; /* guest and what follows may be NULL */
        VtpmKey key;
        bool ephemeral, no_certificates, platform_keep;
        uint32_t *denied;
        size_t n_denied;
        uid_t uid, owner;
} VtpmRecord;

void vtpm_record_clear(VtpmRecord *r);
int vtpm_record_copy(const VtpmRecord *r, VtpmRecord *ret);

/* Takes what a client wishes over; what was left open gets its default. VTPM_INVALID with *reterr_text (free()), or -ENOMEM.
 * uuid and uid are left as they are in @spec, and 0. */
int vtpm_record_from_spec(const VtpmSpec *spec, VtpmRecord *ret, char **reterr_text);
void vtpm_record_to_spec(const VtpmRecord *r, VtpmSpec *ret);

/* free() it. */
int vtpm_record_to_json(const VtpmRecord *r, char **ret);
/* -EBADMSG with *reterr_text (free()), -ENOMEM. */
int vtpm_record_from_json(const char *text, VtpmRecord *ret, char **reterr_text);

/* The file in the directory @dir_fd. As above, or what file_read_at() says. */
int vtpm_record_load(int dir_fd, const char *name, VtpmRecord *ret, char **reterr_text);

/* How a TPM runs: what the launchers have to know besides the record. */
typedef struct VtpmRunRecord {
        TpmModel model;
        gid_t group; /* of QEMU's user */
} VtpmRunRecord;

int vtpm_run_record_save(int dir_fd, const VtpmRunRecord *r);
int vtpm_run_record_load(int dir_fd, VtpmRunRecord *ret); /* -ENOENT, -EBADMSG */

typedef enum VtpmJobKind {
        VTPM_JOB_DEFINE,
        VTPM_JOB_RESTORE,
        VTPM_JOB_IMPORT,
        VTPM_JOB_BACKUP,
        VTPM_JOB_REMOVE,
        VTPM_JOB_RENEW, /* a new state for an ephemeral one */
        VTPM_JOB_DROP,  /* and its end */
        VTPM_JOB_CLEAN, /* what a job that died has left */
        _VTPM_JOB_MAX
} VtpmJobKind;

typedef struct VtpmJobRequest {
        VtpmJobKind kind;
        VtpmRecord record;
        char *directory; /* import: from there */
        uid_t uid_base;
} VtpmJobRequest;

void vtpm_job_request_clear(VtpmJobRequest *q);
int vtpm_job_request_save(int dir_fd, const VtpmJobRequest *q);
int vtpm_job_request_load(int dir_fd, VtpmJobRequest *ret);

int vtpm_job_result_save(int dir_fd, VtpmVerdict verdict, const char *text);
/* @ret_text (free()) may be "". */
int vtpm_job_result_load(int dir_fd, VtpmVerdict *ret, char **ret_text);

const char *vtpm_verdict_name(VtpmVerdict v);
