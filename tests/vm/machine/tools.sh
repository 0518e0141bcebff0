# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tools.sh - in the guest: the tools that others made, unmodified, beside guestcryptd on the real driver
. /usr/lib/checker.sh

other=11111111-2222-4333-8444-555555555555
third=22222222-2222-4333-8444-555555555555
device=mdev_${other//-/_}_matrix
rules=/etc/udev/rules.d/41-ap.rules

virsh() {
        command virsh -q -c nodedev:///system "$@"
}

xml() { # ADAPTER DOMAIN...
        local domain

        echo "<device><name>$device</name><parent>ap_matrix</parent><capability type='mdev'><type id='vfio_ap-passthrough'/><uuid>$other</uuid>"
        echo "<attr name='assign_adapter' value='$1'/>"
        for domain in "${@:2}"; do
                echo "<attr name='assign_domain' value='$domain'/>"
        done
        echo "</capability></device>"
} > /run/device.xml

json() { # manual|auto ADAPTER DOMAIN...
        local domain list="{\"assign_adapter\":\"$2\"}"

        for domain in "${@:3}"; do
                list+=",{\"assign_domain\":\"$domain\"}"
        done
        echo "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"$1\",\"attrs\":[$list]}"
} > /run/device.json

mdev_is() { # UUID QUEUE...
        is "$(queues_of "$1" | tr '\n' ' ')" "${*:2} " "queues of $1"
}

# lszcrypt and guestcryptctl say the same of each queue's driver and each adapter's state.
agree() { # WHEN
        local all theirs ours

        all=$(lszcrypt -V)
        theirs=$(mawk '$1 ~ /^[0-9a-f]+[.]/ { print $1, $NF == "vfio_ap" ? "vfio_ap" : "host" }' <<< "$all")
        ours=$(guestcryptctl queues | mawk 'NR > 1 { print $1, $3 }')
        is "$ours" "$theirs" "$1: queues"
        theirs=$(mawk '$1 ~ /^[0-9a-f]+$/ { print $1, $4 }' <<< "$all")
        ours=$(guestcryptctl adapters | mawk 'NR > 1 { sub("0x", "", $1); print $1, $4 }')
        is "$ours" "$theirs" "$1: adapters"
        # A queue is said to be assigned if and only if a matrix, or somebody's device, has it.
        theirs=$(mawk '/ (assigned|in use) / { print $1 }' <<< "$all")
        ours=$(for path in "$mdevs"/*; do [ ! -e "$path" ] || queues_of "${path##*/}"; done | sort)
        is "$theirs" "$ours" "$1: what is assigned"
}

systemctl start guestcryptd libvirtd.socket || { journalctl --no-pager -u guestcryptd; exit 1; }
expect 0 '' ready
agree "at the start"
expect 0 'defined and started' guestcryptctl define payments --adapters 4 --domains 1,2 --from-host --autostart --start
expect 0 'defined' guestcryptctl define vault --adapters 4 --domains 6
payments=$(uuid_of payments)
agree "with a matrix"
check "a matrix"

# ---- lszcrypt, chzcrypt ----

expect 0 '' chzcrypt -d 0x0a
expect 0 '0x0a     CEX8C  cca          offline' guestcryptctl adapters
agree "an adapter that is offline"
expect 0 '' chzcrypt -e 0x0a
agree "an adapter that is online again"
# In standby, as from the machine's console or with chzcrypt: it keeps its place in the matrix.
expect 0 '' chzcrypt --config-off 4
expect 0 '' until_true "guestcryptctl adapters | grep '0x04 .* deconfigured'"
expect 0 '' chzcrypt --config-on 4
expect 0 '' until_true "guestcryptctl adapters | grep '0x04 .* online'"
mdev_is "$payments" 04.0001 04.0002
agree "an adapter that was in standby"
check "chzcrypt"
ok "lszcrypt says what guestcryptctl says, chzcrypt's changes are noticed"

# ---- libvirt's node devices ----

expect 0 ap_matrix virsh nodedev-list --cap ap_matrix
is "$(virsh nodedev-list --cap ap_card | wc -l)" 4 "cards of libvirt"
is "$(virsh nodedev-list --cap ap_queue | wc -l)" "$(guestcryptctl queues | mawk 'NR > 1' | wc -l)" "queues of libvirt"
expect 0 "mdev_${payments//-/_}_matrix" virsh nodedev-list --cap mdev
expect 0 '<type id='\''vfio_ap-passthrough'\''/>' virsh nodedev-dumpxml "mdev_${payments//-/_}_matrix"

xml 4 2 6
for verb in create define; do
        expect 1 "04.0002 is held by definition 'payments'" virsh nodedev-$verb /run/device.xml
done
xml 4 6 0x1b
expect 1 "04.0006 is held by definition 'vault'" virsh nodedev-create /run/device.xml
xml 5 1
expect 1 "05.0001 is left to the host's own drivers" virsh nodedev-create /run/device.xml
is "$(live)" 1 "devices after refusals"
[ ! -e /etc/mdevctl.d/matrix/$other ] || fail "a refused definition was written"
expect 1 "use 'guestcryptctl stop'" virsh nodedev-destroy "mdev_${payments//-/_}_matrix"
check "virsh was refused"

xml 4 0x1b
expect 0 '' virsh nodedev-create /run/device.xml
mdev_is $other 04.001b
expect 3 "04.001b is held by mediated device '$other'" guestcryptctl define late --adapters 4 --domains 0x1b --start
agree "with a device of libvirt's"
check "a transient device of libvirt's"
expect 0 '' virsh nodedev-destroy $device
is "$(live)" 1 "devices after the end of libvirt's"
expect 0 '' virsh nodedev-define /run/device.xml
expect 3 "04.001b is held by mdevctl's definition '$other'" guestcryptctl define late --adapters 4 --domains 0x1b
expect 0 '' virsh nodedev-start $device
expect 0 '' until_true "guestcryptctl mdev-list | grep $other"
# Changed while it is live: refused as a whole, or done as a whole.
xml 4 0x1b 6
expect 1 "04.0006 is held by definition 'vault'" virsh nodedev-update $device /run/device.xml --live --config
mdev_is $other 04.001b
xml 4 0x1b 0x4c
expect 0 '' virsh nodedev-update $device /run/device.xml --live --config
mdev_is $other 04.001b 04.004c
expect 0 '0x4c' cat /etc/mdevctl.d/matrix/$other
check "libvirt's device was changed"
ok "libvirt's node device driver sees what guestcryptd makes, and makes no overlap"

# ---- mdevctl ----

json manual 4 6
expect 1 "04.0006 is held by definition 'vault'" mdevctl define --uuid $third --parent matrix --jsonfile /run/device.json
json manual 4 0x4c
expect 1 "04.004c is held by" mdevctl start --uuid $third --parent matrix --jsonfile /run/device.json
expect 0 '' mdevctl define --uuid $third --parent matrix --type vfio_ap-passthrough
expect 0 '' mdevctl modify --uuid $third --addattr=assign_adapter --value=4
expect 1 "04.0006 is held by definition 'vault'" mdevctl modify --uuid $third --addattr=assign_domain --value=6
expect 0 '' mdevctl undefine --uuid $third
# What libvirt has defined and started, mdevctl changes.
json manual 4 0x1b 1
expect 1 "04.0001 is held by definition 'payments'" mdevctl modify --live --uuid $other --jsonfile /run/device.json
mdev_is $other 04.001b 04.004c
json auto 4 0x1b
expect 0 '' mdevctl modify --live --defined --uuid $other --jsonfile /run/device.json
mdev_is $other 04.001b
expect 0 "\"assign_domain\": \"27\"" mdevctl list --dumpjson --uuid $other
expect 1 "is matrix 'payments' of guestcrypt" mdevctl stop --uuid "$payments"
[ ! -e /run/lock/s390apconfig.lock ] || fail "the lock was left to $(cat /run/lock/s390apconfig.lock)"
check "mdevctl"
# Behind the callout's back: the definition's file is written by hand. The kernel refuses what is live, we say whose it is.
json manual 4 6
cp /run/device.json /etc/mdevctl.d/matrix/$third
expect 0 '' until_true "guestcryptctl check --adapters 4 --domains 6 | grep $third"
expect 0 'started' guestcryptctl start vault
expect 1 "04.0006 is held by" mdevctl start --uuid $third
expect 0 '' mdevctl undefine --uuid $third
# From hand to hand, while it runs.
expect 0 '' guestcryptctl import mdevctl $other --name taken
expect 0 '' until_true "state_is taken started"
mdev_is $other 04.001b
expect 1 "is matrix 'taken' of guestcrypt" mdevctl modify --live --uuid $other --jsonfile /run/device.json
expect 0 '' guestcryptctl export mdevctl taken --force
expect 0 '0x1b' mdevctl list --defined --dumpjson --uuid $other
mdev_is $other 04.001b
check "from hand to hand"
ok "mdevctl is held to the same, and changes hands with guestcryptd"

# ---- mdevctl 1.2, which has its callouts elsewhere, and asks only one ----

old() {
        /usr/lib/mdevctl-1.2/mdevctl "$@"
}

mkdir -p /etc/mdevctl.d/scripts.d/notifiers # as its package does
expect 0 'mdevctl 1.2.' old --version
expect 0 'vfio_ap-passthrough' old types
json manual 4 6
expect 1 "04.0006 is held by definition 'vault'" old define --uuid $third --parent matrix --jsonfile /run/device.json
json manual 4 0x1b
expect 1 "04.001b is held by" old start --uuid $third --parent matrix --jsonfile /run/device.json
is "$(live)" 3 "devices after refusals of mdevctl 1.2"
expect 0 '' old define --uuid $third --parent matrix --type vfio_ap-passthrough
expect 0 '' old modify --uuid $third --addattr=assign_adapter --value=4
expect 1 "04.0001 is held by definition 'payments'" old modify --uuid $third --addattr=assign_domain --value=1
expect 0 '' old modify --uuid $third --addattr=assign_domain --value=0x4c
expect 0 '' old modify --uuid $third --auto
expect 3 "04.004c is held by mdevctl's definition '$third'" guestcryptctl define late --adapters 4 --domains 0x4c
expect 0 '' old start --uuid $third
mdev_is $third 04.004c
expect 0 '"start": "auto"' old list --defined --dumpjson --uuid $third
expect 0 "$third matrix vfio_ap-passthrough" old list
expect 3 "04.004c is held by" guestcryptctl define late --adapters 4 --domains 0x4c --start
expect 1 "is matrix 'payments' of guestcrypt" old stop --uuid "$payments"
agree "with a device of mdevctl 1.2"
check "a device of mdevctl 1.2"
expect 0 '' guestcryptctl import mdevctl $third --name older
expect 0 '' until_true "state_is older started"
expect 1 "is matrix 'older' of guestcrypt" old define --uuid $third --parent matrix --type vfio_ap-passthrough
expect 0 '' guestcryptctl export mdevctl older --force
expect 0 '0x4c' old list --defined --dumpjson --uuid $third
mdev_is $third 04.004c
expect 0 '' old stop --uuid $third
expect 0 '' old undefine --uuid $third
is "$(live)" 3 "devices after mdevctl 1.2"
[ ! -e /run/lock/s390apconfig.lock ] || fail "the lock was left to $(cat /run/lock/s390apconfig.lock)"
check "mdevctl 1.2"
ok "so is mdevctl 1.2"

# ---- the masks: chzdev and host-persist ----

expect 9 "apmask conflicts with mdev $payments APQN 4.1" chzdev --type ap apmask=+4 --active
is "$(ids "$(cat $bus/apmask)" | grep -c ' 4 ')" 0 "adapter 4 of the host's mask"
expect 0 '' guestcryptctl host-reserve --adapters 5 --domains 1,2,6,0x1b,0x4c --by masks
expect 0 '' guestcryptctl host-persist
is "$(sed -n 's/.*apmask}="\(.*\)"/\1/p' $rules)" "$(cat $bus/apmask)" "apmask in $rules"
is "$(lszdev --type ap | mawk '$1 == "apmask" { print $2 == $3 }')" 1 "chzdev's own reading of it"
# chzdev changes the file; what it says is what counts.
expect 0 '' chzdev --type ap apmask=-3 --persistent
expect 0 '0x00-0x02,0x06-0xff' guestcryptctl host-show
expect 0 '' chzdev --type ap apmask=+3 --persistent
# Somebody else has the lock: we wait for it, and the answers to others do not wait.
sleep 1000 &
holder=$!
echo $holder > /run/lock/s390apconfig.lock
(sleep 1; kill $holder) &
expect 0 '' guestcryptctl host-persist
expect 0 '' mdevctl stop --uuid $other
is "$(lszdev --type ap | mawk '$1 == "apmask" { print $2 == $3 }')" 1 "the masks of the next boot"
check "chzdev"
ok "the masks of the next boot are chzdev's file"

expect 0 '' guestcryptctl define boots --adapters 5 --domains 6 --autostart
expect 0 '' systemctl stop guestcryptd
# An operator's mistake for the next boot: mdevctl is to start by itself what is ours.
json auto 4 1
cp /run/device.json /etc/mdevctl.d/matrix/$third
keep /var/lib/guestcrypt /etc/udev/rules.d /etc/mdevctl.d/matrix
# Started at boot as on any host.
mkdir -p /mnt/root/etc/systemd/system/apvm.target.wants
for unit in guestcryptd guestcrypt-mdevctl; do
        ln -sf /usr/lib/systemd/system/$unit.service /mnt/root/etc/systemd/system/apvm.target.wants/
done
the_end
