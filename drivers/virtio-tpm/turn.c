/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/turn.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* The kernel's own is 0.7 ms for one processor and four times that for eight and more. */
#define TURN_NS (4 * UINT64_C(1000000))

/* In commands: those between two looks at what was lost, each of which takes nearly 1 us, and those for which we interrupt then. */
#define LOOK  8
#define HASTE 4096

/* What may have been saved between two looks; what may be lost beyond that; and how much of it at one look, as anything happens once. */
#define SAVED_NS (LOOK * UINT64_C(50000))
#define LOST_NS  (10 * UINT64_C(1000000))
#define ONCE_NS  (LOST_NS / 4)

static int schedstat_fd = -1;
static uint64_t waited, lost, commands_ns;
static unsigned until_look = LOOK;
static bool hasty;

/* How long we have waited for a processor so far, in ns (Documentation/scheduler/sched-stats.rst). False where the kernel does not count. */
static bool count_waited(uint64_t *ret) {
        char line[64], *end;
        uint64_t ns;
        ssize_t n;

        n = pread(schedstat_fd, line, sizeof line - 1, 0);
        if (n <= 0)
                return false;

        line[n] = '\0';
        (void) strtoull(line, &end, 10); /* ns on a processor, as of the last tick */
        ns = strtoull(end, &end, 10);
        if (strtoull(end, NULL, 10) == 0) /* never had a processor */
                return false;
        *ret = ns;
        return true;
}

static bool change(uint32_t from, uint32_t to) {
        struct sched_attr attr = {};

        if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) < 0 || attr.sched_policy != from)
                return false;

        attr.size = sizeof attr;
        attr.sched_policy = to;
        attr.sched_runtime = TURN_NS;
        return syscall(SYS_sched_setattr, 0, &attr, 0) == 0;
}

void turn_ask(void) {
        schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        if (count_waited(&waited) && change(SCHED_NORMAL, SCHED_BATCH))
                return;

        schedstat_fd = fd_close(schedstat_fd);
        (void) change(SCHED_NORMAL, SCHED_NORMAL);
}

static bool look(void) {
        uint64_t before = waited, late;

        if (!count_waited(&waited))
                return false;
        if (hasty) {
                hasty = false;
                lost = 0;
                return change(SCHED_NORMAL, SCHED_BATCH);
        }

        late = waited - before;
        late -= MIN(late, commands_ns); /* while the TPM computes, there is nothing to be late for */
        lost += MIN(late, ONCE_NS);
        lost -= MIN(lost, SAVED_NS);
        hasty = lost > LOST_NS;
        return !hasty || change(SCHED_BATCH, SCHED_NORMAL);
}

void turn_over(uint64_t took) {
        commands_ns += took;
        if (schedstat_fd < 0 || --until_look > 0)
                return;

        if (!look()) /* the kernel no longer tells, or somebody else has chosen */
                schedstat_fd = fd_close(schedstat_fd);
        commands_ns = 0;
        until_look = hasty ? HASTE : LOOK;
}
