#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# cli.sh - guestcryptctl's verbs, their exit statuses and JSON, against the daemon on a simulated host
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/integration/bus/lib.sh"
in_namespace "$@"

bus_start
sim_start --profile=small
python=/usr/bin/python3
[ -x $python ] || skip "$python is not installed"

# json EXPRESSION COMMAND...: the output is one JSON document d, for which the expression holds
json() {
        local expression=$1 out

        shift
        out=$("$@") || :
        $python -c 'import json, sys; d = json.loads(sys.argv[1]); sys.exit(0 if eval(sys.argv[2]) else 1)' "$out" "$expression" || {
                echo "FAILED: $*: not ($expression) in $out"
                failures=$((failures + 1))
        }
}

# before there is a daemon
expect 1 "guestcryptd does not run; try 'systemctl start guestcryptd'" ctl status
json 'd["error"]["name"].endswith("ServiceUnknown")' ctl --json list
daemon_start

# usage
expect 2 "unknown verb 'frob'" ctl frob
expect 2 "unknown verb 'tpm-lost'" ctl tpm-lost
expect 2 'a verb is needed' ctl
expect 2 "'list' has no option --start" ctl list --start
expect 2 'missing argument' ctl show
expect 2 'superfluous argument' ctl show a b
expect 2 "needs --adapters and --domains" ctl define x --adapters 4
for bad in banana -1 '' 010 4- 5-4 256 4000 0x100 '1,,2' '1 2' '1,'; do
        expect 2 "no list of ids|above 255|runs backwards|needs a value, not ''" ctl check --adapters="$bad" --domains 6
        expect 2 "no list of ids|above 255|runs backwards|needs a value, not ''" ctl define x --adapters 6 --domains="$bad"
        expect 2 "no list of ids|above 255|runs backwards|needs a value, not ''" ctl masks --adapters 6 --domains="$bad"
        expect 2 "no single id|above 255|runs backwards|needs a value, not ''" ctl queues --adapter="$bad"
done
expect 2 "'0,1,2,[0-9,]+\.\.\.' has an id above 255" ctl check --adapters "$(seq -s, 0 256)" --domains 6
json 'd["error"]["name"] == "Usage"' ctl --json check --adapters banana --domains 6
json 'd["error"]["name"] == "Usage"' ctl frob --json

# the host
expect 0 '^guestcryptd +[0-9]+\.[0-9]' ctl status
json 'd["host_adapters"] == [0, 1] and d["settled"] and d["problems"] == []' ctl --json status
expect 0 '^0x04 +CEX8P +ep11 +online +0x06,0x10,0x1b,0x47 +- +-$' ctl adapters
json '[a["id"] for a in d] == [0, 1, 2, 3, 4, 5]' ctl adapters --json
expect 0 '^04\.0047 +ep11 +vfio_ap +free +-$' ctl queues
json '[q["apqn"] for q in d] == ["04.0006"]' ctl --json queues --free --domain 6 --adapter 4
json 'd == {"adapters": [0, 1], "domains": list(range(256))}' ctl --json masks
expect 0 '^mtty +mtty-1 +vfio-pci +24 ' ctl mdev-types

# a matrix's life
expect 0 '^All of these queues are free' ctl check --adapters 4 --domains 6,0x10
expect 0 '^Matrix payments-1 is defined and started' ctl define payments-1 --adapters 4,5 --domains 6,0x10 --control 6 --guest vm1 --start
expect 0 '^payments-1 +started +0x04-0x05 +0x06,0x10 +vm1' ctl list
json 'd["state"] == "started" and d["adapters"] == [4, 5] and d["guest_domains"] == [6, 16] and d["owner"] == "vm1"' \
        ctl --json show payments-1
expect 3 '04\.0006.*payments-1' ctl define audit-1 --adapters 4 --domains 6
json 'd["error"]["name"] == "org.guestcrypt1.Error.Overlap"' ctl --json define audit-1 --adapters 4 --domains 6
expect 3 '04\.0006 +definition +payments-1' ctl check --adapters 4 --domains 6,0x1b
json 'not d["free"] and {c["apqn"] for c in d["conflicts"]} == {"04.0006"}' ctl --json check --adapters 4 --domains 6,0x1b
json 'd == {"free": True, "conflicts": []}' ctl --json check --adapters 4 --domains 6 --self payments-1
expect 3 '00\.0006 +host' ctl check --adapters 0 --domains 6
expect 1 'above this machine' ctl define high --adapters 255 --domains 6
expect 1 'ff\.0006 +nobody +not installed' ctl check --adapters 255 --domains 6
expect 1 'ff\.0006 +nobody +not installed' ctl check --adapters 0,255 --domains 6
expect 1 'above this machine' ctl define high --adapters 0,255 --domains 6
json 'd["conflicts"][0]["owner_kind"] == "limit"' ctl --json check --adapters 255 --domains 6
expect 1 "payments-1" ctl define payments-1 --adapters 3 --domains 6
expect 2 'no UUID' ctl define bad-uuid --uuid 123 --adapters 3 --domains 6
expect 1 'no matrix' ctl show nobody
expect 2 'no UTF-8' ctl define $'\xff' --adapters 3 --domains 6
expect 2 'no UTF-8' ctl show $'\xff'
expect 1 'name is 10240 bytes long' ctl define "$(head -c 10240 /dev/zero | tr '\0' a)" --adapters 3 --domains 6
for bad in a/b $'a\nb' ..; do
        expect 1 "'(a.b|\.\.)' is no name" ctl define "$bad" --adapters 200 --domains 6
        expect 1 'there is no matrix' ctl show "$bad"
done
expect 1 "no parent 'a\?b' with a type 'mtty-1'" ctl mdev-create $'a\nb' mtty-1
expect 0 'is changed' ctl modify payments-1 --domains 6 --autostart
json 'd["domains"] == [6] and d["adapters"] == [4, 5] and d["autostart"]' ctl --json show payments-1
expect 0 "<name>|<uuid>|<device" ctl dumpxml payments-1
ctl dumpxml payments-1 > "$b/payments.xml"
expect 0 'nothing|Nothing' ctl explain payments-1
expect 0 'defined' ctl define later --adapters 4 --domains 0x10 --alternative
expect 1 'start' ctl undefine payments-1
expect 0 'is stopped' ctl stop payments-1
expect 0 'is undefined' ctl undefine payments-1
expect 0 'Matrix payments-1 is defined' ctl define-xml "$b/payments.xml"
expect 0 'adapters +0x04-0x05' ctl show payments-1
expect 1 'cannot open' ctl define-xml /nonexistent
head -c 70000 /dev/zero | tr '\0' x > "$b/big.xml"
expect 1 "big.xml' is longer than 65536 bytes" ctl define-xml "$b/big.xml"
expect 0 'started' ctl start payments-1
expect 0 'undefined' ctl undefine payments-1 --stop
expect 0 '' ctl reconcile
json 'd == []' ctl --json reconcile
expect 0 '' ctl reload

ctl undefine later > /dev/null

# the grid: started, defined, the host's, free
ctl define alpha --adapters 4 --domains 6,0x10 --start > /dev/null
ctl define beta --adapters 5 --domains 0x47 > /dev/null
expect 0 '^domain  60b7$' ctl matrix
expect 0 '^04      AA\.\.  ep11$' ctl matrix
expect 0 '^05      \.\.\.b  ep11$|^05      \.\.\.c  ep11$' ctl matrix
expect 0 '^00      ####  cca$' ctl matrix
json '{q["owner"] for q in d["queues"] if q["owner_kind"] == "definition"} >= {"beta"}' ctl --json matrix
json '{"symbol": "A", "kind": "matrix", "name": "alpha", "state": "started", "live": True} in d["owners"]' ctl --json matrix

# a matrix without queues that is called as a kind of owner is listed all the same
foreign=00000000-0000-4000-8000-0000000000f0
types=$b/root/sys/devices/vfio_ap/matrix/mdev_supported_types
echo $foreign > "$types/vfio_ap-passthrough/create"
echo 2 > "$b/root/sys/bus/mdev/devices/$foreign/assign_adapter"
echo 6 > "$b/root/sys/bus/mdev/devices/$foreign/assign_domain"
ctl reload
ctl define mdev --adapters 5 --domains 0x20 > /dev/null
expect 0 "^[A-Z] mdev $foreign\$" ctl matrix
expect 0 '^  mdev \(defined\): none of its queues' ctl matrix
json '[o for o in d["owners"] if o["kind"] == "mdev"][0]["name"] == "'$foreign'"' ctl --json matrix
json '"state" not in [o for o in d["owners"] if o["kind"] == "mdev"][0]' ctl --json matrix
ctl undefine mdev > /dev/null
echo 1 > "$b/root/sys/bus/mdev/devices/$foreign/remove"
expect 0 '04 .*A' env COLUMNS=20 "$build/cli/guestcryptctl" matrix

# mediated devices of any type
uuid=$(ctl mdev-create mtty mtty-2)
expect 0 "^$uuid +mtty +mtty-2 +active +yes +no" ctl mdev-list
expect 1 'taken|exists|Exists|already' ctl mdev-create mtty mtty-2 --uuid "$uuid"
expect 1 'nosuch' ctl mdev-create nosuch mtty-2
expect 2 'NAME=VALUE' ctl mdev-create mtty mtty-2 --attr x
expect 2 'no UUID' ctl mdev-remove 1234
expect 0 'is removed' ctl mdev-remove "$uuid"
expect 1 "there is no mediated device $uuid" ctl mdev-remove "$uuid"

# the host's masks
expect 0 '' ctl masks --adapters 0 --domains 0-255
json 'd["adapters"] == [0]' ctl --json masks
expect 2 'both' ctl masks --adapters 0
expect 3 '04\.0006' ctl masks --adapters 0-255 --domains 0-255

# events, a line each
ctl --json watch > "$b/events" &
watch_pid=$!
something_happens() { # it listens once it has connected: until then nobody tells it
        ctl define gamma --adapters 3 --domains 6 > /dev/null
        ctl undefine gamma > /dev/null
        grep -q '"added".*gamma' "$b/events" && grep -q '"removed".*gamma' "$b/events" &&
                grep -q '"manager".*{"n_matrices":[0-9]*}}$' "$b/events"
}
until_true 10 something_happens || :
kill $watch_pid
expect 0 '^{"event":"added","object":"matrix","name":"gamma",.*"adapters":\[3\]' cat "$b/events"
expect 0 '^{"event":"changed","object":"manager",.*"properties":{"n_matrices":[0-9]+}}$' cat "$b/events"
expect 0 '^{"event":"removed","object":"matrix","name":"gamma"' cat "$b/events"

# the whole tree
expect 0 '/org/guestcrypt1/adapter/05' busctl --address="$address" tree org.guestcrypt1
expect 0 '/org/guestcrypt1/parent/mtty' busctl --address="$address" tree org.guestcrypt1
expect 0 '^\.NMatrices +property +u +2 +emits-change' busctl --address="$address" introspect org.guestcrypt1 /org/guestcrypt1

# a definition's file that somebody copied: both are there, and the status names both
ctl define original --adapters 3 --domains 6 --uuid 00000000-0000-4000-8000-00000000000a > /dev/null
kill $daemon_pid
wait $daemon_pid || :
(
        cd "$b/root/var/lib/guestcrypt/matrices"
        sed 's/00000000a/00000000b/' 00000000-0000-4000-8000-00000000000a.xml > 00000000-0000-4000-8000-00000000000b.xml
)
daemon_start
expect 0 "record 'matrices/.*b.xml' is known by its UUID: has the name 'original', as 00000000-0000-4000-8000-00000000000a has" ctl status
expect 0 'uuid +00000000-0000-4000-8000-00000000000a' ctl show original
expect 0 'name +00000000-0000-4000-8000-00000000000b' ctl show 00000000-0000-4000-8000-00000000000b
expect 0 'is undefined' ctl undefine 00000000-0000-4000-8000-00000000000b

# what is closed before all is written is a failure, not silence
expect 1 'not all output could be written: No space left on device' sh -c "'$build/cli/guestcryptctl' status > /dev/full"

# a connection that ends is not taken for an answer that takes long
mkdir "$b/ssh"
printf '#!/bin/sh\ndd bs=4096 count=1 of=/dev/null 2> /dev/null\n' > "$b/ssh/ssh"
chmod +x "$b/ssh/ssh"
expect 1 'guestcryptd gave no answer' env PATH="$b/ssh:$PATH" "$build/cli/guestcryptctl" --host=elsewhere status
finish
