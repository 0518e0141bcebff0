#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# validate.sh TEST-VIRT-GUESTS SOURCE-ROOT - what we make of each fixture is valid by libvirt's own schema, and our metadata
# in it by ours
set -euo pipefail
guests=$1 top=$2
. "$top/tests/lib/common.sh"
command -v virt-xml-validate > /dev/null || skip "virt-xml-validate is not installed"
command -v xmllint > /dev/null || skip "xmllint is not installed"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/forms"
# a program for another machine has to be run by an emulator, which meson names
${MESON_EXE_WRAPPER-} "$guests" "$top/tests/fixtures/guests" "$tmp/forms" > "$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }

failed=0 n=0
for f in "$top"/tests/fixtures/guests/*.xml "$tmp"/forms/*.xml; do
        case $f in */fixtures/*/bad-* ) continue;; esac
        n=$((n + 1))
        virt-xml-validate "$f" domain > "$tmp/log" 2>&1 || { echo "$f"; cat "$tmp/log"; failed=1; }
        case $f in */ours-invalid* | */ours-twice*) continue;; esac
        xmllint --nonet --xpath "//*[local-name()='metadata']/*[namespace-uri()='urn:guestcrypt:guest:1']" "$f" \
                > "$tmp/ours.xml" 2> /dev/null || continue
        xmllint --nonet --noout --relaxng "$top/schemas/guest.rng" "$tmp/ours.xml" 2> "$tmp/log" || { echo "$f"; cat "$tmp/log"; failed=1; }
done
echo "$n files"
[ $n -gt 100 ] && exit $failed
