/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm_runner - starts and ends the processes of TPMs: as units of systemd (vtpm_unit.c), or as children of ours (vtpm_child.c). */

#include <systemd/sd-event.h>

#include "base/uuid.h"
#include "vtpm/vtpm.h"
#include "vtpm/vtpm_process.h"

typedef struct VtpmRunner VtpmRunner;

/* @r: 0; > 0: the launcher's exit status (128 + its signal) with one line of @text; < 0: -errno, -ETIME: not in time. Never before the
 * call has returned. */
typedef void (*vtpm_runner_done_t)(void *userdata, int r, const char *text);

typedef struct VtpmRunnerEvents {
        /* It ended, and nobody had asked for it. @fds_kept: a device, whose next start goes on where it was. */
        void (*ended)(void *userdata, VtpmRole role, Uuid uuid, const char *text, bool fds_kept);
        /* It ended, and was started again with all that it had. */
        void (*restarted)(void *userdata, VtpmRole role, Uuid uuid);
} VtpmRunnerEvents;

typedef struct VtpmRunnerOps {
        /* Done when it is ready; a job: when it has ended. One at a time for each role and TPM. */
        int (*start)(VtpmRunner *r, VtpmRole role, Uuid uuid, uint64_t timeout_us, vtpm_runner_done_t done,
                     void *userdata);
        /* Done when it has ended, also if it was not there; -ETIME: it cannot be killed. */
        int (*stop)(VtpmRunner *r, VtpmRole role, Uuid uuid, vtpm_runner_done_t done, void *userdata);
        /* At start: 1 if it runs, and is watched from now on; 0 if not; -errno. May block a little. */
        int (*adopt)(VtpmRunner *r, VtpmRole role, Uuid uuid);
        void (*free)(VtpmRunner *r);
} VtpmRunnerOps;

struct VtpmRunner {
        const VtpmRunnerOps *ops;
};

/* What runs goes on when the runner is freed; open calls are forgotten. @run_fd: RUN. */
int vtpm_child_new(sd_event *event, int root_fd, int run_fd, const char *launcher,
                   const VtpmRunnerEvents *events, void *userdata, VtpmRunner **ret);
/* @bus: sd_bus * to systemd. */
int vtpm_unit_new(sd_event *event, void *bus, const VtpmRunnerEvents *events, void *userdata,
                  VtpmRunner **ret);

static inline VtpmRunner *vtpm_runner_free(VtpmRunner *r) {
        if (r)
                r->ops->free(r);
        return NULL;
}
