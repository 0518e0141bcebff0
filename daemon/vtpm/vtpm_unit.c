/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "vtpm/vtpm_runner.h"

int vtpm_unit_new(sd_event *event, void *bus, const VtpmRunnerEvents *events, void *userdata,
                  VtpmRunner **ret) {
        return -EOPNOTSUPP;
}
