/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random operations on the model and on a second, naive one that knows nothing but the rules, in plain loops
 * over plain arrays. Argument: a seed, to repeat a failure. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "sim/sim.h"

#define IDS    8 /* of adapters and of domains: few, so that they meet */
#define MDEVS  5
#define RUNS   40
#define STEPS  250
#define MATRIX "devices/vfio_ap/matrix/"

typedef struct Naive {
        bool host_adapter[IDS], host_domain[IDS];
        bool there_adapter[IDS], there_domain[IDS]; /* in the machine */
        struct {
                bool exists, adapter[IDS], domain[IDS];
        } mdev[MDEVS];
        bool before_7_2;
} Naive;

static uint64_t rng;

static unsigned pick(unsigned n) {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        return (unsigned) (rng >> 33) % n;
}

static bool naive_host(const Naive *n, unsigned a, unsigned d) {
        return n->host_adapter[a] && n->host_domain[d];
}

static int naive_validate(const Naive *n, unsigned m, const bool *adapter, const bool *domain) {
        for (unsigned a = 0; a < IDS; a++)
                for (unsigned d = 0; d < IDS; d++)
                        if (adapter[a] && domain[d] && naive_host(n, a, d))
                                return -EADDRNOTAVAIL;
        for (unsigned o = 0; o < MDEVS; o++)
                for (unsigned a = 0; a < IDS; a++)
                        for (unsigned d = 0; d < IDS; d++)
                                if (o != m && n->mdev[o].exists && adapter[a] && domain[d] &&
                                    n->mdev[o].adapter[a] && n->mdev[o].domain[d])
                                        return -EADDRINUSE;
        return 0;
}

/* Would giving bit @id of one axis to the host touch an mdev's queue? */
static bool naive_in_use(const Naive *n, bool adapter, unsigned id) {
        for (unsigned m = 0; m < MDEVS; m++)
                for (unsigned o = 0; o < IDS; o++) {
                        unsigned a = adapter ? id : o, d = adapter ? o : id;
                        bool other_host = adapter ? n->host_domain[o] : n->host_adapter[o];

                        if (n->mdev[m].exists && n->mdev[m].adapter[a] && n->mdev[m].domain[d] &&
                            (!n->before_7_2 || other_host))
                                return true;
                }
        return false;
}

static const char *uuid(unsigned m) {
        static char buf[40];

        (void) snprintf(buf, sizeof buf, "%08x-0000-4000-8000-000000000000", m);
        return buf;
}

static int put(Sim *s, const char *path, const char *data) {
        ssize_t r = sim_write(s, path, data, strlen(data));

        return r < 0 ? (int) r : 0;
}

static int put_mdev(Sim *s, unsigned m, const char *attribute, const char *data) {
        char path[256];

        (void) snprintf(path, sizeof path, MATRIX "%s/%s", uuid(m), attribute);
        return put(s, path, data);
}

static void step_mdev(Sim *s, Naive *n, unsigned m) {
        static const char *const names[] = { "assign_adapter", "assign_domain", "unassign_adapter",
                                             "unassign_domain" };
        unsigned op = pick(4), id = pick(IDS);
        bool adapter = op % 2 == 0, assign = op < 2;
        bool *mine = adapter ? n->mdev[m].adapter : n->mdev[m].domain;
        bool old = mine[id];
        char text[16];
        int expected = 0;

        (void) snprintf(text, sizeof text, pick(2) ? "%u\n" : "0x%x", id);
        if (!n->mdev[m].exists)
                expected = -ENOENT;
        else {
                mine[id] = assign;
                if (assign && !old)
                        expected = naive_validate(n, m, n->mdev[m].adapter, n->mdev[m].domain);
                if (expected < 0)
                        mine[id] = old;
        }
        assert_int_equal(put_mdev(s, m, names[op], text), expected);
}

static void step_config(Sim *s, Naive *n, unsigned m) {
        bool axis[2][IDS];
        unsigned bits[2] = {};
        char text[64];
        int expected = -ENOENT;

        for (unsigned i = 0; i < 2; i++)
                for (unsigned id = 0; id < IDS; id++) {
                        axis[i][id] = pick(4) == 0;
                        bits[i] |= (unsigned) axis[i][id] << (IDS - 1 - id);
                }
        (void) snprintf(text, sizeof text, "0x%02x,0x%02x,\n", bits[0], bits[1]);
        if (n->mdev[m].exists) {
                expected = naive_validate(n, m, axis[0], axis[1]);
                if (expected == 0) {
                        memcpy(n->mdev[m].adapter, axis[0], sizeof axis[0]);
                        memcpy(n->mdev[m].domain, axis[1], sizeof axis[1]);
                }
        }
        assert_int_equal(put_mdev(s, m, "ap_config", text), expected);
}

static void step_mask(Sim *s, Naive *n) {
        bool adapter = pick(2), give = pick(2), *mask = adapter ? n->host_adapter : n->host_domain;
        unsigned id = pick(IDS);
        char text[16];
        int expected = 0;

        (void) snprintf(text, sizeof text, "%c%u", give ? '+' : '-', id);
        if (give && !mask[id] && naive_in_use(n, adapter, id))
                expected = -EBUSY;
        else
                mask[id] = give;
        assert_int_equal(put(s, adapter ? "bus/ap/apmask" : "bus/ap/aqmask", text), expected);
}

static void step_plug(Sim *s, Naive *n) {
        bool adapter = pick(2), *there = adapter ? n->there_adapter : n->there_domain;
        unsigned id = pick(IDS);
        char text[32];

        there[id] = !there[id];
        (void) snprintf(text, sizeof text, "%s %s %u", adapter ? "card" : "domain",
                        there[id] ? "add" : "del", id);
        assert_int_equal(sim_ctl(s, text), 0);
}

static void step(Sim *s, Naive *n) {
        unsigned m = pick(MDEVS), op = pick(20);

        if (op < 9)
                step_mdev(s, n, m);
        else if (op < 12)
                step_config(s, n, m);
        else if (op < 16)
                step_mask(s, n);
        else if (op < 17)
                step_plug(s, n);
        else if (op < 19) {
                assert_int_equal(put(s, MATRIX "mdev_supported_types/vfio_ap-passthrough/create", uuid(m)),
                                 n->mdev[m].exists ? -EEXIST : 0);
                n->mdev[m].exists = true;
        } else {
                assert_int_equal(put_mdev(s, m, "remove", "1"), n->mdev[m].exists ? 0 : -ENOENT);
                memset(&n->mdev[m], 0, sizeof n->mdev[m]);
        }
}

/* A bound, not host-owned queue of every domain, or the adapter is dropped. */
static void naive_matrix(const Naive *n, unsigned m, bool guest, char *text) {
        bool adapters = false, domains = false;
        char *p = text;

        for (unsigned id = 0; id < IDS; id++) {
                bool a = n->mdev[m].adapter[id] && (!guest || n->there_adapter[id]);

                for (unsigned d = 0; d < IDS && guest && a; d++)
                        a = !(n->mdev[m].domain[d] && n->there_domain[d] && naive_host(n, id, d));
                adapters |= a;
                domains |= n->mdev[m].domain[id] && (!guest || n->there_domain[id]);
        }
        *p = 0;
        for (unsigned a = 0; a < IDS; a++) {
                bool mine = n->mdev[m].adapter[a] && (!guest || n->there_adapter[a]);

                for (unsigned d = 0; d < IDS && guest && mine; d++)
                        mine = !(n->mdev[m].domain[d] && n->there_domain[d] && naive_host(n, a, d));
                if (!mine)
                        continue;
                if (!domains)
                        p += sprintf(p, "%02x.\n", a);
                for (unsigned d = 0; d < IDS; d++)
                        if (n->mdev[m].domain[d] && (!guest || n->there_domain[d]))
                                p += sprintf(p, "%02x.%04x\n", a, d);
        }
        for (unsigned d = 0; d < IDS && !adapters; d++)
                if (n->mdev[m].domain[d] && (!guest || n->there_domain[d]))
                        p += sprintf(p, ".%04x\n", d);
}

static void compare_mdev(Sim *s, const Naive *n, unsigned m) {
        char path[256], got[SIM_PAGE_SIZE], expected[SIM_PAGE_SIZE];
        ssize_t k;

        for (unsigned guest = 0; guest < 2; guest++) {
                (void) snprintf(path, sizeof path, MATRIX "%s/%s", uuid(m),
                                guest ? "guest_matrix" : "matrix");
                k = sim_read(s, path, got, sizeof got - 1);
                if (!n->mdev[m].exists) {
                        assert_int_equal(k, -ENOENT);
                        continue;
                }
                assert_true(k >= 0);
                got[k] = 0;
                naive_matrix(n, m, guest, expected);
                assert_string_equal(got, expected);
        }
}

static void compare_queues(Sim *s, const Naive *n) {
        for (unsigned a = 0; a < IDS; a++)
                for (unsigned d = 0; d < IDS; d++) {
                        char path[256], got[SIM_PAGE_SIZE];
                        bool owned = false;
                        ssize_t k;

                        for (unsigned m = 0; m < MDEVS; m++)
                                owned |= n->mdev[m].exists && n->mdev[m].adapter[a] && n->mdev[m].domain[d];
                        (void) snprintf(path, sizeof path, "bus/ap/devices/%02x.%04x/driver", a, d);
                        k = sim_readlink(s, path, got, sizeof got);
                        if (!n->there_adapter[a] || !n->there_domain[d]) {
                                assert_int_equal(k, -ENOENT);
                                continue;
                        }
                        assert_true(k > 0);
                        assert_string_equal(strrchr(got, '/') + 1,
                                            naive_host(n, a, d) ? "cex4queue" : "vfio_ap");
                        if (naive_host(n, a, d))
                                continue;
                        (void) snprintf(path, sizeof path, "bus/ap/devices/%02x.%04x/status", a, d);
                        k = sim_read(s, path, got, sizeof got - 1);
                        assert_true(k > 0);
                        got[k] = 0;
                        assert_string_equal(got, owned ? "assigned\n" : "unassigned\n");
                }
}

static void run(uint64_t seed, SimDialect dialect) {
        CLEANUP(freep)
        SimProfile *p = malloc(sizeof *p);
        CLEANUP(sim_freep)
        Sim *s = NULL;
        Naive n = { .before_7_2 = dialect < SIM_LINUX_7_2 };
        unsigned line;

        assert_non_null(p);
        rng = seed * 0x9e3779b97f4a7c15u + 1;
        assert_int_equal(sim_profile_parse("card 0-7 cca\ndomains 0-7\ncontrol 0-7\nmax 63 84\n", p, &line),
                         0);
        p->dialect = dialect;
        assert_int_equal(sim_new(p, &s), 0);
        memset(n.host_adapter, 1, sizeof n.host_adapter);
        memset(n.host_domain, 1, sizeof n.host_domain);
        memset(n.there_adapter, 1, sizeof n.there_adapter);
        memset(n.there_domain, 1, sizeof n.there_domain);
        for (unsigned i = 0; i < STEPS; i++) {
                step(s, &n);
                for (unsigned m = 0; m < MDEVS; m++)
                        compare_mdev(s, &n, m);
                if (i % 10 == 9)
                        compare_queues(s, &n);
        }
}

static uint64_t first_seed = 1;

static void test_random(void **state) {
        for (uint64_t seed = first_seed; seed < first_seed + RUNS; seed++) {
                print_message("seed %llu\n", (unsigned long long) seed);
                run(seed, SIM_LINUX_6_12);
                run(seed, SIM_LINUX_7_2);
        }
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };

        if (argc > 1)
                first_seed = strtoull(argv[1], NULL, 0);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
