#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# driver.sh - plays scripts on the real driver, each on a kernel booted for it
#
# usage: driver.sh 7.2|6.12 CONTRACT-FILES SCRIPT...      what is expected must come out
#
# With REGENERATE=1 in the environment it becomes what is expected.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/contract/hosts}
. "$top/tests/lib/common.sh"
. "$here/lib.sh"

series=$1 player=$2
shift 2
expected=$top/tests/fixtures/contract/$series

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
said=$("$top/tests/vm/ap-kernel/kernel.sh" "$series") || status=$?
[ $status != 77 ] || { echo "${said##*$'\n'}"; exit 77; }
[ $status = 0 ] || die "there is no kernel $series: $said"
make_player

# Two at a time; those of one script are put together in the order of its boots.
jobs=()
for script; do
        name=${script##*/}
        name=${name%.ops}
        part=0
        while IFS= read -r boot; do
                (play_on_kernel "$series" "$boot" "$script" --part=$part > "$work/$name.$part" 2> "$work/$name.$part.log" ||
                        { cat "$work/$name.$part.log"; touch "$work/$name.failed"; }) &
                jobs+=($!)
                part=$((part + 1))
                if [ ${#jobs[@]} -ge 2 ]; then
                        wait "${jobs[0]}"
                        jobs=("${jobs[@]:1}")
                fi
        done < <("$player" --boots "$script")
        echo $part > "$work/$name.parts"
done
wait

operations=0 differences=0
for script; do
        name=${script##*/}
        name=${name%.ops}
        [ ! -e "$work/$name.failed" ] || die "$name: the guest did not get to the end"
        for ((part = 0; part < $(cat "$work/$name.parts"); part++)); do
                cat "$work/$name.$part"
        done > "$work/$name"
        operations=$((operations + $(count_operations "$work/$name")))
        if [ -n "${REGENERATE:-}" ]; then
                cp "$work/$name" "$expected/$name"
        elif ! cmp -s "$expected/$name" "$work/$name"; then
                echo "$name is not as expected on Linux $(cat "$said/version"):"
                show_diff "$expected/$name" "$work/$name"
                differences=$((differences + $(grep -c '^@@' "$work/diff")))
        fi
done
echo "contract driver-$series: $operations operations, 0 sequences, $differences differences"
[ $differences = 0 ]
