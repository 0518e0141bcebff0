#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# emulator.sh - the simulated host runs guests: a guest that has a matrix in libvirt has it on the host as long as its QEMU
# lives, or until it is unplugged; libvirt's own checks work there
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/libvirt/lib.sh"
on_devhost --no-daemon "$@"
. "$top/tools/devhost.d/services.sh"

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
expect 1 'failed to open /dev/vfio/[0-9]*: Device or resource busy' virsh start payments-2
echo "guest $mdev off" > /sys/.sim/ctl

with_mdev "$guests/payments-2.xml" $absent > /run/2.xml
virsh define /run/2.xml > /dev/null
expect 1 "mediated device '$absent' not found" virsh start payments-2

# Plugged and unplugged while the guest runs; QEMU has one such device at most, and none without AP in its CPU.
hostdev $mdev > /run/device.xml
monitor() {
        virsh qemu-monitor-command "$@"
}
devices() {
        monitor payments-1 '{"execute":"qom-list","arguments":{"path":"/machine/peripheral"}}'
}
virsh define "$guests/payments-1.xml" > /dev/null
sed "/<feature/d; s/payments-1/plain/; s/0a1</0a3</" "$guests/payments-1.xml" > /run/plain.xml
virsh define /run/plain.xml > /dev/null
expect 0 '' virsh start payments-1
expect 0 '' virsh start plain
expect 1 "No 'ap-bus' bus found for device 'vfio-ap'" virsh attach-device plain /run/device.xml --live
expect 0 '' virsh attach-device payments-1 /run/device.xml --live
in_use $mdev || die "the guest does not have what was plugged in"
expect 0 '"hostdev0","type":"child<vfio-ap>"' devices
expect 0 "No 'ap-bus' bus found" monitor payments-1 \
        '{"execute":"device_add","arguments":{"driver":"vfio-ap","id":"more","sysfsdev":"/sys/bus/mdev/devices/'$mdev'"}}'
expect 1 'in use by driver QEMU, domain payments-1' virsh attach-device plain /run/device.xml --live
expect 1 "State blocked by non-migratable device '/1/vfio-ap'" virsh managedsave payments-1
guest_is payments-1 running || die "it does not go on after it could not be saved"
libvirt_end KILL
libvirt_start
in_use $mdev && expect 0 "address uuid='$mdev'" virsh dumpxml payments-1
expect 0 '' virsh detach-device payments-1 /run/device.xml --live
not_in_use $mdev || die "the guest still has what was unplugged"
! virsh dumpxml payments-1 | grep hostdev || die "libvirt was not told that the device is gone"
expect 0 '"return":\[\{"name":"type","type":"string"\}\]' devices
expect 0 '' virsh managedsave payments-1
expect 0 '' virsh start payments-1
echo "guest $mdev on" > /sys/.sim/ctl
expect 1 'failed to open /dev/vfio/[0-9]*: Device or resource busy' virsh attach-device payments-1 /run/device.xml --live
echo "guest $mdev off" > /sys/.sim/ctl
expect 0 '' virsh attach-device payments-1 /run/device.xml --live

# All else goes through to QEMU and back, descriptors too.
expect 0 '"return":\{\}' monitor payments-1 --pass-fds 7 '{"execute":"getfd","arguments":{"fdname":"f"}}' 7< /dev/null
expect 0 '"return":\{\}' monitor payments-1 '{"execute":"closefd","arguments":{"fdname":"f"}}'
expect 0 'not found' monitor payments-1 '{"execute":"closefd","arguments":{"fdname":"f"}}'
expect 0 "DeviceNotFound" monitor payments-1 '{"execute":"device_del","arguments":{"id":"nosuch"}}'
expect 0 '"SchemaInfo|meta-type' monitor payments-1 '{"execute":"query-qmp-schema"}'

# What stands in for the device ends with QEMU.
stand_ins() {
        cat /proc/[0-9]*/comm 2> /dev/null | grep -cx sim-monitor
}
[ "$(stand_ins)" = 2 ] || die "there are $(stand_ins) of them, for two guests"
kill -KILL "$(qemu_pid payments-1)"
until_true 10 not_in_use $mdev || die "a killed QEMU still has what was plugged in"
expect 0 '' virsh destroy plain
are_gone() {
        [ "$(stand_ins)" = 0 ]
}
until_true 10 are_gone || die "a process is left over"
until_true 10 guest_is payments-1 'shut off'
virsh define /run/1.xml > /dev/null

expect 0 '' virsh start payments-1
pid=$(qemu_pid payments-1)
devhost-reboot > /dev/null
! kill -0 "$pid" 2> /dev/null || die "QEMU outlived its host"
guest_is payments-1 'shut off'
expect 1 "mediated device '$mdev' not found" virsh start payments-1
