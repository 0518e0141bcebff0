/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_cpu - whether the CPU that an s390x guest will have knows AP instructions at all. */

#include <libvirt/libvirt.h>

#include "virt/virt_xml.h"

/* *ret: those of ap, apft, apqci, apqi that it lacks, as "apft, apqi"; NULL: none, or it cannot be told, or it is another
 * architecture. @xml is the guest's. Blocks; the first time for a CPU model for seconds. 0 or -ENOMEM. */
int virt_cpu_lacks(virConnectPtr libvirt, const VirtWiring *w, const char *xml, char **ret);
