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
        assert_false(uevent_matters("", 0));
}

static bool is_own(void *userdata, Uuid uuid, bool added) {
        bool *made = userdata;
        char text[UUID_STRING_SIZE];

        return *made == added &&
               strcmp(uuid_format(uuid, text), "11111111-2222-3333-4444-555555555555") == 0;
}

static void test_news(void **state) {
#define MDEV "/devices/vfio_ap/matrix/11111111-2222-3333-4444-555555555555"
#define NEWS(text, ap, mdevs, own_mdevs) \
        { text, sizeof text, ap, mdevs, own_mdevs }
        static const struct {
                const char *message;
                size_t size;
                bool ap, mdevs, own_mdevs; /* the last: for who has made that mdev */
        } cases[] = {
                NEWS("add@" MDEV "\0ACTION=add\0DEVPATH=" MDEV "\0SUBSYSTEM=mdev", false, true, false),
                NEWS("remove@" MDEV "\0ACTION=remove\0DEVPATH=" MDEV "\0SUBSYSTEM=mdev", false, true, true),
                NEWS("bind@" MDEV "\0ACTION=bind\0DEVPATH=" MDEV "\0SUBSYSTEM=mdev", false, false, false),
                NEWS("change@" MDEV "\0ACTION=change\0DEVPATH=" MDEV "\0SUBSYSTEM=mdev", false, true, true),
                NEWS("add@" MDEV "1\0ACTION=add\0DEVPATH=" MDEV "1\0SUBSYSTEM=mdev", false, true, true),
                NEWS("add@" MDEV "\0ACTION=add\0DEVPATH=" MDEV "\0SUBSYSTEM=other", false, true, true),
                NEWS("add@" MDEV "/vfio-dev/vfio3\0ACTION=add\0DEVPATH=" MDEV
                     "/vfio-dev/vfio3\0SUBSYSTEM=vfio-dev",
                     false, false, false),
                NEWS("add@/devices/virtual/vfio/7\0ACTION=add\0DEVPATH=/devices/virtual/vfio/7\0SUBSYSTEM=vfio",
                     false, false, false),
                NEWS("change@/devices/x\0ACTION=change\0DEVPATH=/devices/x\0SUBSYSTEM=x\0MDEV_STATE=unregistered",
                     false, true, true),
                NEWS("bind@/devices/ap/card03\0ACTION=bind\0DEVPATH=/devices/ap/card03\0SUBSYSTEM=ap", true,
                     false, false),
                NEWS("add@/devices/virtual/net/veth0\0ACTION=add\0SUBSYSTEM=net", false, false, false),
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                bool made = true;
                UeventNews news = {}, own = {};

                uevent_read(cases[i].message, cases[i].size, NULL, NULL, &news);
                assert_int_equal(news.ap, cases[i].ap);
                assert_int_equal(news.mdevs, cases[i].mdevs);
                uevent_read(cases[i].message, cases[i].size, is_own, &made, &own);
                assert_int_equal(own.ap, cases[i].ap);
                assert_int_equal(own.mdevs, cases[i].own_mdevs);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_matters),
                cmocka_unit_test(test_news),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
