/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_change - a guest's XML changed through libvirt: only if it is still what was read, and undone if the running guest
 * cannot be changed likewise. */

#include "virt/virt_conn.h"
#include "virt/virt_wire.h"

/* @begun is called before the first change. ret->text is to be freed. */
void virt_change(Conn *c, Uuid guest, const WireEdit *call, void (*begun)(void *userdata), void *userdata,
                 VirtOutcome *ret);
