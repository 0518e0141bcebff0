#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# talk.sh - a guest that talks through a real mdev which guestcryptd has made, started by libvirt, all of it in a guest
#
# usage: talk.sh GUEST [PROGRAM | FILE=PATH-IN-GUEST]...
#
# GUEST is the kernel of the innermost guest (guest.c). Both guests are emulated, so that the inner one is a hundred times slower
# than a real one.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/vm/mdev}
. "$top/tests/lib/common.sh"

export GUEST_SECONDS=600 GUEST_MEMORY=1200 # several times what a slow machine took
need qemu-system-x86_64 libvirtd virsh mdevctl

libraries=/usr/lib/$(gcc -dumpmachine)
udevd=/lib/systemd/systemd-udevd
for file in "$libraries/libvirt/connection-driver/libvirt_driver_qemu.so" "$udevd"; do
        [ -e "$file" ] || skip "there is no $file"
done
# What has to be where its users look for it: QEMU finds its files from where it is itself.
files=()
for file in "$(command -v qemu-system-x86_64)" "$(command -v libvirtd)" "$udevd" /usr/share/dbus-1/system.conf \
        "$libraries"/libvirt/connection-driver/libvirt_driver_{qemu,nodedev}.so "$libraries"/qemu/accel-tcg-x86_64.so \
        /usr/share/seabios/bios-256k.bin /usr/share/qemu/{multiboot_dma,kvmvapic}.bin \
        /usr/share/libvirt/cpu_map/{index.xml,x86_*.xml}; do
        [ ! -e "$file" ] || files+=("$file=$file")
done
"$top/tests/vm/guest.sh" "$here/inside.sh" "${@:2}" "${files[@]}" "$1=/guest" \
        virsh mdevctl dbus-daemon busctl
