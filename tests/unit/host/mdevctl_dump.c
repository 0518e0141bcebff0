/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prints what host/ reads of the mdevctl definitions below a root directory. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "host/mdevctl.h"

int main(int argc, char **argv) {
        MdevctlContent c;
        int fd, r;

        if (argc != 2)
                return 2;
        fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = mdevctl_read(fd, &c);
        if (r < 0) {
                (void) printf("error %s\n", strerrorname_np(-r));
                return 1;
        }

        for (size_t i = 0; i < c.n_definitions; i++) {
                char uuid[UUID_STRING_SIZE], a[AP_MASK_LIST_SIZE], d[AP_MASK_LIST_SIZE],
                        k[AP_MASK_LIST_SIZE];
                const MdevctlDefinition *m = &c.definitions[i];

                (void) printf("%s %s adapters=%s domains=%s control=%s\n", uuid_format(m->uuid, uuid),
                              m->autostart ? "auto" : "manual", ap_mask_format_list(&m->matrix.adapters, a),
                              ap_mask_format_list(&m->matrix.domains, d),
                              ap_mask_format_list(&m->matrix.control, k));
        }
        for (size_t i = 0; i < c.n_bad; i++)
                (void) printf("bad %s: %s\n", c.bad[i].file, c.bad[i].reason);
        mdevctl_content_clear(&c);
        return 0;
}
