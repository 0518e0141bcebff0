#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh - a guest with Debian's kernel, this project's driver and a TPM behind this project's device process
#
# usage: run.sh SUITE amd64|s390x vfio-user|vhost-user KEEPER GUESTCRYPT-TPM STAGES...
#
# Each STAGES is one boot: a list of stages of guest/stages.sh, with commas. All boots have the same swtpm and the same
# device process. The guest is emulated (TCG), never accelerated: nested virtualisation hangs stock kernels on some
# hosts. Over vhost-user the device has the id 31, since QEMU knows no name for 62, and there is none on s390x: QEMU's
# generic device has one interrupt vector, where virtio needs two. Exit status 77 when no such guest can be run here.
#
# foreign.sh has it run more: GUESTCRYPT_VM_PACKAGES (PACKAGE,...) are in the guest, too, and the directory
# GUESTCRYPT_VM_TREE is its /foreign; GUESTCRYPT_TPM_PLATFORM is the device's --platform.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/manual.sh"
here=$top/tests/vm/tpm
need_root
need unshare chroot cpio swtpm mmdebstrap apt-get

suite=$1 arch=$2 front=$3 keeper=$4 device=$5
shift 5
boot_seconds=${GUESTCRYPT_VM_SECONDS:-400} # several times what a boot with all its stages took on a slow machine

# A script that skips has said why as its last line.
made=
make() {
        local status=0

        made=$("$here/$1.sh" "${@:2}") || status=$?
        [ $status != 77 ] || { echo "${made##*$'\n'}"; exit 77; }
        [ $status = 0 ] || die "$1.sh ${*:2}: $made"
}

work=$(mktemp -d)
# Whatever was started and still runs; ended in this order.
processes=()
tidy() {
        local pid

        for pid in "${processes[@]}"; do
                kill -9 "$pid" 2> /dev/null || :
                wait "$pid" 2> /dev/null || :
        done
        rm -rf "$work"
}
trap tidy EXIT

make qemu && qemu_root=$made
make kernel "$suite" "$arch" && kernel=$made
make root "$suite" "$arch" "${GUESTCRYPT_VM_PACKAGES:-}" && root=$made
make source && source=$made
make module "$suite" "$arch" && module=$made

# What the guest consists of.
cp -a "$root" "$work/root"
mkdir -p "$work/root"/{modules,test,selftests}
find "$module/tpm_virtio.ko" "$kernel/modules" -name '*.ko' -exec cp {} "$work/root/modules/" \;
cp "$here"/guest/{stages.sh,load.py,foreign.sh} "$work/root/test/"
[ -z "${GUESTCRYPT_VM_TREE:-}" ] || cp -a "$GUESTCRYPT_VM_TREE" "$work/root/foreign"
cp "$source"/tools/testing/selftests/tpm2/* "$work/root/selftests/"
install "$here/guest/init" "$work/root/init"
(cd "$work/root" && find . -print0 | cpio --null -o -H newc --quiet) > "$work/initrd.gz"
rm -rf "$work/root"
cp "$kernel/vmlinuz" "$work/vmlinuz"

# swtpm, as its own parent would start it.
mkdir "$work/state"
swtpm socket --tpm2 --tpmstate dir="$work/state" --ctrl type=unixio,path="$work/ctrl.sock" \
        > "$work/swtpm.log" 2>&1 < /dev/null &
swtpm=$!
processes+=($swtpm)
until_true 10 [ -S "$work/ctrl.sock" ] || { cat "$work/swtpm.log"; die "swtpm does not start"; }

# The device process, with somebody who keeps its descriptors.
mkfifo "$work/orders" "$work/answers"
"$keeper" "$device" --tpm="$work/ctrl.sock" --socket="$work/vtpm.sock" --front="$front" \
        --control="$work/control.sock" --platform="${GUESTCRYPT_TPM_PLATFORM:-lock}" \
        < "$work/orders" > "$work/answers" 2> "$work/device.log" &
keeper_pid=$!
processes+=($keeper_pid)
exec {orders}> "$work/orders" {answers}< "$work/answers"

device_ready() {
        local answer

        read -r -t 30 answer <&$answers && [ "$answer" = ready ] ||
                { cat "$work/device.log"; die "the device process does not start"; }
}
device_ready

# QEMU's command line is the manual's, word for word, with another accelerator and with paths of the chroot.
page=$top/man/guestcrypt-tpm.8
text=$(manual_example "$page" "qemu-$arch") || die "the manual has no guest for $arch"
case $front in
vfio-user) id=62 ;;
vhost-user)
        id=31
        text=${text/-device \'{\"driver\":\"vfio-user-pci\"*\}\}\'/$(manual_example "$page" qemu-vhost-user)}
        ;;
*) die "there is no front '$front'" ;;
esac
text=${text/accel=kvm/accel=tcg}
for file in vtpm.sock vmlinuz initrd.gz; do
        text=${text/$file//run/test/$file}
done
eval "qemu=($text)"
[ "${qemu[-2]}" = -append ] || die "the manual's guest does not end with what its kernel is told"
append=${qemu[-1]}
unset 'qemu[-1]'
for word in accel=tcg "$front" /run/test/{vtpm.sock,vmlinuz,initrd.gz}; do
        [[ "$text" = *"$word"* ]] || die "the manual's guest has no '$word'"
done

# Starts QEMU in its root file system, with nothing of ours but the files of this test.
qemu_start() {
        rm -f "$work"/console.{in,out}
        mkfifo "$work/console.in" "$work/console.out"
        "$here/enter.sh" "$qemu_root" "$work" "${qemu[@]}" \
                "$append quiet loglevel=1 panic=-1 mitigations=off no_timer_check id=$id stages=$1" \
                < "$work/console.in" > "$work/console.out" 2> "$work/qemu.log" {orders}>&- {answers}<&- &
        qemu_pid=$!
        processes=($qemu_pid "${processes[@]}")
        exec {to_guest}> "$work/console.in" {from_guest}< "$work/console.out"
}

# The device's control socket.
device_ask() {
        socat -t 30 - "UNIX-CONNECT:$work/control.sock" <<< "$1"
}

# What a guest asks for. It gets "done" as an answer, and more words if there are some.
serve() {
        local n

        words=
        case $1 in
        power) device_ask reset > /dev/null ;;
        fresh)
                # swtpm makes a new TPM where it finds none when it is switched on.
                rm -f "$work"/state/tpm2-*
                device_ask reset > /dev/null
                ;;
        count) words=$(device_ask status | sed -n 's/^commands=//p') ;;
        swtpm-stop) kill -STOP $swtpm ;;
        swtpm-continue) kill -CONT $swtpm ;;
        swtpm-kill)
                kill -9 $swtpm
                wait $swtpm 2> /dev/null || :
                ;;
        restart | kill)
                for ((n = 0; n < ${2:-1}; n++)); do
                        echo "$1" >&$orders
                        device_ready
                        # Between two of them the guest is to get somewhere.
                        sleep 0.05
                done
                ;;
        device-kill)
                echo end >&$orders
                wait "$keeper_pid" || die "the device process does not end well: $(cat "$work/device.log")"
                ;;
        kill-guest) kill -9 $qemu_pid ;;
        *) die "the guest asks for '$*'" ;;
        esac
}

# guest STAGES: one boot. Says what the guest says, and does what it asks for.
guest() {
        local line status= begun= deadline=$((SECONDS + boot_seconds))

        qemu_start "$1"
        while read -r -t $((deadline > SECONDS ? deadline - SECONDS : 1)) line <&$from_guest; do
                line=${line//[^[:print:]]/}
                case $line in
                "HOST kill-guest "*)
                        status=${line##* }
                        serve kill-guest
                        ;;
                "HOST "*)
                        # shellcheck disable=SC2086
                        serve ${line#HOST }
                        echo "done${words:+ $words}" >&$to_guest
                        ;;
                "GUEST-EXIT "*) status=${line#GUEST-EXIT } ;;
                *"== "*)
                        begun=yes
                        echo "== ${line#*== }"
                        ;;
                # What firmware and kernel say before is of no use unless it is all there is.
                *) [ -z "$begun" ] || echo "$line" ;;
                esac
        done
        exec {to_guest}>&- {from_guest}<&-
        [ $SECONDS -lt $deadline ] || { kill -9 $qemu_pid; status="nothing within $boot_seconds s"; }
        wait $qemu_pid 2> /dev/null || [ -n "$status" ] || status="QEMU's $?"
        processes=("${processes[@]:1}")
        if [ "$status" != 0 ]; then
                echo "-- QEMU says:"
                tail -n 40 "$work/qemu.log"
                echo "-- the device process says:"
                cat "$work/device.log"
                die "the guest ended with ${status:-no word}"
        fi
}

for stages; do
        guest "$stages"
done
