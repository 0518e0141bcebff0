#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# guest.sh - measures TPM commands inside a guest, over virtio with both fronts and over one of QEMU's own TPMs
#
# usage: guest.sh BENCH_GUEST GUESTCRYPT-TPM crb|tis RUNS COUNTED-RUNS IDLE-SECONDS
#
# A PC can have one tpm-crb or one tpm-tis. All TPMs are swtpm processes of the same version with the same keys. The
# guest boots twice: to be timed, and to have its accesses to devices recorded, which takes time. Prints lines:
#
#   MACHINE QEMU-VERSION KERNEL-RELEASE
#   TIME PATH COMMAND RUNS MEDIAN TENTH                       microseconds in the guest
#   COUNT PATH COMMAND RUNS READS WRITES INTERRUPTS OTHERS    accesses to its device; OTHERS: to all others
#   MEMORY PATH RESIDENT PSS WAKEUPS                          KiB, while the guest is idle for IDLE-SECONDS
#
# Exit status 77 when no such guest can be run here.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
need unshare chroot cpio swtpm mmdebstrap apt-get

program=$1 device=$2 other=$3 runs=$4 counted=$5 idle=$6
suite=sid         # the newest kernel
second=tpm_vhostu # as long as tpm_virtio
seconds=${GUESTCRYPT_VM_SECONDS:-600}

# A script that skips has said why as its last line.
made=
make() {
        local status=0

        made=$("$top/tests/vm/tpm/$1.sh" "${@:2}") || status=$?
        [ $status != 77 ] || { echo "${made##*$'\n'}"; exit 77; }
        [ $status = 0 ] || die "$1.sh ${*:2}: $made"
}

[ "$(nproc --all)" = 1 ] || taskset --pid --cpu-list "1-$(($(nproc --all) - 1))" $$ > /dev/null

work=$(mktemp -d)
# Whatever was started and still runs.
processes=()
tidy() {
        local pid

        for pid in "${processes[@]}"; do
                kill -9 "$pid" 2> /dev/null || :
                wait "$pid" 2> /dev/null || :
        done
        processes=()
}
trap 'tidy; rm -rf "$work"' EXIT

make qemu && qemu_root=$made
make kernel $suite amd64 && kernel=$made
make module $suite amd64 && module=$made
qemu=("$top/tests/vm/tpm/enter.sh" "$qemu_root" "$work" /usr/bin/qemu-system-x86_64)

# A driver binds to one device id, and QEMU has another for vhost-user (see guestcrypt-tpm(8)): so the same module is
# loaded twice, the second time under a name of its own.
mkdir -p "$work/root"/{modules,proc,sys,dev}
find "$kernel/modules" -name '*.ko' -exec cp {} "$work/root/modules/" \;
find "$work/root/modules" -name '*.ko' -printf '%f\n' | sort > "$work/root/modules/list"
cp "$module/tpm_virtio.ko" "$work/root/modules/"
LC_ALL=C sed "s/tpm_virtio/$second/g" "$module/tpm_virtio.ko" > "$work/root/modules/$second.ko"
printf '%s\n' tpm_virtio.ko "$second.ko device_id=31" >> "$work/root/modules/list"
cp "$program" "$work/root/init"
(cd "$work/root" && find . -print0 | cpio --null -o -H newc --quiet) > "$work/initramfs"
rm -rf "$work/root"
cp "$kernel/vmlinuz" "$work/vmlinuz"

start_swtpm() { # start_swtpm NAME [OPTION]...: its state is in state-NAME
        swtpm socket --tpm2 --tpmstate dir="$work/state-$1" --ctrl type=unixio,path="$work/$1-tpm.sock" "${@:2}" \
                > "$work/$1-swtpm.log" 2>&1 < /dev/null &
        processes+=($!)
        until_true 10 [ -S "$work/$1-tpm.sock" ] || { cat "$work/$1-swtpm.log"; die "swtpm does not start"; }
}

# One new TPM, which all others are copies of: their keys are the same, and take the same time.
mkdir "$work/state-new"
start_swtpm new --flags not-need-init,startup-clear
until_true 10 [ -s "$work/state-new/tpm2-00.permall" ] || { cat "$work/new-swtpm.log"; die "swtpm makes no TPM"; }
tidy
mv "$work/state-new" "$work/new"

start_tpm() { # start_tpm NAME
        rm -rf "$work/state-$1" "$work/$1-tpm.sock"
        cp -r "$work/new" "$work/state-$1"
        start_swtpm "$1"
}

declare -A device_pid
start_device() { # start_device FRONT
        start_tpm "$1"
        rm -f "$work/$1.sock"
        "$device" --front="$1" --tpm="$work/$1-tpm.sock" --socket="$work/$1.sock" > "$work/$1.log" 2>&1 < /dev/null &
        device_pid[$1]=$!
        processes+=($!)
        until_true 10 [ -S "$work/$1.sock" ] || { cat "$work/$1.log"; die "the device process does not start"; }
}

switches() {
        awk '/^voluntary_ctxt_switches/ { print $2 }' "/proc/${device_pid[$1]}/status"
}

# What idle device processes have and do.
memory() {
        local front
        local -A before

        sleep 0.2 # whoever still has to go to sleep
        for front in vfio-user vhost-user; do
                before[$front]=$(switches $front)
        done
        sleep "$idle" # the measurement
        for front in vfio-user vhost-user; do
                echo "MEMORY $front $(awk '/^Rss:/ { r = $2 } /^Pss:/ { p = $2 } END { print r, p }' \
                        "/proc/${device_pid[$front]}/smaps_rollup") $(($(switches $front) - before[$front]))"
        done
}

# The guest's processor gets one of the host's for itself, as far as we are concerned: tpm-crb and tpm-tis look for an
# answer at once and then each millisecond, and whoever takes the processor away between command and look changes that.
pin() {
        local task

        for task in /proc/"$1"/task/*; do
                if [ "$(cat "$task/comm")" = 'CPU 0/TCG' ]; then
                        taskset --pid --cpu-list 0 "${task##*/}"
                        return
                fi
        done
        return 1
}

# boot MODE RUNS [QEMU-OPTION]...: what the guest says comes to $work/console
boot() {
        local qemu_pid line status= deadline=$((SECONDS + seconds))

        start_tpm "$other"
        start_device vfio-user
        start_device vhost-user
        rm -f "$work"/console*
        mkfifo "$work"/console.{in,out}
        "${qemu[@]}" -name bench,debug-threads=on -m 768 -nodefaults -nographic -no-reboot -serial stdio \
                -object memory-backend-memfd,id=mem0,size=768M,share=on \
                -machine q35,accel=tcg,memory-backend=mem0 -cpu max \
                -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/run/test/vfio-user.sock"}}' \
                -chardev socket,id=vtpm,path=/run/test/vhost-user.sock \
                -device vhost-user-test-device-pci,virtio-id=31,num_vqs=1,vq_size=64,config_size=0,chardev=vtpm \
                -chardev "socket,id=tpm,path=/run/test/$other-tpm.sock" \
                -tpmdev emulator,id=tpm,chardev=tpm -device "tpm-$other,tpmdev=tpm" \
                -kernel /run/test/vmlinuz -initrd /run/test/initramfs \
                -append "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off no_timer_check io_delay=none bench=$1,3,$2" \
                "${@:3}" < "$work/console.in" > "$work/console.out" 2> "$work/qemu.log" &
        qemu_pid=$!
        processes+=($qemu_pid)
        exec {to_guest}> "$work/console.in" {from_guest}< "$work/console.out"
        [ "$(nproc --all)" = 1 ] || until_true 30 pin $qemu_pid || die "QEMU's thread for the processor cannot be pinned"
        while read -r -t $((deadline > SECONDS ? deadline - SECONDS : 1)) line <&$from_guest; do
                line=${line//[^[:print:]]/}
                echo "$line" >> "$work/console"
                case $line in
                IDLE)
                        memory > "$work/memory"
                        echo go on >&$to_guest
                        ;;
                "GUEST-EXIT "*) status=${line#GUEST-EXIT } ;;
                esac
        done
        exec {to_guest}>&- {from_guest}<&-
        [ $SECONDS -lt $deadline ] || { kill -9 $qemu_pid; status="nothing within $seconds s"; }
        wait $qemu_pid 2> /dev/null || status="QEMU's $?"
        if [ "$status" != 0 ]; then
                tail -n 30 "$work/console" "$work"/*.log >&2
                die "the guest ended with ${status:-no word}"
        fi
        tidy
}

# Who is behind which driver's name.
path='function path(driver) {
        return driver == "tpm_virtio" ? "vfio-user" : driver == "'$second'" ? "vhost-user" : "'$other'"
}'

boot time "$runs"
echo "MACHINE $("${qemu[@]}" --version | sed -n 's/^QEMU emulator version \([^ ]*\).*/\1/p')" \
        "$(sed -n 's/^.*KERNEL //p' "$work/console")"
awk "$path"' /^TIME / { $2 = path($2); print }' "$work/console"
cat "$work/memory"

boot count "$counted" -trace 'memory_region_ops_*,file=/run/test/trace'
# Between the marks. QEMU says "memory_region_ops_write cpu 0 mr 0x… addr 0x… value 0x… size 1 name 'tpm-tis-mmio'".
awk "$path"'
        FNR == NR {
                if ($1 == "COUNT") {
                        n++
                        of[n] = path($2); command[n] = $3; runs[n] = $4; interrupts[n] = $5; doorbells[n] = $6
                }
                next
        }
        / .ioport80.$/ {
                if (/ value 0xb1 /) inside = ++window
                if (/ value 0xe1 /) inside = 0
                next
        }
        !inside { next }
        / .(tpm-(crb|tis)-.*|vfio-user:.*|virtio-pci-.*|msix-.*).$/ {
                if (/^memory_region_ops_read/) reads[inside]++
                else writes[inside]++
                next
        }
        { others[inside]++ }
        function fault(text) {
                print "guest.sh: " text > "/dev/stderr"
                bad = 1
        }
        END {
                if (window != n) fault(n " counts, but " window " marks")
                for (i = 1; i <= n; i++) {
                        # Where the device is in another process, QEMU hands these to an eventfd before it would record
                        # them. Those of vfio-user are seen twice: they have to agree.
                        if (of[i] == "vhost-user") writes[i] += doorbells[i]
                        if (of[i] == "vfio-user" && writes[i] < doorbells[i])
                                fault(doorbells[i] " doorbells, but " writes[i] " writes")
                        # That is promised.
                        if (of[i] ~ /^v/ && reads[i] + writes[i] > 2 * runs[i])
                                fault(of[i] ", " command[i] ": more than 2 accesses to the device for each command")
                        print "COUNT", of[i], command[i], runs[i], reads[i] + 0, writes[i] + 0, interrupts[i], others[i] + 0
                }
                exit bad
        }' "$work/console" "$work/trace"
