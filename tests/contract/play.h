/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Ends the program: a script or a command line is wrong. */
_Noreturn void play_wrong(const char *what, const char *text);

/* The host becomes what it is after its boot, as far as that goes without one: what counts goes on counting, and an
 * override that its queue has taken along blocks the masks for ever. */
void play_reset(void);
