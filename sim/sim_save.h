/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim_save - a host's state on disk, so that it outlives the process that simulates it: masks, driver
 * overrides, mdevs, their matrices, the machine's configuration. Not kept: guests, faults, what hangs. Text,
 * in the form of the accesses that make the state again. */

#include "sim/sim.h"

/* Replaces the file. 0 or -errno. */
int sim_save(Sim *s, const char *path);

/* Onto a host just booted with the same profile. -ENOENT: no file. -EBADMSG: a line does not fit. */
int sim_load(Sim *s, const char *path);
