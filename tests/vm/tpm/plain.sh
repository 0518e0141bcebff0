#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# plain.sh - the part of foreign.sh that runs tests straight in front of swtpm
#
# usage: plain.sh ROOT amd64|s390x WORK
#
# The tests run in the guest's root file system, but on this machine, with network and mounts of their own; an s390x one
# through WORK/emulator/usr/bin/qemu-s390x. WORK/tree is what the guest has as /foreign; what is made goes into WORK/work.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"

# Neither this machine's loopback device nor its binfmt_misc are touched: both are those of a new user name space.
if [ -z "${GUESTCRYPT_PLAIN:-}" ]; then
        exec env GUESTCRYPT_PLAIN=1 unshare --user --map-root-user --mount --net --pid --fork --kill-child \
                --propagation private "$0" "$@"
fi

root=$1 arch=$2 tree=$3/tree emulator=$3/emulator/usr/bin/qemu-s390x work=$3/work
mkdir "$work"
mount -t tmpfs work "$work"
mkdir "$work"/{state,root}

if [ "$arch" = s390x ]; then
        mount -t binfmt_misc binfmt /proc/sys/fs/binfmt_misc
        # An ELF header: 64 bits, big-endian, machine 22. F: the interpreter is opened here and now.
        printf ':s390x:M::%s:%s:%s:F' \
                '\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16' \
                '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff' \
                "$emulator" > /proc/sys/fs/binfmt_misc/register
fi

# Device nodes cannot be made in a user name space; those of this machine have to do.
tar -C "$root" --exclude=./dev -c . | tar -C "$work/root" -x
mkdir "$work/root/dev"
cp -a "$tree" "$work/root/foreign"
cp "$top/tests/vm/tpm/guest/foreign.sh" "$work/root/"
job=$(cat "$tree/job")

ip link set lo up
swtpm socket --tpm2 --tpmstate dir="$work/state" --server type=tcp,port=2321 --ctrl type=tcp,port=2322 \
        > "$work/swtpm.log" 2>&1 < /dev/null &
until_true 10 swtpm_ioctl --tcp 127.0.0.1:2322 -c || { cat "$work/swtpm.log"; die "swtpm does not start"; }

mkfifo "$work/asked" "$work/answers"
# shellcheck disable=SC2016
bash -ec '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        mount -t tmpfs dev "$root/dev"
        for node in null zero random urandom tty; do
                touch "$root/dev/$node"
                mount --bind "/dev/$node" "$root/dev/$node"
        done
        mkdir "$root"/dev/{pts,shm}
        mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
        ln -s pts/ptmx "$root/dev/ptmx"
        ln -s /proc/self/fd "$root/dev/fd"
        exec env -i PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root "$(command -v chroot)" "$root" bash -c "
                busybox --install -s /usr/sbin
                cd /tmp
                exec bash /foreign.sh plain $*"' bash "$work/root" "$job" < "$work/answers" > "$work/asked" 2>&1 &
exec {answers}> "$work/answers" {asked}< "$work/asked"

while read -r line <&$asked; do
        case $line in
        "HOST fresh" | "HOST power")
                [ "$line" = "HOST power" ] || rm -f "$work"/state/tpm2-*
                word="done"
                swtpm_ioctl --tcp 127.0.0.1:2322 -i > /dev/null 2>&1 || word=failed
                echo $word >&$answers
                ;;
        "HOST count") echo "done 0" >&$answers ;;
        *) echo "$line" ;;
        esac
done
