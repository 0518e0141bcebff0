#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# fake_child.sh URI - stands for guestcryptd-virt: what it does is its URI, a file of lines: "say TEXT" writes a line, "hear" waits
# for a call, "answer TEXT" is {"event":"done","id":(that call's),TEXT}, "begun" likewise, "hang" and "end". Each start
# takes the next file: URI.1, URI.2, ...; without one it ends at once.
n=1
while ! mv "$1.$n" "$1.now" 2> /dev/null; do
        n=$((n + 1))
        [ $n -lt 10 ] || exit 0
done
while read -r word rest; do
        case $word in
        say) echo "$rest" >&3 ;;
        hear) IFS= read -r call <&3 || exit 0
              id=${call##*\"id\":}
              id=${id%%[!0-9]*} ;;
        answer) echo "{\"event\":\"done\",\"id\":$id,$rest}" >&3 ;;
        begun) echo "{\"event\":\"begun\",\"id\":$id}" >&3 ;;
        hang) while :; do read -r call <&3 || exit 0; done ;;
        esac
done < "$1.now"
