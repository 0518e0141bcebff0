# SPDX-License-Identifier: LGPL-2.1-or-later
#
# lib.sh - for the tests beside it: virt_drive as a coprocess, and what it says

# drive URI [DEADLINE-MS]: starts it. Wants $DRIVE and $CHILD, the programs.
drive() {
        : > "$tmp/said"
        coproc DRIVE_IO { exec "$DRIVE" "$CHILD" "$1" "${2:-20000}" 2> "$tmp/drive.log"; }
        drive_pid=$DRIVE_IO_PID
        exec {drive_in}>&"${DRIVE_IO[1]}" {drive_out}<&"${DRIVE_IO[0]}"
        eval "exec ${DRIVE_IO[1]}>&- ${DRIVE_IO[0]}<&-"
}

tell() {
        echo "$*" >&"$drive_in"
}

# wait_for PATTERN [SECONDS]: reads on until a line matches; it is then in $line.
wait_for() {
        local until=$((SECONDS + ${2:-120}))

        while IFS= read -r -t $((until > SECONDS ? until - SECONDS : 1)) -u "$drive_out" line; do
                echo "$line" >> "$tmp/said"
                # shellcheck disable=SC2053
                [[ $line != $1 ]] || return 0
        done
        echo "'$1' did not come. What came:" >&2
        cat "$tmp/said" "$tmp/drive.log" >&2
        exit 1
}

# ask PATTERN CALL...: a call and its outcome.
ask() {
        local wanted=$1

        shift
        tell "$@"
        wait_for 'outcome *'
        # shellcheck disable=SC2053
        [[ $line == $wanted ]] || { echo "$*: '$line', not '$wanted'" >&2; exit 1; }
}

drive_end() {
        exec {drive_in}>&- {drive_out}<&-
        wait "$drive_pid"
}
