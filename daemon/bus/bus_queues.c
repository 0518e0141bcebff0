/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* There can be 65,536 queues, so that a listing is put together in slices between which the loop runs. */

#include <errno.h>
#include <string.h>

#include "bus/bus_internal.h"

#define QUEUES_PER_TURN 512 /* about 2 ms */

typedef struct Listing {
        Answer answer;
        sd_bus_message *reply; /* the filter's strings are in the call */
        QueueFilter filter;
        unsigned next_queue; /* adapter << 8 | domain */
} Listing;

static void listing_free(Answer *a) {
        Listing *l = CONTAINER_OF(a, Listing, answer);

        (void) sd_bus_message_unref(l->reply);
        free(l);
}

static const HostCard *find_card(const Snapshot *s, unsigned id) {
        for (size_t i = 0; i < s->n_cards; i++)
                if (s->cards[i].id == id)
                        return &s->cards[i];

        return NULL;
}

const char *bus_card_mode(const HostCard *card) {
        static const char *const names[_CARD_MODE_MAX] = {
                [CARD_MODE_UNKNOWN] = "unknown",
                [CARD_MODE_ACCEL] = "accelerator",
                [CARD_MODE_CCA] = "cca",
                [CARD_MODE_EP11] = "ep11",
        };

        return names[card ? card->mode : CARD_MODE_UNKNOWN];
}

static int append_detail(sd_bus_message *m, const char *name, const char *text, const bool *flag) {
        if (flag)
                return sd_bus_message_append(m, "{sv}", name, "b", (int) *flag);

        return sd_bus_message_append(m, "{sv}", name, "s", text);
}

static int append_queue(sd_bus_message *m, Apqn q, const char *kind, const char *owner, const char *driver,
                        const char *mode, bool override) {
        static const bool present = true;
        int r;

        r = sd_bus_message_open_container(m, 'r', "qqssa{sv}");
        if (r < 0)
                return r;
        r = sd_bus_message_append(m, "qqs", q.adapter, q.domain, kind);
        if (r < 0)
                return r;
        r = bus_append_text(m, owner);
        if (r < 0)
                return r;

        r = sd_bus_message_open_container(m, 'a', "{sv}");
        if (r >= 0)
                r = append_detail(m, "driver", driver, NULL);
        if (r >= 0)
                r = append_detail(m, "mode", mode, NULL);
        if (r >= 0)
                r = append_detail(m, "present", NULL, &present);
        if (r >= 0)
                r = append_detail(m, "override", NULL, &override);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r < 0)
                return r;

        return sd_bus_message_close_container(m);
}

static bool differs(const char *wanted, const char *is) {
        return wanted && strcmp(wanted, is) != 0;
}

static int list_queue(Listing *l, const Snapshot *s, const HostCard *card, const ApMask *host_owned,
                      Apqn q) {
        char owner[ENGINE_OWNER_SIZE];
        const char *kind, *driver = "";

        if (ap_mask_test(&s->queue_vfio[q.adapter], q.domain))
                driver = "vfio_ap";
        else if (ap_mask_test(host_owned, q.domain))
                driver = "host";
        if (differs(l->filter.driver, driver))
                return 0;

        engine_queue_owner(l->answer.bus->engine, q, &kind, owner);
        if (differs(l->filter.kind, kind) || differs(l->filter.owner, owner))
                return 0;
        if (l->filter.has_free && l->filter.free != (strcmp(kind, "free") == 0))
                return 0;

        return append_queue(l->reply, q, kind, owner, driver, bus_card_mode(card),
                            ap_mask_test(&s->queue_override[q.adapter], q.domain));
}

static int list_adapter(Listing *l, const Snapshot *s, uint8_t adapter, unsigned *budget) {
        ApMask host_owned = snapshot_host_owned(s, adapter);
        const HostCard *card = find_card(s, adapter);
        int r;

        AP_MASK_FOREACH(domain, &s->queue_present[adapter]) {
                if (domain < (l->next_queue & 0xff) || (l->filter.has_domain && domain != l->filter.domain))
                        continue;
                if (*budget == 0) {
                        l->next_queue = (unsigned) adapter << 8 | domain;
                        return 0;
                }
                (*budget)--;

                r = list_queue(l, s, card, &host_owned, (Apqn) { adapter, (uint8_t) domain });
                if (r < 0)
                        return r;
        }

        l->next_queue = (adapter + 1u) << 8;
        return 0;
}

static int list_some(Answer *a, sd_bus_error *error) {
        Listing *l = CONTAINER_OF(a, Listing, answer);
        const Snapshot *s = engine_snapshot(l->answer.bus->engine);
        unsigned budget = QUEUES_PER_TURN;
        int r;

        while (l->next_queue < AP_IDS << 8) {
                uint8_t adapter = (uint8_t) (l->next_queue >> 8);

                if (l->filter.has_adapter && adapter != l->filter.adapter) {
                        l->next_queue = (adapter + 1u) << 8;
                        continue;
                }

                r = list_adapter(l, s, adapter, &budget);
                if (r < 0)
                        return r;
                if (budget == 0)
                        return 0;
        }

        r = sd_bus_message_close_container(l->reply);
        if (r < 0)
                return r;

        r = sd_bus_send(NULL, l->reply, NULL);
        return r < 0 ? r : 1;
}

int bus_listing_start(Bus *b, sd_bus_message *m, const QueueFilter *filter, sd_bus_error *error) {
        Listing *l;
        int r;

        l = malloc(sizeof *l);
        if (!l)
                return -ENOMEM;

        *l = (Listing) { .answer = { .step = list_some, .free = listing_free, .is_long = true },
                         .filter = *filter };
        r = bus_answer_init(&l->answer, b, m, error);
        if (r < 0) {
                free(l);
                return r;
        }

        r = sd_bus_message_new_method_return(m, &l->reply);
        if (r >= 0)
                r = sd_bus_message_open_container(l->reply, 'a', "(qqssa{sv})");
        if (r >= 0)
                r = bus_answer_ready(&l->answer);
        if (r < 0) {
                bus_answer_free(&l->answer);
                return r;
        }

        return 0;
}
