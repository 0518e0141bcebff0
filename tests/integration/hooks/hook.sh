#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hook.sh - libvirt's hook as a process, run as libvirt runs it, on a private bus: what it sends, what it says, its exit status,
# its deadlines, and rubbish
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
hook=$1 service=$2
need dbus-daemon busctl

work=$(mktemp -d)
service_pid='' bus_pid=''
finish() {
        [ -z "$service_pid" ] || kill -KILL "$service_pid" 2> /dev/null || :
        [ -z "$bus_pid" ] || kill -KILL "$bus_pid" 2> /dev/null || :
        rm -rf "$work"
}
trap finish EXIT

cat > "$work/bus.conf" <<TEXT
<busconfig><type>system</type><keep_umask/><listen>unix:path=$work/bus</listen><auth>EXTERNAL</auth>
 <policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
TEXT
dbus-daemon --config-file="$work/bus.conf" --fork --nopidfile --print-pid=1 > "$work/bus.pid"
bus_pid=$(cat "$work/bus.pid")

has_owner() {
        busctl --address="unix:path=$work/bus" call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus \
                NameHasOwner s org.guestcrypt1 | grep true > /dev/null
}

service_start() {
        DBUS_SYSTEM_BUS_ADDRESS=unix:path=$work/bus "$service" >> "$work/events" &
        service_pid=$!
        until_true 10 has_owner || die "the service does not start"
}

guest=c2010203-0405-0607-0809-0a0b0c0d0eab
mdev=11111111-2222-3333-4444-555555555555
plain="<domain type='kvm'><name>g</name><uuid>$guest</uuid></domain>"
declared="<domain type='kvm'><name>g</name><uuid>$guest</uuid><metadata><guestcrypt:devices xmlns:guestcrypt='urn:guestcrypt:guest:1'>
 <guestcrypt:matrix name='m1'/></guestcrypt:devices></metadata><devices><hostdev mode='subsystem' type='mdev' model='vfio-ap'>
 <source><address uuid='$mdev'/></source></hostdev></devices></domain>"

# expect STATUS PATTERN XML [ARGUMENT]...: one line at most, on standard error only
expect() {
        local status=0

        env -i HOME=/ LC_ALL=C PATH=/nonexistent DBUS_SYSTEM_BUS_ADDRESS="unix:path=${bus:-$work/bus}" \
                "$hook" "${@:4}" <<< "$3" > "$work/out" 2> "$work/err" || status=$?
        [ $status = "$1" ] || die "'${*:4}': status $status, not $1; it said: $(cat "$work/err")"
        [ ! -s "$work/out" ] || die "'${*:4}' wrote to standard output"
        if [ -z "$2" ]; then
                [ ! -s "$work/err" ] || die "'${*:4}' said: $(cat "$work/err")"
        else
                [ "$(wc -l < "$work/err")" = 1 ] && grep -E -- "$2" "$work/err" > /dev/null ||
                        die "'${*:4}' said, without /$2/ in one line: $(cat "$work/err")"
        fi
}

# Nobody there: refused for those who declare something, with what to do; no matter for all others.
down() {
        expect 0 '' "$plain" g prepare begin -
        for operation in prepare started restore migrate attach; do
                expect 1 "^guestcrypt-hook: guestcryptd does not answer: .* guest 'g' .*systemctl start guestcryptd" "$declared" g $operation begin -
        done
        for operation in reconnect release; do
                expect 0 'guestcryptd does not answer' "$declared" g $operation begin -
        done
        for operation in start stopped levitate; do
                expect 0 '' "$declared" g $operation begin -
        done
}
down
bus=$work/nonexistent down

service_start
expect 0 '' "$plain" g prepare begin -
[ ! -s "$work/events" ] || die "a guest that declares nothing was told: $(cat "$work/events")"
expect 0 '' "$declared" g prepare begin -
expect 0 '' "$declared" 'ü "&' release end 'from snapshot'
expect 1 "^guestcrypt-hook: 05.0047 belongs to matrix 'a' of guest 'b'$" "$declared" refuse-1 prepare begin -
expect 0 "^guestcrypt-hook: 05.0047 belongs to matrix 'a' of guest 'b'$" "$declared" refuse-1 reconnect begin -
diff - "$work/events" <<TEXT
prepare/begin/- g $guest mdev=$mdev matrix=m1
release/end/from snapshot ü "& $guest mdev=$mdev matrix=m1
prepare/begin/- refuse-1 $guest mdev=$mdev matrix=m1
reconnect/begin/- refuse-1 $guest mdev=$mdev matrix=m1
TEXT

# libvirt knows it by a link. Without the other program it does not let those pass that need it.
ln -s "$(realpath "$hook")" "$work/link"
cp "$hook" "$work/alone"
: > "$work/events"
hook=$work/link expect 0 '' "$declared" g prepare begin -
[ -s "$work/events" ] || die "through a link it sends nothing"
hook=$work/alone expect 0 '' "$plain" g prepare begin -
hook=$work/alone expect 1 "'guestcrypt-hook-event' cannot be run: No such file" "$declared" g prepare begin -

# It goes away while it is asked; it, or the bus, says nothing at all.
expect 1 'guestcryptd does not answer' "$declared" die-1 prepare begin -
wait "$service_pid" || :
service_start
expect 1 'guestcryptd does not answer' "$declared" hang-1 prepare begin -
kill -STOP "$bus_pid"
expect 0 'guestcryptd does not answer' "$declared" g release end -
kill -CONT "$bus_pid"

# Rubbish.
expect 2 'usage: ' "$declared"
expect 2 'usage: ' "$declared" g
expect 2 'usage: ' "$declared" 1 2 3 4 5
expect 1 'no UTF-8' "$declared" $'g\xff\n' prepare begin -
expect 1 'no domain XML' '' g prepare begin -
expect 1 'no domain XML' 'vfio-ap' g prepare begin -
expect 1 'no domain XML' '<network><name>vfio-ap</name></network>' g started begin -
expect 1 'cannot be read: .' '<domain>vfio-ap' g prepare begin -
expect 0 'cannot be read: .' '<domain>vfio-ap' g release end -

# by_hand STATUS PATTERN COMMAND...
by_hand() {
        local status=0

        "${@:3}" > "$work/out" 2> "$work/err" || status=$?
        [ $status = "$1" ] && [ ! -s "$work/out" ] && [ "$(wc -l < "$work/err")" -le 1 ] && grep -E -- "$2" "$work/err" > /dev/null ||
                die "'${*:3}': status $status, not $1 with /$2/: $(cat "$work/err")"
}
export hook
by_hand 1 'no domain XML' bash -c '"$hook" g prepare begin - < /bin/true'
by_hand 1 'no domain XML' bash -c '"$hook" g prepare begin - <&-'
by_hand 1 'read from standard input' bash -c '"$hook" g prepare begin - < /'
by_hand 1 'larger than any' bash -c 'head -c 104857600 /dev/zero | "$hook" g prepare begin -'
by_hand 1 'larger than any' bash -c '"$hook" g prepare begin - < /dev/zero'
by_hand 0 'larger than any' bash -c '"$hook" g reconnect begin - < /dev/zero'
: > "$work/events"
status=0
DBUS_SYSTEM_BUS_ADDRESS=unix:path=$work/bus "$hook" g prepare begin - <<< "$declared" >&- 2>&- || status=$?
[ $status = 0 ] && [ "$(cat "$work/events")" = "prepare/begin/- g $guest mdev=$mdev matrix=m1" ] ||
        die "with its outputs closed: status $status"
