/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim_fuse - the model as a file system. One thread: an operation that does not end (SIM_NEVER), or that a
 * fault rule delays, keeps its request open while others are served. */

#include "sim/sim.h"

/* Mounts at @mountpoint, writes "ready\n" to @ready_fd (-1: nowhere) and serves until unmounted, or until
 * SIGINT, SIGTERM or SIGHUP. Takes @sim's done callback. 0 or -errno. */
int sim_fuse_serve(Sim *sim, const char *mountpoint, int ready_fd);
