# SPDX-License-Identifier: LGPL-2.1-or-later
#
# obey.sh - in place of tests/vm/tpm/guest/stages.sh, the stage of a guest that does what the host tells it: reads lines
#           "NUMBER COMMAND" from the console, and says "== NUMBER STATUS" after what the command says
export TPM2TOOLS_TCTI=device:/dev/tpmrm0

pcr() {
        tpm2_pcrread "sha256:$1" | sed -n 's/.*0x//p'
}

obey() {
        echo "== ready $(cat /proc/sys/kernel/random/boot_id)"
        while read -r number command; do
                eval "$command" < /dev/null 2>&1
                printf '\n== %s %s\n' "$number" $?
        done
}
