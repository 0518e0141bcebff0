#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# libvirtd.sh VIRT-DRIVE GUESTCRYPTD-VIRT VIRT-MEDDLE PART SOURCE-ROOT - a real libvirtd, in a mount namespace of its own.
# Parts: edit (what is defined, what comes back, refusals), meddle (others change guests meanwhile), away (libvirtd
# stopped, killed, hung)
set -euo pipefail
export DRIVE=$1 CHILD=$2
meddle=$3 part=$4 top=$5
. "$top/tests/lib/common.sh"

# ---- outside ----

if [ -z "${VIRT_INSIDE-}" ]; then
        need_root
        [ "$part" != meddle ] || skip_sanitized "$CHILD" "what is preloaded comes before the sanitizer's library"
        "$top/tools/deps" libvirt test
        need libvirtd virsh swtpm qemu-system-s390x qemu-system-x86_64 unshare
        # what libvirt finds out about emulators takes it some seconds, once
        probe() {
                VIRT_INSIDE=probe VIRT_TMP=$1 unshare --mount --propagation private -- "${BASH_SOURCE[0]}" "$DRIVE" "$CHILD" "$meddle" probe "$top"
        }
        probed=$cache/libvirt-probed-$(dpkg-query -W -f '${Version}-' libvirt-daemon qemu-system-x86 qemu-system-misc 2> /dev/null | tr -c 'a-z0-9.\n' -)
        export VIRT_PROBED=$probed
        once "$probed" probe
        tmp=$(mktemp -d)
        trap 'rm -rf "$tmp"' EXIT
        cp -a "$probed/cache" "$tmp/cache"
        VIRT_INSIDE=$part VIRT_TMP=$tmp unshare --mount --propagation private -- "${BASH_SOURCE[0]}" "$@"
        exit
fi

# ---- inside ----

tmp=$VIRT_TMP
. "$top/tests/integration/virt/lib.sh"
export LIBVIRT_DEFAULT_URI=qemu:///system
mkdir -p "$tmp"/{etc/hooks,run,lib,log,cache}
printf '%s\n' 'user = "root"' 'group = "root"' 'dynamic_ownership = 0' 'remember_owner = 0' 'security_driver = "none"' 'cgroup_controllers = []' \
        'namespaces = []' 'stdio_handler = "file"' > "$tmp/etc/qemu.conf"
printf '%s\n' 'auth_unix_ro = "none"' 'auth_unix_rw = "none"' 'log_outputs = "2:file:/var/log/libvirt/libvirtd.log"' > "$tmp/etc/libvirtd.conf"
for p in etc:/etc/libvirt run:/run/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
        mkdir -p "${p#*:}"
        mount --bind "$tmp/${p%%:*}" "${p#*:}"
done

# What libvirt knows of an emulator it keeps by path and time of change, so that those stay the same: links below the
# directory that is kept with it. The last is an emulator of tomorrow, as far as anybody asks it here.
new=/var/cache/libvirt/bin/qemu-new
if [ "$part" = probe ]; then
        mkdir /var/cache/libvirt/bin
        for e in qemu-system-x86_64 qemu-system-s390x swtpm swtpm_setup swtpm_ioctl; do
                ln -s "$(command -v $e)" /var/cache/libvirt/bin/$e
        done
        cat > "$tmp/qemu-new" << 'X'
#!/bin/sh
[ "$*" != '-device help' ] || echo 'name "vfio-user-pci", bus PCI, desc "VFIO over socket PCI device assignment"'
exec /usr/bin/qemu-system-s390x "$@"
X
        chmod +x "$tmp/qemu-new"
fi
if [ "$part" = probe ]; then ln -s "$tmp/qemu-new" $new; else ln -sfn "$VIRT_PROBED/qemu-new" $new; fi

libvirtd_start() {
        PATH=/var/cache/libvirt/bin:/usr/sbin:/sbin /usr/sbin/libvirtd -p /run/libvirt/libvirtd.pid 2>> "$tmp/libvirtd.err" &
        libvirtd=$!
}
libvirtd_stop() {
        kill "-$1" "$libvirtd"
        wait "$libvirtd" 2> /dev/null || :
        libvirtd=
}
tidy() {
        local f

        [ -z "${drive_pid-}" ] || kill "$drive_pid" 2> /dev/null || :
        [ -z "${libvirtd-}" ] || { kill -CONT "$libvirtd"; virsh -q list --name | while read -r f; do [ -z "$f" ] || virsh -q destroy "$f" > /dev/null; done; libvirtd_stop TERM; } 2> /dev/null
        for f in etc/libvirt run/libvirt var/lib/libvirt var/log/libvirt var/cache/libvirt; do umount "/$f"; done
}
trap tidy EXIT

if [ "$part" = probe ]; then
        libvirtd_start
        until_true 20 virsh version
        for e in $new /usr/bin/qemu-system-s390x; do virsh domcapabilities --virttype qemu --arch s390x --emulatorbin $e > /dev/null; done
        virsh domcapabilities --virttype qemu --arch x86_64 --emulatorbin /usr/bin/qemu-system-x86_64 > /dev/null
        exit 0
fi

mdev=669d9b23-fe1b-4ecb-be08-a2fabca99b71
tpm=0d5f1c5e-33f1-4c4e-9b0e-1d7a6f0c2b11
z=2b8f0b52-7c3a-4f64-8d4e-0d5a9b1c3e11 # s390x
x=8f3a1c52-6de0-4a6e-9c3f-2b1d9d5e7a01 # x86_64
n=8f3a1c52-6de0-4a6e-9c3f-2b1d9d5e7a02 # x86_64, with an emulator that says it has the device

# guest NAME UUID ARCH MACHINE EMULATOR [MORE]
guest() {
        cat << X
<domain type='qemu'>
  <name>$1</name>
  <uuid>$2</uuid>
  <metadata>
    <app:note xmlns:app='urn:example:app' by="hand">of somebody else</app:note>
  </metadata>
  <memory unit='KiB'>65536</memory>
  <os><type arch='$3' machine='$4'>hvm</type></os>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>$5</emulator>
    <graphics type='vnc' port='5909' passwd='secret' listen='127.0.0.1'/>
    <memballoon model='none'/>
  </devices>
</domain>
X
}
inactive() {
        virsh dumpxml --inactive --security-info "$1"
}
define_all() {
        guest payments $z s390x s390-ccw-virtio /usr/bin/qemu-system-s390x > "$tmp/payments.xml"
        guest web $x x86_64 q35 /usr/bin/qemu-system-x86_64 > "$tmp/web.xml"
        guest new $n s390x s390-ccw-virtio $new > "$tmp/new.xml"
        for g in payments web new; do virsh -q define "$tmp/$g.xml" > /dev/null; done
        for g in payments web new; do inactive $g > "$tmp/$g.before"; done
}
same_as_before() {
        inactive "$1" | diff "$tmp/$1.before" -
}

case $part in
edit)
        # libvirtd comes after us
        drive qemu:///system
        wait_for 'down *'
        libvirtd_start
        wait_for up
        wait_for listed
        define_all
        wait_for "guest $n new shutoff config?*"

        # a matrix, there and back; nothing else changes, not even a password
        ask 'outcome done config: ' attach-matrix $z $mdev payments live
        inactive payments > "$tmp/attached"
        [ "$(virsh dumpxml --inactive payments --xpath "//hostdev[@model='vfio-ap']/source/address/@uuid" 2> /dev/null || grep -o "$mdev" "$tmp/attached")" != '' ]
        grep "passwd='secret'" "$tmp/attached" > /dev/null
        ask 'outcome done: ' attach-matrix $z $mdev payments live
        ask 'outcome done config: ' detach-matrix $z - live
        same_as_before payments

        # a TPM by what the emulator can
        ask 'outcome unsupported: QEMU [0-9]*has no device vfio-user-pci*no other TPM*' attach-tpm $z t - $tpm
        ask 'outcome done config crb: ' attach-tpm $x t - $tpm
        inactive web > "$tmp/attached"
        grep "<source type='unix' mode='connect' path='/run/guestcrypt/tpm/$tpm/swtpm.sock'/>" "$tmp/attached" > /dev/null
        ask 'outcome done config: ' detach-tpm $x
        same_as_before web
        ask 'outcome done config tis: ' attach-tpm $x t tis $tpm
        ask 'outcome done config: ' detach-tpm $x
        same_as_before web

        # virtio; libvirt writes the document anew in between
        ask 'outcome done config virtio: ' attach-tpm $n t - $tpm
        inactive new > "$tmp/attached"
        grep -e 'vfio-user-pci.*ua-guestcrypt-tpm' "$tmp/attached" > /dev/null
        grep 'added=.memory-backing command-line' "$tmp/attached" > /dev/null
        ask 'outcome done config: ' attach-matrix $n $mdev payments config
        ask 'outcome done config: ' detach-tpm $n
        ask 'outcome done config: ' detach-matrix $n $mdev config
        same_as_before new

        # what libvirt refuses is said in its words, and changes nothing
        mv $new $new.gone
        ask 'outcome libvirt: *qemu-new*libvirt*error*' attach-matrix $n $mdev - config
        mv $new.gone $new
        same_as_before new

        # metadata by hand, a new name, no more
        virsh -q metadata payments urn:guestcrypt:guest:1 --config --key guestcrypt \
                --set "<devices><matrix name='m'/><tpm name='t' model='virtio'/></devices>" > /dev/null
        wait_for "guest $z payments shutoff config?* matrix=m tpm=t*"
        virsh -q domrename payments renamed > /dev/null
        wait_for "guest $z renamed shutoff *"
        virsh -q undefine renamed > /dev/null
        wait_for "gone $z"

        # running: hot plug is tried, libvirt's refusal comes through, and the definition is as it was
        virsh -q start new > /dev/null
        wait_for "guest $n new * live?*"
        ask 'outcome libvirt: *requires VFIO support*' attach-matrix $n $mdev payments live
        same_as_before new
        ask 'outcome done config next-start: ' attach-matrix $n $mdev payments config
        ask 'outcome done config next-start virtio: ' attach-tpm $n t - $tpm
        grep "^guest $n new [a-z]* config. mdev=$mdev matrix=payments tpm=t model=virtio . live. ." "$tmp/said" > /dev/null
        virsh -q reset new > /dev/null
        wait_for "reboot $n"
        virsh -q destroy new > /dev/null
        wait_for "guest $n new shutoff *"

        # without a definition it can only be plugged, and no TPM at all
        virsh -q undefine new > /dev/null
        wait_for "gone $n"
        virsh -q create "$tmp/new.xml" > /dev/null
        wait_for "guest $n new * live?*"
        ask 'outcome libvirt: *requires VFIO support*' attach-matrix $n $mdev payments live
        ask 'outcome unsupported: *no persistent definition*' attach-matrix $n $mdev payments config
        ask 'outcome unsupported: *no persistent definition*' attach-tpm $n t - $tpm
        virsh -q destroy new > /dev/null
        wait_for "gone $n"
        drive_end
        ;;
meddle)
        export VIRT_MEDDLE=$tmp/meddle LD_PRELOAD=$meddle
        libvirtd_start_clean() { LD_PRELOAD='' libvirtd_start; }
        libvirtd_start_clean
        LD_PRELOAD='' until_true 20 virsh version
        drive qemu:///system 60000
        unset LD_PRELOAD
        wait_for listed
        define_all
        wait_for "guest $n new shutoff config?*"

        # once: their change is kept, and ours comes with it
        sed "s/65536/131072/" "$tmp/payments.xml" > "$tmp/theirs.xml"
        echo "1 read virsh -q define $tmp/theirs.xml > /dev/null" > "$tmp/meddle"
        ask 'outcome done config: ' attach-matrix $z $mdev payments config
        rm "$tmp/meddle"
        inactive payments > "$tmp/attached"
        grep 131072 "$tmp/attached" > /dev/null
        grep $mdev "$tmp/attached" > /dev/null
        ask 'outcome done config: ' detach-matrix $z - config

        # again and again: we give up
        cat > "$tmp/other.sh" << X
virsh -q define "\$(if virsh dumpxml --inactive payments | grep 131072 > /dev/null; then echo $tmp/payments.xml; else echo $tmp/theirs.xml; fi)" > /dev/null
X
        echo "9 read sh $tmp/other.sh" > "$tmp/meddle"
        ask 'outcome changed: *' attach-matrix $z $mdev payments config
        rm "$tmp/meddle"
        inactive payments > "$tmp/attached"
        ! grep $mdev "$tmp/attached"

        # libvirtd hangs when it is to write: what became of it is not known, and others are answered
        drive_end
        LD_PRELOAD=$meddle drive qemu:///system 8000
        wait_for listed
        echo "1 define kill -STOP $libvirtd" > "$tmp/meddle"
        tell attach-matrix $z $mdev payments config
        tell ping
        wait_for pong
        wait_for 'outcome unavailable unknown: *did not answer in 8 s*'
        rm "$tmp/meddle"
        ask 'outcome unavailable: *' refresh $z
        kill -CONT "$libvirtd"
        wait_for up
        wait_for listed
        ask 'outcome done*' attach-matrix $z $mdev payments config
        drive_end
        ;;
away)
        no_child() { ! pgrep -P "$drive_pid" > /dev/null; }
        is_up() { virsh version > /dev/null 2>&1; }

        # where there is none, nobody has its library in memory; and it is seen when it comes
        drive qemu:///system
        wait_for 'down none runs on this host*'
        no_child
        tell ping
        wait_for pong
        libvirtd_start
        wait_for up
        wait_for listed
        pgrep -P "$drive_pid" > /dev/null
        drive_end

        until_true 20 is_up
        define_all
        drive qemu:///system 10000
        wait_for listed

        # hung: the call ends at its deadline, and nothing was begun
        kill -STOP "$libvirtd"
        tell attach-matrix $z $mdev payments config
        tell ping
        wait_for pong
        wait_for 'outcome unavailable: *did not answer in 10 s*'
        kill -CONT "$libvirtd"
        wait_for up
        wait_for listed
        same_as_before payments

        # killed, and back with other guests
        libvirtd_stop KILL
        wait_for 'down *'
        ask 'outcome unavailable: *' attach-matrix $z $mdev payments config
        rm "$tmp/etc/qemu/web.xml"
        sed 's/<name>new/<name>other/; s/7a02/7a03/' "$tmp/etc/qemu/new.xml" > "$tmp/etc/qemu/other.xml"
        : > "$tmp/said"
        libvirtd_start
        wait_for up
        wait_for listed
        grep "^gone $x" "$tmp/said" > /dev/null
        grep '^guest 8f3a1c52-6de0-4a6e-9c3f-2b1d9d5e7a03 other shutoff' "$tmp/said" > /dev/null
        ! grep -e "^guest $z" -e "^gone $z" "$tmp/said" # nothing new of it
        ask 'outcome done config: ' attach-matrix $z $mdev payments config
        ask 'outcome done config: ' detach-matrix $z - config
        same_as_before payments

        # with an end in good order
        libvirtd_stop TERM
        wait_for 'down none runs on this host*'
        no_child
        libvirtd_start
        wait_for listed
        drive_end
        ;;
esac
drive_pid=
