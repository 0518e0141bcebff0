#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kernel.sh - the stock kernel of a Debian release
#
# usage: kernel.sh SUITE amd64|s390x
#
# Prints a directory, made once and cached, that holds vmlinuz, and modules/*.ko with what this kernel needs to be
# loaded, in the order of their names, before the guest driver can be.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"
need apt-get xz

suite=$1 arch=$2
need_debian "$suite"
modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci'

image=$(debian_depends "$suite" "linux-image-$arch:$arch" linux-image-)
[ -n "$image" ] || skip "apt knows no linux-image-$arch of $suite"
# Newer releases have the kernel apart from its modules; all of the above are part of it there.
binary=$(debian_depends "$suite" "$image:$arch" linux-binary-)

make_kernel() {
        local root=$1/root file n=0 module

        mkdir "$root" "$1/modules"
        debian_unpack "$suite" "$root" "${binary:-$image}:$arch" || return 1
        find "$root" -type f -name 'vmlinuz*' -exec cp {} "$1/vmlinuz" \;
        for module in $modules; do
                file=$(find "$root" -name "$module.ko*" | sed -n 1p)
                n=$((n + 1))
                case $file in
                *.xz) xz -dc "$file" > "$1/modules/$n-$module.ko" ;;
                *.ko) cp "$file" "$1/modules/$n-$module.ko" ;;
                esac
        done
        rm -rf "$root"
        [ -s "$1/vmlinuz" ]
}

dir=$cache/kernel-$suite-$arch-$(debian_version "$suite" "$image:$arch")
once "$dir" make_kernel >&2 || once "$dir" make_kernel >&2 || die "the kernel of $suite for $arch could not be had"
echo "$dir"
