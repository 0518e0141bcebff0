#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# files.sh - each source file names its licence first, ends its last line, has no blanks at line ends, stays below
# a readable length, and knows nothing of the machine it was written on
set -euo pipefail
top=$(cd "${0%/*}/../.." && pwd)
. "$top/tests/lib/common.sh"
cd "$top"
need git

longest=1000 # lines of a C file; more is two purposes
failed=0
# A checkout lists what is committed, or about to be; an unpacked archive all that there is.
if git rev-parse --is-inside-work-tree > /dev/null 2>&1; then
        mapfile -t files < <(git ls-files -co --exclude-standard)
else
        mapfile -t files < <(find . -type f ! -path './build*' | sed 's#^\./##')
fi

sources=() code=() scripts=()
for file in "${files[@]}"; do
        [ -f "$file" ] || continue
        case $file in
        LICENSES/* | tests/*fixtures/* | tests/*corpus* | *.ref | *.json | *.patch) continue ;;
        */debian/changelog | */debian/copyright | */debian/source/format) continue ;;
        drivers/tpm_virtio/*) ;; # the kernel's style: checkpatch.sh
        *.[ch]) code+=("$file") ;;
        esac
        sources+=("$file")
        case $file in *.sh | tools/*) scripts+=("$file") ;; esac
done

# complain ABOUT COMMAND...: each line that the command prints is wrong
complain() {
        local found

        found=$("${@:2}") || :
        [ -n "$found" ] || return 0
        echo "$1:"
        echo "$found"
        failed=1
}

complain "no SPDX line at the top" awk '
        FNR == 1 { if (file != "" && !seen) print file; file = FILENAME; seen = 0 }
        FNR <= 3 && /SPDX-License-Identifier: / { seen = 1 }
        END { if (!seen) print file }' "${sources[@]}"
complain "the last line does not end" grep -LzP '\n\z' "${sources[@]}"
complain "blanks at the end of a line" grep -nHP '[ \t]+$' "${sources[@]}"
[ ${#code[@]} -eq 0 ] || {
        complain "tabs" grep -nHP '^\t' "${code[@]}"
        complain "more than $longest lines" awk -v max=$longest 'FNR == max + 1 { print FILENAME }' "${code[@]}"
}

# A reader that leaves early kills the writer with SIGPIPE now and then, and pipefail makes that the answer.
complain "a pipe into a reader that does not read to the end (grep -q, head): > /dev/null, sed -n 1p" \
        grep -nHE '^[^#]*[|] *(grep -[a-zA-Z]*q|head )' "${scripts[@]}"

# Where this checkout lies and what apt here asks are this machine's own affair. In pieces, so that this file is not found.
words='TO''DO|FIX''ME|XX''X:'
above=$(cd "$(git rev-parse --show-toplevel)/.." && pwd)
case $above in
/ | /home | /tmp | /root | /src | /opt | /srv | /mnt | /run | /dev/shm | /etc | /usr | /usr/src | /var | /var/tmp | /var/lib) ;;
*) words+="|$above/" ;;
esac
for host in $(apt-get indextargets --format '$(REPO_URI)' 2> /dev/null | sed -n 's#^[a-z+]*://\([^/:]*\).*#\1#p' | sort -u); do
        words+="|${host//./[.]}"
done
! printf '%s\0' "${files[@]}" | grep -zvE '^(LICENSES/|tests/.*(corpus|fixtures))' |
        xargs -0 grep -nHE "$words" 2> /dev/null || failed=1
exit $failed
