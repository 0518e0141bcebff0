/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hooks/callout.h"

#define BUS_NAME  "org.guestcrypt1"
#define BUS_ROOT  "/org/guestcrypt1"
#define INTERFACE BUS_NAME ".Mdevctl"

static void bus_closep(sd_bus **bus) {
        (void) sd_bus_close_unref(*bus);
}

static void message_unrefp(sd_bus_message **m) {
        (void) sd_bus_message_unref(*m);
}

static void slot_unrefp(sd_bus_slot **slot) {
        (void) sd_bus_slot_unref(*slot);
}

static uint64_t now_us(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        *(sd_bus_message **) userdata = sd_bus_message_ref(m);
        return 1;
}

static int absent(char **reterr_text, const char *why) {
        *reterr_text = strdup(why);
        return *reterr_text ? -EHOSTDOWN : -ENOMEM;
}

/* An error that does not come from the daemon itself. */
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

/* sd_bus_call() would wait without limit for a bus that takes connections and says nothing. */
static int exchange(sd_bus *bus, sd_bus_message *m, sd_bus_message **ret, char **reterr_text) {
        CLEANUP(message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(slot_unrefp) sd_bus_slot *slot = NULL;
        uint64_t end = now_us() + CALLOUT_DEADLINE_US;
        const sd_bus_error *error;
        const char *text;
        int r;

        r = sd_bus_call_async(bus, &slot, m, on_reply, &reply, CALLOUT_DEADLINE_US);
        while (r >= 0 && !reply) {
                uint64_t now = now_us();

                r = sd_bus_process(bus, NULL);
                if (r != 0)
                        continue;
                if (now >= end)
                        return absent(reterr_text, "the bus does not answer in time");
                r = sd_bus_wait(bus, end - now);
                if (r == -EINTR)
                        r = 0;
        }
        if (!reply)
                return absent(reterr_text, strerror(-r));
        if (!sd_bus_message_is_method_error(reply, NULL)) {
                *ret = TAKE(reply);
                return 0;
        }

        error = sd_bus_message_get_error(reply);
        text = error->message && *error->message ? error->message : error->name;
        if (is_absence(error->name))
                return absent(reterr_text, text);
        *reterr_text = strdup(text);
        return *reterr_text ? CALLOUT_REFUSED : -ENOMEM;
}

static int open_bus(sd_bus **ret, char **reterr_text) {
        int r = sd_bus_open_system(ret);

        return r < 0 ? absent(reterr_text, strerror(-r)) : 0;
}

int callout_begin(const Callout *c, const char *action, const char *json, pid_t process, char **ret_daemon,
                  char **reterr_text) {
        CLEANUP(bus_closep) sd_bus *bus = NULL;
        CLEANUP(message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(fd_closep) int pidfd = -1;
        char id[UUID_STRING_SIZE];
        int r;

        pidfd = (int) syscall(SYS_pidfd_open, process, 0);
        if (pidfd < 0)
                return -errno;
        r = open_bus(&bus, reterr_text);
        if (r < 0)
                return r;
        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_ROOT, INTERFACE, "Begin");
        if (r >= 0)
                r = sd_bus_message_append(m, "sssh", action, uuid_format(c->uuid, id), json, pidfd);
        if (r >= 0)
                r = exchange(bus, m, &reply, reterr_text);
        if (r != 0)
                return r;
        *ret_daemon = strdup(sd_bus_message_get_sender(reply) ?: "");
        return *ret_daemon ? 0 : -ENOMEM;
}

int callout_confirm(const char *daemon) {
        CLEANUP(bus_closep) sd_bus *bus = NULL;
        CLEANUP(message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(freep) char *text = NULL;
        const char *owner;
        int r;

        r = open_bus(&bus, &text);
        if (r >= 0)
                r = sd_bus_message_new_method_call(bus, &m, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                                   "org.freedesktop.DBus", "GetNameOwner");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", BUS_NAME);
        if (r >= 0)
                r = exchange(bus, m, &reply, &text);
        if (r == 0)
                r = sd_bus_message_read(reply, "s", &owner);
        return r > 0 && reply && strcmp(owner, daemon) == 0;
}

int callout_end(const Callout *c, char **reterr_text) {
        CLEANUP(bus_closep) sd_bus *bus = NULL;
        CLEANUP(message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        char id[UUID_STRING_SIZE];
        int r;

        r = open_bus(&bus, reterr_text);
        if (r < 0)
                return r;
        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_ROOT, INTERFACE, "End");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", uuid_format(c->uuid, id));
        return r < 0 ? r : exchange(bus, m, &reply, reterr_text);
}

/* Its only attribute is ap_config, if the matrix is known. */
static int read_attributes(sd_bus_message *reply, ApMatrix *ret, char **reterr_text) {
        const char *name, *value;
        int r;

        r = sd_bus_message_enter_container(reply, 'v', "a(ss)");
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "(ss)");
        if (r >= 0)
                r = sd_bus_message_read(reply, "(ss)", &name, &value);
        if (r > 0 && strcmp(name, "ap_config") == 0)
                return ap_matrix_parse(value, ret);
        if (r < 0)
                return r;
        *reterr_text = strdup("this kernel gives no safe way to read it");
        return *reterr_text ? CALLOUT_REFUSED : -ENOMEM;
}

int callout_ask_matrix(const Callout *c, ApMatrix *ret, char **reterr_text) {
        CLEANUP(bus_closep) sd_bus *bus = NULL;
        CLEANUP(message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        char path[sizeof BUS_ROOT + sizeof "/mdev/" + UUID_STRING_SIZE], id[UUID_STRING_SIZE];
        int r;

        (void) uuid_format(c->uuid, id);
        for (char *s = id; *s; s++)
                if (*s == '-')
                        *s = '_';
        (void) snprintf(path, sizeof path, BUS_ROOT "/mdev/%s", id);

        r = open_bus(&bus, reterr_text);
        if (r < 0)
                return r;
        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, path, "org.freedesktop.DBus.Properties",
                                           "Get");
        if (r >= 0)
                r = sd_bus_message_append(m, "ss", BUS_NAME ".Mdev", "Attributes");
        if (r < 0)
                return r;
        r = exchange(bus, m, &reply, reterr_text);
        return r != 0 ? r : read_attributes(reply, ret, reterr_text);
}
