/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* log - one line per event, to the journal with fields when stderr is connected to it, else to stderr. */

#include <syslog.h>

#include "base/uuid.h"

/* A few events have an identity that the message catalog explains to operators
 * (systemd/guestcrypt.catalog). */
#define LOG_ID_RECOVERED  "5f0a6a5c1f0e4f7e9a4e6f0c5b1d2a01"
#define LOG_ID_BAD_RECORD "5f0a6a5c1f0e4f7e9a4e6f0c5b1d2a02"
#define LOG_ID_STUCK      "5f0a6a5c1f0e4f7e9a4e6f0c5b1d2a03"
#define LOG_ID_DRIFT      "5f0a6a5c1f0e4f7e9a4e6f0c5b1d2a04"
#define LOG_ID_AUTOSTART  "5f0a6a5c1f0e4f7e9a4e6f0c5b1d2a05"
#define LOG_ID_STORE      "5f0a6a5c1f0e4f7e9a4e6f0c5b1d2a06"

/* Lines above (less urgent than) @priority are dropped. Default LOG_INFO. */
void log_set_max(int priority);

/* @id and @matrix (a definition's name or uuid: field MATRIX=) may be NULL. */
void log_full(int priority, const char *id, const char *matrix, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

#define log_debug(...)   log_full(LOG_DEBUG, NULL, NULL, __VA_ARGS__)
#define log_info(...)    log_full(LOG_INFO, NULL, NULL, __VA_ARGS__)
#define log_notice(...)  log_full(LOG_NOTICE, NULL, NULL, __VA_ARGS__)
#define log_warning(...) log_full(LOG_WARNING, NULL, NULL, __VA_ARGS__)
#define log_error(...)   log_full(LOG_ERR, NULL, NULL, __VA_ARGS__)
