#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kill.sh BUILD STEP: kills guestcryptd at every STEP-th system call of define, start, modify, stop, undefine, of mask changes and of making and
# removing other mdevs, on a simulated host with a bus of its own. STEP 1 is all of them. Which processes die is drawn: CRASH_SEED=N repeats it,
# and with a larger STEP the calls.

set -eu
top=$(cd "$(dirname "$0")/../../.." && pwd)
. "$top/tests/lib/common.sh"

build=$(cd "$1" && pwd)
step=$2
need_root
need dbus-daemon fusermount3 unshare
[ -e /dev/fuse ] || skip "there is no /dev/fuse"
if [ -z "${CRASH_INSIDE:-}" ]; then
        CRASH_INSIDE=1 exec unshare -m --propagation private "$0" "$@"
fi

seed=${CRASH_SEED:-$RANDOM}
echo "CRASH_SEED=$seed"
root=$(mktemp -d "${TMPDIR:-/tmp}/guestcrypt-kill.XXXXXX")
mount -t tmpfs tmpfs "$root"
mkdir -p "$root"/{sys,etc,run,dev}
sim= bus=
cleanup() {
        [ -z "$bus" ] || kill "$bus"
        [ -z "$sim" ] || kill "$sim"
        wait
        umount -l "$root/sys" 2> /dev/null || true
        umount -l "$root"
        rmdir "$root"
}
trap cleanup EXIT

"$build/sim/guestcrypt-sim" --profile "$top/sim/profiles/small.profile" "$root/sys" &
sim=$!
cat > "$root/bus.conf" << END
<busconfig><type>system</type><listen>unix:path=$root/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
END
dbus-daemon --config-file="$root/bus.conf" --nofork --nopidfile --nosyslog &
bus=$!
until_true 10 test -e "$root/sys/bus/ap" || die "the simulated host does not come up"
until_true 10 test -S "$root/bus" || die "the bus does not come up"

export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$root/bus
"$build/tests/crash/daemon/kill_driver" "$root" "$build/daemon/guestcryptd" "$step" "$seed"
