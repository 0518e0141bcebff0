#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# source.sh - from the source of Debian's newest kernel: checkpatch, the TPM core, and the kernel's own tests of TPMs
#
# usage: source.sh      prints the directory's path; it is made once and cached, until there is a newer kernel
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"
need apt-get xz
need_debian sid

package=$(debian_depends sid linux-source linux-source-)
[ -n "$package" ] || skip "apt knows no linux-source of Debian's newest release"

make_source() {
        mkdir "$1/deb" &&
                debian_unpack sid "$1/deb" "$package" &&
                tar -C "$1" -xf "$1/deb/usr/src/$package.tar.xz" --strip-components=1 --wildcards \
                        "$package/scripts/checkpatch.pl" "$package/scripts/spelling.txt" \
                        "$package/scripts/const_structs.checkpatch" "$package/drivers/char/tpm" \
                        "$package/tools/testing/selftests/tpm2" &&
                rm -rf "$1/deb"
}

dir=$cache/source-$(debian_version sid "$package")
once "$dir" make_source >&2 || once "$dir" make_source >&2 || die "the kernel's source could not be had"
echo "$dir"
