/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_matrix - reads what one vfio_ap mdev has, by the way that is safe on this kernel. Blocks. */

#include "core/ap_matrix.h"
#include "host/host.h"
#include "host/sysfs.h"

/* The attribute is there but is not what it should be. */
#define HOST_MATRIX_ABSURD (-EBADMSG)

/* From ap_config, which cannot hang; but reading takes no lock and may show a mixture while it is being
 * written, so that a value other than *@expected (may be NULL) counts only when it is seen twice in a row.
 * -EAGAIN: it did not settle. */
int host_matrix_read(Sysfs *s, const char *mdev_path, const ApMatrix *expected, ApMatrix *ret);

/* From `matrix` and `control_domains`, for kernels without ap_config. These can hang, and may be read only
 * if the mdev has fewer queues than HOST_MATRIX_QUEUES_MAX. */
int host_matrix_read_text(Sysfs *s, const char *mdev_path, ApMatrix *ret);

/* From `guest_matrix`; as above. */
int host_matrix_read_guest(Sysfs *s, const char *mdev_path, ApMask *ret_adapters, ApMask *ret_domains);

/* The text of `matrix` ("03.0006\n", "03.\n", ".0006\n"). -EBADMSG, then nothing is changed. */
int host_matrix_parse_text(const char *text, ApMask *ret_adapters, ApMask *ret_domains);
