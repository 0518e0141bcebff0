#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# losses.sh - QEMU, guestcryptd and libvirtd are killed at each stage of a guest's life: no guest, no claim and no mdev is lost,
# and none is left over
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/libvirt/lib.sh"
on_devhost '' "$@"
. "$top/tools/devhost.d/services.sh"

m1=$(matrix m1 4) m2=$(matrix m2 5)
virsh define "$guests/payments-1.xml" > /dev/null
virsh define "$guests/payments-2.xml" > /dev/null
guestcryptctl guest-attach-matrix payments-1 m1
guestcryptctl guest-attach-matrix payments-2 m2
no_activation

# runs GUEST MDEV, is_down GUEST MDEV: as it should be, by all who have a say in it
runs() {
        guest_is "$1" running && in_use "$2" && [ "$(guestcryptctl --json guest-show "$1" | jq -r .state)" = running ]
}
is_down() {
        guest_is "$1" 'shut off' && has_no_mdev "$2" && [ ! -e "/run/guestcrypt/guests/$(virsh domuuid "$1")" ]
}
should() {
        until_true 60 "$@" || {
                {
                        cat /run/log/guestcryptd
                        tail -n 20 /run/log/libvirtd /var/log/libvirt/libvirtd.log
                        daemon_gone "$(cat /run/libvirtd.pid)" && echo "libvirtd has ended"
                        virsh list --all
                        ls /sys/bus/mdev/devices /run/guestcrypt/guests
                } >&2 || true
                die "not so: '$*'"
        }
}
restart_libvirtd() {
        [ -z "${1-}" ] || libvirt_end "$1"
        libvirt_start
}
says() {
        echo "$*"
        stage=$*
}
trap 'echo "at: ${stage-}" >&2' EXIT

virsh start payments-2 > /dev/null # it must not notice anything of all that
should runs payments-2 "$m2"

says QEMU is killed
virsh start payments-1 > /dev/null
kill -KILL "$(qemu_pid payments-1)"
should is_down payments-1 "$m1"

says guestcryptd is killed before the start
daemon_end KILL
daemon_start
expect 0 '' virsh start payments-1

says guestcryptd is killed while guests run
daemon_end KILL
in_use "$m1" || die "the mdev went with the daemon"
daemon_start
should runs payments-1 "$m1"
expect 3 '04.0047' guestcryptctl check --adapters 4 --domains 0x47
expect 0 '' virsh destroy payments-1
should is_down payments-1 "$m1"

says guestcryptd is down when its guest ends
virsh start payments-1 > /dev/null
daemon_end KILL
expect 0 '' virsh destroy payments-1
has_mdev "$m1" || die "who removed it?"
daemon_start
should is_down payments-1 "$m1"

says guestcryptd is killed during prepare
echo 'fault write vfio_ap-passthrough/create hang count=1' > /sys/.sim/ctl
virsh start payments-1 > /run/start 2>&1 &
starting=$!
hold_is_there() {
        [ -e /run/guestcrypt/guests/$uuid_1 ]
}
until_true 10 hold_is_there || die "what the guest is about to hold is not on disk: $(cat /run/start)"
daemon_end KILL
! wait $starting || die "the guest was started without its matrix"
grep 'guestcryptd does not answer' /run/start > /dev/null || die "virsh says: $(cat /run/start)"
printf 'release\nclear\n' > /sys/.sim/ctl
daemon_start
should is_down payments-1 "$m1"
expect 0 '' virsh start payments-1
should runs payments-1 "$m1"

says guestcryptd is killed during release
echo "fault write $m1/remove hang count=1" > /sys/.sim/ctl
expect 0 '' virsh destroy payments-1
daemon_end KILL
printf 'release\nclear\n' > /sys/.sim/ctl
daemon_start
should is_down payments-1 "$m1"

says libvirtd is killed during release
virsh start payments-1 > /dev/null
echo "fault write $m1/remove hang count=1" > /sys/.sim/ctl
virsh destroy payments-1 > /run/destroy 2>&1 &
destroying=$!
is_pending() {
        grep "^pending .*remove" /sys/.sim/ctl
}
until_true 10 is_pending || die "the end of the guest does not remove its mdev"
libvirt_end KILL
wait $destroying || : # QEMU had ended; libvirtd may have said so already
printf 'release\nclear\n' > /sys/.sim/ctl
libvirt_start
should is_down payments-1 "$m1"

says libvirtd is restarted, then killed, while guests run
virsh start payments-1 > /dev/null
for signal in TERM KILL; do
        restart_libvirtd $signal
        should runs payments-1 "$m1"
        should runs payments-2 "$m2"
done
expect 0 '' virsh destroy payments-1
should is_down payments-1 "$m1"

says QEMU ends while libvirtd is down
virsh start payments-1 > /dev/null
libvirt_end KILL
kill -KILL "$(qemu_pid payments-1)"
restart_libvirtd
should is_down payments-1 "$m1"

says both are killed while guests run
virsh start payments-1 > /dev/null
libvirt_end KILL
daemon_end KILL
daemon_start
restart_libvirtd
should runs payments-1 "$m1"
should runs payments-2 "$m2"

says all but one guest is killed
libvirt_end KILL
daemon_end KILL
kill -KILL "$(qemu_pid payments-1)"
restart_libvirtd
daemon_start
should is_down payments-1 "$m1"
should runs payments-2 "$m2"

says a guest is asked for as soon as libvirtd is back
knows_no_libvirt() {
        guestcryptctl status | grep -E 'there is no socket' > /dev/null
}
libvirt_end TERM
should knows_no_libvirt
restart_libvirtd
sed "s/payments-1/payments-9/; s/$uuid_1/7f3a1c0e-5b0f-4c55-9d0e-0000000000a9/" "$guests/payments-1.xml" > /run/payments-9.xml
virsh define /run/payments-9.xml > /dev/null
expect 0 'payments-9' guestcryptctl guest-show payments-9
should runs payments-2 "$m2"

says libvirtd is killed during prepare
echo 'fault write vfio_ap-passthrough/create hang count=1' > /sys/.sim/ctl
virsh start payments-1 > /run/start 2>&1 &
starting=$!
until_true 10 hold_is_there
libvirt_end KILL
! wait $starting
printf 'release\nclear\n' > /sys/.sim/ctl
restart_libvirtd
should is_down payments-1 "$m1"
expect 0 '' virsh start payments-1
should runs payments-1 "$m1"

says QEMU does not save a guest with a matrix, which goes on
expect 1 'non-migratable' virsh managedsave payments-1
should runs payments-1 "$m1"

says saved without, restored, and it has its matrix again
expect 0 '' guestcryptctl guest-detach-matrix payments-1
expect 0 '' virsh managedsave payments-1
should is_down payments-1 "$m1"
expect 0 '' virsh start payments-1
expect 0 '' guestcryptctl guest-attach-matrix payments-1 m1
should runs payments-1 "$m1"

# ping: the time that 100 calls take, each by a busctl of its own: "MEDIAN us, MAXIMUM us"
ping() {
        local start took=()

        for _ in {1..100}; do
                start=${EPOCHREALTIME/[.,]/}
                timeout 10 busctl --system call org.guestcrypt1 /org/guestcrypt1 org.freedesktop.DBus.Peer Ping > /dev/null ||
                        die "guestcryptd does not answer"
                took+=($((${EPOCHREALTIME/[.,]/} - start)))
        done
        printf '%s\n' "${took[@]}" | sort -n | sed -n '50{h}; ${H; x; s/\n/ us, /; s/$/ us/; p}'
}
says libvirtd hangs
before=$(ping)
pid=$(cat /run/libvirtd.pid)
kill -STOP "$pid"
echo "  a call by busctl, median and maximum: $before with libvirtd, $(ping) with a stopped one"
expect 0 '^m1 ' timeout 20 guestcryptctl list
expect 0 '' timeout 20 guestcryptctl define m9 --adapters 3 --domains 0x10 --start
expect 1 'libvirt' timeout 60 guestcryptctl guest-detach-matrix payments-1
kill -CONT "$pid"
can_detach() {
        guestcryptctl guest-show payments-1
}
should can_detach
should runs payments-1 "$m1"
expect 0 '' virsh destroy payments-1
should is_down payments-1 "$m1"

says payments-2 has been there all the time
runs payments-2 "$m2"
expect 0 '' virsh destroy payments-2
should is_down payments-2 "$m2"
trap - EXIT
