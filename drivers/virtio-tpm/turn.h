/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

/* turn - what the process asks of the kernel's scheduler: that who rings a doorbell is not interrupted by us on the same processor, and then
 * once more by the TPM, before it waits for the answer. Each time costs 2 to 4 us, and more where it has the scheduler put the TPM on another
 * processor, which sleeps: some 50 us in a virtual machine. */

/* Asks for longer turns than others have (Linux 6.12 and later: sched_setattr(2), Documentation/scheduler/sched-eevdf.rst), and not to
 * interrupt anybody (SCHED_BATCH, sched(7)) where the kernel tells how long we wait for it; it needs /proc. Who may not goes on as it is, and
 * nothing is changed where an administrator has chosen another policy. */
void turn_ask(void);

/* A command was answered, for which the TPM took @took ns. Where who rings goes on to compute, we are late, by some ms: the
 * scheduler then looks at us only at a tick. When more is lost by it than may have been saved, the next commands interrupt again; what is
 * shorter than the TPM's own time is not seen. */
void turn_over(uint64_t took);
