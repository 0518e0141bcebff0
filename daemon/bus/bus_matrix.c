/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"

/* ---- properties ---- */

static int get_uuid(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const BusObject *o = userdata;
        char text[UUID_STRING_SIZE];

        return sd_bus_message_append_basic(reply, 's', uuid_format(o->matrix.uuid, text));
}

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const EngineMatrix *x = &((const BusObject *) userdata)->matrix;

        if (strcmp(property, "Name") == 0)
                return bus_append_text(reply, x->name);
        if (strcmp(property, "Owner") == 0)
                return bus_append_text(reply, x->guest ?: "");

        return sd_bus_message_append_basic(reply, 's', matrix_state_name(x->state));
}

static int get_mask(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const EngineMatrix *x = &((const BusObject *) userdata)->matrix;
        const struct {
                const char *property;
                const ApMask *mask;
        } masks[] = {
                { "Adapters", &x->matrix.adapters },      { "Domains", &x->matrix.domains },
                { "ControlDomains", &x->matrix.control }, { "GuestAdapters", &x->guest_adapters },
                { "GuestDomains", &x->guest_domains },
        };

        for (size_t i = 0; i < ELEMENTS(masks); i++)
                if (strcmp(masks[i].property, property) == 0)
                        return bus_append_mask(reply, masks[i].mask);

        return -ENOENT;
}

static int get_flag(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const EngineMatrix *x = &((const BusObject *) userdata)->matrix;
        const struct {
                const char *property;
                bool flag;
        } flags[] = {
                { "Autostart", x->autostart },
                { "Alternative", x->alternative },
                { "FromHost", x->from_host },
                { "InUse", x->in_use },
        };

        for (size_t i = 0; i < ELEMENTS(flags); i++)
                if (strcmp(flags[i].property, property) == 0)
                        return sd_bus_message_append(reply, "b", (int) flags[i].flag);

        return -ENOENT;
}

static int get_uid(sd_bus *bus, const char *path, const char *interface, const char *property,
                   sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        uint32_t uid = ((const BusObject *) userdata)->matrix.uid;

        return sd_bus_message_append_basic(reply, 'u', &uid);
}

static int get_problems(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return bus_append_texts(reply, ((const BusObject *) userdata)->matrix.problems);
}

/* ---- methods ---- */

static int method_start(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        bool from_host = false;
        Call *c;
        int r;

        r = bus_read_options(m, (BusOption[]) { { "from-host", 'b', &from_host } }, 1, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_start, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_start(b->engine, c->object, from_host, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_stop(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        Call *c;
        int r;

        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_stop, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_stop(b->engine, c->object, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_modify(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        ApMatrix matrix;
        Call *c;
        int r;

        r = bus_read_matrix(m, &matrix, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_modify, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_modify(b->engine, c->object, &matrix, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_undefine(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        bool stop = false;
        Call *c;
        int r;

        r = bus_read_options(m, (BusOption[]) { { "stop", 'b', &stop } }, 1, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_undefine, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_undefine(b->engine, c->object, stop, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_set_autostart(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        int autostart, r;
        Call *c;

        r = sd_bus_message_read_basic(m, 'b', &autostart);
        if (r < 0)
                return r;
        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_set_autostart, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_set_autostart(b->engine, c->object, autostart, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

/* It was there when the call came, but polkit and the scan took their time. */
static int no_such_matrix(sd_bus_error *error) {
        return bus_error_set_verdict(error, VERDICT_NO_SUCH_MATRIX, NULL);
}

static int answer_explain(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        EngineMatrix matrix;
        Uuid uuid = bus_path_uuid_of(sd_bus_message_get_path(m));

        if (engine_get_matrix(b->engine, uuid, &matrix) < 0)
                return no_such_matrix(error);

        return bus_reply_conflicts(b, m,
                                   &(EngineCheck) { .matrix = matrix.matrix,
                                                    .self = uuid,
                                                    .alternative = matrix.alternative,
                                                    .start = true,
                                                    .from_host = matrix.from_host },
                                   error);
}

static int method_explain(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        uid_t uid;
        int r;

        r = authz_check(b, m, AUTHZ_INSPECT, method_explain, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return bus_call_refresh(b, m, answer_explain, error);
}

static int method_get_xml(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        CLEANUP(freep) char *xml = NULL, *clean = NULL;
        uid_t uid;
        int r;

        r = authz_check(b, m, AUTHZ_INSPECT, method_get_xml, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_get_xml(b->engine, bus_path_uuid_of(sd_bus_message_get_path(m)), &xml);
        if (r == -ENOENT)
                return no_such_matrix(error);
        if (r < 0)
                return bus_error_broken(m, r, error);

        clean = bus_text(xml);
        if (!clean)
                return -ENOMEM;

        return sd_bus_reply_method_return(m, "s", clean);
}

const sd_bus_vtable bus_matrix_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Start", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_start,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Stop", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_stop,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Modify",
                                SD_BUS_ARGS("aq", adapters, "aq", domains, "aq", control, "a{sv}", options),
                                SD_BUS_NO_RESULT, method_modify, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Undefine", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_undefine,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Explain", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(qqss)", conflicts),
                                method_explain, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetXML", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", xml), method_get_xml,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("SetAutostart", SD_BUS_ARGS("b", autostart, "a{sv}", options),
                                SD_BUS_NO_RESULT, method_set_autostart, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("UUID", "s", get_uuid, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Adapters", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Domains", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("ControlDomains", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("GuestAdapters", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("GuestDomains", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("State", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Autostart", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Alternative", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("FromHost", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Owner", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("UID", "u", get_uid, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("InUse", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Problems", "as", get_problems, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int get(Bus *b, Uuid uuid) {
        return engine_get_matrix(b->engine, uuid, &b->object.matrix);
}

static int list(Bus *b, Uuid **ret, size_t *ret_n) {
        return engine_list_matrices(b->engine, ret, ret_n);
}

int bus_matrix_add(Bus *b) {
        return bus_add_uuids(b, "matrix", BUS_INTERFACE("Matrix"), bus_matrix_vtable, get, list);
}
