#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# root.sh - a guest's root file system: busybox, the tpm2-tools of a Debian release, and python for the kernel's tests
#
# usage: root.sh SUITE amd64|s390x [PACKAGE,...]
#
# Prints the directory's path; it is made once and cached. With more packages.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"
need_root
need mmdebstrap apt-get

suite=$1 arch=$2 more=${3:-}
need_debian "$suite"

# Their names say for which size of time_t they were built.
libraries=$(for name in libtss2-tctildr0 libtss2-tcti-device0; do
        debian_apt "$suite" apt-cache pkgnames "$name" | sort | tail -n 1
done | paste -sd ,)
packages=busybox-static,tpm2-tools,$libraries,python3-minimal,libpython3-stdlib${more:+,$more}

make_root() {
        local root=$1/root

        debian_root "$root" "$suite" "$arch" extract "$packages" || return 1
        # Nothing of what a guest without a user needs is in there, unless somebody wants to use it.
        [ -n "$more" ] || rm -rf "$root"/usr/share "$root"/usr/lib/*/{gconv,perl*} "$root"/usr/include "$root"/var "$root"/etc/[!l]*
        find "$root" -name '__pycache__' -prune -exec rm -rf {} +
        mkdir -p "$root/usr/sbin"
        [ -x "$root/usr/bin/tpm2" ] && [ -x "$root/bin/busybox" ]
}

dir=$cache/guest-$suite-$arch-$(debian_version "$suite" "tpm2-tools:$arch")-$(sha256sum <<< "$packages" | cut -c 1-8)
once "$dir" make_root >&2 || once "$dir" make_root >&2 || die "a guest's root of $suite for $arch could not be made"
echo "$dir/root"
