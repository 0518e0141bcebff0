# SPDX-License-Identifier: LGPL-2.1-or-later
#
# simhost.sh - the smallest simulated host: /sys, /etc/mdevctl.d and a bus of its own, a root directory for guestcryptd
#
# To be sourced with top= and build= set, after common.sh. Unlike tools/devhost it runs no service but the bus, so that
# figures are those of what is measured, and keeps files on a real disk. guestcryptd is to be started with --root=$host;
# mdevctl and everybody else see the same host below /.
. "$top/tools/devhost.d/filesystems.sh"

# simhost_enter SCRIPT [ARGUMENT]...: runs itself again as process 1 of new namespaces; returns only there, with host= set
simhost_enter() {
        local dir status=0

        if [ -n "${SIMHOST_DIR-}" ]; then
                host=$SIMHOST_DIR/host
                return 0
        fi
        dir=$(mktemp -d "${TMPDIR:-/var/tmp}/guestcrypt-${0##*/}.XXXXXX")
        SIMHOST_DIR=$dir setpriv --pdeathsig KILL unshare --mount --net --pid --ipc --fork --kill-child --mount-proc \
                --propagation private -- "$@" || status=$?
        rm -rf "$dir"
        exit $status
}

# simhost_start PROFILE
simhost_start() {
        mkdir -p "$host"/{etc/mdevctl.d/scripts.d/{callouts,notifiers},var/lib,run,sys,dev} "$SIMHOST_DIR"/{sim,real}
        mount -t tmpfs -o mode=755 run "$host/run"
        mkdir "$host/run/lock"
        [ -d /etc/mdevctl.d ] || skip "mdevctl is not installed"
        mount --bind "$host/etc/mdevctl.d" /etc/mdevctl.d
        ip link set lo up

        mount -t sysfs -o ro sysfs "$SIMHOST_DIR/real"
        DEVHOST_PROFILE=$1 start_sim "$build/sim/guestcrypt-sim" "$SIMHOST_DIR/sim" "$SIMHOST_DIR/sim.log"
        make_sys "$host/sys" "$SIMHOST_DIR/sim" "$SIMHOST_DIR/real"
        umount -l "$SIMHOST_DIR/real"
        mount --rbind "$host/sys" /sys

        cat > "$SIMHOST_DIR/bus.conf" <<TEXT
<busconfig>
  <type>system</type>
  <keep_umask/>
  <listen>unix:path=$SIMHOST_DIR/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
TEXT
        export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$SIMHOST_DIR/bus
        dbus-daemon --config-file="$SIMHOST_DIR/bus.conf" --fork --nopidfile # returns when it listens
}

# simhost_reboot: guestcryptd has to be down
simhost_reboot() {
        rm -rf "$host"/run/guestcrypt "$host"/run/lock/*
        echo reboot > /sys/.sim/ctl
}
