#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# module.sh - builds the guest driver against the kernel headers of a Debian release; a warning is an error
#
# usage: module.sh SUITE amd64|s390x DIRECTORY      leaves tpm_virtio.ko in DIRECTORY, which is new
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
need unshare

suite=$1 arch=$2 out=$3
box=$("$top/tests/vm/tpm/box.sh" "$suite") || exit
headers=$(cd "$box/usr/src" && echo linux-headers-*-"$arch")
mkdir -p "$out"
cp -r "$top"/drivers/tpm_virtio/{Kbuild,*.[ch]} "$out"
cp -r "$top/drivers/include" "$out/include"

arguments=()
[ "$arch" = amd64 ] || arguments=(ARCH=s390 CROSS_COMPILE=s390x-linux-gnu-)
# The mounts are seen by nobody else; what they are mounted on is the box's own.
unshare --mount --propagation private bash -ec '
        box=$1 out=$2
        shift 2
        mount -t tmpfs build "$box/mnt"
        mkdir "$box/mnt/module"
        mount --bind "$out" "$box/mnt/module"
        mount -t proc proc "$box/proc"
        exec chroot "$box" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C make -s "$@"' \
        bash "$box" "$(realpath "$out")" -C "/usr/src/$headers" M=/mnt/module W=1 KCFLAGS=-Werror \
        "${arguments[@]}" modules > "$out/log" 2>&1 < /dev/null || { cat "$out/log"; die "it cannot be built"; }

# What make or modpost have to say is no compiler warning; "Skipping BTF" is for want of a vmlinux.
if grep -vE '^(Skipping BTF generation for|  [A-Z]+ )' "$out/log"; then
        die "building it gives the words above"
fi
[ -s "$out/tpm_virtio.ko" ]
