#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# power.sh BUILD [STATES]: cuts the power of a simulated host at every point of a guestcryptd at work, and boots what that may leave: STATES
# of the states (first those where all or nothing is lost that can be), or all of them for 0. CRASH_SEED=N repeats the choice.

set -eu
top=$(cd "$(dirname "$0")/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/crash/daemon/host.sh"

build=$(cd "$1" && pwd)
need strace
crash_host "$0" "$@"

export CRASH_SEED="${CRASH_SEED:-$RANDOM}"
echo "CRASH_SEED=$CRASH_SEED"
/usr/bin/python3 "$top/tests/crash/daemon/power.py" "$root" "$build" "${2:-0}"
