/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The AP bus: what a scan makes of the machine, which driver a queue gets, the two host masks. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_internal.h"

SimQueue *sim_queue(const Sim *s, unsigned adapter, unsigned domain) {
        return &s->queues[adapter * SIM_IDS + domain];
}

unsigned sim_queue_adapter(const Sim *s, const SimQueue *q) {
        return (unsigned) (q - s->queues) / SIM_IDS;
}

unsigned sim_queue_domain(const Sim *s, const SimQueue *q) {
        return (unsigned) (q - s->queues) % SIM_IDS;
}

static bool masked_for_host(const Sim *s, const SimQueue *q) {
        return sim_mask_get(&s->apmask, sim_queue_adapter(s, q)) &&
               sim_mask_get(&s->aqmask, sim_queue_domain(s, q));
}

/* A bound queue with an override counts by its driver, any other by the masks. */
bool sim_host_owned(const Sim *s, unsigned adapter, unsigned domain) {
        const SimQueue *q = sim_queue(s, adapter, domain);

        if (q->exists && q->override && q->driver)
                return q->driver == SIM_CEX4QUEUE;
        return masked_for_host(s, q);
}

bool sim_queue_available(const Sim *s, const SimQueue *q) {
        return sim_mask_get(&s->hw_ap, sim_queue_adapter(s, q)) &&
               sim_mask_get(&s->hw_aq, sim_queue_domain(s, q)) && !q->hole;
}

/* Zeroizes; a stuck queue stays in reset. With @wait the access being made waits for its end. */
bool sim_queue_reset(Sim *s, SimQueue *q, bool wait) {
        const SimCard *c = &s->cards[sim_queue_adapter(s, q)];

        q->zeroized++;
        q->reset_failed = !sim_queue_available(s, q);
        if (q->reset_failed || !c->hw_config || c->hw_chkstop || !q->stuck)
                return true;
        q->reset_again = q->resetting;
        q->resetting = true;
        if (wait && !q->waiter) {
                q->waiter = sim_op_id(s);
                s->op.waits++;
        }
        return false;
}

void sim_queue_unstick(Sim *s, SimQueue *q) {
        q->stuck = q->resetting = false;
        q->zeroized += q->reset_again;
        q->reset_again = false;
        for (SimPending *p = s->pending; p && q->waiter; p = p->next)
                if (p->id == q->waiter)
                        p->waits--;
        q->waiter = 0;
}

bool sim_queue_bind(Sim *s, SimQueue *q, SimDriver driver) {
        if (driver == SIM_VFIO_AP && !s->vfio_ap)
                return false;
        if (q->override) {
                if (strcmp(q->override, driver == SIM_VFIO_AP ? "vfio_ap" : "cex4queue") != 0)
                        return false;
        } else if (masked_for_host(s, q) != (driver == SIM_CEX4QUEUE))
                return false;

        q->driver = (uint8_t) driver;
        q->bound_serial = ++s->serial;
        q->online = true;
        s->n_bound++;
        s->bindings_told = false;
        if (driver == SIM_VFIO_AP)
                sim_matrix_queue_comes(s, q);
        sim_emit_queue(s, "bind", q, NULL);
        return true;
}

void sim_queue_probe(Sim *s, SimQueue *q) {
        if (q->driver || s->delayed)
                return;
        if (!sim_queue_bind(s, q, SIM_CEX4QUEUE))
                (void) sim_queue_bind(s, q, SIM_VFIO_AP);
}

static bool leave(Sim *s, SimQueue *q, bool wait) {
        size_t waits = s->op.waits;

        if (q->driver == SIM_VFIO_AP && !q->leaving) {
                q->leaving = true;
                sim_matrix_queue_leaves(s, q, wait);
                if (s->op.waits > waits)
                        return false;
        }
        q->leaving = false;
        q->zeroized++;
        q->driver = SIM_NO_DRIVER;
        s->n_bound--;
        sim_emit_queue(s, "unbind", q, NULL);
        return true;
}

bool sim_queue_unbind(Sim *s, SimQueue *q) {
        return leave(s, q, true);
}

void sim_bindings_check(Sim *s) {
        char extra[64];

        if (s->bindings_told || s->n_bound != s->n_queues)
                return;
        s->bindings_told = true;
        s->bindings_complete++;
        SimText t = { extra, 0, sizeof extra };
        text_printf(&t, "COMPLETECOUNT=%llu\n", (unsigned long long) s->bindings_complete);
        extra[t.n] = 0;
        sim_emit(s, "change", "/devices/ap", "ap", "BINDINGS=complete", extra);
}

static void remove_queue(Sim *s, SimQueue *q) {
        sim_queue_unstick(s, q);
        if (q->driver)
                (void) leave(s, q, false);
        sim_emit_queue(s, "remove", q, NULL);
        if (q->prev)
                q->prev->next = q->next;
        else
                s->first = q->next;
        if (q->next)
                q->next->prev = q->prev;
        else
                s->last = q->prev;
        free(q->override); /* but s->overrides keeps counting it, as the kernel does */
        q->override = NULL;
        q->exists = false;
        s->n_queues--;
}

/* An adapter in standby does not tell whether it is checkstopped, too. */
static bool seen_chkstop(const SimCard *c) {
        return c->hw_chkstop && c->hw_config;
}

static void add_queue(Sim *s, SimQueue *q) {
        const SimCard *c = &s->cards[sim_queue_adapter(s, q)];

        q->exists = true;
        q->config = c->hw_config;
        q->chkstop = seen_chkstop(c);
        q->serial = ++s->serial;
        q->prev = s->last;
        q->next = NULL;
        if (s->last)
                s->last->next = q;
        else
                s->first = q;
        s->last = q;
        s->n_queues++;
        sim_emit_queue(s, "add", q, NULL);
        if (s->autoprobe)
                sim_queue_probe(s, q);
}

static void remove_card(Sim *s, unsigned adapter) {
        SimCard *c = &s->cards[adapter];

        for (SimQueue *q = s->first, *next; q; q = next) {
                next = q->next;
                if (sim_queue_adapter(s, q) == adapter)
                        remove_queue(s, q);
        }
        c->bound = false;
        sim_emit_card(s, "unbind", adapter, NULL);
        sim_emit_card(s, "remove", adapter, NULL);
        c->exists = false;
}

static bool queue_in_machine(const Sim *s, unsigned adapter, unsigned domain) {
        return sim_mask_get(&s->ap, adapter) && sim_mask_get(&s->aq, domain) &&
               !sim_queue(s, adapter, domain)->hole;
}

static void scan_queues(Sim *s, unsigned adapter) {
        const SimCard *c = &s->cards[adapter];

        for (unsigned d = 0; d <= s->max_domain; d++) {
                SimQueue *q = sim_queue(s, adapter, d);
                bool there = queue_in_machine(s, adapter, d);

                if (q->exists && !there)
                        remove_queue(s, q);
                else if (!q->exists && there)
                        add_queue(s, q);
                else if (q->exists && q->chkstop != seen_chkstop(c))
                        q->chkstop = !q->chkstop; /* and no more of it in this scan */
                else if (q->exists && q->config != c->hw_config) {
                        q->config = c->hw_config;
                        sim_emit_queue(s, "change", q, q->config ? "CONFIG=1" : "CONFIG=0");
                }
        }
}

static void scan_adapter(Sim *s, unsigned adapter) {
        SimCard *c = &s->cards[adapter];
        bool there = false;

        for (unsigned d = sim_mask_next(&s->aq, 0); d <= s->max_domain && !there;
             d = sim_mask_next(&s->aq, d + 1))
                there = queue_in_machine(s, adapter, d);
        if (c->hw_type < SIM_TYPE_OLDEST)
                there = false;
        if (c->exists && (!there || c->mode != c->hw_mode || c->raw_type != c->hw_type))
                remove_card(s, adapter);
        if (!there)
                return;

        if (!c->exists) {
                /* What a newer one can do it tells itself, if it can tell anything. */
                if (c->hw_type > SIM_TYPE_NEWEST && (!c->hw_config || c->hw_chkstop))
                        return;
                c->exists = c->online = true;
                c->config = c->hw_config;
                c->chkstop = seen_chkstop(c);
                c->mode = c->hw_mode;
                c->raw_type = c->hw_type;
                c->serial = ++s->serial;
                sim_emit_card(s, "add", adapter, NULL);
                c->bound = true;
                sim_emit_card(s, "bind", adapter, NULL);
        } else if (c->config != c->hw_config) {
                c->config = c->hw_config;
                sim_emit_card(s, "change", adapter, c->config ? "CONFIG=1" : "CONFIG=0");
        }
        c->chkstop = seen_chkstop(c);
        scan_queues(s, adapter);
}

/* The kernel's choice of a domain for the host's own requests. */
static void select_domain(Sim *s) {
        if (s->ap_domain >= 0)
                return;
        SIM_MASK_FOREACH(d, &s->aq) {
                if (!sim_mask_get(&s->aqmask, d))
                        continue;
                SIM_MASK_FOREACH(a, &s->ap)
                        if (sim_mask_get(&s->apmask, a) && sim_queue(s, a, d)->exists) {
                                s->ap_domain = (int) d;
                                return;
                        }
        }
}

static bool has_new(const SimMask *m, const SimMask *old) {
        SimMask new = sim_mask_and_not(m, old);

        return !sim_mask_empty(&new);
}

void sim_scan(Sim *s) {
        SimMask old[3] = { s->ap, s->aq, s->ad };
        bool changed;

        if (s->profile.no_ap)
                return;
        s->scans++;
        s->ap = s->hw_ap;
        s->aq = s->hw_aq;
        s->ad = s->hw_ad;
        for (unsigned id = 0; id < SIM_IDS; id++) {
                if (id > s->max_adapter)
                        sim_mask_set(&s->ap, id, false);
                if (id > s->max_domain) {
                        sim_mask_set(&s->aq, id, false);
                        sim_mask_set(&s->ad, id, false);
                }
        }
        changed = s->vfio_ap && !s->profile.no_qci &&
                  (!sim_mask_equal(&old[0], &s->ap) || !sim_mask_equal(&old[1], &s->aq) ||
                   !sim_mask_equal(&old[2], &s->ad));
        if (!s->profile.no_qci && (has_new(&s->ap, &old[0]) || has_new(&s->aq, &old[1])))
                s->bindings_told = false; /* also if nothing comes of it */
        if (changed)
                sim_matrix_config_changed(s, old);
        for (unsigned a = 0; a <= s->max_adapter; a++)
                if (sim_mask_get(&s->ap, a) || s->cards[a].exists)
                        scan_adapter(s, a);
        if (changed)
                sim_matrix_scan_complete(s);
        select_domain(s);
        sim_bindings_check(s);
}

void sim_bind_all(Sim *s) {
        s->delayed = false;
        for (SimQueue *q = s->first; q; q = q->next)
                sim_queue_probe(s, q);
        sim_bindings_check(s);
}

bool sim_rebind(Sim *s, uint64_t *cursor) {
        /* Whose a queue without a driver is the kernel reads through a null pointer; if it is as the masks want it, it is
         * left alone. */
        const bool driverless_is_host = s->profile.dialect >= SIM_LINUX_7_2;

        for (SimQueue *q = s->first; q; q = q->next) {
                bool host = masked_for_host(s, q), bound = q->driver;

                if (q->serial < *cursor)
                        continue;
                *cursor = q->serial;
                if (bound && !q->override && host != (q->driver == SIM_CEX4QUEUE) && !sim_queue_unbind(s, q))
                        return false;
                if (bound || host != driverless_is_host)
                        sim_queue_probe(s, q);
        }
        return true;
}

void sim_mask_changed(Sim *s, bool adapters) {
        char text[SIM_MASK_TEXT_SIZE], extra[96];
        SimText t = { extra, 0, sizeof extra };

        text_printf(&t, "%s=%s\n", adapters ? "APMASK" : "AQMASK",
                    sim_mask_format(adapters ? &s->apmask : &s->aqmask, text));
        extra[t.n] = 0;
        sim_emit(s, "change", "/devices/ap", "ap", extra, NULL);
}

ssize_t sim_mask_store(Sim *s, bool adapters, const char *data, size_t size) {
        SimMask *mask = adapters ? &s->apmask : &s->aqmask, new, taken;
        uint64_t cursor = 0;
        int r;

        if (s->overrides > 0)
                return -EINVAL;
        r = sim_mask_parse(data, mask, &new);
        if (r < 0)
                return r;
        if (sim_mask_equal(&new, mask))
                return (ssize_t) size;
        taken = sim_mask_and_not(&new, mask);
        if (sim_matrix_in_use(s, adapters, &taken))
                return -EBUSY;

        *mask = new;
        if (!sim_rebind(s, &cursor))
                return sim_pend(s, SIM_PEND_REBIND,
                                (SimPending) {
                                        .holds = SIM_LOCK_MDEVS | SIM_LOCK_PERMS,
                                        .cursor = cursor,
                                        .result = (ssize_t) size,
                                });
        sim_mask_changed(s, adapters);
        return (ssize_t) size;
}

static void boot_mask(const char *text, SimMask *ret) {
        static const SimMask none;

        if (!*text)
                memset(ret, 0xff, sizeof *ret);
        else if (sim_mask_parse(text, &none, ret) < 0)
                *ret = none;
}

void sim_ap_boot(Sim *s) {
        const SimProfile *p = &s->profile;

        memset(s->cards, 0, sizeof s->cards);
        s->ap = s->aq = s->ad = s->info_ap = s->info_aq = s->info_ad = (SimMask) {};
        s->hw_ap = p->adapters;
        s->hw_aq = p->domains;
        s->hw_ad = p->control;
        /* without QCI the bus tries the first 16 domains of the first 64 adapters */
        s->max_adapter = p->no_qci && p->max_adapter > 63 ? 63 : p->max_adapter;
        s->max_domain = p->no_qci && p->max_domain > 15 ? 15 : p->max_domain;
        for (unsigned a = 0; a < SIM_IDS; a++) {
                s->cards[a].hw_config = true;
                s->cards[a].hw_mode = sim_mask_get(&p->adapters, a) ? p->cards[a].mode : SIM_CCA;
                s->cards[a].hw_type = sim_mask_get(&p->adapters, a) ? p->cards[a].type : 14;
                memcpy(s->cards[a].serialnr, p->cards[a].serial, sizeof s->cards[a].serialnr);
        }
        boot_mask(p->apmask, &s->apmask);
        boot_mask(p->aqmask, &s->aqmask);
        for (size_t i = 0; i < p->n_holes; i++)
                s->queues[p->holes[i]].hole = true;
        s->ap_domain = p->default_domain;
        s->config_time = 30;
        s->poll_thread = 0;
        s->poll_timeout = 250000;
        s->scans = s->bindings_complete = 0;
        s->bindings_told = false;
        s->autoprobe = true;
}

/* All queues as before the first scan. */
void sim_ap_free(Sim *s) {
        for (SimQueue *q = s->first; q; q = q->next) {
                free(q->override);
                q->override = NULL;
        }
        s->first = s->last = NULL;
        s->n_queues = s->n_bound = s->overrides = 0;
        for (size_t i = 0; i < SIM_QUEUES; i++) {
                SimQueue *q = &s->queues[i];

                /* untouched slots stay untouched pages */
                if (q->serial || q->hole || q->stuck || q->zeroized)
                        *q = (SimQueue) {};
        }
}
