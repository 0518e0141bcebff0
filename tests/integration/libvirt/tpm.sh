#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tpm.sh - a guest with a TPM on a libvirt and a QEMU that know no virtio TPM: tpm-crb in front of our swtpm, which the hook
# starts before QEMU and stops after it
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/libvirt/lib.sh"
on_devhost '' "$@"
. "$top/tools/devhost.d/services.sh"

tpm() {
        guestcryptctl --json tpm-show desk-1 | jq -r "$1"
}
tpm_is() {
        [ "$(tpm .state)" = "$1" ]
}
should_be() {
        until_true 30 tpm_is "$1" || die "the TPM is $(tpm .state), not $1: $(cat /run/log/guestcryptd)"
}
has_tpm() {
        virsh qemu-monitor-command --hmp desk-1 'info tpm' | grep "tpm-crb.*emulator\|model=tpm-crb" > /dev/null
}

virsh define "$guests/desk-1.xml" > /dev/null
virsh define "$guests/payments-1.xml" > /dev/null
virsh dumpxml --inactive desk-1 > /run/before.xml
expect 1 'virtio|QEMU' guestcryptctl guest-attach-tpm desk-1 --model virtio
expect 1 's390x|TPM' guestcryptctl guest-attach-tpm payments-1 --model crb
expect 0 '' guestcryptctl guest-attach-tpm desk-1
virsh dumpxml --inactive desk-1 | grep "tpm model='tpm-crb'" > /dev/null || die "no TPM in the XML"
expect 0 '' guestcryptctl tpm-show desk-1
should_be defined

for _ in 1 2; do
        expect 0 '' virsh start desk-1
        should_be running
        has_tpm || die "QEMU has no TPM: $(virsh qemu-monitor-command --hmp desk-1 'info tpm')"
        expect 3 "'desk-1'" guestcryptctl tpm-undefine desk-1 --wipe
        expect 3 "'desk-1'" guestcryptctl tpm-stop desk-1
        expect 0 '' virsh destroy desk-1
        should_be defined
done

# Losing any one process.
virsh start desk-1 > /dev/null
daemon_end KILL
daemon_start
should_be running
has_tpm
expect 0 '' virsh reset desk-1
should_be running
libvirt_end KILL
libvirt_start
should_be running
guest_is desk-1 running
kill -KILL "$(qemu_pid desk-1)"
should_be defined
expect 0 '' virsh start desk-1
should_be running
daemon_end KILL
kill -KILL "$(qemu_pid desk-1)"
daemon_start
should_be defined

# swtpm alone is killed: the guest goes on without, is told of, and has it again after its next start.
swtpm_pid() {
        local process

        for process in /proc/[0-9]*; do
                [ "$(readlink "$process/exe")" != /usr/bin/swtpm ] || echo "${process##*/}"
        done 2> /dev/null
}
expect 0 '' virsh start desk-1
should_be running
kill -KILL "$(swtpm_pid)"
should_be failed
guest_is desk-1 running || die "the guest died with its TPM"
expect 0 'problems.*desk-1' guestcryptctl guest-show desk-1
expect 0 '' virsh destroy desk-1
should_be defined
expect 0 '' virsh start desk-1
should_be running
has_tpm
expect 0 '' virsh destroy desk-1
should_be defined

# Gone with the guest's definition it is not, only with its own.
virsh dumpxml --inactive desk-1 > /run/with.xml
expect 0 '' virsh undefine desk-1
should_be defined
expect 0 '' virsh define /run/with.xml
expect 0 '' virsh start desk-1
expect 0 '' virsh destroy desk-1
should_be defined
expect 0 '' guestcryptctl guest-detach-tpm desk-1
virsh dumpxml --inactive desk-1 | diff /run/before.xml - || die "the XML is not as it was"
expect 0 '' guestcryptctl tpm-undefine desk-1 --wipe
expect 1 '' guestcryptctl tpm-show desk-1
