#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# dkms.sh - the driver's Debian package can be made, and what it installs builds with the command of its dkms.conf
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
need dpkg-buildpackage dh_dkms unshare

status=0
box=$("$top/tests/vm/tpm/box.sh" sid) || status=$?
[ $status = 0 ] || { echo "${box##*$'\n'}"; exit $status; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/drivers"
cp -r "$top"/drivers/{tpm_virtio,include} "$work/drivers/"
(cd "$work/drivers/tpm_virtio" && dpkg-buildpackage -b -us -uc) > "$work/log" 2>&1 || { cat "$work/log"; die "no package"; }
dpkg-deb -x "$work"/drivers/guestcrypt-tpm-virtio-dkms_*_all.deb "$work/root"
source=$(echo "$work"/root/usr/src/guestcrypt-tpm-virtio-*)

# What dkms does with it.
headers=$(cd "$box/usr/src" && echo linux-headers-*-amd64)
# shellcheck disable=SC2034
kernel_source_dir=/usr/src/$headers
# shellcheck disable=SC1091
. "$source/dkms.conf"
[ "${source##*/}" = "$PACKAGE_NAME-$PACKAGE_VERSION" ] || die "dkms.conf and directory are of different versions"
unshare --mount --propagation private bash -ec '
        box=$1 source=$2 command=$3
        mount -t tmpfs build "$box/mnt"
        mkdir "$box/mnt/module"
        mount --bind "$source" "$box/mnt/module"
        mount -t proc proc "$box/proc"
        exec chroot "$box" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -ec "cd /mnt/module; $command"' \
        bash "$box" "$source" "${MAKE[0]}" > "$work/log" 2>&1 || { cat "$work/log"; die "it cannot be built"; }
[ -s "$source/${BUILT_MODULE_NAME[0]}.ko" ]
