# SPDX-License-Identifier: LGPL-2.1-or-later
#
# story.sh - telling and showing; sourced by bash, after common.sh

if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then
        bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
else
        bold='' dim='' plain=''
fi

tell() {
        printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

# run STATUS TEXT COMMAND: shows the command and what it says; both have to be as expected, TEXT a pattern that occurs
run() {
        local status=0 out

        printf '%s# %s%s\n' "$dim" "$3" "$plain"
        out=$(bash -c "$3" 2>&1) || status=$?
        [ -z "$out" ] || printf '%s\n' "$out"
        [ $status = "$1" ] || die "the exit status is $status and should have been $1"
        # shellcheck disable=SC2053
        [[ $out == *$2* ]] || die "this should have said '$2'"
        [ "$1" = 0 ] || printf '%s(exit status %d)%s\n' "$dim" $status "$plain"
}
