/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vfio_guest - a virtual machine, as far as vfio_ap can tell: it has a mediated device open and a KVM guest that is
 * never entered. -errno of the step that failed. */

#include <stdbool.h>

int vfio_guest_attach(int sys_fd, const char *uuid);
int vfio_guest_detach(const char *uuid);

/* Whether the driver told of another configuration, or asked to let go, since the last time. */
int vfio_guest_events(const char *uuid, bool *ret_config, bool *ret_request);

/* For a new process: its copies of the descriptors are closed. */
void vfio_guest_forget(void);
