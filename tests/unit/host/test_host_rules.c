/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "host/host_rules.h"
#include "tests/lib/core/test.h"

#define ALL       "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
#define SOME      "0xc000000000000000000000000000000000000000000000000000000000000000"
#define DIR       "etc/udev/rules.d"
#define FILE_NAME "41-ap.rules"

/* As chzdev 2.43 writes it. */
#define HEAD \
        "ACTION==\"add\", DEVPATH==\"/bus/ap\", ATTR{bindings_complete_count}!=\"0\", GOTO=\"cfg_ap\"\n" \
        "ACTION==\"change\", SUBSYSTEM==\"ap\", DEVPATH==\"/devices/ap\", ENV{BINDINGS}==\"complete\", " \
        "ENV{COMPLETECOUNT}==\"1\", GOTO=\"cfg_ap\"\n" \
        "GOTO=\"end_ap\"\nLABEL=\"cfg_ap\"\n"
#define TAIL           "RUN{builtin}+=\"kmod load vfio_ap\"\nLABEL=\"end_ap\"\n"
#define APMASK(m)      "ATTR{../../bus/ap/apmask}=\"" m "\"\n"
#define AQMASK(m)      "ATTR{../../bus/ap/aqmask}=\"" m "\"\n"
#define CHZDEV(ap, aq) HEAD APMASK(ap) AQMASK(aq) TAIL

static ApMask mask(const char *text) {
        ApMask m;

        assert_int_equal(ap_mask_parse(text, &m), 0);
        return m;
}

static char *edit(const char *text, const char *apmask, const char *aqmask) {
        ApMask ap = mask(apmask), aq = mask(aqmask);
        char *new = NULL;

        assert_int_equal(host_rules_edit(text, &ap, &aq, &new), 0);
        return new;
}

static void test_edit(void **state) {
        static const struct {
                const char *name, *before, *after;
        } cases[] = {
                { "none", NULL, CHZDEV(SOME, ALL) },
                { "empty", "", CHZDEV(SOME, ALL) },
                { "chzdev's", CHZDEV(ALL, SOME), CHZDEV(SOME, ALL) },
                { "without masks", HEAD TAIL, CHZDEV(SOME, ALL) },
                { "aqmask only", HEAD AQMASK(SOME) TAIL, CHZDEV(SOME, ALL) },
                { "comment", "# keep\n", "# keep\n" CHZDEV(SOME, ALL) },
                { "comment without newline", "# keep", "# keep\n" CHZDEV(SOME, ALL) },
                { "a comment is no rule", "# " APMASK(ALL), "# " APMASK(ALL) CHZDEV(SOME, ALL) },
                { "a rule of others", "SUBSYSTEM==\"net\", NAME=\"x\"\n",
                  "SUBSYSTEM==\"net\", NAME=\"x\"\n" CHZDEV(SOME, ALL) },
                { "lines between", HEAD "# mine\n" APMASK(ALL) "RUN+=\"/bin/x\"\n" AQMASK(ALL) TAIL "# end",
                  HEAD "# mine\n" APMASK(SOME) "RUN+=\"/bin/x\"\n" AQMASK(ALL) TAIL "# end" },
                { "one rule", "KERNEL==\"ap\", ATTR{apmask} = \"0x1\" , RUN+=\"a\"\n",
                  "KERNEL==\"ap\", ATTR{apmask} = \"" SOME "\", ATTR{aqmask}=\"" ALL "\" , RUN+=\"a\"\n" },
                { "compared only", "ATTR{apmask}==\"0x1\", X=\"y\"\n",
                  "ATTR{apmask}==\"0x1\", X=\"y\"\n" CHZDEV(SOME, ALL) },
                { "continued", "KERNEL==\"ap\", \\\n ATTR{/sys/bus/ap/aqmask}=\"0x1\"\n",
                  "KERNEL==\"ap\", \\\n ATTR{/sys/bus/ap/aqmask}=\"" ALL
                  "\", ATTR{/sys/bus/ap/apmask}=\"" SOME "\"\n" },
                { "twice", APMASK("0x1") AQMASK("0x2") APMASK("junk"),
                  APMASK(SOME) AQMASK(ALL) APMASK(SOME) },
                { "in a command", "RUN+=\"/bin/sh -c 'echo ATTR{apmask}=0x1'\"\n",
                  "RUN+=\"/bin/sh -c 'echo ATTR{apmask}=0x1'\"\n" CHZDEV(SOME, ALL) },
                { "another attribute", "ATTR{myapmask}=\"1\"\n",
                  "ATTR{myapmask}=\"1\"\n" CHZDEV(SOME, ALL) },
                { "label at the end", "LABEL=\"cfg_ap\"", "LABEL=\"cfg_ap\"\n" APMASK(SOME) AQMASK(ALL) },
        };
        char *refused = (char *) "untouched";
        ApMask all = AP_MASK_ALL;

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(freep) char *new = edit(cases[i].before, SOME, ALL);

                if (strcmp(new, cases[i].after) != 0)
                        fail_msg("case '%s':\n%s", cases[i].name, new);
        }

        assert_int_equal(host_rules_edit("LABEL=\"end_ap\"\n", &all, &all, &refused), -EEXIST);
        assert_string_equal(refused, "untouched");
}

static void test_parse(void **state) {
        static const struct {
                const char *name, *text, *apmask, *aqmask;
                unsigned n_foreign;
                bool problem;
        } cases[] = {
                { "empty", "", NULL, NULL, 0, false },
                { "chzdev's", CHZDEV(SOME, ALL), SOME, ALL, 0, false },
                { "one", HEAD AQMASK(SOME) TAIL, NULL, SOME, 0, false },
                { "foreign lines", "# a\n\n" CHZDEV(SOME, ALL) "X=\"y\"\n", SOME, ALL, 2, false },
                { "the last counts", APMASK(SOME) APMASK(ALL), ALL, NULL, 0, false },
                { "as the kernel pads", APMASK("c"), SOME, NULL, 0, false },
                { "junk", APMASK("+3"), NULL, NULL, 0, true },
                { "too long", AQMASK(ALL "0"), NULL, NULL, 0, true },
                { "not closed", "ATTR{apmask}=\"0x1", NULL, NULL, 1, false },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(host_rules_clear) HostRules r = {};
                ApMask m;

                assert_int_equal(host_rules_parse(cases[i].text, &r), 0);
                assert_case(cases[i].name, r.there && r.n_foreign == cases[i].n_foreign);
                assert_case(cases[i].name, r.has_apmask == (cases[i].apmask != NULL));
                assert_case(cases[i].name, r.has_aqmask == (cases[i].aqmask != NULL));
                assert_case(cases[i].name, (r.problem != NULL) == cases[i].problem);
                if (cases[i].apmask)
                        assert_case(cases[i].name,
                                    (m = mask(cases[i].apmask), ap_mask_equal(&r.apmask, &m)));
                if (cases[i].aqmask)
                        assert_case(cases[i].name,
                                    (m = mask(cases[i].aqmask), ap_mask_equal(&r.aqmask, &m)));
        }
}

/* Whatever the file is made of: it sets both masks afterwards, once more changes nothing, and what others wrote is there
 * as it was and in its order. */
static void test_random(void **state) {
        static const char *const pieces[] = {
                HEAD,
                TAIL,
                APMASK("0x1"),
                AQMASK(ALL),
                "# comment \\\n",
                "\n",
                "LABEL=\"cfg_ap\"\n",
                "KERNEL==\"x\", \\\n",
                "NAME=\"a b\", ATTR{apmask}:=\"f\"\n",
                "ATTR{x/aqmask}+=e\"0\"\n",
                "X=\"\\\"y\"\n",
                "broken \"\n",
                "\\\n",
                "ATTR{apmask}==\"0\"\n",
                "  ,,\n",
                "RUN+=\"apmask\"",
                "\"\"\n",
                "=\n",
                "\t# x\n",
        };
        Rng rng = rng_new();

        for (unsigned i = 0; i < 20000; i++) {
                CLEANUP(freep) char *new = NULL, *again = NULL;
                char text[8192] = "";
                ApMask ap = mask(SOME), aq = mask(ALL);
                const char *p;

                for (unsigned n = rng_below(&rng, 7); n > 0; n--)
                        strcat(text, pieces[rng_below(&rng, ELEMENTS(pieces))]);
                if (host_rules_edit(text, &ap, &aq, &new) == -EEXIST)
                        continue;

                again = edit(new, SOME, ALL);
                assert_string_equal(again, new);
                p = new;
                for (const char *c = text; *c && p; c++) {
                        const char *value = strpbrk(c, "01fF");

                        if (value == c) /* may have been a mask's digit */
                                continue;
                        p = strchr(p, *c);
                        p = p ? p + 1 : NULL;
                }
                if (!p)
                        fail_msg("lost something of '%s': '%s'", text, new);
        }
}

static char root[] = "/tmp/guestcrypt-rules-XXXXXX";
static int root_fd = -1, dir_fd = -1;

static int setup(void **state) {
        assert_non_null(mkdtemp(root));
        root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return root_fd < 0;
}

static int teardown(void **state) {
        (void) close(dir_fd);
        (void) unlinkat(root_fd, DIR "/" FILE_NAME, 0);
        (void) unlinkat(root_fd, DIR,
                        AT_REMOVEDIR); /* fails if a temporary file is left, and so do the next */
        (void) unlinkat(root_fd, "etc/udev", AT_REMOVEDIR);
        (void) unlinkat(root_fd, "etc", AT_REMOVEDIR);
        (void) close(root_fd);
        return rmdir(root);
}

static void test_file(void **state) {
        CLEANUP(freep) char *text = NULL;
        HostRules r = {};
        struct stat st;

        assert_int_equal(host_rules_read(root_fd, &r, &text), 0);
        assert_false(r.there);
        assert_null(text);
        assert_null(r.problem);

        assert_int_equal(host_rules_write(root_fd, CHZDEV(SOME, ALL), &r), 0);
        assert_true(r.there && r.has_apmask && r.has_aqmask);
        assert_int_equal(fstatat(root_fd, DIR "/" FILE_NAME, &st, 0), 0);
        assert_int_equal(st.st_mode & 07777, 0644);

        /* one that died before it was complete; a mode that somebody wants */
        dir_fd = openat(root_fd, DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(file_write_synced(dir_fd, "." FILE_NAME ".guestcrypt", "half", 4), 0);
        assert_int_equal(fchmodat(dir_fd, FILE_NAME, 0640, 0), 0);
        assert_int_equal(host_rules_write(root_fd, CHZDEV(ALL, SOME), &r), 0);
        assert_int_equal(fstatat(root_fd, DIR "/" FILE_NAME, &st, 0), 0);
        assert_int_equal(st.st_mode & 07777, 0640);
        assert_int_equal(faccessat(dir_fd, "." FILE_NAME ".guestcrypt", F_OK, 0), -1);
        assert_int_equal(host_rules_read(root_fd, &r, &text), 0);
        assert_string_equal(text, CHZDEV(ALL, SOME));

        /* what is no file of ours to read */
        assert_int_equal(unlinkat(dir_fd, FILE_NAME, 0), 0);
        assert_int_equal(symlinkat("/dev/null", dir_fd, FILE_NAME), 0);
        free(TAKE(text));
        assert_int_equal(host_rules_read(root_fd, &r, &text), 0);
        assert_true(r.there && !r.has_apmask);
        assert_non_null(r.problem);
        assert_null(text);
        host_rules_clear(&r);
        assert_int_equal(unlinkat(dir_fd, FILE_NAME, 0), 0);
        assert_int_equal(mkfifoat(dir_fd, FILE_NAME, 0600), 0);
        assert_int_equal(host_rules_read(root_fd, &r, &text), 0);
        assert_non_null(r.problem);
        host_rules_clear(&r);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_edit),
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_random),
                cmocka_unit_test(test_file),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
