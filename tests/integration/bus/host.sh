#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# host.sh BUILD DIALECT: what the host has, as an operator changes it: reserved, released, persisted, on a kernel of each kind. What there is
# afterwards is read from sysfs.
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
dialect=${2:?DIALECT}
. "$top/tests/integration/bus/lib.sh"
need jq
in_namespace "$@"

bus_start
sim_start --profile=small --dialect="$dialect"
mkdir -p "$b/root/etc/udev/rules.d"
daemon_start
sys=$b/root/sys
ap=$sys/bus/ap
rules=$b/root/etc/udev/rules.d/41-ap.rules
full=0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
two=0xc000000000000000000000000000000000000000000000000000000000000000
one=0x8000000000000000000000000000000000000000000000000000000000000000
all=0x06,0x10,0x1b,0x47

# masks APMASK AQMASK: they are so
masks() {
        [ "$(cat "$ap/apmask")" = "$1" ] && [ "$(cat "$ap/aqmask")" = "$2" ] && return 0
        echo "FAILED: line ${BASH_LINENO[0]}: masks are $(cat "$ap/apmask") $(cat "$ap/aqmask")"
        failures=$((failures + 1))
}

# driver QUEUE DRIVER: has it
driver() {
        local is

        is=$(basename "$(readlink "$ap/devices/$1/driver" || echo none)")
        [ "$is" = "$2" ] && return 0
        echo "FAILED: line ${BASH_LINENO[0]}: $1 is bound to $is"
        failures=$((failures + 1))
}

# field PATTERN VALUE: of the report of the last command with --json
field() {
        [ "$(jq -c "$1" "$b/report")" = "$2" ] && return 0
        echo "FAILED: line ${BASH_LINENO[0]}: $1 is $(jq -c "$1" "$b/report")"
        failures=$((failures + 1))
}

report() {
        local want=$1 status=0

        shift
        ctl --json "$@" > "$b/report" || status=$?
        [ $status = "$want" ] && return 0
        echo "FAILED: line ${BASH_LINENO[0]}: $* ended with $status: $(cat "$b/report")"
        failures=$((failures + 1))
}

# ---- what makes no sense
for verb in host-reserve host-release; do
        expect 2 'both --adapters and --domains' ctl $verb --adapters 5
        expect 2 'no list of ids' ctl $verb --adapters banana --domains 6
        expect 2 'above 255' ctl $verb --adapters 256 --domains 6
        expect 2 'at least one adapter' ctl $verb --adapters none --domains 6
        expect 2 "neither masks nor overrides" ctl $verb --adapters 1 --domains 6 --by magic
done
expect 2 "no option --all" ctl host-reserve --all
expect 2 'exclude each other' ctl host-release --all --adapters 1
expect 1 "above this machine's highest" ctl host-reserve --adapters 64 --domains 6
expect 1 "above this machine's highest" ctl host-reserve --adapters 1 --domains 85
masks $two $full

# ---- masks: whole adapters, whole domains
expect 3 '01\.0010 and 2 more queues from the host' ctl host-reserve --adapters 1 --domains 6
expect 3 'last queue .* default domain 0x06' ctl host-reserve --adapters 0-1 --domains $all
report 3 host-reserve --adapters 1 --domains 6 --dry-run
field .refusal_name '"org.guestcrypt1.Error.HostOwned"'
field .others '[[1,16],[1,27],[1,71]]'
field .queues '[[1,6]]'
report 0 host-reserve --adapters 1 --domains $all --dry-run
field .done false
field .adapters '[0]'
masks $two $full

report 0 host-reserve --adapters 1 --domains $all
field .means '"masks"'
field '.queues | length' 4
field .others '[]'
masks $one $full
driver 01.0006 vfio_ap
driver 00.0006 cex4queue
expect 0 'the host has none of these queues' ctl host-reserve --adapters 1 --domains $all
expect 3 'last queue .* default domain 0x06' ctl host-reserve --adapters 0 --domains $all
expect 0 'to guests: 4' ctl host-reserve --adapters 0 --domains $all --force
expect 0 'with no queue that the host can use' ctl host-show
expect 0 'to the host: 4' ctl host-release --adapters 0 --domains $all
expect 0 'usable with 1 queue, which stays with the host' ctl host-show

# ---- the host, an mdev, a definition
ctl define live --adapters 2 --domains 6 --start > /dev/null
ctl define ready --adapters 3 --domains 6 > /dev/null
ctl define taker --adapters 4 --domains 6 --from-host > /dev/null
expect 3 "02\.0006 would go to the host's drivers, but is in use by matrix 'live'" ctl host-release --adapters 2 --domains $all
expect 3 "in use by matrix 'live'" ctl host-release --all
expect 3 "03\.0006 is needed by definition 'ready'" ctl host-release --adapters 3 --domains $all
expect 0 "cannot be started any more, since 03\.0006 .* definition 'ready'" ctl host-release --adapters 3 --domains $all --force
expect 0 "takes it from the host again when it is started: definition 'taker'" ctl host-release --adapters 4 --domains $all
expect 3 "03\.0006 is left to the host" ctl start ready
masks 0x9800000000000000000000000000000000000000000000000000000000000000 $full
ctl undefine ready
ctl undefine taker
ctl stop live
ctl undefine live

# ---- a bit on the other axis: what 7.2 refuses, 6.12 takes
expect 0 Done ctl host-reserve --adapters 0,3-5 --domains 0x10 --take-others --force
ctl host-release --all > /dev/null
expect 0 Done ctl host-reserve --adapters 0-5 --domains 0x10 --by masks
expect 0 Done ctl host-reserve --adapters 3 --domains $all --by masks
masks 0xefffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff 0xffff7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
ctl define live --adapters 3 --domains 0x10 --start > /dev/null
if [ "$dialect" = 7.2 ]; then
        expect 3 "03\.0010 is in use by matrix 'live'; stop that first. Nothing was changed" ctl host-release --adapters 3 --domains 0x06,0x1b,0x47
        masks 0xefffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff 0xffff7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
else
        expect 0 Done ctl host-release --adapters 3 --domains 0x06,0x1b,0x47
        driver 03.0010 vfio_ap
fi
ctl undefine live --stop
expect 0 Done ctl host-release --all
masks $full $full

# ---- a queue that somebody has unbound goes with the others: masks alone leave it where it is, on each kernel another one
echo 03.0006 > "$ap/drivers/cex4queue/unbind"
expect 0 Done ctl host-reserve --adapters 3 --domains $all --by masks
driver 03.0006 vfio_ap
echo 03.0006 > "$ap/drivers/vfio_ap/unbind"
expect 0 Done ctl host-release --all
driver 03.0006 cex4queue
masks $full $full

# ---- single queues
if [ "$dialect" != 7.2 ]; then
        expect 1 'no driver overrides' ctl host-reserve --adapters 5 --domains 0x47 --by overrides
        expect 3 '05\.0006 and 2 more' ctl host-reserve --adapters 5 --domains 0x47
else
        report 0 host-reserve --adapters 4-5 --domains 0x47
        field .means '"overrides"'
        field .queues '[[4,71],[5,71]]'
        masks $full $full
        driver 05.0047 vfio_ap
        driver 05.0006 cex4queue
        ctl define given --adapters 5 --domains 0x47 --start > /dev/null
        expect 3 "in use by matrix 'given'" ctl host-release --adapters 5 --domains 0x47
        expect 1 '04\.0047 is given to guests by driver override' ctl masks --adapters 0 --domains 0-255
        expect 1 '04\.0047 is given to guests by driver override' ctl host-reserve --adapters 3 --domains $all --by masks
        expect 1 '09\.0047 is not there now' ctl host-reserve --adapters 9 --domains 0x47
        expect 0 'by +overrides' ctl host-reserve --adapters 3 --domains $all
        ctl undefine given --stop
        expect 0 Done ctl host-release --all
        driver 05.0047 cex4queue
        [ -z "$(cat "$ap"/devices/*/driver_override)" ] || { echo "FAILED: an override is left"; failures=$((failures + 1)); }

        # somebody else's, which the kernel answers with a bare EINVAL
        echo cex4queue > "$ap/devices/02.001b/driver_override"
        expect 1 '02\.001b has a driver override that is not vfio_ap' ctl masks --adapters 0 --domains 0-255
        expect 1 '02\.001b has a driver override that is not vfio_ap' ctl host-reserve --adapters 1 --domains 0x1b --by masks
        expect 1 '02\.001b .*somebody wants it where it is' ctl host-reserve --adapters 2 --domains 0x1b
        expect 0 '! overridden by somebody' ctl host-show
        expect 0 Done ctl host-reserve --adapters 2 --domains 0x47
        expect 0 Done ctl host-release --all
        [ "$(cat "$ap/devices/02.001b/driver_override")" = cex4queue ]
        # It goes while nothing else happens, and no uevent tells of it.
        for _ in 1 2 3; do
                expect 0 '! overridden by somebody' ctl host-show
        done
        echo > "$ap/devices/02.001b/driver_override"
        expect 0 '' ctl masks --adapters 0 --domains 0-255
        masks $one $full
        expect 0 Done ctl host-release --all

        # an adapter that went with an override: the kernel counts it until it is booted
        expect 0 Done ctl host-reserve --adapters 5 --domains 0x47
        echo 'card del 0x05' > "$sys/.sim/ctl"
        echo scan > "$sys/.sim/ctl"
        expect 1 'no masks although no queue has a driver override' ctl masks --adapters 0 --domains 0-255
        expect 0 'by +overrides' ctl host-reserve --adapters 3 --domains $all
        driver 03.0006 vfio_ap
        expect 0 Done ctl host-release --adapters 3 --domains $all
        driver 03.0006 cex4queue
        expect 0 'takes no masks until the next boot' ctl host-show
        expect 1 'no masks although' ctl host-reserve --adapters 3 --domains $all --by masks
        masks $full $full
fi

# ---- what is kept
expect 0 'nothing: there is no /etc/udev/rules.d/41-ap.rules' ctl host-show
expect 0 'RUN{builtin}' ctl host-persist --dry-run
[ ! -e "$rules" ] || { echo "FAILED: a dry run wrote"; failures=$((failures + 1)); }
expect 0 Done ctl host-persist
expect 0 'was so already' ctl host-persist
[ "$(grep -c . "$rules")" = 8 ] && grep -qx "ATTR{../../bus/ap/aqmask}=\"$full\"" "$rules"
[ "$(stat -c '%a' "$rules")" = 644 ]
printf '# mine\nSUBSYSTEM=="net", NAME="x"\nKERNEL=="ap", ATTR{apmask}="%s", RUN+="/bin/y"\n' $two > "$rules"
expect 0 'the masks are not those of /etc/udev' ctl host-show
report 0 host-persist
field .file_foreign_lines 3
field .changed true
[ "$(cat "$rules")" = "# mine
SUBSYSTEM==\"net\", NAME=\"x\"
KERNEL==\"ap\", ATTR{apmask}=\"$full\", ATTR{aqmask}=\"$full\", RUN+=\"/bin/y\"" ] || { cat "$rules"; failures=$((failures + 1)); }
echo 'LABEL="end_ap"' > "$rules"
expect 1 "left alone: somebody's rules" ctl host-persist
rm "$rules"
ln -s /dev/null "$rules"
expect 1 'left alone: it is a symbolic link' ctl host-persist
expect 0 'symbolic link' ctl host-show
[ "$(readlink "$rules")" = /dev/null ]
rm "$rules"
[ -z "$(ls -A "$(dirname "$rules")")" ] || { echo "FAILED: something is left beside the rules"; failures=$((failures + 1)); }

# ---- chzdev is at it: nothing is changed meanwhile, and it is said who
sleep 1000 &
holder=$!
echo $holder > "$b/root/run/lock/s390apconfig.lock"
status=0
ctl host-persist > "$b/persist" 2>&1 &
persisting=$!
expect 1 "process $holder holds the AP configuration lock" ctl --json host-reserve --adapters 4 --domains $all
wait $persisting || status=$?
[ $status = 1 ] && grep -q "process $holder holds the AP configuration lock" "$b/persist" || { cat "$b/persist"; failures=$((failures + 1)); }
[ ! -e "$rules" ]
masks $full $full
kill $holder
expect 0 Done ctl host-persist # it is stale now
expect 0 Done ctl host-reserve --adapters 4 --domains $all

# ---- the masks that guestcryptd keeps follow
if [ "$dialect" != 7.2 ]; then
        ctl host-release --all > /dev/null
        ctl masks --adapters 0-2 --domains 0-255 > /dev/null
        expect 0 'guestcryptd sets the new masks at each boot' ctl host-reserve --adapters 2 --domains $all
        expect 0 'and guestcryptd +adapters 0x00-0x01, domains' ctl host-show
        ctl status > "$b/status"
        ! grep -q 'changed by somebody else' "$b/status"
fi
finish
