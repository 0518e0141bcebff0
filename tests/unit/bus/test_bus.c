/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The bus's surface over a socket pair: every method, what it hands to the engine, every error name,
 * limits on arguments, polkit. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bus_world.h"

static void append_define(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "ssaqaqaqa{sv}", "payments-1", UUID1_TEXT, 2, 4, 5, 1, 0x47, 1,
                                          6, 2, "guest", "s", "vm1", "start", "b", 1) >= 0);
}
static void append_xml(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sa{sv}", "<device/>", 1, "autostart", "b", 1) >= 0);
}
static void append_create(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sssa(ss)a{sv}", "mtty", "mtty-2", "", 1, "name", "value", 0) >=
                    0);
}
static void append_masks(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "aqaqa{sv}", 1, 7, 2, 8, 9, 0) >= 0);
}
static void append_from_host(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "from-host", "b", 1) >= 0);
}
static void append_stop(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "stop", "b", 1) >= 0);
}
static void append_autostart(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "ba{sv}", 1, 0) >= 0);
}

static const Method changing[] = {
        { "define", MANAGER, "DefineMatrix", AUTHZ_MANAGE_MATRIX, "define", append_define },
        { "define xml", MANAGER, "DefineMatrixXML", AUTHZ_MANAGE_MATRIX, "define_xml", append_xml },
        { "create", MANAGER, "CreateMdev", AUTHZ_MANAGE_MDEV, "create_mdev", append_create },
        { "masks", MANAGER, "SetHostMasks", AUTHZ_MANAGE_HOST, "set_host_masks", append_masks },
        { "reconcile", MANAGER, "Reconcile", AUTHZ_MANAGE_MATRIX, "reconcile", append_nothing },
        { "start", MATRIX1, BUS_INTERFACE("Matrix"), "Start", AUTHZ_MANAGE_MATRIX, "start",
          append_from_host },
        { "stop", MATRIX1, BUS_INTERFACE("Matrix"), "Stop", AUTHZ_MANAGE_MATRIX, "stop", append_options },
        { "modify", MATRIX1, BUS_INTERFACE("Matrix"), "Modify", AUTHZ_MANAGE_MATRIX, "modify",
          append_matrix },
        { "undefine", MATRIX1, BUS_INTERFACE("Matrix"), "Undefine", AUTHZ_MANAGE_MATRIX, "undefine",
          append_stop },
        { "autostart", MATRIX1, BUS_INTERFACE("Matrix"), "SetAutostart", AUTHZ_MANAGE_MATRIX,
          "set_autostart", append_autostart },
        { "remove", MDEV1, BUS_INTERFACE("Mdev"), "Remove", AUTHZ_MANAGE_MDEV, "remove_mdev",
          append_options },
        { "reserve", HOST, "Reserve", AUTHZ_MANAGE_HOST, "reserve", append_masks },
        { "release", HOST, "Release", AUTHZ_MANAGE_HOST, "release", append_masks },
        { "persist", HOST, "Persist", AUTHZ_MANAGE_HOST, "persist", append_options },
};

static void test_methods_reach_the_engine(void **state) {
        add_objects();
        check_methods_reach_the_engine(changing, ELEMENTS(changing));
}

static void test_define_arguments(void **state) {
        returns_path(call_of(&changing[0], NULL), MATRIX1);
        assert_string_equal(fake.name, "payments-1");
        assert_string_equal(fake.guest, "vm1");
        assert_true(uuid_equal(fake.asked_uuid, uuid1));
        assert_true(fake.define.start && !fake.define.autostart && !fake.define.alternative &&
                    !fake.define.from_host);
        assert_int_equal(ap_mask_count(&fake.matrix.adapters), 2);
        assert_true(ap_mask_test(&fake.matrix.adapters, 5) && ap_mask_test(&fake.matrix.domains, 0x47));
        assert_true(ap_mask_test(&fake.matrix.control, 6));

        returns_path(call_of(&changing[1], NULL), MATRIX1);
        assert_true(fake.define.autostart);
        assert_int_equal(fake.xml_size, strlen("<device/>"));

        returns_path(call_of(&changing[2], NULL), MDEV1);
        assert_string_equal(fake.name, "mtty/mtty-2");
        assert_true(uuid_is_null(fake.asked_uuid));
        assert_int_equal(fake.n_attrs, 1);
}

static void test_errors_have_names(void **state) {
        add_objects();
        check_errors_have_names(changing, ELEMENTS(changing));
}

static void test_broken_is_an_errno(void **state) {
        add_objects();
        check_broken_is_an_errno(changing, ELEMENTS(changing));
}

static void test_kernel_errors_tell_the_errno(void **state) {
        fake.at_once = VERDICT_KERNEL;
        fake.kernel_errno = -EADDRINUSE;
        fails(call_of(&changing[0], NULL), BUS_NAME ".Error.Kernel", FAKE_TEXT " (EADDRINUSE)");
}

static void test_reload(void **state) {
        (void) sd_bus_message_unref(succeeds(new_call(NULL, MANAGER, "Reload")));
        assert_int_equal(w.n_reloads, 1);
        assert_string_equal(fake.asked, "rescan");

        fake.later = -EIO;
        fails(new_call(NULL, MANAGER, "Reload"), BUS_NAME ".Error.BackendUnavailable", "scanned");
        w.reload_fails = true;
        fails(new_call(NULL, MANAGER, "Reload"), SD_BUS_ERROR_IO_ERROR, "");
}

static void test_reconcile(void **state) {
        CLEANUP(sd_bus_message_unrefp)
        sd_bus_message *reply = succeeds(new_call(NULL, MANAGER, "Reconcile"));
        const char *name, *what;

        assert_true(sd_bus_message_read(reply, "a(ss)", 1, &name, &what) > 0);
        assert_string_equal(name, "payments-1");
        assert_string_equal(what, "started again");
}

/* ---- the host's own ---- */

/* What a{sv} in @m has under @key, entered; fails if it has none. */
static void enter_entry(sd_bus_message *m, const char *key, const char *type) {
        assert_true(sd_bus_message_rewind(m, 1) >= 0);
        assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") > 0);
        for (;;) {
                const char *name;

                if (sd_bus_message_enter_container(m, 'e', "sv") <= 0)
                        fail_msg("there is no '%s'", key);
                assert_true(sd_bus_message_read_basic(m, 's', &name) > 0);
                if (strcmp(name, key) == 0)
                        break;
                assert_true(sd_bus_message_skip(m, "v") > 0);
                assert_true(sd_bus_message_exit_container(m) > 0);
        }
        assert_true(sd_bus_message_enter_container(m, 'v', type) > 0);
}

static void has_text(sd_bus_message *m, const char *key, const char *want) {
        const char *is;

        enter_entry(m, key, "s");
        assert_true(sd_bus_message_read_basic(m, 's', &is) > 0);
        assert_string_equal(is, want);
}

static void has_flag(sd_bus_message *m, const char *key, bool want) {
        int is;

        enter_entry(m, key, "b");
        assert_true(sd_bus_message_read_basic(m, 'b', &is) > 0);
        assert_int_equal(is, want);
}

static void has_queue(sd_bus_message *m, const char *key, unsigned adapter, unsigned domain) {
        uint16_t a, d;

        enter_entry(m, key, "a(qq)");
        assert_true(sd_bus_message_read(m, "a(qq)", 1, &a, &d) > 0);
        assert_true(a == adapter && d == domain);
}

static void test_host(void **state) {
        CLEANUP(sd_bus_message_unrefp)
        sd_bus_message *done = NULL, *dry = NULL, *view = NULL, *persisted = NULL;
        sd_bus_message *m = new_call(NULL, HOST, "Reserve");

        assert_true(sd_bus_message_append(m, "aqaqa{sv}", 2, 5, 6, 1, 0x47, 2, "by", "s", "overrides",
                                          "take-others", "b", 1) >= 0);
        done = succeeds(m);
        assert_true(fake.host_wish.wish.others && !fake.host_wish.wish.force && !fake.host_wish.dry_run);
        assert_false(fake.host_wish.wish.release);
        assert_int_equal(fake.host_wish.wish.means, HOST_MEANS_OVERRIDES);
        assert_int_equal(ap_mask_count(&fake.matrix.adapters), 2);
        has_flag(done, "done", true);
        has_text(done, "means", "overrides");
        has_queue(done, "queues", 5, 0x47);
        has_queue(done, "others", 6, 7);

        m = new_call(NULL, HOST, "Release");
        assert_true(sd_bus_message_append(m, "aqaqa{sv}", 1, 5, 1, 0x47, 2, "dry-run", "b", 1, "force", "b",
                                          1) >= 0);
        dry = succeeds(m);
        assert_true(fake.host_wish.wish.release && fake.host_wish.wish.force && fake.host_wish.dry_run);
        has_flag(dry, "done", false);
        has_text(dry, "refusal", FAKE_TEXT);

        m = new_call(NULL, HOST, "Reserve");
        assert_true(sd_bus_message_append(m, "aqaqa{sv}", 1, 5, 1, 0x47, 1, "by", "s", "magic") >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "'magic'");
        m = new_call(NULL, HOST, "Reserve");
        assert_true(sd_bus_message_append(m, "aqaqa{sv}", 1, 256, 1, 0x47, 0) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "256");

        view = succeeds(new_call(NULL, HOST, "Show"));
        assert_string_equal(fake.asked, "view");
        has_flag(view, "file-exists", true);
        has_queue(view, "last-queue", 5, 0x47);

        m = new_call(NULL, HOST, "Persist");
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "dry-run", "b", 1) >= 0);
        persisted = succeeds(m);
        has_flag(persisted, "done", false);
        has_text(persisted, "content", "rules\n");
}

/* A dry run is a question: who may not change the host may ask what it would come to. */
static void test_dry_runs_are_questions(void **state) {
        static const char *const methods[] = { "Reserve", "Release", "Persist" };

        for (size_t i = 0; i < ELEMENTS(methods); i++)
                for (int dry = 0; dry < 2; dry++) {
                        sd_bus_message *m = new_call(":1.u5", HOST, methods[i]);

                        if (i < 2)
                                assert_true(sd_bus_message_append(m, "aqaq", 1, 5, 1, 0x47) >= 0);
                        assert_true(sd_bus_message_append(m, "a{sv}", 1, "dry-run", "b", dry) >= 0);
                        (void) sd_bus_message_unref(succeeds(m));
                        assert_string_equal(w.action, dry ? AUTHZ_INSPECT : AUTHZ_MANAGE_HOST);
                }
}

/* ---- questions ---- */

static void test_check_without_ap_bus(void **state) {
        sd_bus_message *m = new_call(NULL, MANAGER, "CheckMatrix");

        append_matrix(m);
        fake.no_ap = true;
        fails(m, BUS_NAME ".Error.BackendUnavailable", "no AP bus");
}

static void test_check(void **state) {
        EngineConflict conflict = {
                .adapter = 5, .domain = 0x47, .kind = "definition", .owner = "payments-1"
        };
        sd_bus_message *m = new_call(NULL, MANAGER, "CheckMatrix");
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *kind, *owner;
        uint16_t a, d;

        add_objects();
        fake.conflicts = &conflict;
        fake.n_conflicts = 1;
        assert_true(sd_bus_message_append(m, "aqaqaqa{sv}", 1, 5, 1, 0x47, 0, 3, "start", "b", 1, "self",
                                          "s", "payments-1", "from-host", "b", 1) >= 0);
        reply = succeeds(m);
        assert_true(sd_bus_message_read(reply, "a(qqss)", 1, &a, &d, &kind, &owner) > 0);
        assert_true(a == 5 && d == 0x47);
        assert_string_equal(kind, "definition");
        assert_string_equal(owner, "payments-1");
        assert_true(fake.check.start && fake.check.from_host && !fake.check.alternative);
        assert_true(uuid_equal(fake.check.self, uuid1));
        assert_int_equal(fake.n_refreshed, 1); /* the host was looked at first */

        m = new_call(NULL, MANAGER, "CheckMatrix");
        assert_true(sd_bus_message_append(m, "aqaqaqa{sv}", 1, 5, 1, 0x47, 0, 1, "self", "s", "nobody") >=
                    0);
        fails(m, BUS_NAME ".Error.NoSuchMatrix", "'nobody'");
}

static void test_explain_and_xml(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *xml;

        fails(new_call(NULL, MATRIX1, BUS_INTERFACE("Matrix"), "Explain"), SD_BUS_ERROR_UNKNOWN_OBJECT, "");

        add_objects();
        (void) sd_bus_message_unref(succeeds(new_call(NULL, MATRIX1, BUS_INTERFACE("Matrix"), "Explain")));
        assert_true(fake.check.start && uuid_equal(fake.check.self, uuid1));
        assert_true(ap_mask_test(&fake.check.matrix.adapters, 5));

        reply = succeeds(new_call(NULL, MATRIX1, BUS_INTERFACE("Matrix"), "GetXML"));
        assert_true(sd_bus_message_read(reply, "s", &xml) > 0);
        assert_string_equal(xml, "<device/>\n");
}

static unsigned count_queues(sd_bus_message *m) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = succeeds(m);
        unsigned n = 0;

        assert_true(sd_bus_message_enter_container(reply, 'a', "(qqssa{sv})") >= 0);
        while (sd_bus_message_at_end(reply, 0) == 0) {
                assert_true(sd_bus_message_skip(reply, "(qqssa{sv})") >= 0);
                n++;
        }
        return n;
}

static void test_list_queues(void **state) {
        static const struct {
                const char *name, *key, *type;
                union {
                        int n;
                        const char *s;
                };
                unsigned want;
        } cases[] = {
                { "adapter", "adapter", "q", .n = 5, .want = 2 },
                { "no such", "adapter", "q", .n = 6, .want = 0 },
                { "domain", "domain", "q", .n = 0x47, .want = 1 },
                { "driver", "driver", "s", .s = "vfio_ap", .want = 1 },
                { "kind", "owner-kind", "s", .s = "free", .want = 1 },
                { "owner", "owner", "s", .s = "payments-1", .want = 1 },
                { "free", "free", "b", .n = 1, .want = 1 },
                { "not free", "free", "b", .n = 0, .want = 1 },
        };
        sd_bus_message *m = new_call(NULL, MANAGER, "ListQueues");

        add_objects();
        append_options(m);
        assert_int_equal(count_queues(m), 2);

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                m = new_call(NULL, MANAGER, "ListQueues");
                if (*cases[i].type == 's')
                        assert_true(sd_bus_message_append(m, "a{sv}", 1, cases[i].key, "s", cases[i].s) >=
                                    0);
                else
                        assert_true(sd_bus_message_append(m, "a{sv}", 1, cases[i].key, cases[i].type,
                                                          cases[i].n) >= 0);
                assert_int_equal(count_queues(m), cases[i].want);
        }

        /* so many that the answer is made in slices, and all of them */
        for (unsigned a = 0; a < AP_IDS; a++)
                fake.snapshot->queue_present[a] = AP_MASK_ALL;
        ap_mask_clear(&fake.snapshot->queue_present[0], 7); /* so that slices do not end where adapters do */
        m = new_call(NULL, MANAGER, "ListQueues");
        append_options(m);
        assert_int_equal(count_queues(m), 65535);
        m = new_call(NULL, MANAGER, "ListQueues");
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "domain", "q", 3) >= 0);
        assert_int_equal(count_queues(m), 256);

        m = new_call(NULL, MANAGER, "ListQueues");
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "adapter", "q", 256) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "above 255");
}

/* ---- bad arguments ---- */

static void append_ids(sd_bus_message *m, size_t n, uint16_t step) {
        uint16_t ids[300];

        for (size_t i = 0; i < n; i++)
                ids[i] = (uint16_t) (i * step);
        assert_true(sd_bus_message_append_array(m, 'q', ids, n * sizeof *ids) >= 0);
}

static void test_bad_ids(void **state) {
        static const struct {
                const char *name;
                size_t n;
                uint16_t step;
                const char *text;
        } cases[] = {
                { "257 ids", 257, 1, "257 adapter ids" },
                { "4000", 2, 4000, "adapter id 4000 is above 255" },
                { "twice", 2, 0, "given twice" },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                sd_bus_message *m = new_call(NULL, MANAGER, "CheckMatrix");

                append_ids(m, cases[i].n, cases[i].step);
                assert_true(sd_bus_message_append(m, "aqaqa{sv}", 0, 0, 0) >= 0);
                fails(m, SD_BUS_ERROR_INVALID_ARGS, cases[i].text);
        }
        for (uint16_t n = 0; n < 2; n++) { /* without adapters, without domains */
                sd_bus_message *m = new_call(NULL, MANAGER, "CheckMatrix");

                append_ids(m, n, 1);
                append_ids(m, 1u - n, 1);
                assert_true(sd_bus_message_append(m, "aqa{sv}", 0, 0) >= 0);
                fails(m, SD_BUS_ERROR_INVALID_ARGS, n ? "one usage domain" : "one adapter");
        }
        assert_null(fake.asked);
}

static void test_bad_options(void **state) {
        sd_bus_message *m = new_call(NULL, MANAGER, "DefineMatrixXML");
        char longer[BUS_STRING_MAX + 2];

        assert_true(sd_bus_message_append(m, "sa{sv}", "<device/>", 1, "frob", "b", 1) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "unknown option 'frob'");

        m = new_call(NULL, MANAGER, "DefineMatrixXML");
        assert_true(sd_bus_message_append(m, "sa{sv}", "<device/>", 1, "start", "s", "yes") >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "option 'start' must be a boolean");

        m = new_call(NULL, MANAGER, "DefineMatrixXML");
        assert_true(sd_bus_message_append(m, "sa{sv}", "<device/>", 2, "start", "b", 1, "start", "b", 0) >=
                    0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "'start' was given twice");

        /* a text cut within a character would be no UTF-8, for which the bus throws its sender out */
        memset(longer, 'x', sizeof longer);
        strcpy(longer + BUS_STRING_MAX - 1, "\u00e9");
        m = new_call(NULL, MANAGER, "DefineMatrixXML");
        assert_true(sd_bus_message_append(m, "sa{sv}", "<device/>", 1, longer, "b", 1) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "an option's name is 256 bytes long");
        assert_null(fake.asked);
}

static void test_bad_strings(void **state) {
        CLEANUP(freep) char *big = malloc(BUS_XML_MAX + 2);
        static const char *const uuids[] = { "banana", "c2010203-0405-0607-0809-0a0b0c0d0ea", UUID1_TEXT "0",
                                             "00000000-0000-0000-0000-000000000000" };
        sd_bus_message *m;

        memset(big, 'x', BUS_XML_MAX + 1);
        big[BUS_XML_MAX + 1] = '\0';

        m = new_call(NULL, MANAGER, "DefineMatrixXML");
        assert_true(sd_bus_message_append(m, "sa{sv}", big, 0) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "65537 bytes");

        big[10240] = '\0';
        m = new_call(NULL, MANAGER, "DefineMatrix");
        assert_true(sd_bus_message_append(m, "ssaqaqaqa{sv}", big, "", 0, 0, 0, 0) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "name is 10240 bytes long");

        m = new_call(NULL, MANAGER, "GetMatrix");
        assert_true(sd_bus_message_append(m, "s", "") >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "must be given");

        /* what a caller sent comes back on one line */
        m = new_call(NULL, MANAGER, "GetMatrix");
        assert_true(sd_bus_message_append(m, "s", "a\n\033[2Jb") >= 0);
        fails(m, BUS_NAME ".Error.NoSuchMatrix", "'a??[2Jb'");
        m = new_call(NULL, MANAGER, "DefineMatrix");
        assert_true(sd_bus_message_append(m, "ssaqaqaqa{sv}", "x", "a\nb", 0, 0, 0, 0) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "'a?b'");

        for (size_t i = 0; i < ELEMENTS(uuids); i++) {
                m = new_call(NULL, MANAGER, "DefineMatrix");
                assert_true(sd_bus_message_append(m, "ssaqaqaqa{sv}", "x", uuids[i], 0, 0, 0, 0) >= 0);
                fails(m, SD_BUS_ERROR_INVALID_ARGS, "UUID");
        }
        assert_null(fake.asked);
}

static void test_bad_attributes(void **state) {
        sd_bus_message *m = new_call(NULL, MANAGER, "CreateMdev");

        assert_true(sd_bus_message_append(m, "sss", "mtty", "mtty-2", "") >= 0);
        assert_true(sd_bus_message_open_container(m, 'a', "(ss)") >= 0);
        for (unsigned i = 0; i <= BUS_ATTRS_MAX; i++)
                assert_true(sd_bus_message_append(m, "(ss)", "a", "b") >= 0);
        assert_true(sd_bus_message_close_container(m) >= 0);
        assert_true(sd_bus_message_append(m, "a{sv}", 0) >= 0);
        fails(m, SD_BUS_ERROR_INVALID_ARGS, "more than 256 attributes");
        assert_null(fake.asked);
}

static void test_paths(void **state) {
        static const char *const wrong[] = {
                BUS_ROOT "/matrix/C2010203_0405_0607_0809_0a0b0c0d0eab",
                BUS_ROOT "/matrix/" UUID1_PATH "/x",
                BUS_ROOT "/matrix/x/" UUID1_PATH,
                BUS_ROOT "/matrix/5",
        };
        Uuid untouched = uuid1;

        add_objects();
        for (size_t i = 0; i < ELEMENTS(wrong); i++) {
                fails(new_call(NULL, wrong[i], BUS_INTERFACE("Matrix"), "GetXML"),
                      SD_BUS_ERROR_UNKNOWN_OBJECT, "");
                assert_int_equal(bus_path_parse_uuid(wrong[i], "matrix", &untouched), -EINVAL);
                assert_true(uuid_equal(untouched, uuid1));
        }
}

/* ---- polkit ---- */

static void test_polkit_decides(void **state) {
        add_objects();
        check_polkit_decides(changing, ELEMENTS(changing));
        fails(call_of(&changing[0], ":1.x9"), SD_BUS_ERROR_ACCESS_DENIED, "gone");
}

static void test_polkit_is_asked_to_inspect(void **state) {
        static const char *const members[] = { "CheckMatrix", "ListQueues", "GetMatrix" };

        add_objects();
        for (size_t i = 0; i < ELEMENTS(members); i++) {
                sd_bus_message *m = new_call(":1.u5", MANAGER, members[i]);

                w.polkit = "no";
                assert_true((i == 0   ? sd_bus_message_append(m, "aqaqaqa{sv}", 1, 5, 1, 6, 0, 0)
                             : i == 1 ? sd_bus_message_append(m, "a{sv}", 0)
                                      : sd_bus_message_append(m, "s", "x")) >= 0);
                fails(m, SD_BUS_ERROR_ACCESS_DENIED, AUTHZ_INSPECT);
        }
}

static void test_interactive_flag(void **state) {
        sd_bus_message *m = call_of(&changing[0], ":1.u5");

        (void) sd_bus_message_unref(succeeds(m));
        assert_int_equal(w.flags, 0);

        m = call_of(&changing[0], ":1.u5");
        assert_true(sd_bus_message_set_allow_interactive_authorization(m, 1) >= 0);
        (void) sd_bus_message_unref(succeeds(m));
        assert_int_equal(w.flags, 1);
}

static int set_up_asking(void **state) {
        return set_up_with(&(BusConfig) {});
}

static void send_from(const char *sender, sd_bus_message **ret_reply) {
        sd_bus_message *m = call_of(&changing[0], sender);

        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, ret_reply, 0) >= 0);
        (void) sd_bus_message_unref(m);
}

/* The bus is asked once for each connection, and all calls that came meanwhile go on then. */
static void test_who_calls(void **state) {
        static const char *const senders[] = { ":1.r1", ":1.u1", ":1.r1", ":1.u1", ":1.r1" };
        sd_bus_message *replies[ELEMENTS(senders)] = {};

        for (size_t i = 0; i < ELEMENTS(senders); i++)
                send_from(senders[i], &replies[i]);
        for (size_t i = 0; i < ELEMENTS(senders); i++) {
                run_until(&replies[i]);
                assert_false(sd_bus_message_is_method_error(replies[i], NULL));
                (void) sd_bus_message_unref(replies[i]);
        }
        assert_int_equal(w.n_who, 2);
        assert_int_equal(w.n_asked, 2); /* polkit, for each call of the user */
        assert_int_equal(fake.n_asked, ELEMENTS(senders));

        (void) sd_bus_message_unref(succeeds(call_of(&changing[0], ":1.r1")));
        assert_int_equal(fake.uid, 0);
        (void) sd_bus_message_unref(succeeds(call_of(&changing[0], ":1.u1")));
        assert_int_equal(fake.uid, USER);
        assert_int_equal(w.n_who, 2);
}

/* Nobody is taken for root, nor for whoever the daemon runs as, because the bus did not say who it is. */
static void test_nobody_calls(void **state) {
        sd_bus_message *replies[3] = {};

        for (size_t i = 0; i < ELEMENTS(replies); i++)
                send_from(":1.x1", &replies[i]);
        for (size_t i = 0; i < ELEMENTS(replies); i++) {
                run_until(&replies[i]);
                assert_string_equal(sd_bus_message_get_error(replies[i])->name, SD_BUS_ERROR_ACCESS_DENIED);
                assert_string_equal(sd_bus_message_get_error(replies[i])->message, "The caller is gone");
                (void) sd_bus_message_unref(replies[i]);
        }
        assert_int_equal(fake.n_asked + w.n_asked, 0);
        fails(call_of(&changing[0], ":1.x1"), SD_BUS_ERROR_ACCESS_DENIED, "gone"); /* it is not remembered */
        assert_int_equal(w.n_who, 2);
}

/* A bus that does not answer holds up nobody else, and does not make us keep whatever a client sends. */
static void test_bus_does_not_say_who(void **state) {
        sd_bus_message *replies[1024] = {};

        add_objects();
        w.who_hangs = true;
        for (size_t i = 0; i < ELEMENTS(replies); i++)
                send_from(":1.r1", &replies[i]);
        fails(call_of(&changing[0], ":1.r1"), BUS_NAME ".Error.LimitHit", "who calls");
        assert_int_equal(w.n_who, 1);
        (void) sd_bus_message_unref(succeeds(call_of(&changing[5], NULL)));
        for (size_t i = 0; i < ELEMENTS(replies); i++)
                assert_null(replies[i]);
}

static int set_up_impatient(void **state) {
        return set_up_with(&(BusConfig) {
                .sender_uid = sender_uid, .authz_timeout_us = 2000000, .max_asks_per_uid = 3 });
}

static void test_hanging_polkit(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *first = NULL;
        sd_bus_message *m;

        add_objects();
        w.polkit = "hang";
        m = call_of(&changing[0], ":1.u5");
        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &first, 0) >= 0);
        (void) sd_bus_message_unref(m);

        /* root is served meanwhile */
        (void) sd_bus_message_unref(succeeds(call_of(&changing[5], NULL)));
        assert_null(first);

        run_until(&first);
        assert_string_equal(sd_bus_message_get_error(first)->name, SD_BUS_ERROR_ACCESS_DENIED);
        assert_string_equal(fake.asked, "start");
}

static void test_waiting_for_polkit_is_limited(void **state) {
        sd_bus_message *m, *replies[3] = {};

        w.polkit = "hang";
        for (size_t i = 0; i < 3; i++) {
                m = call_of(&changing[0],
                            i % 2 ? ":1.u5" : ":1.u6"); /* of one user, from several connections */
                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &replies[i], 0) >= 0);
                (void) sd_bus_message_unref(m);
        }
        fails(call_of(&changing[0], ":1.u5"), BUS_NAME ".Error.LimitHit", "polkit");
        (void) sd_bus_message_unref(succeeds(call_of(&changing[0], NULL)));

        for (size_t i = 0; i < 3; i++) {
                run_until(&replies[i]);
                (void) sd_bus_message_unref(replies[i]);
        }
}

static void test_object_vanishes_while_polkit_thinks(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        sd_bus_message *m;

        add_objects();
        m = new_call(":1.u5", MATRIX1, BUS_INTERFACE("Matrix"), "GetXML");
        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &reply, 0) >= 0);
        (void) sd_bus_message_unref(m);
        while (w.n_asked == 0)
                assert_true(sd_event_run(w.event, 2000000) > 0);
        fake.n_matrices = 0;
        fake.later = VERDICT_NO_SUCH_MATRIX;
        run_until(&reply);
        assert_false(sd_bus_message_is_method_error(reply, SD_BUS_ERROR_UNKNOWN_OBJECT));
}

/* Calls that the engine never answers go with the bus. */
static void test_free_with_calls_under_way(void **state) {
        sd_bus_message *m = call_of(&changing[0], NULL);

        fake.hang = true;
        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, NULL, 0) >= 0);
        (void) sd_bus_message_unref(m);
        w.polkit = "hang";
        m = call_of(&changing[0], ":1.u5");
        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, NULL, 0) >= 0);
        (void) sd_bus_message_unref(m);
        while (fake.n_asked == 0 || w.n_asked == 0)
                assert_true(sd_event_run(w.event, 2000000) > 0);
        bus_on_engine_event(&w.bus, &(EngineKey) { .object = ENGINE_MATRIX, .uuid = uuid1 }, ENGINE_CHANGED);
        w.bus = bus_free(w.bus); /* the sanitizers look at the rest */
}

/* ---- objects and signals ---- */

static void test_managed_objects(void **state) {
        static const char *const want[] = { MATRIX1, MDEV1, BUS_ROOT "/adapter/05",
                                            BUS_ROOT "/parent/mtty_2d_c3_a9_2e1" };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        bool seen[ELEMENTS(want)] = {};
        const char *path;
        int r;

        add_objects();
        reply = succeeds(
                new_call(NULL, BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"));
        assert_true(sd_bus_message_enter_container(reply, 'a', "{oa{sa{sv}}}") > 0);
        while ((r = sd_bus_message_enter_container(reply, 'e', "oa{sa{sv}}")) > 0) {
                assert_true(sd_bus_message_read(reply, "o", &path) > 0);
                for (size_t i = 0; i < ELEMENTS(want); i++)
                        if (strcmp(path, want[i]) == 0)
                                seen[i] = true;
                assert_true(sd_bus_message_skip(reply, "a{sa{sv}}") > 0);
                assert_true(sd_bus_message_exit_container(reply) > 0);
        }
        assert_true(r == 0);
        for (size_t i = 0; i < ELEMENTS(want); i++)
                if (!seen[i])
                        fail_msg("%s is missing", want[i]);
}

static void test_text_is_made_fit_for_the_bus(void **state) {
        static const struct {
                const char *name, *in, *out;
        } cases[] = {
                { "ascii", "abc", "abc" },
                { "utf-8", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91" },
                { "lone byte",
                  "a\xff"
                  "b",
                  "a?b" },
                { "cut off", "a\xe2\x82", "a??" },
                { "overlong", "\xc0\xaf", "??" },
                { "surrogate", "\xed\xa0\x80", "???" },
                { "too high", "\xf4\x90\x80\x80", "????" },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(freep) char *s = bus_text(cases[i].in);

                assert_string_equal(s, cases[i].out);
        }
}

static void change(EngineObject object, EngineChange what) {
        bus_on_engine_event(&w.bus,
                            &(EngineKey) { .object = object, .uuid = uuid1, .id = 5, .name = "mtty-é.1" },
                            what);
}

static void test_signals_are_merged(void **state) {
        add_objects();
        settle();

        for (unsigned i = 0; i < 100; i++)
                change(ENGINE_MATRIX, ENGINE_CHANGED);
        settle();
        assert_int_equal(heard("PropertiesChanged " MATRIX1), 1);

        w.n_signals = 0;
        change(ENGINE_MATRIX, ENGINE_ADDED);
        change(ENGINE_MATRIX, ENGINE_CHANGED);
        change(ENGINE_ADAPTER, ENGINE_CHANGED);
        change(ENGINE_PARENT, ENGINE_CHANGED);
        settle();
        assert_int_equal(heard("InterfacesAdded " MATRIX1), 1);
        assert_int_equal(heard("PropertiesChanged " MATRIX1), 0);
        assert_int_equal(heard("PropertiesChanged " BUS_ROOT), 1); /* its counters */
        assert_int_equal(heard("PropertiesChanged " BUS_ROOT "/adapter/05"), 1);
        assert_int_equal(heard("PropertiesChanged " BUS_ROOT "/parent/mtty_2d_c3_a9_2e1"), 1);

        w.n_signals = 0;
        change(ENGINE_MATRIX, ENGINE_CHANGED);
        change(ENGINE_MATRIX, ENGINE_REMOVED);
        settle();
        assert_int_equal(heard("InterfacesRemoved " MATRIX1), 1);
        assert_int_equal(heard("PropertiesChanged " MATRIX1), 0);

        w.n_signals = 0;
        change(ENGINE_MDEV, ENGINE_ADDED);
        change(ENGINE_MDEV, ENGINE_REMOVED); /* nobody has seen it */
        settle();
        assert_int_equal(heard("InterfacesAdded " MDEV1) + heard("InterfacesRemoved " MDEV1), 0);

        w.n_signals = 0;
        change(ENGINE_MDEV, ENGINE_REMOVED);
        change(ENGINE_MDEV, ENGINE_ADDED); /* another one with its name */
        settle();
        assert_int_equal(heard("InterfacesRemoved " MDEV1), 1);
        assert_int_equal(heard("InterfacesAdded " MDEV1), 1);
        assert_string_equal(w.signals[0], "InterfacesRemoved " MDEV1);
}

static int on_properties(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        char *names = userdata;
        const char *name;

        if (!sd_bus_message_is_signal(m, "org.freedesktop.DBus.Properties", "PropertiesChanged"))
                return 0;
        assert_true(sd_bus_message_skip(m, "s") >= 0);
        assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") > 0);
        while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
                assert_true(sd_bus_message_read(m, "s", &name) > 0);
                (void) snprintf(names + strlen(names), 256 - strlen(names), " %s", name);
                assert_true(sd_bus_message_skip(m, "v") >= 0);
                assert_true(sd_bus_message_exit_container(m) >= 0);
        }
        return 0;
}

/* What the host has of a matrix changes often, its definition hardly ever: a signal names what has changed. */
static void test_signals_name_what_changed(void **state) {
        char names[256] = "";
        sd_bus_slot *slot;

        add_objects();
        settle();
        assert_true(sd_bus_add_filter(w.client, &slot, on_properties, names) >= 0);
        change(ENGINE_MATRIX, ENGINE_LIVED);
        change(ENGINE_MATRIX, ENGINE_LIVED);
        settle();
        assert_string_equal(names, " State GuestAdapters GuestDomains InUse Problems");

        names[0] = '\0';
        change(ENGINE_MATRIX, ENGINE_LIVED);
        change(ENGINE_MATRIX, ENGINE_CHANGED);
        settle();
        assert_non_null(strstr(names, " Adapters "));
        assert_non_null(strstr(names, " State "));
        (void) sd_bus_slot_unref(slot);
}

/* And before what follows from that for others. */
static void test_reply_comes_after_its_signal(void **state) {
        sd_bus_message *reply = NULL, *m = call_of(&changing[0], NULL);

        add_objects();
        settle();
        w.n_signals = 0;
        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &reply, 0) >= 0);
        (void) sd_bus_message_unref(m);
        while (fake.n_asked == 0)
                assert_true(sd_event_run(w.event, 2000000) > 0);
        change(ENGINE_MDEV, ENGINE_ADDED);
        change(ENGINE_MATRIX, ENGINE_ADDED);
        assert_true(w.bus->waking && !w.bus->awake); /* not at once: replies first */
        run_until(&reply);
        assert_int_equal(w.n_signals, 1);
        assert_int_equal(heard("InterfacesAdded " MATRIX1), 1);
        (void) sd_bus_message_unref(reply);
        settle();
        assert_int_equal(heard("InterfacesAdded " MDEV1), 1);
        assert_int_equal(heard("PropertiesChanged " BUS_ROOT), 1);

        /* of one without a definition */
        w.n_signals = 0;
        reply = NULL;
        m = call_of(&changing[0], NULL);
        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &reply, 0) >= 0);
        (void) sd_bus_message_unref(m);
        while (fake.n_asked < 2)
                assert_true(sd_event_run(w.event, 2000000) > 0);
        change(ENGINE_MDEV, ENGINE_REMOVED);
        run_until(&reply);
        assert_int_equal(heard("InterfacesRemoved " MDEV1), 1);
        (void) sd_bus_message_unref(reply);
}

int main(void) {
#define TEST(f)      cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define IMPATIENT(f) cmocka_unit_test_setup_teardown(f, set_up_impatient, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(test_methods_reach_the_engine),
                TEST(test_define_arguments),
                TEST(test_errors_have_names),
                TEST(test_broken_is_an_errno),
                TEST(test_kernel_errors_tell_the_errno),
                TEST(test_reload),
                TEST(test_reconcile),
                TEST(test_host),
                TEST(test_dry_runs_are_questions),
                TEST(test_check),
                TEST(test_check_without_ap_bus),
                TEST(test_explain_and_xml),
                TEST(test_list_queues),
                TEST(test_bad_ids),
                TEST(test_bad_options),
                TEST(test_bad_strings),
                TEST(test_bad_attributes),
                TEST(test_paths),
                TEST(test_polkit_decides),
                TEST(test_polkit_is_asked_to_inspect),
                TEST(test_interactive_flag),
                cmocka_unit_test_setup_teardown(test_who_calls, set_up_asking, tear_down),
                cmocka_unit_test_setup_teardown(test_nobody_calls, set_up_asking, tear_down),
                cmocka_unit_test_setup_teardown(test_bus_does_not_say_who, set_up_asking, tear_down),
                IMPATIENT(test_hanging_polkit),
                IMPATIENT(test_waiting_for_polkit_is_limited),
                TEST(test_object_vanishes_while_polkit_thinks),
                TEST(test_free_with_calls_under_way),
                TEST(test_managed_objects),
                TEST(test_text_is_made_fit_for_the_bus),
                TEST(test_signals_are_merged),
                TEST(test_signals_name_what_changed),
                TEST(test_reply_comes_after_its_signal),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
