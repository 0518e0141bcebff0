#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# mdevctl_golden.sh PROGRAM FIXTURES: reads the fixtures, and what git cannot keep, and compares. REGENERATE=1 rewrites.
set -eu
# a program for another machine has to be run by an emulator, which meson names
program="${MESON_EXE_WRAPPER-} $(realpath "$1")" fixtures=$(realpath "$2")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

test -z "$($program "$root")" # no directory: no definition, no error

mkdir -p "$root/etc/mdevctl.d/scripts.d/notifiers"
cp -r "$fixtures/matrix" "$root/etc/mdevctl.d/matrix"
cd "$root/etc/mdevctl.d/matrix"
: > 00000000-0000-0000-0000-0000000000e0
mkdir 00000000-0000-0000-0000-0000000000e1
ln -s 00000000-0000-0000-0000-000000000001 00000000-0000-0000-0000-0000000000e2
mkfifo 00000000-0000-0000-0000-0000000000e3
head -c 70000 /dev/zero | tr '\0' ' ' > 00000000-0000-0000-0000-0000000000e4
printf '{"mdev_type":"vfio_ap-passthrough","start":"auto","attrs":[]}\0{}' > 00000000-0000-0000-0000-0000000000e5

if [ "${REGENERATE:-}" ]; then
        $program "$root" > "$fixtures/expected"
fi
$program "$root" | diff -u "$fixtures/expected" -
