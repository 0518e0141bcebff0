#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hand.sh - definitions that go from mdevctl to guestcryptctl and back: mdevctl itself says that nothing was lost
#
# usage: hand.sh VERSION
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/mdevctl/lib.sh"
on_host '' "$@"

define_json $u1 auto assign_domain=0x10 assign_adapter=01 assign_adapter=2 assign_control_domain=010
define_json $u2 manual "ap_config=0x18$(printf '%062d' 0),0x0000001$(printf '%057d' 0),0x8$(printf '%063d' 0)"
json auto assign_adapter=5 assign_domain=0x47 > /run/transient.json
mdevctl define -u $u3 -p matrix --jsonfile /run/transient.json
mdevctl start -u $u1
before=$(mdevctl list -d --dumpjson | jq -Sc .)
live=$(cat $matrix/$u1/ap_config)
[ -n "$before" ] && [ "$(jq -c '.[0].matrix | length' <<< "$before")" = 3 ] || die "mdevctl has $before"

# asked only
expect 0 "^$u1 can be taken over" guestcryptctl import mdevctl $u1 --dry-run
[ "$(mdevctl list -d --dumpjson | jq -Sc .)" = "$before" ] || die "a question changed something"

# all of them, and what cannot be
printf '{}' > /etc/mdevctl.d/matrix/44444444-4444-4444-4444-444444444444
printf '{"mdev_type":"vfio_ap-passthrough","start":"auto","attrs":[{"assign_adapter":"3"},{"assign_domain":"6"},{"frob":"1"}]}' \
        > /etc/mdevctl.d/matrix/55555555-5555-5555-5555-555555555555
expect 1 "frob.*no part of a matrix" guestcryptctl import mdevctl --all
[ "$(ls -A /etc/mdevctl.d/matrix | tr '\n' ' ')" = '44444444-4444-4444-4444-444444444444 55555555-5555-5555-5555-555555555555 ' ] ||
        die "mdevctl has $(ls -A /etc/mdevctl.d/matrix)"
rm /etc/mdevctl.d/matrix/*
[ -z "$(ls -A /etc/mdevctl.d | grep -v -e '^matrix$' -e '^scripts.d$')" ] || die "something lies aside: $(ls -A /etc/mdevctl.d)"
[ -z "$(mdevctl list -d)" ] || die "both have it: $(mdevctl list -d)"
expect 0 "^$u1 .*started.*autostart" guestcryptctl list
[ "$(cat $matrix/$u1/ap_config)" = "$live" ] || die "what is live was changed"
expect 3 "definition *$u1" guestcryptctl check --adapters 1 --domains 0x10
expect 0 '' guestcryptctl import mdevctl $u1 $u2 # they are ours
expect 0 'no definition' guestcryptctl import mdevctl --all
expect 1 'no definition' guestcryptctl import mdevctl 66666666-6666-6666-6666-666666666666
expect 2 'UUIDs, or --all' guestcryptctl import mdevctl
expect 2 "no tool 'chzdev'" guestcryptctl import chzdev --all
expect 1 "use 'guestcryptctl modify'" mdevctl define -u $u1 -p matrix -t vfio_ap-passthrough

# through a restart of the daemon, and back
devhost-kill
[ "$(guestcryptctl --json export mdevctl $u1 --dry-run | jq -c '.[0].json | fromjson | .attrs | length')" = 4 ] || die "the question is answered wrongly"
guestcryptctl export mdevctl $u1 $u2 $u3 > /dev/null
after=$(mdevctl list -d --dumpjson | jq -Sc .)
[ "$after" = "$before" ] || die "mdevctl had $before, and has now $after"
[ "$(cat $matrix/$u1/ap_config)" = "$live" ] || die "what is live was changed"
[ -z "$(guestcryptctl --json list | jq -r '.[].name')" ] || die "both have it"
mdevctl stop -u $u1
mdevctl start -u $u1 # it is whole
[ "$(cat $matrix/$u1/ap_config)" = "$live" ] || die "mdevctl makes something else of it"
mdevctl stop -u $u1

# conflicts, with their owner; both stay where they are
guestcryptctl define ours --adapters 3 --domains 6 > /dev/null
json auto assign_adapter=3 assign_domain=6 > /etc/mdevctl.d/matrix/44444444-4444-4444-4444-444444444444 # by hand
expect 3 "03.0006 is held by definition 'ours'" guestcryptctl import mdevctl 44444444-4444-4444-4444-444444444444
expect 3 '"error": *"org.guestcrypt1.Error.Overlap"' guestcryptctl --json import mdevctl 44444444-4444-4444-4444-444444444444
json auto assign_adapter=5 assign_domain=0x47 > /etc/mdevctl.d/matrix/55555555-5555-5555-5555-555555555555
expect 3 "05.0047 is held by mdevctl's definition '$u3'" guestcryptctl import mdevctl 55555555-5555-5555-5555-555555555555
guestcryptctl import mdevctl 55555555-5555-5555-5555-555555555555 --alternative --name spare > /dev/null
expect 1 "no place for: its name, that it is an alternative" guestcryptctl export mdevctl spare
expect 0 'spare is mdevctl' guestcryptctl export mdevctl spare --force
[ "$(what_mdevctl_has -d 55555555-5555-5555-5555-555555555555 | jq -c '.. | .attrs? // empty')" = '[{"assign_adapter":"5"},{"assign_domain":"0x47"}]' ] || die "not given back"

# a guest that has it keeps it, on both ways
mdevctl start -u $u3
echo "guest $u3 on" > /sys/.sim/ctl
guestcryptctl import mdevctl $u3 --alternative > /dev/null
expect 3 'a guest is running' guestcryptctl stop $u3
guestcryptctl export mdevctl $u3 --force > /dev/null
grep "^guest $u3" /sys/.sim/ctl > /dev/null || die "the guest lost its device"
