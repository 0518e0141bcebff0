#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kill.sh BUILD STEP: kills guestcryptd at every STEP-th system call of define, start, modify, stop and undefine, on a simulated host with a
# bus of its own. STEP 1 is all of them. The points of a run with a larger STEP vary: CRASH_SEED=N repeats them.

set -eu
top=$(cd "$(dirname "$0")/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/crash/daemon/host.sh"

build=$(cd "$1" && pwd)
step=$2
crash_host "$0" "$@"

seed=${CRASH_SEED:-$RANDOM}
echo "CRASH_SEED=$seed"
"$build/tests/crash/daemon/kill_driver" "$root" "$build/daemon/guestcryptd" "$step" "$seed"
