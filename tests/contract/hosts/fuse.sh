#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# fuse.sh - plays scripts on the simulated host that guestcrypt-sim mounts
#
# usage: fuse.sh GUESTCRYPT-SIM CONTRACT-FILES CONTRACT-PROFILE DIALECT SCRIPT...      what is expected must come out
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/contract/hosts}
. "$top/tests/lib/common.sh"

if [ "${GUESTCRYPT_CONTRACT:-}" != inside ]; then
        [ -w /dev/fuse ] || skip "there is no /dev/fuse"
        need_root
        unshare -mn --propagation private true || skip "there are no namespaces"
        GUESTCRYPT_CONTRACT=inside exec unshare -mn --propagation private "$0" "$@"
fi
sim=$1 files=$2 profile=$3 dialect=$4
shift 4

work=$(mktemp -d)
server=
stop() {
        [ -z "$server" ] || { kill "$server" && wait "$server"; } 2> /dev/null || :
        server=
}
tidy() {
        stop
        umount -l "$work/sys" 2> /dev/null || :
        rm -rf "$work"
}
trap tidy EXIT
mkdir "$work/sys"
mkfifo "$work/ready"
exec {ready}<> "$work/ready"

operations=0 differences=0
for script; do
        name=${script##*/}
        name=${name%.ops}
        part=0
        : > "$work/got"
        while IFS= read -r boot <&$boots; do
                "$profile" "$boot" > "$work/host.profile"
                "$sim" --profile="$work/host.profile" --dialect="$dialect" --uevents --ready-fd=$ready "$work/sys" &
                server=$!
                read -r -t 20 -u $ready _ || die "the simulated host does not start"
                "$files" --part=$part "$script" "$work/sys" sim >> "$work/got"
                stop
                part=$((part + 1))
        done {boots}< <("$files" --boots "$script")
        # FUSE has its own opinion of whether a signal ends a wait.
        sed 's/^\tblocked [DS]$/\tblocked/' "$top/tests/fixtures/contract/$dialect/$name" > "$work/expected"
        sed -i 's/^\tblocked [DS]$/\tblocked/' "$work/got"
        operations=$((operations + $(grep -cvE '^(	|section|boot|uevents)' "$work/got")))
        if ! diff -u --label expected --label got "$work/expected" "$work/got" > "$work/diff"; then
                echo "$name is not as expected:"
                sed -n 1,60p "$work/diff"
                differences=$((differences + $(grep -c '^@@' "$work/diff")))
        fi
done
echo "contract fuse-$dialect: $operations operations, 0 sequences, $differences differences"
[ $differences = 0 ]
