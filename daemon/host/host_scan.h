/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_scan - reads a whole host into a snapshot. Blocks.
 *
 * What can hang in the kernel: `status` of queues, `matrix`, `control_domains` and `guest_matrix` of every
 * mdev, while one queue's reset does not end. The rest is read first. On kernels without ap_config
 * (before 6.10) a matrix comes from `matrix`, and only where it surely has fewer queues than make that
 * attribute overrun its page: because the host has not more to give, or because the caller vouches for what
 * the mdev has. Elsewhere it stays unknown. */

#include "core/snapshot.h"
#include "host/host.h"
#include "host/sysfs.h"

typedef struct HostScanner {
        Sysfs *sysfs;
        int root_fd; /* below it dev/vfio, which is asked about what was in use in `previous` */
        /* An earlier scan, or NULL: saves reading a matrix twice that has not changed. */
        const Snapshot *previous;
        /* The AP bus has sent no event since `previous`: up to 65,536 queues are not listed, and cards
         * not read again while masks, configuration and number of bound queues are the same. */
        bool quiet;
        /* Nor has the mdev core: parents, types and mdevs are not listed while each type has as many instances left. */
        bool quiet_mdevs;
        /* Not 0: what `previous` has read since then (CLOCK_MONOTONIC) is not read again. */
        uint64_t recent_us;
        const HostKnown *known; /* by uuid */
        size_t n_known;
        /* Driver overrides of all queues are read, as in a detailed scan: else only of those that vfio_ap has, and
         * where there was one in `previous`. One that somebody sets raises no event. */
        bool overrides;
        bool careful; /* leave out all that can hang; then detail_stuck is set if that was anything */
        /* May be NULL. Called before the first reading that can hang, with what was read until then.
         * Negative: stop and return it. */
        int (*risky)(void *userdata, const Snapshot *s);
        void *userdata;
} HostScanner;

/* 0, or -errno: -EBADMSG, masks or maxima are not what a kernel writes; -EAGAIN, the host did not hold
 * still; SYSFS_NEVER. */
int host_scan(const HostScanner *c, HostScan depth, Snapshot **ret);

/* Reads again which queues are there, bound to vfio_ap and overridden, and the masks. */
int host_scan_queues(Sysfs *sysfs, Snapshot *s);

/* Reads available_instances of the types of @parent again. */
int host_scan_available(Sysfs *sysfs, Snapshot *s, uint32_t parent);

/* "devices/vfio_ap/matrix/UUID[/NAME]". -ENAMETOOLONG. */
int host_scan_mdev_path(const char *parent_path, Uuid uuid, const char *name, char *buf, size_t size);
