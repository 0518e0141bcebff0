#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# manuals.sh - each program that people or libvirt run has a page, which is installed and can be set; the hook's knows its operations and deadlines
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
failed=0
complain() {
        echo "$*"
        failed=1
}

for program in guestcryptd guestcryptctl guestcrypt-tpm guestcrypt-hook; do
        compgen -G "$top/man/$program.[18]" > /dev/null || complain "$program has no page"
done
for page in "$top"/man/*.[158]; do
        grep -F "'${page##*/}'" "$top/man/meson.build" > /dev/null || complain "${page##*/} is not installed"
        [[ $(sed -n 2p "$page") == '.TH '* ]] || complain "${page##*/} has no title"
        # what it refers to is there
        for other in $(grep -oE '\.BR (guestcrypt|org\.guestcrypt)[a-z0-9.-]* \([1-8]\)' "$page" | sed 's/^.BR \(.*\) (\(.\))$/\1.\2/' | sort -u); do
                compgen -G "$top/man/$other*" > /dev/null || complain "${page##*/} refers to $other, which there is not"
        done
        [ -z "$(type -P groff)" ] || [ -z "$(groff -man -Tutf8 -ww "$page" 2>&1 > /dev/null)" ] || complain "${page##*/}: $(groff -man -Tutf8 -ww "$page" 2>&1 > /dev/null)"
done

page=$top/man/guestcrypt-hook.8
mapfile -t operations < <(sed -n 's/^ *{ "\([a-z]*\)", [0-9]* \* SECOND.*/\1/p' "$top/hooks/hook.c")
[ ${#operations[@]} -gt 5 ] || complain "only ${#operations[@]} operations in the hook"
for operation in "${operations[@]}"; do
        sed -n '/^\.SH OPERATIONS/,/^\.SH "WHAT/p' "$page" | grep -E "^\.(B|BR) (.*[ \"])?$operation([ \"]|\$)" > /dev/null || complain "'$operation' is not in the hook's page"
done
for seconds in $(sed -n '/^ *{ "[a-z]*", /p' "$top/hooks/hook.c" | grep -oE '[0-9]+ \* SECOND' | sort -u | cut -d' ' -f1); do
        grep -E "(^|[^0-9])$seconds s([^a-z]|\$)" "$page" > /dev/null || complain "the hook's page does not know of its $seconds s"
done
exit $failed
