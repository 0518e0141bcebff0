/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* chaos_log - who may have had which queues when, as written down by those who asked for them: from before they asked until after
 * they knew that they had it no more. A refusal that names somebody else is a lie. Usable from all threads. */

#include <stdint.h>

#include "chaos_check.h"

uint64_t log_now(void);

/* @kind: "definition", "mdev", "mdevctl" or "host". Returns a number for log_end(). */
size_t log_begin(const char *kind, const char *owner, const Ids *adapters, const Ids *domains);
void log_end(size_t entry);

/* Whether @owner may have had the queue at some time from @from to @to. @owner NULL: anybody of that kind. */
bool log_had(const char *kind, const char *owner, unsigned adapter, unsigned domain, uint64_t from,
             uint64_t to);
