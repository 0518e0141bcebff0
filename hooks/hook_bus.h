/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* hook_bus - one call to guestcryptd on the system bus, for those whom libvirt or mdevctl wait for */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#define BUS_NAME "org.guestcrypt1"
#define BUS_ROOT "/org/guestcrypt1"

static inline void bus_closep(sd_bus **bus) {
        (void) sd_bus_close_unref(*bus);
}

static inline void message_unrefp(sd_bus_message **m) {
        (void) sd_bus_message_unref(*m);
}

/* 0 with *ret the reply, which may be an error; -ETIMEDOUT: the bus itself does not answer. */
int hook_bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_us, sd_bus_message **ret);
/* NULL: @reply is no error. Else what it says, and whether it comes not from the daemon, but from a bus without one. */
const char *hook_bus_error(sd_bus_message *reply, bool *ret_absent);
