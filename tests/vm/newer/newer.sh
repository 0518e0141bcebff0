#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# newer.sh - a newer Debian release builds all without a warning, with both compilers, and the unit and golden tests pass there, with
#            its libxml2, json-c and cmocka
#
# usage: newer.sh SUITE
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"
need_root
need mmdebstrap apt-get unshare chroot

suite=$1
need_debian "$suite"
packages=$("$top/tools/deps" --list build | paste -sd,),clang,jq,libxml2-utils,strace
versions=
for package in gcc clang libxml2-dev libjson-c-dev libcmocka-dev libsystemd-dev libvirt-dev; do
        versions+=" $(debian_version "$suite" $package)"
done

make_root() {
        debian_root "$1/root" "$suite" amd64 apt "$packages" && rm -rf "$1"/root/var/cache/apt/* "$1"/root/var/lib/apt/lists/*
}

dir=$cache/newer-$suite-$(sha256sum <<< "$packages$versions" | cut -c 1-8)
once "$dir" make_root >&2 || once "$dir" make_root >&2 || die "a root file system of $suite could not be made"

# It stays as it is: what is built lies in memory.
inside() {
        local root=$1 node

        mount --bind "$root" "$root"
        mount -o remount,bind,ro "$root"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=1777 tmp "$root/tmp"
        mount -t tmpfs -o mode=755 dev "$root/dev"
        for node in null:3 zero:5 full:7 random:8 urandom:9; do
                mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"
        done
        ln -s /proc/self/fd "$root/dev/fd"
        mkdir -m 1777 "$root/dev/shm"
        mount --bind "$top" "$root/mnt"
        mount -o remount,bind,ro "$root/mnt"

        chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 bash -euc '
                for compiler in gcc clang; do
                        CC=$compiler meson setup --prefix=/usr --werror --buildtype=debugoptimized /tmp/$compiler /mnt > /tmp/log
                        ninja -C /tmp/$compiler > /tmp/log || { tail -n 60 /tmp/log; exit 1; }
                done
                meson test -C /tmp/gcc --no-rebuild --print-errorlogs --suite unit --suite golden --no-suite sweep > /tmp/log ||
                        { tail -n 200 /tmp/log; exit 1; }
                grep -E "^(Ok|Skipped):" /tmp/log'
}

export -f inside
export top
unshare --mount --pid --fork --propagation private -- bash -euc 'inside "$1"' - "$dir/root"
