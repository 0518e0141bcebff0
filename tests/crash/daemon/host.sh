# SPDX-License-Identifier: LGPL-2.1-or-later
#
# host.sh - a simulated host and a bus of its own, below root=, for the tests that let the daemon die; to be sourced with top= and build=
# set, after common.sh. All of it is gone when the script ends.

# crash_host "$0" "$@": runs the script again in a mount namespace; returns only there
crash_host() {
        need_root
        need dbus-daemon fusermount3 unshare
        [ -e /dev/fuse ] || skip "there is no /dev/fuse"
        if [ -z "${CRASH_INSIDE:-}" ]; then
                CRASH_INSIDE=1 exec unshare -m --propagation private "$@"
        fi

        root=$(mktemp -d "${TMPDIR:-/tmp}/guestcrypt-crash.XXXXXX")
        mount -t tmpfs tmpfs "$root"
        mkdir -p "$root"/{sys,etc,run,dev}
        sim= bus=
        trap crash_host_end EXIT

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
}

crash_host_end() {
        [ -z "$bus" ] || kill "$bus"
        [ -z "$sim" ] || kill "$sim"
        wait
        umount -l "$root/sys" 2> /dev/null || true
        umount -l "$root"
        rmdir "$root"
}
