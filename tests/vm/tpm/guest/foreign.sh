#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# foreign.sh - runs the tests of another project, each with a fresh TPM
#
# usage: foreign.sh device|plain ibmtss|tpm2-tools TEST...
#
# In a guest ("device") or, for comparison, in front of swtpm itself ("plain", on TCP ports 2321 and 2322). The tests
# are in /foreign. No TEST: all. For each a line "RESULT NAME passed|failed|skipped SECONDS WORDS" is printed.
#
# Who is at the other end of stdin and stdout is asked, by "HOST command" and a line as answer, for what a test of a TPM
# needs and no guest may do: switch the TPM off and on (power), the same with a new TPM (fresh); and how many commands
# the device has seen (count).
set -uo pipefail

where=$1 suite=$2
shift 2
limit=2400 # seconds for one test; the longest takes an emulated s390x 14 minutes while others use the machine, too
log=/run/foreign.log
exec 3>&1 4<&0 < /dev/null

# What the scripts of Debian's packages, of which none has run here, would have made.
[ -e /etc/passwd ] || echo root:x:0:0:root:/root:/bin/bash > /etc/passwd
[ -e /etc/group ] || echo root:x:0: > /etc/group

ask() {
        echo "HOST $*" >&3
        read -r reply <&4 && [ "${reply%% *}" = "done" ]
}

# The driver must not find another TPM behind its device than before: it goes first, and starts up the one that it finds.
power() {
        if [ "$where" = plain ]; then
                ask "$1"
                return
        fi
        rmmod tpm_virtio && ask "$1" && insmod /modules/tpm_virtio.ko || return
        touch /run/started
}
export -f ask power
export where

# Commands that the device has seen so far.
count() {
        ask count && echo "${reply#done}"
}

result() {
        echo "RESULT $*" >&3
}

# What is worth a look of a test that failed.
tell() {
        tail -n "$1" $log | sed 's/^/    /' >&3
}

# ibmtss: the groups of its regression test

# Group 0: what each group does before its own steps.
ibm_groups() {
        sed -n 's/.*== "-\([0-9]*\)" \].*/\1/p' reg.sh | grep -vxE '0|40' # 40: not part of all, says its usage
}

ibm_name() {
        sed -n "/== \"-$1\" \]/,/\.sh/s,.*/test\(.*\)\.sh.*,\1,p" reg.sh | sed -n 1p
}

ibm_begin() {
        cd /foreign/utils || exit
        # What these two do to IBM's simulator others do here.
        mv powerup powerup.program && mv startup startup.program || exit
        cat > powerup <<- 'END'
		#!/bin/bash
		[ $# = 0 ] || exec ./powerup.program "$@"
		power power
	END
        # The kernel has done it already, if this is a guest and the TPM has just been switched on.
        cat > startup <<- 'END'
		#!/bin/bash
		./startup.program "$@" > startup.out 2>&1
		status=$?
		cat startup.out
		[ $status = 0 ] || [ ! -e /run/started ] || ! grep -q TPM_RC_INITIALIZE startup.out || status=0
		rm -f /run/started
		exit $status
	END
        chmod +x powerup startup
        export TPM_DATA_DIR=.
        if [ "$where" = device ]; then
                export TPM_INTERFACE_TYPE=dev TPM_DEVICE=/dev/tpm0
        else
                export TPM_INTERFACE_TYPE=socsim TPM_SERVER_TYPE=raw TPM_SERVER_NAME=127.0.0.1 \
                        TPM_COMMAND_PORT=2321 TPM_PLATFORM_PORT=2322
        fi
}

# ibm_steps GROUP: runs it; sets steps to how many it has taken
ibm_steps() {
        local status

        rm -f ./h8*.bin ./hp8*.bin ./h02*.bin ./h03*.bin ./run.out
        power fresh && ./startup > $log || return
        timeout $limit ./reg.sh "-$1" > $log 2>&1
        status=$?
        steps=$(grep -c '^ INFO:' $log)
        return $status
}

ibm() {
        local test name status common before after words

        ibm_begin
        # As many steps are each group's preparation, and no test.
        ibm_steps 0 || { tell 20; result preparation failed $SECONDS "status $?"; return; }
        common=$steps
        [ $# -gt 0 ] || mapfile -t tests < <(ibm_groups)
        for test in "${@:-${tests[@]}}"; do
                name=$test-$(ibm_name "$test")
                if [ "$test" = 36 ]; then
                        result "$name" skipped 0 "reg.sh runs it with IBM's simulator only"
                        continue
                fi
                SECONDS=0 before=$(count)
                ibm_steps "$test"
                status=$? after=$(count)
                words="$((steps - common)) steps"
                [ "$where" = plain ] || words+=", $((after - before)) commands"
                if [ $status = 0 ] && [ "$steps" -gt "$common" ] && grep -q '^Success - 1 Tests' $log; then
                        result "$name" passed $SECONDS "$words"
                else
                        tell 30
                        result "$name" failed $SECONDS "status $status after $words: $(grep -B 1 ERROR: $log | sed -n 1p)"
                fi
        done
}

# tpm2-tools: its integration tests, with the kernel's resource manager or, for comparison, tpm2-abrmd

tools_tests() {
        (cd /foreign/test/integration && ls tests/*.sh fapi/*.sh) | sed 's/\.sh$//' | grep -vx fapi/fapi-testing-template
}

# What a script says last, before it cleans up.
last_words() {
        sed '/^Shutting down/,$d' $log | grep -a . | tail -n 3 | paste -sd ' '
}

tools() {
        local test name status before after commands words compiler=()

        cd /foreign/test/integration || exit
        export PATH=$PWD:$PATH abs_top_srcdir=/foreign srcdir=/foreign abs_srcdir=/foreign abs_builddir=/foreign \
                TPM2_TOOLS_TEST_FIXTURES=$PWD/fixtures PYTHON=python3 TPM2TOOLS_TEST_PERSISTENT=true TSS_VERSION
        TSS_VERSION=$(cat /foreign/tss-version)
        if [ "$where" = device ]; then
                export TPM2TOOLS_TEST_TCTI=device:/dev/tpmrm0
        else
                bus=com.intel.tss2.Tabrmd2321
                export TPM2_ABRMD=tpm2-abrmd TPM2TOOLS_TEST_TCTI=tabrmd:bus_type=session,bus_name=$bus \
                        TPM2ABRMD_TCTI="--session --dbus-name=$bus --tcti=swtpm:host=127.0.0.1,port=2321"
                compiler=(dbus-run-session --)
        fi
        [ $# -gt 0 ] || mapfile -t tests < <(tools_tests)
        for test in "${@:-${tests[@]}}"; do
                SECONDS=0 name=${test##*/}
                cd "/foreign/test/integration/${test%/*}" || exit
                if ! grep -qE '^[[:space:]]*start_up' "$name.sh"; then
                        result "$test" skipped $SECONDS "it does not use a TPM"
                        continue
                fi
                power fresh || { result "$test" failed $SECONDS "no fresh TPM"; continue; }
                before=$(count)
                timeout $limit "${compiler[@]}" bash "$name.sh" > $log 2>&1
                status=$? after=$(count)
                commands=$((after - before))
                words=
                [ "$where" = plain ] || words="$commands commands"
                if [ $status = 77 ]; then
                        result "$test" skipped $SECONDS "it says: $(last_words)"
                elif [ $status != 0 ]; then
                        tell 30
                        result "$test" failed $SECONDS "status $status: $(grep -a ' on line .* failed:' $log | tail -n 1)"
                elif ! grep -qxF "export TPM2TOOLS_TCTI=\"$TPM2TOOLS_TEST_TCTI\"" $log ||
                        { [ "$where" = device ] && [ $commands -lt 2 ]; }; then
                        # The scripts do not end at every failure of what they begin with.
                        tell 30
                        result "$test" failed $SECONDS "status 0 without having reached the TPM"
                else
                        result "$test" passed $SECONDS "$words"
                fi
        done
}

case $suite in
ibmtss) ibm "$@" ;;
tpm2-tools) tools "$@" ;;
esac
