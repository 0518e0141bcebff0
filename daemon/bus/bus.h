/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* bus - the engine's surface on D-Bus: name org.guestcrypt1, objects below /org/guestcrypt1. Reads and
 * limits arguments, asks polkit, makes one engine call, replies. No policy, no state but the calls and
 * signals that are under way. */

#include <stdio.h>
#include <systemd/sd-bus.h>

#include "engine/engine.h"

#define BUS_NAME "org.guestcrypt1"
#define BUS_ROOT "/org/guestcrypt1"

typedef struct Bus Bus;

typedef struct BusConfig {
        /* Manager.Reload() calls it before it has the host scanned; 0 or -errno. May be NULL. */
        int (*reload)(void *userdata);
        void *userdata;

        uint64_t authz_timeout_us; /* for polkit's answer where nobody is asked for a password; 0: 30 s */
        unsigned max_asks_per_uid; /* calls of one user that wait for polkit; 0: 512 */

        /* Whose call it is; NULL: the bus daemon is asked, on a direct connection the kernel. 0 or
         * -errno. For tests. */
        int (*sender_uid)(sd_bus_message *m, uid_t *ret);
} BusConfig;

/* Puts the objects on @bus, which must be attached to the engine's event loop and may be a direct
 * connection too. The name is not requested: do that afterwards. @bus and @e stay the caller's. @config
 * may be NULL. 0 or -errno. */
int bus_new(sd_bus *bus, Engine *e, const BusConfig *config, Bus **ret);

/* Calls under way get no reply. The loop must not run between this and engine_free(). Accepts NULL;
 * returns NULL. */
Bus *bus_free(Bus *b);

/* An engine_event_t. @userdata is a Bus **, so that it can be given to engine_new() before there is a
 * bus: while it points to NULL nothing happens. Signals are sent from the loop, at most one a turn and
 * object. */
void bus_on_engine_event(void *userdata, const EngineKey *key, EngineChange change);

/* Sends all signals that wait; for the end of the program. */
void bus_flush_signals(Bus *b);

/* Prints the introspection XML of all our interfaces, made from the vtables. Needs neither bus nor
 * engine. 0 or -errno. */
int bus_introspect(FILE *f);
