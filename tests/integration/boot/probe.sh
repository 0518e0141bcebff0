#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# probe.sh - in the booted system: what the unit promises
set -euo pipefail
trap 'echo "line $LINENO: failed: $BASH_COMMAND"' ERR
trap '[ -e /mnt/passed ] || journalctl -b -u guestcryptd > /mnt/journal 2>&1' EXIT

fail() {
        echo "FAILED: $*"
        exit 1
}
ok() {
        echo "ok: $* ($SECONDS s)"
}
show() {
        systemctl show -P "$1" guestcryptd.service
}
until_true() {
        local n

        for n in {1..300}; do
                ! "$@" > /dev/null 2>&1 || return 0
                sleep 0.1
        done
        return 1
}
restarted() {
        [ "$(show ActiveState)" = active ] && [ "$(show MainPID)" != "$1" ]
}
started() {
        guestcryptctl --json list | grep '"state": *"started"' > /dev/null
}

systemctl --version | sed -n 1p
[ "$(show ActiveState)" = active ] || fail "guestcryptd is $(show ActiveState): $(journalctl -b -u guestcryptd)"
ok "it started with the system, and said that it is ready"

pid=$(show MainPID)
verified=$(systemd-analyze verify guestcryptd.service 2>&1 | grep -v "'man " | grep guestcrypt || :)
[ -z "$verified" ] || fail "systemd does not like the unit: $verified"
[ "$(stat -c '%a %U' /var/lib/guestcrypt)" = '700 root' ] || fail "state directory: $(stat -c '%a %U' /var/lib/guestcrypt)"
[ -d /run/guestcrypt ] || fail "no runtime directory"
ok "unit and directories"

# The sandbox holds, and lets through what is needed.
grep -q 'CapEff:[[:space:]]*0000000000000000$' "/proc/$pid/status" || fail "it has capabilities: $(grep Cap "/proc/$pid/status")"
grep -q 'NoNewPrivs:[[:space:]]*1$' "/proc/$pid/status" || fail "it may get new privileges"
grep -q 'Seccomp:[[:space:]]*2$' "/proc/$pid/status" || fail "its system calls are not filtered"
for dir in /etc /usr /root /var/lib; do
        ! nsenter -t "$pid" -m touch $dir/x 2> /dev/null || fail "it can write to $dir"
done
guestcryptctl status
guestcryptctl define guest-1 --adapters 4 --domains 0x47 --autostart --start
uuid=$(ls /sys/bus/mdev/devices)
[ "$(cat "/sys/bus/mdev/devices/$uuid/matrix")" = 04.0047 ] || fail "the matrix is wrong"
guestcryptctl mdev-create mtty mtty-1 > /run/mtty
guestcryptctl mdev-remove "$(cat /run/mtty)"
ok "in its sandbox it manages matrices and mdevs"

systemctl reload guestcryptd
[ "$(show MainPID)" = "$pid" ] && [ "$(show ActiveState)" = active ] || fail "reload"
[ -z "$(journalctl -b -u guestcryptd -p warning -q)" ] || fail "it complains: $(journalctl -b -u guestcryptd -p warning -q)"
ok "reload"

kill -STOP "$pid"
until_true restarted "$pid" || fail "the watchdog did not bring back a daemon that hangs"
until_true started || fail "the matrix is not known any more"
ok "a daemon that hangs is restarted"

pid=$(show MainPID)
kill -KILL "$pid"
until_true restarted "$pid" || fail "it is not restarted after SIGKILL"
until_true started || fail "the matrix is not known any more"
ok "a killed daemon is restarted"

systemctl stop guestcryptd
[ "$(show Result)" = success ] && [ "$(show ActiveState)" = inactive ] || fail "stop: $(show Result), $(show ActiveState)"
[ -d "/sys/bus/mdev/devices/$uuid" ] || fail "stopping the daemon took the guest's device"
[ -d /run/guestcrypt ] || fail "the runtime directory is gone"
ok "it stops, and the devices stay"

guestcryptctl list
[ "$(show ActiveState)" = active ] || fail "a call on the bus does not start it"
started || fail "the matrix is not known any more"
ok "a call on the bus starts it"

# Somebody who is not root may look, and only look.
setpriv --reuid=nobody --regid=nogroup --clear-groups guestcryptctl list > /dev/null || fail "nobody may not look"
! setpriv --reuid=nobody --regid=nogroup --clear-groups guestcryptctl --no-ask-password stop guest-1 2> /run/why ||
        fail "nobody may change"
grep -qi -e denied -e authenti /run/why || fail "the refusal does not say why: $(cat /run/why)"
started || fail "nobody has changed something"
ok "polkit is asked"

guestcryptctl undefine guest-1 --stop
[ -z "$(ls /sys/bus/mdev/devices)" ] || fail "the device is left"
: > /mnt/passed
