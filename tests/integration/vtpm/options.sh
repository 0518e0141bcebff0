#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# options.sh - guestcrypt-tpm's command line: what it says, what it refuses, and with which status
#
# usage: options.sh GUESTCRYPT-TPM MAN-PAGE
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/manual.sh"
program=$1 man=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# try STATUS TEXT ARGUMENT...: ends with STATUS and says TEXT
try() {
        local want=$1 text=$2 status=0
        shift 2
        "$program" "$@" > "$work/out" 2>&1 < /dev/null || status=$?
        [ $status = "$want" ] && grep -qF -- "$text" "$work/out" || {
                echo "FAILED: '$*': status $status instead of $want, or not '$text':"
                cat "$work/out"
                failed=1
        }
}

try 0 'usage: guestcrypt-tpm' --help
try 0 'vfio-user-pci' --help
try 0 'guestcrypt-tpm 0' --version
try 2 'no VMM to serve'
try 2 'no TPM' --socket="$work/vtpm"
try 2 'unrecognized option' --nonsense
try 2 'unexpected argument' --once extra
try 2 'unknown value' --front=virtio
try 2 'unknown value' --platform=maybe
try 2 'not a number' --deadline=soon
try 2 'not a number' --deadline=-1
try 2 'not a number' --deny=0x123,x
try 2 'too many commands' --deny="$(seq -s, 1 65)"
try 2 'not an open descriptor' --tpm-fd=77
try 1 'No such file' --socket="$work/vtpm" --tpm="$work/none"
try 1 'File name too long' --socket="$work/vtpm" --tpm="$(printf '%0200d' 0)"

# what it reports is for people, unless stderr is the journal's
says() {
        grep -qE "$1" "$work/out" || {
                echo "FAILED: it does not say '$1', but:"
                cat "$work/out"
                failed=1
        }
}
says '^guestcrypt-tpm\[[0-9]+\]: '
exec 3> "$work/journal"
JOURNAL_STREAM=$(stat -L -c %d:%i /dev/fd/3) "$program" --socket="$work/vtpm" --tpm="$work/none" 2>&3 > /dev/null && failed=1
exec 3>&-
mv "$work/journal" "$work/out"
says '^<3>'
JOURNAL_STREAM=1:1 try 1 ']: ' --socket="$work/vtpm" --tpm="$work/none"

for user in -1 4294967295 18446744073709551616 nobody-is-called-so 12x; do
        try 1 'cannot become user' --socket="$work/vtpm" --tpm-fd=0 --user="$user"
done

# A number is a number, also where somebody is called so.
if [ "$(id -u)" = 0 ]; then
        { cat /etc/passwd && echo '4294967295:x:1:1::/:'; } > "$work/passwd"
        printf '%s\n' '#!/bin/sh' "exec unshare --mount sh -c 'mount --bind $work/passwd /etc/passwd && exec \"\$@\"' sh $program \"\$@\"" > "$work/named"
        chmod +x "$work/named"
        known=$program program=$work/named
        try 1 'cannot become user' --socket="$work/vtpm" --tpm-fd=0 --user=4294967295
        program=$known
fi

# each option is in the help and on the page
for option in $("$program" --help | grep -oE -- '--[a-z-]+' | sort -u); do
        grep -qF -- "${option//-/\\-}" "$man" || {
                echo "FAILED: $option is not in $man"
                failed=1
        }
done

# what the help says to do is what the page says, line for line
for example in by-hand qemu-amd64; do
        while IFS= read -r line; do
                "$program" --help | grep -xE "  +${line:+.*}" | grep -F -- "${line#"${line%%[! ]*}"}" > /dev/null || {
                        echo "FAILED: the help has no line '$line'"
                        failed=1
                }
        done < <(manual_example "$man" "$example")
done
exit $failed
