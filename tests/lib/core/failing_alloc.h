/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* failing_alloc - makes the n-th allocation from now on fail, once. The program must be linked with
 * failing_alloc_link_args. */

#include <stdbool.h>

/* 0: the next one; -1: none. */
void failing_alloc_arm(int n);
/* Whether it has happened since; disarms. */
bool failing_alloc_done(void);
