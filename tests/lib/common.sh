# SPDX-License-Identifier: LGPL-2.1-or-later
#
# common.sh - what the test scripts and tools share; to be sourced by bash with top= set to the source directory
#
# Tests that cannot run on a machine call skip, which is exit status 77 for meson; the reason is the last line printed,
# and tools/check shows it.

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/guestcrypt

die() {
        echo "${0##*/}: $*" >&2
        exit 1
}

skip() {
        echo "SKIP: $*"
        exit 77
}

# skip_sanitized PROGRAM REASON
skip_sanitized() {
        if ldd "$1" | grep -e libasan -e libtsan -e libclang_rt > /dev/null; then
                skip "$2"
        fi
}

need_root() {
        [ "$(id -u)" = 0 ] || skip "needs root"
}

# need PROGRAM...: a missing one skips the test
need() {
        local program

        for program; do
                command -v "$program" > /dev/null || skip "'$program' is not installed"
        done
}

# until_true SECONDS COMMAND...: for the few things that nothing announces (a socket of a foreign daemon, say). A machine that is
# busy with other things has six times as long.
until_true() {
        local deadline=$((${EPOCHREALTIME/[.,]/} + $1 * 6000000))

        shift
        until "$@" > /dev/null 2>&1; do
                [ "${EPOCHREALTIME/[.,]/}" -lt $deadline ] || return 1
                sleep 0.02
        done
}

# once DIRECTORY COMMAND...: makes DIRECTORY by running COMMAND with a new empty one as its last argument, unless it is
# there. Concurrent callers wait for the first; a failed or killed attempt leaves nothing that is mistaken for it.
once() {
        local dir=$1 lock

        shift
        [ ! -d "$dir" ] || return 0
        mkdir -p "${dir%/*}"
        exec {lock}> "$dir.lock"
        flock $lock
        if [ ! -d "$dir" ]; then
                rm -rf "$dir.new"
                mkdir "$dir.new"
                "$@" "$dir.new" || { rm -rf "$dir.new"; return 1; }
                mv "$dir.new" "$dir"
        fi
        exec {lock}>&-
}

# With "set -e" a test ends at the first command that fails: this says which.
trap 'echo "${0##*/}: line $LINENO: failed: $BASH_COMMAND" >&2' ERR
