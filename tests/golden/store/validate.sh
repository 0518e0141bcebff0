#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What we accept and what we write is valid to an independent validator: xmllint with our schema, and, but for our own
# element, libvirt's with libvirt's. Usage: validate.sh schema|libvirt SOURCE-ROOT
set -eu
what=$1 root=$2
fixtures=$root/tests/fixtures/store
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0 n=0

case $what in
schema)
        command -v xmllint > /dev/null || { echo 'SKIP: no xmllint'; exit 77; }
        for f in "$fixtures"/good-*.xml "$fixtures"/foreign-*.xml "$fixtures"/good-*.out "$fixtures"/foreign-*.out; do
                n=$((n + 1))
                xmllint --nonet --noout --relaxng "$root/schemas/matrix.rng" "$f" 2> "$tmp/log" || { cat "$tmp/log"; failed=1; }
        done
        # and the schema alone refuses what is not of the form, so that others can use it
        for f in "$fixtures"/bad-id-[!t]*.xml "$fixtures"/bad-attr-*.xml "$fixtures"/bad-parent-*.xml "$fixtures"/bad-type-*.xml \
                "$fixtures"/bad-capability-*.xml "$fixtures"/bad-misplaced-*.xml "$fixtures"/bad-ap-config-*.xml "$fixtures"/bad-matrix-*.xml; do
                case $f in */bad-matrix-guest-control.xml) continue;; esac # beyond a pattern
                n=$((n + 1))
                ! xmllint --nonet --noout --relaxng "$root/schemas/matrix.rng" "$f" 2> /dev/null || { echo "$f validates"; failed=1; }
        done;;
libvirt)
        command -v virt-xml-validate > /dev/null || { echo 'SKIP: no virt-xml-validate'; exit 77; }
        virt-xml-validate "$fixtures/good-virsh-dumpxml.xml" nodedev > "$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
        for f in "$fixtures"/good-*.out; do
                grep -q '<uuid>' "$f" || continue # libvirt's schema wants the name that follows from it
                n=$((n + 1))
                grep -v '<guestcrypt:matrix ' "$f" > "$tmp/nodedev.xml"
                virt-xml-validate "$tmp/nodedev.xml" nodedev > "$tmp/log" 2>&1 || { echo "$f"; cat "$tmp/log"; failed=1; }
        done;;
esac
echo "$n files"
[ $n -gt 0 ] && exit $failed
