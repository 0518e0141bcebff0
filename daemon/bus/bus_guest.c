/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Guests, as far as they concern us. */

#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"

/* ---- properties ---- */

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const EngineGuest *g = &((const BusObject *) userdata)->guest;
        char uuid[UUID_STRING_SIZE];
        const struct {
                const char *property, *text;
        } texts[] = {
                { "UUID", uuid_format(g->uuid, uuid) },
                { "Name", g->name },
                { "State", g->state },
                { "Matrix", g->matrix },
                { "LiveMatrix", g->live_matrix },
                { "Tpm", g->tpm },
                { "TpmModel", tpm_model_name(g->tpm_model) },
                { "LiveTpm", g->live_tpm },
                { "LiveTpmModel", tpm_model_name(g->live_tpm_model) },
        };

        for (size_t i = 0; i < ELEMENTS(texts); i++)
                if (strcmp(texts[i].property, property) == 0)
                        return bus_append_text(reply, texts[i].text ?: "");

        return -ENOENT;
}

static int get_flag(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const EngineGuest *g = &((const BusObject *) userdata)->guest;
        bool flag = strcmp(property, "Persistent") == 0 ? g->persistent : g->active;

        return sd_bus_message_append(reply, "b", (int) flag);
}

static int get_problems(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return bus_append_texts(reply, ((const BusObject *) userdata)->guest.problems);
}

/* ---- methods ---- */

/* The guests of a libvirt that does not answer may be there all the same. */
static int unknown_guest(Bus *b, const char *name, sd_bus_error *error) {
        CLEANUP(freep) char *line = bus_line(name), *why = NULL;
        const char *libvirt = engine_libvirt(b->engine);

        if (strcmp(libvirt, "none") == 0)
                return sd_bus_error_setf(
                        error, bus_error_name(VERDICT_BACKEND),
                        "guestcryptd knows no guests: no libvirt is to be asked (LibvirtURI=)");

        why = bus_line(engine_libvirt_problem(b->engine) ?: "no connection yet");
        if (!line || !why)
                return -ENOMEM;
        if (strcmp(libvirt, "connected") != 0)
                return sd_bus_error_setf(error, bus_error_name(VERDICT_BACKEND),
                                         "guest '%s' is not known, and libvirt cannot be asked: %s", line,
                                         why);

        return sd_bus_error_setf(error, bus_error_name(VERDICT_NO_SUCH_GUEST), "there is no guest '%s'",
                                 line);
}

static int find_guest(Bus *b, const char *name, Uuid *ret, sd_bus_error *error) {
        int r;

        if (!*name)
                return bus_error_invalid(error, "a name or UUID must be given");

        r = engine_find_guest(b->engine, name, ret);
        return r == -ENOENT ? unknown_guest(b, name, error) : r;
}

static int answer_get_guest(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        char path[BUS_PATH_SIZE];
        const char *name;
        Uuid uuid;
        int r;

        r = sd_bus_message_rewind(m, 1);
        if (r >= 0)
                r = bus_read_string(m, "name", &name, error);
        if (r >= 0)
                r = find_guest(b, name, &uuid, error);
        if (r < 0)
                return r;

        return sd_bus_reply_method_return(m, "o", bus_path_uuid("guest", uuid, path));
}

int bus_method_get_guest(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        const char *name;
        Uuid uuid;
        uid_t uid;
        int r;

        r = bus_read_string(m, "name", &name, error);
        if (r < 0)
                return r;

        r = authz_check(b, m, AUTHZ_INSPECT, bus_method_get_guest, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        /* one that was defined a moment ago may not have been told of yet */
        if (*name && engine_find_guest(b->engine, name, &uuid) == -ENOENT)
                return bus_call_ask_guest(b, m, name, answer_get_guest, error);
        return answer_get_guest(m, userdata, error);
}

static int method_attach_matrix(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        bool live = true;
        const char *name;
        Uuid matrix;
        Call *c;
        int r;

        r = bus_read_string(m, "matrix", &name, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, (BusOption[]) { { "live", 'b', &live } }, 1, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_WIRE_GUEST, method_attach_matrix, CALL_REPLY_OTHER, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = bus_find_matrix(b, name, &matrix, error);
        if (r < 0)
                return bus_call_abandon(c, r);

        r = engine_attach_matrix(b->engine, c->object, matrix, live, &c->caller, bus_call_noted, c,
                                 &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_detach_matrix(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        bool live = true;
        Call *c;
        int r;

        r = bus_read_options(m, (BusOption[]) { { "live", 'b', &live } }, 1, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_WIRE_GUEST, method_detach_matrix, CALL_REPLY_OTHER, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_detach_matrix(b->engine, c->object, live, &c->caller, bus_call_noted, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_attach_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        TpmModel model = TPM_MODEL_NONE;
        const char *name;
        Uuid tpm;
        Call *c;
        int r;

        r = bus_read_string(m, "tpm", &name, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, (BusOption[]) { { "model", 'M', &model } }, 1, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_WIRE_GUEST, method_attach_tpm, CALL_REPLY_OTHER, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = bus_find_tpm(b, name, &tpm, error);
        if (r < 0)
                return bus_call_abandon(c, r);

        r = engine_attach_tpm(b->engine, c->object, tpm, model, &c->caller, bus_call_noted, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_detach_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        Call *c;
        int r;

        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_WIRE_GUEST, method_detach_tpm, CALL_REPLY_OTHER, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_detach_tpm(b->engine, c->object, &c->caller, bus_call_noted, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

const sd_bus_vtable bus_guest_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("AttachMatrix", SD_BUS_ARGS("s", matrix, "a{sv}", options),
                                SD_BUS_RESULT("as", notes), method_attach_matrix,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("DetachMatrix", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("as", notes),
                                method_detach_matrix, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("AttachTpm", SD_BUS_ARGS("s", tpm, "a{sv}", options),
                                SD_BUS_RESULT("as", notes), method_attach_tpm, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("DetachTpm", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("as", notes),
                                method_detach_tpm, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("UUID", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("State", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Persistent", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Active", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Matrix", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("LiveMatrix", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Tpm", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("TpmModel", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("LiveTpm", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("LiveTpmModel", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Problems", "as", get_problems, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int get(Bus *b, Uuid uuid) {
        return engine_get_guest(b->engine, uuid, &b->object.guest);
}

static int list(Bus *b, Uuid **ret, size_t *ret_n) {
        return engine_list_guests(b->engine, ret, ret_n);
}

int bus_guest_add(Bus *b) {
        return bus_add_uuids(b, "guest", BUS_INTERFACE("Guest"), bus_guest_vtable, get, list);
}
