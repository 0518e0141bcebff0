/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine_recovers - what must hold when faults are over. */

#include "engine_scenarios.h"

/* The journal holds nothing open, and no mark says what is not so. */
void assert_clean(Env *env, const char *when);
/* Whatever waited is healed, and what was asked for works. */
void assert_recovers(Env *env, const Scenario *s, const Outcome *was, const Outcome *is, bool restart,
                     const char *when);
