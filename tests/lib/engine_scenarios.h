/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine_scenarios - operations, each on a host furnished for it, to be failed, hung and interrupted at every point. */

#include "engine_env.h"

typedef struct Scenario {
        const char *name, *dialect;
        const char *setup[8];         /* what is done before, as for env_begin(), on m001.. with the matrices below: "define 1 a" */
        const char *op;               /* "modify 1 b" */
} Scenario;

extern const Scenario scenarios[];
extern const size_t n_scenarios;

/* A started environment with all that comes before. */
Env *scenario_new(const Scenario *s);
void scenario_begin(Env *env, const char *op, Reply *reply);
void scenario_do(Env *env, const char *op, Reply *reply);

typedef struct Outcome {
        char *host, *matrices;
} Outcome;

Outcome outcome_now(Env *env);
void outcome_clear(Outcome *o);
/* Before and after @s when nothing goes wrong. */
void scenario_outcomes(const Scenario *s, Outcome *ret_old, Outcome *ret_new);
/* Which of both it is now: 'o' or 'n', '=' if they are the same; fails if neither. */
char outcome_which(Env *env, const Outcome *was, const Outcome *is, const char *when);
