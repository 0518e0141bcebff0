#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# modules.sh - the guest driver builds without a warning against the kernels of Debian 12, Debian 13 and the newest
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root

for suite in bookworm trixie sid; do
        for arch in amd64 s390x; do
                status=0
                said=$("$top/tests/vm/tpm/module.sh" $suite $arch) || status=$?
                [ $status = 0 ] || { echo "${said##*$'\n'}"; exit $status; }
                modinfo -F vermagic "$said/tpm_virtio.ko"
        done
done
