/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Answers that are put together in slices: what is in them, who comes first, how many there may be. */

#include "bus_world.h"

#define MANY 3000 /* so many that they are listed in slices */

static Uuid many_uuid(size_t i) {
        return (Uuid) { { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, (uint8_t) (i >> 8), (uint8_t) i } };
}

static char *many_path(size_t i, char path[static BUS_PATH_SIZE]) {
        return bus_path_uuid("matrix", many_uuid(i), path);
}

static void add_many(void) {
        static EngineMatrix matrices[MANY];

        for (size_t i = 0; i < MANY; i++)
                matrices[i] = (EngineMatrix) { .uuid = many_uuid(i), .name = "many", .guest = "" };
        fake.matrices = matrices;
        fake.n_matrices = MANY;
}

static void many_event(size_t i, EngineChange what) {
        bus_on_engine_event(&w.bus, &(EngineKey) { .object = ENGINE_MATRIX, .uuid = many_uuid(i) }, what);
}

/* Somebody else is at work while matrix 1000 is listed. */
static void on_get_1000(size_t i) {
        if (i != 1000)
                return;

        fake.on_get = NULL;
        fake.matrices[2000].uuid = fake.matrices[500].uuid = fake.matrices[600].uuid = uuid1;
        many_event(500, ENGINE_REMOVED);
        many_event(2000, ENGINE_REMOVED);
        /* made again and removed again: whether anybody has heard of it, nobody knows */
        many_event(600, ENGINE_REMOVED);
        many_event(600, ENGINE_ADDED);
        many_event(600, ENGINE_REMOVED);
        many_event(700, ENGINE_CHANGED);
        bus_signal_flush_uuid(w.bus, many_uuid(700)); /* a reply names it */
}

static size_t list_all(sd_bus_message *reply, bool seen[static MANY]) {
        char path[BUS_PATH_SIZE];
        const char *p;
        size_t n = 0;
        Uuid uuid;
        int r;

        assert_true(sd_bus_message_enter_container(reply, 'a', "{oa{sa{sv}}}") > 0);
        while ((r = sd_bus_message_enter_container(reply, 'e', "oa{sa{sv}}")) > 0) {
                assert_true(sd_bus_message_read(reply, "o", &p) > 0);
                assert_true(bus_path_parse_uuid(p, "matrix", &uuid) >= 0);
                n = (size_t) uuid.b[14] << 8 | uuid.b[15];
                assert_string_equal(many_path(n, path), p);
                assert_false(seen[n]);
                seen[n] = true;
                assert_true(sd_bus_message_skip(reply, "a{sa{sv}}") > 0);
                assert_true(sd_bus_message_exit_container(reply) > 0);
        }
        assert_true(r == 0);
        for (size_t i = n = 0; i < MANY; i++)
                n += seen[i];
        return n;
}

static unsigned heard_of(const char *what, size_t i) {
        char path[BUS_PATH_SIZE], text[BUS_PATH_SIZE + 32];

        (void) snprintf(text, sizeof text, "%s %s", what, many_path(i, path));
        return heard(text);
}

/* What goes while all objects are listed is not in the answer, or its going is told after the answer. */
static void test_objects_that_go_while_they_are_listed(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(freep) bool *seen = calloc(MANY, sizeof *seen);

        add_many();
        settle();
        w.n_signals = 0;
        fake.on_get = on_get_1000;
        reply = succeeds(
                new_call(NULL, BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"));
        assert_int_equal(w.n_signals, 2);
        assert_int_equal(heard_of("PropertiesChanged", 700), 1); /* a reply named it */
        assert_int_equal(heard_of("InterfacesRemoved", 600), 1); /* another one has its name */

        assert_int_equal(list_all(reply, seen), MANY - 1);
        assert_true(seen[500] && seen[600] && seen[700] && seen[MANY - 1] && !seen[2000]);

        settle();
        assert_int_equal(heard_of("InterfacesRemoved", 500), 1);
        assert_int_equal(heard_of("InterfacesRemoved", 2000), 1);
        assert_int_equal(heard_of("InterfacesRemoved", 600), 2);
        assert_int_equal(heard_of("PropertiesChanged", 700), 2); /* what was listed may have been older */
}

/* What has come just before is in the answer, though its signal has not been sent yet: that it goes again is told. */
static void test_object_listed_before_its_signal(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(freep) bool *seen = calloc(MANY, sizeof *seen);

        add_many();
        settle();
        w.n_signals = 0;
        fake.on_get = NULL;
        for (size_t i = 0; i < 60; i++) /* more than are sent at once */
                many_event(i, ENGINE_CHANGED);
        many_event(60, ENGINE_ADDED);
        reply = succeeds(
                new_call(NULL, BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"));
        assert_int_equal(list_all(reply, seen), MANY);
        fake.matrices[60].uuid = uuid1;
        many_event(60, ENGINE_REMOVED);
        settle();
        assert_int_equal(heard_of("InterfacesRemoved", 60), 1);
}

static void test_calls_come_between_slices(void **state) {
        static const Method big[] = {
                { "objects", BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", NULL, NULL,
                  append_nothing },
                { "queues", MANAGER, "ListQueues", NULL, NULL, append_options },
                { "check", MANAGER, "CheckMatrix", NULL, NULL, append_matrix },
        };
        CLEANUP(freep) EngineConflict *conflicts = calloc(AP_IDS * AP_IDS, sizeof *conflicts);

        add_many();
        for (unsigned a = 0; a < AP_IDS; a++)
                fake.snapshot->queue_present[a] = AP_MASK_ALL;
        for (size_t i = 0; i < AP_IDS * AP_IDS; i++)
                conflicts[i].kind = "mdev";
        fake.conflicts = conflicts;
        fake.n_conflicts = AP_IDS * AP_IDS;

        for (size_t i = 0; i < ELEMENTS(big); i++) {
                CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = call_of(&big[i], ":1.r5"), *reply = NULL;

                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &reply, 0) >= 0);
                m = sd_bus_message_unref(m);
                for (unsigned k = 0; k < 5; k++) {
                        m = new_call(":1.r6", BUS_ROOT, "org.freedesktop.DBus.Properties", "Get");
                        assert_true(sd_bus_message_append(m, "ss", BUS_INTERFACE("Manager"), "Version") >=
                                    0);
                        (void) sd_bus_message_unref(succeeds(TAKE(m)));
                        assert_null(reply);
                }
                run_until(&reply);
                assert_false(sd_bus_message_is_method_error(reply, NULL));
        }
        assert_int_equal(fake.n_admitted, 0);
}

/* Who asks for everything a hundred times waits; another client does not wait for all that. */
static void test_callers_take_turns(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *other = NULL;
        sd_bus_message *m, *replies[20] = {};

        add_many();
        for (size_t i = 0; i < ELEMENTS(replies); i++) {
                m = new_call(":1.r5", BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects");
                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &replies[i],
                                              UINT64_C(300000000)) >= 0); /* an emulator takes its time */
                (void) sd_bus_message_unref(m);
        }
        m = new_call(":1.r6", MANAGER, "ListQueues");
        append_options(m);
        other = succeeds(m);
        assert_null(replies[1]);

        for (size_t i = 0; i < ELEMENTS(replies); i++) {
                run_until(&replies[i]);
                assert_false(sd_bus_message_is_method_error(replies[i], NULL));
                (void) sd_bus_message_unref(replies[i]);
        }
}

static unsigned n_looked_at;

static void on_get_count(size_t i) {
        n_looked_at++;
}

/* Nothing is put together for who has gone, whatever he asked for before. */
static void test_who_has_gone_gets_no_long_answer(void **state) {
        sd_bus_message *m;

        add_many();
        settle();
        n_looked_at = 0;
        fake.on_get = on_get_count;
        for (size_t i = 0; i < 100; i++) {
                m = new_call(":1.g5", BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects");
                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, NULL, 0) >= 0);
                (void) sd_bus_message_unref(m);
                m = new_call(":1.g5", MANAGER, "ListQueues");
                append_options(m);
                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, NULL, 0) >= 0);
                (void) sd_bus_message_unref(m);
        }
        settle();
        assert_int_equal(n_looked_at, 0);
        assert_int_equal(fake.n_admitted, 0);

        (void) sd_bus_message_unref(succeeds(
                new_call(":1.r6", BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")));
        assert_int_equal(n_looked_at, MANY);
}

/* What is not answered at once counts as operations do. */
static void test_questions_are_limited(void **state) {
        static const Method questions[] = {
                { "check", MANAGER, "CheckMatrix", NULL, NULL, append_matrix },
                { "queues", MANAGER, "ListQueues", NULL, NULL, append_options },
                { "explain", MATRIX1, BUS_INTERFACE("Matrix"), "Explain", NULL, NULL, append_nothing },
                { "reload", MANAGER, "Reload", NULL, NULL, append_nothing },
                { "objects", BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", NULL, NULL,
                  append_nothing },
        };
        sd_bus_message *m;

        add_objects();
        fake.max_calls = 4;
        fake.hang = true;
        for (size_t i = 0; i < 4; i++) { /* none of them is answered */
                m = call_of(&questions[i], NULL);
                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, NULL, 0) >= 0);
                (void) sd_bus_message_unref(m);
        }
        for (size_t i = 0; i < ELEMENTS(questions); i++)
                fails(call_of(&questions[i], NULL), BUS_NAME ".Error.LimitHit", FAKE_TEXT);
        assert_int_equal(w.n_reloads, 1);
        assert_int_equal(fake.n_admitted, 4);

        w.bus = bus_free(w.bus);
        assert_int_equal(fake.n_admitted, 0);

        fake.hang = false;
        assert_true(bus_new(w.server, NULL, &(BusConfig) { .sender_uid = sender_uid }, &w.bus) >= 0);
        for (size_t i = 0; i < ELEMENTS(questions); i++)
                (void) sd_bus_message_unref(succeeds(call_of(&questions[i], NULL)));
        assert_int_equal(fake.n_admitted, 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(test_objects_that_go_while_they_are_listed),
                TEST(test_object_listed_before_its_signal),
                TEST(test_calls_come_between_slices),
                TEST(test_callers_take_turns),
                TEST(test_who_has_gone_gets_no_long_answer),
                TEST(test_questions_are_limited),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
