/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* report - one line per event on stderr, for the journal with its priority in front; at most a few per second, since most causes are
 * the guest's to choose. Never TPM content. */

#include <syslog.h>

/* At most this many lines in this many seconds; what was left out is counted in the next line that comes through. */
#define REPORT_BURST   20
#define REPORT_SECONDS 10

void report(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* LOG_INFO by default. */
void report_set_max(int priority);
