#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# guest.sh - guestcryptctl's verbs about guests against the daemon, its process for libvirt, and libvirt's test driver, which has the guests of a
# file: attached, seen, detached; what is refused, and what that leaves
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/integration/bus/lib.sh"
need swtpm swtpm_setup jq
in_namespace "$@"
PATH=$build/drivers/virtio-tpm:$PATH
[ -d /usr/libexec ] || skip "/usr/libexec is not there"
mount -t tmpfs tmpfs /usr/libexec # ours alone; where the daemon looks for its process for libvirt
mkdir /usr/libexec/guestcrypt
ln -s "$build/daemon/virt/guestcryptd-virt" /usr/libexec/guestcrypt/guestcryptd-virt

json() {
        local filter=$1

        shift
        "$@" > "$b/json" || :
        jq -e "$filter" "$b/json" > /dev/null || { echo "FAILED: $*: not $filter:"; cat "$b/json"; failures=$((failures + 1)); }
}
guest() { # NAME LAST-DIGIT ARCH MACHINE STATE (1: running, 5: off)
        echo "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>$1</name>
<uuid>c2010203-0405-0607-0809-0a0b0c0d0e0$2</uuid><memory>65536</memory><os><type arch='$3' machine='$4'>hvm</type></os>
<test:runstate>$5</test:runstate></domain>"
}
libvirt_is() {
        [ "$(ctl --json status | jq -r .libvirt)" = "$1" ]
}

bus_start
sim_start --profile=small
{
        echo '<node>'
        guest payments-1 1 s390x s390-ccw-virtio 5
        guest payments-2 2 s390x s390-ccw-virtio 5
        guest web 3 x86_64 q35 1
        guest 'web 2' 4 x86_64 q35 5
        echo '</node>'
} > "$b/node.xml"
printf '[Manager]\nLibvirtURI=test://%s\n' "$b/node.xml" > "$b/root/etc/guestcrypt/guestcrypt.conf"
daemon_start
until_true 20 libvirt_is connected || die "libvirt's test driver cannot be reached: $(cat "$b/daemon.log")"
expect 0 '^libvirt +connected$' ctl status
expect 0 '^guests +4$' ctl status
json '[.[] | [.name, .state, .persistent, .active]] == [["payments-1", "shutoff", true, false], ["payments-2", "shutoff", true, false],
      ["web", "running", true, true], ["web 2", "shutoff", true, false]]' ctl --json guest-list
expect 1 "there is no guest 'nobody'" ctl guest-show nobody
expect 0 '^name +web 2$' ctl guest-show c2010203-0405-0607-0809-0a0b0c0d0e04

# ---- a matrix ----
expect 0 'is defined' ctl define m1 --adapters 4 --domains 6
expect 0 'is defined' ctl define m2 --adapters 5 --domains 6
expect 0 '^Matrix m1 is attached to guest payments-1\.$' ctl guest-attach-matrix payments-1 m1
expect 0 '^Matrix m1 is attached' ctl guest-attach-matrix payments-1 m1 # it is so already
json '.matrix == "m1" and .live_matrix == ""' ctl --json guest-show payments-1
expect 0 '^payments-1  shutoff  m1 ' ctl guest-list
expect 0 '^guest +payments-1, shutoff$' ctl show m1
expect 0 '^m1 .* payments-1 ' ctl list
expect 3 "'payments-1'" ctl guest-attach-matrix payments-2 m1
expect 1 "has 'm1', and can have one matrix only" ctl guest-attach-matrix payments-1 m2
json '.error.name == "org.guestcrypt1.Error.Exists"' ctl --json guest-attach-matrix payments-1 m2
expect 1 's390x' ctl guest-attach-matrix web m2
expect 1 "there is no matrix 'm3'" ctl guest-attach-matrix payments-1 m3
expect 3 "guest 'payments-1' names matrix 'm1'" ctl undefine m1
json '.matrix == ""' ctl --json guest-show payments-2
json '.owner == ""' ctl --json show m2
expect 0 '^The matrix is detached from guest payments-1\.$' ctl guest-detach-matrix payments-1
expect 1 'has no matrix' ctl guest-detach-matrix payments-1
json '.matrix == ""' ctl --json guest-show payments-1
expect 0 'is undefined' ctl undefine m1

# ---- a TPM ----
expect 0 '^TPM web \(crb\) is attached to guest web\.$' ctl guest-attach-tpm web
json '.tpm == "web" and .tpm_model == "crb" and .live_tpm == "" and (.notes[0] | test("next start"))' ctl --json guest-attach-tpm web
expect 0 '^TPM at start +web \(crb\)$' ctl guest-show web
expect 0 '^TPM now +-$' ctl guest-show web
expect 0 '^web   defined  -      web    -$' ctl tpm-list
expect 3 "guest 'web' names this TPM" ctl tpm-undefine web --wipe
expect 3 "is meant for guest 'web'" ctl guest-attach-tpm 'web 2' --tpm web
expect 1 'no TPM can be defined as .*name one with --tpm' ctl guest-attach-tpm 'web 2'
expect 1 "there is no TPM 'web-2'" ctl guest-attach-tpm 'web 2' --tpm web-2
expect 0 'web-2 is defined' ctl tpm-define web-2 --no-certificates
expect 0 '^TPM web-2 \(tis\) is attached to guest web 2\.$' ctl guest-attach-tpm 'web 2' --tpm web-2 --model tis
json '.guest == "web 2"' ctl --json tpm-show web-2
# a TPM that was defined for a guest that cannot have it is not left behind
expect 1 'QEMU 10\.1.*payments-1., which was made for this, is undefined again' ctl guest-attach-tpm payments-1
expect 1 "there is no TPM 'payments-1'" ctl tpm-show payments-1
expect 0 '^The TPM is detached from guest web\.$' ctl guest-detach-tpm web
json '.tpm == "" and .tpm_model == ""' ctl --json guest-show web
expect 0 'is undefined' ctl tpm-undefine web --wipe
expect 0 'is detached' ctl guest-detach-tpm 'web 2'
expect 1 'has no TPM' ctl guest-detach-tpm 'web 2'
json '.state == "defined" and .guest == ""' ctl --json tpm-show web-2

# ---- bad bytes ----
expect 1 'there is no guest' ctl guest-show $'we\nb'
expect 2 'no UTF-8' ctl guest-show $'we\xff'

# ---- a host without libvirt ----
kill "$daemon_pid"
wait "$daemon_pid" || :
mount -t tmpfs tmpfs /run # where its sockets would be
: > "$b/root/etc/guestcrypt/guestcrypt.conf"
daemon_start
waits() {
        ctl guest-show nobody > "$b/said" 2>&1 || :
        grep 'none runs on this host' "$b/said" > /dev/null
}
until_true 20 waits || { echo "FAILED: not said that there is no libvirt: $(cat "$b/said")"; failures=1; }
expect 1 '' pgrep -P "$daemon_pid" -f guestcryptd-virt
# the promise is of a daemon that does nothing, with all its processes
if ! ldd "$build/daemon/guestcryptd" | grep libasan > /dev/null; then
        size=0
        for pid in "$daemon_pid" $(pgrep -P "$daemon_pid"); do
                size=$((size + $(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup")))
        done
        echo "without libvirt: $size KiB"
        [ "$size" -lt 10240 ] || { echo "FAILED: that is more than 10 MiB"; failures=1; }
fi
finish
