#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# random.sh - random sequences of operations on the simulated host and on the real driver; a difference is made short
#
# usage: random.sh 7.2|6.12 CONTRACT-RANDOM CONTRACT-SIM COUNT [SEED [LENGTH]]
#
# All sequences are played in two boots, side by side. Of each sequence that comes out differently (the first three) as
# many operations are taken away as can be, with a boot for each round, and what is left is printed as a script.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/contract/hosts}
. "$top/tests/lib/common.sh"
. "$here/lib.sh"

series=$1 random=$2 sim=$3 count=$4 seed=${5:-1} length=${6:-16}
boots=2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
said=$("$top/tests/vm/ap-kernel/kernel.sh" "$series") || status=$?
[ $status != 77 ] || { echo "${said##*$'\n'}"; exit 77; }
[ $status = 0 ] || die "there is no kernel $series: $said"
make_player

# play_both SCRIPT: what comes out is in SCRIPT.sim and SCRIPT.driver
play_both() {
        "$sim" "$1" "$series" > "$1.sim"
        play_on_kernel "$series" "" "$1" > "$1.driver"
}

# differing SCRIPT: the numbers of its sequences that are not the same
differing() {
        # One line a sequence.
        for host in sim driver; do
                awk '/^section sequence / { if (n) print line; n = $3; line = n }
                     n { line = line "\001" $0 }
                     END { if (n) print line }' "$1.$host" > "$1.$host.lines"
        done
        { diff "$1.sim.lines" "$1.driver.lines" || :; } | sed -n 's/^[<>] \([0-9]*\).*/\1/p' | sort -nu
}

# sequence NUMBER SCRIPT: its operations
sequence() {
        awk -v n="$1" '/^section sequence / { on = $3 == n; next } on' "$2" | sed '/^reset$/,$d' | sed '$d'
}

# Tries each part that can be left out, all of one size in one boot, until nothing can.
shorten() {
        local lines left from best number chunk size

        mapfile -t lines < "$1"
        size=$(((${#lines[@]} + 1) / 2))
        while [ $size -gt 0 ]; do
                number=0
                printf '%s\n' boot 'uevents digest' > "$work/try"
                for ((from = 0; from < ${#lines[@]}; from += size)); do
                        number=$((number + 1))
                        left=("${lines[@]:0:from}" "${lines[@]:from+size}")
                        printf '%s\n' "section sequence $number" "${left[@]}" observe reset >> "$work/try"
                done
                play_both "$work/try"
                best=$(differing "$work/try" | sed -n 1p)
                if [ -n "$best" ]; then
                        from=$(((best - 1) * size))
                        lines=("${lines[@]:0:from}" "${lines[@]:from+size}")
                        [ $size -le ${#lines[@]} ] || size=${#lines[@]}
                else
                        size=$((size / 2))
                fi
        done
        printf '%s\n' boot "${lines[@]}" observe reset > "$work/short"
        play_both "$work/short"
        printf '%s\n' "${lines[@]}"
        echo "--- the simulated host, +++ the driver of Linux $(cat "$said/version")"
        show_diff "$work/short.sim" "$work/short.driver"
}

for ((i = 0; i < boots; i++)); do
        "$random" $((seed * boots + i)) $((count / boots)) "$length" > "$work/all.$i"
        play_both "$work/all.$i" 2> "$work/log.$i" &
        players[i]=$!
done
operations=0 differences=0
for ((i = 0; i < boots; i++)); do
        wait "${players[i]}" || { cat "$work/log.$i"; die "the guest did not get to the end"; }
        operations=$((operations + $(count_operations "$work/all.$i.driver")))
        for number in $(differing "$work/all.$i"); do
                differences=$((differences + 1))
                [ $differences -le 3 ] || continue
                echo "seed $seed, part $i: sequence $number is not the same on both:"
                sequence "$number" "$work/all.$i" > "$work/long"
                shorten "$work/long"
        done
done
echo "contract random-$series: $operations operations, $((count / boots * boots)) sequences, $differences differences"
[ $differences = 0 ]
