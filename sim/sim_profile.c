/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_profile.h"

#define WORDS_MAX 8

static const char *const mode_names[_SIM_MODE_MAX] = { "accel", "cca", "ep11" };
static const char *const dialect_names[] = { "6.1", "6.12", "7.2" };

const char *sim_mode_name(SimMode m) {
        return mode_names[m];
}

int sim_mode_parse(const char *s, SimMode *ret) {
        for (unsigned i = 0; i < _SIM_MODE_MAX; i++)
                if (strcmp(s, mode_names[i]) == 0) {
                        *ret = (SimMode) i;
                        return 0;
                }
        return -EINVAL;
}

const char *sim_dialect_name(SimDialect d) {
        return dialect_names[d];
}

int sim_dialect_parse(const char *s, SimDialect *ret) {
        if (strncmp(s, "linux-", 6) == 0)
                s += 6;
        for (unsigned i = 0; i <= SIM_LINUX_7_2; i++)
                if (strcmp(s, dialect_names[i]) == 0) {
                        *ret = (SimDialect) i;
                        return 0;
                }
        return -EINVAL;
}

static void set_defaults(SimProfile *p) {
        *p = (SimProfile) {
                .dialect = SIM_LINUX_7_2,
                .max_adapter = 255,
                .max_domain = 255,
                .default_domain = -1,
                .instances = 65536,
        };
}

/* "3" "0x1b" or "2-5" at *s, which then points behind. */
static int parse_range(const char **s, unsigned *ret_from, unsigned *ret_to) {
        unsigned long from, to;
        char *end;

        if (**s < '0' || **s > '9')
                return -EINVAL;
        from = to = strtoul(*s, &end, 0);
        if (*end == '-' && end[1] >= '0' && end[1] <= '9')
                to = strtoul(end + 1, &end, 0);
        if (from > to || to >= SIM_IDS)
                return -EINVAL;
        *s = end;
        *ret_from = (unsigned) from;
        *ret_to = (unsigned) to;
        return 0;
}

static int parse_list(const char *s, SimMask *ret) {
        unsigned from, to;
        int r;

        for (;; s++) {
                r = parse_range(&s, &from, &to);
                if (r < 0)
                        return r;
                for (unsigned id = from; id <= to; id++)
                        sim_mask_set(ret, id, true);
                if (!*s)
                        return 0;
                if (*s != ',')
                        return -EINVAL;
        }
}

static int parse_unsigned(const char *s, unsigned max, unsigned *ret) {
        uint64_t v;
        int r;

        r = sim_parse_number(s, &v);
        if (r < 0)
                return r;
        if (v > max)
                return -ERANGE;
        *ret = (unsigned) v;
        return 0;
}

static int parse_card(SimProfile *p, char **word, size_t n) {
        SimProfileCard c = { .type = 14 };
        const char *ids = word[1];
        unsigned from, to, type;
        SimMode mode;
        int r;

        if (n < 3)
                return -EINVAL;
        r = parse_range(&ids, &from, &to);
        if (r < 0)
                return r;
        if (*ids)
                return -EINVAL;
        r = sim_mode_parse(word[2], &mode);
        if (r < 0)
                return r;
        c.mode = (uint8_t) mode;
        for (size_t i = 3; i < n; i++) {
                if (strncmp(word[i], "serial=", 7) == 0) {
                        if (strlen(word[i] + 7) >= sizeof c.serial)
                                return -EINVAL;
                        strcpy(c.serial, word[i] + 7);
                        continue;
                }
                r = parse_unsigned(word[i], 15, &type);
                if (r < 0)
                        return r;
                c.type = (uint8_t) type;
        }
        for (unsigned id = from; id <= to; id++) {
                sim_mask_set(&p->adapters, id, true);
                p->cards[id] = c;
        }
        return 0;
}

static int parse_parent(SimProfile *p, char **word, size_t n) {
        if (n < 3 || n > 4 || strcmp(word[1], "mtty") != 0 || p->n_parents == SIM_PARENTS_MAX)
                return -EINVAL;
        if (strlen(word[2]) >= sizeof p->parents[0].name || strchr(word[2], '/') || word[2][0] == '.')
                return -EINVAL;
        p->parents[p->n_parents].ports = 24;
        if (n == 4 && parse_unsigned(word[3], 65536, &p->parents[p->n_parents].ports) < 0)
                return -EINVAL;
        strcpy(p->parents[p->n_parents++].name, word[2]);
        return 0;
}

static int parse_statement(SimProfile *p, char **word, size_t n) {
        const char *key = word[0];
        unsigned v, w;

        if (strcmp(key, "card") == 0)
                return parse_card(p, word, n);
        if (strcmp(key, "parent") == 0)
                return parse_parent(p, word, n);
        if (strcmp(key, "debug") == 0 && n == 1) {
                p->debug = true;
                return 0;
        }
        if (strcmp(key, "max") == 0 && n == 3) {
                if (parse_unsigned(word[1], 255, &p->max_adapter) < 0 ||
                    parse_unsigned(word[2], 255, &p->max_domain) < 0)
                        return -EINVAL;
                return 0;
        }
        if (n != 2)
                return -EINVAL;
        if (strcmp(key, "dialect") == 0)
                return sim_dialect_parse(word[1], &p->dialect);
        if (strcmp(key, "domains") == 0)
                return parse_list(word[1], &p->domains);
        if (strcmp(key, "control") == 0)
                return parse_list(word[1], &p->control);
        if (strcmp(key, "instances") == 0)
                return parse_unsigned(word[1], 1u << 20, &p->instances);
        if (strcmp(key, "apmask") == 0 || strcmp(key, "aqmask") == 0) {
                if (strlen(word[1]) >= sizeof p->apmask)
                        return -EINVAL;
                strcpy(key[1] == 'p' ? p->apmask : p->aqmask, word[1]);
                return 0;
        }
        if (strcmp(key, "default-domain") == 0) {
                if (parse_unsigned(word[1], 255, &v) < 0)
                        return -EINVAL;
                p->default_domain = (int) v;
                return 0;
        }
        if (strcmp(key, "hole") == 0) {
                if (p->n_holes == SIM_HOLES_MAX || sscanf(word[1], "%x.%x", &v, &w) != 2 || v > 255 ||
                    w > 255)
                        return -EINVAL;
                p->holes[p->n_holes++] = (uint16_t) (v << 8 | w);
                return 0;
        }
        if (strcmp(key, "no") == 0) {
                if (strcmp(word[1], "ap") == 0)
                        p->no_ap = true;
                else if (strcmp(word[1], "qci") == 0)
                        p->no_qci = true;
                else if (strcmp(word[1], "vfio_ap") == 0)
                        p->no_vfio_ap = true;
                else
                        return -EINVAL;
                return 0;
        }
        return -EINVAL;
}

int sim_profile_parse(const char *text, SimProfile *ret, unsigned *reterr_line) {
        SimProfile p;
        int r;

        set_defaults(&p);
        for (unsigned line = 1; *text; line++) {
                char buf[512], *word[WORDS_MAX], *save = NULL;
                size_t n = 0, length = strcspn(text, "\n");

                r = -EINVAL;
                if (length >= sizeof buf)
                        goto bad;
                memcpy(buf, text, length);
                buf[length] = 0;
                buf[strcspn(buf, "#")] = 0;
                for (char *w = strtok_r(buf, " \t\r", &save); w; w = strtok_r(NULL, " \t\r", &save)) {
                        if (n == WORDS_MAX)
                                goto bad;
                        word[n++] = w;
                }
                r = n > 0 ? parse_statement(&p, word, n) : 0;
                if (r < 0) {
                bad:
                        *reterr_line = line;
                        return -EINVAL;
                }
                text += length + (text[length] == '\n');
        }
        *ret = p;
        return 0;
}
