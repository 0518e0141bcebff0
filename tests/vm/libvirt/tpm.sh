#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tpm.sh - a guest gets a TPM by one command, and from then on virsh alone is used: it boots, uses it, reboots, is reset,
#           ended, started again, saved; then the TPM is taken away again
#
# usage: tpm.sh amd64|s390x MODEL      crb and tis: with this machine's own libvirt and QEMU
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/vm/libvirt/guests.sh"
arch=$1 model=$2
[ "$model" = virtio ] || GUESTS_LIBVIRT=
guests_enter "$arch" "$0" "$@"

# load: the virtio driver, where it is wanted
ready() {
        guest_booted g
        [ "$model" != virtio ] || guest_load g
}

guest_define g "$arch"
virsh dumpxml --inactive g > "$work/before.xml"
expect 0 'attached to guest g' guestcryptctl guest-attach-tpm g $([ "$model" != tis ] || echo --model tis)
virsh dumpxml --inactive g > "$work/wired.xml"
expect 0 '' guestcryptctl guest-attach-tpm g
virsh dumpxml --inactive g | diff "$work/wired.xml" - || die "the second time changes something"
[ "$(guestcryptctl --json guest-show g | jq -r .tpm_model)" = "$model" ] || die "$(guestcryptctl guest-show g)"
tpm_is g defined || die "the TPM is $(tpm_field g state) before the guest is started"

virsh -q start g
tpm_is g running || die "the TPM is $(tpm_field g state) while the guest runs"
ready
guest_must g 'ls /dev/tpm0 /dev/tpmrm0 && tpm2_getrandom --hex 16'
guest_mark g
expect 3 'InUse' guestcryptctl --json tpm-stop g

if [ "$model" = virtio ]; then
        before=$(counter g commands)
        guest_must g 'tpm2_getrandom --hex 16'
        [ "$(counter g commands)" -gt "$before" ] || die "the commands are not counted"
        # The platform hierarchy is nobody's.
        ! guest_do g 'tpm2_clear -c platform' || die "the guest owns the platform hierarchy"
        resets=$(counter g machine-resets)
        guest_must g 'for n in 1 2 3; do rmmod tpm_virtio && load; done'
        guest_must g 'cd /sys/bus/virtio/drivers/tpm_virtio && for v in virtio*; do echo $v > unbind; echo $v > bind; done'
        guest_must g 'for r in /sys/bus/pci/devices/*/reset; do case $(cat ${r%reset}device) in 0x107e) rmmod tpm_virtio && echo 1 > $r && load ;; esac; done'
        guest_same g
        [ "$(counter g machine-resets)" = "$resets" ] || die "the TPM was reset without the machine"
fi

# The guest reboots, and is reset by the host.
guest_send g 'reboot -f'
ready
guest_reset g
guest_mark g
virsh -q reset g
ready
guest_reset g

# Another QEMU.
guest_mark g
virsh -q destroy g
until_true 20 tpm_is g defined || die "the TPM is $(tpm_field g state) after its guest"
virsh -q start g
ready
guest_reset g

if [ "$arch $model" = 's390x virtio' ]; then
        # There QEMU refuses it by itself.
        expect 1 'non-migratable' virsh managedsave g
        is_state g running
elif [ "$model" = virtio ]; then
        # What QEMU saves is not the whole machine: such a guest does not come back as if nothing had happened.
        guest_mark g
        virsh -q managedsave g
        expect 1 'TPM' virsh start g
        is_state g 'shut off' || die "the guest was restored"
        virsh -q managedsave-remove g
        virsh -q start g
        ready
        guest_reset g
fi

# The TPM goes with the next start; nothing that it had is lost by that.
expect 0 'until it ends' guestcryptctl guest-detach-tpm g
virsh dumpxml --inactive g | diff "$work/before.xml" - || die "attaching and detaching leaves something"
guest_must g 'tpm2_getrandom --hex 16'
guest_send g 'poweroff -f'
until_true 60 is_state g 'shut off' || die "the guest does not power off"
until_true 20 tpm_is g defined || die "the TPM is $(tpm_field g state) after its guest"
expect 1 'BadState' guestcryptctl --json tpm-undefine g
virsh -q start g
guest_booted g
[ "$model" != virtio ] || guest_must g load
guest_must g '[ ! -e /dev/tpm0 ]'
virsh -q destroy g
expect 0 'attached to guest g' guestcryptctl guest-attach-tpm g $([ "$model" != tis ] || echo --model tis)
expect 3 'InUse' guestcryptctl --json tpm-undefine g --wipe
virsh -q start g
ready
guest_reset g
virsh -q destroy g
expect 0 '' guestcryptctl guest-detach-tpm g
expect 0 '' guestcryptctl tpm-undefine g --wipe
