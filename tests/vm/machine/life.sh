# SPDX-License-Identifier: LGPL-2.1-or-later
#
# life.sh - in the guest: the life of definitions on the real driver, and what can go wrong with it
. /usr/lib/checker.sh

systemctl start guestcryptd || { journalctl --no-pager -u guestcryptd; exit 1; }
expect 0 '' ready
expect 0 '0x03-0x05,0x0a' guestcryptctl status
expect 0 'given to guests by nothing' guestcryptctl host-show
ok "guestcryptd runs on $(uname -r) with the unit that is installed"

# A matrix of queues that are the host's; one that overlaps it; one beside it.
expect 3 "host's own drivers" guestcryptctl define payments --adapters 4,5 --domains 1,2 --start
expect 0 'defined and started' guestcryptctl define payments --adapters 4,5 --domains 1,2 --from-host --autostart --start
payments=$(uuid_of payments)
[ "$(queues_of "$payments" | tr '\n' ' ')" = '04.0001 04.0002 05.0001 05.0002 ' ] || fail "it has $(queues_of "$payments")"
expect 3 "05.0002 is held by definition 'payments'" guestcryptctl define greedy --adapters 5 --domains 2,6 --start
expect 0 'defined and started' guestcryptctl define vault --adapters 10 --domains 6 --control 16 --from-host --start
vault=$(uuid_of vault)
[ "$(live)" = 2 ] || fail "$(live) mdevs"
[ "$(cat "$mdevs/$vault/control_domains" | tr '\n' ' ')" = '0010 ' ] || fail "control domains"
check "two matrices"
ok "two matrices live, the overlap is refused"

# Changed while it is live; the kernel's own view agrees.
expect 0 '' guestcryptctl modify payments --adapters 4,5 --domains 1,2,6
[ "$(queues_of "$payments" | wc -l)" = 6 ] || fail "it was not changed: $(queues_of "$payments")"
expect 3 "0a.0006 is held by definition 'vault'" guestcryptctl modify payments --adapters 4,10 --domains 1,6
[ "$(queues_of "$payments" | wc -l)" = 6 ] || fail "a refused change has changed something"
check "modified"
ok "a live matrix is changed as a whole, or not at all"

# Somebody else: by hand, and with mdevctl.
foreign=11111111-2222-4333-8444-555555555555
echo $foreign > $create
echo 4 > $mdevs/$foreign/assign_adapter
echo 0x1b > $mdevs/$foreign/assign_domain
expect 3 "04.001b" guestcryptctl define late --adapters 4 --domains 0x1b --start
expect 0 '' until_true "guestcryptctl mdev-list | grep $foreign"
[ -e $mdevs/$foreign ] || fail "the foreign one is gone"
if echo 0x0006 2> /dev/null > $mdevs/$foreign/assign_domain; then
        fail "the kernel gave a queue twice"
fi
echo 1 > $mdevs/$foreign/remove
mdevctl define --uuid $foreign --jsonfile <(echo '{"mdev_type":"vfio_ap-passthrough","start":"manual","attrs":[{"assign_adapter":"5"},{"assign_domain":"0x4c"}]}') \
        --parent matrix || fail "mdevctl defines nothing"
expect 3 "mdevctl" guestcryptctl define late --adapters 5 --domains 0x4c
expect 0 '' mdevctl start --uuid $foreign
expect 0 '' mdevctl stop --uuid $foreign
expect 0 '' mdevctl undefine --uuid $foreign
check "foreign ones"
ok "mdevs by hand and by mdevctl are seen, counted and left alone"

# The hardware changes under it.
echo '-apm 5; rescan' > $model
expect 0 '' until_true "guestcryptctl --json show payments | jq -e '.problems[] | contains(\"0x05\")'"
echo '+apm 5; rescan' > $model
expect 0 '' until_true "guestcryptctl --json show payments | jq -e '.problems == []'"
check "an adapter that went and came"
echo 'chkstop 4; rescan' > $model
expect 0 '' guestcryptctl queues
check "checkstop"
echo 'nochkstop 4; rescan' > $model
echo 'decfg 10; rescan' > $model
expect 0 '' guestcryptctl list
echo 'cfg 10; rescan' > $model
expect 0 '' until_true "guestcryptctl --json show vault | jq -e '.problems == []'"
check "standby"
ok "adapters go, come, stop and are configured off"

# A queue whose reset hangs: the write that stops the matrix does not come back; everybody else is answered.
echo 'stuck 0a.0006' > $model
guestcryptctl stop vault > /run/stop 2>&1 &
stopping=$!
expect 0 '' until_true "! state_is vault started"
for _ in 1 2 3 4 5; do
        busctl get-property org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager Version > /dev/null || fail "no answer"
done
expect 3 '05.0002  definition  payments' guestcryptctl check --adapters 5 --domains 2
[ -e "$parent/$vault" ] || fail "the stop did not wait for the reset"
echo 'nostuck 0a.0006' > $model
# On a machine that is slow enough the daemon has given up waiting by now, and has said so; it goes on all the same.
wait $stopping || echo "the stop: $(cat /run/stop)"
expect 0 '' until_true "state_is vault defined"
[ ! -e "$parent/$vault" ] || fail "it is there still"
ok "a reset that hangs keeps nobody waiting"

# Killed at random moments of all that changes something: nothing overlaps, and what was asked is done or undone.
masks() {
        local apmask aqmask

        read -r apmask < $bus/apmask
        read -r aqmask < $bus/aqmask
        echo "$apmask,$aqmask"
}

domains_of() { # NAME: as its definition has them
        local show

        show=$(guestcryptctl --json show "$1" 2> /dev/null) || return 0
        show=${show#*\"domains\":\[}
        echo "${show%%]*}"
}

# one_of WHAT IS CHOICE...
one_of() {
        local what=$1 is=$2 choice

        shift 2
        for choice; do
                [ "$is" != "$choice" ] || return 0
        done
        fail "$what: '$is', which is none of: $*"
}

free=$(masks)
reserve=(--adapters 3 --domains 0x4c --by masks)
expect 0 '' guestcryptctl host-reserve "${reserve[@]}"
reserved=$(masks)
[ "$reserved" != "$free" ] || fail "reserving a queue changes no mask"
expect 0 '' guestcryptctl host-release "${reserve[@]}"
is "$(masks)" "$free" "the masks after a release"

operations=(
        'guestcryptctl start vault; guestcryptctl stop vault'
        'guestcryptctl define late --adapters 10 --domains 1 --start; guestcryptctl modify late --domains 1,2; guestcryptctl undefine late --stop'
        'guestcryptctl modify payments --domains 1,2; guestcryptctl modify payments --domains 1,2,6'
        'guestcryptctl host-reserve "${reserve[@]}"; guestcryptctl host-release "${reserve[@]}"'
)
RANDOM=7
for ((i = 0; i < 8; i++)); do
        (eval "${operations[i % 4]}") > /dev/null 2>&1 &
        pause "0.$((RANDOM % 10))"
        killed
        wait $!
        back
        expect 0 '' until_true "state_is vault started || state_is vault defined"
        check "after SIGKILL $i"
        one_of "domains of late after SIGKILL $i" "$(domains_of late)" '' '1' '1,2'
        one_of "domains of payments after SIGKILL $i" "$(domains_of payments)" '1,2' '1,2,6'
        one_of "masks after SIGKILL $i" "$(masks)" "$free" "$reserved"
        [ -e "$mdevs/$payments" ] || fail "payments was lost"
        is "$(live)" "$(guestcryptctl list | grep -c ' started ')" "devices after SIGKILL $i"
        systemctl reset-failed guestcryptd
done
state_is vault started || expect 0 '' guestcryptctl start vault
[ -z "$(domains_of late)" ] || expect 0 '' guestcryptctl undefine late --stop
expect 0 '' guestcryptctl modify payments --domains 1,2,6
[ "$(masks)" = "$free" ] || expect 0 '' guestcryptctl host-release "${reserve[@]}"
is "$(masks)" "$free" "the masks after all that"
[ "$(live)" = 2 ] || fail "$(live) mdevs after all that"
[ "$(queues_of "$payments" | wc -l)" = 6 ] && [ "$(queues_of "$vault")" = 0a.0006 ] || fail "they are not as they were"
ok "SIGKILL loses nothing"

# The driver itself goes and comes back.
modprobe -r vfio_ap || fail "vfio_ap cannot be unloaded"
expect 0 '' ready
expect 1 'modprobe vfio_ap' guestcryptctl start vault
modprobe vfio_ap || fail "vfio_ap cannot be loaded"
expect 0 '' until_true "state_is vault started || guestcryptctl start vault"
expect 0 '' until_true "state_is payments started || guestcryptctl start payments"
check "the driver was away"
ok "vfio_ap is unloaded and loaded under it"

# Queues by driver override (Linux 6.19) need full masks, which from-host starts have ended.
expect 0 '' guestcryptctl stop vault
expect 0 '' guestcryptctl stop payments
[ "$(live)" = 0 ] || fail "$(live) mdevs are left"
expect 0 '' guestcryptctl masks --adapters 0-255 --domains 0-255
full=$(masks) single=(--adapters 3 --domains 0x4c)
if [ -e $bus/devices/03.004c/driver_override ]; then
        expect 0 '' guestcryptctl host-reserve "${single[@]}" --by overrides
        [ "$(cat $bus/devices/03.004c/driver_override)" = vfio_ap ] || fail "there is no override"
        expect 0 'started' guestcryptctl define single "${single[@]}" --start
        check "an override"
        expect 0 '' guestcryptctl undefine single --stop
        expect 0 '' guestcryptctl host-release --all
        ok "a single queue by driver override"
else
        expect 1 'this kernel has no driver overrides' guestcryptctl host-reserve "${single[@]}" --by overrides
        is "$(masks)" "$full" "the masks after a refusal"
        ok "a kernel without driver overrides is told of"
fi
[ "$(basename "$(readlink $bus/devices/03.004c/driver)")" = cex4queue ] || fail "03.004c is not the host's again"

expect 0 '' systemctl stop guestcryptd
keep /var/lib/guestcrypt
the_end
