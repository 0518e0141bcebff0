/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* conf - guestcrypt.conf: an ini file with one section [Manager] and few keys, and a drop-in directory.
 * What is wrong in it is told and ignored, since a typing error must not keep a host from its crypto. */

#include <stdint.h>
#include <syslog.h>

#define CONF_PATH "etc/guestcrypt/guestcrypt.conf" /* below the root; drop-ins: CONF_PATH.d/NAME.conf */

#define CONF_URI_MAX    255
#define CONF_GROUP_MAX  63
#define CONF_NO_LIBVIRT "none"

typedef struct Conf {
        uint64_t rescan_us, lock_timeout_us, step_timeout_us, scan_timeout_us;
        unsigned max_matrices, max_matrices_per_user, max_calls_per_caller;
        int log_level;                      /* LOG_EMERG..LOG_DEBUG */
        char libvirt_uri[CONF_URI_MAX + 1]; /* CONF_NO_LIBVIRT: none is asked */
        char tpm_group[CONF_GROUP_MAX + 1]; /* "": whichever there is */
        unsigned tpm_uid_base, max_tpms;
} Conf;

#define CONF_DEFAULT \
        ((Conf) { .rescan_us = 30 * UINT64_C(1000000), \
                  .lock_timeout_us = 10 * UINT64_C(1000000), \
                  .step_timeout_us = 5 * UINT64_C(1000000), \
                  .scan_timeout_us = 10 * UINT64_C(1000000), \
                  .max_matrices = 16384, \
                  .max_matrices_per_user = 256, \
                  .max_calls_per_caller = 512, \
                  .log_level = LOG_INFO, \
                  .libvirt_uri = "qemu:///system", \
                  .tpm_uid_base = 1900000000, \
                  .max_tpms = 1024 })

/* @line counts from 1; @text is one line without newline. */
typedef void (*conf_warn_t)(void *userdata, unsigned line, const char *text);

/* Takes what @text sets over into *c; all else in it stays. An empty value sets the default. */
void conf_parse(const char *text, Conf *c, conf_warn_t warn, void *userdata);

/* Defaults, then @path below @root_fd, then @path.d/NAME.conf in order of name. Files that are not there
 * set nothing; those that cannot be read and lines that make no sense are logged and ignored. Blocks. 0
 * or -ENOMEM; *ret is untouched on error. */
int conf_load(int root_fd, const char *path, Conf *ret);
