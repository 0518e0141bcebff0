#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# format.sh - every C file is as .clang-format wants it; with --fix it is made so
#
# Only version 14 judges (Debian 12's): each one has a taste of its own.
set -euo pipefail
top=$(cd "${0%/*}/../.." && pwd)
. "$top/tests/lib/common.sh"
cd "$top"

format=$(command -v clang-format-14 || command -v clang-format) || skip "clang-format is not installed"
[[ $("$format" --version) == *"version 14."* ]] || skip "clang-format is $("$format" --version), not version 14"

# drivers/tpm_virtio is Linux code and follows the kernel's style.
mapfile -t files < <(find daemon cli hooks drivers sim tests -name '*.[ch]' ! -path 'drivers/tpm_virtio/*' 2> /dev/null)
if [ "${1-}" = --fix ]; then
        "$format" -i --style=file "${files[@]}"
else
        # A process for each file takes four times as long.
        wrong=$(printf '%s\0' "${files[@]}" | xargs -0 -n 32 -P "$(nproc)" "$format" --style=file --dry-run 2>&1 |
                sed -n 's/:[0-9]*:[0-9]*: warning: .*//p' | uniq)
        [ -n "$wrong" ] || exit 0
        sort <<< "$wrong"
        echo "These are not as .clang-format wants them; tests/style/format.sh --fix makes them so."
        exit 1
fi
