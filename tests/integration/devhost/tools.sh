#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tools.sh - mdevctl, virsh, busctl and raw writes, none of them modified, see and use the host that guestcryptd
# manages; a conflict that any of them made is seen and explained
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root

if [ "${1-}" != --inside ]; then
        exec "$top/tools/devhost" --libvirt --quiet -- "$0" --inside
fi

theirs=11111111-1111-1111-1111-111111111111
raw=22222222-2222-2222-2222-222222222222
virsh_uuid=33333333-3333-3333-3333-333333333333
matrix=/sys/devices/vfio_ap/matrix
type=$matrix/mdev_supported_types/vfio_ap-passthrough

# expect STATUS TEXT COMMAND...: the status, and the text somewhere in what it says
expect() {
        local status=0 out

        out=$("${@:3}" 2>&1) || status=$?
        [ $status = "$1" ] && [[ $out == *"$2"* ]] || die "'${*:3}': status $status, not $1 with '$2': $out"
}

# The host gives up all its queues, so that they can be had by whom we like.
printf '0x0' > /sys/bus/ap/apmask
printf '0x0' > /sys/bus/ap/aqmask

# What guestcryptd made is seen by the others.
guestcryptctl define ours --adapters 0 --domains 6 --start
ours=$(guestcryptctl --json show ours | jq -r '.. | .uuid? // .UUID? // empty' | sed -n 1p)
expect 0 "$ours" mdevctl list
expect 0 "mdev_${ours//-/_}" virsh nodedev-list --cap mdev
expect 0 "/org/guestcrypt1/matrix/${ours//-/_}" busctl --system tree org.guestcrypt1

# mdevctl: a definition of its own is a claim, and so is what it started.
mdevctl define -u $theirs -p matrix -t vfio_ap-passthrough
mdevctl modify -u $theirs --addattr=assign_adapter --value=1
mdevctl modify -u $theirs --addattr=assign_domain --value=0x10
expect 3 $theirs guestcryptctl check --adapters 1 --domains 0x10
expect 3 01.0010 guestcryptctl check --adapters 1 --domains 0x10
mdevctl start -u $theirs
expect 3 $theirs guestcryptctl define taken --adapters 1 --domains 0x10 --start
expect 0 $theirs guestcryptctl mdev-list

# A colleague's raw writes.
printf %s $raw > $type/create
printf 2 > $matrix/$raw/assign_adapter
printf 0x1b > $matrix/$raw/assign_domain
expect 3 $raw guestcryptctl define taken --adapters 2 --domains 0x1b --start

# virsh.
cat > /run/device.xml <<XML
<device><parent>ap_matrix</parent><capability type='mdev'><type id='vfio_ap-passthrough'/><uuid>$virsh_uuid</uuid>
 <attr name='assign_adapter' value='3'/><attr name='assign_domain' value='0x47'/></capability></device>
XML
virsh nodedev-create /run/device.xml > /dev/null
expect 3 $virsh_uuid guestcryptctl check --adapters 3 --domains 0x47
virsh nodedev-destroy "mdev_${virsh_uuid//-/_}_matrix" > /dev/null
expect 0 '' guestcryptctl check --adapters 3 --domains 0x47

# None of theirs can be removed through us.
for uuid in $theirs $raw; do
        expect 1 NotOurs guestcryptctl --json mdev-remove $uuid
        [ -d $matrix/$uuid ] || die "$uuid is gone"
done
