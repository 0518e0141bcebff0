#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kill.sh BUILD STEP JOBS [host|mdevctl]: kills guestcryptd at every STEP-th system call of define, start, modify, stop, undefine, of mask changes and of making
# and removing other mdevs ("host": of reserving queues, releasing them and keeping the masks; "mdevctl": of definitions that change hands), on simulated hosts with a bus of their own. STEP 1 is all of them. Most of
# the time processes come and go: JOBS take turns. Which processes die is drawn: CRASH_SEED=N repeats it, and with a larger STEP the calls.

set -eu
top=$(cd "$(dirname "$0")/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/crash/daemon/host.sh"

build=$(cd "$1" && pwd)
step=$2 jobs=$3

if [ -z "${CRASH_JOB:-}" ]; then
        export CRASH_SEED=${CRASH_SEED:-$RANDOM}
        echo "CRASH_SEED=$CRASH_SEED"
        pids=() status=0
        for ((job = 0; job < jobs; job++)); do
                CRASH_JOB=$job "$0" "$@" &
                pids+=($!)
        done
        for pid in "${pids[@]}"; do
                wait "$pid" || status=$?
        done
        exit $status
fi

crash_host "$0" "$@"
"$build/tests/crash/daemon/kill_driver" "$root" "$build/daemon/guestcryptd" $((step * jobs)) $((CRASH_SEED + step * CRASH_JOB)) ${4:-}
