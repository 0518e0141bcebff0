#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# emulator.sh - the simulated host runs guests: a guest that has a matrix in libvirt has it on the host as long as its QEMU
# lives; libvirt's own checks work there
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/libvirt/lib.sh"
on_devhost --no-daemon "$@"

mdev=11111111-1111-1111-1111-111111111111
absent=22222222-2222-2222-2222-222222222222
ln -sf /bin/true /etc/libvirt/hooks/qemu.d/guestcrypt # libvirt alone
mdevctl start -u $mdev -p matrix -t vfio_ap-passthrough

expect 0 '' virsh define "$guests/payments-1.xml"
expect 0 '' virsh start payments-1
grep -x 'guests 0' /sys/.sim/ctl > /dev/null || die "a guest without a matrix has one"
expect 0 '' virsh managedsave payments-1
guest_is payments-1 'shut off'
expect 0 '' virsh start payments-1
expect 0 '' virsh destroy payments-1

with_mdev "$guests/payments-1.xml" $mdev > /run/1.xml
with_mdev "$guests/payments-2.xml" $mdev > /run/2.xml
virsh define /run/1.xml > /dev/null
virsh define /run/2.xml > /dev/null
expect 0 '' virsh start payments-1
in_use $mdev || die "the guest does not have its matrix"
expect 1 'in use by driver QEMU, domain payments-1' virsh start payments-2

# However QEMU ends, the host knows at once.
kill -KILL "$(qemu_pid payments-1)"
until_true 10 not_in_use $mdev || die "a killed QEMU still has its matrix"
until_true 10 guest_is payments-1 'shut off'
expect 0 '' virsh start payments-2
in_use $mdev
expect 0 '' virsh destroy payments-2
until_true 10 not_in_use $mdev

# Another that opens the VFIO group is refused by the device, not by libvirt.
echo "guest $mdev on" > /sys/.sim/ctl
expect 1 'VFIO group' virsh start payments-2
echo "guest $mdev off" > /sys/.sim/ctl

with_mdev "$guests/payments-2.xml" $absent > /run/2.xml
virsh define /run/2.xml > /dev/null
expect 1 "mediated device '$absent' not found" virsh start payments-2

expect 0 '' virsh start payments-1
pid=$(qemu_pid payments-1)
devhost-reboot > /dev/null
! kill -0 "$pid" 2> /dev/null || die "QEMU outlived its host"
guest_is payments-1 'shut off'
expect 1 "mediated device '$mdev' not found" virsh start payments-1
