/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lines between the daemon and guestcryptd-virt. Each is refused or is understood as something that is written the same way
 * and understood again. */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "virt/virt_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) \
        do { \
                if (!(condition)) \
                        abort(); \
        } while (0)

static void check_guest(const json_object *o) {
        CLEANUP(virt_guest_clear) VirtGuest g = {}, again = {};
        CLEANUP(json_putp)
        json_object *copy = wire_new("event", "guest"), *third = wire_new("event", "guest");

        if (wire_get_guest(o, &g) < 0) {
                CHECK(!g.name);
                return;
        }
        CHECK(wire_put_guest(copy, &g) == 0 && wire_get_guest(copy, &again) == 0 &&
              wire_put_guest(third, &again) == 0);
        CHECK(json_object_equal(copy, third));
}

static void check_edit(const json_object *o) {
        CLEANUP(json_putp) json_object *copy = wire_new("call", "edit"), *third = wire_new("call", "edit");
        WireEdit e, again;

        if (wire_get_edit(o, &e) < 0)
                return;
        CHECK(wire_put_edit(copy, &e.edit, e.swtpm_socket, e.live) == 0 && wire_get_edit(copy, &again) == 0);
        CHECK(wire_put_edit(third, &again.edit, again.swtpm_socket, again.live) == 0 &&
              json_object_equal(copy, third));
}

static void check_outcome(const json_object *o) {
        CLEANUP(json_putp) json_object *copy = wire_new("event", "done"), *third = wire_new("event", "done");
        VirtOutcome outcome, again;

        if (wire_get_outcome(o, &outcome) < 0)
                return;
        CHECK(wire_put_outcome(copy, &outcome) == 0 && wire_get_outcome(copy, &again) == 0);
        CHECK(wire_put_outcome(third, &again) == 0 && json_object_equal(copy, third));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(wire_lines_clear) WireLines lines = {};
        int r;

        CHECK(wire_lines_add(&lines, (const char *) data, size) == 0);
        do {
                CLEANUP(json_putp) json_object *o = NULL;

                r = wire_lines_take(&lines, &o);
                CHECK(r == 1 || r == 0 || r == -EBADMSG);
                CHECK((r == 1) == !!o);
                if (o) {
                        check_guest(o);
                        check_edit(o);
                        check_outcome(o);
                        (void) wire_number(o, "id");
                }
        } while (r != 0 && lines.size > 0);
        return 0;
}
