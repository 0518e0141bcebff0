#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# refusals.sh - bad input to each verb: the same exit status with --json and without, one line or one JSON document that says what is wrong, and
# nothing changed on the host or on disk
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/integration/bus/lib.sh"
need jq
in_namespace "$@"

bus_start
sim_start --profile=small
daemon_start
ctl define there --adapters 4 --domains 6 --start > /dev/null
ctl define other --adapters 5 --domains 6 > /dev/null
ctl reload

state() {
        cat "$b"/root/sys/bus/ap/a?mask
        ls "$b/root/sys/bus/mdev/devices"
        cat "$b"/root/sys/bus/mdev/devices/*/ap_config
        ctl list
}
before=$(state)
n=0

# refused STATUS ARGUMENT...: everywhere alike
refused() {
        local want=$1 status=0 json_status=0

        shift
        ctl "$@" > "$b/out" 2> "$b/err" || status=$?
        ctl --json "$@" > "$b/json" 2> "$b/json_err" || json_status=$?
        n=$((n + 1))
        if [ $status != "$want" ] || [ $json_status != "$want" ] || [ -s "$b/out" ] || [ -s "$b/json_err" ] ||
                [ "$(wc -l < "$b/err")" != 1 ] || ! grep -q '^guestcryptctl: .' "$b/err" || [ "$(wc -c < "$b/err")" -gt 500 ] ||
                [ "$(jq -s 'length == 1 and (.[0].error | (.name | length > 0) and (.message | length > 0))' "$b/json")" != true ]; then
                printf 'FAILED: wanted %s, got %s and %s of:' "$want" $status $json_status
                printf ' %.60q' "$@"
                echo
                head -c 600 "$b/out" "$b/err" "$b/json" "$b/json_err"
                failures=$((failures + 1))
        fi
}

long=$(head -c 10240 /dev/zero | tr '\0' a)
uuid=00000000-0000-4000-8000-000000000001

for list in banana 4000 '"40,41"' -1 '' "$(seq -s, 0 256)" 0-256 3-1 , 1- '1 2' 010 0x $'4\n5' $'\xff'; do
        refused 2 check --adapters "$list" --domains 6
        refused 2 check --adapters 4 --domains "$list"
        refused 2 define x --adapters 4 --domains 6 --control "$list"
        refused 2 define x --adapters "$list" --domains 6
        refused 2 modify other --domains "$list"
        refused 2 masks --adapters "$list" --domains 0-255
        refused 2 queues --adapter "$list"
        refused 2 queues --domain "$list"
done
for verb in 'check' 'define x' 'modify other'; do
        refused 1 $verb --adapters none --domains 6
        refused 1 $verb --adapters 4 --domains none
done
refused 1 define x --adapters 255 --domains 6
refused 1 modify other --domains 255
refused 3 define x --adapters 4-5 --domains 6
refused 3 define x --adapters 0 --domains 6
refused 3 modify other --adapters 4

for name in a/b $'a\nb' $'a\x1b[2J' ' ' .. nosuch $uuid "$long" ä; do
        for verb in show start stop undefine explain dumpxml 'modify --domains=6'; do
                refused 1 $verb -- "$name"
        done
        [ "$name" = nosuch ] || refused 1 define --adapters 3 --domains 6 -- "$name"
done
for name in '' $'\xff'; do
        for verb in show start stop undefine explain dumpxml 'modify --domains=6' 'define --adapters 3 --domains 6'; do
                refused 2 $verb -- "$name"
        done
done

for bad in banana 1234 '' 00000000-0000-0000-0000-000000000000 00000000000040008000000000000001 "{$uuid}" "$uuid-" "$long" $'\xff'; do
        refused 2 define x --adapters 3 --domains 6 --uuid "$bad"
        refused 2 mdev-create mtty mtty-1 --uuid "$bad"
        refused 2 mdev-remove -- "$bad"
done
refused 1 mdev-remove $uuid
for bad in a/b $'a\nb' nosuch "$long"; do
        refused 1 mdev-create "$bad" mtty-1
        refused 1 mdev-create mtty "$bad"
done
for bad in a/b=1 ../x=1 remove=1 x= $'x=\n' "x=$long" "$long=1" nosuch=1; do
        refused 1 mdev-create mtty mtty-1 --attr "$bad"
done
refused 2 mdev-create mtty mtty-1 --attr banana
refused 2 mdev-create mtty mtty-1 --attr =1
refused 1 define x --adapters 3 --domains 6 --guest $'a\nb'
refused 1 define x --adapters 3 --domains 6 --guest "$long"
refused 1 queues --owner "$long"

# xml FILTER...: what it makes of a good definition is refused
xml() {
        ctl dumpxml other | sed "/<uuid>/d; s/name='other'/name='new'/; s/value='0x05'/value='0x03'/" | "$@" > "$b/x.xml"
        refused 1 define-xml "$b/x.xml"
}
xml sed '$d'
xml sed "s/name='new'/name='a b'/"
xml sed 's/vfio_ap-passthrough/banana/'
xml sed "s/value='0x03'/value='banana'/"
xml sed "s/value='0x03'/value='4000'/"
xml sed "s/value='0x03'/value='-1'/"
xml sed '/assign_adapter/d'
xml sed 's/<device>/<banana>/; s/.device>/\/banana>/'
xml sed '1i <!DOCTYPE d [<!ENTITY a "b">]>'
xml sed '1i <!DOCTYPE d SYSTEM "file:///etc/passwd">'
xml sed '1i <!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
xml sed 's/<device>/<device>\&x;/'
xml tr e '\0'
xml sed d
xml sed -n '1s/.*/{}/p'
truncate -s 100M "$b/large.xml"
refused 1 define-xml "$b/large.xml"
refused 1 define-xml "$b"
refused 1 define-xml /nonexistent
refused 1 define-xml "/$long"
ctl dumpxml there > "$b/x.xml"
refused 1 define-xml "$b/x.xml"

refused 2 $'fr\nob'
refused 2 --$'fr\x1bob'
refused 2 "$long"
refused 2 show
refused 2 show a b
refused 2 "--host=" list

[ "$(state)" = "$before" ] || { echo "FAILED: something has changed"; failures=$((failures + 1)); }
echo "$n refusals"
finish
