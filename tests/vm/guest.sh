#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# guest.sh - runs a shell script as the only work of a small guest with Debian's stock kernel and the mtty mdev driver
#
# usage: guest.sh SCRIPT [PROGRAM | FILE=PATH-IN-GUEST]...
#
# Programs (paths, or names to be found in PATH) come along with their libraries, below /bin of the guest or wherever they are
# wanted. The guest is emulated (TCG), never accelerated: nested virtualisation hangs stock kernels on some hosts. Exit status: the
# script's; 77 when no guest can be run here. GUEST_SECONDS, GUEST_MEMORY (MiB): what it may need.
set -euo pipefail
top=$(cd "${0%/*}/../.." && pwd)
. "$top/tests/lib/common.sh"

seconds=${GUEST_SECONDS:-180} # three times what a slow machine took
memory=${GUEST_MEMORY:-512}
need qemu-system-x86_64 cpio busybox make gcc
[ "$(uname -m)" = x86_64 ] || skip "the guest is an x86-64 one, and so its programs have to be"

script=$1
shift
kernel=$("$top/tests/vm/kernel.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/bin" "$root/etc"

# put FILE PATH: with all that the dynamic linker wants for it, if it is a program or a library, at the same paths
put() {
        local lib

        install -D "$1" "$root$2"
        { ldd "$1" 2> /dev/null || :; } | sed -n 's#^[^/]*\(/[^ ]*\).*#\1#p' | while read -r lib; do
                [ -e "$root$lib" ] || install -D "$lib" "$root$lib"
        done
}

put "$(command -v busybox)" /bin/busybox
for what; do
        case $what in
        *=*) put "${what%%=*}" "${what#*=}" ;;
        *)
                need "$what"
                put "$(command -v "$what")" "/bin/${what##*/}"
                ;;
        esac
done
printf '%s\n' root:x:0:0::/root:/bin/sh messagebus:x:100:100::/:/bin/false > "$root/etc/passwd"
printf '%s\n' root:x:0: messagebus:x:100: > "$root/etc/group"
cp -r "$kernel/modules" "$root/modules"
install "$top/tests/vm/init" "$root/init"
install "$script" "$root/test"
(cd "$root" && find . -print0 | cpio --null -o -H newc --quiet) > "$work/initramfs"

timeout -k 5 $seconds qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -m "$memory" -nodefaults -no-user-config \
        -display none -no-reboot -serial "file:$work/console" -kernel "$kernel/vmlinuz" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable" < /dev/null || {
        cat "$work/console"
        die "the guest did not end by itself"
}
tr -d '\r' < "$work/console" > "$work/text"
grep -v '^GUEST-EXIT' "$work/text" || :
status=$(sed -n 's/^GUEST-EXIT //p' "$work/text")
[ -n "$status" ] || die "the guest died before its script ended"
exit "$status"
