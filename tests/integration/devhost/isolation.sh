#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# isolation.sh - the simulated host writes nothing to the real one, mounts nothing there, leaves no process behind
#
# All of the real file system but /tmp and the build directory is read-only for this test, so that an attempt fails.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
[ -n "${GUESTCRYPT_BUILD-}" ] || die "GUESTCRYPT_BUILD does not name a build directory"

if [ -z "${ISOLATED-}" ]; then
        "$top/tools/deps" devhost libvirt
        "$top/tools/devhost.d/build" > /dev/null
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        ISOLATED=$work unshare --mount --propagation private "$0"
        exit
fi

for dir in /tmp "$GUESTCRYPT_BUILD"; do
        mount --rbind "$dir" "$dir"
done
for dir in / /dev /run /sys; do
        [ $dir = / ] || mount --rbind $dir $dir
        mount -o remount,bind,ro $dir
done
! touch /etc/x /run/x 2> /dev/null || die "this test does not test"

cp /proc/self/mountinfo "$ISOLATED/before"
"$top/tools/devhost" --libvirt --quiet -- bash -euc '
        readlink /proc/self/ns/pid > "$1/pidns"
        uuid=11111111-1111-1111-1111-111111111111
        mdevctl define -u $uuid -p matrix -t vfio_ap-passthrough
        mdevctl start -u $uuid
        touch /etc/guestcrypt/x /run/x /var/lib/libvirt/x /usr/share/x /dev/x
        udevadm trigger --subsystem-match=mdev
        udevadm settle
        virsh nodedev-list --cap mdev | grep $(tr - _ <<< $uuid) > /dev/null
        guestcryptctl mdev-create mtty mtty-1 --uuid 22222222-2222-2222-2222-222222222222
        devhost-kill
        sleep 1000 &
        devhost-reboot
        ls /sys/bus/mdev/devices > "$1/left"
' bash "$ISOLATED"
[ ! -s "$ISOLATED/left" ] || die "mdevs outlived the reboot"

diff "$ISOLATED/before" /proc/self/mountinfo || die "there are mounts left"
space=$(cat "$ISOLATED/pidns")
[ "$space" != "$(readlink /proc/self/ns/pid)" ] || die "it had no process namespace of its own"
for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/pid" 2> /dev/null)" != "$space" ] || die "$(tr '\0' ' ' < "$process/cmdline") is left"
done
