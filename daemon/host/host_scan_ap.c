/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_scan_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_paths.h"

/* "05.0047" */
static bool apqn_parse(const char *name, Apqn *ret) {
        char again[APQN_STRING_SIZE];
        unsigned adapter, domain;

        if (sscanf(name, "%2x.%4x", &adapter, &domain) != 2 || adapter >= AP_IDS || domain >= AP_IDS)
                return false;
        ret->adapter = (uint8_t) adapter;
        ret->domain = (uint8_t) domain;
        return strcmp(apqn_format(*ret, again), name) == 0;
}

static bool card_parse(const char *name, uint8_t *ret) {
        unsigned id;
        char again[16];

        if (sscanf(name, "card%2x", &id) != 1)
                return false;
        (void) snprintf(again, sizeof again, "card%02x", id);
        *ret = (uint8_t) id;
        return strcmp(again, name) == 0;
}

typedef struct DeviceList {
        ApMask cards;
        ApMask *queues; /* AP_IDS rows */
} DeviceList;

static int device_entry(void *userdata, const char *name) {
        DeviceList *l = userdata;
        uint8_t card;
        Apqn q;

        if (card_parse(name, &card))
                ap_mask_set(&l->cards, card);
        else if (apqn_parse(name, &q))
                ap_mask_set(&l->queues[q.adapter], q.domain);
        return 0;
}

static int override_read(Sysfs *s, Apqn q, bool *ret_vfio, bool *ret_alien) {
        char path[HOST_PATH_SIZE], name[APQN_STRING_SIZE], value[64];
        int r;

        (void) scan_path_join(path, sizeof path, HOST_PATH_AP_DEVICES, apqn_format(q, name),
                              "driver_override");
        r = scan_value_read(s, path, value, sizeof value);
        if (r < 0)
                return r;

        *ret_vfio = strcmp(value, HOST_DRIVER_AP) == 0;
        *ret_alien = !*ret_vfio && value[0] && strcmp(value, "(null)") != 0;
        return 0;
}

/* Those of the adapter's queues in @look. */
static int scan_row(Sysfs *sysfs, Snapshot *s, unsigned adapter, ApMask look) {
        ApMask *vfio_ap = &s->queue_override[adapter], *alien = &s->queue_alien[adapter];

        AP_MASK_FOREACH(d, &look) {
                bool is_vfio, is_alien;
                int r;

                r = override_read(sysfs, (Apqn) { (uint8_t) adapter, (uint8_t) d }, &is_vfio, &is_alien);
                if (r < 0)
                        return scan_gone_is_again(r);
                (is_vfio ? ap_mask_set : ap_mask_clear)(vfio_ap, (uint8_t) d);
                (is_alien ? ap_mask_set : ap_mask_clear)(alien, (uint8_t) d);
        }
        return 0;
}

/* Overrides exist only while both masks are full; then a queue bound to vfio_ap has got there by its own. @previous, if
 * not all are read: where there was one, which may be @s itself. */
static int scan_overrides(Sysfs *sysfs, Snapshot *s, const Snapshot *previous) {
        bool some = s->has_override && snapshot_masks_are_full(s);
        int r = 0;

        for (unsigned a = 0; a < AP_IDS && r >= 0; a++) {
                ApMask look = s->queue_present[a];

                if (previous) {
                        look = ap_mask_or(&s->queue_vfio[a], &previous->queue_override[a]);
                        look = ap_mask_or(&look, &previous->queue_alien[a]);
                        look = ap_mask_and(&look, &s->queue_present[a]);
                }
                s->queue_override[a] = s->queue_alien[a] = (ApMask) {};
                if (some)
                        r = scan_row(sysfs, s, a, look);
        }
        return r;
}

/* Overrides that are somebody else's come and go without a word of the kernel. That one comes makes no plan wrong, but
 * one that has gone is no reason to refuse any more. */
static int scan_alien_again(Sysfs *sysfs, Snapshot *s) {
        int r = 0;

        for (unsigned a = 0; a < AP_IDS && r >= 0; a++)
                r = scan_row(sysfs, s, a, s->queue_alien[a]);
        return r;
}

/* Two listings, not a link for each of 65,536 queues. */
static int scan_devices(Sysfs *sysfs, Snapshot *s, ApMask *ret_cards) {
        DeviceList present = { .queues = s->queue_present }, bound = { .queues = s->queue_vfio };
        int r;

        memset(s->queue_present, 0, sizeof s->queue_present);
        memset(s->queue_vfio, 0, sizeof s->queue_vfio);

        r = sysfs->ops->list(sysfs, HOST_PATH_AP_DEVICES, device_entry, &present);
        if (r < 0)
                return scan_gone_is_again(r);
        r = sysfs->ops->list(sysfs, HOST_PATH_AP_VFIO, device_entry, &bound);
        if (r < 0 && r != -ENOENT) /* vfio_ap is not loaded */
                return r;

        *ret_cards = present.cards;
        return 0;
}

static int scan_has_override(Sysfs *sysfs, Snapshot *s) {
        for (unsigned a = 0; a < AP_IDS; a++) {
                unsigned d = ap_mask_next(&s->queue_present[a], 0);
                char path[HOST_PATH_SIZE], name[APQN_STRING_SIZE];
                int r;

                if (d == AP_IDS)
                        continue;

                (void) scan_path_join(path, sizeof path, HOST_PATH_AP_DEVICES,
                                      apqn_format((Apqn) { (uint8_t) a, (uint8_t) d }, name),
                                      "driver_override");
                r = sysfs->ops->exists(sysfs, path);
                if (r < 0 && r != -ENOENT)
                        return scan_gone_is_again(r);
                s->has_override = r >= 0;
                return 0;
        }
        return 0;
}

static int scan_masks(Sysfs *sysfs, Snapshot *s) {
        int r;

        r = scan_mask_read(sysfs, HOST_PATH_APMASK, &s->apmask);
        if (r < 0)
                return scan_gone_is_again(r);
        r = scan_mask_read(sysfs, HOST_PATH_AQMASK, &s->aqmask);
        if (r < 0)
                return scan_gone_is_again(r);
        return 0;
}

int host_scan_queues(Sysfs *sysfs, Snapshot *s) {
        int r = SCAN_AGAIN;

        for (unsigned i = 0; i < SCAN_TRIES_MAX && r == SCAN_AGAIN; i++) {
                ApMask cards;

                r = scan_masks(sysfs, s);
                if (r >= 0)
                        r = scan_devices(sysfs, s, &cards);
                if (r >= 0)
                        r = scan_overrides(sysfs, s, s);
        }
        return r == SCAN_AGAIN ? -EAGAIN : r;
}

/* What the machine has; without QCI the kernel does not know, then it is what is there. */
static int scan_configuration(Sysfs *sysfs, Snapshot *s) {
        static const char *const paths[] = { HOST_PATH_ADAPTERS, HOST_PATH_DOMAINS, HOST_PATH_CONTROL };
        ApMask *masks[] = { &s->host_adapters, &s->host_domains, &s->host_control };

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                char value[SCAN_VALUE_SIZE];
                int r;

                r = scan_value_read(sysfs, paths[i], value, sizeof value);
                if (r < 0)
                        return scan_gone_is_again(r);
                if (strcmp(value, "not supported") != 0) {
                        if (ap_mask_parse(value, masks[i]) < 0)
                                return -EBADMSG;
                        continue;
                }

                *masks[i] = (ApMask) {};
                for (unsigned a = 0; a < AP_IDS; a++) {
                        if (ap_mask_is_empty(&s->queue_present[a]))
                                continue;
                        if (i == 0)
                                ap_mask_set(masks[i], (uint8_t) a);
                        else
                                *masks[i] = ap_mask_or(masks[i], &s->queue_present[a]);
                }
        }
        return 0;
}

/* An attribute that this kernel lacks or that makes no sense says nothing; a card that has gone does. */
static int card_number(Sysfs *sysfs, const char *dir, const char *name, unsigned long otherwise,
                       unsigned long *ret) {
        char path[HOST_PATH_SIZE];
        int r;

        (void) scan_path_join(path, sizeof path, dir, name, NULL);
        r = scan_number_read(sysfs, path, INT32_MAX, ret);
        if (r == -ENOENT || r == -EBADMSG) {
                *ret = otherwise;
                return 0;
        }
        return scan_gone_is_again(r);
}

static int scan_card(Sysfs *sysfs, uint8_t id, HostCard *ret) {
        char dir[HOST_PATH_SIZE], path[HOST_PATH_SIZE + 8];
        unsigned long hwtype, online, config, chkstop;
        HostCard card = { .id = id };
        int r;

        (void) snprintf(dir, sizeof dir, HOST_PATH_AP_DEVICES "/card%02x", id);
        (void) scan_path_join(path, sizeof path, dir, "type", NULL);
        r = scan_value_read(sysfs, path, card.type, sizeof card.type);
        if (r < 0)
                return scan_gone_is_again(r);

        r = card_number(sysfs, dir, "hwtype", 0, &hwtype);
        if (r >= 0)
                r = card_number(sysfs, dir, "online", 0, &online);
        if (r >= 0)
                r = card_number(sysfs, dir, "config", 1, &config);
        if (r >= 0)
                r = card_number(sysfs, dir, "chkstop", 0, &chkstop);
        if (r < 0)
                return r;

        card.hwtype = (int) hwtype;
        card.online = online != 0;
        card.config = config != 0;
        card.chkstop = chkstop != 0;
        switch (card.type[0] ? card.type[strlen(card.type) - 1] : '\0') {
        case 'A':
                card.mode = CARD_MODE_ACCEL;
                break;
        case 'C':
                card.mode = CARD_MODE_CCA;
                break;
        case 'P':
                card.mode = CARD_MODE_EP11;
                break;
        default:
                card.mode = CARD_MODE_UNKNOWN;
        }
        *ret = card;
        return 0;
}

static int scan_cards(Sysfs *sysfs, Snapshot *s, const ApMask *cards) {
        s->cards = calloc(ap_mask_count(cards) + 1, sizeof *s->cards);
        if (!s->cards)
                return -ENOMEM;

        AP_MASK_FOREACH(id, cards) {
                int r = scan_card(sysfs, (uint8_t) id, &s->cards[s->n_cards]);

                if (r < 0)
                        return r;
                s->n_cards++;
        }
        return 0;
}

/* 1: as @old has it; 0: it is to be listed. */
static int scan_same_devices(const Snapshot *old, Snapshot *s) {
        if (old->max_adapter != s->max_adapter || old->max_domain != s->max_domain ||
            !ap_mask_equal(&old->apmask, &s->apmask) || !ap_mask_equal(&old->aqmask, &s->aqmask) ||
            !ap_mask_equal(&old->host_adapters, &s->host_adapters) ||
            !ap_mask_equal(&old->host_domains, &s->host_domains) ||
            !ap_mask_equal(&old->host_control, &s->host_control) || strcmp(old->bindings, s->bindings) != 0)
                return 0;

        s->cards = calloc(old->n_cards + 1, sizeof *s->cards);
        if (!s->cards)
                return -ENOMEM;
        memcpy(s->cards, old->cards, old->n_cards * sizeof *s->cards);
        s->n_cards = old->n_cards;
        s->has_override = old->has_override;
        memcpy(s->queue_present, old->queue_present, sizeof s->queue_present);
        memcpy(s->queue_vfio, old->queue_vfio, sizeof s->queue_vfio);
        memcpy(s->queue_override, old->queue_override, sizeof s->queue_override);
        memcpy(s->queue_alien, old->queue_alien, sizeof s->queue_alien);
        return 1;
}

/* "-1" or a domain. */
static int scan_default_domain(Sysfs *sysfs, Snapshot *s) {
        unsigned long domain = 0;
        int r;

        r = scan_number_read(sysfs, HOST_PATH_DEFAULT, AP_IDS - 1, &domain);
        if (r < 0 && r != -EBADMSG && r != -ENOENT)
                return scan_gone_is_again(r);

        s->default_domain = r < 0 ? -1 : (int16_t) domain;
        return 0;
}

int scan_ap(const HostScanner *c, Snapshot *s) {
        const Snapshot *same =
                c->quiet && c->previous && c->previous->ap && c->previous->bindings[0] ? c->previous : NULL;
        Sysfs *sysfs = c->sysfs;
        unsigned long max;
        ApMask cards;
        int r;

        r = sysfs->ops->exists(sysfs, HOST_PATH_AP);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return r;
        s->ap = true;

        r = scan_number_read(sysfs, HOST_PATH_MAX_ADAPTER, AP_IDS - 1, &max);
        if (r < 0)
                return scan_gone_is_again(r);
        s->max_adapter = (uint8_t) max;
        r = scan_number_read(sysfs, HOST_PATH_MAX_DOMAIN, AP_IDS - 1, &max);
        if (r < 0)
                return scan_gone_is_again(r);
        s->max_domain = (uint8_t) max;

        r = scan_value_read(sysfs, HOST_PATH_BINDINGS, s->bindings, sizeof s->bindings);
        if (r < 0)
                return scan_gone_is_again(r);
        s->bindings_complete = strstr(s->bindings, "(complete)");
        if (same && !c->overrides)
                s->default_domain = same->default_domain;
        else {
                r = scan_default_domain(sysfs, s);
                if (r < 0)
                        return r;
        }

        r = scan_masks(sysfs, s);
        if (r < 0)
                return r;
        if (same) {
                /* where the kernel does not know the configuration, it is what was there */
                memcpy(s->queue_present, same->queue_present, sizeof s->queue_present);
                r = scan_configuration(sysfs, s);
                if (r >= 0)
                        r = scan_same_devices(same, s);
                if (r > 0)
                        r = c->overrides ? scan_overrides(sysfs, s, NULL) : scan_alien_again(sysfs, s);
                if (r < 0 || s->cards)
                        return r;
        }

        r = scan_devices(sysfs, s, &cards);
        if (r < 0)
                return r;
        r = scan_has_override(sysfs, s);
        if (r < 0)
                return r;
        r = scan_overrides(sysfs, s, c->overrides ? NULL : c->previous);
        if (r < 0)
                return r;
        r = scan_configuration(sysfs, s);
        if (r < 0)
                return r;
        return scan_cards(sysfs, s, &cards);
}
