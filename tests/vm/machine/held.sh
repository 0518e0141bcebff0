# SPDX-License-Identifier: LGPL-2.1-or-later
#
# held.sh - in the guest: a device that a guest has while it is stopped, changed, removed, by us and by others
. /usr/lib/checker.sh

# A guest, as far as vfio_ap can tell: ap-guest has the device.
guest_begins() { # MDEV
        rm -f /run/guest.in
        mkfifo /run/guest.in
        : > /run/guest.out
        ap-guest "$1" < /run/guest.in > /run/guest.out 2>&1 8>&- &
        guest=$!
        exec 8> /run/guest.in
        until_true "grep 'has it' /run/guest.out" || fail "the guest has not got it: $(cat /run/guest.out)"
}

guest_is_told() { # WHAT: config, request, or both
        echo tell >&8
        until_true "[ \$(wc -l < /run/guest.out) = $((told += 1)) ]" || fail "the guest does not answer"
        is "$(tail -n 1 /run/guest.out)" "$1" "what the driver has told the guest"
}

guest_ends() {
        exec 8>&-
        wait $guest || fail "the guest ended with $?"
}

answers() { # WHAT: while that hangs, everybody is answered
        busctl get-property org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager Version > /dev/null || fail "$1: no answer"
        expect 3 'payments' guestcryptctl check --adapters 4 --domains 1
}

# nothing_changes MDEV COMMAND...: as it was before: matrix, masks, definition
nothing_changes() {
        local before after

        before=$(cat "$mdevs/$1/ap_config" $bus/apmask $bus/aqmask; guestcryptctl --json show payments | jq -cS .)
        "${@:2}"
        after=$(cat "$mdevs/$1/ap_config" $bus/apmask $bus/aqmask; guestcryptctl --json show payments | jq -cS .)
        is "$after" "$before" "after '${*:3}'"
        check "after '${*:3}'"
}

systemctl start guestcryptd || { journalctl --no-pager -u guestcryptd; exit 1; }
expect 0 '' ready
expect 0 'started' guestcryptctl define payments --adapters 4 --domains 1,2 --from-host --start
expect 0 'started' guestcryptctl define vault --adapters 4 --domains 6 --start
payments=$(uuid_of payments) vault=$(uuid_of vault)

told=1
guest_begins "$payments"
is "$(cat $bus/devices/04.0001/status)" 'in use' "status of its queue"
expect 0 '' until_true "guestcryptctl list | grep 'payments.*in-use'"

# What would take it away is refused, by whomever it is asked, and with the reason; nothing has changed then.
running="a guest is running with matrix 'payments'"
nothing_changes "$payments" expect 3 "$running" guestcryptctl stop payments
nothing_changes "$payments" expect 3 "$running" guestcryptctl undefine payments --stop
nothing_changes "$payments" expect 1 'stop it first' guestcryptctl undefine payments
nothing_changes "$payments" expect 1 "is matrix 'payments'" guestcryptctl mdev-remove "$payments"
nothing_changes "$payments" expect 1 "is matrix 'payments' of guestcrypt" mdevctl stop --uuid "$payments"
nothing_changes "$payments" expect 3 "04.0006 is held by definition 'vault'" guestcryptctl modify payments --domains 1,2,6
nothing_changes "$payments" expect 3 "would go to the host's drivers, but is in use by matrix" \
        guestcryptctl host-release --adapters 4 --domains 1 --by masks --take-others
nothing_changes "$payments" expect 3 "would go to the host's drivers, but is in use by matrix" \
        guestcryptctl masks --adapters 0-255 --domains 0-255
guest_is_told ''
answers "a guest has it"
ok "what a guest has is not taken from it, and the refusal says so"

# Other queues can be given to it while it runs, and it is told.
expect 0 'changed' guestcryptctl modify payments --domains 1,2,0x1b
guest_is_told config
is "$(cat $bus/devices/04.001b/status)" 'in use' "status of a queue that came later"
check "plugged"

# Its adapter goes and comes; the driver cannot be unloaded.
echo '-apm 4; rescan' > $model
expect 0 '' until_true "guestcryptctl --json show payments | jq -e '.problems[] | contains(\"0x04\")'"
guest_is_told config
check "unplugged under a guest"
echo '+apm 4; rescan' > $model
expect 0 '' until_true "guestcryptctl --json show payments | jq -e '.problems == []'"
is "$(cat $bus/devices/04.0001/status)" 'in use' "status of a queue that is there again"
guest_is_told config
expect 1 '' modprobe -r vfio_ap
expect 0 '' state_is payments started
check "the driver stays"

# The daemon is killed, and comes back to a guest that has noticed nothing.
killed
back
expect 3 "$running" guestcryptctl stop payments
guest_is_told ''
check "SIGKILL under a guest"
ok "a guest keeps what it has while hardware, driver and daemon change"

# Behind our back: the kernel asks the guest to let go, and the write does not come back before it does.
(echo 1 > "$mdevs/$payments/remove") 8>&- &
remover=$!
expect 0 '' until_true "[ ! -e $mdevs/$payments/ap_config ]"
expect 0 '' guestcryptctl reload
expect 0 '' until_true "guestcryptctl mdev-list | grep '$payments.*removing'"
expect 0 'is being removed by somebody else' guestcryptctl show payments
answers "somebody removes it"
expect 3 '' guestcryptctl stop payments
expect 3 "04.001b" guestcryptctl define late --adapters 4 --domains 0x1b --start
expect 0 'changed' guestcryptctl modify vault --domains 6,0x4c
kill -0 $remover || fail "the write did not wait for the guest"
# Killed meanwhile: the next daemon knows no more of the device than that its directory is there, and gives its queues to nobody.
systemctl kill -s KILL guestcryptd
expect 0 '' until_true ready
answers "somebody removes it, and the daemon is new"
expect 3 "04.001b" guestcryptctl define late --adapters 4 --domains 0x1b --start
guest_is_told 'config request'
check "removed behind our back, with a guest"
guest_ends
wait $remover || fail "the write has failed"
[ ! -e "$parent/$payments" ] || fail "it is there still"
expect 0 '' until_true "! guestcryptctl mdev-list | grep $payments"
check "removed behind our back"
expect 0 '' until_true "state_is payments lost"
expect 0 '' guestcryptctl reconcile
expect 0 '' until_true "state_is payments started"
is "$(queues_of "$payments" | tr '\n' ' ')" '04.0001 04.0002 04.001b ' "queues after it was healed"
check "healed"
ok "what is removed behind our back is known, claimed while it lasts, and healed"

# A device of somebody else's, which a guest has: we leave it alone, and mdevctl has to wait.
foreign=11111111-2222-4333-8444-555555555555
echo $foreign > $create
echo 3 > $mdevs/$foreign/assign_adapter
told=1
guest_begins $foreign
expect 1 'made by somebody else' guestcryptctl mdev-remove $foreign
mdevctl stop --uuid $foreign 8>&- &
remover=$!
expect 0 '' until_true "[ ! -e $mdevs/$foreign/ap_config ]"
answers "mdevctl waits"
guest_ends
wait $remover || fail "mdevctl has failed"
expect 0 '' until_true "[ ! -e $mdevs/$foreign ]"

# A reset that never ends, and a daemon that is killed while its child hangs in it, where nothing can kill that: systemd starts
# the next one beside it, which answers, and carries the stop to its end when the hardware has come back.
echo 'stuck 04.004c' > $model
guestcryptctl stop vault > /dev/null 2>&1 8>&- &
stopping=$!
expect 0 '' until_true "! state_is vault started"
systemctl kill -s KILL --kill-whom=main guestcryptd
begin=$(cut -d . -f 1 /proc/uptime)
wait $stopping
expect 0 '' until_true ready
echo "the next daemon answered after $(($(cut -d . -f 1 /proc/uptime) - begin)) s"
answers "the daemon is new, and a reset hangs"
[ -e "$parent/$vault" ] || fail "it is gone while its reset hangs"
echo 'nostuck 04.004c' > $model
expect 0 '' until_true "state_is vault defined"
[ ! -e "$parent/$vault" ] || fail "it was not removed"
check "after the reset"
ok "a reset that hangs keeps no new daemon from its work"

expect 0 '' guestcryptctl undefine payments --stop
expect 0 '' guestcryptctl undefine vault
is "$(live)" 0 "devices at the end"
the_end
