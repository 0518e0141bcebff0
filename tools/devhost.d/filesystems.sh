# SPDX-License-Identifier: LGPL-2.1-or-later
#
# filesystems.sh - a simulated host's /dev and /sys; sourced by bash, in a mount namespace of its own

# Device nodes of its own: devtmpfs is one for all, and udevd would change modes and links in it.
make_dev() {
        local name major minor

        mount -t tmpfs -o mode=755 dev "$1"
        mkdir "$1"/{pts,shm,vfio,net}
        while read -r name major minor; do
                mknod -m 666 "$1/$name" c "$major" "$minor"
        done <<< 'null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
vfio/vfio 1 3'
        mount --bind /dev/pts "$1/pts"
        mount -t tmpfs shm "$1/shm"
        ln -s pts/ptmx "$1/ptmx"
        ln -s /proc/self/fd "$1/fd"
        for name in stdin:0 stdout:1 stderr:2; do
                ln -s "/proc/self/fd/${name#*:}" "$1/${name%:*}"
        done
}

# start_sim PROGRAM MOUNTPOINT LOG: the simulator as DEVHOST_PROFILE and DEVHOST_DIALECT want it; returns when mounted
start_sim() {
        local ready

        ready=$3.ready
        mkfifo "$ready"
        setsid "$1" --profile="${DEVHOST_PROFILE:-small}" ${DEVHOST_DIALECT:+--dialect="$DEVHOST_DIALECT"} \
                --uevents --ready-fd=3 "$2" < /dev/null 3> "$ready" > "$3" 2>&1 &
        disown $!
        read -r _ < "$ready" || { cat "$3" >&2; die "the simulated host does not start"; }
        rm "$ready"
}

# graft TARGET SOURCE: makes SOURCE, of whatever kind, be seen at TARGET, unless something is there
graft() {
        ! [ -e "$1" ] && ! [ -L "$1" ] || return 0
        if [ -L "$2" ]; then
                ln -s "$(readlink "$2")" "$1"
        elif [ -d "$2" ]; then
                mkdir -p "$1"
                mount --rbind "$2" "$1"
        elif [ -e "$2" ]; then
                : > "$1"
                mount --bind "$2" "$1"
        fi
}

# merge TARGET SOURCE [DIRECTORY]: grafts SOURCE's entries, but goes into those directories that both hosts have
merge() {
        local entry name

        mkdir -p "$1/${3-}"
        for entry in "$2/${3-}"/*; do
                name=${3:+$3/}${entry##*/}
                case $name in
                bus | class | devices | devices/virtual | kernel | module) merge "$1" "$2" "$name" ;;
                *) graft "$1/$name" "$entry" ;;
                esac
        done
}

# make_sys TARGET SIMULATED REAL: the simulated parts, and of the real ones what has to be on any machine
make_sys() {
        local name

        mount -t tmpfs -o mode=755 sys "$1"
        merge "$1" "$2"
        mkdir "$1/.sim"
        mount --bind "$2/.sim" "$1/.sim"
        for name in fs power firmware dev devices/system devices/virtual/net class/net; do
                mkdir -p "$(dirname "$1/$name")"
                graft "$1/$name" "$3/$name"
        done
        for name in "$3"/kernel/*; do
                graft "$1/kernel/${name##*/}" "$name"
        done
        # sysfs lets nobody make anything in it either.
        mount -o remount,ro "$1"
}
