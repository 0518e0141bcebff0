/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hooks/callout.h"
#include "hooks/hook_bus.h"

#define INTERFACE BUS_NAME ".Mdevctl"

static int absent(char **reterr_text, const char *why) {
        *reterr_text = strdup(why);
        return *reterr_text ? -EHOSTDOWN : -ENOMEM;
}

static int exchange(sd_bus *bus, sd_bus_message *m, sd_bus_message **ret, char **reterr_text) {
        CLEANUP(message_unrefp) sd_bus_message *reply = NULL;
        bool is_absent = false;
        const char *text;
        int r;

        r = hook_bus_call(bus, m, CALLOUT_DEADLINE_US, &reply);
        if (r < 0)
                return absent(reterr_text,
                              r == -ETIMEDOUT ? "the bus does not answer in time" : strerror(-r));
        text = hook_bus_error(reply, &is_absent);
        if (!text) {
                *ret = TAKE(reply);
                return 0;
        }
        if (is_absent)
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

int callout_end(const Callout *c, pid_t process, char **reterr_text) {
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
        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_ROOT, INTERFACE, "End");
        if (r >= 0)
                r = sd_bus_message_append(m, "sh", uuid_format(c->uuid, id), pidfd);
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
