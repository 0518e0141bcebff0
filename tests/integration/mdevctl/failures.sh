#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# failures.sh - what goes wrong with today's tools, one by one, and does not here; docs/other-tools.md has the list
#
# usage: failures.sh VERSION
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/integration/mdevctl/lib.sh"
on_host '--profile z16' "$@"

# A definition that mdevctl starts by hand counts as much as one that it starts at boot, and as what is live.
define_json $u1 manual assign_adapter=1 assign_domain=1
for start in auto manual; do
        expect 1 "01.0001 is held by mdevctl's definition '$u1'" define_json $u2 $start assign_adapter=1 assign_domain=1
        expect 3 "mdevctl *$u1" guestcryptctl check --adapters 1 --domains 1
done
mdevctl start -u $u1
mdevctl undefine -u $u1
expect 1 "01.0001 is held by mediated device '$u1'" define_json $u2 manual assign_adapter=1 assign_domain=1
mdevctl stop -u $u1

# A file that is empty, or no definition: mdevctl lists nothing any more, all that we do goes on, and the check with it.
define_json $u1 manual assign_adapter=1 assign_domain=1
: > /etc/mdevctl.d/matrix/$u3
echo '{}' > /etc/mdevctl.d/matrix/44444444-4444-4444-4444-444444444444
expect 1 '' mdevctl list -d
expect 1 "01.0001 is held by mdevctl's definition '$u1'" define_json $u2 auto assign_adapter=1 assign_domain=1
expect 0 "$u3.*the file is empty" guestcryptctl status
expect 0 '44444444.*no mdev_type' guestcryptctl status
guestcryptctl define good --adapters 2 --domains 2 --start --autostart > /dev/null
rm /etc/mdevctl.d/matrix/*

# More queues than the kernel's list of them has room for: those behind the cut are seen.
guestcryptctl undefine good --stop > /dev/null
n=$(guestcryptctl --json status | jq '.installed_domains | length')
last=$(guestcryptctl --json status | jq '.installed_domains | max')
adapters=$(guestcryptctl --json status | jq -r '.installed_adapters | map(tostring) | join(",")')
[ $(($(tr ',' '\n' <<< "$adapters" | wc -l) * n)) -gt 512 ] || die "this profile has too few queues"
guestcryptctl define large --adapters "$adapters" --domains 0-"$last" --start > /dev/null
large=$(guestcryptctl --json show large | jq -r .uuid)
[ "$(wc -c < $matrix/"$large"/matrix)" -lt $((n * 8 * $(tr ',' '\n' <<< "$adapters" | wc -l))) ] || die "the kernel's list is not cut"
expect 1 "is held by definition 'large'" define_json $u1 auto "assign_adapter=${adapters##*,}" "assign_domain=$last"
mdevctl list > /dev/null
[ "$(what_mdevctl_has "$large" | jq '[.. | .assign_domain? // empty] | length')" = "$n" ] || die "mdevctl is told of a part only"
guestcryptctl undefine large --stop > /dev/null

# Reading waits for no lock.
mdevctl start -u $u1 -p matrix -t vfio_ap-passthrough
echo $$ > /run/lock/s390apconfig.lock
timeout 20 mdevctl list > /dev/null || die "reading waits for the lock"
timeout 20 guestcryptctl matrix > /dev/null || die "reading waits for the lock"
rm /run/lock/s390apconfig.lock
mdevctl stop -u $u1

# What is no id is refused where it is said, not at the next start.
for id in banana 4000 40,41 -1 ''; do
        expect 1 'number from 0 to 255' define_json $u1 auto assign_adapter="$id" assign_domain=1
done
[ -z "$(ls /etc/mdevctl.d/matrix)" ] || die "it was stored"

# A start that fails leaves no device, and says whose the queue is.
guestcryptctl define ours --adapters 1 --domains 1 > /dev/null
expect 1 "01.0001 is held by definition 'ours'" mdevctl start -u $u1 -p matrix --jsonfile <(json manual assign_adapter=1 assign_domain=1)
[ ! -d $matrix/$u1 ] || die "the device is left"

# A callout of somebody else's that dies, or agrees with everything, takes nothing away from the check. (1.2 takes the first that
# it finds, in no order.)
printf '#!/bin/sh\nkill -SEGV $$\n' > $callouts/50-dies
[ "$version" = 1.2 ] || printf '#!/bin/sh\nexit 0\n' > $callouts/90-agrees
chmod +x $callouts/*
expect 1 "01.0001 is held by definition 'ours'" define_json $u1 auto assign_adapter=1 assign_domain=1
rm -f $callouts/50-dies $callouts/90-agrees
guestcryptctl undefine ours > /dev/null

# A host that says with driver overrides whose its queues are: masks all ones, and still not all of it is the host's.
printf "0x%s" ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff > /sys/bus/ap/apmask
printf "0x%s" ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff > /sys/bus/ap/aqmask
queue=$(ls -d /sys/devices/ap/card*/*.* | sed -n 1p)
adapter=$((0x$(basename "${queue%.*}"))) domain=$((0x${queue##*.}))
expect 1 'left to the host' define_json $u1 auto assign_adapter=$adapter assign_domain=$domain
printf vfio_ap > "$queue/driver_override"
printf %s "${queue##*/}" > "$queue/driver/unbind"
printf %s "${queue##*/}" > /sys/bus/ap/drivers_probe
define_json $u1 auto assign_adapter=$adapter assign_domain=$domain
mdevctl start -u $u1
[ -n "$(cat $matrix/$u1/guest_matrix)" ] || die "its guest would have nothing"
mdevctl stop -u $u1
