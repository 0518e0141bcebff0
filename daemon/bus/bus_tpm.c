/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TPMs, and the manager's methods that make them. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "bus/bus_internal.h"

/* ---- properties ---- */

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const VtpmView *v = &((const BusObject *) userdata)->tpm;
        char uuid[UUID_STRING_SIZE];
        const struct {
                const char *property, *text;
        } texts[] = {
                { "UUID", uuid_format(v->uuid, uuid) }, { "Name", v->spec.name },
                { "State", vtpm_state_name(v->state) }, { "Guest", v->spec.guest },
                { "Model", tpm_model_name(v->model) },  { "PcrBanks", v->spec.pcr_banks },
                { "DeviceSocket", v->device_socket },   { "SwtpmSocket", v->swtpm_socket },
        };

        for (size_t i = 0; i < ELEMENTS(texts); i++)
                if (strcmp(texts[i].property, property) == 0)
                        return bus_append_text(reply, texts[i].text ?: "");

        return -ENOENT;
}

static int get_flag(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const VtpmSpec *s = &((const BusObject *) userdata)->tpm.spec;
        bool flag = strcmp(property, "Ephemeral") == 0 ? s->ephemeral : s->encrypted;

        return sd_bus_message_append(reply, "b", (int) flag);
}

static int get_denied(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const VtpmSpec *s = &((const BusObject *) userdata)->tpm.spec;

        return sd_bus_message_append_array(reply, 'u', s->denied, s->n_denied * sizeof *s->denied);
}

static int get_uid(sd_bus *bus, const char *path, const char *interface, const char *property,
                   sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const VtpmView *v = &((const BusObject *) userdata)->tpm;
        uint32_t uid = strcmp(property, "OwnUID") == 0 ? v->uid : v->spec.owner;

        return sd_bus_message_append_basic(reply, 'u', &uid);
}

static int get_problems(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return bus_append_texts(reply, ((const BusObject *) userdata)->tpm.problems);
}

/* ---- the manager's methods ---- */

static int need_vtpm(Bus *b, Vtpm **ret, sd_bus_error *error) {
        *ret = engine_vtpm(b->engine);
        if (!*ret)
                return sd_bus_error_setf(error, bus_error_name(VERDICT_BACKEND),
                                         "guestcryptd has no TPMs here, its log says why");

        return 0;
}

int bus_find_tpm(Bus *b, const char *name, Uuid *ret, sd_bus_error *error) {
        CLEANUP(freep) char *line = NULL;
        Vtpm *v;
        int r;

        if (!*name)
                return bus_error_invalid(error, "a name or UUID must be given");

        r = need_vtpm(b, &v, error);
        if (r < 0)
                return r;

        r = v->ops->find(v, name, ret);
        if (r != -ENOENT)
                return r;

        line = bus_line(name);
        if (!line)
                return -ENOMEM;

        return sd_bus_error_setf(error, bus_error_name(VERDICT_NO_SUCH_TPM), "there is no TPM '%s'", line);
}

int bus_method_get_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        char path[BUS_PATH_SIZE];
        const char *name;
        Uuid uuid;
        uid_t uid;
        int r;

        r = bus_read_string(m, "name", &name, error);
        if (r < 0)
                return r;

        r = authz_check(b, m, AUTHZ_INSPECT, bus_method_get_tpm, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = bus_find_tpm(b, name, &uuid, error);
        if (r < 0)
                return r;

        return sd_bus_reply_method_return(m, "o", bus_path_uuid("tpm", uuid, path));
}

static int read_define_options(sd_bus_message *m, VtpmSpec *s, sd_bus_error *error) {
        const char *guest = NULL, *banks = NULL, *profile = NULL;
        bool certificates = true;
        BusCodes deny = {};
        int r;

        r = bus_read_options(m,
                             (BusOption[]) {
                                     { "guest", 's', &guest },
                                     { "ephemeral", 'b', &s->ephemeral },
                                     { "encrypted", 'b', &s->encrypted },
                                     { "key-file", 'p', &s->key_file },
                                     { "pcr-banks", 's', &banks },
                                     { "profile", 't', &profile },
                                     { "ca-config", 'p', &s->ca_config },
                                     { "certificates", 'b', &certificates },
                                     { "platform-keep", 'b', &s->platform_keep },
                                     { "deny", 'C', &deny },
                             },
                             10, error);
        if (r < 0)
                return r;

        s->guest = bus_or_null(guest);
        s->pcr_banks = bus_or_null(banks);
        s->profile = bus_or_null(profile);
        s->no_certificates = !certificates;
        s->denied = deny.codes;
        s->n_denied = deny.n;
        return 0;
}

int bus_method_define_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        VtpmSpec spec = {};
        Vtpm *v;
        Call *c;
        int r;

        r = bus_read_string(m, "name", &spec.name, error);
        if (r < 0)
                return r;
        r = bus_read_uuid(m, &spec.uuid, error);
        if (r < 0)
                return r;
        r = read_define_options(m, &spec, error);
        if (r < 0)
                return r;

        if (!*spec.name)
                return bus_error_invalid(error, "a name must be given");
        r = need_vtpm(b, &v, error);
        if (r < 0)
                return r;
        r = bus_call_begin(b, m, AUTHZ_MANAGE_TPM, bus_method_define_tpm, CALL_REPLY_TPM, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        spec.owner = c->caller.uid;
        r = engine_define_tpm(b->engine, &spec, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

int bus_method_restore_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        const char *name, *guest = NULL;
        VtpmSpec spec = {};
        int fd, r;
        Vtpm *v;
        Call *c;

        r = bus_read_fd(m, "the backup", O_RDONLY, &fd, error);
        if (r < 0)
                return r;
        r = bus_read_string(m, "name", &name, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, (BusOption[]) { { "uuid", 'U', &spec.uuid }, { "guest", 's', &guest } }, 2,
                             error);
        if (r < 0)
                return r;

        r = need_vtpm(b, &v, error);
        if (r < 0)
                return r;
        r = bus_call_begin(b, m, AUTHZ_MANAGE_TPM, bus_method_restore_tpm, CALL_REPLY_TPM, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        spec.name = bus_or_null(name);
        spec.guest = bus_or_null(guest);
        spec.owner = c->caller.uid;
        r = engine_restore_tpm(b->engine, fd, &spec, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int read_import_options(sd_bus_message *m, VtpmSpec *s, sd_bus_error *error) {
        const char *guest = NULL;
        BusCodes deny = {};
        int r;

        r = bus_read_options(m,
                             (BusOption[]) {
                                     { "uuid", 'U', &s->uuid },
                                     { "guest", 's', &guest },
                                     { "key-file", 'p', &s->key_file },
                                     { "platform-keep", 'b', &s->platform_keep },
                                     { "deny", 'C', &deny },
                             },
                             5, error);
        if (r < 0)
                return r;

        s->guest = bus_or_null(guest);
        s->denied = deny.codes;
        s->n_denied = deny.n;
        return 0;
}

int bus_method_import_tpm(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        const char *directory;
        VtpmSpec spec = {};
        Vtpm *v;
        Call *c;
        int r;

        r = bus_read_path(m, "directory", &directory, error);
        if (r < 0)
                return r;
        r = bus_read_string(m, "name", &spec.name, error);
        if (r < 0)
                return r;
        r = read_import_options(m, &spec, error);
        if (r < 0)
                return r;

        if (!*spec.name)
                return bus_error_invalid(error, "a name must be given");
        r = need_vtpm(b, &v, error);
        if (r < 0)
                return r;
        r = bus_call_begin(b, m, AUTHZ_MANAGE_TPM, bus_method_import_tpm, CALL_REPLY_TPM, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        spec.owner = c->caller.uid;
        r = engine_import_tpm(b->engine, directory, &spec, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

/* ---- methods of a TPM ---- */

static int method_start(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        TpmModel model = TPM_MODEL_NONE;
        Call *c;
        int r;

        r = bus_read_options(m, (BusOption[]) { { "model", 'M', &model } }, 1, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_TPM, method_start, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        if (model == TPM_MODEL_NONE)
                model = TPM_MODEL_VIRTIO;
        r = engine_start_tpm(b->engine, c->object, model, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_stop(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        Call *c;
        int r;

        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_TPM, method_stop, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_stop_tpm(b->engine, c->object, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_undefine(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        bool wipe = false;
        Call *c;
        int r;

        r = bus_read_options(m, (BusOption[]) { { "wipe", 'b', &wipe } }, 1, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_TPM, method_undefine, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_undefine_tpm(b->engine, c->object, wipe, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_backup(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        int fd, r;
        Call *c;

        r = bus_read_fd(m, "the backup", O_WRONLY, &fd, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_TPM, method_backup, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_backup_tpm(b->engine, c->object, fd, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_get_counters(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        Call *c;
        int r;

        r = bus_call_begin(b, m, AUTHZ_INSPECT, method_get_counters, CALL_REPLY_OTHER, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_tpm_counters(b->engine, c->object, &c->caller, bus_call_counters, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

const sd_bus_vtable bus_tpm_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Start", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_start,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Stop", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_stop,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Undefine", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, method_undefine,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Backup", SD_BUS_ARGS("h", file, "a{sv}", options), SD_BUS_NO_RESULT,
                                method_backup, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetCounters", SD_BUS_NO_ARGS, SD_BUS_RESULT("a{st}", counters),
                                method_get_counters, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("UUID", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("State", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Guest", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Model", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Ephemeral", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Encrypted", "b", get_flag, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("PcrBanks", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Denied", "au", get_denied, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("OwnUID", "u", get_uid, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("DeviceSocket", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("SwtpmSocket", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("UID", "u", get_uid, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Problems", "as", get_problems, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int get(Bus *b, Uuid uuid) {
        Vtpm *v = engine_vtpm(b->engine);

        return v ? v->ops->get(v, uuid, &b->object.tpm) : -ENOENT;
}

static int list(Bus *b, Uuid **ret, size_t *ret_n) {
        Vtpm *v = engine_vtpm(b->engine);

        return v ? v->ops->list(v, ret, ret_n) : 0;
}

int bus_tpm_add(Bus *b) {
        return bus_add_uuids(b, "tpm", BUS_INTERFACE("Tpm"), bus_tpm_vtable, get, list);
}
