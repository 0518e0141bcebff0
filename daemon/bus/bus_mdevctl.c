/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* mdevctl: what it has, what its callout asks, definitions that go from one to the other. */

#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"
#include "engine/engine_mdevctl.h"

static Bus *bus_of(void *userdata) {
        return ((BusObject *) userdata)->bus;
}

static int append_definition(sd_bus_message *reply, const EngineMdevctl *d) {
        char text[UUID_STRING_SIZE];
        int autostart = d->autostart, r;

        r = sd_bus_message_open_container(reply, 'r', "sbaqaqaqs");
        if (r >= 0)
                r = bus_append_text(reply, d->problem ? d->file : uuid_format(d->uuid, text));
        if (r >= 0)
                r = sd_bus_message_append_basic(reply, 'b', &autostart);
        if (r >= 0)
                r = bus_append_mask(reply, &d->matrix.adapters);
        if (r >= 0)
                r = bus_append_mask(reply, &d->matrix.domains);
        if (r >= 0)
                r = bus_append_mask(reply, &d->matrix.control);
        if (r >= 0)
                r = bus_append_text(reply, d->problem ?: "");
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int answer_list(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        EngineMdevctl d;
        int r;

        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(sbaqaqaqs)");
        for (size_t i = 0; r >= 0 && engine_mdevctl_get(bus_of(userdata)->engine, i, &d); i++)
                r = append_definition(reply, &d);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int method_list(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        uid_t uid;
        int r;

        r = authz_check(b, m, AUTHZ_INSPECT, method_list, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return bus_call_refresh(b, m, answer_list, error);
}

static int read_a_uuid(sd_bus_message *m, Uuid *ret, sd_bus_error *error) {
        int r;

        r = bus_read_uuid(m, ret, error);
        if (r < 0)
                return r;
        return uuid_is_null(*ret) ? bus_error_invalid(error, "a UUID must be given") : 0;
}

static int method_import(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        EngineImport import = {};
        Uuid uuid;
        Call *c;
        int r;

        r = read_a_uuid(m, &uuid, error);
        if (r < 0)
                return r;
        r = bus_read_options(m,
                             (BusOption[]) {
                                     { "name", 's', &import.name },
                                     { "alternative", 'b', &import.alternative },
                                     { "from-host", 'b', &import.from_host },
                                     { "dry-run", 'b', &import.dry_run },
                             },
                             4, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_HOST, method_import, CALL_REPLY_MATRIX, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_mdevctl_import(b->engine, uuid, &import, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_export(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        bool force = false, dry_run = false;
        const char *name;
        Uuid uuid = {};
        Call *c;
        int r;

        r = bus_read_string(m, "matrix", &name, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, (BusOption[]) { { "force", 'b', &force }, { "dry-run", 'b', &dry_run } }, 2,
                             error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_HOST, method_export, CALL_REPLY_OTHER, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = bus_find_matrix(b, name, &uuid, error);
        if (r < 0)
                return bus_call_abandon(c, r);
        r = engine_mdevctl_export(b->engine, uuid, force, dry_run, &c->caller, bus_call_exported, c,
                                  &c->refusal);
        return bus_call_submitted(c, r, error);
}

/* ---- for the callout: mdevctl waits for the answer, so that nobody is asked on the way ---- */

static int read_action(sd_bus_message *m, MdevctlAction *ret, sd_bus_error *error) {
        static const char *const names[] = {
                [MDEVCTL_DEFINE] = "define", [MDEVCTL_MODIFY] = "modify", [MDEVCTL_LIVE] = "live",
                [MDEVCTL_START] = "start",   [MDEVCTL_STOP] = "stop",     [MDEVCTL_UNDEFINE] = "undefine",
        };
        const char *name;
        int r;

        r = bus_read_string(m, "action", &name, error);
        if (r < 0)
                return r;
        for (MdevctlAction a = 0; a < _MDEVCTL_ACTION_MAX; a++)
                if (strcmp(names[a], name) == 0) {
                        *ret = a;
                        return 0;
                }
        return bus_error_invalid(error, "unknown action '%s'", name);
}

static int method_begin(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        MdevctlAction action = MDEVCTL_DEFINE;
        const char *json;
        int pidfd, r;
        Uuid uuid;
        uid_t uid;
        Call *c;

        r = authz_check_root(b, m, &uid, error);
        if (r < 0)
                return r;
        r = read_action(m, &action, error);
        if (r >= 0)
                r = read_a_uuid(m, &uuid, error);
        if (r >= 0)
                r = sd_bus_message_read(m, "sh", &json, &pidfd);
        if (r < 0)
                return r;
        if (strlen(json) > BUS_XML_MAX)
                return bus_error_invalid(error, "the definition is longer than %d bytes", BUS_XML_MAX);

        c = bus_call_new(b, m, uid, CALL_REPLY_EMPTY);
        if (!c)
                return -ENOMEM;

        r = engine_mdevctl_begin(b->engine, action, uuid, json, pidfd, &c->caller, bus_call_done, c,
                                 &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_end(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        int pidfd, r;
        Uuid uuid;
        uid_t uid;

        r = authz_check_root(b, m, &uid, error);
        if (r < 0)
                return r;
        r = read_a_uuid(m, &uuid, error);
        if (r >= 0)
                r = sd_bus_message_read(m, "h", &pidfd);
        if (r < 0)
                return r;

        engine_mdevctl_end(b->engine, uuid, pidfd);
        return sd_bus_reply_method_return(m, NULL);
}

const sd_bus_vtable bus_mdevctl_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("ListDefinitions", SD_BUS_NO_ARGS,
                                SD_BUS_RESULT("a(sbaqaqaqs)", definitions), method_list,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Import", SD_BUS_ARGS("s", uuid, "a{sv}", options),
                                SD_BUS_RESULT("o", matrix), method_import, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Export", SD_BUS_ARGS("s", matrix, "a{sv}", options),
                                SD_BUS_RESULT("s", definition), method_export, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Begin", SD_BUS_ARGS("s", action, "s", uuid, "s", definition, "h", process),
                                SD_BUS_NO_RESULT, method_begin, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("End", SD_BUS_ARGS("s", uuid, "h", process), SD_BUS_NO_RESULT, method_end,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

int bus_mdevctl_add(Bus *b) {
        return bus_add_root(b, BUS_INTERFACE("Mdevctl"), bus_mdevctl_vtable);
}
