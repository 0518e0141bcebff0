# SPDX-License-Identifier: LGPL-2.1-or-later
#
# manual.sh - what a manual page gives as an example, so that tests run exactly that; to be sourced by bash
#
# An example stands between a comment line '.\" example: NAME' and the next '.fi'.

# manual_example PAGE NAME
manual_example() {
        awk -v name="$2" '
                $0 == ".\\\" example: " name { found = 1; next }
                found && $0 == ".fi" { exit }
                found && !/^\.nf$/ { gsub(/\\-/, "-"); gsub(/\\e/, "\\"); print; n++ }
                END { exit n == 0 }' "$1"
}
