#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# start.sh - a start while /sys hangs: the service manager is told only when it is true, and of matrices that nobody has
# looked at yet it is not said that they are lost
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
notify=${2:?PROGRAM}
. "$top/tests/integration/bus/lib.sh"
in_namespace "$@"

sim_ctl() {
        echo "$1" > "$b/root/sys/.sim/ctl"
}

logged() {
        grep -qE -- "$1" "$b/daemon.log"
}

told() {
        grep -qE -- "$1" "$b/told"
}

hangs() {
        grep -q '^pending' "$b/root/sys/.sim/ctl"
}

launch() {
        NOTIFY_SOCKET=$b/notify "$build/daemon/guestcryptd" --root="$b/root" >> "$b/daemon.log" 2>&1 &
        daemon_pid=$!
}

bus_start
sim_start --profile=small
conf=$b/root/etc/guestcrypt/guestcrypt.conf
"$notify" "$b/notify" >> "$b/told" &
until_true 5 test -S "$b/notify"

printf '[Manager]\nScanTimeoutSec=60\n' > "$conf"
launch
until_true 20 told '^READY=1$' || { echo "FAILED: not ready"; failures=1; }
expect 0 'is defined' ctl define live --adapters 4 --domains 6 --start
expect 0 'is defined' ctl define idle --adapters 5 --domains 6
kill -KILL $daemon_pid
wait $daemon_pid || :

# a reload before it is ready, seen by what it says of a file that is not right
: > "$b/told"
sim_ctl 'fault read bus/ap/apmask hang'
launch
until_true 20 hangs
echo banana >> "$conf"
kill -HUP $daemon_pid
until_true 20 logged banana
expect 1 '' told 'READY=1|RELOADING=1'
expect 1 '' has_owner org.guestcrypt1
sim_ctl 'clear'
sim_ctl 'release'
until_true 20 told '^READY=1$' || { echo "FAILED: not ready after the start"; failures=1; }
expect 0 'started' ctl show live

# and one afterwards
: > "$b/told"
kill -HUP $daemon_pid
until_true 20 told '^READY=1$' || { echo "FAILED: not ready after a reload"; failures=1; }
expect 0 '^RELOADING=1$' cat "$b/told"
finish
