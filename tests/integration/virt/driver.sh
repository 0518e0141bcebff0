#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# driver.sh VIRT-DRIVE GUESTCRYPTD-VIRT GUESTCRYPTD SOURCE-ROOT - libvirt's test driver through the real child process
set -euo pipefail
export DRIVE=$1 CHILD=$2
daemon=$3 top=$4
. "$top/tests/lib/common.sh"
. "$top/tests/integration/virt/lib.sh"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# the daemon never sees libvirt
ldd "$daemon" > "$tmp/ldd"
if grep libvirt "$tmp/ldd"; then echo 'guestcryptd is linked with libvirt' >&2; exit 1; fi
ldd "$CHILD" > "$tmp/ldd"
grep -F libvirt.so "$tmp/ldd" > /dev/null

# alone it says what it is
"$CHILD" 2> "$tmp/log" && exit 1
grep 'part of guestcryptd' "$tmp/log" > /dev/null

one=6695eb01-f6a4-8304-79aa-97f2502e1930 two=6695eb01-f6a4-8304-79aa-97f2502e1931
mdev=669d9b23-fe1b-4ecb-be08-a2fabca99b71 other=669d9b23-fe1b-4ecb-be08-a2fabca99b72
tpm=0d5f1c5e-33f1-4c4e-9b0e-1d7a6f0c2b11
guest() {
        echo "<domain type='test'><name>$1</name><uuid>$2</uuid><memory>65536</memory>
          <os><type arch='$3'>hvm</type></os><devices/></domain>"
}
{ echo '<node>'; guest one $one s390x; guest two $two x86_64; echo '</node>'; } > "$tmp/node.xml"

drive "test://$tmp/node.xml"
wait_for up
wait_for listed
[ "$(grep -c -e "^guest $one one running config" -e "^guest $two two running config" "$tmp/said")" = 2 ]

ask 'outcome done config*next-start*' attach-matrix $one $mdev payments config
grep -F "guest $one one running config[ mdev=$mdev matrix=payments ] live[ ]" "$tmp/said" > /dev/null
ask 'outcome done next-start: ' attach-matrix $one $mdev payments config
ask 'outcome refused*already, and can have only one matrix' attach-matrix $one $other payments config
ask 'outcome unsupported*x86_64*' attach-matrix $two $mdev - config
# the test driver has no hot plug, so that it is said no, and the definition is as it was
ask 'outcome done config: ' detach-matrix $one - config
ask 'outcome libvirt: *not supported*virDomainAttachDevice*' attach-matrix $one $mdev payments live
ask 'outcome done config next-start: *' attach-matrix $one $mdev - config
ask 'outcome done config: *' detach-matrix $one $mdev config
ask 'outcome done: *' detach-matrix $one - config

# what a TPM takes is decided by the emulator, which the test driver has none of
ask 'outcome unsupported: *vfio-user-pci*no other TPM*' attach-tpm $one t - $tpm
ask 'outcome unsupported: *vfio-user-pci*crb and tis would work*' attach-tpm $two t virtio $tpm
ask 'outcome done config next-start crb: ' attach-tpm $two t - $tpm
ask 'outcome refused*detach it first' attach-tpm $two t tis $tpm
ask 'outcome done next-start crb: ' attach-tpm $two t - $tpm
ask 'outcome done config: ' detach-tpm $two
ask 'outcome no-such-guest*' detach-tpm $tpm
ask 'outcome done*' refresh $one

# killed, it comes back, and nothing is lost or told twice as gone
: > "$tmp/said"
kill -9 "$(pgrep -P "$drive_pid")"
wait_for 'down guestcryptd-virt has ended'
wait_for up
wait_for listed
[[ $(grep -c '^guest' "$tmp/said") = 2 && $(grep -c '^gone' "$tmp/said") = 0 ]]
ask 'outcome done config next-start: *' attach-matrix $one $mdev - config
drive_end
