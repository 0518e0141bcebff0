# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tools-again.sh - in the guest: the next boot, with udev's rule for the masks, and definitions of both that start by themselves
. /usr/lib/checker.sh

rules=/etc/udev/rules.d/41-ap.rules
other=11111111-2222-4333-8444-555555555555
third=22222222-2222-4333-8444-555555555555

expect 0 '' until_true ready
for mask in apmask aqmask; do
        is "$(cat $bus/$mask)" "$(sed -n "s/.*$mask}=\"\(.*\)\"/\1/p" $rules)" "$mask as udev has set it"
done
[[ $(ids "$(cat $bus/apmask)") != *" 5 "* ]] || fail "udev has not set the masks"
expect 0 '' until_true "state_is payments started && state_is boots started"
expect 0 '' state_is vault defined
expect 0 '' until_true "[ -e $mdevs/$other ]"
expect 0 '' until_true "! systemctl is-active guestcrypt-mdevctl | grep activating"
[ ! -e $mdevs/$third ] || fail "mdevctl was let start what payments has"
expect 0 "04.0001 is held by" journalctl --no-pager -b -u guestcrypt-mdevctl
is "$(live)" 3 "devices"
check "after a boot"
ok "udev set the masks, and what starts by itself has started"
the_end
