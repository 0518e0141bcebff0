#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Fills small disks: commits end with ENOSPC, and all that was acknowledged is there. Usage: full.sh STORE-TOOL
set -eu
if [ "${2:-}" != inside ]; then
        unshare --mount --propagation private true 2> /dev/null || { echo 'SKIP: no mount namespaces here'; exit 77; }
        exec unshare --mount --propagation private "$0" "$1" inside
fi

d=$(mktemp -d)
trap 'umount "$d" 2> /dev/null || true; rmdir "$d"' EXIT
for size in 64k 100k 256k 1m; do
        mount -t tmpfs -o size=$size,mode=0755 guestcrypt-full "$d" || { echo 'SKIP: no tmpfs here'; exit 77; }
        echo "$size: $("$1" "$d" fill)"
        umount "$d"
done
