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
# the program is not installed yet; nothing else may differ
sed "s#^ExecStart=.*#ExecStart=$build/daemon/guestcryptd#" "$build/systemd/guestcryptd.service" > "$t/guestcryptd.service"
out=$(systemd-analyze verify --man=no "$t/guestcryptd.service" 2>&1) || { echo "$out"; exit 1; }
! grep -F guestcryptd.service <<< "$out" || exit 1

systemd-analyze security --help | grep -e --offline > /dev/null || skip "systemd-analyze cannot judge files"
systemd-analyze security --offline=true --threshold=25 --no-pager "$t/guestcryptd.service" > "$t/out" || { cat "$t/out"; exit 1; }
tail -n 1 "$t/out"
