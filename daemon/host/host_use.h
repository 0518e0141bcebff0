/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_use - whether somebody has an mdev, as far as the kernel shows it. Blocks, and can hang. */

#include "host/host_scan.h"

/* Of one with matrix @m, by the status of one queue that the guest would have. UNKNOWN if it has none. 0 or -errno. */
int host_use_queues(Sysfs *sysfs, const Snapshot *s, const ApMatrix *m, MdevUse *ret);

/* Of any, whose directory is @path: whoever has it holds its VFIO group, which opens only once. FREE means that the group was
 * opened and closed again: whoever comes in between is refused, so this is for one that is about to be removed, or that
 * somebody had when it was last looked at. UNKNOWN: it has no group that can be opened. 0 or -errno. */
int host_use_group(Sysfs *sysfs, int root_fd, const char *path, MdevUse *ret);

/* For a scan, of those that are not of vfio_ap: what waits to be removed is in use. True: some were when they were last looked at,
 * which host_use_held() is to do again; with `careful` they are taken to be still. */
bool host_use_expect(const HostScanner *c, Snapshot *s);
/* 0 or -errno, SYSFS_NEVER. */
int host_use_held(const HostScanner *c, Snapshot *s);
