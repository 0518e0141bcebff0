/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* turn - what the process asks of the kernel's scheduler. */

/* Asks for longer turns than others have, so that who rings a doorbell is not interrupted by us on the same processor, and then once
 * more by the TPM, before it waits for the answer: each time costs 2 to 4 us. Beside who computes all the time we are not later for it, as
 * what has slept comes first. Linux 6.12 and later (sched_setattr(2), Documentation/scheduler/sched-eevdf.rst); others, and who may not,
 * go on as they are. Nothing is changed where an administrator has chosen another policy. */
void turn_ask(void);
