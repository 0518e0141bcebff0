/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
#include <stdint.h>
#include <syslog.h>
#define CONF_PATH "etc/guestcrypt/guestcrypt.conf"
typedef struct Conf { uint64_t rescan_us, lock_timeout_us, step_timeout_us, scan_timeout_us; unsigned max_matrices, max_matrices_per_user, max_calls_per_caller; int log_level; } Conf;
static inline int conf_load(int root_fd, const char *path, Conf *c) { *c = (Conf){ 30000000, 10000000, 5000000, 10000000, 16384, 256, 512, LOG_DEBUG }; return 0; }
