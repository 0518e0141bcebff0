#!/bin/busybox sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# mtty.sh - in the guest: guestcryptd on a real bus, with a real kernel's mdevs and uevents

failed=0
fail() {
        echo "FAILED: $*"
        failed=1
}
ok() {
        echo "ok: $* ($(cut -d ' ' -f 1 /proc/uptime) s)"
}

# until_true COMMAND: within some 20 s
until_true() {
        n=0
        until eval "$1" > /dev/null 2>&1; do
                n=$((n + 1))
                [ $n -lt 150 ] || return 1
                usleep 50000
        done
}

has_owner() {
        busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s org.guestcrypt1 |
                grep -q true
}

daemon_start() {
        guestcryptd > /run/log 2>&1 &
        daemon=$!
        until_true has_owner || { cat /run/log; fail "guestcryptd does not start"; exit 1; }
}

# expect STATUS TEXT COMMAND...
expect() {
        wanted=$1 text=$2
        shift 2
        status=0
        out=$("$@" 2>&1) || status=$?
        case $status:$out in
        $wanted:*"$text"*) return 0 ;;
        esac
        fail "'$*': status $status, not $wanted with '$text': $out"
        return 1
}

mdev_count() {
        ls /sys/bus/mdev/devices | wc -l
}

# property UUID NAME
property() {
        busctl get-property org.guestcrypt1 "/org/guestcrypt1/mdev/$(echo "$1" | tr - _)" org.guestcrypt1.Mdev "$2"
}

mkdir -p /run/dbus /run/lock /var/lib/guestcrypt
dbus-daemon --system --fork --nopidfile || exit 1
daemon_start
ok "guestcryptd runs on $(uname -r), which has no AP bus"

# Parents and types.
expect 0 mtty-1 guestcryptctl mdev-types
expect 0 mtty-2 guestcryptctl mdev-types
expect 0 mtty busctl get-property org.guestcrypt1 /org/guestcrypt1/parent/mtty org.guestcrypt1.Parent Name
expect 0 '24' guestcryptctl mdev-types
ok "parents and types are listed"

# As many as there are instances, and the next one is refused.
mine=$(guestcryptctl mdev-create mtty mtty-2) || fail "the first one is refused"
created=1
while [ $created -lt 12 ] && guestcryptctl mdev-create mtty mtty-2 > /run/out 2>&1; do
        created=$((created + 1))
done
[ "$created" = 12 ] && [ "$(mdev_count)" = 12 ] || fail "$created were created, $(mdev_count) exist: $(cat /run/out)"
expect 1 NoInstances guestcryptctl --json mdev-create mtty mtty-2
expect 1 NoInstances guestcryptctl --json mdev-create mtty mtty-1
[ "$(mdev_count)" = 12 ] || fail "a refused creation left something"
for uuid in $(ls /sys/bus/mdev/devices); do
        [ "$uuid" = "$mine" ] || guestcryptctl mdev-remove "$uuid" > /dev/null || fail "$uuid cannot be removed"
done
[ "$(mdev_count)" = 1 ] || fail "$(mdev_count) are left"
ok "created until the instances ran out, removed again"

# A foreign one is seen by the kernel's uevent: the rescan would come only after 30 s.
foreign=11111111-2222-3333-4444-555555555555
busctl monitor org.guestcrypt1 > /run/signals 2>&1 &
monitor=$!
until_true "grep -q Monitoring /run/signals"
begin=$(cut -d . -f 1 /proc/uptime)
echo -n $foreign > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create
until_true "grep -q InterfacesAdded /run/signals" || fail "no signal tells of a foreign mdev"
[ $(($(cut -d . -f 1 /proc/uptime) - begin)) -lt 10 ] || fail "it took as long as a rescan"
expect 0 'b false' property $foreign Ours
expect 0 'b true' property "$mine" Ours
expect 1 NotOurs guestcryptctl --json mdev-remove $foreign
[ -e /sys/bus/mdev/devices/$foreign ] || fail "the foreign one is gone"
ok "a foreign mdev is announced, and not removed"

echo 1 > /sys/bus/mdev/devices/$foreign/remove
until_true "grep -q InterfacesRemoved /run/signals" || fail "no signal tells that it has gone"
expect 1 '' property $foreign Ours
kill $monitor
ok "its end is announced"

# Killed: what was ours is ours.
kill -9 $daemon
wait $daemon 2> /dev/null
daemon_start
expect 0 'b true' property "$mine" Ours
ok "after SIGKILL it knows its own"

# In use: the device of its vfio group is open, as QEMU would have it.
group=$(basename "$(readlink "/sys/bus/mdev/devices/$mine/iommu_group")")
[ -c "/dev/vfio/$group" ] || fail "there is no /dev/vfio/$group"
vfio-hold "/dev/vfio/$group" "$mine" > /run/held &
holder=$!
until_true "grep -q held /run/held" || fail "the group cannot be held: $(cat /run/held)"
expect 3 InUse guestcryptctl --json mdev-remove "$mine"
[ -e "/sys/bus/mdev/devices/$mine" ] || fail "it was removed in use"
# No libvirt knows of that, and so it is known only now, until somebody looks again.
until_true "[ \"\$(property $mine InUse)\" = 'b true' ]" || fail "it is not shown to be in use"
kill $holder
wait $holder 2> /dev/null
busctl call org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager Reconcile > /dev/null || fail "it does not look"
until_true "[ \"\$(property $mine InUse)\" = 'b false' ]" || fail "it is still shown to be in use"
ok "one in use is not removed"

expect 0 '' guestcryptctl mdev-remove "$mine"
[ "$(mdev_count)" = 0 ] || fail "$(mdev_count) mdevs are left"
ok "ours is removed"

kill $daemon
status=0
wait $daemon || status=$?
[ $status = 0 ] || { cat /run/log; fail "guestcryptd ended with $status"; }
exit $failed
