#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# flood.sh - a client with 1,000 calls under way, one that leaves without an answer, one that dies: each call has its
# answer, others are served, and what was accepted is done
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
flood=${2:?PROGRAM}
. "$top/tests/integration/bus/lib.sh"
in_namespace "$@"

bus_start
sim_start --profile=small
printf '[Manager]\nMaxCallsPerCaller=20\n' > "$b/root/etc/guestcrypt/guestcrypt.conf"
daemon_start

status=0
out=$("$flood" 1000 wait 2>&1) || status=$?
expect 0 'is done' echo "flood $status is done"
made=${out%% made*}
[ "$status" = 0 ] && [ "$made" -ge 20 ] && [ "$made" -lt 1000 ] || { echo "FAILED: flood: $out"; failures=1; }
expect 0 "matrices +$made\$" ctl status
[ "$(ctl list | tail -n +2 | wc -l)" = "$made" ] || { echo "FAILED: list and flood differ"; failures=1; }

# another client has its own limit
expect 0 'is defined' ctl define another --adapters 4 --domains 6

# questions count as well, and meanwhile others are answered
for what in check queues objects reload; do
        "$flood" 1000 wait $what > "$b/flooded" 2>&1 &
        flood_pid=$!
        expect 0 '^guestcryptd' ctl status
        expect 0 'free' ctl check --adapters 5 --domains 16
        status=0
        wait $flood_pid || status=$?
        out=$(cat "$b/flooded")
        made_now=${out%% made*}
        [ "$status" = 0 ] && [ "$made_now" -ge 20 ] || { echo "FAILED: flood of $what: $out"; failures=1; }
        [ "$made_now" -lt 1000 ] || { echo "FAILED: $what is not limited: $out"; failures=1; }
        "$flood" 1000 leave $what || failures=1
done

# who leaves changes nothing about what was accepted, and nothing about the daemon
"$flood" 200 leave || failures=1
"$flood" 200 leave &
pid=$!
kill -KILL $pid 2> /dev/null || :
wait $pid || :
expect 0 '^guestcryptd' ctl status
json_count=$(ctl --json list | grep -o '"uuid"' | wc -l)
[ "$json_count" -ge $((made + 1)) ] || { echo "FAILED: only $json_count matrices are left"; failures=1; }
kill -0 $daemon_pid || { echo "FAILED: the daemon is gone"; failures=1; }
finish
