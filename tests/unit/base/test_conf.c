/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/conf.h"
#include "base/file.h"

typedef struct Warnings {
        unsigned n, line;
        char text[300];
} Warnings;

static void on_warning(void *userdata, unsigned line, const char *text) {
        Warnings *w = userdata;

        w->n++;
        w->line = line;
        (void) snprintf(w->text, sizeof w->text, "%s", text);
}

static void test_keys(void **state) {
        Warnings w = {};
        Conf c = CONF_DEFAULT;

        conf_parse(
                "# a comment\n[Manager]\nRescanSec=60\n LockTimeoutSec = 1 \nStepTimeoutSec=2\nScanTimeoutSec=3\n"
                ";\n\nMaxMatrices=4\nMaxMatricesPerUser=0\nMaxCallsPerCaller=6\nLogLevel=debug\n"
                "LibvirtURI = test:///default \nTpmGroup=kvm\nTpmUidBase=2000000000\nMaxTpms=7",
                &c, on_warning, &w);
        assert_int_equal(w.n, 0);
        assert_int_equal(c.rescan_us, 60000000);
        assert_int_equal(c.lock_timeout_us, 1000000);
        assert_int_equal(c.step_timeout_us, 2000000);
        assert_int_equal(c.scan_timeout_us, 3000000);
        assert_int_equal(c.max_matrices, 4);
        assert_int_equal(c.max_matrices_per_user, 0);
        assert_int_equal(c.max_calls_per_caller, 6);
        assert_int_equal(c.log_level, LOG_DEBUG);
        assert_string_equal(c.libvirt_uri, "test:///default");
        assert_string_equal(c.tpm_group, "kvm");
        assert_int_equal(c.tpm_uid_base, 2000000000);
        assert_int_equal(c.max_tpms, 7);
        conf_parse("[Manager]\nLibvirtURI=\nTpmGroup=\n", &c, on_warning, &w);
        assert_string_equal(c.libvirt_uri, "qemu:///system");
        assert_string_equal(c.tpm_group, "");

        conf_parse("[Manager]\nLogLevel=4\nRescanSec=\n", &c, on_warning, &w);
        assert_int_equal(c.log_level, LOG_WARNING);
        assert_int_equal(c.rescan_us, 30000000); /* the default again */
        assert_int_equal(c.lock_timeout_us, 1000000);
}

static void test_what_is_wrong_is_told_and_ignored(void **state) {
        static const struct {
                const char *name, *text, *warning;
                unsigned line;
        } cases[] = {
                { "unknown key", "[Manager]\nFrob=1\n", "unknown key 'Frob'", 2 },
                { "case", "[Manager]\nrescansec=1\n", "unknown key 'rescansec'", 2 },
                { "no number", "[Manager]\n\nRescanSec=soon\n",
                  "RescanSec=soon is no number from 1 to 86400", 3 },
                { "unit", "[Manager]\nRescanSec=5s\n", "RescanSec=5s", 2 },
                { "zero", "[Manager]\nRescanSec=0\n", "RescanSec=0", 2 },
                { "negative", "[Manager]\nMaxMatrices=-1\n", "MaxMatrices=-1", 2 },
                { "too much", "[Manager]\nMaxMatrices=99999999999999999999\n", "MaxMatrices=", 2 },
                { "level", "[Manager]\nLogLevel=loud\n", "'loud' is no log level", 2 },
                { "level number", "[Manager]\nLogLevel=8\n", "'8' is no log level", 2 },
                { "uid", "[Manager]\nTpmUidBase=0\n", "TpmUidBase=0 is no number", 2 },
                { "spaces", "[Manager]\nLibvirtURI=a b\n", "LibvirtURI=a b is too long, or has spaces", 2 },
                { "long",
                  "[Manager]\nTpmGroup=abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl\n",
                  "is too long", 2 },
                { "no section", "RescanSec=5\n", "not in section [Manager]", 1 },
                { "other section", "[Frob]\n", "unknown section '[Frob]'", 1 },
                { "no assignment", "[Manager]\nRescanSec\n", "'RescanSec' is no assignment", 2 },
        };
        const Conf defaults = CONF_DEFAULT;

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                Warnings w = {};
                Conf c = CONF_DEFAULT;

                conf_parse(cases[i].text, &c, on_warning, &w);
                assert_int_equal(w.n, 1);
                assert_int_equal(w.line, cases[i].line);
                if (!strstr(w.text, cases[i].warning))
                        fail_msg("%s: '%s' is not in '%s'", cases[i].name, cases[i].warning, w.text);
                assert_memory_equal(&c, &defaults, sizeof c);
        }
}

static void test_long_line(void **state) {
        Warnings w = {};
        Conf c = CONF_DEFAULT;
        char text[2000];

        memset(text, 'x', sizeof text);
        strcpy(text + 1000, "\n[Manager]\nRescanSec=7\n");
        conf_parse(text, &c, on_warning, &w);
        assert_int_equal(w.n, 1);
        assert_int_equal(w.line, 1);
        assert_int_equal(c.rescan_us, 7000000);
}

static void put(int fd, const char *directory, const char *name, const char *text) {
        CLEANUP(fd_closep) int dir_fd = file_open_dir(fd, directory);

        assert_true(dir_fd >= 0);
        assert_int_equal(file_replace(dir_fd, name, text, strlen(text)), 0);
}

static void test_files(void **state) {
        char template[] = "/tmp/guestcrypt-conf.XXXXXX", command[64], told[512] = "";
        CLEANUP(fd_closep) int fd = -1, log_fd = memfd_create("log", MFD_CLOEXEC), stderr_fd = dup(2);
        Conf c;

        assert_non_null(mkdtemp(template));
        fd = open(template, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);

        assert_int_equal(conf_load(fd, CONF_PATH, &c), 0);
        assert_int_equal(c.rescan_us, 30000000);

        put(fd, "etc/guestcrypt", "guestcrypt.conf",
            "[Manager]\nRescanSec=1\nMaxMatrices=1\nMaxCallsPerCaller=1\n");
        put(fd, "etc/guestcrypt/guestcrypt.conf.d", "20-b.conf", "[Manager]\nRescanSec=3\n");
        put(fd, "etc/guestcrypt/guestcrypt.conf.d", "10-a.conf", "[Manager]\nRescanSec=2\nMaxMatrices=2\n");
        put(fd, "etc/guestcrypt/guestcrypt.conf.d", "30-c.conf.bak", "[Manager]\nRescanSec=4\n");
        assert_int_equal(mkdirat(fd, "etc/guestcrypt/guestcrypt.conf.d/40-d.conf", 0755), 0);
        assert_true(log_fd >= 0 && stderr_fd >= 0 && dup2(log_fd, 2) == 2);
        assert_int_equal(conf_load(fd, "/" CONF_PATH, &c), 0);
        assert_int_equal(dup2(stderr_fd, 2), 2);
        assert_true(pread(log_fd, told, sizeof told - 1, 0) > 0);
        assert_non_null(strstr(told, "Cannot read '40-d.conf': it is no regular file, ignoring"));
        assert_int_equal(c.rescan_us, 3000000);
        assert_int_equal(c.max_matrices, 2);
        assert_int_equal(c.max_calls_per_caller, 1);

        (void) snprintf(command, sizeof command, "rm -r %s", template);
        assert_int_equal(system(command), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_keys),
                cmocka_unit_test(test_what_is_wrong_is_told_and_ignored),
                cmocka_unit_test(test_long_line),
                cmocka_unit_test(test_files),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
