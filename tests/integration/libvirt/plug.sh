#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# plug.sh - matrices into running guests and out of them: by guestcryptctl, by hand, because the metadata say so; and QEMU, the
# guest, guestcryptd or libvirtd does not go along, or dies in the middle of it
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/libvirt/lib.sh"
on_devhost '' "$@"
. "$top/tools/devhost.d/services.sh"

m1=$(matrix m1 4 --alternative) m2=$(matrix m2 5)
guestcryptctl define over --adapters 4 --domains 0x47,0x10 --alternative > /dev/null
hostdev "$m1" > /run/m1.xml
hostdev "$m2" > /run/m2.xml
for n in 1 2; do
        virsh define "$guests/payments-$n.xml" > /dev/null
        virsh start payments-$n > /dev/null
done
virsh dumpxml --inactive payments-1 > /run/before.xml

# has_live GUEST MDEV, has_config GUEST MDEV: as libvirt says; of a definition it keeps that in a file, so that it need not be asked
has_live() {
        virsh dumpxml "$1" | grep "address uuid='$2'" > /dev/null
}
has_config() {
        grep "address uuid='$2'" "/etc/libvirt/qemu/$1.xml" > /dev/null
}
# told GUEST PROPERTY: as the bus says
told() {
        local path

        path=/org/guestcrypt1/guest/$(virsh domuuid "$1" | tr -- - _)
        busctl --system --json=short get-property org.guestcrypt1 "${path//[[:space:]]/}" org.guestcrypt1.Guest "$2" | jq -r '.data|tostring'
}
is_told() {
        [ "$(told "$1" "$2")" = "$3" ]
}
# should CONDITION...: at once, or when libvirt's event has come
should() {
        until_true 30 "$@" || {
                { cat /run/log/guestcryptd; cat /sys/.sim/ctl; virsh list --all; guestcryptctl guest-show payments-1; } >&2
                die "not so: '$*'"
        }
}
# plugged GUEST NAME MDEV: into all that there is
plugged() {
        has_live "$1" "$3" && has_config "$1" "$3" && in_use "$3" &&
                is_told "$1" LiveMatrix "$2" && is_told "$1" Matrix "$2" && is_told "$1" Problems '[]'
}
# nothing_left GUEST MDEV
nothing_left() {
        ! has_config "$1" "$2" && has_no_mdev "$2" && [ ! -e "/run/guestcrypt/guests/$(virsh domuuid "$1")" ] &&
                is_told "$1" Matrix '' && is_told "$1" LiveMatrix '' && is_told "$1" Problems '[]'
}
has_problem() {
        told "$1" Problems | grep "$2" > /dev/null
}

says() {
        echo "$*"
        stage=$*
}
trap 'echo "at: ${stage-}" >&2' EXIT

says into a running guest, and out of it
for _ in 1 2; do
        expect 0 'attached' guestcryptctl guest-attach-matrix payments-1 m1
        plugged payments-1 m1 "$m1" || die "$(guestcryptctl guest-show payments-1; virsh dumpxml payments-1)"
        expect 3 "'m1'.*payments-1" guestcryptctl guest-attach-matrix payments-2 m1
        expect 3 "04.0047.*'m1'" guestcryptctl guest-attach-matrix payments-2 over
        is_told payments-2 Matrix '' && is_told payments-2 Problems '[]' && [ ! -e "/run/guestcrypt/guests/$uuid_2" ] || die "something of what was refused is left"
        expect 1 "'m1'.*detach" guestcryptctl guest-attach-matrix payments-1 m2
        expect 3 'payments-1' guestcryptctl stop m1
        expect 0 'detached' guestcryptctl guest-detach-matrix payments-1
        nothing_left payments-1 "$m1" || die "$(guestcryptctl guest-show payments-1; ls /sys/bus/mdev/devices)"
        ! has_live payments-1 "$m1" || die "the guest still has it"
        virsh dumpxml --inactive payments-1 | diff /run/before.xml - || die "the XML is not as it was"
done
expect 0 'attached' guestcryptctl guest-attach-matrix payments-2 over
expect 0 'detached' guestcryptctl guest-detach-matrix payments-2

says into a guest that is not kept: it has it while it runs
sed 's/payments-1/passing/; s/0a1</0a3</' "$guests/payments-1.xml" > /run/passing.xml
expect 0 '' virsh create /run/passing.xml
expect 0 'attached' guestcryptctl guest-attach-matrix passing m1
has_live passing "$m1" && in_use "$m1" || die "the guest does not have it"
expect 0 '' virsh destroy passing
until_no_mdev "$m1"
expect 0 'guest  *-$' guestcryptctl show m1

says wished for in the metadata of a running guest
wish() {
        virsh metadata payments-1 urn:guestcrypt:guest:1 --live --config --key guestcrypt --set "<devices>$1</devices>"
}
live_metadata() {
        virsh metadata payments-1 urn:guestcrypt:guest:1 --live
}
expect 0 '' wish "<matrix name='m1'/>"
should plugged payments-1 m1 "$m1"
expect 0 '' guestcryptctl guest-detach-matrix payments-1
should nothing_left payments-1 "$m1"
expect 1 'metadata not found' live_metadata # else it could not have another before its next start
expect 0 'attached' guestcryptctl guest-attach-matrix payments-1 m2
should plugged payments-1 m2 "$m2"
expect 0 '' guestcryptctl guest-detach-matrix payments-1
virsh metadata payments-1 urn:guestcrypt:guest:1 --live --key guestcrypt \
        --set "<devices><matrix name='m1'/><tpm name='other' model='crb'/></devices>" > /dev/null
expect 0 'matrix name=' live_metadata
expect 0 '' guestcryptctl guest-detach-matrix payments-1
expect 0 "tpm name=.other. model=.crb." live_metadata
! live_metadata | grep matrix || die "the wish is still there"
virsh metadata payments-1 urn:guestcrypt:guest:1 --live --remove > /dev/null
should is_told payments-1 Problems '[]'

says by hand: out of the running guest only, and in again
expect 0 '' guestcryptctl guest-attach-matrix payments-1 m1
expect 0 '' virsh detach-device payments-1 /run/m1.xml --live
should is_told payments-1 LiveMatrix ''
is_told payments-1 Matrix m1 && not_in_use "$m1" && has_mdev "$m1" || die "$(guestcryptctl guest-show payments-1)"
expect 3 "is configured with.*'m1'" guestcryptctl stop m1
expect 0 '' virsh attach-device payments-1 /run/m1.xml --live
should plugged payments-1 m1 "$m1"
expect 1 'in use by driver QEMU, domain payments-1' virsh attach-device payments-2 /run/m1.xml --live

says by hand: out of both, so that it is stopped
expect 0 '' virsh detach-device payments-1 /run/m1.xml --live --config
should nothing_left payments-1 "$m1"
expect 0 'attach it, or detach it' guestcryptctl show m1
expect 1 'not found' virsh attach-device payments-1 /run/m1.xml --live
expect 0 '' guestcryptctl guest-detach-matrix payments-1

says by hand: into a guest for which it is not meant
expect 0 '' virsh destroy payments-1
expect 0 '' guestcryptctl guest-attach-matrix payments-1 m1
expect 0 '' guestcryptctl start m1
expect 0 '' virsh attach-device payments-2 /run/m1.xml --live
should has_problem payments-2 "'m1' is meant for guest 'payments-1'"
expect 0 "guest 'payments-2' names it|guests .*name it" guestcryptctl show m1
expect 1 "m1.*payments-2" virsh start payments-1
expect 3 "payments-2" guestcryptctl stop m1
in_use "$m1" || die "a running guest has lost what it was given"
expect 0 '' virsh detach-device payments-2 /run/m1.xml --live
should is_told payments-2 Problems '[]'
expect 0 '' virsh start payments-1
should plugged payments-1 m1 "$m1"
expect 0 '' guestcryptctl guest-detach-matrix payments-1
expect 0 '' guestcryptctl stop m1
should nothing_left payments-1 "$m1"

says QEMU refuses: undone, and said in one line
# refused PATTERN: the attach of m1 to payments-1
refused() {
        expect 1 "$1" guestcryptctl guest-attach-matrix payments-1 m1
        [ "$(guestcryptctl guest-attach-matrix payments-1 m1 2>&1 | wc -l)" = 1 ] || die "more than one line"
        should nothing_left payments-1 "$m1"
        ! has_live payments-1 "$m1" && virsh dumpxml --inactive payments-1 | diff /run/before.xml - || die "what failed is half done"
        expect 0 'guest  *-$' guestcryptctl show m1
}
expect 0 '' virsh destroy payments-1
sed '/<feature/d' "$guests/payments-1.xml" > /run/plain.xml
virsh define /run/plain.xml > /dev/null
virsh dumpxml --inactive payments-1 > /run/before.xml
virsh start payments-1 > /dev/null
refused "guest 'payments-1': .*No 'ap-bus' bus found"
expect 0 '' virsh destroy payments-1
virsh define "$guests/payments-1.xml" > /dev/null
virsh dumpxml --inactive payments-1 > /run/before.xml
virsh start payments-1 > /dev/null

# While QEMU stands still its answer does not come.
qemu_is_asked() {
        ss -xn | awk '$3 > 0 && $5 ~ /^@/ { found = 1 } END { exit !found }' # its monitor has a name that is no file's
}
# hold_up GUEST: an attach of m1 is under way, and has got as far as QEMU
hold_up() {
        kill -STOP "$(qemu_pid "$1")"
        guestcryptctl guest-attach-matrix "$1" m1 > /run/attach 2>&1 &
        attaching=$!
        should qemu_is_asked
        has_config "$1" "$m1" || die "what was not said before: the definition is not changed first"
}
# failed PATTERN: the attach ends so
failed() {
        local status=0

        wait $attaching || status=$?
        [ $status = 1 ] && grep -E "$1" /run/attach > /dev/null && [ "$(wc -l < /run/attach)" = 1 ] || die "$status: $(cat /run/attach)"
}

says the guest dies in the middle of it
hold_up payments-1
kill -KILL "$(qemu_pid payments-1)"
failed "guest 'payments-1': "
should guest_is payments-1 'shut off'
should nothing_left payments-1 "$m1"
virsh dumpxml --inactive payments-1 | diff /run/before.xml - || die "what failed is half done"
virsh start payments-1 > /dev/null

no_activation
says guestcryptd dies in the middle of it, and QEMU does it
hold_up payments-1
daemon_end KILL
wait $attaching && die "nobody can have answered"
kill -CONT "$(qemu_pid payments-1)"
should in_use "$m1"
daemon_start
should plugged payments-1 m1 "$m1"
expect 3 '04.0047' guestcryptctl check --adapters 4 --domains 0x47
expect 0 '' guestcryptctl guest-detach-matrix payments-1
should nothing_left payments-1 "$m1"

says guestcryptd dies in the middle of it, and another one is there before QEMU does it
hold_up payments-1
daemon_end KILL
wait $attaching && die "nobody can have answered"
daemon_start
kill -CONT "$(qemu_pid payments-1)"
should plugged payments-1 m1 "$m1"
expect 0 '' guestcryptctl guest-detach-matrix payments-1
should nothing_left payments-1 "$m1"

says guestcryptd and the guest die in the middle of it
hold_up payments-1
daemon_end KILL
wait $attaching && die "nobody can have answered"
kill -KILL "$(qemu_pid payments-1)"
daemon_start
should guest_is payments-1 'shut off'
until_no_mdev "$m1"
if has_config payments-1 "$m1"; then
        should is_told payments-1 Matrix m1
        expect 0 '' virsh start payments-1
        should plugged payments-1 m1 "$m1"
fi
expect 0 '' guestcryptctl guest-detach-matrix payments-1
should nothing_left payments-1 "$m1"
guest_is payments-1 running || virsh start payments-1 > /dev/null

says libvirtd dies in the middle of it
hold_up payments-1
libvirt_end KILL
failed 'looked at when it answers again'
kill -CONT "$(qemu_pid payments-1)"
libvirt_start
should is_told payments-1 Matrix m1
expect 3 '04.0047' guestcryptctl check --adapters 4 --domains 0x47
expect 0 '' virsh destroy payments-1
until_no_mdev "$m1"
expect 0 '' virsh start payments-1
should plugged payments-1 m1 "$m1"

# attach: as long as what libvirtd did not answer is not seen to, nothing else is begun
attach() {
        guestcryptctl guest-attach-matrix payments-1 m1 > /run/attach 2>&1
}
should attach

says guestcryptd dies in the middle of a detach
kill -STOP "$(qemu_pid payments-1)"
guestcryptctl guest-detach-matrix payments-1 > /run/detach 2>&1 &
detaching=$!
has_no_config() {
        ! has_config payments-1 "$m1"
}
should qemu_is_asked
has_no_config || die "the definition is not changed first"
daemon_end KILL
wait $detaching && die "nobody can have answered"
kill -CONT "$(qemu_pid payments-1)"
should not_in_use "$m1"
daemon_start
should nothing_left payments-1 "$m1"
expect 0 '' guestcryptctl guest-detach-matrix payments-1 # for whom it is meant nobody else changes
expect 0 'guest  *-$' guestcryptctl show m1

says the guest ends with what was plugged in
expect 0 '' guestcryptctl guest-attach-matrix payments-1 m1
kill -KILL "$(qemu_pid payments-1)"
until_no_mdev "$m1"
should guest_is payments-1 'shut off'
expect 0 '' virsh start payments-1
should plugged payments-1 m1 "$m1"
trap - EXIT
