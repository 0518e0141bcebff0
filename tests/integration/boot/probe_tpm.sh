#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# probe_tpm.sh - in the booted system: the units of guestcrypt-tpm(8), with systemd's descriptor store
#
# Two guests, one over each front, run commands one after the other while their device processes are restarted in all
# ways that there are. Environment of the test that made the system: /mnt/vtpm_load, /mnt/manual.sh.
set -euo pipefail
trap 'echo "line $LINENO: failed: $BASH_COMMAND"' ERR
trap '[ -e /mnt/passed ] || journalctl -b -u "vtpm*" > /mnt/journal 2>&1' EXIT
. /mnt/manual.sh
page=/usr/share/man/man8/guestcrypt-tpm.8
fronts=(vfio-user vhost-user)

fail() {
        echo "FAILED: $*"
        exit 1
}
ok() {
        echo "ok: $* ($SECONDS s)"
}
# show FRONT PROPERTY
show() {
        systemctl show -P "$2" "vtpm@$1.service"
}
until_true() {
        local n

        for n in {1..600}; do
                ! "$@" > /dev/null 2>&1 || return 0
                sleep 0.05
        done
        return 1
}
# another FRONT PID: another process than that serves it, and is ready
another() {
        [ "$(show "$1" ActiveState)" = active ] && [ "$(show "$1" MainPID)" != "$2" ]
}

declare -A to from pids

# guest FRONT: somebody who is not root, but of the unit's group, runs commands over it
guest() {
        mkfifo "/run/$1.in" "/run/$1.out"
        setpriv --reuid=games --regid=kvm --clear-groups /mnt/vtpm_load "/run/guestcrypt-tpm/$1/vtpm.sock" "$1" \
                < "/run/$1.in" > "/run/$1.out" 2> "/run/$1.err" &
        pids[$1]=$!
        exec {fd}> "/run/$1.in"
        to[$1]=$fd
        exec {fd}< "/run/$1.out"
        from[$1]=$fd
        progress "$1"
}

# progress FRONT: waits until one more command is done, which begins now
progress() {
        echo >&"${to[$1]}"
        read -r -t 60 count <&"${from[$1]}" || fail "$1: $(cat "/run/$1.err"); the unit is $(show "$1" ActiveState)"
}

# end_guest FRONT: what it has to say at the end
end_guest() {
        echo end >&"${to[$1]}"
        read -r -t 60 count <&"${from[$1]}" || :
        wait "${pids[$1]}" || fail "$1: $(cat "/run/$1.err")"
        rm "/run/$1."{in,out,err}
}

systemctl --version | sed -n 1p
for unit in vtpm@.service vtpm-swtpm@.socket vtpm-swtpm@.service; do
        manual_example "$page" "$unit" > "/etc/systemd/system/$unit"
done
mkdir -p /etc/guestcrypt
echo OPTIONS=--front=vhost-user > /etc/guestcrypt/tpm-vhost-user.conf
systemctl daemon-reload
verified=$(systemd-analyze verify /etc/systemd/system/vtpm* 2>&1 | grep -v "'man " | grep vtpm || :)
[ -z "$verified" ] || fail "systemd does not like the units: $verified"

for front in "${fronts[@]}"; do
        systemctl start "vtpm@$front" || fail "$front: it does not start"
        pid=$(show "$front" MainPID)
        grep -q "Uid:[[:space:]]*$(id -u nobody)[[:space:]]" "/proc/$pid/status" || fail "its user: $(grep Uid "/proc/$pid/status")"
        grep -q 'CapEff:[[:space:]]*0000000000000000$' "/proc/$pid/status" || fail "it has capabilities"
        grep -q 'Seccomp:[[:space:]]*2$' "/proc/$pid/status" || fail "its system calls are not filtered"
        [ "$(stat -c '%a %G' "/run/guestcrypt-tpm/$front/vtpm.sock")" = '660 kvm' ] || fail "QEMU cannot connect"
        [ "$(stat -c '%a %U' "/run/guestcrypt-tpm/$front/control.sock")" = '600 root' ] || fail "QEMU may reset the TPM"
        guest "$front"
done
ok "the units start, and serve a VMM"

# restart_one FRONT HOW
restart_one() {
        local pid

        pid=$(show "$1" MainPID)
        case $2 in
        kill) kill -KILL "$pid" ;;
        restart) systemctl restart "vtpm@$1" ;;
        reexec) systemctl daemon-reexec && kill -KILL "$pid" ;;
        esac
        until_true another "$1" "$pid" || fail "$1: it is not started again after $2: $(show "$1" ActiveState)"
        progress "$1"
}

for how in kill restart reexec; do
        n=20
        [ $how != reexec ] || n=2
        for ((i = 0; i < n; i++)); do
                for front in "${fronts[@]}"; do
                        restart_one "$front" $how
                done
        done
        ok "$n times $how"
done
for front in "${fronts[@]}"; do
        # state, client, machine, tpm, data, listen, control, the memory; irq0 and irq1, or kick, call and err
        stored=$(show "$front" NFileDescriptorStore)
        [ "$stored" = 10 ] || [ "$stored" = 11 ] || fail "$front: $stored descriptors are stored: something is kept twice or not at all"
        end_guest "$front"
        ok "$front: $count; each was executed once"
done

# The next VMM: by a socket that was taken away meanwhile.
for front in "${fronts[@]}"; do
        until_true [ "$(show "$front" NFileDescriptorStore)" -lt 10 ]
        rm "/run/guestcrypt-tpm/$front/vtpm.sock"
        systemctl restart "vtpm@$front"
        guest "$front"
        restart_one "$front" kill
        end_guest "$front"
done
ok "a socket that is not there any more is made anew, and serves the next VMM"

# A TPM that dies takes its guest's commands with it, and nothing else.
front=${fronts[0]}
guest "$front"
systemctl kill --signal=KILL "vtpm-swtpm@$front.service"
! wait "${pids[$front]}" || fail "a guest without a TPM gets answers"
grep -q 'answered with an error' "/run/$front.err" || fail "$(cat "/run/$front.err")"
rm "/run/$front."{in,out,err}
pid=$(show "$front" MainPID)
systemctl stop "vtpm-swtpm@$front.socket" "vtpm-swtpm@$front.service" "vtpm@$front"
systemctl start "vtpm@$front"
guest "$front"
end_guest "$front"
ok "a TPM that was killed is back with the next start"

for front in "${fronts[@]}"; do
        systemctl stop "vtpm@$front"
        [ "$(show "$front" Result)" = success ] || fail "$front: $(show "$front" Result)"
        [ "$(show "$front" NFileDescriptorStore)" = 0 ] || fail "$front: something is left in the store"
        [ ! -e "/run/guestcrypt-tpm/$front" ] || fail "$front: its directory is left"
done
ok "stopped, they leave nothing"
: > /mnt/passed
