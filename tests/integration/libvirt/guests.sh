#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# guests.sh - two guests get a matrix each, and from then on virsh alone starts and stops them: the hook makes and removes
# the mdevs; what cannot be is refused with a reason that virsh shows, and the refused do no harm to the others
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/libvirt/lib.sh"
on_devhost '' "$@"
. "$top/tools/devhost.d/services.sh"

m1=$(matrix m1 4) m2=$(matrix m2 5)
virsh define "$guests/payments-1.xml" > /dev/null
virsh define "$guests/payments-2.xml" > /dev/null
expect 0 '' guestcryptctl guest-attach-matrix payments-1 m1
expect 3 "'m1'.*payments-1" guestcryptctl guest-attach-matrix payments-2 m1
expect 0 '' guestcryptctl guest-attach-matrix payments-2 m2
virsh dumpxml --inactive payments-1 > /run/dump
grep "address uuid='$m1'" /run/dump > /dev/null || die "libvirt's XML has no hostdev: $(cat /run/dump)"
expect 3 "04.0047.*'m1'" guestcryptctl define m3 --adapters 4 --domains 0x47
expect 1 "has 'm1'" guestcryptctl guest-attach-matrix payments-1 m2

# Started and stopped, twice, so that nothing of the first time is in the way.
for _ in 1 2; do
        has_no_mdev "$m1" && has_no_mdev "$m2" || die "a matrix is started before its guest"
        expect 0 '' virsh start payments-1
        in_use "$m1" || die "payments-1 runs without its matrix"
        has_no_mdev "$m2" || die "the start of one guest started the other's matrix"
        expect 0 '' virsh start payments-2
        in_use "$m2" || die "payments-2 runs without its matrix"
        expect 3 '04.0047' guestcryptctl check --adapters 4 --domains 0x47
        expect 3 '' guestcryptctl stop m1
        expect 0 '' virsh destroy payments-1
        until_no_mdev "$m1"
        in_use "$m2" || die "the end of one guest took the other's matrix"
        expect 0 '' virsh destroy payments-2
        until_no_mdev "$m2"
done

# What was started before its guest is not stopped with it.
guestcryptctl start m1
expect 0 '' virsh start payments-1
expect 0 '' virsh destroy payments-1
expect 0 'started' guestcryptctl show m1
has_mdev "$m1" || die "a matrix that an operator started was stopped with the guest"
guestcryptctl stop m1

# By hand: another guest names the first one's mdev. It is refused before and while the first runs, and its release takes
# nothing from it.
sed 's/payments-1/thief/; s/0a1</0b1</' "$guests/payments-1.xml" > /run/thief.xml
with_mdev /run/thief.xml "$m1" > /run/thief-mdev.xml
virsh define /run/thief-mdev.xml > /dev/null
expect 0 '' virsh start payments-1
expect 1 "prepare begin.* exit status 1: guestcrypt-hook: .*m1.*payments-1" virsh start thief
in_use "$m1" && guest_is payments-1 running || die "the refused guest took the matrix away"
expect 0 '' virsh destroy payments-1
until_no_mdev "$m1"
expect 1 "guestcrypt-hook: .*m1.*payments-1" virsh start thief
has_no_mdev "$m1" || die "the refused start left an mdev"
virsh undefine thief > /dev/null

# A foreign mdev that two guests name: libvirt itself refuses the second after our hook has let it pass; the release of the
# loser takes nothing away.
foreign=11111111-1111-1111-1111-111111111111
mdevctl start -u $foreign -p matrix -t vfio_ap-passthrough
with_mdev /run/thief.xml $foreign > /run/a.xml
sed 's/thief/loser/; s/0b1</0b2</' /run/a.xml > /run/b.xml
virsh define /run/a.xml > /dev/null
virsh define /run/b.xml > /dev/null
expect 0 '' virsh start thief
expect 1 'in use by driver QEMU, domain thief' virsh start loser
in_use $foreign || die "the loser of the race took the mdev away"
expect 0 '' virsh destroy thief
has_mdev $foreign || die "a foreign mdev was removed"
virsh undefine thief > /dev/null
virsh undefine loser > /dev/null

# Two starts at the same instant. race GUEST GUEST: those that are started in won, the others in lost
race() {
        local guest
        declare -A starts=()

        won=() lost=()
        for guest; do
                virsh start "$guest" > "/run/start-$guest" 2>&1 &
                starts[$guest]=$!
        done
        for guest; do
                if wait "${starts[$guest]}"; then won+=("$guest"); else lost+=("$guest"); fi
        done
}
# Both name a matrix that is meant for nobody: one gets it, and what the other gives up takes nothing from that one.
m4=$(matrix m4 3)
for n in 1 2; do
        sed "s/thief/racer-$n/; s/0b1</0d$n</" /run/thief.xml > /run/racer.xml
        with_mdev /run/racer.xml "$m4" > /run/racer-mdev.xml
        virsh define /run/racer-mdev.xml > /dev/null
done
for _ in 1 2 3; do
        race racer-1 racer-2
        [ ${#won[@]} = 1 ] || die "${#won[@]} guests have won: $(cat /run/start-racer-*)"
        grep "guestcrypt-hook: .*'m4'.*'$won'" "/run/start-$lost" > /dev/null || die "$lost: $(cat "/run/start-$lost")"
        in_use "$m4" && guest_is "$won" running && guest_is "$lost" 'shut off' || die "$(virsh list --all)"
        expect 0 '' virsh destroy "$won"
        until_no_mdev "$m4"
done
virsh undefine racer-1 > /dev/null
virsh undefine racer-2 > /dev/null
# Each has its own: both get it.
race payments-1 payments-2
[ ${#lost[@]} = 0 ] || die "not started: $(cat /run/start-payments-*)"
in_use "$m1" && in_use "$m2" || die "$(cat /sys/.sim/ctl)"
expect 0 '' virsh destroy payments-1
expect 0 '' virsh destroy payments-2
until_no_mdev "$m1"
until_no_mdev "$m2"

# Wishes written by hand: taken up, or refused with a reason.
# with_wish XML METADATA
with_wish() {
        sed "s#<memory #<metadata><guestcrypt:devices xmlns:guestcrypt='urn:guestcrypt:guest:1'>$2</guestcrypt:devices></metadata>\n  &#" "$1"
}
has_hostdev() {
        virsh dumpxml --inactive "$1" | grep "address uuid='$2'" > /dev/null
}
with_wish /run/thief.xml "<guestcrypt:matrix name='m4'/>" > /run/wish.xml
virsh define /run/wish.xml > /dev/null
until_true 20 has_hostdev thief "$m4" || die "the wish in the metadata is not taken up"
expect 0 '' virsh start thief
in_use "$m4" || die "the guest runs without the matrix that its metadata wish for"
expect 0 '' virsh destroy thief
until_no_mdev "$m4"
for wish in "<guestcrypt:matrix name='nosuch'/>|'nosuch', which does not exist" \
        "<guestcrypt:matrix name='m1'/>|m1.*payments-1|guest" \
        "<guestcrypt:matrix name='m4'/><guestcrypt:matrix name='m1'/>|guest 'thief'" \
        "<guestcrypt:tpm name='nosuch'/>|nosuch" \
        "<guestcrypt:tpm name='t' model='floppy'/>|guest 'thief'"; do
        virsh undefine thief > /dev/null
        with_wish /run/thief.xml "${wish%%|*}" > /run/wish.xml
        virsh define /run/wish.xml > /dev/null
        expect 1 "guestcrypt-hook: .*(${wish#*|})" virsh start thief
done
virsh undefine thief > /dev/null

# Undefined and defined again: definitions and who they are for stay.
expect 0 '' virsh dumpxml --inactive payments-1
virsh dumpxml --inactive payments-1 > /run/kept.xml
virsh undefine payments-1 > /dev/null
expect 0 "$m1" guestcryptctl show m1
virsh define /run/kept.xml > /dev/null
expect 0 '' virsh start payments-1
in_use "$m1"
expect 0 '' virsh destroy payments-1
until_no_mdev "$m1"

# Detached, the XML is as it was.
expect 0 '' guestcryptctl guest-detach-matrix payments-1
virsh dumpxml --inactive payments-1 > /run/after.xml
! grep -E 'hostdev|guestcrypt' /run/after.xml || die "something of ours is left in the XML"
expect 0 '' virsh start payments-1
has_no_mdev "$m1"

# While it runs, but not before its next start.
expect 0 'start' guestcryptctl guest-attach-matrix payments-1 m1 --no-live
has_no_mdev "$m1" || die "started for a guest that does not have it"
has_hostdev payments-1 "$m1" || die "the next start will not have it"
expect 0 '' virsh destroy payments-1

# The daemon is down: started on demand; where that cannot be, guests that need it are refused and others are not.
daemon_end TERM
expect 0 '' virsh start payments-1
in_use "$m1" || die "the daemon was not started on demand"
expect 0 '' virsh destroy payments-1
until_no_mdev "$m1"
no_activation
pid=$(busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus GetConnectionUnixProcessID s org.guestcrypt1)
kill -KILL "${pid#u }"
until_true 10 daemon_gone "${pid#u }"
expect 1 "guestcrypt-hook: guestcryptd does not answer: .*systemctl start guestcryptd" virsh start payments-1
has_no_mdev "$m1"
sed "s/payments-1/plain/; s/0a1</0c1</" "$guests/payments-1.xml" > /run/plain.xml
expect 0 "" virsh define /run/plain.xml
expect 0 '' virsh start plain
daemon_start
expect 0 '' virsh start payments-1
in_use "$m1"
expect 0 '' virsh destroy payments-1
until_no_mdev "$m1"
expect 0 '' virsh destroy plain

# Renamed while the daemon is down, and another has the old name then: whom a matrix is meant for follows the guest.
daemon_end TERM
expect 0 '' virsh domrename payments-1 renamed
expect 0 '' virsh domrename plain payments-1
daemon_start
is_meant_for() {
        guestcryptctl show m1 | grep "^guest  *$1, " > /dev/null
}
until_true 20 is_meant_for renamed || die "$(guestcryptctl show m1)"
expect 0 '' virsh start payments-1
has_no_mdev "$m1" || die "the matrix has gone to another guest of the same name"
expect 0 '' virsh start renamed
in_use "$m1"
[ "$(guestcryptctl --json guest-show renamed | jq -c .problems)" = '[]' ] || die "$(guestcryptctl guest-show renamed)"
expect 0 '' virsh destroy renamed
until_no_mdev "$m1"
