#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rootfs.sh - a small Debian with systemd, as a directory that nobody writes to
#
# usage: rootfs.sh SUITE      prints the directory's path; it is made once and cached
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
need mmdebstrap apt-get

suite=$1
packages=systemd,systemd-sysv,dbus,polkitd,udev,procps,libxml2,libjson-c5,libgcrypt20,libseccomp2,swtpm,swtpm-tools

# The archive that this machine's apt uses; it has the other releases too.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
        sed -n 's/^Debian \([^ ]*\) [a-z]*$/\1/p' | sed -n 1p)
[ -n "$mirror" ] || skip "apt on this machine has no Debian archive"

make_root() {
        mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
                --aptopt='Acquire::Check-Valid-Until "false"' \
                --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
                --dpkgopt='path-exclude=/usr/share/locale/*' \
                "$suite" "$1/root" "$mirror" < /dev/null > "$1/log" 2>&1 || { cat "$1/log"; return 1; }
}

dir=$cache/root-$suite-$(sha256sum <<< "$packages" | cut -c 1-8)
once "$dir" make_root >&2 || die "a root file system of $suite could not be made"
echo "$dir/root"
