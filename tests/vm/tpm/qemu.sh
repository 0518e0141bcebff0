#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# qemu.sh - a root file system with a QEMU that knows vfio-user (10.1 and newer), for x86_64 and s390x guests
#
# usage: qemu.sh      prints the directory's path; it is made once and cached, until there is a newer QEMU
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"
need_root
need mmdebstrap apt-get
[ "$(uname -m)" = x86_64 ] || skip "this test's QEMU is an x86-64 one"

oldest=1:10.1
packages=qemu-system-x86,qemu-system-s390x

make_qemu() {
        debian_root "$1/root" "$suite" amd64 extract "$packages" && [ -x "$1/root/usr/bin/qemu-system-s390x" ]
}

# Whichever of Debian's releases has one; a backport can be out of step with its own lists for hours.
for suite in sid trixie-backports; do
        version=$(debian_version "$suite" qemu-system-x86) || continue
        [ -n "$version" ] && dpkg --compare-versions "$version" ge "$oldest" || continue
        dir=$cache/qemu-$(tr -c 'a-zA-Z0-9.\n' - <<< "$version")-$(sha256sum <<< "$packages" | cut -c 1-8)
        if once "$dir" make_qemu >&2; then
                echo "$dir/root"
                exit 0
        fi
done
skip "no QEMU of version ${oldest#*:} or newer can be had from apt's archive"
