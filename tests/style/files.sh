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
complain() {
        echo "$*"
        failed=1
}

# A checkout lists what is committed, or about to be; an unpacked archive all that there is.
if git rev-parse --is-inside-work-tree > /dev/null 2>&1; then
        mapfile -t files < <(git ls-files -co --exclude-standard)
else
        mapfile -t files < <(find . -type f ! -path './build*' | sed 's#^\./##')
fi

for file in "${files[@]}"; do
        [ -f "$file" ] || continue
        case $file in
        LICENSES/* | tests/fixtures/* | tests/*/fixtures/* | tests/fuzz/corpus/* | *.ref | *.json | .gitignore) continue ;;
        *.md | NEWS) continue ;;
        esac
        head -n 3 "$file" | grep -q 'SPDX-License-Identifier: ' || complain "$file: no SPDX line at the top"
        [ -z "$(tail -c 1 "$file")" ] || complain "$file: the last line does not end"
        ! grep -nE '[ 	]+$' "$file" | sed "s#^#$file: blanks at the end of line #" | grep . || failed=1
        case $file in
        *.[ch])
                [ "$(wc -l < "$file")" -le $longest ] || complain "$file: more than $longest lines"
                ! grep -nP '^\t' "$file" | sed "s#^#$file: tab in line #" | grep . || failed=1
                ;;
        esac
done

# In pieces, so that this file is not found.
words='/work/(main|sha''red)|/tmp/w''t/|snapshot[.]deb''ian|deb[.]deb''ian|TO''DO|FIX''ME|XX''X:'
! printf '%s\0' "${files[@]}" | grep -zvE '^(LICENSES|tests/.*(corpus|fixtures))/' |
        xargs -0 grep -nHE "$words" 2> /dev/null || failed=1
exit $failed
