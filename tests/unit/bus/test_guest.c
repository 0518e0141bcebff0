/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Guests, TPMs and the hook on the bus: every method and property, what it hands to the engine, limits on arguments,
 * descriptors, what there is without libvirt or TPMs. */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "bus_world.h"

#define GUEST GUEST1, BUS_INTERFACE("Guest")
#define TPM   TPM1, BUS_INTERFACE("Tpm")
#define HOOK  BUS_ROOT, BUS_INTERFACE("Hook")

static const Uuid uuid2 = { { 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6 } };
#define UUID2_TEXT "09080706-0504-0302-0100-010203040506"

static int file_fd = -1;

static int set_up_file(void **state) {
        static const char text[] = "saved before";

        file_fd = memfd_create("file", MFD_CLOEXEC);
        assert_true(file_fd >= 0);
        assert_int_equal(write(file_fd, text, strlen(text)), strlen(text));
        assert_int_equal(set_up(state), 0);
        settle(); /* only a connection that stands takes descriptors */
        return 0;
}

static int tear_down_file(void **state) {
        file_fd = fd_close(file_fd);
        return tear_down(state);
}

/* ---- every method ---- */

static void append_no_live(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sa{sv}", "payments-1", 1, "live", "b", 0) >= 0);
}
static void append_detach(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "live", "b", 0) >= 0);
}
static void append_tpm(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sa{sv}", "vm1", 1, "model", "s", "tis") >= 0);
}
static void append_define(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "ssa{sv}", "vm2", UUID2_TEXT, 10, "guest", "s", "guest 2",
                                          "ephemeral", "b", 1, "encrypted", "b", 1, "key-file", "s", "/key",
                                          "pcr-banks", "s", "sha1,sha256", "profile", "s",
                                          "{\"Name\":\"x\"}", "ca-config", "s", "/ca.conf", "certificates",
                                          "b", 0, "platform-keep", "b", 1, "deny", "au", 2, 0x126,
                                          0x139) >= 0);
}
static void append_restore(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "hsa{sv}", file_fd, "vm2", 2, "uuid", "s", UUID2_TEXT, "guest",
                                          "s", "guest 2") >= 0);
}
static void append_import(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "ssa{sv}", "/var/lib/libvirt/swtpm/x", "vm2", 5, "uuid", "s",
                                          UUID2_TEXT, "guest", "s", "guest 2", "key-file", "s", "/key",
                                          "platform-keep", "b", 1, "deny", "au", 1, 0x144) >= 0);
}
static void append_model(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "model", "s", "crb") >= 0);
}
static void append_wipe(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "a{sv}", 1, "wipe", "b", 1) >= 0);
}
static void append_file(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "ha{sv}", file_fd, 0) >= 0);
}
static void append_event(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "sssssa{sv}", "prepare", "begin", "-", "vm1", UUID1_TEXT, 6,
                                          "mdevs", "as", 2, UUID1_TEXT, UUID2_TEXT, "matrix", "s",
                                          "payments-1", "tpm", "s", "vm1", "tpm-wish", "s", "virtio",
                                          "tpm-model", "s", "crb", "tpm-socket", "s", "/run/x.sock") >= 0);
}

static const Method methods[] = {
        { "attach matrix", GUEST, "AttachMatrix", AUTHZ_WIRE_GUEST, "attach_matrix", append_no_live },
        { "detach matrix", GUEST, "DetachMatrix", AUTHZ_WIRE_GUEST, "detach_matrix", append_detach },
        { "attach tpm", GUEST, "AttachTpm", AUTHZ_WIRE_GUEST, "attach_tpm", append_tpm },
        { "detach tpm", GUEST, "DetachTpm", AUTHZ_WIRE_GUEST, "detach_tpm", append_options },
        { "define", MANAGER, "DefineTpm", AUTHZ_MANAGE_TPM, "define_tpm", append_define },
        { "restore", MANAGER, "RestoreTpm", AUTHZ_MANAGE_TPM, "restore_tpm", append_restore },
        { "import", MANAGER, "ImportTpm", AUTHZ_MANAGE_TPM, "import_tpm", append_import },
        { "start", TPM, "Start", AUTHZ_MANAGE_TPM, "start_tpm", append_model },
        { "stop", TPM, "Stop", AUTHZ_MANAGE_TPM, "stop_tpm", append_options },
        { "undefine", TPM, "Undefine", AUTHZ_MANAGE_TPM, "undefine_tpm", append_wipe },
        { "backup", TPM, "Backup", AUTHZ_MANAGE_TPM, "backup_tpm", append_file },
        { "counters", TPM, "GetCounters", AUTHZ_INSPECT, "tpm_counters", append_nothing },
        { "event", HOOK, "Event", NULL, "hook", append_event }, /* the last: polkit is not asked */
};
#define N_ASKED (ELEMENTS(methods) - 1)
static const Method *const event = &methods[N_ASKED];

static sd_bus_message *method_call(const char *name) {
        for (size_t i = 0; i < ELEMENTS(methods); i++)
                if (strcmp(methods[i].name, name) == 0)
                        return call_of(&methods[i], NULL);

        fail_msg("no method %s", name);
        return NULL;
}

static void test_methods_reach_the_engine(void **state) {
        add_objects();
        check_methods_reach_the_engine(methods, ELEMENTS(methods));
}

static void test_errors_have_names(void **state) {
        add_objects();
        check_errors_have_names(methods, ELEMENTS(methods));
}

static void test_broken_is_an_errno(void **state) {
        add_objects();
        check_broken_is_an_errno(methods, ELEMENTS(methods));
}

static void test_polkit_decides(void **state) {
        static const char *const members[] = { "GetGuest", "GetTpm" };

        add_objects();
        check_polkit_decides(methods, N_ASKED);

        w.polkit = "no";
        for (size_t i = 0; i < ELEMENTS(members); i++) {
                sd_bus_message *m = new_call(":1.u5", MANAGER, members[i]);

                assert_true(sd_bus_message_append(m, "s", "vm1") >= 0);
                fails(m, SD_BUS_ERROR_ACCESS_DENIED, AUTHZ_INSPECT);
        }
}

/* ---- what they hand over ---- */

static void done(const char *name) {
        (void) sd_bus_message_unref(succeeds(method_call(name)));
        assert_true(uuid_equal(fake.asked_uuid, uuid1));
}

static void test_wiring_arguments(void **state) {
        sd_bus_message *m;

        add_objects();
        done("attach matrix");
        assert_true(uuid_equal(fake.asked_other, uuid1) && !fake.flag);
        done("detach matrix");
        assert_false(fake.flag);
        done("attach tpm");
        assert_true(uuid_equal(fake.asked_other, uuid1));
        assert_int_equal(fake.model, TPM_MODEL_TIS);

        /* what is not said */
        m = new_call(NULL, GUEST, "AttachMatrix");
        assert_true(sd_bus_message_append(m, "sa{sv}", "payments-1", 0) >= 0);
        (void) sd_bus_message_unref(succeeds(m));
        assert_true(fake.flag);
        m = new_call(NULL, GUEST, "DetachMatrix");
        append_options(m);
        (void) sd_bus_message_unref(succeeds(m));
        assert_true(fake.flag);
        for (int given = 0; given < 2; given++) {
                m = new_call(NULL, GUEST, "AttachTpm");
                assert_true(sd_bus_message_append(m, "sa{sv}", "vm1", given, "model", "s", "") >= 0);
                (void) sd_bus_message_unref(succeeds(m));
                assert_int_equal(fake.model, TPM_MODEL_NONE);
        }
}

static void test_notes(void **state) {
        static const char *const notes[] = { "the next start", "bad \xff", NULL };
        const char *a, *b;

        add_objects();
        fake.notes = notes;
        for (size_t i = 0; i < 4; i++) {
                CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = succeeds(call_of(&methods[i], NULL));

                assert_true(sd_bus_message_read(reply, "as", 2, &a, &b) > 0);
                assert_string_equal(a, "the next start");
                assert_string_equal(b, "bad ?");
        }

        fake.notes = NULL;
        for (size_t i = 0; i < 4; i++) {
                CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = succeeds(call_of(&methods[i], NULL));

                assert_true(sd_bus_message_has_signature(reply, "as"));
                assert_true(sd_bus_message_read(reply, "as", 0) >= 0);
        }
}

static void test_define_arguments(void **state) {
        sd_bus_message *m;

        returns_path(method_call("define"), TPM1);
        assert_string_equal(fake.spec.name, "vm2");
        assert_true(uuid_equal(fake.spec.uuid, uuid2));
        assert_string_equal(fake.spec.guest, "guest 2");
        assert_true(fake.spec.ephemeral && fake.spec.encrypted && fake.spec.no_certificates &&
                    fake.spec.platform_keep);
        assert_string_equal(fake.spec.key_file, "/key");
        assert_string_equal(fake.spec.pcr_banks, "sha1,sha256");
        assert_string_equal(fake.spec.profile, "{\"Name\":\"x\"}");
        assert_string_equal(fake.spec.ca_config, "/ca.conf");
        assert_int_equal(fake.spec.n_denied, 2);
        assert_true(fake.denied[0] == 0x126 && fake.denied[1] == 0x139);
        assert_int_equal(fake.spec.owner, 0);

        m = new_call(NULL, MANAGER, "DefineTpm"); /* nothing but a name; "" is nothing */
        assert_true(sd_bus_message_append(m, "ssa{sv}", "x", "", 2, "guest", "s", "", "pcr-banks", "s",
                                          "") >= 0);
        returns_path(m, TPM1);
        assert_true(uuid_is_null(fake.spec.uuid));
        assert_true(!fake.spec.guest && !fake.spec.key_file && !fake.spec.pcr_banks && !fake.spec.profile &&
                    !fake.spec.ca_config && fake.spec.n_denied == 0);
        assert_false(fake.spec.ephemeral || fake.spec.encrypted || fake.spec.no_certificates ||
                     fake.spec.platform_keep);

        returns_path(call_of(&methods[4], ":1.u5"), TPM1);
        assert_int_equal(fake.spec.owner, USER);
}

static void test_restore_and_import_arguments(void **state) {
        sd_bus_message *m;

        returns_path(method_call("restore"), TPM1);
        assert_string_equal(fake.bytes, "saved before");
        assert_string_equal(fake.spec.name, "vm2");
        assert_string_equal(fake.spec.guest, "guest 2");
        assert_true(uuid_equal(fake.spec.uuid, uuid2));

        m = new_call(NULL, MANAGER, "RestoreTpm");
        assert_true(sd_bus_message_append(m, "hsa{sv}", file_fd, "", 0) >= 0);
        returns_path(m, TPM1);
        assert_true(!fake.spec.name && !fake.spec.guest && uuid_is_null(fake.spec.uuid));

        returns_path(method_call("import"), TPM1);
        assert_string_equal(fake.texts[7], "/var/lib/libvirt/swtpm/x");
        assert_string_equal(fake.spec.name, "vm2");
        assert_string_equal(fake.spec.key_file, "/key");
        assert_true(fake.spec.platform_keep && !fake.spec.encrypted);
        assert_true(fake.spec.n_denied == 1 && fake.denied[0] == 0x144);
}

static void test_tpm_arguments(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        uint64_t a, b;
        const char *s, *t;
        char written[32] = "";
        sd_bus_message *m;

        add_objects();
        done("start");
        assert_int_equal(fake.model, TPM_MODEL_CRB);
        m = new_call(NULL, TPM, "Start");
        append_options(m);
        (void) sd_bus_message_unref(succeeds(m));
        assert_int_equal(fake.model, TPM_MODEL_VIRTIO);
        done("stop");
        done("undefine");
        assert_true(fake.flag);
        m = new_call(NULL, TPM, "Undefine");
        append_options(m);
        (void) sd_bus_message_unref(succeeds(m));
        assert_false(fake.flag);

        assert_int_equal(ftruncate(file_fd, 0), 0);
        assert_int_equal(lseek(file_fd, 0, SEEK_SET), 0);
        done("backup");
        assert_true(pread(file_fd, written, sizeof written - 1, 0) > 0);
        assert_string_equal(written, "a backup\n");

        reply = succeeds(method_call("counters"));
        assert_true(sd_bus_message_read(reply, "a{st}", 2, &s, &a, &t, &b) > 0);
        assert_string_equal(s, "commands");
        assert_string_equal(t, "errors");
        assert_true(a == 17 && b == UINT64_MAX);
}

/* ---- the hook ---- */

static void test_hook_arguments(void **state) {
        sd_bus_message *m;

        (void) sd_bus_message_unref(succeeds(method_call("event")));
        assert_string_equal(fake.hook.operation, "prepare");
        assert_string_equal(fake.hook.suboperation, "begin");
        assert_string_equal(fake.hook.extra, "-");
        assert_string_equal(fake.hook.name, "vm1");
        assert_true(uuid_equal(fake.hook.guest, uuid1));
        assert_int_equal(fake.hook.n_mdevs, 2);
        assert_true(uuid_equal(fake.mdevs[0], uuid1) && uuid_equal(fake.mdevs[1], uuid2));
        assert_string_equal(fake.hook.matrix, "payments-1");
        assert_string_equal(fake.hook.tpm, "vm1");
        assert_int_equal(fake.hook.tpm_wish, TPM_MODEL_VIRTIO);
        assert_int_equal(fake.hook.tpm_model, TPM_MODEL_CRB);
        assert_string_equal(fake.hook.tpm_socket, "/run/x.sock");

        m = new_call(NULL, HOOK, "Event"); /* a guest that needs nothing; "" is nothing */
        assert_true(sd_bus_message_append(m, "sssssa{sv}", "release", "end", "-", "", UUID2_TEXT, 4, "mdevs",
                                          "as", 0, "tpm", "s", "", "tpm-wish", "s", "", "tpm-socket", "s",
                                          "") >= 0);
        (void) sd_bus_message_unref(succeeds(m));
        assert_true(uuid_equal(fake.hook.guest, uuid2));
        assert_true(fake.hook.n_mdevs == 0 && !fake.hook.matrix && !fake.hook.tpm && !fake.hook.tpm_socket);
        assert_true(fake.hook.tpm_wish == TPM_MODEL_NONE && fake.hook.tpm_model == TPM_MODEL_NONE);
}

static void test_hook_is_roots(void **state) {
        sd_bus_message *m = new_call(":1.u5", HOOK, "Event");

        fails(call_of(event, ":1.u5"), SD_BUS_ERROR_ACCESS_DENIED, "Only root may call 'Event'");
        fails(call_of(event, ":1.x5"), SD_BUS_ERROR_ACCESS_DENIED, "gone");
        /* nor does anybody learn what is wrong with his arguments */
        assert_true(sd_bus_message_append(m, "sssssa{sv}", "", "", "", "", "", 0) >= 0);
        fails(m, SD_BUS_ERROR_ACCESS_DENIED, "Only root");
        assert_null(fake.asked);
        assert_int_equal(w.n_asked, 0);
}

/* ---- bad arguments ---- */

static char *longer_than(size_t n) {
        char *s = malloc(n + 2);

        assert_non_null(s);
        memset(s, 'x', n + 1);
        *s = '/';
        s[n + 1] = '\0';
        return s;
}

static void append_string_option(sd_bus_message *m, const char *before, const char *option, const char *type,
                                 const char *value) {
        for (; *before; before++) /* s: a name; h: the file; u: no UUID; U: one */
                if (*before == 'h')
                        assert_true(sd_bus_message_append(m, "h", file_fd) >= 0);
                else
                        assert_true(sd_bus_message_append(m, "s",
                                                          *before == 'u'   ? ""
                                                          : *before == 'U' ? UUID1_TEXT
                                                          : *before == '/' ? "/x"
                                                                           : "vm1") >= 0);
        if (!option)
                append_options(m);
        else if (*type == 's')
                assert_true(sd_bus_message_append(m, "a{sv}", 1, option, "s", value) >= 0);
        else if (*type == 'b')
                assert_true(sd_bus_message_append(m, "a{sv}", 1, option, "b", 1) >= 0);
        else
                assert_true(sd_bus_message_append(m, "a{sv}", 1, option, type, 1, value) >= 0);
}

static void test_bad_options(void **state) {
        static const struct {
                const char *path, *interface, *member, *before, *option, *type, *value, *text;
        } cases[] = {
                { GUEST, "AttachMatrix", "s", "frob", "b", "", "unknown option 'frob'" },
                { GUEST, "AttachMatrix", "s", "live", "s", "no", "'live' must be a boolean" },
                { GUEST, "DetachMatrix", "", "model", "s", "crb", "unknown option 'model'" },
                { GUEST, "AttachTpm", "s", "model", "s", "pcie", "'pcie' is none of virtio, crb and tis" },
                { GUEST, "AttachTpm", "s", "model", "b", "", "'model' must be a string" },
                { GUEST, "DetachTpm", "", "live", "b", "", "unknown option 'live'" },
                { TPM, "Start", "", "model", "s", "Virtio", "'Virtio' is none of" },
                { TPM, "Stop", "", "wipe", "b", "", "unknown option 'wipe'" },
                { TPM, "Undefine", "", "wipe", "s", "yes", "'wipe' must be a boolean" },
                { TPM, "Backup", "h", "wipe", "b", "", "unknown option 'wipe'" },
                { MANAGER, "DefineTpm", "su", "key-file", "s", "key",
                  "key-file must be a path that begins" },
                { MANAGER, "DefineTpm", "su", "key-file", "s", "", "key-file must be a path that begins" },
                { MANAGER, "DefineTpm", "su", "ca-config", "s", "../x\n", "not '../x?'" },
                { MANAGER, "DefineTpm", "su", "uuid", "s", UUID1_TEXT, "unknown option 'uuid'" },
                { MANAGER, "DefineTpm", "su", "deny", "s", "1",
                  "'deny' must be an array of 32-bit numbers" },
                { MANAGER, "DefineTpm", "su", "deny", "as", "1", "'deny' must be an array of 32-bit" },
                { MANAGER, "DefineTpm", "ss", "guest", "s", "x", "'vm1' is no UUID" },
                { MANAGER, "DefineTpm", "uu", "guest", "s", "x", "a name must be given" },
                { MANAGER, "RestoreTpm", "hs", "uuid", "s", "x", "'x' is no UUID" },
                { MANAGER, "RestoreTpm", "hs", "encrypted", "b", "", "unknown option 'encrypted'" },
                { MANAGER, "ImportTpm", "ss", NULL, "", "",
                  "directory must be a path that begins with '/'" },
                { MANAGER, "ImportTpm", "/u", NULL, "", "", "a name must be given" },
                { MANAGER, "ImportTpm", "/s", "ephemeral", "b", "", "unknown option 'ephemeral'" },
                { HOOK, "Event", "sssss", NULL, "", "", "'vm1' is no UUID" },
                { HOOK, "Event", "ssssu", NULL, "", "", "the guest's UUID must be given" },
                { HOOK, "Event", "usssU", NULL, "", "", "an operation must be given" },
                { HOOK, "Event", "ssssU", "frob", "b", "", "unknown option 'frob'" },
                { HOOK, "Event", "ssssU", "mdevs", "s", UUID1_TEXT, "must be an array of strings" },
                { HOOK, "Event", "ssssU", "mdevs", "as", "x", "'x' is no UUID" },
                { HOOK, "Event", "ssssU", "mdevs", "as", "", "mdevs has an empty UUID" },
                { HOOK, "Event", "ssssU", "tpm-wish", "s", "x", "tpm-wish 'x' is none of" },
        };

        add_objects();
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                sd_bus_message *m = new_call(NULL, cases[i].path, cases[i].interface, cases[i].member);

                append_string_option(m, cases[i].before, cases[i].option, cases[i].type, cases[i].value);
                fails(m, SD_BUS_ERROR_INVALID_ARGS, cases[i].text);
        }
        assert_null(fake.asked);
}

static void test_long_arguments(void **state) {
        static const struct {
                const char *path, *interface, *member, *before, *option;
                size_t max;
        } cases[] = {
                { GUEST, "AttachTpm", "s", "model", BUS_STRING_MAX },
                { MANAGER, "DefineTpm", "su", "guest", BUS_STRING_MAX },
                { MANAGER, "DefineTpm", "su", "pcr-banks", BUS_STRING_MAX },
                { MANAGER, "DefineTpm", "su", "profile", BUS_TEXT_MAX },
                { MANAGER, "DefineTpm", "su", "key-file", BUS_TEXT_MAX },
                { MANAGER, "ImportTpm", "/s", "key-file", BUS_TEXT_MAX },
                { HOOK, "Event", "ssssU", "matrix", BUS_STRING_MAX },
                { HOOK, "Event", "ssssU", "tpm-socket", BUS_TEXT_MAX },
        };

        add_objects();
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(freep) char *s = longer_than(cases[i].max);
                sd_bus_message *m = new_call(NULL, cases[i].path, cases[i].interface, cases[i].member);
                char text[64];

                (void) snprintf(text, sizeof text, "%s is %zu bytes long, at most %zu", cases[i].option,
                                cases[i].max + 1, cases[i].max);
                append_string_option(m, cases[i].before, cases[i].option, "s", s);
                fails(m, SD_BUS_ERROR_INVALID_ARGS, text);
                assert_null(fake.asked);

                if (strcmp(cases[i].option, "model") == 0)
                        continue;
                s[cases[i].max] = '\0'; /* this is not too long */
                m = new_call(NULL, cases[i].path, cases[i].interface, cases[i].member);
                append_string_option(m, cases[i].before, cases[i].option, "s", s);
                (void) sd_bus_message_unref(succeeds(m));
                fake.asked = NULL;
        }
}

static void test_many_arguments(void **state) {
        uint32_t codes[BUS_CODES_MAX + 1] = {};

        for (size_t more = 0; more < 2; more++) {
                sd_bus_message *m = new_call(NULL, MANAGER, "DefineTpm");

                assert_true(sd_bus_message_append(m, "ss", "x", "") >= 0);
                assert_true(sd_bus_message_open_container(m, 'a', "{sv}") >= 0);
                assert_true(sd_bus_message_open_container(m, 'e', "sv") >= 0);
                assert_true(sd_bus_message_append(m, "s", "deny") >= 0);
                assert_true(sd_bus_message_open_container(m, 'v', "au") >= 0);
                assert_true(sd_bus_message_append_array(m, 'u', codes,
                                                        (BUS_CODES_MAX + more) * sizeof *codes) >= 0);
                for (size_t i = 0; i < 3; i++)
                        assert_true(sd_bus_message_close_container(m) >= 0);
                if (more)
                        fails(m, SD_BUS_ERROR_INVALID_ARGS, "deny has 65 numbers, at most 64");
                else
                        (void) sd_bus_message_unref(succeeds(m));
        }
        assert_int_equal(fake.n_asked, 1);

        for (size_t more = 0; more < 2; more++) {
                sd_bus_message *m = new_call(NULL, HOOK, "Event");

                assert_true(sd_bus_message_append(m, "sssss", "prepare", "begin", "-", "x", UUID1_TEXT) >=
                            0);
                assert_true(sd_bus_message_open_container(m, 'a', "{sv}") >= 0);
                assert_true(sd_bus_message_open_container(m, 'e', "sv") >= 0);
                assert_true(sd_bus_message_append(m, "s", "mdevs") >= 0);
                assert_true(sd_bus_message_open_container(m, 'v', "as") >= 0);
                assert_true(sd_bus_message_open_container(m, 'a', "s") >= 0);
                for (size_t i = 0; i < BUS_UUIDS_MAX + more; i++)
                        assert_true(sd_bus_message_append(m, "s", UUID2_TEXT) >= 0);
                for (size_t i = 0; i < 4; i++)
                        assert_true(sd_bus_message_close_container(m) >= 0);
                if (more)
                        fails(m, SD_BUS_ERROR_INVALID_ARGS, "mdevs has more than 64 UUIDs");
                else
                        (void) sd_bus_message_unref(succeeds(m));
        }
        assert_int_equal(fake.n_asked, 2);
        assert_int_equal(fake.hook.n_mdevs, BUS_UUIDS_MAX);
}

/* Descriptors that are no file, or not open for what is to be done with them. */
static void test_bad_descriptors(void **state) {
        enum { READ, WRITE, PATH, DIRECTORY, DEVICE, PIPE_READ, PIPE_WRITE, SOCKET, BOTH, N };
        static const struct {
                bool backup, restore; /* whether it will do */
        } want[N] = { [READ] = { false, true },
                      [WRITE] = { true, false },
                      [PIPE_READ] = { false, true },
                      [PIPE_WRITE] = { true, false },
                      [BOTH] = { true, true } };
        int fds[N], pipes[2], sockets[2];
        char path[64];

        add_objects();
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", file_fd);
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
        assert_int_equal(close(sockets[1]), 0);
        fds[READ] = open(path, O_RDONLY | O_CLOEXEC);
        fds[WRITE] = open(path, O_WRONLY | O_CLOEXEC);
        fds[PATH] = open(path, O_PATH | O_CLOEXEC);
        fds[DIRECTORY] = open("/", O_RDONLY | O_CLOEXEC);
        fds[DEVICE] = open("/dev/null", O_RDWR | O_CLOEXEC);
        fds[PIPE_READ] = pipes[0];
        fds[PIPE_WRITE] = pipes[1];
        fds[SOCKET] = sockets[0];
        fds[BOTH] = open(path, O_RDWR | O_CLOEXEC);

        for (size_t i = 0; i < N; i++) {
                bool is_file = i != PATH && i != DIRECTORY && i != DEVICE && i != SOCKET;

                assert_true(fds[i] >= 0);
                for (unsigned backup = 0; backup < 2; backup++) {
                        sd_bus_message *m = backup ? new_call(NULL, TPM, "Backup")
                                                   : new_call(NULL, MANAGER, "RestoreTpm");

                        fake.asked = NULL;
                        assert_true((backup ? sd_bus_message_append(m, "ha{sv}", fds[i], 0)
                                            : sd_bus_message_append(m, "hsa{sv}", fds[i], "", 0)) >= 0);
                        if (backup ? want[i].backup : want[i].restore) {
                                (void) sd_bus_message_unref(succeeds(m));
                                continue;
                        }
                        fails(m, SD_BUS_ERROR_INVALID_ARGS,
                              !is_file ? "must be an open regular file or pipe"
                              : backup ? "must be open for writing"
                                       : "must be open for reading");
                        assert_null(fake.asked);
                }
        }
        for (size_t i = 0; i < N; i++)
                assert_int_equal(close(fds[i]), 0);
}

/* ---- looking them up ---- */

static sd_bus_message *get(const char *member, const char *name) {
        sd_bus_message *m = new_call(NULL, MANAGER, member);

        assert_true(sd_bus_message_append(m, "s", name) >= 0);
        return m;
}

static void attach(const char *member, const char *name, const char *error, const char *text) {
        sd_bus_message *m = new_call(NULL, GUEST, member);

        assert_true(sd_bus_message_append(m, "sa{sv}", name, 0) >= 0);
        fails(m, error, text);
}

static void test_lookup(void **state) {
        add_objects();
        returns_path(get("GetGuest", "vm1"), GUEST1);
        returns_path(get("GetTpm", "vm1"), TPM1);
        fails(get("GetGuest", ""), SD_BUS_ERROR_INVALID_ARGS, "must be given");
        fails(get("GetTpm", ""), SD_BUS_ERROR_INVALID_ARGS, "must be given");
        fails(get("GetGuest", "a\nb"), BUS_NAME ".Error.NoSuchGuest", "there is no guest 'a?b'");
        fails(get("GetTpm", "a\nb"), BUS_NAME ".Error.NoSuchTpm", "there is no TPM 'a?b'");
        attach("AttachMatrix", "x", BUS_NAME ".Error.NoSuchMatrix", "'x'");
        attach("AttachTpm", "x", BUS_NAME ".Error.NoSuchTpm", "'x'");
        attach("AttachTpm", "", SD_BUS_ERROR_INVALID_ARGS, "must be given");
        assert_null(fake.asked);
}

/* One that has been defined a moment ago. */
static void test_guest_not_yet_told(void **state) {
        add_objects();
        fake.n_guests = 0;
        fake.late_guests = 1;
        returns_path(get("GetGuest", "vm1"), GUEST1);
        assert_int_equal(fake.n_asked_guests, 1);
        returns_path(get("GetGuest", "vm1"), GUEST1);
        assert_int_equal(fake.n_asked_guests, 1);
        assert_int_equal(fake.n_admitted, 0);
}

static void test_without_libvirt(void **state) {
        add_objects();
        fake.libvirt = "disconnected";
        returns_path(get("GetGuest", "vm1"), GUEST1); /* known from before */
        fails(get("GetGuest", "x"), BUS_NAME ".Error.BackendUnavailable",
              "guest 'x' is not known, and libvirt cannot be asked: no connection yet");
        fake.libvirt_problem = "its socket\nis not there";
        fails(get("GetGuest", "x"), BUS_NAME ".Error.BackendUnavailable", "asked: its socket?is not there");
        fake.libvirt = "none";
        fails(get("GetGuest", "x"), BUS_NAME ".Error.BackendUnavailable", "no libvirt is to be asked");
}

static void test_without_tpms(void **state) {
        static const char *const names[] = { "define", "restore", "import" };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;

        add_objects();
        fake.no_vtpm = true;
        for (size_t i = 0; i < ELEMENTS(names); i++)
                fails(method_call(names[i]), BUS_NAME ".Error.BackendUnavailable", "has no TPMs here");
        fails(get("GetTpm", "vm1"), BUS_NAME ".Error.BackendUnavailable", "has no TPMs here");
        attach("AttachTpm", "vm1", BUS_NAME ".Error.BackendUnavailable", "has no TPMs here");
        fails(method_call("start"), SD_BUS_ERROR_UNKNOWN_OBJECT, "");
        assert_null(fake.asked);
        reply = succeeds(
                new_call(NULL, BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"));
}

static void test_paths(void **state) {
        static const char *const wrong[] = { BUS_ROOT "/tpm/x", BUS_ROOT "/tpm/" UUID1_PATH "/x",
                                             BUS_ROOT "/tpm/09080706_0504_0302_0100_010203040506" };

        add_objects();
        for (size_t i = 0; i < ELEMENTS(wrong); i++)
                fails(new_call(NULL, wrong[i], BUS_INTERFACE("Tpm"), "GetCounters"),
                      SD_BUS_ERROR_UNKNOWN_OBJECT, "");
}

/* ---- properties, objects, signals ---- */

static void assert_property(const char *path, const char *interface, const char *name, const char *type,
                            const char *want) {
        sd_bus_message *m = new_call(NULL, path, "org.freedesktop.DBus.Properties", "Get");
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        char is[400] = "";
        const char *s;
        uint32_t u;
        int b, r;

        assert_true(sd_bus_message_append(m, "ss", interface, name) >= 0);
        reply = succeeds(m);
        assert_true(sd_bus_message_enter_container(reply, 'v', type) > 0);
        if (*type == 'a')
                assert_true(sd_bus_message_enter_container(reply, 'a', type + 1) >= 0);
        do {
                switch (type[strlen(type) - 1]) {
                case 's':
                        r = sd_bus_message_read(reply, "s", &s);
                        if (r > 0)
                                (void) snprintf(is + strlen(is), sizeof is - strlen(is), "%s;", s);
                        break;
                case 'b':
                        r = sd_bus_message_read(reply, "b", &b);
                        if (r > 0)
                                (void) snprintf(is, sizeof is, "%s;", b ? "yes" : "no");
                        break;
                default:
                        r = sd_bus_message_read(reply, "u", &u);
                        if (r > 0)
                                (void) snprintf(is + strlen(is), sizeof is - strlen(is), "%u;", u);
                }
                assert_true(r >= 0);
        } while (*type == 'a' && r > 0);
        if (strcmp(is, want) != 0)
                fail_msg("%s.%s is '%s', not '%s'", interface, name, is, want);
}

static void test_properties(void **state) {
        static const struct {
                const char *path, *interface, *name, *type, *want;
        } cases[] = {
                { GUEST, "UUID", "s", UUID1_TEXT ";" },
                { GUEST, "Name", "s", "vm1;" },
                { GUEST, "State", "s", "running;" },
                { GUEST, "Persistent", "b", "yes;" },
                { GUEST, "Active", "b", "yes;" },
                { GUEST, "Matrix", "s", "payments-1;" },
                { GUEST, "LiveMatrix", "s", ";" },
                { GUEST, "Tpm", "s", "vm1;" },
                { GUEST, "TpmModel", "s", "virtio;" },
                { GUEST, "LiveTpm", "s", "old;" },
                { GUEST, "LiveTpmModel", "s", "crb;" },
                { GUEST, "Problems", "as", "bad ? line;another;" },
                { TPM, "UUID", "s", UUID1_TEXT ";" },
                { TPM, "Name", "s", "vm1;" },
                { TPM, "State", "s", "running;" },
                { TPM, "Guest", "s", "vm1;" },
                { TPM, "Model", "s", "virtio;" },
                { TPM, "Ephemeral", "b", "no;" },
                { TPM, "Encrypted", "b", "yes;" },
                { TPM, "PcrBanks", "s", "sha256;" },
                { TPM, "Denied", "au", "294;313;" },
                { TPM, "OwnUID", "u", "1900000001;" },
                { TPM, "DeviceSocket", "s", "/run/guestcrypt/tpm/x/device.sock;" },
                { TPM, "SwtpmSocket", "s", "/run/guestcrypt/tpm/x/swtpm.sock;" },
                { TPM, "UID", "u", "1000;" },
                { TPM, "Problems", "as", "bad ? line;another;" },
                { MANAGER, "Libvirt", "s", "connected;" },
                { MANAGER, "NGuests", "u", "0;" },
                { MANAGER, "NTpms", "u", "0;" },
        };

        add_objects();
        for (size_t i = 0; i < ELEMENTS(cases); i++)
                assert_property(cases[i].path, cases[i].interface, cases[i].name, cases[i].type,
                                cases[i].want);

        /* what is not there is empty */
        fake.guests[0] = (EngineGuest) { .uuid = uuid1, .name = "vm1", .state = "shutoff" };
        fake.tpms[0] = (VtpmView) { .uuid = uuid1, .spec = { .name = "vm1" } };
        assert_property(GUEST, "Matrix", "s", ";");
        assert_property(GUEST, "TpmModel", "s", ";");
        assert_property(GUEST, "Problems", "as", "");
        assert_property(GUEST, "Active", "b", "no;");
        assert_property(TPM, "Guest", "s", ";");
        assert_property(TPM, "Model", "s", ";");
        assert_property(TPM, "Denied", "au", "");
        assert_property(TPM, "PcrBanks", "s", ";");
        assert_property(TPM, "Encrypted", "b", "no;");
        assert_property(TPM, "Problems", "as", "");
}

static void test_managed_objects(void **state) {
        static const char *const want[] = { GUEST1, TPM1 };
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        unsigned seen[ELEMENTS(want)] = {};
        const char *path;
        int r;

        add_objects();
        reply = succeeds(
                new_call(NULL, BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"));
        assert_true(sd_bus_message_enter_container(reply, 'a', "{oa{sa{sv}}}") > 0);
        while ((r = sd_bus_message_enter_container(reply, 'e', "oa{sa{sv}}")) > 0) {
                assert_true(sd_bus_message_read(reply, "o", &path) > 0);
                for (size_t i = 0; i < ELEMENTS(want); i++)
                        seen[i] += strcmp(path, want[i]) == 0;
                assert_true(sd_bus_message_skip(reply, "a{sa{sv}}") > 0);
                assert_true(sd_bus_message_exit_container(reply) > 0);
        }
        assert_true(r == 0);
        for (size_t i = 0; i < ELEMENTS(want); i++)
                assert_int_equal(seen[i], 1);
}

static void change(EngineObject object, EngineChange what) {
        bus_on_engine_event(&w.bus, &(EngineKey) { .object = object, .uuid = uuid1 }, what);
}

static void test_signals(void **state) {
        static const struct {
                EngineObject object;
                const char *added, *changed, *removed, *count;
        } cases[] = {
                { ENGINE_GUEST, "InterfacesAdded " GUEST1, "PropertiesChanged " GUEST1,
                  "InterfacesRemoved " GUEST1, "NGuests" },
                { ENGINE_TPM, "InterfacesAdded " TPM1, "PropertiesChanged " TPM1, "InterfacesRemoved " TPM1,
                  "NTpms" },
        };

        add_objects();
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                settle();
                w.n_signals = 0;
                change(cases[i].object, ENGINE_ADDED);
                settle();
                assert_int_equal(heard(cases[i].added), 1);
                assert_int_equal(heard("PropertiesChanged " BUS_ROOT), 1);
                assert_property(MANAGER, cases[i].count, "u", "1;");

                w.n_signals = 0;
                change(cases[i].object, ENGINE_CHANGED);
                change(cases[i].object, ENGINE_CHANGED);
                settle();
                assert_int_equal(w.n_signals, 1);
                assert_int_equal(heard(cases[i].changed), 1);

                w.n_signals = 0;
                change(cases[i].object, ENGINE_REMOVED);
                settle();
                assert_int_equal(heard(cases[i].removed), 1);
                assert_int_equal(heard("PropertiesChanged " BUS_ROOT), 1);
                assert_property(MANAGER, cases[i].count, "u", "0;");
        }
}

/* A reply comes after the signals about what it is about. */
static void test_replies_come_after_signals(void **state) {
        static const struct {
                const char *name, *signal;
                EngineObject object;
        } cases[] = { { "attach matrix", "PropertiesChanged " GUEST1, ENGINE_GUEST },
                      { "detach tpm", "PropertiesChanged " GUEST1, ENGINE_GUEST },
                      { "define", "PropertiesChanged " TPM1, ENGINE_TPM },
                      { "stop", "PropertiesChanged " TPM1, ENGINE_TPM } };

        add_objects();
        fake.uuid = uuid1;
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = method_call(cases[i].name), *reply = NULL;
                unsigned n = fake.n_asked;

                settle();
                w.n_signals = 0;
                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &reply, 0) >= 0);
                while (fake.n_asked == n)
                        assert_true(sd_event_run(w.event, 2000000) > 0);
                change(cases[i].object, ENGINE_CHANGED);
                run_until(&reply);
                assert_int_equal(heard(cases[i].signal), 1);
        }
}

/* What there is when the bus comes is counted. */
static void test_counts_of_the_beginning(void **state) {
        add_objects();
        w.bus = bus_free(w.bus);
        assert_true(bus_new(w.server, NULL, &(BusConfig) { .sender_uid = sender_uid }, &w.bus) >= 0);
        assert_property(MANAGER, "NGuests", "u", "1;");
        assert_property(MANAGER, "NTpms", "u", "1;");
        change(ENGINE_TPM, ENGINE_ADDED);
        assert_property(MANAGER, "NTpms", "u", "2;");
}

/* Calls that the engine never answers go with the bus, and so does a descriptor. */
static void test_free_with_calls_under_way(void **state) {
        add_objects();
        fake.hang = true;
        for (size_t i = 0; i < ELEMENTS(methods); i++) {
                CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = call_of(&methods[i], NULL);
                unsigned n = fake.n_asked;

                assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, NULL, 0) >= 0);
                while (fake.n_asked == n)
                        assert_true(sd_event_run(w.event, 2000000) > 0);
        }
        w.bus = bus_free(w.bus); /* the sanitizers look at the rest */
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_file, tear_down_file)
        const struct CMUnitTest tests[] = {
                TEST(test_methods_reach_the_engine),
                TEST(test_errors_have_names),
                TEST(test_broken_is_an_errno),
                TEST(test_polkit_decides),
                TEST(test_wiring_arguments),
                TEST(test_notes),
                TEST(test_define_arguments),
                TEST(test_restore_and_import_arguments),
                TEST(test_tpm_arguments),
                TEST(test_hook_arguments),
                TEST(test_hook_is_roots),
                TEST(test_bad_options),
                TEST(test_long_arguments),
                TEST(test_many_arguments),
                TEST(test_bad_descriptors),
                TEST(test_lookup),
                TEST(test_guest_not_yet_told),
                TEST(test_without_libvirt),
                TEST(test_without_tpms),
                TEST(test_paths),
                TEST(test_properties),
                TEST(test_managed_objects),
                TEST(test_signals),
                TEST(test_replies_come_after_signals),
                TEST(test_counts_of_the_beginning),
                TEST(test_free_with_calls_under_way),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
