#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# boot.sh - what is installed, under a real systemd that boots a Debian in namespaces
#
# usage: boot.sh SUITE PROBE [PROGRAM...]      SUITE: bookworm, trixie, ...
#
# PROBE is a script that the booted system runs; it makes /mnt/passed if all is well. The PROGRAMs are in /mnt, too.
#
# /sys is the simulated host's, so that the unit's sandbox is seen to allow what the daemon has to do. Nothing of the
# root file system is written to: it is below an overlay in memory.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
need unshare setpriv

# Process 1 of the namespaces, until systemd takes its place: $2 root file system, $3 build directory, $4 for results.
if [ "${1-}" = --inside ]; then
        lower=$2 build=$3 work=$4
        . "$top/tools/devhost.d/filesystems.sh"
        ip link set lo up
        mount -t tmpfs boot "$work/mnt"
        mkdir "$work"/mnt/{root,up,wd,sim,realsys}
        root=$work/mnt/root
        mount -t overlay -o "lowerdir=$build/stage:$lower,upperdir=$work/mnt/up,workdir=$work/mnt/wd" overlay "$root"

        mount -t proc proc "$root/proc"
        mount -t sysfs -o ro sysfs "$work/mnt/realsys"
        mount -t cgroup2 cgroup2 "$work/mnt/realsys/fs/cgroup"
        make_dev "$root/dev"
        : > "$root/dev/console"
        start_sim "$build/sim/guestcrypt-sim" "$work/mnt/sim" "$work/sim.log"
        make_sys "$root/sys" "$work/mnt/sim" "$work/mnt/realsys"
        mount -t tmpfs -o mode=755 run "$root/run"
        mount -t tmpfs tmp "$root/tmp"
        mount --bind "$work/results" "$root/mnt"

        echo guestcrypt-test > "$root/etc/hostname"
        : > "$root/etc/machine-id"
        # Faults are to be noticed within the test's time, and there are more of them than is usual.
        mkdir -p "$root/etc/systemd/system"/{guestcryptd.service.d,multi-user.target.wants}
        printf '%s\n' '[Unit]' 'StartLimitIntervalSec=0' '[Service]' 'WatchdogSec=3' 'TimeoutAbortSec=1' \
                > "$root/etc/systemd/system/guestcryptd.service.d/test.conf"
        ln -s /usr/lib/systemd/system/guestcryptd.service "$root/etc/systemd/system/multi-user.target.wants/"
        ln -s /usr/lib/systemd/system/guestcryptd.service "$root/etc/systemd/system/dbus-org.guestcrypt1.service"
        ln -s ../probe.service "$root/etc/systemd/system/multi-user.target.wants/"
        printf '%s\n' '[Unit]' 'After=multi-user.target' '[Service]' 'Type=oneshot' 'TimeoutStartSec=300' \
                'ExecStart=/bin/bash /mnt/probe' 'StandardOutput=file:/mnt/out' 'StandardError=file:/mnt/out' \
                'ExecStopPost=/bin/systemctl --no-block poweroff' > "$root/etc/systemd/system/probe.service"

        mkdir "$root/.old"
        cd "$root"
        pivot_root . .old
        umount -l /.old
        rmdir /.old
        # as systemd itself does where it takes itself for the first of a machine: credentials are mounted for a unit from outside it
        mount --make-rshared /
        exec env -i container=guestcrypt-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
fi

suite=$1 probe=$2
shift 2
[ -n "${GUESTCRYPT_BUILD-}" ] || die "GUESTCRYPT_BUILD does not name a build directory"
lower=$("$top/tests/integration/boot/rootfs.sh" "$suite") || { status=$?; echo "$lower"; exit $status; }
build=$("$top/tools/devhost.d/build")
if ldd "$build/stage/usr/sbin/guestcryptd" | grep -e libasan -e libtsan -e libclang_rt > /dev/null; then
        skip "the root file system has no sanitizers' libraries"
fi

# systemd wants a cgroup of its own, on a hierarchy of version 2.
cgroup=/sys/fs/cgroup
[ -e $cgroup/cgroup.controllers ] || cgroup=$cgroup/unified
[ -e $cgroup/cgroup.controllers ] || skip "this machine has no cgroups of version 2"
cgroup=$cgroup/guestcrypt-test.$$
mkdir $cgroup 2> /dev/null || skip "no cgroup can be made"

work=$(mktemp -d)
mkdir "$work"/{mnt,results}
cp "$probe" "$work/results/probe"
[ $# = 0 ] || cp "$@" "$work/results"
pid=
tidy() {
        [ -z "$pid" ] || kill -KILL "$pid" 2> /dev/null || :
        wait 2> /dev/null || :
        cgroup_gone() {
                find $cgroup -depth -type d -exec rmdir {} + && [ ! -d $cgroup ]
        }
        until_true 10 cgroup_gone || echo "$cgroup is left"
        rm -rf "$work"
}
trap tidy EXIT
trap 'exit 124' TERM INT

(
        echo $BASHPID > $cgroup/cgroup.procs
        exec setpriv --pdeathsig KILL unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child \
                --propagation private "$0" --inside "$lower" "$build" "$work"
) < /dev/null > "$work/log" 2>&1 &
pid=$!
wait $pid || :
pid=

cat "$work/results/out" 2> /dev/null || { cat "$work/log"; die "$suite did not boot"; }
[ -e "$work/results/passed" ] || { tail -n 50 "$work/results/journal" 2> /dev/null || :; die "on $suite something is wrong"; }
