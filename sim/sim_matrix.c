/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* vfio_ap: matrices of mdevs, who owns a queue, what a guest gets of it. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sim/sim_internal.h"

static bool linked(const SimQueue *q) {
        return q->exists && q->driver == SIM_VFIO_AP;
}

/* The whole matrix is checked at every change, as the kernel does. Nothing is without both axes. */
static int validate(const Sim *s, const SimMdev *m) {
        SIM_MASK_FOREACH(a, &m->ap)
                SIM_MASK_FOREACH(d, &m->aq)
                        if (sim_host_owned(s, a, d))
                                return -EADDRNOTAVAIL;
        SIM_MASK_FOREACH(a, &m->ap)
                SIM_MASK_FOREACH(d, &m->aq) {
                        const SimMdev *owner = sim_queue(s, a, d)->owner;

                        if (owner && owner != m)
                                return -EADDRINUSE;
                }
        return 0;
}

static void own(Sim *s, SimMdev *m, const SimMask *ap, const SimMask *aq) {
        SIM_MASK_FOREACH(a, ap)
                SIM_MASK_FOREACH(d, aq) {
                        SimQueue *q = sim_queue(s, a, d);

                        if (q->owner)
                                continue;
                        q->owner = m;
                        s->owned_adapter[a]++;
                        s->owned_domain[d]++;
                }
}

static void give_up(Sim *s, SimQueue *q) {
        q->owner = NULL;
        s->owned_adapter[sim_queue_adapter(s, q)]--;
        s->owned_domain[sim_queue_domain(s, q)]--;
}

/* What the guest gets is kept, and follows the rest at certain moments only: when something is assigned, when a queue
 * comes to the driver, after a scan with something new. Taking away makes it smaller and no more than that. */

/* It has changed. */
static void tell_guest(const Sim *s, SimMdev *m) {
        if (m->guest && s->profile.dialect >= SIM_LINUX_7_2) /* older ones have no interrupt for it */
                m->config_events++;
}

static bool passable(const SimQueue *q) {
        return linked(q) && !q->reset_failed && !q->reset_again;
}

/* Matrix and host configuration, then without each adapter that has one queue the guest cannot get. *@ret_dropped are
 * the adapters that it had before. Returns whether something has changed. */
static bool filter_queues(const Sim *s, SimMdev *m, SimMask *ret_dropped) {
        SimMask ap = sim_mask_and(&m->ap, &s->info_ap), aq = sim_mask_and(&m->aq, &s->info_aq);
        bool same;

        *ret_dropped = (SimMask) {};
        SIM_MASK_FOREACH(a, &ap)
                SIM_MASK_FOREACH(d, &aq) {
                        if (passable(sim_queue(s, a, d)))
                                continue;
                        sim_mask_set(&ap, a, false);
                        sim_mask_set(ret_dropped, a, sim_mask_get(&m->guest_ap, a));
                        break;
                }
        same = sim_mask_equal(&ap, &m->guest_ap) && sim_mask_equal(&aq, &m->guest_aq);
        m->guest_ap = ap;
        m->guest_aq = aq;
        return !same;
}

static bool filter_control(const Sim *s, SimMdev *m) {
        SimMask ad = sim_mask_and(&m->ad, &s->info_ad);
        bool same = sim_mask_equal(&ad, &m->guest_ad);

        m->guest_ad = ad;
        return !same;
}

static void reset_adapters(Sim *s, const SimMdev *m, const SimMask *adapters, bool wait) {
        SIM_MASK_FOREACH(a, adapters)
                SIM_MASK_FOREACH(d, &m->guest_aq) {
                        SimQueue *q = sim_queue(s, a, d);

                        if (q->owner == m && linked(q))
                                (void) sim_queue_reset(s, q, wait);
                }
}

static void filter(Sim *s, SimMdev *m) {
        SimMask dropped;

        if (!filter_queues(s, m, &dropped))
                return;
        tell_guest(s, m);
        reset_adapters(s, m, &dropped, true);
}

/* Takes @ids of one kind away, the masks being those from before. Only what the guest had is reset. */
static void unplug(Sim *s, SimMdev *m, bool adapters, const SimMask *ids) {
        const SimMask *other = adapters ? &m->aq : &m->ap;
        SimMask *had = adapters ? &m->guest_ap : &m->guest_aq;
        bool changed = false;

        SIM_MASK_FOREACH(id, ids)
                SIM_MASK_FOREACH(o, other) {
                        unsigned a = adapters ? id : o, d = adapters ? o : id;
                        SimQueue *q = sim_queue(s, a, d);

                        if (q->owner != m)
                                continue;
                        give_up(s, q);
                        if (linked(q) && sim_mask_get(&m->guest_ap, a) && sim_mask_get(&m->guest_aq, d))
                                (void) sim_queue_reset(s, q, true);
                }
        SIM_MASK_FOREACH(id, ids)
                if (sim_mask_get(had, id)) {
                        sim_mask_set(had, id, false);
                        changed = true;
                }
        if (changed)
                tell_guest(s, m);
}

void sim_matrix_reset(Sim *s, const SimMdev *m, bool wait) {
        SIM_MASK_FOREACH(a, &m->ap)
                SIM_MASK_FOREACH(d, &m->aq)
                        if (linked(sim_queue(s, a, d)))
                                (void) sim_queue_reset(s, sim_queue(s, a, d), wait);
}

void sim_matrix_free_queues(Sim *s, SimMdev *m, bool reset) {
        static const SimMask none;

        if (reset)
                sim_matrix_reset(s, m, true);
        SIM_MASK_FOREACH(a, &m->ap)
                SIM_MASK_FOREACH(d, &m->aq)
                        if (sim_queue(s, a, d)->owner == m)
                                give_up(s, sim_queue(s, a, d));
        m->ap = m->aq = m->ad = m->guest_ap = m->guest_aq = m->guest_ad = none;
}

void sim_matrix_queue_comes(Sim *s, SimQueue *q) {
        SimMdev *m = q->owner;

        q->reset_failed = q->reset_again = false;
        /* Amid a scan that brings something for this mdev its end does it. */
        if (m && sim_mask_empty(&m->add_ap) && sim_mask_empty(&m->add_aq))
                filter(s, m);
}

/* It takes its adapter with it, if a guest would have it. */
void sim_matrix_queue_leaves(Sim *s, SimQueue *q, bool wait) {
        unsigned a = sim_queue_adapter(s, q), d = sim_queue_domain(s, q);
        SimMdev *m = q->owner;
        SimMask adapter = {};

        if (m && sim_mask_get(&m->guest_ap, a) && sim_mask_get(&m->guest_aq, d)) {
                sim_mask_set(&m->guest_ap, a, false);
                tell_guest(s, m);
                sim_mask_set(&adapter, a, true);
                reset_adapters(s, m, &adapter, wait);
        } else if (sim_mask_get(&s->info_ap, a) && sim_mask_get(&s->info_aq, d))
                (void) sim_queue_reset(s, q, wait);
}

/* Whether the machine itself has the queue, which the bus may not have seen yet. */
static bool supported(const Sim *s, unsigned a, unsigned d) {
        return sim_queue_available(s, sim_queue(s, a, d)) && s->cards[a].hw_type >= SIM_TYPE_OLDEST;
}

/* New adapters are left out if one of the new domains (not of the old ones) is of no use with them. */
static void note_added(Sim *s, SimMask ap, SimMask aq, SimMask ad) {
        SIM_MASK_FOREACH(a, &ap)
                SIM_MASK_FOREACH(d, &aq)
                        if (!supported(s, a, d))
                                sim_mask_set(&ap, a, false);
        for (SimMdev *m = s->parents[0].first; m; m = m->next) {
                m->add_ap = sim_mask_and(&m->ap, &ap);
                m->add_aq = sim_mask_and(&m->aq, &aq);
                m->add_ad = sim_mask_and(&m->ad, &ad);
        }
}

/* The driver asks the machine, not the bus. */
void sim_matrix_load(Sim *s) {
        static const SimMask none;

        s->info_ap = s->profile.no_qci ? none : s->hw_ap;
        s->info_aq = s->profile.no_qci ? none : s->hw_aq;
        s->info_ad = s->profile.no_qci ? none : s->hw_ad;
}

void sim_matrix_config_changed(Sim *s, const SimMask old_config[static 3]) {
        SimMask ap = sim_mask_and_not(&s->ap, &old_config[0]), aq = sim_mask_and_not(&s->aq, &old_config[1]),
                ad = sim_mask_and_not(&s->ad, &old_config[2]);

        for (SimMdev *m = s->parents[0].first; m; m = m->next) {
                SimMask old[3] = { m->guest_ap, m->guest_aq, m->guest_ad };

                m->guest_ap = sim_mask_and(&m->guest_ap, &s->ap);
                m->guest_aq = sim_mask_and(&m->guest_aq, &s->aq);
                m->guest_ad = sim_mask_and(&m->guest_ad, &s->ad);
                if (!sim_mask_equal(&old[0], &m->guest_ap) || !sim_mask_equal(&old[1], &m->guest_aq) ||
                    !sim_mask_equal(&old[2], &m->guest_ad))
                        tell_guest(s, m);
        }
        if (!sim_mask_empty(&ap) || !sim_mask_empty(&aq) || !sim_mask_empty(&ad))
                note_added(s, ap, aq, ad);
        s->info_ap = s->ap;
        s->info_aq = s->aq;
        s->info_ad = s->ad;
}

void sim_matrix_scan_complete(Sim *s) {
        static const SimMask none;

        for (SimMdev *m = s->parents[0].first; m; m = m->next) {
                SimMask dropped = none;
                bool changed = false;

                if (!sim_mask_empty(&m->add_ap) || !sim_mask_empty(&m->add_aq))
                        changed = filter_queues(s, m, &dropped);
                if (!sim_mask_empty(&m->add_ad))
                        changed |= filter_control(s, m);
                if (changed)
                        tell_guest(s, m);
                reset_adapters(s, m, &dropped, true);
                m->add_ap = m->add_aq = m->add_ad = none;
        }
}

static ssize_t done_or_wait(Sim *s, size_t size) {
        if (s->op.waits == 0)
                return (ssize_t) size;
        return sim_pend(s, SIM_PEND_RESULT,
                        (SimPending) { .holds = SIM_LOCK_MDEVS, .result = (ssize_t) size });
}

static int parse_id(const char *data, unsigned max, unsigned *ret) {
        uint64_t v;
        int r;

        r = sim_parse_number(data, &v);
        if (r < 0)
                return r;
        if (v > max)
                return -ENODEV;
        *ret = (unsigned) v;
        return 0;
}

static ssize_t assign(Sim *s, SimMdev *m, bool adapter, const char *data, size_t size) {
        SimMask *mask = adapter ? &m->ap : &m->aq;
        unsigned id;
        int r;

        r = parse_id(data, adapter ? s->max_adapter : s->max_domain, &id);
        if (r < 0)
                return r;
        if (sim_mask_get(mask, id))
                return (ssize_t) size;
        sim_mask_set(mask, id, true);
        r = validate(s, m);
        if (r < 0) {
                sim_mask_set(mask, id, false);
                return r;
        }
        own(s, m, &m->ap, &m->aq);
        filter(s, m);
        return done_or_wait(s, size);
}

static ssize_t unassign(Sim *s, SimMdev *m, bool adapter, const char *data, size_t size) {
        SimMask *mask = adapter ? &m->ap : &m->aq, ids = {};
        unsigned id;
        int r;

        r = parse_id(data, adapter ? s->max_adapter : s->max_domain, &id);
        if (r < 0)
                return r;
        if (!sim_mask_get(mask, id))
                return (ssize_t) size;
        sim_mask_set(mask, id, false);
        sim_mask_set(&ids, id, true);
        unplug(s, m, adapter, &ids);
        return done_or_wait(s, size);
}

static ssize_t assign_adapter_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return assign(s, node->mdev, true, data, size);
}

static ssize_t assign_domain_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return assign(s, node->mdev, false, data, size);
}

static ssize_t unassign_adapter_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return unassign(s, node->mdev, true, data, size);
}

static ssize_t unassign_domain_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return unassign(s, node->mdev, false, data, size);
}

static ssize_t set_control(Sim *s, SimMdev *m, bool value, const char *data, size_t size) {
        unsigned id;
        int r;

        r = parse_id(data, s->max_domain, &id);
        if (r < 0)
                return r;
        if (sim_mask_get(&m->ad, id) == value)
                return (ssize_t) size;
        sim_mask_set(&m->ad, id, value);
        if (value ? filter_control(s, m) : sim_mask_get(&m->guest_ad, id))
                tell_guest(s, m);
        if (!value)
                sim_mask_set(&m->guest_ad, id, false);
        return (ssize_t) size;
}

static ssize_t assign_control_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return set_control(s, node->mdev, true, data, size);
}

static ssize_t unassign_control_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        return set_control(s, node->mdev, false, data, size);
}

/* One field of ap_config, ended by a comma or newline; *p is NULL behind the last one. */
static int parse_field(const char **p, SimMask *ret) {
        char field[SIM_PAGE_SIZE + 1];
        size_t n;

        if (!*p)
                return -EINVAL;
        n = strcspn(*p, ",\n");
        memcpy(field, *p, n);
        field[n] = 0;
        *p = (*p)[n] ? *p + n + 1 : NULL;
        return sim_mask_parse_hex(field, ret);
}

static bool above(const SimMask *m, unsigned max) {
        return sim_mask_next(m, max + 1) < SIM_IDS;
}

static ssize_t ap_config_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        SimMdev *m = node->mdev;
        SimMask old_ap = m->ap, old_aq = m->aq, ap, aq, ad, gone, dropped;
        const char *p = data;
        bool changed;
        int r;

        if (parse_field(&p, &ap) < 0 || parse_field(&p, &aq) < 0 || parse_field(&p, &ad) < 0)
                return -EINVAL;
        m->ap = ap;
        m->aq = aq;
        r = validate(s, m);
        if (r == 0 && (above(&ap, s->max_adapter) || above(&aq, s->max_domain) || above(&ad, s->max_domain)))
                r = -ENODEV;
        m->ap = old_ap;
        m->aq = old_aq;
        if (r < 0)
                return r;

        gone = sim_mask_and_not(&old_ap, &ap);
        unplug(s, m, true, &gone);
        gone = sim_mask_and_not(&old_aq, &aq);
        unplug(s, m, false, &gone);
        m->ap = ap;
        m->aq = aq;
        m->ad = ad;
        own(s, m, &ap, &aq);
        changed = filter_queues(s, m, &dropped);
        changed |= filter_control(s, m);
        if (changed) {
                tell_guest(s, m);
                reset_adapters(s, m, &dropped, true);
        }
        return done_or_wait(s, size);
}

static void ap_config_show(Sim *s, const SimNode *node, SimText *t) {
        text_mask(t, &node->mdev->ap);
        text_put(t, ",", 1);
        text_mask(t, &node->mdev->aq);
        text_put(t, ",", 1);
        text_mask(t, &node->mdev->ad);
        text_put(t, "\n", 1);
}

static void put_hex(char *p, unsigned v, unsigned digits) {
        while (digits-- > 0) {
                p[digits] = "0123456789abcdef"[v & 15];
                v >>= 4;
        }
}

/* Cut in mid-line at the end of the page. Before 7.2 the kernel wrote on: counted, must not be provoked. */
static void show_queues(Sim *s, const SimMask *ap, const SimMask *aq, SimText *t) {
        char line[] = "00.0000\n";

        SIM_MASK_FOREACH(a, ap) {
                put_hex(line, a, 2);
                if (sim_mask_empty(aq)) {
                        text_put(t, line, 3);
                        text_put(t, "\n", 1);
                        continue;
                }
                SIM_MASK_FOREACH(d, aq) {
                        put_hex(line + 3, d, 4);
                        if (t->n + 8 >= t->size && s->profile.dialect < SIM_LINUX_7_2) {
                                s->overruns++;
                                text_put(t, line, 8);
                                return;
                        }
                        text_put(t, line, 8);
                }
        }
        if (sim_mask_empty(ap))
                SIM_MASK_FOREACH(d, aq) {
                        put_hex(line + 3, d, 4);
                        text_put(t, line + 2, 6);
                }
}

static void matrix_show(Sim *s, const SimNode *node, SimText *t) {
        show_queues(s, &node->mdev->ap, &node->mdev->aq, t);
}

static void guest_matrix_show(Sim *s, const SimNode *node, SimText *t) {
        show_queues(s, &node->mdev->guest_ap, &node->mdev->guest_aq, t);
}

static void control_domains_show(Sim *s, const SimNode *node, SimText *t) {
        SIM_MASK_FOREACH(d, &node->mdev->ad)
                text_printf(t, "%04x\n", d);
}

/* Would the host, taking @taken back, touch a queue of an mdev? 7.2 looks at the one axis only; before,
 * queues that the other mask keeps from the host do not count. */
bool sim_matrix_in_use(const Sim *s, bool adapters, const SimMask *taken) {
        const SimMask *other = adapters ? &s->aqmask : &s->apmask;

        if (!s->vfio_ap)
                return false;
        SIM_MASK_FOREACH(id, taken) {
                if ((adapters ? s->owned_adapter : s->owned_domain)[id] == 0)
                        continue;
                if (s->profile.dialect >= SIM_LINUX_7_2)
                        return true;
                SIM_MASK_FOREACH(o, other)
                        if (sim_queue(s, adapters ? id : o, adapters ? o : id)->owner)
                                return true;
        }
        return false;
}

int sim_matrix_restore(Sim *s, SimMdev *m, const char *masks) {
        char text[3][SIM_MASK_TEXT_SIZE];
        SimMask ap, aq, ad, dropped;

        if (!m || m->parent->kind != SIM_PARENT_VFIO_AP || !sim_mask_empty(&m->ap) ||
            !sim_mask_empty(&m->aq) || sscanf(masks, "%66s %66s %66s", text[0], text[1], text[2]) != 3 ||
            sim_mask_parse_hex(text[0], &ap) < 0 || sim_mask_parse_hex(text[1], &aq) < 0 ||
            sim_mask_parse_hex(text[2], &ad) < 0)
                return -EBADMSG;
        m->ap = ap;
        m->aq = aq;
        m->ad = ad;
        own(s, m, &ap, &aq);
        (void) filter_queues(s, m, &dropped);
        (void) filter_control(s, m);
        return 0;
}

static bool bound(const Sim *s, const SimNode *node) {
        return node->mdev->bound && !node->mdev->removing && node->parent->kind == SIM_PARENT_VFIO_AP;
}

static bool bound_with_ap_config(const Sim *s, const SimNode *node) {
        return bound(s, node) && s->profile.dialect >= SIM_LINUX_6_12;
}

const SimAttr sim_matrix_mdev_attrs[] = {
        { "ap_config", 0644, ap_config_show, ap_config_store, bound_with_ap_config, 0, SIM_LOCK_MDEVS },
        { "assign_adapter", 0200, NULL, assign_adapter_store, bound, 0, SIM_LOCK_MDEVS },
        { "assign_control_domain", 0200, NULL, assign_control_store, bound, 0, SIM_LOCK_MDEVS },
        { "assign_domain", 0200, NULL, assign_domain_store, bound, 0, SIM_LOCK_MDEVS },
        { "control_domains", 0444, control_domains_show, NULL, bound, SIM_LOCK_MDEVS, 0 },
        { "guest_matrix", 0444, guest_matrix_show, NULL, bound, SIM_LOCK_MDEVS, 0 },
        { "matrix", 0444, matrix_show, NULL, bound, SIM_LOCK_MDEVS, 0 },
        { "unassign_adapter", 0200, NULL, unassign_adapter_store, bound, 0, SIM_LOCK_MDEVS },
        { "unassign_control_domain", 0200, NULL, unassign_control_store, bound, 0, SIM_LOCK_MDEVS },
        { "unassign_domain", 0200, NULL, unassign_domain_store, bound, 0, SIM_LOCK_MDEVS },
        {},
};
