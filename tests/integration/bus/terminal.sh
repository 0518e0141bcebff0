#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# terminal.sh - what guestcryptctl does for a person at a terminal: colours, progress of what takes long, events as they come
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/integration/bus/lib.sh"
need script
in_namespace "$@"

bus_start
sim_start --profile=small
daemon_start
export TERM=xterm
unset NO_COLOR
sim=$b/root/sys/.sim/ctl
esc=$(printf '\033')

# on_terminal COMMAND...: with a terminal of its own as input and output
on_terminal() {
        script -qec "$(printf '%q ' "$build/cli/guestcryptctl" "$@")" /dev/null < /dev/null
}

ctl define alpha --adapters 4 --domains 6,0x10 --start > /dev/null
ctl define beta --adapters 5 --domains 0x47 > /dev/null

# colours: bold for what is live, dim for the host; none for files, dumb terminals, JSON, and those who want none
expect 0 "$esc\[1;3[1-6]mA$esc\[0m" on_terminal matrix
expect 0 "$esc\[3[1-6]m[a-z]$esc\[0m" on_terminal matrix
expect 0 "$esc\[2m#$esc\[0m" on_terminal matrix
expect 0 "$esc\[1mNAME" on_terminal list
expect 1 '^$' sh -c "'$build/cli/guestcryptctl' matrix | grep $esc"
expect 1 '^$' sh -c "'$build/cli/guestcryptctl' list | grep $esc"
for setting in NO_COLOR=1 TERM=dumb; do
        (
                export "${setting?}"
                on_terminal matrix > "$b/plain"
        )
        expect 1 '^$' grep "$esc" "$b/plain"
        expect 0 'alpha \(started\)' cat "$b/plain"
done
on_terminal --json matrix > "$b/plain"
expect 1 '^$' grep "$esc" "$b/plain"

# progress: who waits is told for what and how long, in a line that is gone at the end
echo 'fault write create hang 1' > "$sim"
on_terminal start beta > "$b/progress" 2>&1 &
pid=$!
goes_on() { # of two moments; which, is up to the machine
        [ "$(grep -aoE 'Starting matrix beta, [0-9]+ s \.\.\.' "$b/progress" | sort -u | wc -l)" -ge 2 ]
}
until_true 10 goes_on || : "$((failures += 1))"
echo release > "$sim"
wait $pid || :
expect 0 "$esc\[KMatrix beta is started" cat "$b/progress"
ctl stop beta > /dev/null

# none of it for scripts
echo 'fault write create hang 1' > "$sim"
ctl start beta > "$b/progress" 2>&1 &
pid=$!
until_true 10 grep -q '^pending .*create' "$sim" || : "$((failures += 1))"
echo release > "$sim"
wait $pid || :
expect 0 '^Matrix beta is started.$' cat "$b/progress"
expect 0 '^1$' sh -c "wc -l < '$b/progress'"

# events for a person
on_terminal watch > "$b/events" &
watch_pid=$!
something_happens() { # it listens once it has connected
        ctl define gamma --adapters 3 --domains 6 > /dev/null
        ctl undefine gamma > /dev/null
        grep -q 'gamma added' "$b/events" && grep -q 'gamma removed' "$b/events"
}
until_true 10 something_happens || : "$((failures += 1))"
ctl stop alpha > /dev/null
until_true 10 grep -qE '[0-9:]{8} matrix alpha changed .*state=defined' "$b/events" || : "$((failures += 1))"
expect 0 '^[0-9:]{8} matrix gamma added .*adapters=0x03' cat "$b/events"

# the daemon goes and comes: it is said, and followed
kill $daemon_pid
wait $daemon_pid || :
until_true 10 grep -q 'manager .*changed running=false' "$b/events" || : "$((failures += 1))"
daemon_start
until_true 10 grep -q 'manager .*changed running=true' "$b/events" || : "$((failures += 1))"
something_happens_again() {
        ctl define delta --adapters 3 --domains 6 > /dev/null
        ctl undefine delta > /dev/null
        grep -q 'delta removed' "$b/events"
}
until_true 10 something_happens_again || : "$((failures += 1))"
kill $watch_pid
finish
