#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hand.sh - a guest of libvirt with a virtio TPM whose swtpm and device process were started by hand, without guestcryptd:
#           a driver that goes and comes, a reboot, a guest that is ended and started again
#
# usage: hand.sh amd64|s390x GUESTCRYPT-TPM
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/vm/libvirt/guests.sh"
arch=$1 device=$2
GUESTS_OPTIONS=(--no-daemon)
guests_enter "$arch" "$0" "$@"

tpm=/run/hand # not where those of guestcryptd are: the hook would ask it for this one
mkdir -p $tpm/state
swtpm socket --tpm2 --tpmstate dir=$tpm/state --ctrl type=unixio,path=$tpm/swtpm.sock 2> "$work/swtpm.log" &
until_true 10 [ -S $tpm/swtpm.sock ] || die "swtpm does not start: $(cat "$work/swtpm.log")"
"$device" --tpm=$tpm/swtpm.sock --socket=$tpm/device.sock --control=$tpm/control.sock 2> "$work/device.log" &
until_true 10 [ -S $tpm/device.sock ] || die "the device does not start: $(cat "$work/device.log")"

zeros=$(printf '%064d' 0)
devices=
[ "$arch" = amd64 ] || devices="<controller type='pci' index='0' model='pci-root'/>"
guest_define hand "$arch" "$devices" "$(guest_tpm_xml "$arch" $tpm/device.sock)"
virsh -q start hand > /dev/null
guest_booted hand
first=$boot

guest_load hand
guest_must hand 'ls /dev/tpm0 /dev/tpmrm0'
guest_must hand 'tpm2_getrandom --hex 16'
[[ $out =~ ^[0-9a-f]{32}$ ]] || die "no random number: $out"
guest_must hand 'pcr 9'
[ "$out" = "$zeros" ] || die "PCR 9 is '$out' at first"
guest_must hand "tpm2_pcrextend 9:sha256=$zeros && pcr 9"
extended=$out
[ "$extended" != "$zeros" ] || die "PCR 9 cannot be extended"

# Nothing that a guest can do to its driver changes the TPM.
guest_must hand 'rmmod tpm_virtio && load && pcr 9'
[ "$out" = "$extended" ] || die "PCR 9 is '$out' after the driver was loaded again"

# A reboot does, once whoever looks after the TPM says that it was one.
guest_send hand 'reboot -f'
guest_booted hand
[ "$boot" != "$first" ] || die "the guest has not rebooted"
[ "$(socat -t 5 - UNIX-CONNECT:$tpm/control.sock <<< reset)" = ok ] || die "no reset"
guest_must hand 'load && pcr 9'
[ "$out" = "$zeros" ] || die "PCR 9 is '$out' after a reboot"

# Another QEMU is another power-on.
guest_must hand "tpm2_pcrextend 9:sha256=$zeros"
virsh -q destroy hand > /dev/null
virsh -q start hand > /dev/null
guest_booted hand
guest_must hand 'load && pcr 9'
[ "$out" = "$zeros" ] || die "PCR 9 is '$out' with another QEMU"
guest_send hand 'poweroff -f'
until_true 60 is_state hand 'shut off' || die "the guest does not power off"
kill -0 %1 && kill -0 %2 || die "$(cat "$work"/*.log)"
