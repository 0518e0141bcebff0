#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# enter.sh - becomes a program in the root file system that qemu.sh makes, with nothing of ours in there but one
#            directory, as /run/test
#
# usage: enter.sh ROOT DIRECTORY PROGRAM ARGUMENT...
#
# What runs in the end is the child that a caller's wait and kill know, without a shell in between. The root's /dev has
# device nodes of its own.
set -euo pipefail

# The mounts are seen by nobody else.
exec unshare --mount --propagation private bash -ec '
        root=$1 dir=$2
        shift 2
        mount --bind "$root" "$root"
        mount -t tmpfs -o mode=755 run "$root/run"
        mkdir "$root/run/test"
        mount --bind "$dir" "$root/run/test"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=755 dev "$root/dev"
        for node in "null 1 3" "zero 1 5" "urandom 1 9"; do
                set -- $node "$@"
                mknod -m 666 "$root/dev/$1" c "$2" "$3"
                shift 3
        done
        cd "$root"
        exec env -i PATH=/usr/bin "$(command -v chroot)" . "$@"' bash "$@"
