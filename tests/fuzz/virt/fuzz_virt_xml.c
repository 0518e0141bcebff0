/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Domain XML as anybody may have written it. What is accepted can be edited or is refused with a line that says why; what an
 * edit has made is accepted, the same edit changes nothing any more, and the opposite one gives the document as it was. */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "virt/virt_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) \
        do { \
                if (!(condition)) \
                        abort(); \
        } while (0)

#define TPM VIRT_TPM_DIR "/0d5f1c5e-33f1-4c4e-9b0e-1d7a6f0c2b11/"

static const VirtEdit attachments[] = {
        { .kind = VIRT_ATTACH_MATRIX, .mdev = { { 1 } }, .matrix = "m" },
        { .kind = VIRT_ATTACH_MATRIX, .mdev = { { 1 } } },
        { .kind = VIRT_ATTACH_TPM, .model = TPM_MODEL_VIRTIO, .name = "t", .socket = TPM "device.sock" },
        { .kind = VIRT_ATTACH_TPM, .model = TPM_MODEL_CRB, .name = "t", .socket = TPM "swtpm.sock" },
        { .kind = VIRT_ATTACH_TPM, .model = TPM_MODEL_TIS, .name = "t", .socket = TPM "swtpm.sock" },
};
static const VirtEdit detachments[] = { { .kind = VIRT_DETACH_MATRIX }, { .kind = VIRT_DETACH_TPM } };

static void check_line(const char *text) {
        CHECK(text && *text);
        for (const char *p = text; *p; p++)
                CHECK(*p >= 0x20 && *p <= 0x7e);
}

static int edit(const char *xml, size_t size, const VirtEdit *e, char **ret) {
        CLEANUP(freep) char *text = NULL;
        int r;

        *ret = NULL;
        r = virt_xml_edit(xml, size, e, ret, &text);
        CHECK(r >= 0 && r < _VIRT_EDIT_VERDICT_MAX);
        CHECK((r == VIRT_EDIT_DONE) == !!*ret);
        if (r == VIRT_EDIT_OTHER || r == VIRT_EDIT_CANNOT)
                check_line(text);
        else
                CHECK(!text);
        return r;
}

static void check_readable(const char *xml) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        CLEANUP(freep) char *text = NULL;

        CHECK(virt_xml_read(xml, strlen(xml), &w, &text) == 0);
}

/* @pure: nothing of ours is in it. */
static void check_edit(const char *xml, size_t size, const VirtEdit *e, bool pure) {
        CLEANUP(freep) char *attached = NULL, *same = NULL, *back = NULL, *nothing = NULL;
        const VirtEdit *opposite = detachments + (e->kind == VIRT_ATTACH_TPM);

        if (edit(xml, size, e, &attached) != VIRT_EDIT_DONE)
                return;
        check_readable(attached);
        CHECK(edit(attached, strlen(attached), e, &same) == VIRT_EDIT_SAME);
        CHECK(edit(attached, strlen(attached), opposite, &back) == VIRT_EDIT_DONE);
        check_readable(back);
        CHECK(edit(back, strlen(back), opposite, &nothing) == VIRT_EDIT_SAME);
        if (pure)
                CHECK(strlen(back) == size && memcmp(back, xml, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        CLEANUP(freep) char *text = NULL;
        const char *xml = (const char *) data;
        bool pure = true;
        int r;

        r = virt_xml_read(xml, size, &w, &text);
        if (r < 0) {
                CHECK(r == -EBADMSG && !w.name);
                check_line(text);
                return 0;
        }
        for (char **p = w.problems; p && *p; p++)
                check_line(*p);

        for (size_t i = 0; i < ELEMENTS(detachments); i++) {
                CLEANUP(freep) char *detached = NULL;

                if (edit(xml, size, detachments + i, &detached) == VIRT_EDIT_DONE) {
                        check_readable(detached);
                        pure = false;
                }
        }
        /* an empty element of ours does not come back, and what stands there may claim to have been added */
        if (memmem(xml, size, "guestcrypt", strlen("guestcrypt")))
                pure = false;
        for (size_t i = 0; i < ELEMENTS(attachments); i++)
                check_edit(xml, size, attachments + i, pure);
        return 0;
}
