#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# losses.sh - each process that a guest with a TPM (and, on s390x, with a matrix) depends on is killed in turn: none but
#             QEMU costs a guest, and none costs what the TPM keeps, what the guest may not send to it, or a claim; and
#             the machine is reset while nobody can hear of it
#
# usage: losses.sh amd64|s390x
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/vm/libvirt/guests.sh"
arch=$1
guests_enter "$arch" "$0" "$@"
. "$top/tools/devhost.d/services.sh"

# the_process NAME [ARGUMENT]: the one whose program is NAME
the_process() {
        local file found=()

        for file in /proc/[0-9]*/comm; do
                [ "$(cat "$file" 2> /dev/null)" != "${1:0:15}" ] || found+=("$(cut -d / -f 3 <<< "$file")")
        done
        [ ${#found[@]} = 1 ] || die "there are ${#found[@]} processes '$1'"
        echo "${found[0]}"
}

# lose PROCESS-ID
lose() {
        kill -KILL "$1"
        until_true 10 daemon_gone "$1" || die "it does not end"
}

connected() {
        [ "$(busctl --system get-property org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager Libvirt)" = 's "connected"' ]
}

claimed() {
        [ "$arch" != s390x ] || expect 3 '05.0047' guestcryptctl check --adapters 5 --domains 0x47
}

# denied COMMANDS: how many have been, of which the guest sends one more
denied() {
        ! guest_do g 'tpm2_dictionarylockout --clear-lockout' || die "the guest may send what it must not"
        [[ $out == *'code not supported'* ]] || die "a command that is denied: $out"
        [ "$(counter g denied)" = $(($1 + 1)) ] || die "$(counter g denied) commands were denied"
}

# The guest reboots by itself, and has its driver.
reboots() {
        guest_send g 'reboot -f'
        guest_booted g
        guest_load g
}

has_reset() {
        [ "$(counter g machine-resets)" -gt "$resets" ]
}

# What the guest's problems say of a reset of its machine.
says_missed() {
        [[ $(guestcryptctl --json guest-show g | jq -r '.problems[]') == *'was reset while libvirt could not be heard'* ]]
}
says_nothing() {
        [ "$(guestcryptctl --json guest-show g | jq '.problems | length')" = 0 ]
}

# The guest lives, and has its TPM and its matrix.
well() {
        local word=$1

        is_state g running || die "$word: the guest is $(virsh domstate g)"
        guest_same g
        claimed
        tpm_is g running || die "$word: the TPM is $(tpm_field g state)"
        [ "$arch" != s390x ] || [ "$(guestcryptctl --json guest-show g | jq -r .live_matrix)" = g ] ||
                die "$word: $(guestcryptctl guest-show g)"
}

guest_define g "$arch"
if [ "$arch" = s390x ]; then
        guestcryptctl define g --adapters 4,5 --domains 0x47
        guestcryptctl guest-attach-matrix g g
fi
guestcryptctl tpm-define g --deny 0x139 # TPM2_DictionaryAttackLockReset
guestcryptctl guest-attach-tpm g --tpm g
virsh -q start g
guest_booted g
guest_load g
guest_mark g
denied 0
well "at first"

# The device: the daemon has kept its descriptors, and a new one goes on with them.
lose "$(the_process guestcrypt-tpm)"
guest_must g 'tpm2_getrandom --hex 16'
until_true 10 tpm_is g running || die "the TPM is $(tpm_field g state)"
well "the device was killed"
denied 1

# swtpm: the guest goes on without a TPM; it has it again when it has rebooted.
lose "$(the_process swtpm)"
! guest_do g 'timeout 30 tpm2_getrandom --hex 16' || die "something has answered"
is_state g running || die "the guest is $(virsh domstate g)"
claimed
! tpm_is g running || die "nobody has seen that swtpm is gone"
[ "$(tpm_field g 'problems | length')" -gt 0 ] || die "there is no word about it"
guest_must g 'rmmod tpm_virtio'
reboots
guest_reset g
guest_mark g
well "swtpm was killed"

# The daemon: its guests go on without it, and it finds them again. A reset that it did not hear of it cannot make good: it says so.
commands=$(counter g commands)
lose "$(daemon_pid)"
guest_same g
reboots
guest_same g
daemon_start
until_true 30 connected || die "no connection to libvirt"
well "guestcryptd was killed"
[ "$(counter g commands)" -gt "$commands" ] || die "the counters began anew"
until_true 10 says_missed || die "there is no word about the reset: $(guestcryptctl guest-show g)"

# The daemon hangs: the guest reboots all the same, and its TPM is reset once the daemon hears of it.
resets=$(counter g machine-resets)
kill -STOP "$(daemon_pid)"
reboots
guest_same g
kill -CONT "$(daemon_pid)"
until_true 30 has_reset || die "the TPM was not reset"
guest_reset g
until_true 10 says_nothing || die "$(guestcryptctl guest-show g)"
guest_mark g

# What talks to libvirt for it.
lose "$(the_process guestcryptd-virt)"
until_true 30 connected || die "no connection to libvirt"
well "guestcryptd-virt was killed"

# libvirtd: the hook tells the daemon about guests that are there; events come again.
lose "$(cat /run/libvirtd.pid)"
guest_same g
claimed
reboots
guest_same g
libvirt_start
until_true 30 is_state g running
until_true 30 connected || die "no connection to libvirt"
well "libvirtd was killed"
until_true 10 says_missed || die "there is no word about the reset: $(guestcryptctl guest-show g)"
virsh -q reset g
guest_booted g
guest_load g
guest_reset g
until_true 10 says_nothing || die "$(guestcryptctl guest-show g)"
guest_mark g

# The device, after a daemon that knew its descriptors: the guest goes on without a TPM; it has it again with its next QEMU.
lose "$(the_process guestcrypt-tpm)"
! guest_do g 'timeout 30 tpm2_getrandom --hex 16' || die "something has answered"
is_state g running || die "the guest is $(virsh domstate g)"
claimed
! tpm_is g running || die "nobody has seen that the device is gone"
[ "$(tpm_field g 'problems | length')" -gt 0 ] || die "there is no word about it"
virsh -q destroy g
virsh -q start g
guest_booted g
guest_load g
guest_reset g
guest_mark g
well "the device was killed again"

# QEMU: all that was started for the guest ends, and its next start is as any.
lose "$(cat /run/libvirt/qemu/g.pid)"
until_true 30 is_state g 'shut off' || die "the guest is $(virsh domstate g)"
until_true 30 tpm_is g defined || die "the TPM is $(tpm_field g state)"
claimed
virsh -q start g
guest_booted g
guest_load g
guest_reset g
guest_mark g
well "QEMU was killed"

# All of them at once but QEMU and what it is connected to.
kill -KILL "$(daemon_pid)" "$(cat /run/libvirtd.pid)"
guest_same g
libvirt_start
daemon_start
until_true 30 connected || die "no connection to libvirt"
well "guestcryptd and libvirtd were killed"
virsh -q destroy g
until_true 30 tpm_is g defined || die "the TPM is $(tpm_field g state)"
