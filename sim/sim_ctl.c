/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The control file: hardware, guests, faults, and what can be asked of the model itself. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_internal.h"

#define WORDS_MAX 12

static int parse_unsigned(const char *s, uint64_t max, uint64_t *ret) {
        uint64_t v;
        int r;

        r = sim_parse_number(s, &v);
        if (r < 0)
                return r;
        if (v > max)
                return -ERANGE;
        *ret = v;
        return 0;
}

/* A number, or a name such as EIO. */
static int parse_errno(const char *s, int *ret) {
        uint64_t v;

        if (parse_unsigned(s, 4095, &v) == 0) {
                *ret = (int) v;
                return 0;
        }
        for (int e = 1; e < 134; e++) {
                const char *name = strerrorname_np(e);

                if (name && strcmp(name, s) == 0) {
                        *ret = e;
                        return 0;
                }
        }
        return -EINVAL;
}

/* A.D in hex as in a queue's name; the leading zeros may be left out. */
static int parse_queue(const Sim *s, const char *text, SimQueue **ret) {
        unsigned a, d;
        char rest;

        if (sscanf(text, "%x.%x%c", &a, &d, &rest) != 2 || a >= SIM_IDS || d >= SIM_IDS)
                return -EINVAL;
        *ret = sim_queue(s, a, d);
        return 0;
}

/* "apmask" matches bus/ap/apmask and "ap/apmask" too: whole components at the end. "*" matches all. */
static bool path_matches(const char *path, const char *pattern) {
        size_t n = strlen(path), k = strlen(pattern);

        if (strcmp(pattern, "*") == 0)
                return true;
        if (k > n || strcmp(path + n - k, pattern) != 0)
                return false;
        return k == n || path[n - k - 1] == '/';
}

bool sim_fault_hit(Sim *s, const SimNode *node, bool write, int *ret_error, bool *ret_hang) {
        char path[256];
        SimText t = { path, 0, sizeof path };

        sim_node_path(s, node, &t);
        path[t.n] = 0;
        for (size_t i = 0; i < s->n_faults; i++) {
                SimFault *f = &s->faults[i];

                if (!(write ? f->write : f->read) || f->count == 0 || !path_matches(path, f->pattern))
                        continue;
                if (f->skip > 0) {
                        f->skip--;
                        continue;
                }
                if (f->count != UINT64_MAX)
                        f->count--;
                s->delay += f->delay;
                *ret_error = f->error;
                *ret_hang = f->hang;
                return true;
        }
        return false;
}

/* fault [read|write] PATTERN ERRNO|hang|ok [COUNT [USEC]] [skip=N] [count=N] [delay=USEC] */
static int add_fault(Sim *s, char **word, size_t n) {
        SimFault f = { .read = true, .write = true, .count = UINT64_MAX };
        unsigned plain = 0;
        size_t i = 1;

        if (n > i && (strcmp(word[i], "read") == 0 || strcmp(word[i], "write") == 0)) {
                f.read = word[i][0] == 'r';
                f.write = !f.read;
                i++;
        }
        if (n < i + 2 || strlen(word[i]) >= sizeof f.pattern)
                return -EINVAL;
        if (s->n_faults == SIM_FAULTS_MAX)
                return -ENOSPC;
        strcpy(f.pattern, word[i++]);
        if (strcmp(word[i], "hang") == 0)
                f.hang = true;
        else if (strcmp(word[i], "ok") != 0 && parse_errno(word[i], &f.error) < 0)
                return -EINVAL;
        for (i++; i < n; i++) {
                char *equal = strchr(word[i], '=');
                uint64_t v;

                if (parse_unsigned(equal ? equal + 1 : word[i], UINT64_MAX - 1, &v) < 0)
                        return -EINVAL;
                if (equal)
                        *equal = 0;
                if (equal ? strcmp(word[i], "count") == 0 : plain++ == 0)
                        f.count = v > 0 ? v : UINT64_MAX;
                else if (equal ? strcmp(word[i], "delay") == 0 : plain == 2)
                        f.delay = v;
                else if (equal && strcmp(word[i], "skip") == 0)
                        f.skip = v;
                else
                        return -EINVAL;
        }
        s->faults[s->n_faults++] = f;
        return 0;
}

/* [+-]apm N and so on: the machine's configuration, seen by the next scan. */
static int set_config(Sim *s, const char *key, const char *id) {
        SimMask *m;
        uint64_t v;

        if (strcmp(key + 1, "apm") == 0)
                m = &s->hw_ap;
        else if (strcmp(key + 1, "aqm") == 0)
                m = &s->hw_aq;
        else if (strcmp(key + 1, "adm") == 0)
                m = &s->hw_ad;
        else
                return -EINVAL;
        if (parse_unsigned(id, SIM_IDS - 1, &v) < 0)
                return -EINVAL;
        sim_mask_set(m, (unsigned) v, key[0] == '+');
        return 0;
}

/* card add ID [MODE [TYPE]], card del ID, domain add|del ID: with a scan */
static int plug(Sim *s, char **word, size_t n) {
        bool card = word[0][0] == 'c', add;
        uint64_t id, type;
        SimMode mode;

        if (n < 3 || parse_unsigned(word[2], SIM_IDS - 1, &id) < 0)
                return -EINVAL;
        add = strcmp(word[1], "add") == 0;
        if (!add && strcmp(word[1], "del") != 0)
                return -EINVAL;
        if (n > (card && add ? 5u : 3u))
                return -EINVAL;
        if (n > 3) {
                if (sim_mode_parse(word[3], &mode) < 0)
                        return -EINVAL;
                type = s->cards[id].hw_type;
                if (n > 4 && parse_unsigned(word[4], 255, &type) < 0)
                        return -EINVAL;
                s->cards[id].hw_mode = (uint8_t) mode;
                s->cards[id].hw_type = (uint8_t) type;
        }
        sim_mask_set(card ? &s->hw_ap : &s->hw_aq, (unsigned) id, add);
        sim_scan(s);
        return 0;
}

static int card_command(Sim *s, char **word, size_t n) {
        uint64_t id, type;
        SimCard *c;
        SimMode mode;

        if (n < 2 || parse_unsigned(word[1], SIM_IDS - 1, &id) < 0)
                return -EINVAL;
        c = &s->cards[id];
        if (n == 2 && strcmp(word[0], "decfg") == 0)
                c->hw_config = false;
        else if (n == 2 && strcmp(word[0], "cfg") == 0)
                c->hw_config = true;
        else if (n == 2 && strcmp(word[0], "chkstop") == 0)
                c->hw_chkstop = true;
        else if (n == 2 && strcmp(word[0], "nochkstop") == 0)
                c->hw_chkstop = false;
        else if (n == 3 && strcmp(word[0], "mode") == 0) {
                if (sim_mode_parse(word[2], &mode) < 0)
                        return -EINVAL;
                c->hw_mode = (uint8_t) mode;
        } else if (n == 3 && strcmp(word[0], "type") == 0) {
                if (parse_unsigned(word[2], 255, &type) < 0)
                        return -EINVAL;
                c->hw_type = (uint8_t) type;
        } else
                return -EINVAL;
        return 0;
}

static int queue_command(Sim *s, const char *key, const char *name) {
        SimQueue *q;
        int r;

        r = parse_queue(s, name, &q);
        if (r < 0)
                return r;
        if (strcmp(key, "hole") == 0)
                q->hole = true;
        else if (strcmp(key, "nohole") == 0)
                q->hole = false;
        else if (strcmp(key, "stuck") == 0)
                q->stuck = true;
        else if (strcmp(key, "nostuck") == 0)
                sim_queue_unstick(s, q);
        else
                return -EINVAL;
        return 0;
}

static void reboot(Sim *s, bool delayed) {
        sim_uevent_t uevent = s->uevent;

        s->uevent = NULL; /* what happens before anybody can listen */
        sim_boot(s, delayed);
        s->uevent = uevent;
        sim_emit(s, "change", "/devices/ap", "ap", "INITSCAN=done", NULL);
        if (!delayed) {
                s->bindings_told = false;
                s->bindings_complete = 0;
                sim_bindings_check(s);
        }
        if (s->vfio_ap)
                sim_emit_parent(s, "change", &s->parents[0], "MDEV_STATE=registered");
}

static int run(Sim *s, char **word, size_t n) {
        const char *key = word[0];

        if (strcmp(key, "fault") == 0)
                return add_fault(s, word, n);
        if (strcmp(key, "card") == 0 || strcmp(key, "domain") == 0)
                return plug(s, word, n);
        if (strcmp(key, "parent") == 0) { /* parent add|del NAME */
                if (n != 3 || (strcmp(word[1], "add") != 0 && strcmp(word[1], "del") != 0))
                        return -EINVAL;
                return sim_parent_plug(s, word[2], strcmp(word[1], "add") == 0);
        }
        if (strcmp(key, "guest") == 0) {
                if (n != 3 || (strcmp(word[2], "on") != 0 && strcmp(word[2], "off") != 0))
                        return -EINVAL;
                return sim_mdev_guest(s, word[1], strcmp(word[2], "on") == 0);
        }
        if (strcmp(key, "release") == 0 && n <= 2) {
                sim_release(s, n == 2 ? word[1] : "");
                return 0;
        }
        if (strcmp(key, "reboot") == 0 && n <= 2) {
                if (n == 2 && strcmp(word[1], "boot-delay") != 0)
                        return -EINVAL;
                reboot(s, n == 2);
                return 0;
        }
        if (n == 1) {
                if (strcmp(key, "clear") == 0)
                        s->n_faults = 0;
                else if (strcmp(key, "scan") == 0 || strcmp(key, "rescan") == 0)
                        sim_scan(s);
                else if (strcmp(key, "bind") == 0)
                        sim_bind_all(s);
                else if (strcmp(key, "rmmod") == 0)
                        return sim_vfio_ap_unload(s);
                else if (strcmp(key, "modprobe") == 0)
                        return sim_vfio_ap_load(s);
                else
                        return -EINVAL;
                return 0;
        }
        if (n == 2 && (*key == '+' || *key == '-'))
                return set_config(s, key, word[1]);
        if (n == 2 && strchr(word[1], '.'))
                return queue_command(s, key, word[1]);
        return card_command(s, word, n);
}

int sim_ctl(Sim *s, const char *commands) {
        int r = 0;

        while (*commands && r >= 0) {
                char line[512], *word[WORDS_MAX], *save = NULL;
                size_t n = 0, length = strcspn(commands, ";\n");

                if (length >= sizeof line)
                        return -EINVAL;
                memcpy(line, commands, length);
                line[length] = 0;
                for (char *w = strtok_r(line, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
                        if (n == WORDS_MAX)
                                return -EINVAL;
                        word[n++] = w;
                }
                s->op.waits = 0; /* nothing done here waits: the hardware and the guests do it */
                s->op.id = 0;
                if (n > 0)
                        r = run(s, word, n);
                sim_kick(s);
                commands += length + (commands[length] != 0);
        }
        return r < 0 ? r : 0;
}

size_t sim_state(Sim *s, char *buf, size_t size) {
        SimText t = { buf, 0, size };

        text_printf(&t,
                    "dialect %s\nwrites %llu\nscans %llu\noverruns %llu\n"
                    "queues %u bound %u\nmdevs %zu\nguests %zu\n",
                    sim_dialect_name(s->profile.dialect), (unsigned long long) s->writes,
                    (unsigned long long) s->scans, (unsigned long long) s->overruns, s->n_queues, s->n_bound,
                    s->n_mdevs, s->n_guests);
        for (size_t i = 0; i < s->n_parents; i++)
                for (const SimMdev *m = s->parents[i].first; m; m = m->next)
                        if (m->guest)
                                text_printf(&t, "guest %s config=%u request=%u%s\n", m->uuid,
                                            m->config_events, m->request_events,
                                            m->removing ? " asked to release" : "");
        for (size_t i = 0; i < s->n_faults; i++) {
                const SimFault *f = &s->faults[i];

                text_printf(&t, "fault %s%s %s skip=%llu count=%llu delay=%llu\n",
                            f->read && f->write ? ""
                            : f->read           ? "read "
                                                : "write ",
                            f->pattern,
                            f->hang    ? "hang"
                            : f->error ? strerrorname_np(f->error)
                                       : "ok",
                            (unsigned long long) f->skip,
                            (unsigned long long) (f->count == UINT64_MAX ? 0 : f->count),
                            (unsigned long long) f->delay);
        }
        for (const SimPending *p = s->pending; p; p = p->next)
                text_printf(&t, "pending %llu %s %s\n", (unsigned long long) p->id,
                            p->write ? "write" : "read", p->path);
        return t.n;
}

static void ctl_show(Sim *s, const SimNode *node, SimText *t) {
        t->n += sim_state(s, t->p + t->n, t->size - t->n);
}

static ssize_t ctl_store(Sim *s, const SimNode *node, const char *data, size_t size) {
        int r;

        r = sim_ctl(s, data);
        return r < 0 ? r : (ssize_t) size;
}

/* As many as fit in a page. */
static void zeroized_show(Sim *s, const SimNode *node, SimText *t) {
        for (unsigned a = 0; a < SIM_IDS; a++)
                for (unsigned d = 0; d < SIM_IDS; d++)
                        if (sim_queue(s, a, d)->zeroized > 0)
                                text_printf(t, "%02x.%04x zapq %u\n", a, d, sim_queue(s, a, d)->zeroized);
}

const SimAttr sim_ctl_attrs[] = {
        { "ctl", 0600, ctl_show, ctl_store },
        { "zeroized", 0400, zeroized_show },
        {},
};
