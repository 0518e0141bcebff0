#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# command.sh - devhost's command: its exit status, its input and output, its end by a signal, many at the same time
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
devhost=$top/tools/devhost
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

status_of() {
        local status=0

        "$@" > "$work/out" 2> "$work/err" || status=$?
        echo $status
}

[ "$(status_of "$devhost" --no-daemon -- true)" = 0 ]
[ ! -s "$work/out" ] && [ ! -s "$work/err" ] || die "it says more than the command does: $(cat "$work/out" "$work/err")"
[ "$(status_of "$devhost" --no-daemon -- sh -c 'exit 5')" = 5 ]
[ "$(status_of "$devhost" --no-daemon -- sh -c 'kill -9 $$')" = 137 ]
[ "$(status_of "$devhost" --no-daemon -- /nonexistent)" = 127 ]
[ "$(status_of "$devhost" --profile nonsense -- true)" = 1 ]
[ "$(status_of "$devhost" --nonsense)" = 2 ]
[ "$(echo in | "$devhost" --no-daemon -- cat)" = in ]
[ "$(echo 'echo $((6 * 7))' | "$devhost" --quiet --no-daemon)" = 42 ]
[ "$("$devhost" --no-daemon --dialect 6.1 -- sh -c 'grep dialect /sys/.sim/ctl')" = "dialect 6.1" ]

# Whichever way it is ended, the whole host goes with it.
space_is_empty() {
        local process

        for process in /proc/[0-9]*; do
                [ "$(readlink "$process/ns/pid" 2> /dev/null)" != "$1" ] || return 1
        done
}
for signal in TERM HUP KILL; do
        mkfifo "$work/up"
        "$devhost" --no-daemon -- sh -c 'readlink /proc/self/ns/pid > "$1"; exec sleep 1000' sh "$work/up" &
        pid=$!
        read -r space < "$work/up"
        kill -$signal $pid
        until_true 10 space_is_empty "$space" || die "after SIG$signal something still runs"
        status=0
        wait $pid 2> /dev/null || status=$?
        [ $status != 0 ] || die "after SIG$signal the status is 0"
        rm "$work/up"
done

# Four at a time, each with the same names.
uuid=11111111-1111-1111-1111-111111111111
pids=()
for i in 1 2 3 4; do
        "$devhost" --no-daemon -- bash -euc '
                [ -z "$(mdevctl list -d)" ]
                mdevctl define -u $1 -p matrix -t vfio_ap-passthrough
                mdevctl start -u $1
                [ $(ls /sys/bus/mdev/devices) = $1 ]
                [ $(ls /etc/mdevctl.d/matrix) = $1 ]' bash $uuid &
        pids+=($!)
done
for pid in "${pids[@]}"; do
        wait "$pid"
done
