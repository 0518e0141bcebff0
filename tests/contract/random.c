/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* random - makes scripts of random operations
 *
 * usage: contract-random SEED COUNT LENGTH      COUNT sequences of LENGTH operations each
 *
 * Each sequence begins and ends with a host as after its boot (play_reset()). What a host cannot come back from is left
 * out: resets that do not end, a queue that goes with its override; and so is what never ends: the removal of what a
 * guest has. The scripts that people wrote have that. */

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MDEVS    3
#define LIST_MAX 4 /* ids in a mask: an old kernel writes past its page if asked for many queues */

static uint64_t rng;
static bool hotplug, overrides, guests; /* what the sequence has */
static bool guest_on[MDEVS + 1];

static const unsigned adapters[] = { 3, 4, 5, 10, 7 }, domains[] = { 1, 2, 6, 27, 76, 8 };
static const unsigned odd_ids[] = { 0, 9, 16, 63, 64, 84, 85, 255, 256, 300 };

static unsigned pick(unsigned n) {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        return (unsigned) (rng >> 33) % n;
}

#define PICK(array) ((array)[pick(sizeof(array) / sizeof *(array))])

static bool rarely(void) {
        return pick(12) == 0;
}

static unsigned pick_id(bool adapter) {
        static const unsigned often[2][2] = { { 6, 27 }, { 3, 4 } }; /* so that they meet */

        if (rarely())
                return PICK(odd_ids);
        if (pick(4))
                return PICK(often[adapter]);
        return adapter ? PICK(adapters) : PICK(domains);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vprintf(format, ap);
        va_end(ap);
        (void) putchar('\n');
}

/* A number as somebody may write it. */
static const char *number(unsigned id) {
        static const char *const usual[] = { "%u\\n", "%u", "0x%x\\n", "0X%X", "+%u\\n", "0%o\\n" };
        static const char *const odd[] = { "\\s%u", "%u\\s", "-%u\\n",   "%u,4\\n",
                                           "%ux",   "0x",    "%u\\n\\n", "99999999999999999999",
                                           "%u\\0", "''",    "\\n",      "%u.0",
                                           "x%u" };
        static char text[64];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
        (void) snprintf(text, sizeof text, rarely() ? PICK(odd) : PICK(usual), id);
#pragma GCC diagnostic pop
        return text;
}

/* Hex digits with a few bits, left-aligned, without what is 0 behind them if @shorten. */
static void hex(char *d, bool adapter, bool shorten) {
        uint8_t digit[65] = {}; /* one more, for ids above 255 */
        unsigned last = 0;

        for (unsigned n = pick(LIST_MAX); n > 0; n--) {
                unsigned id = pick_id(adapter);

                if (id > 255)
                        id = 255;
                digit[id / 4] |= (uint8_t) (8 >> id % 4);
                if (id / 4 > last)
                        last = id / 4;
        }
        for (unsigned i = 0; i < 64 && (!shorten || i <= last); i++)
                *d++ = "0123456789abcdef"[digit[i]];
        *d = 0;
}

/* What stays with the host is all but a few. */
static void most(char *d, bool adapter) {
        hex(d, adapter, false);
        for (; *d; d++)
                *d = "fedcba9876543210"[*d <= '9' ? *d - '0' : *d - 'a' + 10];
}

static void mask_text(char *d, bool adapter) {
        static const char *const odd[] = { "\\n",     "0x",      "0",      "''",    "-a",      "+",
                                           "0xzz",    "-4-3",    "+256",   "--3",   "-3,4",    "0xe\\s",
                                           "-3,\\s4", "-3-4-5",  "-010",   "-08",   "3",       "0xe",
                                           "-3,,-4",  "-3\\n-4", "+0-255", "-0x3,", "0xffff-3" };
        static const char *const sign[] = { "+", "-" };

        if (rarely()) {
                strcpy(d, PICK(odd));
                return;
        }
        if (pick(4) == 0) {
                strcpy(d, pick(2) ? "0x" : "");
                most(d + strlen(d), adapter);
                strcat(d, pick(3) ? "\\n" : "");
                return;
        }
        *d = 0;
        for (unsigned n = 1 + pick(3); n > 0; n--) {
                unsigned from = pick_id(adapter), to = pick(6) ? from : pick_id(adapter);

                d += sprintf(d, from == to ? "%s%u" : "%s%u-%u", PICK(sign), from, to);
                if (n > 1)
                        d += sprintf(d, ",");
        }
        strcpy(d, pick(3) ? "\\n" : "");
}

static void op_mask(void) {
        bool adapter = pick(3) > 0;
        char text[256];

        mask_text(text, adapter);
        say("write $ap/%s %s", adapter ? "apmask" : "aqmask", text);
}

static void op_create(void) {
        static const char *const end[] = { "\\n", "\\n", "\\n", "", "\\0", "\\n\\n", "x" };

        say("write $type/create $u%u%s", 1 + pick(MDEVS), PICK(end));
}

static void op_remove(void) {
        unsigned m = 1 + pick(MDEVS);

        if (!guest_on[m])
                say("write $m%u/remove %s", m, pick(5) ? "1\\n" : number(pick(3)));
}

static void op_assign(void) {
        static const char *const what[] = { "assign", "assign", "assign", "unassign" };
        unsigned kind = pick(7);

        say("write $m%u/%s_%s %s", 1 + pick(MDEVS), PICK(what),
            kind < 3   ? "adapter"
            : kind < 6 ? "domain"
                       : "control_domain",
            number(pick_id(kind < 3)));
}

static void op_config(void) {
        static const char *const end[] = { "\\n", "\\n",     "\\n",    "\\n", "", "\\0",
                                           ",",   ",0x1\\n", "\\nfoo", "\\s", "x" };
        char text[3][128];
        bool shorten = pick(2);

        for (unsigned i = 0; i < 3; i++) {
                strcpy(text[i], pick(3) ? "0x" : "");
                if (!rarely())
                        hex(text[i] + strlen(text[i]), i == 0, shorten);
        }
        if (rarely())
                say("write $m%u/ap_config %s,%s%s", 1 + pick(MDEVS), text[0], text[1], PICK(end));
        else
                say("write $m%u/ap_config %s,%s,%s%s", 1 + pick(MDEVS), text[0], text[1], text[2],
                    PICK(end));
}

static void op_driver(void) {
        static const char *const files[] = { "vfio_ap/unbind", "vfio_ap/bind", "cex4queue/unbind",
                                             "cex4queue/bind" };
        unsigned a = PICK(adapters), d = PICK(domains);

        if (pick(3) == 0)
                say("write $ap/drivers_probe %02x.%04x%s", a, d, pick(2) ? "\\n" : "");
        else if (rarely())
                say("write $ap/drivers/%s %s", PICK(files), pick(2) ? "card03\\n" : "03.6\\n");
        else
                say("write $ap/drivers/%s %02x.%04x\\n", PICK(files), a, d);
}

static void op_override(void) {
        static const char *const names[] = { "vfio_ap\\n", "vfio_ap", "cex4queue\\n", "nosuch\\n",
                                             "\\n",        "\\n",     "vfio_ap\\n",   "''",
                                             "(null)\\n",  "vfio\\n" };
        unsigned a = PICK(adapters), d = PICK(domains);

        say("write devices/ap/card%02x/%02x.%04x/driver_override %s", a, a, d, PICK(names));
        if (pick(2)) {
                say("write devices/ap/card%02x/%02x.%04x/driver/unbind %02x.%04x\\n", a, a, d, a, d);
                say("write $ap/drivers_probe %02x.%04x\\n", a, d);
        }
}

static void op_hardware(void) {
        static const char *const bits[] = { "apm", "apm", "aqm", "adm" },
                                 *const card[] = { "decfg", "cfg", "chkstop", "nochkstop" },
                                 *const modes[] = { "accel", "cca", "ep11" },
                                 *const holes[] = { "3.1", "3.6", "4.2", "4.6", "5.1b", "a.4c" };
        static const unsigned types[] = { 9, 10, 13, 14, 15 };
        /* At once: a request of the host's own that fails makes the bus look, too, at no time that could be told. */
        const char *rescan = "; rescan", *which = PICK(bits);

        switch (pick(8)) {
        case 0:
                say("model %s %u%s", PICK(card), PICK(adapters), rescan);
                break;
        case 1:
                say("model %s %s%s", pick(2) ? "hole" : "nohole", PICK(holes), rescan);
                break;
        case 2:
                say("model mode %u %s%s", PICK(adapters), PICK(modes), rescan);
                break;
        case 3:
                say("model type %u %u%s", PICK(adapters), PICK(types), rescan);
                break;
        default:
                say("model %s%s %u%s", pick(2) ? "+" : "-", which,
                    which[1] == 'p' ? PICK(adapters) : PICK(domains), rescan);
        }
}

static void op_attribute(void) {
        static const char *const values[] = { "0\\n", "1\\n",  "0",  "1",  "2\\n",
                                              "x\\n", "-1\\n", "1x", "''", "\\s1" },
                                 *const files[] = { "online", "config", "online" },
                                 *const times[] = { "30\\n", "120\\n", "121\\n", "4\\n", "x\\n" };
        unsigned a = PICK(adapters), d = PICK(domains);

        switch (pick(6)) {
        case 0:
                say("write devices/ap/card%02x/%s %s", a, PICK(files), PICK(values));
                say("model rescan");
                break;
        case 1:
                say("write devices/ap/card%02x/%02x.%04x/%s %s", a, a, d, PICK(files), PICK(values));
                break;
        case 2:
                say("write $ap/ap_domain %s", number(pick_id(false)));
                break;
        case 3:
                say("write $ap/scans %s", PICK(values));
                break;
        case 4:
                say("write $ap/drivers_autoprobe %s", PICK(values));
                break;
        default:
                say("write $ap/config_time %s", PICK(times));
        }
}

static void op_guest(void) {
        unsigned m = 1 + pick(MDEVS);

        if (guest_on[m] && pick(2)) {
                say("guest $u%u events", m);
                return;
        }
        guest_on[m] = !guest_on[m];
        say("guest $u%u %s", m, guest_on[m] ? "on" : "off");
}

static void op_held(void) {
        unsigned slot = pick(2), m = 1 + pick(MDEVS);

        switch (pick(5)) {
        case 0:
        case 1:
                say("open %u $m%u/%s", slot, m, pick(2) ? "ap_config rw" : "assign_adapter w");
                break;
        case 2:
                say("get %u", slot);
                break;
        case 3:
                say("get %u again", slot);
                break;
        default:
                say("put %u %s", slot, number(pick_id(true)));
        }
}

static void op_seldom(void) {
        static const char *const uevents[] = { "$dev/uevent change\\n", "devices/ap/card03/uevent add\\n",
                                               "devices/ap/card04/04.0006/uevent change\\n",
                                               "devices/ap/card03/uevent nonsense\\n",
                                               "bus/ap/uevent remove" };
        unsigned m = 1 + pick(MDEVS);

        switch (pick(4)) {
        case 0:
                say("module %s", pick(2) ? "unload" : "load");
                break;
        case 1:
                if (!guest_on[m])
                        say("write bus/mdev/drivers/vfio_ap_mdev/%s $u%u\\n", pick(3) ? "unbind" : "bind",
                            m);
                break;
        case 2:
                say("write %s", PICK(uevents));
                break;
        default:
                /* Not unbind: the kernel falls over a queue whose card has no driver. */
                say("write $ap/drivers/cex4card/bind card%02x\\n", PICK(adapters));
        }
}

static void op_look(void) {
        unsigned m = 1 + pick(MDEVS);

        switch (pick(4)) {
        case 0:
                say("state $m%u", m);
                break;
        case 1:
                say("read $type/available_instances $ap/bindings $m%u/guest_matrix", m);
                break;
        case 2:
                say("list $m%u 1", m);
                break;
        default:
                say("observe");
        }
}

static void op(void) {
        unsigned n = pick(100);

        if (n < 14)
                op_mask();
        else if (n < 19)
                op_create();
        else if (n < 22)
                op_remove();
        else if (n < 46)
                op_assign();
        else if (n < 68)
                op_config();
        else if (n < 74)
                op_driver();
        else if (n < 77)
                op_attribute();
        else if (n < 79)
                op_seldom();
        else if (n < 83)
                op_held();
        else if (n < 92) {
                if (hotplug)
                        op_hardware();
                else if (overrides)
                        op_override();
                else
                        op_config();
        } else if (n < 96 && guests)
                op_guest();
        else
                op_look();
}

/* Something to begin with, mostly: where nothing is there is nothing to be seen. */
static void prepare(void) {
        for (unsigned m = 1; m <= MDEVS; m++)
                if (pick(8) >= m)
                        say("write $type/create $u%u\\n", m);
        if (!overrides && pick(4))
                say("write $ap/%s", pick(3) ? "apmask -3,-4\\n" : "aqmask -6,-0x1b\\n");
}

int main(int argc, char **argv) {
        unsigned count, length;

        if (argc != 4)
                return 2;
        rng = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15u + 1;
        count = (unsigned) atoi(argv[2]);
        length = (unsigned) atoi(argv[3]);
        say("# seed %s, %u sequences of %u operations\nboot\nuevents digest", argv[1], count, length);
        for (unsigned i = 1; i <= count; i++) {
                unsigned kind = pick(6);

                hotplug = kind >= 3;
                overrides = kind == 2;
                guests = pick(3) == 0;
                memset(guest_on, 0, sizeof guest_on);
                say("section sequence %u", i);
                prepare();
                for (unsigned k = 0; k < length; k++)
                        op();
                say("observe\nreset");
        }
        return 0;
}
