/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hooks/hook_bus.h"

static void slot_unrefp(sd_bus_slot **slot) {
        (void) sd_bus_slot_unref(*slot);
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        *(sd_bus_message **) userdata = sd_bus_message_ref(m);
        return 1;
}

/* sd_bus_call() would wait without limit for a bus that takes connections and says nothing. */
int hook_bus_call(sd_bus *bus, sd_bus_message *m, uint64_t timeout_us, sd_bus_message **ret) {
        CLEANUP(message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(slot_unrefp) sd_bus_slot *slot = NULL;
        uint64_t end = clock_now_us() + timeout_us;
        int r;

        r = sd_bus_call_async(bus, &slot, m, on_reply, &reply, timeout_us);
        while (r >= 0 && !reply) {
                uint64_t now;

                r = sd_bus_process(bus, NULL);
                if (r != 0)
                        continue;
                now = clock_now_us();
                if (now >= end)
                        return -ETIMEDOUT;
                r = sd_bus_wait(bus, end - now);
                if (r == -EINTR)
                        r = 0;
        }
        if (!reply)
                return r;

        *ret = TAKE(reply);
        return 0;
}

static bool is_absence(const char *name) {
        static const char *const prefixes[] = {
                SD_BUS_ERROR_SERVICE_UNKNOWN, SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                SD_BUS_ERROR_NO_REPLY,        SD_BUS_ERROR_TIMEOUT,
                SD_BUS_ERROR_DISCONNECTED,    "org.freedesktop.DBus.Error.Spawn.",
                "org.freedesktop.systemd1.",
        };

        for (size_t i = 0; i < ELEMENTS(prefixes); i++)
                if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
                        return true;
        return false;
}

const char *hook_bus_error(sd_bus_message *reply, bool *ret_absent) {
        const sd_bus_error *error;

        if (!sd_bus_message_is_method_error(reply, NULL))
                return NULL;
        error = sd_bus_message_get_error(reply);
        *ret_absent = is_absence(error->name);
        return error->message && *error->message ? error->message : error->name;
}
