/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the recordings do not show: differences between dialects, limits, faults, the second mdev parent,
 * profiles, the in-process front. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "sim/sim.h"
#include "sim/sim_save.h"
#include "sim/sim_sysfs.h"

#define U1     "11111111-1111-4111-8111-111111111111"
#define U2     "22222222-2222-4222-8222-222222222222"
#define U3     "33333333-3333-4333-8333-333333333333"
#define MATRIX "devices/vfio_ap/matrix/"
#define CREATE MATRIX "mdev_supported_types/vfio_ap-passthrough/create"
#define MTTY   "class/mdev_bus/mtty/mdev_supported_types/"

static Sim *boot(const char *profile, SimDialect dialect) {
        CLEANUP(freep)
        SimProfile *p = malloc(sizeof *p);
        unsigned line;
        Sim *s;

        assert_non_null(p);
        if (strchr(profile, '\n'))
                assert_int_equal(sim_profile_parse(profile, p, &line), 0);
        else
                assert_int_equal(sim_profile_load(profile, p, &line), 0);
        p->dialect = dialect;
        assert_int_equal(sim_new(p, &s), 0);
        return s;
}

static int put(Sim *s, const char *path, const char *data) {
        ssize_t r = sim_write(s, path, data, strlen(data));

        if (r >= 0)
                assert_int_equal(r, strlen(data));
        return r < 0 ? (int) r : 0;
}

static const char *get(Sim *s, const char *path) {
        static char buf[SIM_CTL_SIZE + 1];
        ssize_t n = sim_read(s, path, buf, SIM_CTL_SIZE);

        if (n < 0)
                return n == SIM_NEVER ? "never" : strerrorname_np((int) -n);
        buf[n] = 0;
        return buf;
}

static int count(void *userdata, const char *name, mode_t type) {
        ++*(size_t *) userdata;
        return 0;
}

static size_t entries(Sim *s, const char *path) {
        size_t n = 0;

        assert_int_equal(sim_readdir(s, path, count, &n), 0);
        return n;
}

static void test_dialects(void **state) {
        static const struct {
                SimDialect dialect;
                bool ap_config, features, driver_override, complete_count;
                const char *parameters;
        } cases[] = {
                { SIM_LINUX_6_1, false, false, false, false, "0440" },
                { SIM_LINUX_6_12, true, true, false, false, "0440" },
                { SIM_LINUX_7_2, true, true, true, true, "0444" },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(sim_freep)
                Sim *s = boot("lab", cases[i].dialect);
                char mode[8];
                SimStat st;

                assert_int_equal(put(s, CREATE, U1), 0);
                assert_int_equal(sim_stat(s, MATRIX U1 "/ap_config", &st), cases[i].ap_config ? 0 : -ENOENT);
                assert_int_equal(sim_stat(s, MATRIX "features", &st), cases[i].features ? 0 : -ENOENT);
                assert_int_equal(sim_stat(s, "bus/ap/features", &st), cases[i].features ? 0 : -ENOENT);
                assert_int_equal(sim_stat(s, "bus/ap/devices/03.0001/driver_override", &st),
                                 cases[i].driver_override ? 0 : -ENOENT);
                assert_int_equal(sim_stat(s, "bus/ap/bindings_complete_count", &st),
                                 cases[i].complete_count ? 0 : -ENOENT);
                assert_int_equal(sim_stat(s, MATRIX U1 "/guest_matrix", &st), 0);
                assert_int_equal(sim_stat(s, "module/ap/parameters/apmask", &st), 0);
                (void) snprintf(mode, sizeof mode, "%04o", st.mode & 07777);
                assert_string_equal(mode, cases[i].parameters);
        }
}

/* An adapter whose queue the other mask keeps from the host: only 7.2 minds. */
static void test_busy_by_dialect(void **state) {
        static const struct {
                SimDialect dialect;
                int expected;
        } cases[] = { { SIM_LINUX_6_1, 0 }, { SIM_LINUX_6_12, 0 }, { SIM_LINUX_7_2, -EBUSY } };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(sim_freep)
                Sim *s = boot("lab", cases[i].dialect);

                assert_int_equal(put(s, "bus/ap/apmask", "-3"), 0);
                assert_int_equal(put(s, "bus/ap/aqmask", "-6"), 0);
                assert_int_equal(put(s, CREATE, U1), 0);
                assert_int_equal(put(s, MATRIX U1 "/assign_adapter", "3"), 0);
                assert_int_equal(put(s, MATRIX U1 "/assign_domain", "6"), 0);
                assert_int_equal(put(s, "bus/ap/apmask", "+3"), cases[i].expected);
                assert_int_equal(put(s, "bus/ap/apmask", "-3"), 0);
        }
}

/* 512 queues fill the page. */
static void test_page_limit(void **state) {
        static const SimDialect dialects[] = { SIM_LINUX_6_12, SIM_LINUX_7_2 };

        for (size_t i = 0; i < ELEMENTS(dialects); i++) {
                CLEANUP(sim_freep)
                Sim *s = boot("z16", dialects[i]);
                const char *text;

                assert_int_equal(put(s, CREATE, U1), 0);
                assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x3f,0xfffffffffffffffffffffc,\n"),
                                 -ENODEV);
                assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x3f,0xfffffffffffffffffffff8,\n"), 0);
                text = get(s, MATRIX U1 "/matrix"); /* 6 x 85 */
                assert_int_equal(strlen(text), 6 * 85 * 8);
                assert_int_equal(sim_overruns(s), 0);
                assert_int_equal(put(s, MATRIX U1 "/assign_adapter", "8"), 0);
                text = get(s, MATRIX U1 "/guest_matrix"); /* 7 x 85 */
                assert_int_equal(strlen(text), 4095);
                assert_string_equal(text + 4080, "08.0000\n08.0001");
                assert_int_equal(sim_overruns(s), dialects[i] < SIM_LINUX_7_2);
        }
}

static void test_error_order(void **state) {
        static const struct {
                const char *file, *data;
                int expected;
        } cases[] = {
                { "assign_adapter", "x", -EINVAL },
                { "assign_adapter", "99999999999999999999", -ERANGE },
                { "assign_adapter", "64", -ENODEV },
                { "assign_adapter", "2", 0 },              /* there already, and in use elsewhere by now */
                { "assign_adapter", "1", -EADDRNOTAVAIL }, /* the host's; 01.0006 is in no mdev */
                { "assign_adapter", "3", -EADDRINUSE },
                { "assign_adapter", "4", 0 },
                { "unassign_adapter", "63", 0 },
                { "unassign_adapter", "64", -ENODEV },
                { "assign_control_domain", "85", -ENODEV },
                { "assign_control_domain", "0x11", 0 },
                { "remove", "x", -EINVAL },
                { "remove", "0", 0 },
        };
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);

        assert_int_equal(put(s, CREATE, U1), 0);
        assert_int_equal(put(s, CREATE, U2), 0);
        assert_int_equal(put(s, MATRIX U2 "/ap_config", "0x10,0x02,\n"), 0); /* 03.0006 */
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x20,0x02,\n"), 0); /* 02.0006 */
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                char path[256];

                (void) snprintf(path, sizeof path, MATRIX U1 "/%s", cases[i].file);
                assert_int_equal(put(s, path, cases[i].data), cases[i].expected);
        }
        /* both at once: the host's claim comes first; the maximum last */
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x50,0x02,\n"), -EADDRNOTAVAIL);
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x10,0x02,0x0000000000000000000000ff\n"),
                         -EADDRINUSE);
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x20,0x02,0x0000000000000000000000ff\n"), -ENODEV);
        assert_string_equal(get(s, MATRIX U1 "/matrix"), "02.0006\n04.0006\n");
}

static void test_instances(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("card 0 cca\ndomains 0\ninstances 2\n", SIM_LINUX_7_2);

        assert_int_equal(put(s, CREATE, U1), 0);
        assert_int_equal(put(s, CREATE, U2), 0);
        assert_string_equal(get(s, MATRIX "mdev_supported_types/vfio_ap-passthrough/available_instances"),
                            "0\n");
        assert_int_equal(put(s, CREATE, U1), -EEXIST);
        assert_int_equal(put(s, CREATE, U3), -EUSERS);
        assert_int_equal(put(s, MATRIX U2 "/remove", "1"), 0);
        assert_int_equal(put(s, CREATE, U3), 0);
}

static void test_second_parent(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("card 0 cca\ndomains 0\nparent mtty mtty 5\n", SIM_LINUX_7_2);
        char link[256];

        assert_int_equal(entries(s, "class/mdev_bus"), 2);
        assert_string_equal(get(s, MTTY "mtty-1/available_instances"), "5\n");
        assert_string_equal(get(s, MTTY "mtty-2/available_instances"), "2\n");
        assert_string_equal(get(s, MTTY "mtty-2/device_api"), "vfio-pci\n");
        assert_string_equal(get(s, MTTY "mtty-2/name"), "Dual port serial\n");
        assert_int_equal(put(s, MTTY "mtty-2/create", U1), 0);
        assert_int_equal(put(s, MTTY "mtty-2/create", U2), 0);
        assert_string_equal(get(s, MTTY "mtty-1/available_instances"),
                            "1\n"); /* the types share the ports */
        assert_int_equal(put(s, MTTY "mtty-2/create", U3), -ENOSPC);
        assert_int_equal(put(s, CREATE, U1), -EEXIST); /* names are the whole bus' */
        assert_int_equal(put(s, MTTY "mtty-1/create", U3), 0);
        assert_int_equal(entries(s, "bus/mdev/devices"), 3);
        assert_int_equal(entries(s, MTTY "mtty-2/devices"), 2);
        assert_true(sim_readlink(s, "bus/mdev/devices/" U3, link, sizeof link) > 0);
        assert_string_equal(link, "../../../devices/mtty/mtty/" U3);
        assert_true(sim_readlink(s, "bus/mdev/devices/" U3 "/mdev_type", link, sizeof link) > 0);
        assert_string_equal(link, "../mdev_supported_types/mtty-1");
        assert_true(sim_readlink(s, "bus/mdev/devices/" U3 "/driver", link, sizeof link) > 0);
        assert_string_equal(link, "../../../../bus/mdev/drivers/mtty");
        assert_string_equal(get(s, "bus/mdev/devices/" U1 "/vendor/sample_mdev_dev"),
                            "This is MDEV " U1 "\n");
        assert_string_equal(get(s, "bus/mdev/devices/" U1 "/matrix"), "ENOENT");

        /* what vfio_ap does is none of its business */
        assert_int_equal(sim_ctl(s, "rmmod"), 0);
        assert_int_equal(entries(s, "class/mdev_bus"), 1);
        assert_int_equal(put(s, "bus/mdev/devices/" U1 "/remove", "1"), 0);
        assert_int_equal(sim_ctl(s, "guest " U2 " on"), 0);
        assert_int_equal(put(s, "bus/mdev/devices/" U2 "/remove", "1"), SIM_NEVER);
        assert_int_equal(sim_ctl(s, "guest " U2 " off"), 0);
        assert_int_equal(entries(s, "bus/mdev/devices"), 1);
        assert_string_equal(get(s, MTTY "mtty-1/available_instances"), "4\n");
}

static void test_faults(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);
        uint64_t before;

        assert_int_equal(sim_ctl(s, "fault apmask EIO 2"), 0);
        assert_string_equal(get(s, "bus/ap/apmask"), "EIO");
        assert_int_equal(put(s, "bus/ap/apmask", "-2"), -EIO);
        assert_int_equal(put(s, "bus/ap/apmask", "-2"), 0);
        assert_int_equal(sim_ctl(s, "clear; fault write ap/aqmask EINTR 1 250 skip=1"), 0);
        assert_int_equal(put(s, "bus/ap/aqmask", "+2"), 0);
        assert_int_equal(sim_take_delay(s), 0);
        assert_int_equal(put(s, "bus/ap/aqmask", "+2"), -EINTR);
        assert_int_equal(sim_take_delay(s), 250);
        assert_int_equal(sim_take_delay(s), 0);
        assert_int_equal(put(s, "bus/ap/aqmask", "+2"), 0);

        /* not a part of a name, and by the place that links lead to */
        assert_int_equal(sim_ctl(s,
                                 "clear; fault read mask EIO; fault devices/ap/card00/00.0006/config EBUSY"),
                         0);
        assert_true(get(s, "bus/ap/apmask")[0] == '0');
        assert_string_equal(get(s, "bus/ap/devices/00.0006/config"), "EBUSY");

        /* each write of an operation in turn */
        for (uint64_t i = 0;; i++) {
                char command[64];
                int r = 0;

                (void) snprintf(command, sizeof command, "clear; fault write * ENOSPC 1 skip=%llu",
                                (unsigned long long) i);
                assert_int_equal(sim_ctl(s, command), 0);
                before = sim_writes(s);
                r = put(s, CREATE, U1);
                if (r == 0)
                        r = put(s, MATRIX U1 "/assign_adapter", "3");
                if (r == 0)
                        r = put(s, MATRIX U1 "/assign_domain", "6");
                assert_int_equal(sim_writes(s) - before, i < 3 ? i + 1 : 3);
                assert_int_equal(r, i < 3 ? -ENOSPC : 0);
                assert_int_equal(sim_ctl(s, "clear; reboot"), 0);
                if (r == 0)
                        break;
        }
        for (size_t i = 0; i < 7; i++) {
                static const char *const bad[] = {
                        "fault",    "fault x",      "fault x EWHAT",     "fault x EIO nonsense",
                        "nonsense", "card add 256", "guest " U1 " maybe"
                };

                assert_int_equal(sim_ctl(s, bad[i]), -EINVAL);
        }
}

typedef struct Done {
        uint64_t id;
        ssize_t result;
        char data[64];
} Done;

static void on_done(void *userdata, uint64_t id, ssize_t result, const char *data) {
        Done *d = userdata;

        d->id = id;
        d->result = result;
        (void) snprintf(d->data, sizeof d->data, "%.*s", data && result > 0 ? (int) result : 0,
                        data ? data : "");
}

static void test_never(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);
        Done done = {};
        uint64_t id;

        sim_set_done(s, on_done, &done);
        assert_int_equal(sim_ctl(s, "fault bindings hang 1; fault read scans hang"), 0);
        assert_string_equal(get(s, "bus/ap/bindings"), "never");
        id = sim_pending(s);
        assert_string_equal(get(s, "bus/ap/bindings"), "24/24 (complete)\n");
        assert_string_equal(get(s, "bus/ap/scans"), "never");
        assert_int_equal(sim_pending_count(s), 2);
        assert_false(sim_interrupt(s, id));
        assert_int_equal(sim_ctl(s, "release bindings"), 0);
        assert_int_equal(done.id, id);
        assert_string_equal(done.data, "24/24 (complete)\n");
        assert_int_equal(sim_pending_count(s), 1);

        /* a guest: the second one is refused, the removal waits, and is done when the guest lets go */
        assert_int_equal(put(s, CREATE, U1), 0);
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x20,0x02,\n"), 0);
        assert_int_equal(sim_ctl(s, "guest " U1 " on"), 0);
        assert_int_equal(sim_ctl(s, "guest " U1 " on"), -EBUSY);
        assert_int_equal(sim_ctl(s, "guest " U2 " on"), -ENOENT);
        assert_string_equal(get(s, "bus/ap/devices/02.0006/status"), "in use\n");
        assert_int_equal(put(s, MATRIX U1 "/remove", "1"), SIM_NEVER);
        id = sim_pending(s);
        assert_string_equal(get(s, MATRIX U1 "/ap_config"), "ENOENT");
        assert_int_equal(put(s, CREATE, U1), -EEXIST);
        assert_int_equal(sim_ctl(s, "rmmod"), -EAGAIN);
        assert_int_equal(sim_ctl(s, "guest " U1 " off"), 0);
        assert_int_equal(done.id, id);
        assert_int_equal(done.result, 1);
        assert_int_equal(put(s, CREATE, U1), 0);

        /* a reset without end stops all that needs vfio_ap's lock, and only that */
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x20,0x02,\n"), 0);
        assert_int_equal(sim_ctl(s, "stuck 2.6"), 0);
        assert_int_equal(put(s, MATRIX U1 "/unassign_domain", "6"), SIM_NEVER);
        id = sim_pending(s);
        assert_string_equal(get(s, MATRIX U1 "/matrix"), "never");
        assert_int_equal(put(s, CREATE, U2), SIM_NEVER);
        assert_int_equal(strncmp(get(s, MATRIX U1 "/ap_config"), "0x2", 3), 0);
        assert_int_equal(sim_pending_count(s), 4);
        assert_int_equal(sim_ctl(s, "nostuck 2.6"), 0);
        assert_int_equal(sim_pending_count(s), 1); /* the hung read of scans */
        assert_int_equal(sim_stat(s, MATRIX U2, &(SimStat) {}), 0);

        /* a reboot ends all */
        assert_int_equal(sim_ctl(s, "reboot"), 0);
        assert_int_equal(done.result, -ENODEV);
        assert_int_equal(sim_pending_count(s), 0);
        assert_int_equal(entries(s, "bus/mdev/devices"), 0);
}

/* Who takes a queue away waits for the resets of all queues that its adapter's guest had. */
static void test_reset_pending(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);

        assert_int_equal(put(s, CREATE, U1), 0);
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x30,0x0200800,\n"), 0);
        assert_string_equal(get(s, MATRIX U1 "/guest_matrix"), "02.0006\n02.0010\n03.0006\n03.0010\n");
        assert_int_equal(sim_ctl(s, "stuck 2.10"), 0);
        assert_int_equal(put(s, "bus/ap/drivers/vfio_ap/unbind", "02.0006"), SIM_NEVER);
        assert_int_equal(sim_zeroized(s, 2, 6), 1);
        assert_int_equal(sim_ctl(s, "nostuck 2.10"), 0);
        assert_int_equal(sim_pending_count(s), 0);
        assert_int_equal(sim_zeroized(s, 2, 6), 2);
        assert_string_equal(get(s, MATRIX U1 "/guest_matrix"), "03.0006\n03.0010\n");
        assert_int_equal(put(s, "bus/ap/drivers/vfio_ap/bind", "02.0006\n"), 0);
        assert_string_equal(get(s, MATRIX U1 "/guest_matrix"), "02.0006\n02.0010\n03.0006\n03.0010\n");
}

/* What the guest gets is kept: taking away what was in the way brings nothing back. */
static void test_guest_matrix_kept(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);

        assert_int_equal(put(s, CREATE, U1), 0);
        assert_int_equal(put(s, MATRIX U1 "/ap_config", "0x30,0x0200800,\n"), 0);
        assert_int_equal(put(s, "bus/ap/drivers/vfio_ap/unbind", "02.0010"), 0);
        assert_int_equal(put(s, MATRIX U1 "/unassign_domain", "16"), 0);
        assert_string_equal(get(s, MATRIX U1 "/guest_matrix"), "03.0006\n");
        assert_int_equal(put(s, MATRIX U1 "/assign_domain", "0x1b"), 0);
        assert_string_equal(get(s, MATRIX U1 "/guest_matrix"), "02.0006\n02.001b\n03.0006\n03.001b\n");
}

static void test_ranges(void **state) {
        static const struct {
                const char *data, *expected; /* NULL: EINVAL */
        } cases[] = {
                { "+3-3", "0xd000" }, { "+4-3", NULL }, { "+2-3,-0-1\n", "0x3000" },
                { "+3-256", NULL },   { "+3-", NULL },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(sim_freep)
                Sim *s = boot("small", SIM_LINUX_7_2);

                assert_int_equal(put(s, "bus/ap/apmask", cases[i].data), cases[i].expected ? 0 : -EINVAL);
                if (cases[i].expected)
                        assert_int_equal(strncmp(get(s, "bus/ap/apmask"), cases[i].expected, 6), 0);
        }
}

static void test_boot_delay(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);

        assert_int_equal(put(s, "bus/ap/apmask", "-0"), 0);
        assert_int_equal(sim_ctl(s, "reboot boot-delay"), 0);
        assert_string_equal(get(s, "bus/ap/bindings"), "0/24\n");
        assert_string_equal(get(s, "bus/ap/bindings_complete_count"), "0\n");
        assert_int_equal(sim_ctl(s, "bind"), 0);
        assert_string_equal(get(s, "bus/ap/bindings"), "24/24 (complete)\n");
        assert_string_equal(get(s, "bus/ap/bindings_complete_count"), "1\n");
        assert_int_equal(strncmp(get(s, "bus/ap/apmask"), "0xc0", 4), 0);
        assert_string_equal(get(s, "bus/ap/devices/02.0006/status"), "unassigned\n");
}

static void test_profiles(void **state) {
        static const struct {
                const char *name;
                size_t devices;
        } cases[] = {
                { "small", 6 + 24 }, { "lab", 4 + 20 }, { "z16", 12 + 12 * 85 }, { "full", 256 + 65536 }
        };
        static const struct {
                const char *text;
                unsigned line;
        } bad[] = {
                { "card 0 cca\n\ncard 256 cca\n", 3 },
                { "card 0\n", 1 },
                { "card 0 fast\n", 1 },
                { "domains 0-1,\n", 1 },
                { "domains 3-1\n", 1 },
                { "\nmax 63\n", 2 },
                { "dialect 5.4\n", 1 },
                { "hole 3\n", 1 },
                { "no hope\n", 1 },
                { "parent pci x\n", 1 },
                { "parent mtty ../x\n", 1 },
                { "what\n", 1 },
        };
        SimProfile *p = malloc(sizeof *p);
        unsigned line;

        assert_non_null(p);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(sim_freep)
                Sim *s = boot(cases[i].name, SIM_LINUX_7_2);

                assert_int_equal(entries(s, "bus/ap/devices"), cases[i].devices);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                line = 0;
                assert_int_equal(sim_profile_parse(bad[i].text, p, &line), -EINVAL);
                assert_int_equal(line, bad[i].line);
        }
        assert_int_equal(sim_profile_load("missing", p, &line), -ENOENT);
        free(p);
}

static void test_paths(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);
        char target[16];
        SimFile *f;
        SimStat st;

        assert_int_equal(sim_stat(s, "", &st), 0);
        assert_int_equal(sim_stat(s, "//bus/./ap/../ap/apmask", &st), 0);
        assert_int_equal(sim_stat(s, "../../bus", &st), 0);
        assert_int_equal(sim_stat(s, "bus/ap/apmask/x", &st), -ENOTDIR);
        assert_int_equal(sim_stat(s, "bus/ap/devices/02.0006/driver/module", &st), 0);
        assert_int_equal(sim_stat(s, "devices/ap/card02/03.0006", &st), -ENOENT);
        assert_int_equal(sim_stat(s, "bus/ap/devices/2.0006", &st), -ENOENT);
        assert_int_equal(sim_stat(s, "bus/ap/devices/02.0106", &st), -ENOENT);
        assert_int_equal(sim_readlink(s, "bus/ap/devices/card02", target, sizeof target), -ENAMETOOLONG);
        assert_int_equal(sim_readlink(s, "bus/ap", target, sizeof target), -EINVAL);
        assert_int_equal(sim_open(s, "bus/ap", O_RDONLY, 0, &f), -EISDIR);
        assert_int_equal(sim_open(s, "bus/ap/apmask", O_RDWR, 1000, &f), -EACCES);
        assert_int_equal(sim_read(s, "bus/ap/apmask", target, sizeof target), -EOVERFLOW);
        assert_int_equal(sim_readdir(s, "bus/ap/apmask", count, NULL), -ENOTDIR);
}

static int note(void *userdata, const char *name) {
        (void) snprintf(userdata, 64, "%s", name);
        return 7;
}

static void test_sysfs_front(void **state) {
        CLEANUP(sim_freep)
        Sim *s = boot("small", SIM_LINUX_7_2);
        char buf[256], name[64];
        Sysfs *fs;

        assert_int_equal(sim_sysfs_new(s, &fs), 0);
        assert_int_equal(fs->ops->read(fs, "bus/ap/bindings", buf, sizeof buf), 17);
        assert_string_equal(buf, "24/24 (complete)\n");
        assert_int_equal(fs->ops->read(fs, "bus/ap/bindings", buf, 17), -EOVERFLOW);
        assert_int_equal(fs->ops->read(fs, "bus/ap/bindings", buf, 18), 17);
        assert_int_equal(fs->ops->write(fs, CREATE, U1 "\n", 37), 0);
        assert_int_equal(fs->ops->write(fs, CREATE, U1 "\n", 37), -EEXIST);
        assert_int_equal(fs->ops->exists(fs, "bus/mdev/devices/" U1 "/matrix"), 0);
        assert_int_equal(fs->ops->exists(fs, "bus/mdev/devices/" U2), -ENOENT);
        assert_int_equal(fs->ops->readlink(fs, "class/mdev_bus/matrix", buf, sizeof buf), 28);
        assert_string_equal(buf, "../../devices/vfio_ap/matrix");
        assert_int_equal(fs->ops->list(fs, "bus/mdev/devices", note, name), 7);
        assert_string_equal(name, U1);
        assert_int_equal(sim_ctl(s, "fault apmask hang"), 0);
        assert_int_equal(fs->ops->read(fs, "bus/ap/apmask", buf, sizeof buf), SIM_NEVER);
        assert_int_equal(fs->ops->write(fs, "bus/ap/apmask", "-3", 2), SIM_NEVER);
        fs->ops->free(fs);
}

static void test_save(void **state) {
        CLEANUP(sim_freep)
        Sim *a = boot("small", SIM_LINUX_7_2), *b = boot("small", SIM_LINUX_7_2);
        char path[] = "/tmp/sim-save-XXXXXX", text[SIM_PAGE_SIZE];
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        (void) close(fd);
        assert_int_equal(put(a, "bus/ap/aqmask", "-6"), 0);
        assert_int_equal(put(a, CREATE, U1), 0);
        assert_int_equal(put(a, MATRIX U1 "/ap_config", "0x20,0x02,0x04\n"), 0);
        assert_int_equal(put(a, CREATE, U2), 0);
        assert_int_equal(put(a, MATRIX U2 "/assign_adapter", "0"), 0);
        assert_int_equal(put(a, MTTY "mtty-2/create", U3), 0);
        assert_int_equal(sim_ctl(a, "card add 9 ep11; hole 9.10; rescan"), 0);
        assert_int_equal(sim_save(a, path), 0);
        assert_int_equal(sim_load(b, path), 0);
        (void) unlink(path);
        for (size_t i = 0; i < 6; i++) {
                static const char *const files[] = { "bus/ap/aqmask",
                                                     MATRIX U1 "/ap_config",
                                                     MATRIX U1 "/guest_matrix",
                                                     MATRIX U2 "/ap_config",
                                                     MTTY "mtty-1/available_instances",
                                                     "bus/ap/bindings" };

                ssize_t n = sim_read(a, files[i], text, sizeof text - 1);

                assert_true(n > 0);
                text[n] = 0;
                assert_string_equal(get(b, files[i]), text);
        }
        assert_int_equal(entries(b, "devices/ap/card09"), entries(a, "devices/ap/card09"));
        assert_int_equal(sim_load(b, path), -ENOENT);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_dialects),
                cmocka_unit_test(test_busy_by_dialect),
                cmocka_unit_test(test_page_limit),
                cmocka_unit_test(test_error_order),
                cmocka_unit_test(test_instances),
                cmocka_unit_test(test_second_parent),
                cmocka_unit_test(test_faults),
                cmocka_unit_test(test_never),
                cmocka_unit_test(test_boot_delay),
                cmocka_unit_test(test_reset_pending),
                cmocka_unit_test(test_guest_matrix_kept),
                cmocka_unit_test(test_ranges),
                cmocka_unit_test(test_profiles),
                cmocka_unit_test(test_paths),
                cmocka_unit_test(test_sysfs_front),
                cmocka_unit_test(test_save),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
