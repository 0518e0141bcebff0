#!/bin/busybox sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# inside.sh - in the guest: guestcryptd, libvirt and QEMU with a real kernel's mdevs, and a guest in the guest that talks
#             through one of them

failed=0
fail() {
        echo "FAILED: $*"
        failed=1
}
die() {
        fail "$*"
        tail -n 20 /run/log /run/talker /var/log/libvirt/libvirtd.log /var/log/libvirt/qemu/*.log
        exit 1
}
ok() {
        echo "ok: $* ($(cut -d ' ' -f 1 /proc/uptime) s)"
}

# until_true SECONDS COMMAND
until_true() {
        end=$(($(cut -d . -f 1 /proc/uptime) + $1))
        until eval "$2" > /dev/null 2>&1; do
                [ "$(cut -d . -f 1 /proc/uptime)" -lt $end ] || return 1
                usleep 100000
        done
}

# expect STATUS TEXT COMMAND...
expect() {
        wanted=$1 text=$2
        shift 2
        status=0
        out=$("$@" 2>&1) || status=$?
        case $status:$out in
        $wanted:*"$text"*) return 0 ;;
        esac
        fail "'$*': status $status, not $wanted with '$text': $out"
        return 1
}

# property UUID NAME
property() {
        busctl get-property org.guestcrypt1 "/org/guestcrypt1/mdev/$(echo "$1" | tr - _)" org.guestcrypt1.Mdev "$2"
}
is() {
        [ "$(property "$1" "$2")" = "$3" ]
}

has_owner() {
        busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s org.guestcrypt1 |
                grep -q true
}
has_libvirt() {
        guestcryptctl --json status | grep '"libvirt":"connected"' > /dev/null
}
daemon_start() {
        guestcryptd >> /run/log 2>&1 &
        daemon=$!
        until_true 30 has_owner || die "guestcryptd does not start"
        until_true 60 has_libvirt || die "guestcryptd does not find libvirt"
}

libvirt_start() {
        libvirtd --daemon || die "libvirtd does not start"
        until_true 60 "virsh -q list" || die "libvirtd does not answer"
}

# How often the guest has heard what it had said.
heard() {
        n=$(sed -n 's/.*heard 0*\([0-9]*\) .*/\1/p' /run/talker | tail -n 1)
        echo "${n:-0}"
}
# It goes on doing so.
talks() {
        before=$(heard)
        until_true 120 "[ \$(heard) -gt $((before + 1)) ]" || die "the guest does not talk through its device: $1"
}

# guest_define NAME MDEV
guest_define() {
        cat > /run/domain.xml <<XML
<domain type='qemu'>
  <name>$1</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>/guest</kernel>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='/run/$1'/></serial>
    <memballoon model='none'/>
    <hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='$2'/></source></hostdev>
  </devices>
</domain>
XML
        expect 0 defined virsh define /run/domain.xml
}

# ---- a host ----

mkdir -p /run/dbus /run/lock /var/lib/guestcrypt /var/log/libvirt /var/cache/libvirt /run/libvirt /etc/libvirt \
        /etc/mdevctl.d/scripts.d/callouts /etc/mdevctl.d/scripts.d/notifiers
ln -s /run /var/run
echo 127.0.0.1 localhost > /etc/hosts
echo libvirt-qemu:x:64055:64055::/:/bin/false >> /etc/passwd
printf '%s\n' libvirt-qemu:x:64055: kvm:x:102: >> /etc/group
printf '%s\n' 'user = "root"' 'group = "root"' 'dynamic_ownership = 0' 'remember_owner = 0' 'security_driver = "none"' \
        'cgroup_controllers = []' 'namespaces = []' 'stdio_handler = "file"' > /etc/libvirt/qemu.conf
printf '%s\n' 'auth_unix_ro = "none"' 'auth_unix_rw = "none"' 'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"' \
        > /etc/libvirt/libvirtd.conf
# As systemd has it: what guests lock in memory is not limited.
ulimit -l unlimited
dbus-daemon --system --fork --nopidfile || exit 1
/lib/systemd/systemd-udevd --daemon 2> /dev/null || die "udevd does not start"
libvirt_start
daemon_start
ok "libvirt and guestcryptd run on $(uname -r)"

# ---- mdevs that guestcryptd makes, guests that libvirt starts ----

mine=$(guestcryptctl mdev-create mtty mtty-1) || die "no mdev can be made"
other=$(guestcryptctl mdev-create mtty mtty-1) || die "no second mdev can be made"
node=mdev_$(echo "$mine" | tr - _)_mtty
until_true 30 "virsh -q nodedev-list --cap mdev | grep $node" || fail "libvirt does not see the mdev"
expect 0 "<type id='mtty-1'/>" virsh nodedev-dumpxml "$node"
expect 0 'b false' property "$mine" InUse
guest_define talker "$mine"
guest_define idle "$other"
expect 0 'b false' property "$mine" InUse
expect 0 started virsh start talker
ok "libvirt has started a guest with the mdev"
until_true 20 "is $mine InUse 'b true'" || fail "it is not in use"
expect 0 's "talker"' property "$mine" Guest
expect 0 'b false' property "$other" InUse
expect 0 's ""' property "$other" Guest

# At once, long before the guest drives it.
expect 3 "guest 'talker' is running with mediated device" guestcryptctl mdev-remove "$mine"
expect 3 InUse guestcryptctl --json mdev-remove "$mine"
[ -e "/sys/bus/mdev/devices/$mine/remove" ] || fail "somebody has begun to remove it"
ok "an mdev in use is not removed, and it is said who has it"

until_true 400 '[ $(heard) -gt 0 ]' || die "the guest never talks through its device"
ok "the guest talks through its device"
expect 3 "guest 'talker' is running with mediated device" guestcryptctl mdev-remove "$mine"
talks "after a removal was refused"

# ---- nobody is confused ----

expect 0 '"matrix":""' guestcryptctl --json guest-show talker
expect 0 '"problems":[]' guestcryptctl --json guest-show talker
guest_define rival "$mine"
expect 1 'in use by driver QEMU, domain talker' virsh start rival
expect 0 's "talker"' property "$mine" Guest
expect 0 undefined virsh undefine rival

# ---- guestcryptd and libvirt come and go ----

kill -9 $daemon
wait $daemon 2> /dev/null
daemon_start
until_true 20 "is $mine Guest 's \"talker\"'" || fail "a new daemon does not know who has it"
expect 0 'b true' property "$mine" Ours
expect 0 'b true' property "$mine" InUse
expect 3 "guest 'talker'" guestcryptctl mdev-remove "$mine"
ok "after SIGKILL it is known who has it"

kill "$(cat /run/libvirtd.pid)"
until_true 60 '! has_libvirt' || fail "guestcryptd does not see libvirt end"
expect 3 InUse guestcryptctl --json mdev-remove "$mine"
libvirt_start
until_true 60 has_libvirt || fail "guestcryptd does not find libvirt again"
until_true 20 "is $mine Guest 's \"talker\"'" || fail "it is not known any more who has it"
talks "after the daemons were started again"
ok "without libvirt it is not removed either"

# ---- a guest ends ----

expect 0 started virsh start --paused idle
expect 3 "guest 'idle' is running with" guestcryptctl mdev-remove "$other"
until_true 20 "is $other Guest 's \"idle\"'" || fail "the second one is not in use"
expect 0 destroyed virsh destroy idle
expect 0 removed guestcryptctl mdev-remove "$other"
[ ! -e "/sys/bus/mdev/devices/$other" ] || fail "it is still there"
ok "after the guest's end it is removed"

# ---- somebody removes it under the guest: the kernel waits, and has taken it out of its lists by then ----

echo 1 > "/sys/bus/mdev/devices/$mine/remove" &
writer=$!
until_true 20 "[ ! -e /sys/bus/mdev/devices/$mine ]" || fail "the kernel does not begin"
busctl call org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager Reconcile > /dev/null || fail "it does not look"
expect 0 's "removing"' property "$mine" State
expect 0 'b true' property "$mine" InUse
expect 0 's "talker"' property "$mine" Guest
expect 3 "guest 'talker' is running with" guestcryptctl mdev-remove "$mine"
[ "$(guestcryptctl mdev-list | grep -c talker)" = 1 ] || fail "it is not listed with its guest"
kill -0 $writer || fail "the writer does not wait"
talks "while somebody else waits to remove it"
ok "a foreign removal waits for the guest, and is shown"

expect 0 destroyed virsh destroy talker
wait $writer || fail "the foreign removal failed"
until_true 20 "! property $mine State" || fail "it is still shown"
expect 1 NoSuchMdev guestcryptctl --json mdev-remove "$mine"
[ "$(ls /sys/devices/virtual/mtty/mtty | grep -c -- -)" = 0 ] || fail "something is left"
ok "and is done after the guest's end"

kill $daemon
status=0
wait $daemon || status=$?
[ $status = 0 ] || die "guestcryptd ended with $status"
[ $failed = 0 ] || tail -n 30 /run/log
exit $failed
