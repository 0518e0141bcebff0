# SPDX-License-Identifier: LGPL-2.1-or-later
#
# libvirt-new.sh - libvirtd and QEMU of a newer Debian release on the simulated host; sourced by services.sh
#
# Both see the host's own /etc, /var, /run, /sys and /dev, but another /usr: that of $DEVHOST_LIBVIRT_ROOT, with the same
# wrapper around one emulator, and with our hook and callout, beside which lie those libraries that the newer release has not.

libvirt_new_usr() {
        local emulator=usr/bin/qemu-system-s390x new=$d/over/new libraries=lib/$(uname -m)-linux-gnu hooks name file

        [ ! -e $d/usr ] || return 0
        mkdir -p $d/usr "$new"/{bin,libexec,$libraries}
        ln -s "$DEVHOST_LIBVIRT_ROOT/$emulator" "$new/bin/qemu-system-s390x.real"
        hooks=(/usr/libexec/guestcrypt/guestcrypt-{hook,callout}*)
        if [ -e "${hooks[0]}" ]; then
                mkdir "$new/libexec/guestcrypt"
                cp "${hooks[@]}" "$new/libexec/guestcrypt/"
                ldd "${hooks[@]}" | sed -n 's/^\t\([^ ]*\) => \(\/[^ ]*\) .*/\1 \2/p' | sort -u | while read -r name file; do
                        [ -e "$DEVHOST_LIBVIRT_ROOT/usr/$libraries/$name" ] || cp "$file" "$new/$libraries/$name"
                done
        fi
        mount -t overlay -o "lowerdir=$new:$DEVHOST_LIBVIRT_ROOT/usr" overlay $d/usr
        mount --bind "$DEVHOST_BUILD/sim/guestcrypt-sim-emulator" $d/$emulator
}

# Whoever looks at an emulator of this host gets the newer one.
libvirt_new_emulators() {
        local arch

        [ ! -e $d/emulator-s390x ] || return 0
        for arch in x86_64 s390x; do
                printf '%s\n' '#!/bin/sh' "exec $top/tools/devhost.d/newer /usr/bin/qemu-system-$arch \"\$@\"" > $d/emulator-$arch
                chmod +x $d/emulator-$arch
                mount --bind $d/emulator-$arch /usr/bin/qemu-system-$arch
        done
}

libvirt_new_run() {
        libvirt_new_usr
        libvirt_new_emulators
        "$top/tools/devhost.d/newer" libvirtd --daemon --pid-file /run/libvirtd.pid
}
