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

# Of the emulators only one for each architecture with TPMs or matrices is left, since libvirt needs seconds to find out what
# each can do. That it remembers in the cache, from one simulated host to the next.
emulators_prepare() {
        local name known wrapper=$DEVHOST_BUILD/sim/guestcrypt-sim-emulator

        [ ! -e /usr/bin/qemu-system-s390x.real ] || return 0
        known=$(echo "${DEVHOST_LIBVIRT_ROOT-}" && dpkg-query -W -f '${Package} ${Version}\n' 'libvirt-daemon*' 'qemu-system-*' && stat -c %z "$wrapper")
        known=$cache/libvirt-capabilities-$(sha256sum <<< "$known" | cut -c 1-8)
        if mkdir -p "$known" 2> /dev/null; then
                mkdir -p /var/cache/libvirt/qemu/capabilities
                mount --bind "$known" /var/cache/libvirt/qemu/capabilities
        fi

        for name in /usr/bin/qemu-system-*; do
                case $name in
                */qemu-system-x86_64 | */qemu-system-s390x) ;;
                *) rm "$name" ;;
                esac
        done
        : > /usr/bin/qemu-system-s390x.real
        mount --bind /usr/bin/qemu-system-s390x /usr/bin/qemu-system-s390x.real
        mount --bind "$wrapper" /usr/bin/qemu-system-s390x

        # A kernel that waits for interrupts which never come: larl, lpswe, the PSW.
        mkdir -p /var/lib/libvirt/images
        printf '\xc0\x10\0\0\0\x08\xb2\xb2\x10\0\7\7\7\7\7\7\x03\x02\0\x01\x80\0\0\0\0\0\0\0\0\0\0\0' > /var/lib/libvirt/images/idle-s390x

        # The nodes of the first VFIO groups: devtmpfs would make each with its group.
        for name in {0..31}; do
                mknod -m 600 /dev/vfio/"$name" c 1 3
        done
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
        emulators_prepare
        mkdir -p /var/{lib,log,cache}/libvirt /run/libvirt
        # Its own defaults want a user, cgroups and a log daemon that are not there.
        printf '%s\n' 'user = "root"' 'group = "root"' 'dynamic_ownership = 0' 'remember_owner = 0' \
                'security_driver = "none"' 'cgroup_controllers = []' 'namespaces = []' 'stdio_handler = "file"' \
                > /etc/libvirt/qemu.conf
        printf '%s\n' 'auth_unix_ro = "none"' 'auth_unix_rw = "none"' \
                'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"' > /etc/libvirt/libvirtd.conf
        libvirt_run 2> /run/log/libvirtd || { cat /run/log/libvirtd >&2; die "libvirtd does not start"; }
}

# libvirt_end SIGNAL: its guests go on
libvirt_end() {
        local pid

        pid=$(cat /run/libvirtd.pid)
        kill -"$1" "$pid"
        until_true 30 daemon_gone "$pid" || die "libvirtd does not end"
}

# guests_end: as a power cut ends them
guests_end() {
        local file pid

        for file in /run/libvirt/qemu/*.pid; do
                [ -e "$file" ] || continue
                pid=$(cat "$file")
                ! kill -KILL "$pid" 2> /dev/null || until_true 30 daemon_gone "$pid"
        done
        rm -rf /run/libvirt
}
