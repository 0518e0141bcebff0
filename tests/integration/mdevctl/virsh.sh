#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# virsh.sh - libvirt's node devices obey the same check: it runs mdevctl, which runs our callout
#
# usage: virsh.sh old|new     this machine's libvirt and mdevctl, or those of a newer Debian release
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
if [ "$1" != --inside ]; then
        need_root
        need mdevctl
        libvirt=--libvirt
        [ "$1" = old ] || libvirt+==$1
        exec "$top/tools/devhost" --quiet $libvirt -- "$0" --inside "$1"
fi

virsh=(virsh)
[ "$2" = old ] || virsh=("$top/tools/devhost.d/newer" virsh)
ln -s /usr/libexec/guestcrypt/guestcrypt-callout /etc/mdevctl.d/scripts.d/callouts/00-guestcrypt
printf 0x0 > /sys/bus/ap/apmask
printf 0x0 > /sys/bus/ap/aqmask
uuid=11111111-1111-1111-1111-111111111111
name=mdev_${uuid//-/_}_matrix
matrix=/sys/devices/vfio_ap/matrix

# expect STATUS PATTERN COMMAND...
expect() {
        local want=$1 pattern=$2 status=0 out

        out=$("${@:3}" 2>&1) || status=$?
        [ $status = "$want" ] && grep -E -- "$pattern" <<< "$out" > /dev/null ||
                die "'${*:3}': status $status, not $want with /$pattern/: $out"
}
# xml DOMAIN: a device with adapter 0
xml() {
        printf '<device><parent>ap_matrix</parent><capability type="mdev"><type id="vfio_ap-passthrough"/><uuid>%s</uuid><attr name="assign_adapter" value="0"/><attr name="assign_domain" value="%s"/></capability></device>' \
                $uuid "$1" > /run/device.xml
        echo /run/device.xml
}

guestcryptctl define ours --adapters 0 --domains 6 > /dev/null
ours=$(guestcryptctl --json show ours | jq -r .uuid)

# The refusal of guestcryptd is what virsh shows.
for verb in nodedev-define nodedev-create; do
        expect 1 "00.0006 is held by definition 'ours'" "${virsh[@]}" $verb "$(xml 6)"
done
[ ! -d $matrix/$uuid ] && [ ! -e /etc/mdevctl.d/matrix/$uuid ] || die "something of it is left"

"${virsh[@]}" nodedev-define "$(xml 0x10)" > /dev/null
expect 3 "00.0010 *mdevctl *$uuid" guestcryptctl check --adapters 0 --domains 0x10
"${virsh[@]}" nodedev-start $name > /dev/null
expect 3 "00.0010 *mdev *$uuid" guestcryptctl check --adapters 0 --domains 0x10 --start
"${virsh[@]}" nodedev-autostart $name > /dev/null
grep -E '"start": *"auto"' /etc/mdevctl.d/matrix/$uuid > /dev/null || die "it was not changed"

if [ "$2" = new ]; then # libvirt 10.1 and later change devices
        "${virsh[@]}" nodedev-dumpxml $name > /run/now.xml
        sed "s/value='\(0x\)\?0*\(16\|10\)'/value='6'/" /run/now.xml > /run/wish.xml
        ! cmp -s /run/now.xml /run/wish.xml || die "the device shows no domain: $(cat /run/now.xml)"
        expect 1 "00.0006 is held by definition 'ours'" "${virsh[@]}" nodedev-update $name /run/wish.xml --live --config
        [ "$(cat $matrix/$uuid/matrix)" = 00.0010 ] || die "it was changed all the same"
        sed "s/value='\(0x\)\?0*\(16\|10\)'/value='0x1b'/" /run/now.xml > /run/wish.xml
        "${virsh[@]}" nodedev-update $name /run/wish.xml --live --config > /dev/null
        [ "$(cat $matrix/$uuid/matrix)" = 00.001b ] || die "it has $(cat $matrix/$uuid/matrix)"
        grep 0x1b /etc/mdevctl.d/matrix/$uuid > /dev/null || die "its definition was not changed"
fi

# What guestcryptd has started, libvirt shows, and does not take away.
guestcryptctl start ours > /dev/null
is_listed() {
        "${virsh[@]}" nodedev-list --cap mdev | grep "mdev_${ours//-/_}"
}
until_true 20 is_listed || die "libvirt does not see it"
expect 1 "use 'guestcryptctl stop'" "${virsh[@]}" nodedev-destroy "mdev_${ours//-/_}_matrix"
[ -d "$matrix/$ours" ] || die "it is gone"

"${virsh[@]}" nodedev-destroy $name > /dev/null
"${virsh[@]}" nodedev-undefine $name > /dev/null
[ ! -d $matrix/$uuid ] && [ ! -e /etc/mdevctl.d/matrix/$uuid ] || die "something of it is left"
[ ! -e /run/lock/s390apconfig.lock ] || die "the lock was left"
