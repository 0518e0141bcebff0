/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* mdevctl - what mdevctl(8) has defined for vfio_ap, read only: etc/mdevctl.d/matrix/UUID, JSON. Blocks:
 * file worker. */

#include <stdbool.h>
#include <stddef.h>

#include "base/uuid.h"
#include "core/ap_matrix.h"

typedef struct MdevctlDefinition {
        Uuid uuid;
        bool autostart;
        ApMatrix matrix;
} MdevctlDefinition;

typedef struct MdevctlBad {
        char *file; /* name below etc/mdevctl.d/matrix */
        char *reason;
} MdevctlBad;

typedef struct MdevctlContent {
        MdevctlDefinition *definitions;
        size_t n_definitions;
        MdevctlBad *bad; /* files that are not what they should be; they stop nothing */
        size_t n_bad;
} MdevctlContent;

void mdevctl_content_clear(MdevctlContent *c);

/* No directory is no definition. Ids are read as the kernel would read them (base 0); assign_*, unassign_*
 * and ap_config attributes are applied in order. 0 or -errno of the directory. */
int mdevctl_read(int root_fd, MdevctlContent *ret);
