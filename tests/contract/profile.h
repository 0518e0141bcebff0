/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/* The profile (sim/sim_profile.h) of the simulated host that is as the tests' kernel when booted with the arguments
 * @boot. -EINVAL: there is one that is not known. */
int profile_of(const char *boot, char *buf, size_t size);
