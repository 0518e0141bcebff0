#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# vanish.sh - a parent of mediated devices goes while a call is in the kernel on its behalf: one clear answer, nothing left behind, and all
# works again when the parent is back
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/integration/bus/lib.sh"
in_namespace "$@"

bus_start
sim_start --profile=small
daemon_start
ctl=$b/root/sys/.sim/ctl
uuid=00000000-0000-4000-8000-000000000001

pends() {
        grep -q "^pending .*$1" "$ctl"
}

# vanish ATTRIBUTE GONE BACK PATTERN COMMAND...: COMMAND's write to ATTRIBUTE waits in the kernel while the parent goes; then it is answered. The
# output must match PATTERN, if it fails with one line; with an empty PATTERN it has to succeed.
vanish() {
        local attribute=$1 gone=$2 back=$3 pattern=$4 status=0 pid

        shift 4
        echo "fault write $attribute hang 1" > "$ctl"
        ctl "$@" > "$b/out" 2>&1 &
        pid=$!
        until_true 10 pends "$attribute" || die "nothing is written to $attribute: $(cat "$b/out")"
        echo "$gone" > "$ctl"
        expect 0 'guestcryptd' ctl status
        echo release > "$ctl"
        wait $pid || status=$?
        if [ -z "$pattern" ]; then
                [ $status = 0 ] || { echo "FAILED: $*: $(cat "$b/out")"; failures=$((failures + 1)); }
        elif [ $status != 1 ] || [ "$(wc -l < "$b/out")" != 1 ] || ! grep -qE -- "$pattern" "$b/out"; then
                echo "FAILED: $*: status $status, not /$pattern/: $(cat "$b/out")"
                failures=$((failures + 1))
        fi
        echo clear > "$ctl"
        echo "$back" > "$ctl"
        ctl reload
}

nothing_left() {
        expect 0 '^\[\]$' ctl --json mdev-list
        expect 0 "\"problems\":\[\]" ctl --json status
}

# making: nothing is left, and the same is possible when the parent is back
vanish create rmmod modprobe 'creating.*payments-1|payments-1.*creat' define payments-1 --uuid $uuid --adapters 4 --domains 6 --start
nothing_left
expect 1 'no matrix' ctl show payments-1
vanish ap_config rmmod modprobe 'payments-1' define payments-1 --uuid $uuid --adapters 4 --domains 6 --start
nothing_left
expect 1 'no matrix' ctl show payments-1
expect 0 'defined' ctl define payments-1 --uuid $uuid --adapters 4 --domains 6
vanish create rmmod modprobe 'payments-1' start payments-1
nothing_left
expect 0 'state +defined' ctl show payments-1
expect 0 'is started' ctl start payments-1

# changing: the device went with its parent, which is no doing of ours and is said
vanish ap_config rmmod modprobe 'payments-1' modify payments-1 --domains 0x10
expect 0 'state +lost' ctl show payments-1
expect 0 'payments-1: healed' ctl reconcile
expect 0 'state +started' ctl show payments-1
expect 0 'domains +0x06' ctl show payments-1

# removing: it is gone, as was wanted
vanish remove rmmod modprobe '' stop payments-1
nothing_left
expect 0 'state +defined' ctl show payments-1
expect 0 'is undefined' ctl undefine payments-1

# removed by somebody else while a guest has it: said as long as it lasts, and afterwards
expect 0 'and started' ctl define payments-1 --uuid $uuid --adapters 4 --domains 6 --start
echo "guest $uuid on" > "$ctl"
echo 1 > "$b/root/sys/devices/vfio_ap/matrix/$uuid/remove" &
remover=$!
until_true 10 pends remove || die "the removal does not wait for the guest"
ctl reload
expect 0 "^$uuid .* removing " ctl mdev-list
expect 0 'is being removed by somebody else, which waits for the guest' ctl show payments-1
echo "guest $uuid off" > "$ctl"
wait $remover || die "the removal has failed"
ctl reload
expect 0 'state +lost' ctl show payments-1
expect 0 'was removed by somebody else' ctl show payments-1
expect 0 'is undefined' ctl undefine payments-1
nothing_left

# a parent of another kind
vanish create 'parent del mtty' 'parent add mtty' 'mtty|creating' mdev-create mtty mtty-1 --uuid $uuid
nothing_left
expect 0 "^$uuid$" ctl mdev-create mtty mtty-1 --uuid $uuid
vanish remove 'parent del mtty' 'parent add mtty' '' mdev-remove $uuid
nothing_left
echo 'parent del mtty' > "$ctl"
ctl reload
expect 1 "no parent 'mtty'" ctl mdev-create mtty mtty-1
finish
