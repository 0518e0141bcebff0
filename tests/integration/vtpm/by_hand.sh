#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# by_hand.sh - what guestcrypt-tpm(8) tells to do by hand, word for word, then commands over both fronts
#
# usage: by_hand.sh GUESTCRYPT-TPM LOAD
#
# swtpm_setup's certificate authority lives in /var/lib: there is another one for this test. QEMU's part of the page is
# run by the suite vm.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
. "$top/tests/lib/manual.sh"
need_root
need swtpm swtpm_setup unshare

if [ "${1-}" != --inside ]; then
        libraries=$(ldd "$1")
        case $libraries in
        *libasan* | *libtsan* | *libclang_rt*) skip "a sanitizer needs what the manual's sandbox takes away" ;;
        esac
        work=$(mktemp -d)
        status=0
        unshare --mount --pid --fork --kill-child --mount-proc "$0" --inside "$(realpath "$1")" "$(realpath "$2")" "$work" ||
                status=$?
        rm -rf "$work"
        exit $status
fi

program=$2 load=$3 work=$4
page=$top/man/guestcrypt-tpm.8
mount -t tmpfs lib /var/lib
mkdir -m 755 /var/lib/swtpm-localca
! id tss > /dev/null 2>&1 || chown tss /var/lib/swtpm-localca
cd "$work"
PATH=${program%/*}:$PATH

manual_example "$page" by-hand > script
bash -ec '. ./script; echo $! > device.pid' > log 2>&1 || { cat log; die "the manual's commands fail"; }
# this one is made once the other is listened at, which is not yet so when it can be seen
until_true 60 [ -S control.sock ] || { cat log; die "the device does not start"; }
echo end | "$load" vtpm.sock vfio-user || { cat log; die "no commands over vfio-user"; }

# The same with what the page says of vhost-user.
kill "$(cat device.pid)"
sed -n 's/^\(guestcrypt-tpm .*\) &$/\1 --front=vhost-user \&/p' script > again
[ -s again ] || die "the manual does not start guestcrypt-tpm"
rm vtpm.sock control.sock
bash -ec '. ./again' >> log 2>&1
until_true 60 [ -S control.sock ] || { cat log; die "the device does not start over vhost-user"; }
echo end | "$load" vtpm.sock vhost-user || { cat log; die "no commands over vhost-user"; }

# The guest's definition is one for libvirt.
schema=/usr/share/libvirt/schemas/domain.rng
manual_example "$page" libvirt > domain.xml
if command -v xmllint > /dev/null && [ -e $schema ]; then
        sed -i 's,^<domain.*,&<name>guest</name><memory>1</memory><os><type>hvm</type></os>,' domain.xml
        xmllint --noout --relaxng $schema domain.xml || die "libvirt would not take the manual's guest"
fi
