/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The files of the AP bus, its drivers, cards and queues. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_internal.h"

#define OVERRIDE_MAX 4094 /* a page without newline and NUL */

static const unsigned ap_functions[_SIM_MODE_MAX] = { 0x6A000000u, 0x92000000u, 0x86000000u };

/* The kernel's sscanf() with one conversion, as these stores do it: what follows the number is not looked at, and it has
 * no plus. */
static bool scan_int(const char *data, int *ret) {
        return data[strspn(data, " \t\n")] != '+' && sscanf(data, "%d", ret) == 1;
}

static bool is_7_2(const Sim *s, const SimNode *node) {
        return s->profile.dialect >= SIM_LINUX_7_2;
}

static bool is_6_12(const Sim *s, const SimNode *node) {
        return s->profile.dialect >= SIM_LINUX_6_12;
}

static void qci_mask(const Sim *s, const SimMask *m, SimText *t) {
        if (s->profile.no_qci)
                text_puts(t, "not supported");
        else
                text_mask(t, m);
        text_put(t, "\n", 1);
}

static void ap_adapter_mask_show(Sim *s, const SimNode *node, SimText *t) {
        qci_mask(s, &s->ap, t);
}

static void ap_usage_domain_mask_show(Sim *s, const SimNode *node, SimText *t) {
        qci_mask(s, &s->aq, t);
}

static void ap_control_domain_mask_show(Sim *s, const SimNode *node, SimText *t) {
        qci_mask(s, &s->ad, t);
}

static void ap_domain_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%d\n", s->ap_domain);
}

static ssize_t ap_domain_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        int d;

        if (data[strspn(data, " \t\n")] == '+' || sscanf(data, "%i", &d) != 1 || d < 0 ||
            d > (int) s->max_domain || !sim_mask_get(&s->aqmask, (unsigned) d))
                return -EINVAL;
        s->ap_domain = d;
        return (ssize_t) size;
}

static void zero_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "0\n");
}

static void max_adapter_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u\n", s->max_adapter);
}

static void max_domain_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u\n", s->max_domain);
}

static void apmask_show(Sim *s, const SimNode *node, SimText *t) {
        text_mask(t, &s->apmask);
        text_put(t, "\n", 1);
}

static void aqmask_show(Sim *s, const SimNode *node, SimText *t) {
        text_mask(t, &s->aqmask);
        text_put(t, "\n", 1);
}

static ssize_t apmask_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return sim_mask_store(s, true, data, size);
}

static ssize_t aqmask_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return sim_mask_store(s, false, data, size);
}

static void bindings_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u/%u%s\n", s->n_bound, s->n_queues, s->n_bound == s->n_queues ? " (complete)" : "");
}

static void complete_count_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%llu\n", (unsigned long long) s->bindings_complete);
}

static void config_time_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u\n", s->config_time);
}

static ssize_t config_time_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        int v;

        if (!scan_int(data, &v) || v < 5 || v > 120)
                return -EINVAL;
        s->config_time = (unsigned) v;
        return (ssize_t) size;
}

static void autoprobe_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, s->autoprobe ? "1\n" : "0\n");
}

static ssize_t autoprobe_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        s->autoprobe = data[0] != '0';
        return (ssize_t) size;
}

/* The queue that @data names, with an optional newline. */
static SimQueue *named_queue(const Sim *s, const char *data) {
        unsigned a, d;
        char name[8];
        size_t n = strcspn(data, "\n");
        SimQueue *q;

        if (n != 7 || data[2] != '.' || sscanf(data, "%2x.%4x", &a, &d) != 2 || a >= SIM_IDS || d >= SIM_IDS)
                return NULL;
        (void) snprintf(name, sizeof name, "%02x.%04x", a & 255, d & 255);
        q = sim_queue(s, a, d);
        return memcmp(name, data, n) == 0 && q->exists ? q : NULL;
}

static ssize_t drivers_probe_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimQueue *q = named_queue(s, data);

        if (!q)
                return -ENODEV;
        sim_queue_probe(s, q);
        return (ssize_t) size;
}

static void features_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, s->profile.no_qci ? "-\n" : "APSC APXA QACT RC8A\n");
}

static void poll_thread_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u\n", s->poll_thread);
}

static ssize_t poll_thread_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        if (!data[0] || !strchr("01nNyY", data[0]))
                return -EINVAL;
        s->poll_thread = strchr("1yY", data[0]) != NULL;
        return (ssize_t) size;
}

static void poll_timeout_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%llu\n", (unsigned long long) s->poll_timeout);
}

static ssize_t poll_timeout_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        uint64_t v;
        int r;

        r = sim_parse_number(data, &v);
        if (r < 0)
                return r;
        if (v > 120000000000u)
                return -EINVAL;
        s->poll_timeout = v;
        return (ssize_t) size;
}

static void scans_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%llu\n", (unsigned long long) s->scans);
}

static ssize_t scans_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        sim_scan(s);
        return (ssize_t) size;
}

const SimAttr sim_bus_ap_attrs[] = {
        { "ap_adapter_mask", 0444, ap_adapter_mask_show },
        { "ap_control_domain_mask", 0444, ap_control_domain_mask_show },
        { "ap_domain", 0644, ap_domain_show, ap_domain_store },
        { "ap_interrupts", 0444, zero_show },
        { "ap_max_adapter_id", 0444, max_adapter_show },
        { "ap_max_domain_id", 0444, max_domain_show },
        { "ap_usage_domain_mask", 0444, ap_usage_domain_mask_show },
        { "apmask", 0644, apmask_show, apmask_store, NULL, 0, SIM_LOCK_PERMS | SIM_LOCK_MDEVS },
        { "aqmask", 0644, aqmask_show, aqmask_store, NULL, 0, SIM_LOCK_PERMS | SIM_LOCK_MDEVS },
        { "bindings", 0444, bindings_show },
        { "bindings_complete_count", 0444, complete_count_show, NULL, is_7_2 },
        { "config_time", 0644, config_time_show, config_time_store },
        { "drivers_autoprobe", 0644, autoprobe_show, autoprobe_store },
        { "drivers_probe", 0200, NULL, drivers_probe_store, NULL, 0, SIM_LOCK_MDEVS },
        { "features", 0444, features_show, NULL, is_6_12 },
        { "poll_thread", 0644, poll_thread_show, poll_thread_store },
        { "poll_timeout", 0644, poll_timeout_show, poll_timeout_store },
        { "scans", 0644, scans_show, scans_store },
        { "uevent", 0200, NULL, sim_uevent_store },
        {},
};

static SimCard *named_card(Sim *s, const char *data) {
        unsigned a;
        size_t n = strcspn(data, "\n");

        if (n != 6 || memcmp(data, "card", 4) != 0 || sscanf(data + 4, "%2x", &a) != 1 ||
            !s->cards[a].exists)
                return NULL;
        return &s->cards[a];
}

static ssize_t bind_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimQueue *q;

        if (node->index == SIM_CEX4CARD) {
                SimCard *c = named_card(s, data);

                if (!c)
                        return -ENODEV;
                if (c->bound)
                        return -EBUSY;
                c->bound = true;
                sim_emit_card(s, "bind", (unsigned) (c - s->cards), NULL);
                return (ssize_t) size;
        }
        q = named_queue(s, data);
        if (!q)
                return -ENODEV;
        if (q->driver)
                return -EBUSY;
        return sim_queue_bind(s, q, node->index) ? (ssize_t) size : -ENODEV;
}

static ssize_t unbind_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimQueue *q;

        if (node->index == SIM_CEX4CARD) {
                SimCard *c = named_card(s, data);

                if (!c || !c->bound)
                        return -ENODEV;
                c->bound = false;
                sim_emit_card(s, "unbind", (unsigned) (c - s->cards), NULL);
                return (ssize_t) size;
        }
        q = named_queue(s, data);
        if (!q || q->driver != node->index)
                return -ENODEV;
        if (!sim_queue_unbind(s, q))
                return sim_pend(s, SIM_PEND_UNBIND,
                                (SimPending) {
                                        .holds = SIM_LOCK_MDEVS,
                                        .queue = q,
                                        .result = (ssize_t) size,
                                });
        return (ssize_t) size;
}

const SimAttr sim_ap_driver_attrs[] = {
        { "bind", 0200, NULL, bind_store, NULL, 0, SIM_LOCK_MDEVS },
        { "uevent", 0200, NULL, sim_uevent_store },
        { "unbind", 0200, NULL, unbind_store, NULL, 0, SIM_LOCK_MDEVS },
        {},
};

static void nothing_show(Sim *s, const SimNode *node, SimText *t) {
}

const SimAttr sim_dev_ap_attrs[] = { { "uevent", 0644, nothing_show, sim_uevent_store }, {} };

/* cards */

static const SimCard *card(const Sim *s, const SimNode *node) {
        return &s->cards[node->adapter];
}

static unsigned hwtype(const SimCard *c) {
        return c->raw_type > SIM_TYPE_NEWEST ? SIM_TYPE_NEWEST : c->raw_type;
}

static bool card_bound(const Sim *s, const SimNode *node) {
        return card(s, node)->bound;
}

static bool card_has_serial(const Sim *s, const SimNode *node) {
        return card(s, node)->bound && card(s, node)->mode != SIM_ACCEL;
}

static bool card_is_ep11(const Sim *s, const SimNode *node) {
        return card(s, node)->bound && card(s, node)->mode == SIM_EP11;
}

static void empty_line_show(Sim *s, const SimNode *node, SimText *t) {
        text_put(t, "\n", 1);
}

static void functions_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "0x%08X\n", ap_functions[card(s, node)->mode]);
}

static void chkstop_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, card(s, node)->chkstop ? "1\n" : "0\n");
}

static void card_config_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, card(s, node)->config ? "1\n" : "0\n");
}

static ssize_t card_config_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimCard *c = &s->cards[node->adapter];
        int v;

        if (!scan_int(data, &v) || v < 0 || v > 1)
                return -EINVAL;
        if (c->config != v)
                c->hw_config = v; /* else the machine is not asked */
        c->config = v;
        sim_emit_card(s, "change", node->adapter, v ? "CONFIG=1" : "CONFIG=0");
        return (ssize_t) size;
}

static void depth_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "8\n");
}

static void hwtype_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u\n", hwtype(card(s, node)));
}

static void raw_hwtype_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%u\n", card(s, node)->raw_type);
}

static void max_msg_size_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, card(s, node)->mode == SIM_ACCEL ? "12288\n" : "4096\n");
}

static void modalias_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "ap:t%02X\n", hwtype(card(s, node)));
}

static void type_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "CEX%u%c\n", hwtype(card(s, node)) - 6, "ACP"[card(s, node)->mode]);
}

static void serialnr_show(Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "%s\n", card(s, node)->serialnr);
}

static void card_online_show(Sim *s, const SimNode *node, SimText *t) {
        const SimCard *c = card(s, node);

        text_puts(t, c->online && c->config && !c->chkstop ? "1\n" : "0\n");
}

/* The adapter's queues with the host's driver, in the order in which they came to it; after @last, NULL: the first. */
static SimQueue *next_bound(const Sim *s, unsigned adapter, const SimQueue *last) {
        SimQueue *next = NULL;

        for (SimQueue *q = s->first; q; q = q->next)
                if (sim_queue_adapter(s, q) == adapter && q->driver == SIM_CEX4QUEUE &&
                    (!last || q->bound_serial > last->bound_serial) &&
                    (!next || q->bound_serial < next->bound_serial))
                        next = q;
        return next;
}

static ssize_t card_online_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimCard *c = &s->cards[node->adapter];
        int v;

        if (!scan_int(data, &v) || v < 0 || v > 1)
                return -EINVAL;
        if (v && (!c->config || c->chkstop))
                return -ENODEV;
        c->online = v;
        sim_emit_card(s, "change", node->adapter, v ? "ONLINE=1" : "ONLINE=0");
        for (SimQueue *q = NULL; (q = next_bound(s, node->adapter, q));)
                if (q->online != c->online) {
                        q->online = c->online;
                        sim_emit_queue(s, "change", q, v ? "ONLINE=1" : "ONLINE=0");
                }
        return (ssize_t) size;
}

static ssize_t request_count_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return (ssize_t) size; /* a write clears the counters, which stay 0 here */
}

static void card_uevent_show(Sim *s, const SimNode *node, SimText *t) {
        sim_card_env(s, node->adapter, true, t);
}

const SimAttr sim_card_attrs[] = {
        { "API_ordinalnr", 0444, empty_line_show, NULL, card_is_ep11 },
        { "FW_version", 0444, empty_line_show, NULL, card_is_ep11 },
        { "ap_functions", 0444, functions_show },
        { "chkstop", 0444, chkstop_show },
        { "config", 0644, card_config_show, card_config_store },
        { "depth", 0444, depth_show },
        { "hwtype", 0444, hwtype_show },
        { "load", 0444, zero_show, NULL, card_bound },
        { "max_msg_size", 0444, max_msg_size_show },
        { "modalias", 0444, modalias_show },
        { "online", 0644, card_online_show, card_online_store, card_bound },
        { "op_modes", 0444, empty_line_show, NULL, card_is_ep11 },
        { "pendingq_count", 0444, zero_show },
        { "raw_hwtype", 0444, raw_hwtype_show },
        { "request_count", 0644, zero_show, request_count_store },
        { "requestq_count", 0444, zero_show },
        { "serialnr", 0444, serialnr_show, NULL, card_has_serial },
        { "type", 0444, type_show, NULL, card_bound },
        { "uevent", 0644, card_uevent_show, sim_uevent_store },
        {},
};

static void card_driver_link(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../../bus/ap/drivers/cex4card");
}

static void card_subsystem_link(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../../bus/ap");
}

const SimLink sim_card_links[] = {
        { "driver", card_driver_link, card_bound },
        { "subsystem", card_subsystem_link },
        {},
};

/* queues */

static SimQueue *queue(const Sim *s, const SimNode *node) {
        return sim_queue(s, node->adapter, node->domain);
}

static bool queue_bound(const Sim *s, const SimNode *node) {
        return queue(s, node)->driver;
}

static bool queue_of_host(const Sim *s, const SimNode *node) {
        return queue(s, node)->driver == SIM_CEX4QUEUE;
}

static bool queue_of_vfio_ap(const Sim *s, const SimNode *node) {
        return queue(s, node)->driver == SIM_VFIO_AP;
}

static bool queue_has_mkvps(const Sim *s, const SimNode *node) {
        return queue_of_host(s, node) && card(s, node)->mode != SIM_ACCEL;
}

static bool queue_has_op_modes(const Sim *s, const SimNode *node) {
        return queue_of_host(s, node) && card(s, node)->mode == SIM_EP11;
}

static bool debug(const Sim *s, const SimNode *node) {
        return s->profile.debug;
}

static void queue_config_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, queue(s, node)->config ? "1\n" : "0\n");
}

static void override_show(Sim *s, const SimNode *node, SimText *t) {
        const SimQueue *q = queue(s, node);

        text_printf(t, "%s\n", q->override ? q->override : "");
}

static ssize_t override_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimQueue *q = queue(s, node);
        size_t n = strcspn(data, "\n");
        char *name = NULL;

        if (!sim_mask_full(&s->apmask) || !sim_mask_full(&s->aqmask))
                return -EINVAL;
        if (n > OVERRIDE_MAX)
                return -EINVAL;
        if (n > 0) {
                name = strndup(data, n);
                if (!name)
                        return -ENOMEM;
        }
        if (name && !q->override)
                s->overrides++;
        else if (!name && q->override)
                s->overrides--;
        free(q->override);
        q->override = name;
        return (ssize_t) size;
}

static void interrupt_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "Interrupts disabled.\n");
}

static void last_err_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "NORMAL\n");
}

static void mkvps_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, card(s, node)->mode == SIM_EP11 ? "WK CUR: - -\nWK NEW: - -\n"
                                                     : "AES NEW: - -\nAES CUR: - -\nAES OLD: - -\n"
                                                       "APKA NEW: - -\nAPKA CUR: - -\nAPKA OLD: - -\n"
                                                       "ASYM NEW: - -\nASYM CUR: - -\nASYM OLD: - -\n");
}

static void queue_chkstop_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, queue(s, node)->chkstop ? "1\n" : "0\n");
}

static void queue_online_show(Sim *s, const SimNode *node, SimText *t) {
        const SimQueue *q = queue(s, node);

        text_puts(t, q->online && q->config && !q->chkstop ? "1\n" : "0\n");
}

static ssize_t queue_online_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimQueue *q = queue(s, node);
        const SimCard *c = card(s, node);
        int v;

        if (!scan_int(data, &v) || v < 0 || v > 1)
                return -EINVAL;
        if (v && (!q->config || !c->config || q->chkstop || c->chkstop))
                return -ENODEV;
        if (v && !c->online)
                return -EINVAL;
        q->online = v;
        sim_emit_queue(s, "change", q, v ? "ONLINE=1" : "ONLINE=0");
        return (ssize_t) size;
}

static void queue_requests_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, queue_of_host(s, node) ? "0\n" : "-\n");
}

static void reset_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "No Reset Timer set.\n");
}

static ssize_t reset_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        (void) sim_queue_reset(s, queue(s, node), false);
        return (ssize_t) size;
}

static void states_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, queue_of_host(s, node) ? "OPERATING [IDLE]\n" : "UNINITIATED\n");
}

static void status_show(Sim *s, const SimNode *node, SimText *t) {
        const SimQueue *q = queue(s, node);

        if (!q->owner) {
                text_puts(t, "unassigned\n");
                return;
        }
        text_puts(t, q->owner->guest && sim_mask_get(&q->owner->guest_ap, node->adapter) &&
                                     sim_mask_get(&q->owner->guest_aq, node->domain)
                             ? "in use\n"
                             : "assigned\n");
}

static void queue_uevent_show(Sim *s, const SimNode *node, SimText *t) {
        sim_queue_env(s, queue(s, node), t);
}

const SimAttr sim_queue_attrs[] = {
        { "ap_functions", 0444, functions_show },
        { "chkstop", 0444, queue_chkstop_show },
        { "config", 0444, queue_config_show },
        { "driver_override", 0644, override_show, override_store, is_7_2, 0, SIM_LOCK_PERMS },
        { "interrupt", 0444, interrupt_show },
        { "last_err_rc", 0444, last_err_show, NULL, debug },
        { "load", 0444, zero_show, NULL, queue_of_host },
        { "mkvps", 0444, mkvps_show, NULL, queue_has_mkvps },
        { "online", 0644, queue_online_show, queue_online_store, queue_of_host },
        { "op_modes", 0444, empty_line_show, NULL, queue_has_op_modes },
        { "pendingq_count", 0444, zero_show },
        { "request_count", 0644, queue_requests_show, request_count_store },
        { "requestq_count", 0444, zero_show },
        { "reset", 0644, reset_show, reset_store },
        { "states", 0444, states_show, NULL, debug },
        { "status", 0444, status_show, NULL, queue_of_vfio_ap, SIM_LOCK_MDEVS, 0 },
        { "uevent", 0644, queue_uevent_show, sim_uevent_store },
        {},
};

static void queue_driver_link(const Sim *s, const SimNode *node, SimText *t) {
        text_printf(t, "../../../../bus/ap/drivers/%s", queue_of_host(s, node) ? "cex4queue" : "vfio_ap");
}

static void queue_subsystem_link(const Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "../../../../bus/ap");
}

const SimLink sim_queue_links[] = {
        { "driver", queue_driver_link, queue_bound },
        { "subsystem", queue_subsystem_link },
        {},
};

/* boot parameters; their modes differ between kernels */

static void parameter(SimText *t, const char *value) {
        text_printf(t, "%s\n", *value ? value : "(null)");
}

static void param_apmask_show(Sim *s, const SimNode *node, SimText *t) {
        parameter(t, s->profile.apmask);
}

static void param_aqmask_show(Sim *s, const SimNode *node, SimText *t) {
        parameter(t, s->profile.aqmask);
}

static void param_one_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "1\n");
}

static void param_eight_show(Sim *s, const SimNode *node, SimText *t) {
        text_puts(t, "8\n");
}

static bool before_7_2(const Sim *s, const SimNode *node) {
        return !is_7_2(s, node);
}

const SimAttr sim_ap_parameter_attrs[] = {
        { "apmask", 0444, param_apmask_show, NULL, is_7_2 },
        { "aqmask", 0444, param_aqmask_show, NULL, is_7_2 },
        { "domain", 0444, ap_domain_show, NULL, is_7_2 },
        { "msgpool_min_items", 0400, param_eight_show, NULL, is_7_2 },
        { "poll_thread", 0444, zero_show, NULL, is_7_2 },
        { "useirq", 0444, param_one_show, NULL, is_7_2 },
        { "apmask", 0440, param_apmask_show, NULL, before_7_2 },
        { "aqmask", 0440, param_aqmask_show, NULL, before_7_2 },
        { "domain", 0440, ap_domain_show, NULL, before_7_2 },
        { "poll_thread", 0440, zero_show, NULL, before_7_2 },
        { "useirq", 0440, param_one_show, NULL, before_7_2 },
        {},
};
