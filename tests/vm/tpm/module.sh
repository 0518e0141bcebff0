#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# module.sh - builds the guest driver against the kernel headers of a Debian release; a warning is an error
#
# usage: module.sh SUITE amd64|s390x      prints the directory of tpm_virtio.ko; built once for what it is built from
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
need unshare

suite=$1 arch=$2
status=0
box=$("$top/tests/vm/tpm/box.sh" "$suite") || status=$?
[ $status = 0 ] || { echo "${box##*$'\n'}"; exit $status; }
headers=$(cd "$box/usr/src" && echo linux-headers-*-"$arch")
sources=("$top"/drivers/tpm_virtio/{Kbuild,*.[ch]} "$top"/drivers/include/*.h)

make_module() {
        local arguments=() log=$1/log

        mkdir "$1/include" && cp "${sources[@]}" "$1" && mv "$1/virtio_tpm.h" "$1/include" || return 1
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
                bash "$box" "$1" -C "/usr/src/$headers" M=/mnt/module W=1 KCFLAGS=-Werror \
                "${arguments[@]}" modules > "$log" 2>&1 < /dev/null || { cat "$log"; return 1; }

        # What make or modpost have to say is no compiler warning. "Skipping BTF" is for want of a vmlinux.
        ! grep -vE '^(Skipping BTF generation for|  [A-Z]+ )' "$log" || { echo "building it gives these words"; return 1; }
        [ -s "$1/tpm_virtio.ko" ]
}

dir=$cache/module-$(cat "$0" "${sources[@]}" <(echo "$box $headers") | sha256sum | cut -c 1-16)
once "$dir" make_module >&2 || die "the driver cannot be built for $suite on $arch"
echo "$dir"
