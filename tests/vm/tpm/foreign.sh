#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# foreign.sh - runs the tests of another project in a guest whose TPM is this project's
#
# usage: foreign.sh ibmtss|tpm2-tools CHECKOUT [SUITE [amd64|s390x [TEST...]]]
#
# CHECKOUT is a directory with the other project's source. That of ibmtss has been built, for the guest's architecture and
# without a shared library; that of tpm2-tools is of the version that SUITE (default: sid) has, and nothing of it is
# built. This project is taken from $GUESTCRYPT_BUILD, by default build/. A TEST is the number of a group in
# utils/reg.sh (ibmtss), or tests/NAME or fapi/NAME (tpm2-tools); default: all.
#
# Each test begins with a new TPM. Afterwards the same tests run without guest and device, in front of the same swtpm.
# Exit status: 1 if a test has passed there and not in the guest.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"
here=$top/tests/vm/tpm
need_root
need unshare chroot socat swtpm swtpm_ioctl git

[ $# -ge 2 ] || die "which tests, and where are they? See the beginning of $0"
kind=$1 checkout=$(cd "$2" && pwd) suite=${3:-sid} arch=${4:-amd64}
tests=("${@:5}")
build=${GUESTCRYPT_BUILD:-$top/build}
keeper=$build/tests/vm/tpm/tpm-keeper
device=$build/drivers/virtio-tpm/guestcrypt-tpm
for program in "$keeper" "$device"; do
        [ -x "$program" ] || die "there is no $program: set GUESTCRYPT_BUILD"
done
export GUESTCRYPT_VM_SECONDS=${GUESTCRYPT_VM_SECONDS:-14400} GUESTCRYPT_TPM_PLATFORM=keep

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree"
case $kind in
ibmtss)
        cp -r "$checkout/utils" "$work/tree"
        rm -rf "$work"/tree/utils/{.libs,*.[cho]}
        # "Fully rooted" paths, which everybody has to change.
        sed -i 's,^/.*/certificates/,/foreign/utils/certificates/,' "$work/tree/utils/certificates/rootcerts.txt"
        machine=$(od -A n -t x1 -j 18 -N 2 "$work/tree/utils/getrandom" | tr -d ' ')
        case $arch,$machine in
        amd64,3e00 | s390x,0016) ;;
        *) die "$checkout/utils/getrandom is no program for $arch, or only the script that libtool makes" ;;
        esac
        for test in "${tests[@]}"; do
                grep -F "\"-$test\" ]" "$checkout/utils/reg.sh" > /dev/null || die "there is no group $test"
        done
        ;;
tpm2-tools)
        version=$(git -C "$checkout" describe --tags --exact-match 2> /dev/null || echo unknown)
        there=$(debian_version "$suite" "tpm2-tools:$arch")
        [ "$version" = unknown ] || [ "$version" = "${there%-*}" ] ||
                die "the checkout is of version $version, $suite has $there"
        for test in "${tests[@]}"; do
                [ -f "$checkout/test/integration/$test.sh" ] || die "there is no test '$test'"
        done
        cp -r "$checkout/test" "$work/tree"
        debian_version "$suite" "libtss2-dev:$arch" > "$work/tree/tss-version"
        ;;
*) die "nothing is known of '$kind'" ;;
esac
echo "$kind ${tests[*]}" > "$work/tree/job"

# What the tests use, besides what a Debian system without these would not be one.
libraries=$(for name in libtss2-tcti-swtpm0 libtss2-tcti-tabrmd0; do
        debian_apt "$suite" apt-cache pkgnames "$name" | sort | tail -n 1
done | paste -sd ,)
export GUESTCRYPT_VM_PACKAGES=bash,coreutils,diffutils,findutils,grep,sed,mawk,procps,openssl,xxd,expect,bc,perl,python3-yaml
GUESTCRYPT_VM_PACKAGES+=,tpm2-abrmd,dbus-daemon,$libraries
root=$("$here/root.sh" "$suite" "$arch" "$GUESTCRYPT_VM_PACKAGES") || die "$root"

# results NAME: shows what the tests say, and keeps the results as NAME
results() {
        tee "$work/said"
        sed -n 's/^RESULT //p' "$work/said" > "$work/$1"
}

status=0
begin=$SECONDS
GUESTCRYPT_VM_TREE=$work/tree "$here/run.sh" "$suite" "$arch" vfio-user "$keeper" "$device" driver,foreign 2>&1 |
        results device || status=$?
guest_seconds=$((SECONDS - begin))
[ $status != 77 ] || exit 77
[ -s "$work/device" ] || die "there are no results"

# Of today: what this machine has may not know what a newer libc asks the kernel for. It is linked statically.
if [ "$arch" = s390x ]; then
        mkdir "$work/emulator"
        debian_unpack sid "$work/emulator" qemu-user:amd64 || die "qemu-user cannot be had"
fi
begin=$SECONDS
"$here/plain.sh" "$root" "$arch" "$work" 2>&1 | results plain || status=$?
plain_seconds=$((SECONDS - begin))
[ -s "$work/plain" ] || die "there are no results without a guest"

# summary WHERE SECONDS
summary() {
        echo "== $kind, $1: $(grep -c '^[^ ]* passed' "$work/$1") passed," \
                "$(grep -c '^[^ ]* failed' "$work/$1") failed, $(grep -c '^[^ ]* skipped' "$work/$1") skipped, $2 s"
        sed -n '/^[^ ]* \(failed\|skipped\)/s/^/    /p' "$work/$1"
}
summary device $guest_seconds || :
summary plain $plain_seconds || :

awk 'NR == FNR { plain[$1] = $2; next }
     $2 != plain[$1] { print "    " $1 ": " $2 " in the guest, " plain[$1] " without"; }
     $2 != "passed" && plain[$1] == "passed" { worse = 1 }
     END { exit worse }' "$work/plain" "$work/device" > "$work/difference" || status=1
if [ -s "$work/difference" ]; then
        echo "== what differs"
        cat "$work/difference"
fi
exit $status
