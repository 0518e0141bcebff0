/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm_setup - new states of TPMs, made by swtpm_setup, and given ones tried out by swtpm. Blocks: in a job only.
 *
 * swtpm_setup runs as a user of its own, to whom the certificate authority below STATE/ca belongs, and nothing else: a TPM's own
 * user never gets near the authority's keys, and the new state is the TPM's only when it is complete. */

#include "vtpm/vtpm_record.h"

#define VTPM_TEXT_SIZE 640

typedef struct VtpmSetup {
        int root_fd;
        int state_fd; /* STATE */
        uid_t ca_uid;
        const VtpmRecord *record;
        int key_fd; /* the key as 64 hex digits, -1: not encrypted */
} VtpmSetup;

/* Fills directory @name in @dir_fd, which it makes; @path, if not NULL, is how one gets to it from anywhere, and it is below STATE/ca
 * otherwise. VTPM_DONE, another verdict with one line of text, or -errno. */
int vtpm_setup_state(const VtpmSetup *s, int dir_fd, const char *name, const char *path,
                     char ret_text[static VTPM_TEXT_SIZE]);

/* STATE/ca with its configuration, made where missing. A descriptor or -errno. */
int vtpm_setup_authority(int state_fd, uid_t ca_uid);

/* Whether swtpm can be switched on with the state in @fd, which belongs to the record's uid. */
int vtpm_setup_try(const VtpmSetup *s, int fd, char ret_text[static VTPM_TEXT_SIZE]);

/* The key that @r needs, as 64 hex digits in memory; -1 if it needs none. @tpm_fd: the TPM's directory. VTPM_DONE with *ret_fd, a verdict with text, or
 * -errno. */
int vtpm_key_open(int root_fd, int tpm_fd, const VtpmRecord *r, int *ret_fd,
                  char ret_text[static VTPM_TEXT_SIZE]);
/* Whether the unit was given a key for @r. */
bool vtpm_key_has_credential(const VtpmRecord *r);
