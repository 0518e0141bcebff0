/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* flood NUMBER wait|leave - has NUMBER definitions under way at once. "wait": prints how many were made, and how
 * many refused as too many; anything else is a failure. "leave": goes away without an answer. */

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

static int define(sd_bus *bus, unsigned i) {
        char name[32];

        (void) snprintf(name, sizeof name, "flood-%u", i);
        return sd_bus_call_method_async(bus, NULL, "org.guestcrypt1", "/org/guestcrypt1",
                                        "org.guestcrypt1.Manager", "DefineMatrix", on_reply, NULL,
                                        "ssaqaqaqa{sv}", name, "", 1, 5, 1, 6, 0, 1, "alternative", "b", 1);
}

int main(int argc, char **argv) {
        CLEANUP(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        unsigned n;
        int r;

        if (argc != 3 || sd_bus_open_system(&bus) < 0)
                return EXIT_FAILURE;

        n = (unsigned) atoi(argv[1]);
        for (unsigned i = 0; i < n; i++)
                if (define(bus, i) < 0)
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
