/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim_sysfs - the model behind host/'s view of /sys, in the same process.
 *
 * read and write return SYSFS_NEVER where the real access would hang; the caller plays the hung child.
 * A delay of a fault rule is slept. The Sim stays the caller's and must live longer. */

#include "host/sysfs.h"
#include "sim/sim.h"

int sim_sysfs_new(Sim *sim, Sysfs **ret);
