/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"

static Bus *bus_of(void *userdata) {
        return ((BusObject *) userdata)->bus;
}

/* ---- properties ---- */

static int get_version(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append_basic(reply, 's', GUESTCRYPT_VERSION);
}

static int get_problems(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return bus_append_texts(reply, engine_problems(bus_of(userdata)->engine));
}

static int get_mask(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Snapshot *s = engine_snapshot(bus_of(userdata)->engine);
        const struct {
                const char *property;
                const ApMask *mask;
        } masks[] = {
                { "HostAdapters", &s->apmask },
                { "HostDomains", &s->aqmask },
                { "InstalledAdapters", &s->host_adapters },
                { "InstalledDomains", &s->host_domains },
                { "InstalledControlDomains", &s->host_control },
        };

        for (size_t i = 0; i < ELEMENTS(masks); i++)
                if (strcmp(masks[i].property, property) == 0)
                        return bus_append_mask(reply, masks[i].mask);

        return -ENOENT;
}

static int get_max(sd_bus *bus, const char *path, const char *interface, const char *property,
                   sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Snapshot *s = engine_snapshot(bus_of(userdata)->engine);
        uint16_t max = strcmp(property, "MaxAdapter") == 0 ? s->max_adapter : s->max_domain;

        return sd_bus_message_append_basic(reply, 'q', &max);
}

static int get_settled(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        int settled = engine_is_settled(bus_of(userdata)->engine);

        return sd_bus_message_append_basic(reply, 'b', &settled);
}

static int get_count(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Bus *b = bus_of(userdata);
        const struct {
                const char *property;
                uint32_t n;
        } counts[] = {
                { "NMatrices", b->n_matrices },
                { "NMdevs", (uint32_t) engine_snapshot(b->engine)->n_mdevs },
                { "NGuests", b->n_guests },
                { "NTpms", b->n_tpms },
        };

        for (size_t i = 0; i < ELEMENTS(counts); i++)
                if (strcmp(counts[i].property, property) == 0)
                        return sd_bus_message_append_basic(reply, 'u', &counts[i].n);

        return -ENOENT;
}

static int get_libvirt(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        return sd_bus_message_append_basic(reply, 's', engine_libvirt(bus_of(userdata)->engine));
}

/* ---- questions ---- */

int bus_find_matrix(Bus *b, const char *name, Uuid *ret, sd_bus_error *error) {
        CLEANUP(freep) char *line = NULL; /* it may be anything that a caller sent */
        int r;

        if (!*name)
                return bus_error_invalid(error, "a name or UUID must be given");

        line = bus_line(name);
        if (!line)
                return -ENOMEM;

        r = engine_find_matrix(b->engine, name, ret);
        if (r == -EBADMSG)
                return sd_bus_error_setf(
                        error, bus_error_name(VERDICT_BAD_RECORD),
                        "the record of matrix '%s' was set aside as unreadable, see Problems", line);
        if (r < 0)
                return sd_bus_error_setf(error, bus_error_name(VERDICT_NO_SUCH_MATRIX),
                                         "there is no matrix '%s'", line);

        return 0;
}

static int read_check(sd_bus_message *m, EngineCheck *ret, const char **ret_self, sd_bus_error *error) {
        int r;

        *ret = (EngineCheck) {};
        *ret_self = "";

        r = bus_read_matrix(m, &ret->matrix, error);
        if (r < 0)
                return r;
        /* not "free": nobody could define it */
        if (ap_mask_is_empty(&ret->matrix.adapters))
                return bus_error_invalid(error, "a matrix needs at least one adapter");
        if (ap_mask_is_empty(&ret->matrix.domains))
                return bus_error_invalid(error, "a matrix needs at least one usage domain");

        return bus_read_options(m,
                                (BusOption[]) {
                                        { "alternative", 'b', &ret->alternative },
                                        { "start", 'b', &ret->start },
                                        { "from-host", 'b', &ret->from_host },
                                        { "self", 's', ret_self },
                                },
                                4, error);
}

static int answer_check_matrix(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        EngineCheck check;
        const char *self;
        int r;

        r = read_check(m, &check, &self, error);
        if (r < 0)
                return r;
        if (*self)
                r = bus_find_matrix(b, self, &check.self, error);
        if (r < 0)
                return r;

        return bus_reply_conflicts(b, m, &check, error);
}

static int method_check_matrix(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        EngineCheck check;
        const char *self;
        uid_t uid;
        int r;

        r = read_check(m, &check, &self, error);
        if (r < 0)
                return r;

        r = authz_check(b, m, AUTHZ_INSPECT, method_check_matrix, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return bus_call_refresh(b, m, answer_check_matrix, error);
}

static int method_get_matrix(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        char path[BUS_PATH_SIZE];
        const char *name;
        Uuid uuid = {};
        uid_t uid;
        int r;

        r = bus_read_string(m, "name", &name, error);
        if (r < 0)
                return r;

        r = authz_check(b, m, AUTHZ_INSPECT, method_get_matrix, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = bus_find_matrix(b, name, &uuid, error);
        if (r < 0)
                return r;

        return sd_bus_reply_method_return(m, "o", bus_path_uuid("matrix", uuid, path));
}

/* ---- changes ---- */

static int read_define_options(sd_bus_message *m, EngineDefine *d, sd_bus_error *error) {
        return bus_read_options(m,
                                (BusOption[]) {
                                        { "autostart", 'b', &d->autostart },
                                        { "start", 'b', &d->start },
                                        { "alternative", 'b', &d->alternative },
                                        { "guest", 's', &d->guest },
                                        { "from-host", 'b', &d->from_host },
                                },
                                5, error);
}

static int method_define_matrix(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        EngineDefine d = {};
        Call *c;
        int r;

        r = bus_read_string(m, "name", &d.name, error);
        if (r < 0)
                return r;
        r = bus_read_uuid(m, &d.uuid, error);
        if (r < 0)
                return r;
        r = bus_read_matrix(m, &d.matrix, error);
        if (r < 0)
                return r;
        r = read_define_options(m, &d, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_define_matrix, CALL_REPLY_MATRIX, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_define(b->engine, &d, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_define_matrix_xml(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        EngineDefine d = {};
        const char *xml;
        size_t size;
        Call *c;
        int r;

        r = sd_bus_message_read_basic(m, 's', &xml);
        if (r < 0)
                return r;
        size = strlen(xml);
        if (size > BUS_XML_MAX)
                return bus_error_invalid(error, "the XML is %zu bytes long, at most %d are allowed", size,
                                         BUS_XML_MAX);
        r = read_define_options(m, &d, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_define_matrix_xml, CALL_REPLY_MATRIX, &c,
                           error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_define_xml(b->engine, xml, size, &d, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int read_attrs(sd_bus_message *m, EngineAttr attrs[static BUS_ATTRS_MAX], size_t *ret_n,
                      sd_bus_error *error) {
        size_t n = 0;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "(ss)");
        if (r < 0)
                return r;

        while ((r = sd_bus_message_enter_container(m, 'r', "ss")) > 0) {
                EngineAttr attr;

                if (n == BUS_ATTRS_MAX)
                        return bus_error_invalid(error, "more than %d attributes were given", BUS_ATTRS_MAX);

                r = bus_read_string(m, "an attribute's name", &attr.name, error);
                if (r < 0)
                        return r;
                r = sd_bus_message_read_basic(m, 's', &attr.value);
                if (r < 0)
                        return r;
                if (strlen(attr.value) > BUS_ATTR_MAX)
                        return bus_error_invalid(error,
                                                 "the value of attribute '%s' is longer than %d bytes",
                                                 attr.name, BUS_ATTR_MAX);
                attrs[n++] = attr;

                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;

        *ret_n = n;
        return sd_bus_message_exit_container(m);
}

static int method_create_mdev(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        EngineAttr attrs[BUS_ATTRS_MAX];
        Bus *b = bus_of(userdata);
        const char *parent, *type;
        size_t n_attrs = 0;
        Uuid uuid;
        Call *c;
        int r;

        r = bus_read_string(m, "parent", &parent, error);
        if (r < 0)
                return r;
        r = bus_read_string(m, "type", &type, error);
        if (r < 0)
                return r;
        r = bus_read_uuid(m, &uuid, error);
        if (r < 0)
                return r;
        r = read_attrs(m, attrs, &n_attrs, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MDEV, method_create_mdev, CALL_REPLY_MDEV, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_create_mdev(b->engine, parent, type, uuid, attrs, n_attrs, &c->caller, bus_call_done, c,
                               &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_set_host_masks(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        ApMask adapters, domains;
        Call *c;
        int r;

        r = bus_read_mask(m, "adapter", &adapters, error);
        if (r < 0)
                return r;
        r = bus_read_mask(m, "domain", &domains, error);
        if (r < 0)
                return r;
        r = bus_read_options(m, NULL, 0, error);
        if (r < 0)
                return r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_HOST, method_set_host_masks, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_set_host_masks(b->engine, &adapters, &domains, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_reload(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        Call *c;
        int r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_HOST, method_reload, CALL_REPLY_EMPTY, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = bus_call_count(c, error);
        if (r >= 0 && b->config.reload) {
                r = b->config.reload(b->config.userdata);
                if (r < 0)
                        (void) bus_error_broken(m, r, error);
        }
        if (r < 0)
                return bus_call_abandon(c, r);

        r = engine_rescan(b->engine, bus_call_rescanned, c);
        return bus_call_submitted(c, r, error);
}

static int method_reconcile(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        Call *c;
        int r;

        r = bus_call_begin(b, m, AUTHZ_MANAGE_MATRIX, method_reconcile, CALL_REPLY_OTHER, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_reconcile(b->engine, &c->caller, bus_call_reconciled, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int read_filter(sd_bus_message *m, QueueFilter *ret, sd_bus_error *error) {
        int r;

        *ret = (QueueFilter) {};
        r = bus_read_options(m,
                             (BusOption[]) {
                                     { "adapter", 'q', &ret->adapter, &ret->has_adapter },
                                     { "domain", 'q', &ret->domain, &ret->has_domain },
                                     { "driver", 's', &ret->driver },
                                     { "owner-kind", 's', &ret->kind },
                                     { "owner", 's', &ret->owner },
                                     { "free", 'b', &ret->free, &ret->has_free },
                             },
                             6, error);
        if (r < 0)
                return r;

        if (ret->adapter >= AP_IDS)
                return bus_error_invalid(error, "adapter id %u is above %d", ret->adapter, AP_IDS - 1);
        if (ret->domain >= AP_IDS)
                return bus_error_invalid(error, "domain id %u is above %d", ret->domain, AP_IDS - 1);

        return 0;
}

static int answer_list_queues(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        QueueFilter filter;
        int r;

        r = read_filter(m, &filter, error);
        if (r < 0)
                return r;

        return bus_listing_start(bus_of(userdata), m, &filter, error);
}

static int method_list_queues(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        QueueFilter filter;
        uid_t uid;
        int r;

        r = read_filter(m, &filter, error);
        if (r < 0)
                return r;

        r = authz_check(b, m, AUTHZ_INSPECT, method_list_queues, &uid, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return bus_call_refresh(b, m, answer_list_queues, error);
}

const sd_bus_vtable bus_manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("CheckMatrix",
                                SD_BUS_ARGS("aq", adapters, "aq", domains, "aq", control, "a{sv}", options),
                                SD_BUS_RESULT("a(qqss)", conflicts), method_check_matrix,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("DefineMatrix",
                                SD_BUS_ARGS("s", name, "s", uuid, "aq", adapters, "aq", domains, "aq",
                                            control, "a{sv}", options),
                                SD_BUS_RESULT("o", matrix), method_define_matrix,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("DefineMatrixXML", SD_BUS_ARGS("s", xml, "a{sv}", options),
                                SD_BUS_RESULT("o", matrix), method_define_matrix_xml,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("CreateMdev",
                                SD_BUS_ARGS("s", parent, "s", type, "s", uuid, "a(ss)", attributes, "a{sv}",
                                            options),
                                SD_BUS_RESULT("o", mdev), method_create_mdev, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListQueues", SD_BUS_ARGS("a{sv}", filter),
                                SD_BUS_RESULT("a(qqssa{sv})", queues), method_list_queues,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetMatrix", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", matrix),
                                method_get_matrix, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetGuest", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", guest),
                                bus_method_get_guest, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetTpm", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", tpm),
                                bus_method_get_tpm, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("DefineTpm", SD_BUS_ARGS("s", name, "s", uuid, "a{sv}", options),
                                SD_BUS_RESULT("o", tpm), bus_method_define_tpm, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("RestoreTpm", SD_BUS_ARGS("h", file, "s", name, "a{sv}", options),
                                SD_BUS_RESULT("o", tpm), bus_method_restore_tpm, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ImportTpm", SD_BUS_ARGS("s", directory, "s", name, "a{sv}", options),
                                SD_BUS_RESULT("o", tpm), bus_method_import_tpm, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("SetHostMasks", SD_BUS_ARGS("aq", adapters, "aq", domains, "a{sv}", options),
                                SD_BUS_NO_RESULT, method_set_host_masks, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_reload,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Reconcile", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ss)", healed),
                                method_reconcile, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Problems", "as", get_problems, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("HostAdapters", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("HostDomains", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("InstalledAdapters", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("InstalledDomains", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("InstalledControlDomains", "aq", get_mask, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("MaxAdapter", "q", get_max, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("MaxDomain", "q", get_max, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Settled", "b", get_settled, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("NMatrices", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("NMdevs", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("NGuests", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("NTpms", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Libvirt", "s", get_libvirt, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

int bus_manager_add(Bus *b) {
        return bus_add_root(b, BUS_INTERFACE("Manager"), bus_manager_vtable);
}
