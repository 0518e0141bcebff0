/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What libvirt's hook tells. libvirt waits for each answer with a lock on the guest, so that nobody is asked on the way:
 * who is not root is refused. */

#include <errno.h>

#include "bus/bus_internal.h"

typedef struct Needs {
        BusUuids mdevs;
        const char *matrix, *tpm, *tpm_socket;
        TpmModel tpm_wish, tpm_model;
} Needs;

static int read_needs(sd_bus_message *m, Needs *n, sd_bus_error *error) {
        return bus_read_options(m,
                                (BusOption[]) {
                                        { "mdevs", 'D', &n->mdevs },
                                        { "matrix", 's', &n->matrix },
                                        { "tpm", 's', &n->tpm },
                                        { "tpm-wish", 'M', &n->tpm_wish },
                                        { "tpm-model", 'M', &n->tpm_model },
                                        { "tpm-socket", 't', &n->tpm_socket },
                                },
                                6, error);
}

static int read_event(sd_bus_message *m, EngineHook *h, Needs *n, sd_bus_error *error) {
        int r;

        r = bus_read_string(m, "operation", &h->operation, error);
        if (r >= 0)
                r = bus_read_string(m, "suboperation", &h->suboperation, error);
        if (r >= 0)
                r = bus_read_text(m, "extra", &h->extra, error);
        if (r >= 0)
                r = bus_read_text(m, "guest_name", &h->name, error);
        if (r >= 0)
                r = bus_read_uuid(m, &h->guest, error);
        if (r >= 0)
                r = read_needs(m, n, error);
        if (r < 0)
                return r;

        if (!*h->operation)
                return bus_error_invalid(error, "an operation must be given");
        if (uuid_is_null(h->guest))
                return bus_error_invalid(error, "the guest's UUID must be given");

        h->mdevs = n->mdevs.uuids;
        h->n_mdevs = n->mdevs.n;
        h->matrix = bus_or_null(n->matrix);
        h->tpm = bus_or_null(n->tpm);
        h->tpm_wish = n->tpm_wish;
        h->tpm_model = n->tpm_model;
        h->tpm_socket = bus_or_null(n->tpm_socket);
        return 0;
}

static int method_event(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = ((BusObject *) userdata)->bus;
        EngineHook hook = {};
        Needs needs = {};
        uid_t uid;
        Call *c;
        int r;

        r = authz_check_root(b, m, &uid, error);
        if (r < 0)
                return r;
        r = read_event(m, &hook, &needs, error);
        if (r < 0)
                return r;

        c = bus_call_new(b, m, uid, CALL_REPLY_EMPTY);
        if (!c)
                return -ENOMEM;

        r = engine_hook(b->engine, &hook, &c->caller, bus_call_done, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

const sd_bus_vtable bus_hook_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Event",
                                SD_BUS_ARGS("s", operation, "s", suboperation, "s", extra, "s", guest_name,
                                            "s", guest_uuid, "a{sv}", needs),
                                SD_BUS_NO_RESULT, method_event, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

int bus_hook_add(Bus *b) {
        return bus_add_root(b, BUS_INTERFACE("Hook"), bus_hook_vtable);
}
