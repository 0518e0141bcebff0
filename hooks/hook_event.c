/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "hooks/hook.h"

static bool declares(const VirtWiring *w) {
        return w->n_mdevs > 0 || w->matrix || w->tpm || w->tpm_model != TPM_MODEL_NONE || w->problems;
}

int hook_event(const Hook *h, const char *xml, size_t size, hook_send_t send) {
        CLEANUP(virt_wiring_clear) VirtWiring needs = {};
        CLEANUP(freep) char *text = NULL;
        int r;

        r = virt_xml_read(xml, size, &needs, &text);
        if (r < 0) {
                hook_tell(h, "the domain XML of guest '%s' cannot be read: %s", h->guest,
                          text ? text : strerror(-r));
                return HOOK_REFUSED;
        }
        if (!declares(&needs) && !(h->operation->gives_up && hook_holds(h, needs.uuid)))
                return HOOK_OK;

        /* What cannot be understood cannot be given; what was given is taken back nevertheless. */
        if (needs.problems && !h->operation->forgiving) {
                hook_tell(h, "guest '%s': %s", h->guest, needs.problems[0]);
                return HOOK_REFUSED;
        }

        r = send(h, &needs, &text);
        if (r == 0)
                return HOOK_OK;
        hook_tell(h, "%s", text ? text : strerror(-r));
        return HOOK_REFUSED;
}
