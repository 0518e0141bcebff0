/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TPMs from definition to end, with real programs, and an own front end in QEMU's place.
 *
 * usage: test_life LAUNCHER DIRECTORY-OF-guestcrypt-tpm */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "lib/vtpm/vmm.h"
#include "lib/vtpm_life/life.h"

static const char *launcher;
static Life life;

static int setup(void **state) {
        life_init(&life, launcher);
        return 0;
}

static int teardown(void **state) {
        life_done(&life);
        return 0;
}

static Uuid define(const VtpmSpec *spec) {
        assert_int_equal(life_define(&life, spec), VTPM_DONE);
        return life.uuid;
}

static Uuid define_plain(const char *name) {
        return define(&(VtpmSpec) { .name = name, .no_certificates = true });
}

/* TPM2_GetRandom(16), TPM2_PCR_Read(sha256: 16), TPM2_PCR_Extend(16), TPM2_Clear with the platform's empty authorisation */
static const uint8_t get_random[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16 };

static void vmm_open(Vmm *v, const char *path) {
        int fd = life_connect(path);

        assert_true(fd >= 0);
        vmm_init(v, false, fd, life_pump,
                 &life); /* the device tells its manager what it does, and waits for it */
        assert_int_equal(vmm_start(v), 0);
}

static void assert_random(Vmm *v) {
        uint8_t response[64];

        assert_int_equal(vmm_command(v, get_random, sizeof get_random, response, sizeof response, 10000),
                         28);
        assert_int_equal(response[9], 0);
}

static void test_virtio(void **state) {
        Uuid uuid = define_plain("tpm-1");
        VtpmView view = life_view(&life, uuid);
        Vmm vmm;

        assert_int_equal(view.state, VTPM_DEFINED);
        assert_int_equal(view.model, TPM_MODEL_NONE);
        assert_int_equal(life_start(&life, uuid, TPM_MODEL_VIRTIO), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_RUNNING);

        vmm_open(&vmm, life_path(&life, "%s", life_view(&life, uuid).device_socket + 1));
        assert_random(&vmm);
        assert_int_equal(life_counters(&life, uuid), VTPM_DONE);
        assert_int_equal(life_counter(&life, "commands"), 1);
        vmm_done(&vmm);

        assert_int_equal(life_stop(&life, uuid), VTPM_DONE);
        assert_int_equal(life_view(&life, uuid).state, VTPM_DEFINED);
        assert_int_equal(access(life_run_file(&life, uuid, ""), F_OK), -1);
        assert_int_equal(life_undefine(&life, uuid, false), VTPM_BAD_STATE);
        assert_int_equal(life_undefine(&life, uuid, true), VTPM_DONE);
        assert_int_equal(access(life_state_file(&life, uuid, ""), F_OK), -1);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_virtio, setup, teardown),
        };
        char *path;

        if (!life_possible())
                return 77;
        launcher = argv[1];
        if (asprintf(&path, "%s:%s", argv[2], getenv("PATH")) < 0)
                return EXIT_FAILURE;
        (void) setenv("PATH", path, 1);
        if (argc > 3)
                cmocka_set_test_filter(argv[3]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
