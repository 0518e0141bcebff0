/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What guestcryptctl does without a daemon: usage, the grid, tables, JSON. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"

/* ---- usage ---- */

static int run(char **ret_out, char **ret_err, const char *const *args) {
        CLEANUP(fclosep) FILE *out = NULL, *err = NULL;
        char *argv[16] = { (char *) "guestcryptctl" };
        size_t n_out, n_err;
        int argc = 1;

        while (args[argc - 1]) {
                argv[argc] = (char *) args[argc - 1];
                argc++;
        }
        out = open_memstream(ret_out, &n_out);
        err = open_memstream(ret_err, &n_err);
        return cli_main(argc, argv, out, err);
}

static void test_usage(void **state) {
        static const struct {
                const char *args[10];
                int status;
                const char *text; /* on stdout with --json or for 0, else on stderr */
        } cases[] = {
                { { NULL }, CLI_USAGE, "a verb is needed" },
                { { "frob" }, CLI_USAGE, "unknown verb 'frob'" },
                { { "tpm-lost" }, CLI_USAGE, "unknown verb 'tpm-lost'" },
                { { "tpm-start", "x", "--model", "pcie" }, CLI_USAGE, "'pcie' is none of virtio, crb" },
                { { "guest-attach-tpm", "x", "--model", "" }, CLI_USAGE, "--model needs a value" },
                { { "guest-attach-tpm", "x", "--wipe" }, CLI_USAGE, "has no option --wipe" },
                { { "guest-attach-matrix", "x" }, CLI_USAGE, "missing argument" },
                { { "tpm-define", "x", "--deny", "0x139,x" }, CLI_USAGE, "'0x139,x' is no list" },
                { { "tpm-define", "x", "--deny", "1,,2" }, CLI_USAGE, "no list" },
                { { "tpm-define", "x", "--deny", "0139" }, CLI_USAGE, "no list" },
                { { "tpm-define", "x", "--deny", "0x100000000" }, CLI_USAGE, "no list" },
                { { "tpm-define", "x", "--deny", "-1" }, CLI_USAGE, "no list" },
                { { "tpm-define", "x", "--uuid", "1234" }, CLI_USAGE, "'1234' is no UUID" },
                { { "tpm-define", "x", "--host", "h", "--key-file", "key" }, CLI_USAGE, "begin with '/'" },
                { { "tpm-import", "dir", "x", "--host", "h" }, CLI_USAGE, "begin with '/'" },
                { { "tpm-backup", "x", "f", "--host", "h" }, CLI_USAGE, "which --host cannot" },
                { { "tpm-restore", "f", "--host", "h" }, CLI_USAGE, "which --host cannot" },
                { { "tpm-restore", "/nonexistent" }, CLI_FAILED, "cannot open '/nonexistent'" },
                { { "tpm-backup", "x", "/" }, CLI_FAILED, "'/' is there already, and no file" },
                { { "tpm-backup", "x", "/proc/self/cwd", "--force" }, CLI_FAILED, "already, and no file" },
                { { "tpm-backup", "x", "/nonexistent/f" }, CLI_FAILED, "cannot write '/nonexistent/f'" },
                { { "--frob" }, CLI_USAGE, "unknown option '--frob'" },
                { { "list", "--adapters", "1" }, CLI_USAGE, "'list' has no option --adapters" },
                { { "show" }, CLI_USAGE, "missing argument" },
                { { "show", "a", "b" }, CLI_USAGE, "superfluous argument" },
                { { "define", "x", "--adapters" }, CLI_USAGE, "--adapters needs a value" },
                { { "define", "x", "--adapters", "1", "--adapters", "2" },
                  CLI_USAGE,
                  "--adapters was given twice" },
                { { "define", "x", "--adapters", "1" }, CLI_USAGE, "needs --adapters and --domains" },
                { { "check", "--domains", "1" }, CLI_USAGE, "needs --adapters and --domains" },
                { { "define", "x", "--adapters", "banana", "--domains", "1" },
                  CLI_USAGE,
                  "'banana' is no list" },
                { { "define", "x", "--adapters", "", "--domains", "1" },
                  CLI_USAGE,
                  "--adapters needs a value, not ''" },
                { { "define", "x", "--adapters", "-1", "--domains", "1" }, CLI_USAGE, "'-1' is no list" },
                { { "define", "x", "--adapters", "4000", "--domains", "1" }, CLI_USAGE, "above 255" },
                { { "modify", "x" }, CLI_USAGE, "something to change" },
                { { "modify", "x", "--autostart", "--no-autostart" }, CLI_USAGE, "exclude each other" },
                { { "mdev-remove", "1234" }, CLI_USAGE, "'1234' is no UUID" },
                { { "mdev-remove", "00000000-0000-0000-0000-000000000000" }, CLI_USAGE, "null UUID" },
                { { "mdev-create", "a", "b", "--uuid", "1234" }, CLI_USAGE, "'1234' is no UUID" },
                { { "define", "x", "--adapters", "1", "--domains", "1", "--uuid", "banana" },
                  CLI_USAGE,
                  "'banana' is no UUID" },
                { { "define", "x", "--adapters", "1", "--domains", "1", "--uuid", "" },
                  CLI_USAGE,
                  "--uuid needs a value, not ''" },
                { { "define", "", "--adapters", "1", "--domains", "1" }, CLI_USAGE, "empty argument" },
                { { "show", "" }, CLI_USAGE, "empty argument" },
                { { "fr\nob\033[2J" }, CLI_USAGE, "unknown verb 'fr?ob?[2J'" },
                { { "-xh" }, CLI_USAGE, "unknown option '-x'" },
                { { "z\xc3\xbcrich\xff" }, CLI_USAGE, "unknown verb 'z\xc3\xbcrich?'" },
                { { "--json", "fr\xff\nob" },
                  CLI_USAGE,
                  "{\"error\":{\"name\":\"Usage\",\"message\":\"unknown verb 'fr??ob'" },
                { { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" },
                  CLI_USAGE,
                  "unknown verb 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'; see" },
                { { "define-xml", "/dev/zero" }, CLI_FAILED, "'/dev/zero' is longer than 65536 bytes" },
                { { "mdev-create", "mtty", "mtty-1", "--attr", "x" }, CLI_USAGE, "'x' is not NAME=VALUE" },
                { { "masks", "--adapters", "1" }, CLI_USAGE, "both" },
                { { "frob", "--json" },
                  CLI_USAGE,
                  "{\"error\":{\"name\":\"Usage\",\"message\":\"unknown verb 'frob'" },
                { { "--json", "--frob" }, CLI_USAGE, "{\"error\":{" },
                { { "define-xml", "/nonexistent" }, CLI_FAILED, "cannot open '/nonexistent'" },
                { { "list" }, CLI_FAILED, "cannot connect" },
                { { "--js", "list" }, CLI_FAILED, "{\"error\":{" },
                { { "define", "--guest", "--json" }, CLI_USAGE, "missing argument" },
                { { "--help" }, CLI_DONE, "mdev-create PARENT TYPE" },
                { { "--help" }, CLI_DONE, "tpm-backup NAME FILE [--force]" },
                { { "--version" }, CLI_DONE, "guestcryptctl " GUESTCRYPT_VERSION },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(freep) char *out = NULL, *err = NULL;
                int status = run(&out, &err, cases[i].args);
                const char *where = status == CLI_DONE || *cases[i].text == '{' ? out : err;

                if (status != cases[i].status || !strstr(where, cases[i].text))
                        fail_msg("%s: status %d, '%s' '%s'", cases[i].args[0] ?: "", status, out, err);
                assert_true(*out == '\0' || *err == '\0'); /* one or the other */
                if (status != CLI_DONE)
                        assert_ptr_equal(strchr(where, '\n'), where + strlen(where) - 1); /* one line */
        }
}

/* ---- the grid ---- */

static void set_row(Grid *g, unsigned adapter, const char *mode, const uint32_t cells[static 4]) {
        static const uint8_t domains[] = { 0x06, 0x10, 0x1b, 0x47 };

        g->modes[adapter] = mode;
        for (size_t i = 0; i < 4; i++)
                g->cells[adapter][domains[i]] = cells[i];
}

static char *draw(Grid *g, unsigned columns, bool colour) {
        size_t size;
        char *s;
        FILE *f = open_memstream(&s, &size);

        grid_set_symbols(g);
        grid_print(g, f, columns, colour);
        assert_int_equal(fclose(f), 0);
        return s;
}

static void assert_file(const char *name, const char *is) {
        char path[300], want[65536] = "";
        FILE *f;

        (void) snprintf(path, sizeof path, "%s/%s", FIXTURES, name);
        if (getenv("REGENERATE")) {
                f = fopen(path, "we");
                assert_non_null(f);
                (void) fputs(is, f);
                assert_int_equal(fclose(f), 0);
        }
        f = fopen(path, "re");
        assert_non_null(f);
        want[fread(want, 1, sizeof want - 1, f)] = '\0';
        (void) fclose(f);
        assert_string_equal(is, want);
}

static void test_grid(void **state) {
        Grid *g = calloc(1, sizeof *g);
        GridOwner owners[] = { { .kind = "matrix", .name = "payments-1", .state = "started", .live = true },
                               { .kind = "matrix", .name = "audit-1", .state = "defined" } };
        CLEANUP(freep) char *plain = NULL, *colour = NULL;

        g->owners = owners;
        g->n_owners = 2;
        set_row(g, 0, "cca", (uint32_t[]) { GRID_HOST, GRID_HOST, GRID_HOST, GRID_HOST });
        set_row(g, 3, "cca", (uint32_t[]) { GRID_FREE, GRID_FREE, GRID_ABSENT, GRID_OWNER + 1 });
        set_row(g, 4, "ep11", (uint32_t[]) { GRID_OWNER, GRID_OWNER, GRID_FREE, GRID_FREE });
        set_row(g, 5, "ep11", (uint32_t[]) { GRID_OWNER, GRID_OWNER, GRID_FREE, GRID_FREE });
        set_row(g, 9, "accelerator", (uint32_t[]) { GRID_OWNER, GRID_OWNER, GRID_FREE, GRID_FREE });
        plain = draw(g, 80, false);
        assert_file("grid-small.txt", plain);
        colour = draw(g, 80, true);
        assert_file("grid-small-colour.txt", colour);
        free(g);
}

static void test_grid_wide(void **state) {
        Grid *g = calloc(1, sizeof *g);
        CLEANUP(freep) char *s = NULL;

        for (unsigned a = 0; a < 12; a++)
                for (unsigned d = 0; d < 85; d++)
                        g->cells[a][d] = a < 2 ? GRID_HOST : GRID_FREE;
        s = draw(g, 80, false);
        assert_file("grid-z16.txt", s);
        free(g);
}

/* All 65,536 queues and more owners than letters: lines that fit, and few of them. */
static void test_grid_full(void **state) {
        Grid *g = calloc(1, sizeof *g);
        CLEANUP(freep) char *s = NULL;
        unsigned lines = 0;
        size_t longest = 0;

        g->n_owners = 40;
        g->owners = calloc(g->n_owners, sizeof *g->owners);
        for (size_t i = 0; i < g->n_owners; i++)
                g->owners[i] = (GridOwner) { .kind = "mdevctl", .name = "x" };
        for (unsigned a = 0; a < AP_IDS; a++)
                for (unsigned d = 0; d < AP_IDS; d++)
                        g->cells[a][d] = GRID_OWNER + a / 8;
        s = draw(g, 100, false);
        for (char *p = s; *p; p += strcspn(p, "\n") + 1, lines++)
                longest = MAX(longest, strcspn(p, "\n"));
        assert_true(longest <= 100);
        assert_true(lines < 8 * (32 + 3) + 50);
        free(g->owners);
        free(g);
}

static void test_grid_empty(void **state) {
        Grid *g = calloc(1, sizeof *g);
        CLEANUP(freep) char *s = draw(g, 80, true);

        assert_string_equal(s, "The host has no crypto queues.\n");
        free(g);
}

/* ---- tables and JSON ---- */

static void test_table(void **state) {
        CLEANUP(table_freep) Table *t = table_new(3, (const char *[]) { "NAME", "STATE", "X" });
        CLEANUP(freep) char *s = NULL;
        size_t size;
        FILE *f;

        for (unsigned i = 0; i < 20; i++)
                assert_int_equal(table_add(t, (const char *[]) { i == 3 ? "zürich-1" : "a", "", "last" }),
                                 0);
        f = open_memstream(&s, &size);
        table_print(t, f, false);
        (void) fclose(f);
        assert_true(strncmp(s, "NAME      STATE  X\na         -      last\n", 40) == 0);
        assert_non_null(strstr(s, "\nzürich-1  -      last\n"));
}

static void test_keys(void **state) {
        static const struct {
                const char *property, *key;
        } cases[] = { { "UUID", "uuid" },
                      { "UID", "uid" },
                      { "GuestAdapters", "guest_adapters" },
                      { "NMatrices", "n_matrices" },
                      { "Id", "id" },
                      { "InUse", "in_use" } };
        char buf[64];

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                assert_string_equal(json_key(cases[i].property, buf), cases[i].key);
}

static void test_json_from_message(void **state) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        CLEANUP(sd_bus_unrefp) sd_bus *bus = NULL;
        CLEANUP(json_putp) json_object *o = NULL;

        assert_true(sd_bus_new(&bus) >= 0);
        assert_true(sd_bus_set_address(bus, "unix:path=/nonexistent") >= 0);
        (void) sd_bus_start(bus);
        assert_true(sd_bus_message_new_signal(bus, &m, "/x", "x.y", "Z") >= 0);
        assert_true(sd_bus_message_append(m, "a{sv}a(qs)bt", 2, "a", "s", "x", "b", "aq", 2, 1, 2, 1, 5, "y",
                                          1, UINT64_MAX) >= 0);
        assert_true(sd_bus_message_seal(m, 1, 0) >= 0);
        assert_int_equal(json_from_message(m, &o), 0);
        assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
                            "[{\"a\":\"x\",\"b\":[1,2]},[[5,\"y\"]],true,18446744073709551615]");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_usage),      cmocka_unit_test(test_grid),
                cmocka_unit_test(test_grid_wide),  cmocka_unit_test(test_grid_full),
                cmocka_unit_test(test_grid_empty), cmocka_unit_test(test_table),
                cmocka_unit_test(test_keys),       cmocka_unit_test(test_json_from_message),
        };

        if (setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent", 1) < 0)
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
