# SPDX-License-Identifier: LGPL-2.1-or-later
#
# daemon-checker.sh - in the guest: what both boots share, and a checker of the promises that reads nothing but sysfs

share=/mnt/guestcrypt
model=/sys/kernel/debug/ap_model/ctl
bus=/sys/bus/ap
failed=0

fail() {
        echo "FAILED: $*"
        failed=$((failed + 1))
}

ok() {
        echo "ok: $* ($(cut -d ' ' -f 1 /proc/uptime) s)"
}

until_true() { # COMMAND: within some 30 s
        local n=0

        until eval "$1" > /dev/null 2>&1; do
                n=$((n + 1))
                [ $n -lt 300 ] || return 1
                sleep 0.1
        done
}

# expect STATUS TEXT COMMAND...
expect() {
        local wanted=$1 text=$2 status=0 out

        shift 2
        out=$("$@" 2>&1) || status=$?
        [ $status = "$wanted" ] && [[ $out == *"$text"* ]] ||
                fail "'$*': status $status, wanted $wanted with '$text': $out"
}

install_it() {
        local library

        cp $share/guestcryptd /usr/sbin/
        cp $share/guestcryptctl /usr/bin/
        for library in $share/libraries/*; do
                [ -e "/usr/lib/s390x-linux-gnu/${library##*/}" ] || cp "$library" /usr/lib/s390x-linux-gnu/
        done
        cp $share/org.guestcrypt1.conf /usr/share/dbus-1/system.d/
        cp $share/guestcryptd.service /etc/systemd/system/
        systemctl daemon-reload
        busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
}

queues_of() { # MDEV: its queues by the masks of ap_config, one a line
        local adapters domains a d

        IFS=, read -r adapters domains _ < "/sys/bus/mdev/devices/$1/ap_config"
        for a in $(bits "$adapters"); do
                for d in $(bits "$domains"); do
                        printf '%02x.%04x\n' "$a" "$d"
                done
        done
}

bits() { # MASK: 0x and 64 digits, the first bit is the highest
        local i digit

        for ((i = 0; i < 64; i++)); do
                digit=$((16#${1:2+i:1}))
                [ $((digit & 8)) = 0 ] || echo $((4 * i))
                [ $((digit & 4)) = 0 ] || echo $((4 * i + 1))
                [ $((digit & 2)) = 0 ] || echo $((4 * i + 2))
                [ $((digit & 1)) = 0 ] || echo $((4 * i + 3))
        done
}

# No queue is in two mdevs, and none of an mdev's is with a driver of the host.
check() {
        local mdev queue driver all

        all=$(for mdev in /sys/bus/mdev/devices/*; do
                [ ! -e "$mdev" ] || queues_of "${mdev##*/}"
        done | sort)
        [ -z "$(uniq -d <<< "$all")" ] || fail "$1: in two mdevs: $(uniq -d <<< "$all")"
        for queue in $all; do
                driver=$(readlink "$bus/devices/$queue/driver" 2> /dev/null) || continue
                [ "${driver##*/}" = vfio_ap ] || fail "$1: $queue of an mdev is with ${driver##*/}"
        done
}

live() { # how many mdevs there are
        find /sys/bus/mdev/devices -mindepth 1 | wc -l
}

state_is() { # NAME STATE
        [ "$(guestcryptctl --json show "$1" | jq -r '.State // .state')" = "$2" ]
}

ready() {
        busctl --system status org.guestcrypt1
}
