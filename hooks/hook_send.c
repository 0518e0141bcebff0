/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/cleanup.h"
#include "hooks/hook.h"
#include "hooks/hook_bus.h"

#define INTERFACE BUS_NAME ".Hook"

static int put_string(sd_bus_message *m, const char *key, const char *value) {
        return value && *value ? sd_bus_message_append(m, "{sv}", key, "s", value) : 0;
}

static int put_mdevs(sd_bus_message *m, const VirtWiring *w) {
        char id[UUID_STRING_SIZE];
        int r;

        if (w->n_mdevs == 0)
                return 0;

        r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", "mdevs");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "as");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "s");
        for (size_t i = 0; r >= 0 && i < w->n_mdevs; i++)
                r = sd_bus_message_append(m, "s", uuid_format(w->mdevs[i], id));
        for (int depth = 0; r >= 0 && depth < 3; depth++)
                r = sd_bus_message_close_container(m);
        return r;
}

static int event_message(sd_bus *bus, const Hook *h, const VirtWiring *w, sd_bus_message **ret) {
        CLEANUP(message_unrefp) sd_bus_message *m = NULL;
        char id[UUID_STRING_SIZE];
        int r;

        r = sd_bus_message_new_method_call(bus, &m, BUS_NAME, BUS_ROOT, INTERFACE, "Event");
        if (r >= 0)
                r = sd_bus_message_append(m, "sssss", h->operation->name, h->suboperation, h->extra,
                                          h->guest, uuid_format(w->uuid, id));
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = put_mdevs(m, w);
        if (r >= 0)
                r = put_string(m, "matrix", w->matrix);
        if (r >= 0)
                r = put_string(m, "tpm", w->tpm);
        if (r >= 0)
                r = put_string(m, "tpm-wish", tpm_model_name(w->tpm_wish));
        if (r >= 0)
                r = put_string(m, "tpm-model", tpm_model_name(w->tpm_model));
        if (r >= 0)
                r = put_string(m, "tpm-socket", w->tpm_socket);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r < 0)
                return r;

        *ret = TAKE(m);
        return 0;
}

static int refuse(char **reterr_text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char **reterr_text, const char *format, ...) {
        va_list ap;
        int r;

        va_start(ap, format);
        r = vasprintf(reterr_text, format, ap);
        va_end(ap);
        return r < 0 ? -ENOMEM : HOOK_REFUSED;
}

static int unreachable(const Hook *h, const char *why, char **reterr_text) {
        return refuse(
                reterr_text,
                "guestcryptd does not answer: %s; guest '%s' has crypto resources in its XML that it gives; "
                "try 'systemctl start guestcryptd'",
                why, h->guest);
}

int hook_send(const Hook *h, const VirtWiring *needs, char **reterr_text) {
        CLEANUP(bus_closep) sd_bus *bus = NULL;
        CLEANUP(message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        bool is_absent = false;
        const char *text;
        bool tpm = needs->tpm || needs->tpm_model != TPM_MODEL_NONE;
        uint64_t timeout_us = tpm ? h->operation->tpm_deadline_us : h->operation->deadline_us;
        int r;

        r = sd_bus_open_system(&bus);
        if (r < 0)
                return unreachable(h, strerror(-r), reterr_text);
        r = event_message(bus, h, needs, &m);
        if (r < 0)
                return r == -ENOMEM ? r
                                    : refuse(reterr_text, "what guest '%s' asks for cannot be sent: %s",
                                             h->guest, strerror(-r));

        r = hook_bus_call(bus, m, timeout_us, &reply);
        if (r == -ETIMEDOUT)
                return unreachable(h, "the bus does not answer in time", reterr_text);
        if (r < 0)
                return unreachable(h, strerror(-r), reterr_text);
        text = hook_bus_error(reply, &is_absent);
        if (!text)
                return HOOK_OK;
        if (is_absent)
                return unreachable(h, text, reterr_text);
        return refuse(reterr_text, "%s", text);
}
