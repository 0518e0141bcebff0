/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What no fixture can hold: documents of many megabytes, and edits that make no sense. The rest is in golden/virt. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "virt/virt_xml.h"

#define MIB (1024 * 1024)
#define TPM VIRT_TPM_DIR "/0d5f1c5e-33f1-4c4e-9b0e-1d7a6f0c2b11/"

static const VirtEdit matrix = { .kind = VIRT_ATTACH_MATRIX, .mdev = { { 1 } } };
static const VirtEdit no_matrix = { .kind = VIRT_DETACH_MATRIX };

/* A guest with @piece again and again, to @size bytes: in its <devices>, or, with @above, directly below the root. */
static char *guest_of(const char *open, const char *piece, const char *close, size_t size, bool above) {
        char *xml = malloc(size + 4096), *p;

        assert_non_null(xml);
        p = stpcpy(xml,
                   "<domain type='kvm'>\n  <name>big</name>\n  <os><type arch='s390x'>hvm</type></os>\n");
        p = stpcpy(p, above ? open : "");
        if (!above)
                p = stpcpy(stpcpy(p, "<devices>"), open);
        for (size_t n = strlen(piece); (size_t) (p - xml) + n < size;)
                p = mempcpy(p, piece, n);
        p = stpcpy(p, close);
        *p = '\0';
        (void) strcpy(p, above ? "<devices></devices></domain>" : "</devices></domain>");
        return xml;
}

/* Attaches and detaches: as before. */
static void check_round(const char *xml) {
        CLEANUP(freep) char *attached = NULL, *back = NULL, *text = NULL;

        if (virt_xml_edit(xml, strlen(xml), &matrix, &attached, &text) != VIRT_EDIT_DONE)
                fail_msg("%.60s...: %s", strchr(xml, 'h'), text);
        assert_int_equal(virt_xml_edit(attached, strlen(attached), &no_matrix, &back, &text),
                         VIRT_EDIT_DONE);
        assert_true(strcmp(xml, back) == 0);
}

/* Which mdevs a guest has, and which of them are matrices. */
static void mdevs_are_told_apart(void **state) {
#define HOSTDEV(model, n) \
        "<hostdev mode='subsystem' type='mdev' model='" model \
        "'><source><address uuid='00000000-0000-4000-8000-00000000000" n "'/></source></hostdev>"
        static const char xml[] = "<domain type='kvm'><name>g</name><devices>" HOSTDEV("vfio-pci", "1")
                HOSTDEV("vfio-ap", "2") HOSTDEV(
                        "vfio-ccw",
                        "3") "<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>"
                             "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='1' "
                             "slot='2' function='3'/></source></hostdev></devices></domain>";
        CLEANUP(virt_wiring_clear) VirtWiring w = {}, again = {};
        char id[UUID_STRING_SIZE];

        assert_int_equal(virt_xml_read(xml, sizeof xml - 1, &w, NULL), 0);
        assert_int_equal(virt_wiring_copy(&w, &again), 0);
        assert_null(w.problems);
        assert_int_equal(again.n_mdevs, 1);
        assert_string_equal(uuid_format(again.mdevs[0], id), "00000000-0000-4000-8000-000000000002");
        assert_int_equal(again.n_others, 2);
        assert_string_equal(uuid_format(again.others[0], id), "00000000-0000-4000-8000-000000000001");
        assert_string_equal(uuid_format(again.others[1], id), "00000000-0000-4000-8000-000000000003");
#undef HOSTDEV
}

/* AddressSanitizer looks at all of the text that is left in each comparison of a few characters. */
#ifdef __SANITIZE_ADDRESS__
#define SHARE 8
#else
#define SHARE 1
#endif

static void big_documents_are_edited(void **state) {
        static const struct {
                const char *open, *piece, *close;
                bool above;
                size_t size;
        } cases[] = {
                { "<description>", "long text, but less than the parser's limit ", "</description>", true,
                  9 * MIB },
                { "", "<!-- <devices> -->", "", true, 10 * MIB },
                { "", "<a/>", "", false, 10 * MIB },
                { "", "<disk type='file'><source file='x'/></disk>\n", "", false, 10 * MIB },
                { "<metadata><app:x xmlns:app='urn:x'>", "<app:y z='1'>t</app:y>", "</app:x></metadata>",
                  true },
                { "", " \n", "", false, 9 * MIB },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(freep)
                char *xml = guest_of(cases[i].open, cases[i].piece, cases[i].close, cases[i].size / SHARE,
                                     cases[i].above);

                check_round(xml);
        }
}

static void hostile_documents_are_refused(void **state) {
        static const struct {
                const char *open, *piece, *close, *text;
                size_t size;
        } cases[] = {
                { "", "<a/>", "", "bytes are more than", VIRT_XML_MAX + MIB },
                { "<a ", "b='c' ", "/>", "a tag of more than", 10 * MIB },
                { "<a ", "b='c' ", "", "a tag of more than", 10 * MIB },
                { "", "<a>", "", "not well-formed", 10 * MIB },
                { "", "<hostdev><a/></hostdev>", "", "more than 1048576 elements", 15 * MIB },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                CLEANUP(freep)
                char *xml = guest_of(cases[i].open, cases[i].piece, cases[i].close, cases[i].size, false);
                CLEANUP(freep) char *text = NULL, *changed = NULL;
                VirtWiring w = {};

                assert_int_equal(virt_xml_read(xml, strlen(xml), &w, &text), -EBADMSG);
                if (!strstr(text, cases[i].text))
                        fail_msg("'%s', not '%s'", text, cases[i].text);
                assert_null(w.name);
                assert_int_equal(virt_xml_edit(xml, strlen(xml), &matrix, &changed, NULL), -EBADMSG);
                assert_null(changed);
        }
}

static void many_of_ours_are_taken_away(void **state) {
        CLEANUP(freep)
        char *xml = guest_of("", "<hostdev type='mdev' model='vfio-ap'/>", "", 10 * MIB, false),
             *none = NULL, *text = NULL;
        CLEANUP(virt_wiring_clear) VirtWiring w = {};

        assert_int_equal(virt_xml_read(xml, strlen(xml), &w, &text), 0);
        assert_int_equal(w.n_mdevs, 0);
        assert_non_null(w.problems);
        assert_int_equal(virt_xml_edit(xml, strlen(xml), &no_matrix, &none, &text), VIRT_EDIT_DONE);
        assert_null(strstr(none, "hostdev"));
}

static void much_metadata_is_no_metadata(void **state) {
        CLEANUP(freep)
        char *xml = guest_of("<metadata><g:devices xmlns:g='urn:guestcrypt:guest:1'>", "<g:tpm name='x'/>",
                             "</g:devices></metadata>", 10 * MIB, true);
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        CLEANUP(freep) char *text = NULL, *changed = NULL;

        assert_int_equal(virt_xml_read(xml, strlen(xml), &w, &text), 0);
        assert_null(w.tpm);
        assert_non_null(strstr(w.problems[0], "not valid"));
        assert_int_equal(virt_xml_edit(xml, strlen(xml), &matrix, &changed, &text), VIRT_EDIT_CANNOT);
        assert_null(changed);
}

static void edits_that_make_no_sense(void **state) {
        static const VirtEdit edits[] = {
                { .kind = _VIRT_EDIT_MAX },
                { .kind = VIRT_ATTACH_MATRIX },
                { .kind = VIRT_ATTACH_MATRIX, .mdev = { { 1 } }, .matrix = "a'b" },
                { .kind = VIRT_ATTACH_MATRIX, .mdev = { { 1 } }, .matrix = "" },
                { .kind = VIRT_ATTACH_TPM },
                { .kind = VIRT_ATTACH_TPM, .model = TPM_MODEL_CRB, .name = "t" },
                { .kind = VIRT_ATTACH_TPM,
                  .model = TPM_MODEL_NONE,
                  .name = "t",
                  .socket = TPM "device.sock" },
                { .kind = VIRT_ATTACH_TPM,
                  .model = TPM_MODEL_CRB,
                  .name = "<t>",
                  .socket = TPM "device.sock" },
                { .kind = VIRT_ATTACH_TPM,
                  .model = TPM_MODEL_CRB,
                  .name = "t",
                  .socket = "/tmp/device.sock" },
                { .kind = VIRT_ATTACH_TPM, .model = TPM_MODEL_CRB, .name = "t", .socket = TPM "'/><x y='" },
        };
        static const char xml[] = "<domain type='kvm'><name>x</name><devices/></domain>";

        for (size_t i = 0; i < ELEMENTS(edits); i++) {
                CLEANUP(freep) char *text = NULL, *changed = NULL;

                assert_int_equal(virt_xml_edit(xml, strlen(xml), &edits[i], &changed, &text), -EINVAL);
                assert_true(!changed && !text);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(mdevs_are_told_apart),
                cmocka_unit_test(big_documents_are_edited),
                cmocka_unit_test(hostile_documents_are_refused),
                cmocka_unit_test(many_of_ours_are_taken_away),
                cmocka_unit_test(much_metadata_is_no_metadata),
                cmocka_unit_test(edits_that_make_no_sense),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
