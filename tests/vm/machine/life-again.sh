# SPDX-License-Identifier: LGPL-2.1-or-later
#
# life-again.sh - in the guest: the next boot
. /usr/lib/checker.sh

systemctl start guestcryptd || { journalctl --no-pager -u guestcryptd; exit 1; }
expect 0 '' until_true "state_is payments started"
expect 0 '' state_is vault defined
[ "$(live)" = 1 ] || fail "$(live) mdevs"
check "after a boot"
ok "what starts by itself has started, the rest is defined"

expect 0 '' guestcryptctl undefine payments --stop
expect 0 '' guestcryptctl undefine vault
[ "$(live)" = 0 ] || fail "$(live) mdevs are left"
the_end
