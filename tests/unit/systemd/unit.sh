#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# unit.sh - systemd finds nothing wrong with the unit, and not too much that it may do
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/lib/common.sh"
need systemd-analyze

t=$(mktemp -d)
trap 'rm -r "$t"' EXIT
# the programs are not installed yet; nothing else may differ
units=(guestcryptd.service guestcrypt-tpm-job@.service guestcrypt-swtpm@.service guestcrypt-tpm@.service)
for unit in "${units[@]}"; do
        sed "s#^ExecStart=[^ ]*/#ExecStart=$build/daemon/#" "$build/systemd/$unit" > "$t/$unit"
done
install -m 755 /dev/null "$t/mdevctl" # the other one's program need not be here
sed "s#^ExecStart=mdevctl#ExecStart=$t/mdevctl#" "$top/systemd/guestcrypt-mdevctl.service" > "$t/guestcrypt-mdevctl.service"
for unit in "${units[@]}" guestcrypt-mdevctl.service; do
        out=$(systemd-analyze verify --man=no "$t/${unit/@/@x}" 2>&1) || { echo "$out"; exit 1; }
        ! grep -F "$unit" <<< "$out" || exit 1
done

systemd-analyze security --help | grep -e --offline > /dev/null || skip "systemd-analyze cannot judge files"
for unit in "${units[@]}"; do
        systemd-analyze security --offline=true --threshold=25 --no-pager "$t/${unit/@/@x}" > "$t/out" || { cat "$t/out"; exit 1; }
        tail -n 1 "$t/out"
done
