/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_paths - every path that host/ touches. The first group is relative to the root, the rest to /sys. */

#define HOST_PATH_SYS         "sys"
#define HOST_PATH_LOCK_DIR    "run/lock"
#define HOST_PATH_LOCK        "s390apconfig.lock" /* in the lock directory; s390-tools' */
#define HOST_PATH_VFIO        "dev/vfio"
#define HOST_PATH_MDEVCTL     "etc/mdevctl.d/matrix"
#define HOST_PATH_MDEVCTL_ALL "etc/mdevctl.d"
#define HOST_MDEVCTL_ASIDE \
        ".guestcrypt-" /* and a UUID: in HOST_PATH_MDEVCTL_ALL, where mdevctl looks at directories only */
#define HOST_PATH_RULES "etc/udev/rules.d"

#define HOST_PATH_AP          "bus/ap"
#define HOST_PATH_APMASK      HOST_PATH_AP "/apmask"
#define HOST_PATH_AQMASK      HOST_PATH_AP "/aqmask"
#define HOST_PATH_ADAPTERS    HOST_PATH_AP "/ap_adapter_mask"
#define HOST_PATH_DOMAINS     HOST_PATH_AP "/ap_usage_domain_mask"
#define HOST_PATH_CONTROL     HOST_PATH_AP "/ap_control_domain_mask"
#define HOST_PATH_MAX_ADAPTER HOST_PATH_AP "/ap_max_adapter_id"
#define HOST_PATH_MAX_DOMAIN  HOST_PATH_AP "/ap_max_domain_id"
#define HOST_PATH_BINDINGS    HOST_PATH_AP "/bindings"
#define HOST_PATH_DEFAULT     HOST_PATH_AP "/ap_domain"
#define HOST_PATH_AP_DEVICES  HOST_PATH_AP "/devices" /* /cardXX, /XX.YYYY */
#define HOST_PATH_AP_PROBE    HOST_PATH_AP "/drivers_probe"
#define HOST_PATH_AP_DRIVERS  HOST_PATH_AP "/drivers"
#define HOST_PATH_AP_VFIO     HOST_PATH_AP_DRIVERS "/vfio_ap"

#define HOST_PATH_PARENTS "class/mdev_bus" /* links to parents */
#define HOST_DIR_TYPES \
        "mdev_supported_types" /* in a parent; /TYPE/{create,devices,available_instances,...} */
#define HOST_PARENT_AP   "matrix"
#define HOST_API_AP      "vfio-ap"
#define HOST_DRIVER_AP   "vfio_ap"
#define HOST_DRIVER_HOST "cex4queue" /* since 4.10 the host's only one for queues */

#define HOST_PATH_SIZE 512
