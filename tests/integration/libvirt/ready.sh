#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# ready.sh - the example of an orchestrator's hook: it waits until a guest's matrix is started, and lists what is in the way
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/libvirt/lib.sh"
on_devhost '' "$@"
ready=$top/hooks/examples/guest-ready

matrix m1 4 > /dev/null
virsh define "$guests/payments-1.xml" > /dev/null
virsh define "$guests/payments-2.xml" > /dev/null
guestcryptctl guest-attach-matrix payments-1 m1

# is JQ-EXPRESSION: of the document that it has printed
is() {
        [ "$(jq "$1" /run/document)" = true ] || die "not so: $1: $(cat /run/document)"
}
# is_defined MATRIX: and not started; its mdev goes before guestcryptd knows that
is_defined() {
        [ "$(guestcryptctl --json show "$1" | jq -r .state)" = defined ]
}
# ready STATUS ARGUMENT...
ready() {
        local status=0

        "$ready" "${@:2}" > /run/document || status=$?
        [ $status = "$1" ] || die "guest-ready ${*:2}: status $status, not $1: $(cat /run/document)"
}

expect 2 'usage' "$ready"
expect 1 'NoSuchGuest|no guest' "$ready" nosuch 1
ready 1 payments-1 0
is '.guest == "payments-1" and .ready == false and .matrix == { name: "m1", state: "defined" } and .conflicts == []'
ready 0 payments-2 0
is '.ready and .matrix == null and .tpm == null'

"$ready" payments-1 60 > /run/document &
pid=$!
virsh start payments-1 > /dev/null
wait $pid || die "it did not see the start: $(cat /run/document)"
is '.ready and .matrix.state == "started"'
virsh destroy payments-1 > /dev/null
until_true 20 is_defined m1 || die "m1 is not stopped: $(guestcryptctl --json show m1)"

theirs=11111111-1111-1111-1111-111111111111
mdevctl define -u $theirs -p matrix -t vfio_ap-passthrough
mdevctl modify -u $theirs --addattr=assign_adapter --value=4
mdevctl modify -u $theirs --addattr=assign_domain --value=0x47
mdevctl start -u $theirs
ready 3 payments-1 60
is '.ready == false and .conflicts[0].apqn == "04.0047" and (.conflicts[0].owner | contains("'$theirs'"))'
