#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The FUSE front as its clients see it, in a private mount and network namespace. Arguments: guestcrypt-sim, client.
set -eu
if [ "${3:-}" != inside ]; then
	[ -w /dev/fuse ] || { echo "skipped: no /dev/fuse"; exit 77; }
	[ "$(id -u)" = 0 ] || { echo "skipped: not root"; exit 77; }
	unshare -mn --propagation private true || { echo "skipped: no namespaces"; exit 77; }
	exec unshare -mn --propagation private "$0" "$1" "$2" inside
fi
sim=$1 client=$2
dir=$(mktemp -d)
server=
cleanup() {
	[ -z "$server" ] || { kill "$server" 2> /dev/null || :; wait "$server" 2> /dev/null || :; }
	umount -l "$dir/mnt" 2> /dev/null || :
	umount "$dir"
	rmdir "$dir"
}
mount -t tmpfs tmpfs "$dir"
trap cleanup EXIT
mkdir "$dir/mnt"
mkfifo "$dir/ready"

"$sim" --profile=small --uevents --save="$dir/state" --ready-fd=9 "$dir/mnt" 9<> "$dir/ready" &
server=$!
[ "$(timeout 20 head -n 1 "$dir/ready")" = ready ]
"$client" "$dir/mnt"

# a clean end saves, a new server goes on with it
kill "$server"
wait "$server"
"$sim" --profile=small --save="$dir/state" --ready-fd=9 "$dir/mnt" 9<> "$dir/ready" &
server=$!
[ "$(timeout 20 head -n 1 "$dir/ready")" = ready ]
[ "$(cat "$dir"/mnt/bus/mdev/devices/22222222-2222-4222-8222-222222222222/guest_matrix)" = 05.0010 ]
echo 'fault bus/ap/scans hang 1' > "$dir/mnt/.sim/ctl"
cat "$dir/mnt/bus/ap/scans" 2> "$dir/error" & reader=$!
until grep -q 'pending.*scans' "$dir/mnt/.sim/ctl"; do :; done
echo reboot > "$dir/mnt/.sim/ctl"
! wait "$reader"
grep -q 'No such device' "$dir/error"
[ -z "$(ls "$dir/mnt/bus/mdev/devices")" ]

# with an interface other than lo this could be the machine's namespace
if ip link add sim0 type dummy 2> /dev/null; then
	! "$sim" --uevents "$dir/mnt" 2> /dev/null
fi

# whoever waits for ever is let go when the host ends
echo 'fault bus/ap/scans hang' > "$dir/mnt/.sim/ctl"
cat "$dir/mnt/bus/ap/scans" 2> /dev/null & reader=$!
until grep -q 'pending.*scans' "$dir/mnt/.sim/ctl"; do :; done
kill "$server"
wait "$server"
server=
! wait "$reader"
