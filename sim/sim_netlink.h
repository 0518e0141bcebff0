/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim_netlink - uevents given to the kernel, which numbers them and sends them to all listeners of this
 * network namespace. For namespaces made for a simulation only. */

#include <stddef.h>

/* Returns a socket. -EPERM: there is a network interface other than lo, so that this looks like a real
 * host's namespace, and @force is not set. */
int sim_netlink_open(int force);

/* sim_uevent_t; @userdata points to the socket. */
void sim_netlink_send(void *userdata, const char *action, const char *devpath, const char *env, size_t size);
