/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* fake_service - the bus's side of libvirt's hook, without a daemon behind it: prints one line for each event, and
 * answers as the guest's name says: "refuse...", "hang...", "die..."; any other is given all it asks for. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

static int print_needs(sd_bus_message *m) {
        const char *key, *value;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read(m, "s", &key);
                if (r >= 0 && strcmp(key, "mdevs") == 0) {
                        char **uuids = NULL;

                        r = sd_bus_message_enter_container(m, 'v', "as");
                        if (r >= 0)
                                r = sd_bus_message_read_strv(m, &uuids);
                        for (char **u = uuids; r >= 0 && u && *u; u++)
                                (void) printf(" mdev=%s", *u);
                        for (char **u = uuids; u && *u; u++)
                                free(*u);
                        free(uuids);
                        if (r >= 0)
                                r = sd_bus_message_exit_container(m);
                } else if (r >= 0) {
                        r = sd_bus_message_read(m, "v", "s", &value);
                        if (r >= 0)
                                (void) printf(" %s=%s", key, value);
                }
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r;
}

static int on_event(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *operation, *suboperation, *extra, *name, *uuid;
        int r;

        r = sd_bus_message_read(m, "sssss", &operation, &suboperation, &extra, &name, &uuid);
        if (r < 0)
                return r;

        (void) printf("%s/%s/%s %s %s", operation, suboperation, extra, name, uuid);
        r = print_needs(m);
        (void) printf("\n");
        (void) fflush(stdout);
        if (r < 0)
                return r;

        if (strncmp(name, "hang", 4) == 0)
                return 1;
        if (strncmp(name, "die", 3) == 0)
                exit(0);
        if (strncmp(name, "refuse", 6) == 0)
                return sd_bus_error_set(error, "org.guestcrypt1.Error.Overlap",
                                        "05.0047 belongs to matrix 'a' of guest 'b'");
        return sd_bus_reply_method_return(m, "");
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Event", "sssssa{sv}", "", on_event, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

int main(void) {
        sd_bus *bus = NULL;
        int r;

        r = sd_bus_open_system(&bus);
        if (r >= 0)
                r = sd_bus_add_object_vtable(bus, NULL, "/org/guestcrypt1", "org.guestcrypt1.Hook", vtable,
                                             NULL);
        if (r >= 0)
                r = sd_bus_request_name(bus, "org.guestcrypt1", 0);
        while (r >= 0) {
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
        }
        (void) fprintf(stderr, "fake_service: %s\n", strerror(-r));
        return 1;
}
