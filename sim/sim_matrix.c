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

/* Queues outside of @ap x @aq are given up, and reset if @reset. */
static void disown(Sim *s, const SimMask *old_ap, const SimMask *old_aq, const SimMask *ap,
                   const SimMask *aq, bool reset) {
        SIM_MASK_FOREACH(a, old_ap)
                SIM_MASK_FOREACH(d, old_aq) {
                        SimQueue *q = sim_queue(s, a, d);

                        if (sim_mask_get(ap, a) && sim_mask_get(aq, d))
                                continue;
                        q->owner = NULL;
                        s->owned_adapter[a]--;
                        s->owned_domain[d]--;
                        if (reset && linked(q))
                                (void) sim_queue_reset(s, q, true);
                }
}

void sim_matrix_free_queues(Sim *s, SimMdev *m, bool reset) {
        static const SimMask none;

        disown(s, &m->ap, &m->aq, &none, &none, reset);
        m->ap = m->aq = m->ad = none;
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
        return (ssize_t) size;
}

static ssize_t unassign(Sim *s, SimMdev *m, bool adapter, const char *data, size_t size) {
        SimMask *mask = adapter ? &m->ap : &m->aq, old_ap = m->ap, old_aq = m->aq;
        unsigned id;
        int r;

        r = parse_id(data, adapter ? s->max_adapter : s->max_domain, &id);
        if (r < 0)
                return r;
        if (!sim_mask_get(mask, id))
                return (ssize_t) size;
        sim_mask_set(mask, id, false);
        disown(s, &old_ap, &old_aq, &m->ap, &m->aq, true);
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
        sim_mask_set(&m->ad, id, value);
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
        SimMask old_ap = m->ap, old_aq = m->aq, ap, aq, ad;
        const char *p = data;
        int r;

        if (parse_field(&p, &ap) < 0 || parse_field(&p, &aq) < 0 || parse_field(&p, &ad) < 0)
                return -EINVAL;
        m->ap = ap;
        m->aq = aq;
        r = validate(s, m);
        if (r == 0 && (above(&ap, s->max_adapter) || above(&aq, s->max_domain) || above(&ad, s->max_domain)))
                r = -ENODEV;
        if (r < 0) {
                m->ap = old_ap;
                m->aq = old_aq;
                return r;
        }
        m->ad = ad;
        disown(s, &old_ap, &old_aq, &ap, &aq, true);
        own(s, m, &ap, &aq);
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
        SimMask ap, aq, ad;

        sim_matrix_guest(s, node->mdev, &ap, &aq, &ad);
        show_queues(s, &ap, &aq, t);
}

static void control_domains_show(Sim *s, const SimNode *node, SimText *t) {
        SIM_MASK_FOREACH(d, &node->mdev->ad)
                text_printf(t, "%04x\n", d);
}

/* Matrix and host configuration, then without each adapter that has one queue the guest cannot get. */
void sim_matrix_guest(const Sim *s, const SimMdev *m, SimMask *ret_ap, SimMask *ret_aq, SimMask *ret_ad) {
        *ret_ap = sim_mask_and(&m->ap, &s->ap);
        *ret_aq = sim_mask_and(&m->aq, &s->aq);
        *ret_ad = sim_mask_and(&m->ad, &s->ad);
        SIM_MASK_FOREACH(a, ret_ap)
                SIM_MASK_FOREACH(d, ret_aq) {
                        const SimQueue *q = sim_queue(s, a, d);

                        if (!linked(q) || q->resetting) {
                                sim_mask_set(ret_ap, a, false);
                                break;
                        }
                }
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

static void tell_guest(Sim *s, SimMdev *m) {
        SimMask ap, aq, ad;

        sim_matrix_guest(s, m, &ap, &aq, &ad);
        if (sim_mask_equal(&ap, &m->guest_ap) && sim_mask_equal(&aq, &m->guest_aq) &&
            sim_mask_equal(&ad, &m->guest_ad))
                return;
        m->guest_ap = ap;
        m->guest_aq = aq;
        m->guest_ad = ad;
        if (s->profile.dialect >= SIM_LINUX_7_2) /* older ones have no interrupt for it */
                m->config_events++;
}

void sim_matrix_tell_guests(Sim *s) {
        if (s->n_guests == 0)
                return;
        for (SimMdev *m = s->parents[0].first; m; m = m->next)
                if (m->guest && !m->removing)
                        tell_guest(s, m);
}

int sim_matrix_restore(Sim *s, SimMdev *m, const char *masks) {
        char text[3][SIM_MASK_TEXT_SIZE];
        SimMask ap, aq, ad;

        if (!m || m->parent->kind != SIM_PARENT_VFIO_AP || !sim_mask_empty(&m->ap) ||
            !sim_mask_empty(&m->aq) || sscanf(masks, "%66s %66s %66s", text[0], text[1], text[2]) != 3 ||
            sim_mask_parse_hex(text[0], &ap) < 0 || sim_mask_parse_hex(text[1], &aq) < 0 ||
            sim_mask_parse_hex(text[2], &ad) < 0)
                return -EBADMSG;
        m->ap = ap;
        m->aq = aq;
        m->ad = ad;
        own(s, m, &ap, &aq);
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
