#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# chaos.sh - the daemon among sixteen clients, mdevctl and somebody who types into sysfs
#
# usage: chaos.sh [SECONDS [SEED]]; default: a minute, or what CHAOS_SECONDS says
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=$GUESTCRYPT_BUILD
. "$top/tests/lib/common.sh"
. "$top/tests/lib/simhost.sh"
need_root
need mdevctl dbus-daemon busctl unshare ip
[ -x "$build/sim/guestcrypt-sim" ] || skip "libfuse3 is not installed"
[ -c /dev/fuse ] || skip "there is no /dev/fuse"
simhost_enter "$0" "$@"
simhost_start small

has_owner() {
        busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s "$1" |
                grep -q true
}

"$build/daemon/guestcryptd" --root="$host" 2> "$SIMHOST_DIR/log" &
daemon=$!
until_true 30 has_owner org.guestcrypt1 || { cat "$SIMHOST_DIR/log"; die "guestcryptd does not start"; }

status=0
"$build/tests/integration/chaos/chaos" "${1:-${CHAOS_SECONDS:-60}}" "$host/var/lib/guestcrypt" "$SIMHOST_DIR" ${2-} || status=$?
[ $status = 0 ] || tail -n 30 "$SIMHOST_DIR/log"
kill -0 $daemon || die "guestcryptd has died"
kill $daemon
wait $daemon || die "guestcryptd did not end well"
exit $status
