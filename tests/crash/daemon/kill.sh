#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kill.sh BUILD STEP [host]: kills guestcryptd at every STEP-th system call of define, start, modify, stop, undefine, of mask changes and of making and
# removing other mdevs ("host": of reserving queues and releasing them), on a simulated host with a bus of its own. STEP 1 is all of them. Which processes die is drawn: CRASH_SEED=N repeats it,
# and with a larger STEP the calls.

set -eu
top=$(cd "$(dirname "$0")/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/crash/daemon/host.sh"

build=$(cd "$1" && pwd)
step=$2
crash_host "$0" "$@"

seed=${CRASH_SEED:-$RANDOM}
echo "CRASH_SEED=$seed"
"$build/tests/crash/daemon/kill_driver" "$root" "$build/daemon/guestcryptd" "$step" "$seed" ${3:-}
