#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# daemon.sh - guestcryptd, built for s390x, on a kernel with the real AP bus and vfio_ap, with systemd, udev and a bus
#
# usage: daemon.sh GUESTCRYPTD GUESTCRYPTCTL UNIT BUS-POLICY SYSROOT
#
# Two boots: what was defined in the first is there after the second. SYSROOT has the libraries that the programs were
# linked with, of which the guest's Debian may have newer ones only.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/vm/ap-kernel}
. "$top/tests/lib/common.sh"

daemon=$1 client=$2 unit=$3 policy=$4 sysroot=$5
need s390x-linux-gnu-readelf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/libraries" "$work/state"
cp "$daemon" "$client" "$unit" "$policy" "$here/daemon-checker.sh" "$work/"

# libraries FILE: what it needs, and what that needs, but the C library, which is the guest's own
libraries() {
        local name file

        while read -r name; do
                case $name in libc.so.* | libm.so.* | ld*) continue ;; esac
                [ ! -e "$work/libraries/$name" ] || continue
                file=$sysroot/usr/lib/s390x-linux-gnu/$name
                [ -e "$file" ] || file=$sysroot/lib/s390x-linux-gnu/$name
                [ -e "$file" ] || die "$1 needs $name, which is not in $sysroot"
                cp -L "$file" "$work/libraries/$name"
                libraries "$file"
        done < <(s390x-linux-gnu-readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
}
libraries "$daemon"
libraries "$client"

for boot in first second; do
        status=0
        "$here/run.sh" -S -t 900 -s "guestcrypt=$work" "$here/daemon-$boot.sh" > "$work/said" 2>&1 || status=$?
        cat "$work/said"
        [ $status = 0 ] || exit $status
done
