#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# box.sh - a root file system to build modules in: the compilers of a Debian release for x86_64 and s390x, and the
#          headers of its newest kernel for both
#
# usage: box.sh SUITE      prints the directory's path; it is made once and cached, until there is a newer kernel
#
# What runs in it is native: the s390x compiler is a cross one, and the kernel's build tools are this machine's even
# with s390x headers.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"
need_root
need mmdebstrap apt-get

suite=$1
need_debian "$suite"
packages=make,gcc,gcc-s390x-linux-gnu,perl # the last for kernel-doc, which is run with more warnings than usual
headers=$(debian_depends "$suite" linux-headers-amd64 linux-headers-)
[ -n "$headers" ] || skip "apt knows no linux-headers-amd64 of $suite"
release=${headers#linux-headers-}
release=${release%-amd64}
kbuild=$(debian_depends "$suite" "$headers" linux-kbuild-)

make_box() {
        debian_root "$1/root" "$suite" amd64 essential "$packages,$kbuild" &&
                debian_unpack "$suite" "$1/root" "linux-headers-$release-common" "linux-headers-$release-amd64" \
                        "linux-headers-$release-s390x:s390x" &&
                rm -rf "$1"/root/var/cache/apt/* "$1"/root/var/lib/apt/lists/*
}

dir=$cache/box-$suite-$(debian_version "$suite" "$headers")-$(sha256sum <<< "$packages" | cut -c 1-8)
once "$dir" make_box >&2 || once "$dir" make_box >&2 || die "a build root of $suite could not be made"
echo "$dir/root"
