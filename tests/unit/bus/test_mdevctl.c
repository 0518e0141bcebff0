/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The interface about mdevctl: what reaches the engine, who may, what is refused before that. */

#include <fcntl.h>
#include <sys/mman.h>

#include "bus_world.h"

#define MDEVCTL BUS_ROOT, BUS_INTERFACE("Mdevctl")
#define JSON    "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"auto\"}"

static int process_fd = -1;

static int set_up_process(void **state) {
        process_fd = memfd_create("process", MFD_CLOEXEC);
        assert_true(process_fd >= 0);
        assert_int_equal(set_up(state), 0);
        return 0;
}

static int tear_down_process(void **state) {
        process_fd = fd_close(process_fd);
        return tear_down(state);
}

static void append_import(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sa{sv}", UUID1_TEXT, 4, "name", "s", "payments-1",
                                          "alternative", "b", 1, "from-host", "b", 1, "dry-run", "b",
                                          1) >= 0);
}
static void append_export(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sa{sv}", "payments-1", 2, "force", "b", 1, "dry-run", "b",
                                          1) >= 0);
}
static void append_begin(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sssh", "modify", UUID1_TEXT, JSON, process_fd) >= 0);
}

static const Method methods[] = {
        { "import", MDEVCTL, "Import", AUTHZ_MANAGE_HOST, "mdevctl_import", append_import },
        { "export", MDEVCTL, "Export", AUTHZ_MANAGE_HOST, "mdevctl_export", append_export },
        { "begin", MDEVCTL, "Begin", NULL, "mdevctl_begin",
          append_begin }, /* the last: polkit is not asked */
};
#define N_ASKED (ELEMENTS(methods) - 1)
static const Method *const begin = &methods[N_ASKED];

static void furnish(void) {
        add_objects();
        (void) sd_bus_message_unref(succeeds(new_call(NULL, BUS_ROOT, "org.freedesktop.DBus.Peer", "Ping")));
}

static void test_methods_reach_the_engine(void **state) {
        furnish();
        check_methods_reach_the_engine(methods, ELEMENTS(methods));
}

static void test_errors_have_names(void **state) {
        furnish();
        check_errors_have_names(methods, ELEMENTS(methods));
}

static void test_polkit_decides(void **state) {
        furnish();
        check_polkit_decides(methods, N_ASKED);
}

static void test_arguments(void **state) {
        sd_bus_message *reply;
        const char *json;

        furnish();
        fake.uuid = uuid1;
        returns_path(call_of(&methods[0], NULL), MATRIX1);
        assert_true(uuid_equal(fake.asked_uuid, uuid1));
        assert_string_equal(fake.import.name, "payments-1");
        assert_true(fake.import.alternative && fake.import.from_host && fake.import.dry_run);

        reply = succeeds(call_of(&methods[1], NULL));
        assert_true(sd_bus_message_read(reply, "s", &json) > 0);
        assert_string_equal(json, "{}");
        (void) sd_bus_message_unref(reply);
        assert_true(uuid_equal(fake.asked_uuid, uuid1) && fake.flag && fake.import.dry_run);

        fake.flag = false;
        (void) sd_bus_message_unref(succeeds(call_of(begin, NULL)));
        assert_int_equal(fake.action, MDEVCTL_MODIFY);
        assert_string_equal(fake.texts[0], JSON);
        assert_true(fake.flag); /* there was a descriptor */

        fake.flag = false;
        reply = new_call(NULL, MDEVCTL, "End");
        assert_true(sd_bus_message_append(reply, "sh", UUID1_TEXT, process_fd) >= 0);
        (void) sd_bus_message_unref(succeeds(reply));
        assert_string_equal(fake.asked, "mdevctl_end");
        assert_true(fake.flag);
}

static void test_list(void **state) {
        static const EngineMdevctl list[] = {
                { .uuid = { { 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6 } },
                  .autostart = true,
                  .file = "" },
                { .file = "x\xff", .problem = "its name is not a UUID" },
        };
        sd_bus_message *reply;
        const char *name, *problem;
        int autostart;

        furnish();
        fake.mdevctl = list;
        fake.n_mdevctl = ELEMENTS(list);
        reply = succeeds(new_call(NULL, MDEVCTL, "ListDefinitions"));
        assert_true(sd_bus_message_enter_container(reply, 'a', "(sbaqaqaqs)") > 0);
        assert_true(sd_bus_message_read(reply, "(sbaqaqaqs)", &name, &autostart, 0, 0, 0, &problem) > 0);
        assert_string_equal(name, "09080706-0504-0302-0100-010203040506");
        assert_true(autostart && !*problem);
        assert_true(sd_bus_message_read(reply, "(sbaqaqaqs)", &name, &autostart, 0, 0, 0, &problem) > 0);
        assert_string_equal(name, "x?");
        assert_string_equal(problem, "its name is not a UUID");
        (void) sd_bus_message_unref(reply);
        fake.mdevctl = NULL;
        fake.n_mdevctl = 0;
}

static void test_callout_is_roots(void **state) {
        sd_bus_message *m;

        furnish();
        fake.asked = NULL;
        fails(call_of(begin, ":1.u5"), SD_BUS_ERROR_ACCESS_DENIED, "Only root may call 'Begin'");
        m = new_call(":1.u5", MDEVCTL, "End");
        assert_true(sd_bus_message_append(m, "sh", UUID1_TEXT, process_fd) >= 0);
        fails(m, SD_BUS_ERROR_ACCESS_DENIED, "Only root may call 'End'");
        assert_null(fake.asked);
        assert_int_equal(w.n_asked, 0);
}

static void test_bad_arguments(void **state) {
        CLEANUP(freep) char *json = malloc(BUS_XML_MAX + 2);
        sd_bus_message *m;

        furnish();
        fake.asked = NULL;
        assert_non_null(json);
        memset(json, ' ', BUS_XML_MAX + 1);
        json[BUS_XML_MAX + 1] = '\0';

        m = new_call(NULL, MDEVCTL, "Import");
        assert_true(sd_bus_message_append(m, "sa{sv}", "", 0) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "a UUID must be given");
        m = new_call(NULL, MDEVCTL, "Import");
        assert_true(sd_bus_message_append(m, "sa{sv}", UUID1_TEXT, 1, "force", "b", 1) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "unknown option 'force'");
        m = new_call(NULL, MDEVCTL, "Export");
        assert_true(sd_bus_message_append(m, "sa{sv}", "nobody", 0) >= 0);
        fails(m, BUS_NAME ".Error.NoSuchMatrix", "'nobody'");
        m = new_call(NULL, MDEVCTL, "Begin");
        assert_true(sd_bus_message_append(m, "sssh", "list", UUID1_TEXT, JSON, process_fd) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "unknown action 'list'");
        m = new_call(NULL, MDEVCTL, "Begin");
        assert_true(sd_bus_message_append(m, "sssh", "define", UUID1_TEXT, json, process_fd) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "longer than");
        m = new_call(NULL, MDEVCTL, "End");
        assert_true(sd_bus_message_append(m, "sh", "x", process_fd) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "'x' is no UUID");
        assert_null(fake.asked);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_process, tear_down_process)
        const struct CMUnitTest tests[] = {
                TEST(test_methods_reach_the_engine),
                TEST(test_errors_have_names),
                TEST(test_polkit_decides),
                TEST(test_arguments),
                TEST(test_list),
                TEST(test_callout_is_roots),
                TEST(test_bad_arguments),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
