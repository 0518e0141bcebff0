# SPDX-License-Identifier: LGPL-2.1-or-later
#
# checker.sh - in the guest: what the scripts share, and a checker of the promises that reads nothing but sysfs and what
# guestcryptd says of it

export LC_ALL=C
model=/sys/kernel/debug/ap_model/ctl
bus=/sys/bus/ap
mdevs=/sys/bus/mdev/devices
parent=/sys/devices/vfio_ap/matrix # where a device's directory is until its removal has ended
create=$parent/mdev_supported_types/vfio_ap-passthrough/create
failed=0 checked=0

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

is() { # IS WANTED WHAT
        [ "$1" = "$2" ] || fail "$3: '$1', wanted '$2'"
}

# keep PATH...: it is there at the next boot, too
keep() {
        local path

        for path; do
                rm -rf "/mnt/root$path"
                mkdir -p "/mnt/root${path%/*}"
                [ ! -e "$path" ] || cp -a "$path" "/mnt/root$path"
        done
}

the_end() {
        journalctl --no-pager -b -u guestcryptd -p warning | tail -n 20
        echo "$checked checks against sysfs, $failed failures"
        exit $((failed > 0))
}

queues_of() { # MDEV: its queues by the masks of ap_config, one a line
        local adapters domains a d

        IFS=, read -r adapters domains _ < "$mdevs/$1/ap_config"
        for a in $(bits "$adapters"); do
                for d in $(bits "$domains"); do
                        printf '%02x.%04x\n' "$a" "$d"
                done
        done
}

bits() { # MASK: 0x and 64 digits, the first bit is the highest
        local i digit

        for ((i = 0; i < 64; i++)); do
                [ "${1:2+i:1}" != 0 ] || continue
                digit=$((16#${1:2+i:1}))
                [ $((digit & 8)) = 0 ] || echo $((4 * i))
                [ $((digit & 4)) = 0 ] || echo $((4 * i + 1))
                [ $((digit & 2)) = 0 ] || echo $((4 * i + 2))
                [ $((digit & 1)) = 0 ] || echo $((4 * i + 3))
        done
}

ids() { # MASK: the same in one line
        local all

        all=$(bits "$1")
        echo " ${all//$'\n'/ } "
}

# No queue is in two mdevs, none of an mdev's is with a driver of the host or would come to it by the masks, and each matrix
# that is said to be started has its mdev, with its queues. One that is being removed under its guest has no files any more.
check() {
        local path uuid queue driver adapters domains config all=

        checked=$((checked + 1))
        for path in "$mdevs"/*; do
                [ ! -r "$path/ap_config" ] || all+=$(queues_of "${path##*/}")$'\n'
        done
        all=$(sort <<< "$all" | sed '/^$/d')
        [ -z "$(uniq -d <<< "$all")" ] || fail "$1: in two mdevs: $(uniq -d <<< "$all")"

        adapters=$(ids "$(cat $bus/apmask)")
        domains=$(ids "$(cat $bus/aqmask)")
        for queue in $all; do
                if [[ $adapters == *" $((16#${queue%.*})) "* && $domains == *" $((16#${queue#*.})) "* ]]; then
                        is "$(cat $bus/devices/$queue/driver_override)" vfio_ap "$1: the masks leave $queue to the host, and its override"
                fi
                driver=$(readlink "$bus/devices/$queue/driver" 2> /dev/null) || continue
                is "${driver##*/}" vfio_ap "$1: the driver of $queue"
        done

        while IFS=$'\t' read -r uuid adapters domains; do
                [ -e "$parent/$uuid" ] || { fail "$1: $uuid is said to be started and has no mdev"; continue; }
                [ -r "$mdevs/$uuid/ap_config" ] || continue
                IFS=, read -ra config < "$mdevs/$uuid/ap_config"
                is "$(ids "${config[0]}")" " $adapters " "$1: adapters of $uuid"
                is "$(ids "${config[1]}")" " $domains " "$1: domains of $uuid"
        done < <(guestcryptctl --json list | jq -r '.[] | select(.state == "started") |
                [.uuid, (.adapters | join(" ")), (.domains | join(" "))] | @tsv')
}

live() { # how many mdevs there are
        find "$mdevs" -mindepth 1 | wc -l
}

state_is() { # NAME STATE
        [ "$(guestcryptctl --json show "$1" | jq -r .state)" = "$2" ]
}

uuid_of() { # NAME
        guestcryptctl --json show "$1" | jq -r .uuid
}

ready() {
        busctl --system status org.guestcrypt1
}
