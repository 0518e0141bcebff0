# SPDX-License-Identifier: LGPL-2.1-or-later
#
# lib.sh - guests of libvirt on the simulated host; sourced by bash with top= set
#
# Run "on_devhost" first, with the script's arguments.

. "$top/tests/lib/common.sh"

guests=$top/tools/devhost.d/guests
uuid_1=7f3a1c0e-5b0f-4c55-9d0e-0000000000a1
uuid_2=7f3a1c0e-5b0f-4c55-9d0e-0000000000a2

# on_devhost "DEVHOST-OPTION..." ARGUMENT...: runs the script again on a simulated host with libvirtd
on_devhost() {
        local options=$1

        shift
        [ "${1-}" != --inside ] || return 0
        need_root
        exec "$top/tools/devhost" "--libvirt${GUESTCRYPT_LIBVIRT:+=$GUESTCRYPT_LIBVIRT}" --quiet $options -- "$0" --inside
}

# expect STATUS PATTERN COMMAND...: exit status and output (both streams) must be as said
expect() {
        local want=$1 pattern=$2 status=0 out

        shift 2
        out=$("$@" 2>&1) || status=$?
        [ $status = "$want" ] && grep -E -- "$pattern" <<< "$out" > /dev/null ||
                die "'$*': status $status, not $want with /$pattern/: $out"
}

has_mdev() {
        [ -d "/sys/bus/mdev/devices/$1" ]
}

has_no_mdev() {
        ! has_mdev "$1"
}

# in_use MDEV: whether the simulated host has a guest with it
in_use() {
        grep -x "guest $1 config=[0-9]* request=[0-9]*" /sys/.sim/ctl > /dev/null
}

not_in_use() {
        ! in_use "$1"
}

qemu_pid() {
        cat "/run/libvirt/qemu/$1.pid"
}

# guest_is GUEST STATE, as virsh domstate says it
guest_is() {
        [ "$(virsh domstate "$1")" = "$2" ]
}

# hostdev MDEV: such a device
hostdev() {
        echo "<hostdev mode='subsystem' type='mdev' model='vfio-ap'><source><address uuid='$1'/></source></hostdev>"
}

# with_mdev GUEST-XML MDEV: the document with such a device
with_mdev() {
        sed "s#<memballoon model='none'/>#&$(hostdev "$2")#" "$1"
}

# matrix NAME ADAPTER OPTION...: defines it, with domain 0x47; prints its UUID
matrix() {
        guestcryptctl define "$1" --adapters "$2" --domains 0x47 "${@:3}" > /dev/null
        guestcryptctl --json show "$1" | jq -r .uuid
}

# until_mdev MDEV, until_no_mdev MDEV: what guestcryptd does after libvirt's hook has its answer
until_no_mdev() {
        until_true 20 has_no_mdev "$1" || die "mdev '$1' is still there"
}

# no_activation: a daemon that is down stays down
no_activation() {
        rm /usr/share/dbus-1/system-services/org.guestcrypt1.service
        busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig > /dev/null
}
