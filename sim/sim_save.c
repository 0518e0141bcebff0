/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "sim/sim_internal.h"
#include "sim/sim_save.h"

/* "ctl COMMANDS" or "write PATH DATA" (a newline is added), "matrix UUID ADAPTERS DOMAINS CONTROL". */
static void save_hardware(const Sim *s, FILE *f) {
        const struct {
                const char *name;
                const SimMask *now, *boot;
        } axes[] = {
                { "apm", &s->hw_ap, &s->profile.adapters },
                { "aqm", &s->hw_aq, &s->profile.domains },
                { "adm", &s->hw_ad, &s->profile.control },
        };

        for (unsigned a = 0; a < SIM_IDS; a++) {
                const SimCard *c = &s->cards[a];

                if (!sim_mask_get(&s->hw_ap, a))
                        continue;
                (void) fprintf(f, "ctl mode %u %s; type %u %u; %s %u; %s %u\n", a, sim_mode_name(c->hw_mode),
                               a, c->hw_type, c->hw_config ? "cfg" : "decfg", a,
                               c->hw_chkstop ? "chkstop" : "nochkstop", a);
        }
        for (size_t i = 0; i < ELEMENTS(axes); i++)
                for (unsigned id = 0; id < SIM_IDS; id++)
                        if (sim_mask_get(axes[i].now, id) != sim_mask_get(axes[i].boot, id))
                                (void) fprintf(f, "ctl %c%s %u\n", sim_mask_get(axes[i].now, id) ? '+' : '-',
                                               axes[i].name, id);
        for (size_t i = 0; i < SIM_QUEUES; i++)
                if (s->queues[i].hole)
                        (void) fprintf(f, "ctl hole %zx.%zx\n", i / SIM_IDS, i % SIM_IDS);
        (void) fputs("ctl rescan\n", f);
}

static void save_state(const Sim *s, FILE *f) {
        char text[3][SIM_MASK_TEXT_SIZE], type[64];

        save_hardware(s, f);
        if (!s->profile.no_ap && s->overrides == 0) {
                (void) fprintf(f, "write bus/ap/apmask %s\n", sim_mask_format(&s->apmask, text[0]));
                (void) fprintf(f, "write bus/ap/aqmask %s\n", sim_mask_format(&s->aqmask, text[0]));
        }
        for (const SimQueue *q = s->first; q; q = q->next)
                if (q->override) {
                        unsigned a = sim_queue_adapter(s, q), d = sim_queue_domain(s, q);

                        (void) fprintf(f, "write devices/ap/card%02x/%02x.%04x/driver_override %s\n", a, a,
                                       d, q->override);
                        if (q->driver == SIM_VFIO_AP)
                                (void) fprintf(f,
                                               "write bus/ap/drivers/cex4queue/unbind %02x.%04x\n"
                                               "write bus/ap/drivers_probe %02x.%04x\n",
                                               a, d, a, d);
                }
        for (size_t i = 0; i < s->n_parents; i++)
                for (const SimMdev *m = s->parents[i].first; m; m = m->next) {
                        (void) fprintf(f, "write class/mdev_bus/%s/mdev_supported_types/%s/create %s\n",
                                       m->parent->name, sim_type_name(m->parent, m->type, type), m->uuid);
                        if (m->parent->kind == SIM_PARENT_VFIO_AP)
                                (void) fprintf(f, "matrix %s %s %s %s\n", m->uuid,
                                               sim_mask_format(&m->ap, text[0]),
                                               sim_mask_format(&m->aq, text[1]),
                                               sim_mask_format(&m->ad, text[2]));
                }
}

int sim_save(Sim *s, const char *path) {
        CLEANUP(fclosep)
        FILE *f = NULL;

        f = fopen(path, "we");
        if (!f)
                return -errno;
        save_state(s, f);
        if (fflush(f) != 0 || ferror(f))
                return errno ? -errno : -EIO;
        return 0;
}

static int load_line(Sim *s, char *line) {
        char *save = NULL, *key = strtok_r(line, " ", &save), *name, *data;
        ssize_t r;

        if (!key)
                return 0;
        if (strcmp(key, "ctl") == 0)
                return sim_ctl(s, save);
        name = strtok_r(NULL, " ", &save);
        data = save;
        if (!name || !*data)
                return -EBADMSG;
        if (strcmp(key, "write") == 0) {
                r = sim_write(s, name, data, strlen(data));
                return r < 0 ? (int) r : 0;
        }
        if (strcmp(key, "matrix") == 0)
                return sim_matrix_restore(s, sim_mdev_find(s, name, strlen(name)), data);
        return -EBADMSG;
}

int sim_load(Sim *s, const char *path) {
        CLEANUP(fclosep)
        FILE *f = NULL;
        CLEANUP(freep)
        char *line = NULL;
        size_t size = 0;
        ssize_t n;

        f = fopen(path, "re");
        if (!f)
                return -errno;
        while ((n = getline(&line, &size, f)) > 0) {
                line[strcspn(line, "\n")] = 0;
                if (load_line(s, line) < 0)
                        return -EBADMSG;
        }
        return ferror(f) ? -EIO : 0;
}
