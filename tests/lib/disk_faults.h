/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* disk_faults - each call of this process that changes something below a directory can fail or hang: writes, syncs, renames, unlinks, files and
 * directories made, files closed after writing. The program is linked with DISK_FAULTS' --wrap options (meson.build). */

#include <stdbool.h>

/* From now on: call number @at (1, 2, ...; 0: none) fails with @error (positive), and with @forever all after it. */
void disk_fail(const char *root, unsigned at, int error, bool forever);
/* Call number @at of those that are not made by this thread does not return until disk_release(). */
void disk_hang(const char *root, unsigned at);
bool disk_hangs(void);
/* How many calls there were; all is well again. */
unsigned disk_release(void);
