#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# probe_vtpm.sh - in the booted system: TPMs of guestcryptd, as units of systemd that it starts, follows and finds again
set -euo pipefail
trap 'echo "line $LINENO: failed: $BASH_COMMAND"' ERR
trap '[ -e /mnt/passed ] || journalctl -b -u "guestcrypt*" > /mnt/journal 2>&1' EXIT

fail() {
        echo "FAILED: $*"
        exit 1
}
ok() {
        echo "ok: $* ($SECONDS s)"
}
until_true() {
        local n

        for n in {1..300}; do
                ! "$@" > /dev/null 2>&1 || return 0
                sleep 0.1
        done
        return 1
}
# show UNIT PROPERTY
show() {
        systemctl show -P "$2" "$1"
}
# about NAME: what guestcryptctl says of a TPM
about() {
        guestcryptctl tpm-show "$1"
}
# is NAME STATE
is() {
        about "$1" | grep "^state  *$2\$" > /dev/null
}
another() {
        [ "$(show "$1" ActiveState)" = active ] && [ "$(show "$1" MainPID)" != "$2" ]
}

# A guest, of QEMU's group but not root, runs commands; progress: waits until one more is done.
guest() {
        mkfifo "/run/guest.in" "/run/guest.out"
        setpriv --reuid=games --regid=kvm --clear-groups /mnt/vtpm_load "/run/guestcrypt/tpm/$1/device.sock" vfio-user \
                < /run/guest.in > /run/guest.out 2> /run/guest.err &
        guest=$!
        exec 8> /run/guest.in 9< /run/guest.out
        progress
}
progress() {
        echo >&8
        read -r -t 60 count <&9 || fail "the guest: $(cat /run/guest.err)"
}
end_guest() {
        echo end >&8
        read -r -t 60 count <&9 || :
        wait "$guest" || fail "the guest: $(cat /run/guest.err)"
        rm /run/guest.{in,out,err}
}

systemctl --version | sed -n 1p
mkdir -p /etc/guestcrypt/guestcrypt.conf.d
printf '%s\n' '[Manager]' 'TpmGroup=kvm' > /etc/guestcrypt/guestcrypt.conf.d/test.conf
systemctl restart guestcryptd
for unit in guestcrypt-tpm-job@ guestcrypt-swtpm@ guestcrypt-tpm@; do
        verified=$(systemd-analyze verify "/usr/lib/systemd/system/${unit}x.service" 2>&1 | grep -v "'man " | grep "$unit" || :)
        [ -z "$verified" ] || fail "systemd does not like a unit: $verified"
done

guestcryptctl tpm-define one
uuid=$(about one | sed -n 's/^uuid  *//p')
swtpm=guestcrypt-swtpm@$uuid.service device=guestcrypt-tpm@$uuid.service
[ "$(ls /var/lib/guestcrypt/tpms)" = "$uuid" ] || fail "it is not where it belongs"
grep -q 'CapEff:[[:space:]]*0000000000000000$' "/proc/$(show guestcryptd MainPID)/status" || fail "the daemon has capabilities"
ok "a TPM is made by a unit, with certificates; the daemon needs no capability for it"

guestcryptctl tpm-start one
is one running || fail "$(about one)"
for unit in $swtpm $device; do
        pid=$(show "$unit" MainPID)
        grep -q 'Uid:[[:space:]]*1900000001[[:space:]]' "/proc/$pid/status" || fail "$unit: $(grep Uid "/proc/$pid/status")"
        grep -q 'CapEff:[[:space:]]*0000000000000000$' "/proc/$pid/status" || fail "$unit has capabilities"
        grep -q 'Seccomp:[[:space:]]*2$' "/proc/$pid/status" || fail "$unit: its system calls are not filtered"
done
# slice PID: how long the turns are that the scheduler gives it, in ns; nothing where the kernel does not tell
slice() {
        sed -n 's/^se\.slice  *:  *//p' "/proc/$1/sched" 2> /dev/null || :
}
[ -z "$(slice self)" ] || [ "$(slice "$(show "$device" MainPID)")" = 4000000 ] || fail "the device may not ask the scheduler for anything"
# policy PID: as in sched(7); 3 is SCHED_BATCH
policy() {
        sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 39
}
[ ! -e /proc/self/schedstat ] || [ "$(policy "$(show "$device" MainPID)")" = 3 ] || fail "the device interrupts who rings"
[ "$(stat -c '%a %G' "/run/guestcrypt/tpm/$uuid/device.sock")" = '660 kvm' ] || fail "QEMU cannot connect"
[ "$(stat -c '%a %G' "/run/guestcrypt/tpm/$uuid")" = '750 kvm' ] || fail "QEMU cannot get to it"
[ "$(stat -c '%a %U' "/run/guestcrypt/tpm/$uuid/control.sock")" = '600 root' ] || fail "QEMU may reset the TPM"
guest "$uuid"
ok "it serves a VMM"

for i in {1..5}; do
        pid=$(show "$device" MainPID)
        kill -KILL "$pid"
        until_true another "$device" "$pid" || fail "the device is not started again"
        progress
done
systemctl restart "$device"
progress
until_true is one running || fail "$(about one)"
ok "a device that is killed, or restarted, goes on where it was"

pid=$(show guestcryptd MainPID)
kill -KILL "$pid"
until_true another guestcryptd "$pid" || fail "guestcryptd is not started again"
progress
until_true is one running || fail "$(about one)"
systemctl stop guestcryptd
progress
systemctl start guestcryptd
is one running || fail "$(about one)"
guestcryptctl tpm-start one
progress
end_guest
ok "guestcryptd finds what runs: $count commands"

guest "$uuid"
systemctl kill --signal=KILL "$swtpm"
! wait "$guest" || fail "a guest without a TPM gets answers"
grep -q 'answered with an error' /run/guest.err || fail "$(cat /run/guest.err)"
rm /run/guest.{in,out,err}
until_true another "$swtpm" 0 || fail "swtpm is not started again"
guestcryptctl tpm-start one
guest "$uuid"
end_guest
until_true is one running || fail "$(about one)"
ok "swtpm that is killed is there for the next guest"

guestcryptctl tpm-stop one
is one defined || fail "$(about one)"
for unit in $swtpm $device; do
        [ "$(show "$unit" ActiveState)" = inactive ] || fail "$unit is $(show "$unit" ActiveState)"
done
[ ! -e "/run/guestcrypt/tpm/$uuid" ] || fail "its directory is left"
guestcryptctl tpm-start one --model crb
[ "$(stat -c '%a %G' "/run/guestcrypt/tpm/$uuid/swtpm.sock")" = '660 kvm' ] || fail "QEMU cannot connect"
systemctl kill --signal=STOP "$swtpm"
guestcryptctl tpm-stop one
[ "$(show "$swtpm" ActiveState)" = inactive ] || fail "$swtpm is $(show "$swtpm" ActiveState)"
ok "stopped, it leaves nothing, not even if it hangs"

guestcryptctl tpm-backup one /root/one.tpm
guestcryptctl tpm-undefine one --wipe
[ -z "$(ls -A /var/lib/guestcrypt/tpms)" ] || fail "something is left: $(ls -A /var/lib/guestcrypt/tpms)"
guestcryptctl tpm-restore /root/one.tpm --name two
guestcryptctl tpm-start two
guest "$uuid"
end_guest
guestcryptctl tpm-stop two
ok "backup and restore"

guestcryptctl tpm-define short --ephemeral
guestcryptctl tpm-start short
short=$(about short | sed -n 's/^uuid  *//p')
guest "$short"
end_guest
guestcryptctl tpm-stop short
[ ! -e "/run/guestcrypt/tpm/$short" ] || fail "its directory is left"
ok "an ephemeral one"

# The key is a credential of the units.
head -c 32 /dev/urandom > /root/key
# give KEY: to the units, from now on
give() {
        local unit

        for unit in guestcrypt-tpm-job@ guestcrypt-swtpm@; do
                mkdir -p "/etc/systemd/system/$unit.service.d"
                printf '%s\n' '[Service]' "$1" > "/etc/systemd/system/$unit.service.d/key.conf"
        done
        systemctl daemon-reload
}
# A start that is refused says in the launcher's words why, and leaves nothing that has failed.
refused() {
        ! guestcryptctl tpm-start locked 2> /run/why || fail "it starts $1"
        grep -q "$2" /run/why || fail "$(cat /run/why)"
        is locked failed || fail "$(about locked)"
        [ -z "$(systemctl list-units --all --plain --no-legend --state=failed 'guestcrypt-*@*')" ] || fail "failed units are left"
}
give LoadCredential=tpm-locked:/root/key
guestcryptctl tpm-define locked --encrypted
locked=$(about locked | sed -n 's/^uuid  *//p')
[ ! -e "/var/lib/guestcrypt/tpms/$locked/key" ] || fail "the key is on the disk"
grep -q '"credential"' "/var/lib/guestcrypt/tpms/$locked/tpm.json" || fail "$(cat "/var/lib/guestcrypt/tpms/$locked/tpm.json")"
guestcryptctl tpm-start locked
guest "$locked"
end_guest
guestcryptctl tpm-stop locked
ok "a key that is a credential"

rm /etc/systemd/system/guestcrypt-swtpm@.service.d/key.conf
systemctl daemon-reload
refused 'without its key' "was not given the credential 'tpm-locked'"
head -c 31 /dev/urandom > /root/short
give LoadCredential=tpm-locked:/root/short
refused 'with half a key' 'has to be 32 bytes'
ok "not without it, nor with another"

# as an operator would have it: on the disk only what this host can decrypt
systemd-creds encrypt --with-key=host --name=tpm-locked /root/key /root/key.cred 2> /run/why || fail "$(cat /run/why)"
give LoadCredentialEncrypted=tpm-locked:/root/key.cred
guestcryptctl tpm-start locked
guest "$locked"
end_guest
guestcryptctl tpm-stop locked
rm -r /etc/systemd/system/guestcrypt-{swtpm,tpm-job}@.service.d
systemctl daemon-reload
ok "and encrypted for this host"

[ -z "$(ls /run/guestcrypt/tpm-jobs)" ] || fail "jobs are left"
[ -z "$(systemctl list-units --all --plain --no-legend 'guestcrypt-*@*')" ] || fail "units are left: $(systemctl list-units --all --plain --no-legend 'guestcrypt-*@*')"
: > /mnt/passed
