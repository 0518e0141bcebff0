/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* flood NUMBER wait|leave [check|queues|objects|reload] - has NUMBER definitions, or questions, under way at once. "wait":
 * prints how many were made, and how many refused as too many; anything else is a failure. "leave": goes away without
 * an answer. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "base/cleanup.h"

static unsigned n_made, n_refused, n_other;

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        if (!sd_bus_message_is_method_error(m, NULL))
                n_made++;
        else if (sd_bus_message_is_method_error(m, "org.guestcrypt1.Error.LimitHit"))
                n_refused++;
        else if (n_other++ == 0)
                (void) fprintf(stderr, "%s\n", sd_bus_message_get_error(m)->message);

        return 0;
}

static int call(sd_bus *bus, const char *what, unsigned i) {
        static const char name_of_bus[] = "org.guestcrypt1", root[] = "/org/guestcrypt1",
                          manager[] = "org.guestcrypt1.Manager";
        char name[32];

        if (strcmp(what, "check") == 0)
                return sd_bus_call_method_async(bus, NULL, name_of_bus, root, manager, "CheckMatrix",
                                                on_reply, NULL, "aqaqaqa{sv}", 1, 5, 1, 6, 0, 0);
        if (strcmp(what, "queues") == 0)
                return sd_bus_call_method_async(bus, NULL, name_of_bus, root, manager, "ListQueues",
                                                on_reply, NULL, "a{sv}", 0);
        if (strcmp(what, "reload") == 0)
                return sd_bus_call_method_async(bus, NULL, name_of_bus, root, manager, "Reload", on_reply,
                                                NULL, NULL);
        if (strcmp(what, "objects") == 0)
                return sd_bus_call_method_async(bus, NULL, name_of_bus, root,
                                                "org.freedesktop.DBus.ObjectManager", "GetManagedObjects",
                                                on_reply, NULL, NULL);

        (void) snprintf(name, sizeof name, "flood-%u", i);
        return sd_bus_call_method_async(bus, NULL, name_of_bus, root, manager, "DefineMatrix", on_reply,
                                        NULL, "ssaqaqaqa{sv}", name, "", 1, 5, 1, 6, 0, 1, "alternative",
                                        "b", 1);
}

int main(int argc, char **argv) {
        CLEANUP(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        unsigned n;
        int r;

        if (argc < 3 || argc > 4 || sd_bus_open_system(&bus) < 0)
                return EXIT_FAILURE;

        n = (unsigned) atoi(argv[1]);
        for (unsigned i = 0; i < n; i++)
                if (call(bus, argc > 3 ? argv[3] : "define", i) < 0)
                        return EXIT_FAILURE;
        if (sd_bus_flush(bus) < 0)
                return EXIT_FAILURE;
        if (strcmp(argv[2], "leave") == 0)
                return EXIT_SUCCESS;

        while (n_made + n_refused + n_other < n) {
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
                if (r < 0)
                        return EXIT_FAILURE;
        }

        (void) printf("%u made, %u refused\n", n_made, n_refused);
        return n_other == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
