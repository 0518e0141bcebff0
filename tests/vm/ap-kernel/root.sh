#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# root.sh - an ext4 image with a Debian for s390x: systemd, udev, D-Bus, mdevctl, s390-tools, libvirt's node devices; and beside
# its mdevctl that of Debian 12, as /usr/lib/mdevctl-1.2/mdevctl
#
# usage: root.sh [PACKAGE,...]      prints the image's path; it is made once and cached. With more packages.
#
# The packages are unpacked only, none of their scripts is run: nothing has to be emulated while it is made, and the
# users and units are those written here.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/vm/ap-kernel}
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"

suite=sid old=bookworm more=${1:-}
packages=bash,coreutils,util-linux,mount,grep,sed,findutils,procps,passwd,kmod,iproute2,jq,strace,udev,systemd,dbus
packages+=,dbus-daemon,dbus-bin,libsystemd0,libxml2-16,s390-tools,mdevctl,libvirt-daemon-driver-nodedev
packages+=,libvirt-clients,mawk,libgcrypt20,libseccomp2,libstdc++6,liblzma5${more:+,$more}
# What else programs are linked with that are built on Debian 12.
old_packages=(libxml2 libicu72)

write_etc() {
        cat > "$1/etc/passwd" <<-'P'
	root:x:0:0:root:/root:/bin/bash
	daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
	messagebus:x:100:100::/nonexistent:/usr/sbin/nologin
	polkitd:x:101:101::/nonexistent:/usr/sbin/nologin
	libvirt-qemu:x:64055:102::/nonexistent:/usr/sbin/nologin
	tester:x:1000:1000::/tmp:/bin/bash
	nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
	P
        cat > "$1/etc/group" <<-'P'
	root:x:0:
	daemon:x:1:
	tty:x:5:
	messagebus:x:100:
	polkitd:x:101:
	libvirt-qemu:x:102:
	kvm:x:103:libvirt-qemu
	libvirt:x:104:
	zkeyadm:x:105:
	systemd-journal:x:106:
	tester:x:1000:
	nogroup:x:65534:
	P
        echo apvm > "$1/etc/hostname"
        echo '127.0.0.1 localhost apvm' > "$1/etc/hosts"
        echo 0123456789abcdef0123456789abcdef > "$1/etc/machine-id"
        printf '%s: files\n' passwd group shadow hosts > "$1/etc/nsswitch.conf"
}

# Each start of an emulated program takes longer than anything that it does here: what is not needed is not there.
make_small() {
        local lib=$1/usr/lib file

        for file in "$lib"/systemd/system/*.target.wants/*; do
                case ${file##*/} in
                dbus.socket | systemd-journald* | systemd-udev* | systemd-tmpfiles-setup.service | sys-kernel-debug.mount) ;;
                *) rm "$file" ;;
                esac
        done
        for file in "$lib"/udev/rules.d/*; do
                case ${file##*/} in
                *z90crypt* | *mdevctl* | 50-udev-default.rules | 80-drivers.rules | 99-systemd.rules) ;;
                *) rm "$file" ;;
                esac
        done
        for file in "$lib"/tmpfiles.d/*; do
                case ${file##*/} in
                dbus.conf | debian.conf | var.conf) ;;
                *) rm "$file" ;;
                esac
        done
        rm -rf "$lib"/systemd/system-generators
}

make_root() {
        local root=$1/root unit

        debian_root "$root" "$suite" s390x extract "$packages" || return 1
        rm -rf "$root"/var/{run,lock,cache/apt,lib/apt/lists}
        mkdir -p "$root"/{mnt,job,var/lib/dbus,etc/systemd/system,usr/local/bin}
        chmod 1777 "$root/tmp"
        ln -s /run "$root/var/run"
        ln -s /run/lock "$root/var/lock"
        write_etc "$root" || return 1
        mkdir -p "$1/old" "$root/usr/lib/mdevctl-1.2"
        debian_unpack "$old" "$1/old" mdevctl:s390x "${old_packages[@]/%/:s390x}" &&
                cp "$1/old/usr/bin/mdevctl" "$root/usr/lib/mdevctl-1.2/" &&
                cp -an "$1/old/usr/lib/s390x-linux-gnu/." "$root/usr/lib/s390x-linux-gnu/" &&
                rm -r "$1/old" || return 1
        make_small "$root"
        # Of no use here, and slow.
        for unit in systemd-tmpfiles-setup-dev systemd-tmpfiles-setup-dev-early systemd-remount-fs systemd-modules-load \
                systemd-udev-load-credentials modprobe@; do
                ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
        done
        ln -sf /dev/null "$root/etc/systemd/system/tmp.mount"
        truncate -s 700M "$1/image" && mke2fs -q -t ext4 -O ^has_journal -d "$root" "$1/image" && rm -rf "$root"
}

dir=$cache/ap-root-$suite-$(cat "$here/root.sh" - <<< "$packages" | sha256sum | cut -c 1-8)
if [ ! -d "$dir" ]; then
        need_root
        need mmdebstrap mke2fs
        need_debian "$suite"
        need_debian "$old"
        once "$dir" make_root >&2 || die "the root file system could not be made"
fi
echo "$dir/image"
