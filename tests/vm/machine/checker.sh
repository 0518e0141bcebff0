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
        local uptime

        read -r uptime _ < /proc/uptime
        echo "ok: $* ($uptime s)"
}

# Nobody writes to it: what waits for it needs no process for that.
mkfifo /run/nothing
exec 9<> /run/nothing

pause() { # SECONDS
        read -rt "$1" -u 9 || :
}

until_true() { # COMMAND: within some 60 s
        local n=0

        until eval "$1" > /dev/null 2>&1; do
                n=$((n + 1))
                [ $n -lt 300 ] || return 1
                pause 0.2
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

# The next ones start no process, each of which is a tenth of a second of the machine that emulates this one.

bits() { # MASK: 0x and 64 digits, the first bit is the highest; sets ids=, " 4 5 "
        local i digit

        ids=' '
        for ((i = 0; i < 64; i++)); do
                digit=${1:2+i:1}
                [ "$digit" != 0 ] || continue
                digit=$((16#$digit))
                [ $((digit & 8)) = 0 ] || ids+="$((4 * i)) "
                [ $((digit & 4)) = 0 ] || ids+="$((4 * i + 1)) "
                [ $((digit & 2)) = 0 ] || ids+="$((4 * i + 2)) "
                [ $((digit & 1)) = 0 ] || ids+="$((4 * i + 3)) "
        done
}

config_of() { # MDEV: sets adapters= and domains=, as ids= above
        local config

        IFS=, read -ra config < "$mdevs/$1/ap_config"
        [ ${#config[@]} -ge 2 ] || return 1
        bits "${config[0]}"
        adapters=$ids
        bits "${config[1]}"
        domains=$ids
}

queues_of() { # MDEV: its queues by the masks of ap_config, one a line
        local adapters domains a d

        config_of "$1" || return 1
        for a in $adapters; do
                for d in $domains; do
                        printf '%02x.%04x\n' "$a" "$d"
                done
        done
}

ids() { # MASK: the same in one line
        local ids

        bits "$1"
        echo "$ids"
}

# No queue is in two mdevs, none of an mdev's is with a driver of the host or would come to it by the masks, and each matrix
# that is said to be started has its mdev, with its queues. One that is being removed under its guest has no files any more.
check() {
        local path uuid queue ids adapters domains a d mask host_adapters host_domains their_adapters their_domains
        local -A owner=()

        checked=$((checked + 1))
        read -r mask < $bus/apmask
        bits "$mask"
        host_adapters=$ids
        read -r mask < $bus/aqmask
        bits "$mask"
        host_domains=$ids
        for path in "$mdevs"/*; do
                config_of "${path##*/}" 2> /dev/null || continue
                for a in $adapters; do
                        for d in $domains; do
                                printf -v queue '%02x.%04x' "$a" "$d"
                                [ -z "${owner[$queue]-}" ] || fail "$1: $queue is in ${owner[$queue]} and ${path##*/}"
                                owner[$queue]=${path##*/}
                                if [[ $host_adapters == *" $a "* && $host_domains == *" $d "* ]]; then
                                        is "$(cat $bus/devices/$queue/driver_override)" vfio_ap "$1: the masks leave $queue to the host, and its override"
                                fi
                                [ ! -e $bus/devices/$queue/driver ] || [ $bus/devices/$queue/driver -ef $bus/drivers/vfio_ap ] ||
                                        fail "$1: the driver of $queue is $(readlink $bus/devices/$queue/driver)"
                        done
                done
        done

        while IFS=$'\t' read -r uuid their_adapters their_domains; do
                [ -e "$parent/$uuid" ] || { fail "$1: $uuid is said to be started and has no mdev"; continue; }
                config_of "$uuid" 2> /dev/null || continue
                is "$adapters" " ${their_adapters:+$their_adapters }" "$1: adapters of $uuid"
                is "$domains" " ${their_domains:+$their_domains }" "$1: domains of $uuid"
        done < <(guestcryptctl --json list | jq -r '.[] | select(.state == "started") |
                [.uuid, (.adapters | join(" ")), (.domains | join(" "))] | @tsv')
}

live() { # how many mdevs there are
        local all=("$mdevs"/*)

        [ -e "${all[0]}" ] && echo ${#all[@]} || echo 0
}

state_is() { # NAME STATE
        [[ $(guestcryptctl --json show "$1") == *"\"state\":\"$2\""* ]]
}

uuid_of() { # NAME
        guestcryptctl --json show "$1" | jq -r .uuid
}

ready() {
        busctl --system status org.guestcrypt1
}

daemon_procs=/sys/fs/cgroup/system.slice/guestcryptd.service/cgroup.procs

# killed [OPTION...]: SIGKILL to all, or with --kill-whom=main. "back" then returns when systemd has started the next one and that
# says that it is ready.
killed() {
        mapfile -t old_procs < $daemon_procs
        systemctl kill -s KILL "$@" guestcryptd
}

another() {
        local pid

        while read -r pid; do
                [[ " ${old_procs[*]} " == *" $pid "* ]] || return 0
        done < $daemon_procs
        return 1
}

back() {
        expect 0 '' until_true another
        # The unit's own start has begun: this waits for its end.
        expect 0 '' systemctl start guestcryptd
}
