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
has_tpm() { # [NAME]
        virsh qemu-monitor-command --hmp "${1:-desk-1}" 'info tpm' | grep "tpm-crb.*emulator\|model=tpm-crb" > /dev/null
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

# The second time under another name, by which also the TPM goes that was never attached.
expect 0 '' guestcryptctl tpm-define spare --guest desk-1 --no-certificates
both_meant_for() {
        [ "$(guestcryptctl --json tpm-list | jq -r '[.[].guest] | join(" ")')" = "$1 $1" ]
}
for name in desk-1 renamed; do
        [ "$name" = desk-1 ] || expect 0 '' virsh domrename desk-1 "$name"
        until_true 30 both_meant_for "$name" || die "$(guestcryptctl tpm-list)"
        expect 0 '' virsh start "$name"
        should_be running
        has_tpm "$name" || die "QEMU has no TPM: $(virsh qemu-monitor-command --hmp "$name" 'info tpm')"
        expect 3 "'$name'" guestcryptctl tpm-undefine desk-1 --wipe
        expect 3 "'$name'" guestcryptctl tpm-stop desk-1
        expect 0 '' virsh destroy "$name"
        should_be defined
done
expect 0 '' virsh domrename renamed desk-1
until_true 30 both_meant_for desk-1 || die "$(guestcryptctl tpm-list)"
expect 0 '' guestcryptctl tpm-undefine spare --wipe

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

# Whoever dies while the guest is being prepared, which here takes as long as the gate is closed: that start comes to nothing, and
# the next one is as any. A TPM that is made anew at each start has swtpm_setup run then.
no_activation
mv /usr/bin/swtpm_setup /usr/bin/swtpm_setup.real
printf '%s\n' '#!/bin/sh' '[ ! -e /run/gate ] || read -r line < /run/gate' 'exec /usr/bin/swtpm_setup.real "$@"' > /usr/bin/swtpm_setup
chmod 755 /usr/bin/swtpm_setup
setup_end() {
        local process

        for process in /proc/[0-9]*; do
                ! grep -z -x /usr/bin/swtpm_setup "$process/cmdline" > /dev/null || kill -KILL "${process##*/}"
        done 2> /dev/null
}
is_gone() {
        guest_is desk-1 'shut off' && [ ! -e "/run/guestcrypt/guests/$(virsh domuuid desk-1)" ]
}
# lose_while_prepared COMMAND...: the start fails, with what virsh says in /run/start
lose_while_prepared() {
        local starting gate

        mkfifo -m 666 /run/gate
        virsh start desk-1 > /run/start 2>&1 &
        starting=$!
        exec {gate}> /run/gate # returns when it is read
        "$@"
        ! wait $starting || die "the guest was started all the same"
        rm /run/gate
        exec {gate}>&-
}
expect 0 '' guestcryptctl guest-detach-tpm desk-1
guestcryptctl tpm-define fleeting --ephemeral --no-certificates
expect 0 '' guestcryptctl guest-attach-tpm desk-1 --tpm fleeting
for who in guestcryptd libvirtd swtpm_setup; do
        case $who in
        guestcryptd)
                lose_while_prepared daemon_end KILL
                grep 'guestcryptd does not answer' /run/start > /dev/null || die "virsh says: $(cat /run/start)"
                daemon_start
                ;;
        libvirtd)
                lose_while_prepared libvirt_end KILL
                libvirt_start
                ;;
        swtpm_setup) lose_while_prepared setup_end ;;
        esac
        until_true 30 is_gone || die "$who was killed: $(virsh list --all; cat /run/log/guestcryptd)"
        expect 0 '' virsh start desk-1
        has_tpm
        expect 0 '' virsh destroy desk-1
        until_true 30 is_gone
done
grep 'guestcrypt-hook: .*swtpm_setup' /run/start > /dev/null || die "virsh says: $(cat /run/start)"
expect 0 '' guestcryptctl guest-detach-tpm desk-1
expect 0 '' guestcryptctl tpm-undefine fleeting --wipe
expect 0 '' guestcryptctl guest-attach-tpm desk-1

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
