#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# race.sh - mdevctl, virsh and guestcryptctl race for the same queues: no two get one, whichever of them asks, and however it ends
#
# usage: race.sh VERSION     RACE_SECONDS: how long, default 20; RACE_SEED
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/mdevctl/lib.sh"
libvirt=--libvirt
[ "${!#}" = 1.2 ] || libvirt= # this machine's libvirt finds this machine's mdevctl
on_host "$libvirt" "$@"

users=(mdevctl mdevctl mdevctl guestcryptctl guestcryptctl)
[ "$version" != 1.2 ] || users+=(virsh virsh)
mkdir /run/race

# tell: what there is to say of a failure
tell() {
        echo "--- the last commands"
        [ ! -e /run/race/commands ] || sort -n /run/race/commands | tail -n 150
        echo "--- definitions of mdevctl's, devices"
        tail -n +1 /etc/mdevctl.d/matrix/* || :
        tail -n +1 /sys/bus/mdev/devices/*/ap_config || :
        echo "--- guestcryptd"
        tail -n 100 /run/log/guestcryptd
        [ -z "$libvirt" ] || { echo "--- libvirtd"; tail -n 30 /var/log/libvirt/libvirtd.log; }
}

status=0
"$GUESTCRYPT_BUILD/tests/integration/mdevctl/mdevctl-race" "${RACE_SECONDS:-20}" /var/lib/guestcrypt /run/race \
        "${RACE_SEED:-$RANDOM}" "${users[@]}" || status=$?
[ $status = 0 ] || { tell; exit $status; }
trap 'status=$?; [ $status = 0 ] || tell' EXIT
guestcryptctl status > /dev/null || die "guestcryptd has died"

# libvirtd may still be at work on what a killed virsh has asked for.
process_gone() {
        ! kill -0 "$1"
}
no_mdevctl() {
        ! pgrep -x mdevctl
}
if [ -n "$libvirt" ]; then
        pid=$(cat /run/libvirtd.pid)
        kill "$pid"
        until_true 120 process_gone "$pid" || die "libvirtd does not end"
        until_true 120 no_mdevctl || die "mdevctl does not end"
fi

# Both kinds of definitions and the devices, each as its own owner has it, once all is quiet.
{
        guestcryptctl --json list | jq -r '.[] | .uuid as $u | .adapters[] as $a | .domains[] | "\($a).\(.) \($u)"'
        mdevctl list -d --dumpjson | jq -r '.[0].matrix // [] | .[] | to_entries[] | .key as $u | [.value.attrs[] | select(.assign_adapter) | .assign_adapter] as $a
                | [.value.attrs[] | select(.assign_domain) | .assign_domain] as $d | $a[] as $x | $d[] | "\($x).\(.) \($u)"'
        for device in $(find /sys/bus/mdev/devices/ -mindepth 1); do
                while read -r queue; do
                        echo "$((0x${queue%.*})).$((0x${queue#*.})) ${device##*/}"
                done < <(grep -E '^..\.....$' "$device/matrix" || :)
        done
} | sort -u > /run/race/all
cut -d' ' -f1 /run/race/all | sort | uniq -d > /run/race/twice
[ ! -s /run/race/twice ] || { cat /run/race/all; die "queues of two: $(tr '\n' ' ' < /run/race/twice)"; }
