#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh - boots a kernel of kernel.sh in QEMU (TCG), which takes about two seconds, and runs a shell script in it
#
# usage: run.sh [OPTION]... SCRIPT [ARGUMENT]...
#
#   -k 7.2|6.12    the kernel (7.2)
#   -b FILE        this program is in the guest, too, as /bin/NAME; built for s390x, without -r and -S statically linked
#   -s TAG=DIR     DIR of this machine is /mnt/TAG in the guest, for reading and writing; what is in that with the tag
#                  "root" is copied over the root file system before the guest boots from it
#   -a 'ARGUMENTS' more for the kernel's command line, see README.md
#   -r             the script runs with bash in the Debian root file system of root.sh
#   -S             the same, as a service of systemd, with udevd and a system bus
#   -m MEGABYTES   memory (512)
#   -c NUMBER      processors (2); with one of them the same job takes a fifth less of this machine's time
#   -t SECONDS     then the guest is killed (600)
#   -i             a shell on this terminal instead of a script; Ctrl-A X leaves
#   -f             one processor, whose time is what it does: where it would sleep, the time jumps. So the same job takes
#                  the same time, but also waiting for this machine (9p) can be many seconds of the guest's.
#
# What the script says (both streams) comes on stdout; its exit status is that of run.sh. 77: this machine lacks what it
# takes. 99: the guest did not get to the end of the script; then its console follows on stderr.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/vm/ap-kernel}
. "$top/tests/lib/common.sh"

usage() {
        sed -n 's/^# \{0,1\}//; /^usage/,/^  -f/p' "$0" >&2
        exit 2
}

kernel=7.2 memory=512 limit=600 arguments= root= interactive= fast= tags=
programs=() devices=() cpus=2
while getopts k:b:s:a:rSm:c:t:if option; do
        case $option in
        k) kernel=$OPTARG ;;
        b) programs+=("$OPTARG") ;;
        s)
                tag=${OPTARG%%=*}
                devices+=(-fsdev "local,id=fs_$tag,path=${OPTARG#*=},security_model=none,multidevs=remap"
                        -device "virtio-9p-ccw,fsdev=fs_$tag,mount_tag=$tag")
                tags=$tags${tags:+,}$tag
                ;;
        a) arguments=$OPTARG ;;
        r) root=debian ;;
        S) root=systemd ;;
        m) memory=$OPTARG ;;
        c) cpus=$OPTARG ;;
        t) limit=$OPTARG ;;
        i) interactive=yes ;;
        f) fast=yes ;;
        *) usage ;;
        esac
done
shift $((OPTIND - 1))
[ -n "$interactive" ] || [ -r "${1:-}" ] || usage
need qemu-system-s390x cpio timeout

# A script that skips has said why as its last line.
made=
make() {
        local status=0

        made=$("$here/$1.sh" "${@:2}") || status=$?
        [ $status != 77 ] || { echo "${made##*$'\n'}"; exit 77; }
        [ $status = 0 ] || die "$1.sh ${*:2}: $made"
}

make kernel "$kernel"
kernel=$made
if [ -n "$root" ]; then
        make root
        devices+=(-drive "file=$made,format=raw,if=none,snapshot=on,id=root" -device virtio-blk-ccw,drive=root)
fi

work=$(mktemp -d)
guest=
tidy() {
        [ -z "$guest" ] || kill "$guest" 2> /dev/null || : # timeout passes it on to QEMU
        rm -rf "$work"
}
trap tidy EXIT

cp -a "$kernel/root" "$work/root"
for program in "${programs[@]}"; do
        install "$program" "$work/root/bin/${program##*/}"
done
install "$here/init" "$work/root/init"
mkdir -p "$work/root/etc" "$work/job"
printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'tester:x:1000:1000::/tmp:/bin/sh' > "$work/root/etc/passwd"
printf '%s\n' 'root:x:0:' 'tester:x:1000:' > "$work/root/etc/group"
(cd "$work/root" && find . -print0 | cpio --null -o -H newc -R 0:0 --quiet) > "$work/initrd"

# 12 and 15 are the facilities QCI and APFT, which TCG does not have by itself.
append="facilities=12,15 console=ttysclp0 quiet loglevel=4 panic=-1 oops=panic"
append+="${tags:+ shares=$tags}${interactive:+ shell}${root:+ $root}${arguments:+ $arguments}"
if [ -n "$fast" ]; then
        cpus=1
        devices+=(-icount shift=3,sleep=off,align=off)
fi
qemu=(qemu-system-s390x -M s390-ccw-virtio -cpu max -accel tcg -smp $cpus -m "$memory" -nodefaults -no-reboot
        -display none -kernel "$kernel/bzImage" -initrd "$work/initrd" -append "$append"
        -fsdev "local,id=fs_job,path=$work/job,security_model=none"
        -device virtio-9p-ccw,fsdev=fs_job,mount_tag=job -device virtio-serial-ccw "${devices[@]}")

if [ -n "$interactive" ]; then
        "${qemu[@]}" -chardev stdio,id=con,mux=on,signal=off -device sclpconsole,chardev=con -mon chardev=con
        exit
fi

{
        printf 'set --'
        [ $# = 1 ] || printf ' %q' "${@:2}"
        echo
        cat "$1"
} > "$work/job/run"
# Reads from a fifo with a writer never come to an end; at the end of its stdin QEMU would close the port.
mkfifo "$work/stdin"
exec {stdin}<> "$work/stdin"
timeout --foreground -k 5 "$limit" "${qemu[@]}" -chardev "file,id=con,path=$work/console" -device sclpconsole,chardev=con \
        -chardev stdio,id=job,signal=off -device virtserialport,chardev=job,name=job <&$stdin &
guest=$!
trap 'exit 99' INT TERM HUP
status=0
wait "$guest" || status=$?
guest=
if [ ! -s "$work/job/status" ]; then
        echo "run.sh: the guest did not get to the end (QEMU's exit status is $status); its console:" >&2
        tail -n 40 "$work/console" >&2
        exit 99
fi
exit "$(cat "$work/job/status")"
