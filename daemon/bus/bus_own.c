/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.guestcrypt1.Host: what the host itself has of the machine's queues. */

#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"

static Bus *bus_of(void *userdata) {
        return ((BusObject *) userdata)->bus;
}

/* ---- answers: a{sv} ---- */

static const char *const means[] = {
        [HOST_MEANS_ANY] = "none", [HOST_MEANS_MASKS] = "masks", [HOST_MEANS_OVERRIDES] = "overrides"
};

static int open_entry(sd_bus_message *m, const char *key, const char *type) {
        int r;

        r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', key);
        return r < 0 ? r : sd_bus_message_open_container(m, 'v', type);
}

static int close_entry(sd_bus_message *m) {
        int r;

        r = sd_bus_message_close_container(m);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int put_flag(sd_bus_message *m, const char *key, bool value) {
        return sd_bus_message_append(m, "{sv}", key, "b", (int) value);
}

static int put_text(sd_bus_message *m, const char *key, const char *value) {
        int r;

        r = open_entry(m, key, "s");
        if (r >= 0)
                r = bus_append_text(m, value);
        return r < 0 ? r : close_entry(m);
}

static int put_texts(sd_bus_message *m, const char *key, char *const *lines) {
        static const char *const none[] = { NULL };
        int r;

        r = open_entry(m, key, "as");
        if (r >= 0)
                r = bus_append_texts(m, lines ? (const char *const *) lines : none);
        return r < 0 ? r : close_entry(m);
}

static int put_mask(sd_bus_message *m, const char *key, const ApMask *mask) {
        int r;

        r = open_entry(m, key, "aq");
        if (r >= 0)
                r = bus_append_mask(m, mask);
        return r < 0 ? r : close_entry(m);
}

static int put_rows(sd_bus_message *m, const char *key, const ApMask rows[static AP_IDS]) {
        int r;

        r = open_entry(m, key, "a(qq)");
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'a', "(qq)");
        for (unsigned a = 0; r >= 0 && a < AP_IDS; a++)
                for (unsigned d = ap_mask_next(&rows[a], 0); r >= 0 && d < AP_IDS;
                     d = ap_mask_next(&rows[a], d + 1))
                        r = sd_bus_message_append(m, "(qq)", a, d);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r < 0 ? r : close_entry(m);
}

static int append_report(sd_bus_message *m, const Call *call, const void *answer) {
        const EngineHostReport *report = answer;
        const HostChange *c = &report->change;
        Verdict verdict = report->refusal.text ? report->refusal.verdict : VERDICT_OK;
        int r;

        r = put_flag(m, "done", call->reply != CALL_REPLY_DRY_RUN);
        if (r >= 0)
                r = put_text(m, "means", means[c->means]);
        if (r >= 0)
                r = put_mask(m, "adapters-before", &report->apmask);
        if (r >= 0)
                r = put_mask(m, "domains-before", &report->aqmask);
        if (r >= 0)
                r = put_mask(m, "adapters", &c->apmask);
        if (r >= 0)
                r = put_mask(m, "domains", &c->aqmask);
        if (r >= 0)
                r = put_rows(m, "queues", c->moved);
        if (r >= 0)
                r = put_rows(m, "others", c->others);
        if (r >= 0)
                r = put_rows(m, "absent", c->absent);
        if (r >= 0)
                r = put_texts(m, "notes", report->notes);
        if (r >= 0 && verdict != VERDICT_OK)
                r = put_text(m, "refusal", report->refusal.text);
        if (r >= 0 && verdict != VERDICT_OK)
                r = put_text(m, "refusal-name", bus_error_name(verdict));
        return r;
}

static int append_rules(sd_bus_message *m, const EngineHostView *v) {
        const HostRules *rules = &v->rules;
        int r;

        r = put_text(m, "file", HOST_RULES_PATH);
        if (r >= 0)
                r = put_flag(m, "file-exists", rules->there);
        if (r >= 0 && rules->has_apmask)
                r = put_mask(m, "file-adapters", &rules->apmask);
        if (r >= 0 && rules->has_aqmask)
                r = put_mask(m, "file-domains", &rules->aqmask);
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}", "file-foreign-lines", "u", rules->n_foreign);
        if (r >= 0 && rules->problem)
                r = put_text(m, "file-problem", rules->problem);
        if (r >= 0 && v->kept)
                r = put_mask(m, "kept-adapters", &v->kept_apmask);
        if (r >= 0 && v->kept)
                r = put_mask(m, "kept-domains", &v->kept_aqmask);
        return r < 0 ? r : put_texts(m, "notes", v->notes);
}

static int append_persisted(sd_bus_message *m, const Call *call, const void *answer) {
        const EngineHostView *v = answer;
        int r;

        r = put_flag(m, "done", call->reply != CALL_REPLY_DRY_RUN);
        if (r >= 0)
                r = put_flag(m, "changed", v->changed);
        if (r >= 0 && v->text)
                r = put_text(m, "content", v->text);
        return r < 0 ? r : append_rules(m, v);
}

static int append_view(sd_bus_message *m, const Call *call, const void *answer) {
        const Snapshot *s = engine_snapshot(call->bus->engine);
        const EngineHostView *v = answer;
        ApMask given[AP_IDS], last[AP_IDS] = {}, usable[AP_IDS] = {};
        int16_t domain = s->default_domain;
        HostMeans in_force = HOST_MEANS_ANY;
        Apqn q;
        int r;

        for (unsigned a = 0; a < AP_IDS; a++)
                given[a] = s->queue_override[a];
        if (snapshot_find_override(s, &q))
                in_force = HOST_MEANS_OVERRIDES;
        else if (s->ap && !snapshot_masks_are_full(s))
                in_force = HOST_MEANS_MASKS;
        if (domain >= 0) {
                ApMask adapters = host_usable(s, (uint8_t) domain);

                AP_MASK_FOREACH(a, &adapters)
                        ap_mask_set(&usable[a], (uint8_t) domain);
        }
        if (v->has_last)
                ap_mask_set(&last[v->last.adapter], v->last.domain);

        r = put_text(m, "means", means[in_force]);
        if (r >= 0)
                r = put_flag(m, "overrides-supported", s->has_override);
        if (r >= 0)
                r = put_flag(m, "masks-refused", v->masks_refused);
        if (r >= 0)
                r = put_mask(m, "adapters", &s->apmask);
        if (r >= 0)
                r = put_mask(m, "domains", &s->aqmask);
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}", "default-domain", "n", domain);
        if (r >= 0)
                r = put_rows(m, "default-queues", usable);
        if (r >= 0)
                r = put_rows(m, "last-queue", last);
        if (r >= 0)
                r = put_rows(m, "overrides", given);
        if (r >= 0)
                r = put_rows(m, "foreign-overrides", s->queue_alien);
        return r < 0 ? r : append_rules(m, v);
}

/* ---- calls ---- */

/* Ends @c with what @append puts into the dictionary of @answer, if @r is 0. */
static void finish(Call *c, int r, const Refusal *refusal,
                   int (*append)(sd_bus_message *m, const Call *call, const void *answer),
                   const void *answer) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;

        if (r != 0)
                return bus_call_done(c, r, refusal, (Uuid) {});

        r = sd_bus_message_new_method_return(c->message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "{sv}");
        if (r >= 0)
                r = append(reply, c, answer);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);
        if (r < 0)
                bus_call_done(c, r, NULL, (Uuid) {});
        else
                (void) bus_call_free(c);
}

static void on_changed(void *userdata, int r, const Refusal *refusal, const EngineHostReport *report) {
        finish(userdata, r, refusal, append_report, report);
}

static void on_persisted(void *userdata, int r, const Refusal *refusal, const EngineHostView *view) {
        finish(userdata, r, refusal, append_persisted, view);
}

static void on_viewed(void *userdata, int r, const Refusal *refusal, const EngineHostView *view) {
        finish(userdata, r, refusal, append_view, view);
}

/* As bus_call_begin(); the call counts for its caller from now on. @dry_run: it changes nothing. */
static int begin(Bus *b, sd_bus_message *m, bool dry_run, sd_bus_message_handler_t handler, Call **ret,
                 sd_bus_error *error) {
        int r;

        r = bus_call_begin(b, m, dry_run ? AUTHZ_INSPECT : AUTHZ_MANAGE_HOST, handler,
                           dry_run ? CALL_REPLY_DRY_RUN : CALL_REPLY_OTHER, ret, error);
        if (r <= 0)
                return r;

        r = bus_call_count(*ret, error);
        return r < 0 ? bus_call_abandon(*ret, r) : 1;
}

static int read_means(const char *by, HostMeans *ret, sd_bus_error *error) {
        if (!by)
                return 0;
        for (HostMeans i = HOST_MEANS_MASKS; i < _HOST_MEANS_MAX; i++)
                if (strcmp(by, means[i]) == 0) {
                        *ret = i;
                        return 0;
                }
        return bus_error_invalid(error, "by '%s' is neither masks nor overrides", by);
}

static int method_change(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        bool release = strcmp(sd_bus_message_get_member(m), "Release") == 0;
        EngineHostWish w = { .wish = { .release = release } };
        const char *by = NULL;
        Call *c;
        int r;

        r = bus_read_mask(m, "adapter", &w.wish.matrix.adapters, error);
        if (r >= 0)
                r = bus_read_mask(m, "domain", &w.wish.matrix.domains, error);
        if (r >= 0)
                r = bus_read_options(m,
                                     (BusOption[]) {
                                             { "dry-run", 'b', &w.dry_run },
                                             { "take-others", 'b', &w.wish.others },
                                             { "force", 'b', &w.wish.force },
                                             { "by", 's', &by },
                                     },
                                     4, error);
        if (r >= 0)
                r = read_means(by, &w.wish.means, error);
        if (r < 0)
                return r;

        r = begin(b, m, w.dry_run, method_change, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_change_host(b->engine, &w, &c->caller, on_changed, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_persist(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        bool dry_run = false;
        Call *c;
        int r;

        r = bus_read_options(m, (BusOption[]) { { "dry-run", 'b', &dry_run } }, 1, error);
        if (r < 0)
                return r;
        r = begin(b, m, dry_run, method_persist, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_persist_host(b->engine, dry_run, &c->caller, on_persisted, c, &c->refusal);
        return bus_call_submitted(c, r, error);
}

static int method_show(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = bus_of(userdata);
        Call *c;
        int r;

        r = begin(b, m, true, method_show, &c, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = engine_view_host(b->engine, on_viewed, c);
        return bus_call_submitted(c, r, error);
}

const sd_bus_vtable bus_own_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Show", SD_BUS_NO_ARGS, SD_BUS_RESULT("a{sv}", host), method_show,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Reserve", SD_BUS_ARGS("aq", adapters, "aq", domains, "a{sv}", options),
                                SD_BUS_RESULT("a{sv}", report), method_change, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Release", SD_BUS_ARGS("aq", adapters, "aq", domains, "a{sv}", options),
                                SD_BUS_RESULT("a{sv}", report), method_change, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Persist", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("a{sv}", report),
                                method_persist, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

int bus_own_add(Bus *b) {
        return bus_add_root(b, BUS_INTERFACE("Host"), bus_own_vtable);
}
