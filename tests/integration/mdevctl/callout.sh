#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# callout.sh - every event and action of mdevctl's callouts, with the real mdevctl: what it may do, what not and why, and what is
# left afterwards
#
# usage: callout.sh VERSION
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/mdevctl/lib.sh"
on_host '' "$@"

guestcryptctl define ours --adapters 0 --domains 6 > /dev/null
ours=$(guestcryptctl --json show ours | jq -r .uuid)
guestcryptctl mdev-create matrix vfio_ap-passthrough --uuid $u3 --attr assign_adapter=5 --attr assign_domain=0x47 > /dev/null

# define: what is free; not what a definition of ours, of mdevctl's, or a device has; nothing of a refused one is left
define_json $u1 manual assign_domain=0x10 assign_adapter=01
expect 1 "00.0006 is held by definition 'ours'; free instead" define_json $u2 manual assign_adapter=0 assign_domain=6
expect 1 "01.0010 is held by mdevctl's definition '$u1'" define_json $u2 manual assign_adapter=1 assign_domain=16
expect 1 "05.0047 is held by mediated device '$u3'" define_json $u2 auto assign_adapter=5 assign_domain=0x47
expect 1 "adapter 0xff is above this machine's highest" define_json $u2 auto assign_adapter=255
expect 1 'number from 0 to 255' define_json $u2 auto assign_adapter=banana assign_domain=6
expect 1 'number from 0 to 255' define_json $u2 auto assign_adapter=40,41 assign_domain=6
expect 1 "is matrix 'ours' of guestcrypt" define_json "$ours" auto assign_adapter=4
[ "$(ls /etc/mdevctl.d/matrix)" = $u1 ] || die "a refused definition was written: $(ls /etc/mdevctl.d/matrix)"
lock_is_free

# modify: step by step as people do it, checked at the step that makes the queue
mdevctl define -u $u2 -p matrix -t vfio_ap-passthrough
mdevctl modify -u $u2 --addattr=assign_adapter --value=0
expect 1 "00.0006 is held by definition 'ours'" mdevctl modify -u $u2 --addattr=assign_domain --value=6
mdevctl modify -u $u2 --addattr=assign_domain --value=0x1b
mdevctl modify -u $u2 --auto
[ "$(what_mdevctl_has -d $u2 | jq -c '.. | .attrs? // empty')" = '[{"assign_adapter":"0"},{"assign_domain":"0x1b"}]' ] || die "it was changed otherwise"

# start and stop
mdevctl start -u $u1
[ "$(cat $matrix/$u1/matrix)" = 01.0010 ] || die "it has $(cat $matrix/$u1/matrix)"
expect 3 $u1 guestcryptctl check --adapters 1 --domains 0x10 --start
expect 1 "01.0010 is held by mediated device '$u1'" mdevctl start -p matrix --jsonfile <(json manual assign_adapter=1 assign_domain=16)
expect 1 "00.0006 is held by definition 'ours'" mdevctl start -p matrix --jsonfile <(json manual assign_adapter=0 assign_domain=6)
[ "$(ls /sys/bus/mdev/devices | sort | tr '\n' ' ')" = "$u1 $u3 " ] || die "a refused device is there: $(ls /sys/bus/mdev/devices)"
mdevctl stop -u $u1
[ ! -d $matrix/$u1 ] || die "it is still there"
expect 0 '' guestcryptctl check --adapters 1 --domains 0x1b

# a transient device, which is read without the lock, and its definition from what it has
mdevctl start -u $u1
mdevctl undefine -u $u1
echo $$ > /run/lock/s390apconfig.lock
[ "$(what_mdevctl_has $u1 | jq -c '.. | .attrs? // empty')" = '[{"assign_adapter":"1"},{"assign_domain":"16"}]' ] || die "what is live is shown as $(what_mdevctl_has $u1)"
rm /run/lock/s390apconfig.lock
mdevctl define -u $u1
[ "$(what_mdevctl_has -d $u1 | jq -c '.. | .attrs? // empty')" = '[{"assign_adapter":"1"},{"assign_domain":"16"}]' ] || die "defined from what is live: $(what_mdevctl_has -d $u1)"

# the autostart of a whole parent
mdevctl start-parent-mdevs matrix
[ -d $matrix/$u2 ] || die "it was not started automatically"

# ours are ours to change
guestcryptctl start ours > /dev/null
expect 1 "use 'guestcryptctl stop'" mdevctl stop -u "$ours"
expect 1 'mdev-remove' mdevctl stop -u $u3
[ -d "$matrix/$ours" ] && [ -d $matrix/$u3 ] || die "mdevctl stopped what is ours"
expect 1 "is matrix 'ours' of guestcrypt" mdevctl define -u "$ours"

if [ "$version" = 1.4 ]; then
        # live: one write, whose result is looked at
        json manual assign_adapter=1 assign_adapter=2 assign_domain=16 assign_control_domain=7 > /run/live.json
        mdevctl modify -u $u1 -p matrix --live --defined --jsonfile /run/live.json
        [ "$(cat $matrix/$u1/matrix | tr '\n' ' ')" = '01.0010 02.0010 ' ] || die "live: $(cat $matrix/$u1/matrix)"
        [ "$(what_mdevctl_has -d $u1)" = "$(what_mdevctl_has $u1 | jq -Sc '.start = "manual"')" ] ||
                die "defined: $(what_mdevctl_has -d $u1), live: $(what_mdevctl_has $u1)"
        json manual assign_adapter=0 assign_domain=6 > /run/live.json
        expect 1 "00.0006 is held by" mdevctl modify -u $u1 -p matrix --live --defined --jsonfile /run/live.json
        [ "$(cat $matrix/$u1/matrix | tr '\n' ' ')" = '01.0010 02.0010 ' ] || die "live: $(cat $matrix/$u1/matrix)"
        [ "$(what_mdevctl_has -d $u1 | jq -c '.. | .attrs? // empty | length')" = 4 ] || die "the refused change is stored: $(what_mdevctl_has -d $u1)"
        # the kernel's refusal is one: a queue that nobody claims, but the kernel does not give
        json manual assign_adapter=3 assign_domain=16 > /run/live.json
        echo "fault write devices/vfio_ap/matrix/$u1/ap_config EBUSY" > /sys/.sim/ctl
        expect 1 'the kernel refused' mdevctl modify -u $u1 -p matrix --live --defined --jsonfile /run/live.json
        echo clear > /sys/.sim/ctl
        [ "$(what_mdevctl_has -d $u1 | jq -c '.. | .attrs? // empty | length')" = 4 ] || die "what the kernel refused is stored: $(what_mdevctl_has -d $u1)"
        # whoever knows better can go ahead
        expect 0 'Forcing' mdevctl define -u 44444444-4444-4444-4444-444444444444 -p matrix --force --jsonfile <(json manual assign_adapter=0 assign_domain=6)
        mdevctl undefine -u 44444444-4444-4444-4444-444444444444
fi

# the protocol itself
callout() { # EVENT ACTION [TYPE [PARENT]]
        $callouts/00-guestcrypt -t "${3:-vfio_ap-passthrough}" -e "$1" -a "$2" -s none -u $u1 -p "${4:-matrix}"
}
provides='{"provides":{"version":2,"actions":["start","stop","define","undefine","modify","attributes","capabilities"],"events":["pre","post","notify","get","live"]}}'
[ "$(callout get capabilities <<< "$provides")" = '{"supports":{"version":2,"actions":["start","stop","define","undefine","modify","attributes","capabilities"],"events":["pre","post","get","live"]}}' ] ||
        die "capabilities: $(callout get capabilities <<< "$provides")"
# of what a later version may have, and an earlier one has not, what both know
[ "$(callout get capabilities <<< '{"provides":{"version":3,"actions":["define","frob"],"events":["pre","during"]}}')" = '{"supports":{"version":2,"actions":["define"],"events":["pre"]}}' ]
[ "$(callout get capabilities <<< '{"provides":{"version":1,"actions":["define"],"events":[]}}')" = '{"supports":{"version":1,"actions":["define"],"events":[]}}' ]
expect 1 'does not say' callout get capabilities <<< '{}'
expect 2 '^$' callout pre start mtty-1 mtty </dev/null
expect 1 "'mtty' has no such" callout pre start vfio_ap-passthrough mtty < /dev/null
expect 1 'not known' callout get frob < /dev/null
expect 0 '^$' callout notify define < /dev/null
expect 1 'usage' $callouts/00-guestcrypt
expect 1 'cannot be read' callout pre define <<< 'no json'
lock_is_free

# other types are none of its business, with the daemon or without
mdevctl start -u 55555555-5555-5555-5555-555555555555 -p mtty -t mtty-1
mdevctl stop -u 55555555-5555-5555-5555-555555555555

# the lock of s390-tools: it is waited for, and in mdevctl's name
sleep 1000 & holder=$!
echo $holder > /run/lock/s390apconfig.lock
mdevctl define -u 66666666-6666-6666-6666-666666666666 -p matrix -t vfio_ap-passthrough & waiting=$!
until_true 10 pgrep -P $waiting || die "mdevctl does not run its callout"
[ ! -e /etc/mdevctl.d/matrix/66666666-6666-6666-6666-666666666666 ] || die "it did not wait for the lock"
kill $holder
wait $holder 2> /dev/null || :
wait $waiting
[ -e /etc/mdevctl.d/matrix/66666666-6666-6666-6666-666666666666 ] || die "it was not defined when the lock was free"
lock_is_free

# without the daemon: nothing is taken, all can be given up, what is live can be seen
no_activation
kill "$(cat /run/.devhost/guestcryptd.pid)"
until_true 20 eval '! guestcryptctl status' || die "the daemon does not end"
expect 1 'guestcryptd does not answer.*systemctl start' define_json 77777777-7777-7777-7777-777777777777 auto assign_adapter=4 assign_domain=6
expect 1 'guestcryptd does not answer' mdevctl start -p matrix --jsonfile <(json manual assign_adapter=4 assign_domain=6)
mdevctl define -u 77777777-7777-7777-7777-777777777777 -p matrix -t vfio_ap-passthrough # it has no queue
mdevctl undefine -u $u2
[ "$(what_mdevctl_has $u2 | jq -c '.. | .attrs? // empty')" = '[{"assign_adapter":"0"},{"assign_domain":"27"}]' ] || die "not shown without the daemon"
mdevctl stop -u $u2
lock_is_free
