# SPDX-License-Identifier: LGPL-2.1-or-later
#
# services.sh - starts and stops what runs on the simulated host; sourced with top= set, after tests/lib/common.sh
#
# Services log to /run/log. Nothing has to be stopped at the end: the process namespace ends with its first process.

d=/run/.devhost

# A background job of its own session, which the shell forgets: no message when it is killed.
background() {
        local log=$1

        shift
        setsid "$@" < /dev/null >> "$log" 2>&1 &
        echo $! > "$d/${log##*/}.pid"
        disown $!
}

has_owner() {
        busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s "$1" |
                grep -q true
}

# The kernel's file cannot be written: a host that boots again shows another one in its place.
new_boot_id() {
        cat /proc/sys/kernel/random/uuid > $d/boot_id
        [ -e $d/boot_id.mounted ] || mount --bind $d/boot_id /proc/sys/kernel/random/boot_id
        : > $d/boot_id.mounted
}

bus_start() {
        dbus-daemon --system --fork --nopidfile # returns when it listens
        background /run/log/polkitd /usr/lib/polkit-1/polkitd --no-debug
        /lib/systemd/systemd-udevd --daemon 2> /run/log/udevd # returns when it listens
        until_true 10 has_owner org.freedesktop.PolicyKit1 || { cat /run/log/polkitd >&2; die "polkitd does not start"; }
}

daemon_pid() {
        cat $d/guestcryptd.pid
}

daemon_ready() {
        has_owner org.guestcrypt1 || ! kill -0 "$(daemon_pid)"
}

daemon_start() {
        background /run/log/guestcryptd guestcryptd
        until_true 30 daemon_ready && kill -0 "$(daemon_pid)" 2> /dev/null || {
                cat /run/log/guestcryptd >&2
                die "guestcryptd does not start"
        }
}

daemon_gone() {
        ! kill -0 "$1"
}

# daemon_end SIGNAL
daemon_end() {
        local pid

        pid=$(daemon_pid)
        kill -"$1" "$pid" 2> /dev/null || return 0
        until_true 30 daemon_gone "$pid" || die "guestcryptd does not end"
}

libvirt_run() {
        if [ "$DEVHOST_LIBVIRT" = new ]; then
                . "$top/tools/devhost.d/libvirt-new.sh"
                libvirt_new_run
        else
                libvirtd --daemon
        fi
}

libvirt_start() {
        mkdir -p /var/{lib,log,cache}/libvirt /run/libvirt
        # Its own defaults want a user, cgroups and a log daemon that are not there.
        printf '%s\n' 'user = "root"' 'group = "root"' 'dynamic_ownership = 0' 'remember_owner = 0' \
                'security_driver = "none"' 'cgroup_controllers = []' 'namespaces = []' 'stdio_handler = "file"' \
                > /etc/libvirt/qemu.conf
        printf '%s\n' 'auth_unix_ro = "none"' 'auth_unix_rw = "none"' \
                'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"' > /etc/libvirt/libvirtd.conf
        libvirt_run 2> /run/log/libvirtd || { cat /run/log/libvirtd >&2; die "libvirtd does not start"; }
}

libvirt_stop() {
        local pid

        pid=$(cat /run/libvirtd.pid)
        kill "$pid"
        until_true 30 daemon_gone "$pid" || die "libvirtd does not end"
}
