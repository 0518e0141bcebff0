/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "base/cleanup.h"
#include "host/uevent.h"
#include "tests/lib/core/test.h"

static void test_matters(void **state) {
#define CASE(text, matters) \
        { text, sizeof text, matters }
        static const struct {
                const char *message;
                size_t size;
                bool matters;
        } cases[] = {
                CASE("change@/devices/ap\0ACTION=change\0DEVPATH=/devices/ap\0SUBSYSTEM=ap\0BINDINGS=complete",
                     true),
                CASE("add@/devices/x\0ACTION=add\0DEVPATH=/devices/x/uuid\0SUBSYSTEM=mdev", true),
                CASE("change@/x\0ACTION=change\0DEVPATH=/x\0SUBSYSTEM=misc\0MDEV_STATE=registered", true),
                CASE("bind@/devices/ap/card03\0ACTION=bind\0DEVPATH=/devices/ap/card03\0DRIVER=vfio_ap",
                     true),
                CASE("change@/devices/apparatus\0ACTION=change\0DEVPATH=/devices/apparatus\0SUBSYSTEM=usb",
                     false),
                CASE("add@/devices/virtual/net/veth0\0ACTION=add\0SUBSYSTEM=net", false),
                CASE("add@/devices/x\0SUBSYSTEM=apx", false),
                CASE("", false),
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                assert_int_equal(uevent_matters(cases[i].message, cases[i].size), cases[i].matters);

        assert_false(uevent_matters("SUBSYSTEM=ap", 12)); /* not terminated */
        assert_false(uevent_matters(NULL, 0));
}

int main(void) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_matters) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
