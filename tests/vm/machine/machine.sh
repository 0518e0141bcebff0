#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# machine.sh - guestcrypt, built for s390x and installed, on a kernel with the real AP bus and vfio_ap, with systemd, udev,
# a bus, libvirt's node devices, mdevctl and s390-tools
#
# usage: machine.sh BUILD SYSROOT AP-GUEST KERNEL PROCESSORS SCRIPT...
#
# KERNEL is one of ap-kernel's. Each SCRIPT has a boot of its own; what one has given to "keep" is there before the next
# one boots. SYSROOT has the libraries that the programs were linked with, of which the guest's Debian may have newer ones
# only.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/vm/machine}
. "$top/tests/lib/common.sh"

build=$1 sysroot=$2 guest=$3 kernel=$4 cpus=$5
shift 5
need meson s390x-linux-gnu-readelf debugfs
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
meson install -C "$build" --no-rebuild --strip --quiet --destdir "$work/root"
install -D "$guest" "$work/root/usr/bin/ap-guest"
install -m 644 "$here/checker.sh" "$work/root/usr/lib/"

mkdir -p "$work/root/usr/lib/s390x-linux-gnu"
image=$("$top/tests/vm/ap-kernel/root.sh") || { [ $? = 77 ] && echo "${image##*$'\n'}" && exit 77; die "$image"; }
library_dir=usr/lib/s390x-linux-gnu
guest_has=$(debugfs -R "ls -p /$library_dir" "$image" 2> /dev/null | cut -d / -f 6)

# libraries FILE: what it needs, and what that needs, but what the guest has
libraries() {
        local name file

        while read -r name; do
                [ ! -e "$work/root/$library_dir/$name" ] && [[ $'\n'$guest_has$'\n' != *$'\n'"$name"$'\n'* ]] || continue
                file=$sysroot/usr/lib/s390x-linux-gnu/$name
                [ -e "$file" ] || file=$sysroot/lib/s390x-linux-gnu/$name
                [ -e "$file" ] || die "$1 needs $name, which is not in $sysroot"
                cp -L "$file" "$work/root/$library_dir/$name"
                libraries "$file"
        done < <(s390x-linux-gnu-readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
}
for program in "$work"/root/usr/{s,}bin/* "$work"/root/usr/libexec/guestcrypt/*; do
        libraries "$program"
done

for script; do
        "$top/tests/vm/ap-kernel/run.sh" -S -k "$kernel" -c "$cpus" -t 1800 -s "root=$work/root" "$here/$script.sh" 2>&1 || exit $?
done
