/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* That the witness of the chaos test sees what it is there to see: overlaps are planted in directories like the real ones. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "chaos_check.h"
#include "chaos_log.h"

typedef struct Place {
        char dir[64], sys[128], definitions[128];
        Checker checker;
} Place;

static void put(const char *dir, const char *name, const char *text) {
        char path[512];
        FILE *f;

        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        for (char *p = path + 1; (p = strchr(p, '/')); *p++ = '/') {
                *p = 0;
                assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
        }
        f = fopen(path, "we");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

/* Ids given as bits of the first byte: 0x80 is id 0. */
static void mask(unsigned first, char buf[static 80]) {
        (void) snprintf(buf, 80, "0x%02x%062d", first, 0);
}

static void put_mdev(Place *p, const char *uuid, unsigned adapters, unsigned domains) {
        char path[256], a[80], d[80], text[300];

        mask(adapters, a);
        mask(domains, d);
        (void) snprintf(path, sizeof path, "bus/mdev/devices/%s/ap_config", uuid);
        (void) snprintf(text, sizeof text, "%s,%s,%s\n", a, d, d);
        put(p->sys, path, text);
}

static void put_masks(Place *p, unsigned apmask, unsigned aqmask) {
        char text[80];

        mask(apmask, text);
        put(p->sys, "bus/ap/apmask", text);
        mask(aqmask, text);
        put(p->sys, "bus/ap/aqmask", text);
}

static void put_record(Place *p, const char *name, unsigned adapter, unsigned domain, const char *more) {
        char file[64], text[512];

        (void) snprintf(file, sizeof file, "%s.xml", name);
        (void) snprintf(
                text, sizeof text,
                "<device>\n  <name>mdev_x</name>\n    <attr name='assign_adapter' value='0x%02x'/>\n"
                "    <attr name='assign_domain' value='0x%04x'/>\n"
                "  <guestcrypt:matrix xmlns:guestcrypt='urn:guestcrypt:matrix:1' version='1' name='%s'%s/>\n</device>\n",
                adapter, domain, name, more);
        put(p->definitions, file, text);
}

/* As a store does it: the old one or the new one, nothing between. */
static void put_anew(Place *p, const char *name, unsigned adapter) {
        char from[256], to[256];

        put_record(p, ".new", adapter, 0, "");
        (void) snprintf(from, sizeof from, "%s/.new.xml", p->definitions);
        (void) snprintf(to, sizeof to, "%s/%s.xml", p->definitions, name);
        assert_int_equal(rename(from, to), 0);
}

typedef struct Moved {
        Place *place;
        atomic_bool stop;
} Moved;

static int setup(void **state) {
        Place *p = calloc(1, sizeof *p);

        assert_non_null(p);
        (void) strcpy(p->dir, "/tmp/chaos-check.XXXXXX");
        assert_non_null(mkdtemp(p->dir));
        (void) snprintf(p->sys, sizeof p->sys, "%s/sys", p->dir);
        (void) snprintf(p->definitions, sizeof p->definitions, "%s/matrices", p->dir);
        p->checker = (Checker) { .sys = p->sys, .definitions = p->definitions };
        put_masks(p, 0x80, 0xff);
        put_mdev(p, "11111111-1111-4111-8111-111111111111", 0x60, 0xc0);
        put_record(p, "one", 1, 0, "");
        *state = p;
        return 0;
}

static int teardown(void **state) {
        CLEANUP(freep) Place *p = *state;
        char command[128];

        (void) snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
        return system(command);
}

static void test_nothing_wrong(void **state) {
        Place *p = *state;

        put_mdev(p, "22222222-2222-4222-8222-222222222222", 0x60,
                 0x30); /* the same adapters, other domains */
        put_mdev(p, "33333333-3333-4333-8333-333333333333", 0x10, 0xc0);
        put_mdev(p, "44444444-4444-4444-8444-444444444444", 0x80, 0); /* the host's adapter, but no queue */
        put_record(p, "two", 1, 1, "");
        put_record(p, "other-a", 1, 0, " alternative='yes'");
        put_record(p, "other-b", 1, 0, " alternative='yes'");
        checker_look(&p->checker);
        assert_int_equal(p->checker.n_overlaps, 0);
        assert_int_equal(p->checker.mdevs, 4);
        assert_int_equal(p->checker.records, 4);
}

static void test_two_mdevs(void **state) {
        Place *p = *state;

        put_mdev(p, "22222222-2222-4222-8222-222222222222", 0x30, 0x40);
        checker_look(&p->checker);
        assert_int_equal(p->checker.n_overlaps, 1);
        assert_non_null(strstr(p->checker.first, "02.0001 is in "));
        assert_non_null(strstr(p->checker.first, "22222222-2222-4222-8222-222222222222"));
}

static void test_mdev_and_host(void **state) {
        Place *p = *state;

        put_masks(p, 0xa0, 0x80);
        checker_look(&p->checker);
        assert_int_equal(p->checker.n_overlaps, 1);
        assert_non_null(strstr(p->checker.first, "02.0000 is in "));
        assert_non_null(strstr(p->checker.first, "the host"));
}

static void test_two_definitions(void **state) {
        Place *p = *state;

        put_record(p, "two", 1, 0, " autostart='yes'");
        checker_look(&p->checker);
        assert_int_equal(p->checker.n_overlaps, 1);
        assert_non_null(strstr(p->checker.first, "'one'"));
        assert_non_null(strstr(p->checker.first, "'two'"));
}

/* A queue goes from one definition to the other and back, never in both: as often as not between the witness's two reads. */
static void *move(void *userdata) {
        Moved *m = userdata;

        for (unsigned n = 0; !atomic_load(&m->stop); n++) {
                put_anew(m->place, n % 2 ? "two" : "one", n % 2 ? 2 : 3);
                put_anew(m->place, n % 2 ? "one" : "two", 1);
        }
        return NULL;
}

static void test_moves(void **state) {
        Moved m = { .place = *state };
        pthread_t thread;

        put_record(m.place, "two", 2, 0, "");
        assert_int_equal(pthread_create(&thread, NULL, move, &m), 0);
        for (unsigned i = 0; i < 500; i++)
                checker_look(&m.place->checker);
        atomic_store(&m.stop, true);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(m.place->checker.n_overlaps, 0);
}

static void test_log(void **state) {
        Ids adapters = {}, domains = {};
        uint64_t before = log_now(), after;
        size_t i;

        adapters.has[3] = domains.has[6] = true;
        i = log_begin("mdev", "owner", &adapters, &domains);
        assert_true(log_had("mdev", "owner", 3, 6, before, UINT64_MAX));
        assert_true(log_had("mdev", NULL, 3, 6, before, UINT64_MAX));
        assert_false(log_had("mdev", "somebody", 3, 6, before, UINT64_MAX));
        assert_false(log_had("definition", "owner", 3, 6, before, UINT64_MAX));
        assert_false(log_had("mdev", "owner", 3, 7, before, UINT64_MAX));
        assert_false(log_had("mdev", "owner", 3, 6, 0, before - 1));
        log_end(i);
        after = log_now() + 1;
        assert_true(log_had("mdev", "owner", 3, 6, before, after));
        assert_false(log_had("mdev", "owner", 3, 6, after, UINT64_MAX));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_nothing_wrong, setup, teardown),
                cmocka_unit_test_setup_teardown(test_two_mdevs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_mdev_and_host, setup, teardown),
                cmocka_unit_test_setup_teardown(test_two_definitions, setup, teardown),
                cmocka_unit_test_setup_teardown(test_moves, setup, teardown),
                cmocka_unit_test(test_log),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
