# SPDX-License-Identifier: LGPL-2.1-or-later
#
# libvirt-new.sh - libvirtd and QEMU of a newer Debian release on the simulated host; sourced by services.sh
#
# Both see the host's own /etc, /var, /run, /sys and /dev, but another /usr: that of $DEVHOST_LIBVIRT_ROOT, with the same
# wrapper around one emulator. Hooks are built for this machine's libraries, and so are run where those are.

libvirt_new_usr() {
        local emulator=usr/bin/qemu-system-s390x

        [ ! -e $d/usr ] || return 0
        mkdir -p $d/usr $d/over/new/bin
        ln -s "$DEVHOST_LIBVIRT_ROOT/$emulator" $d/over/new/bin/qemu-system-s390x.real
        mount -t overlay -o "lowerdir=$d/over/new:$DEVHOST_LIBVIRT_ROOT/usr" overlay $d/usr
        mount --bind "$top/tools/devhost.d/emulator-s390x" $d/$emulator
}

# Each hook that there is has a stand-in, as seen by libvirtd.
libvirt_new_hooks() {
        local hook

        rm -rf $d/hooks
        mkdir -p /etc/libvirt/hooks $d/hooks
        (cd /etc/libvirt/hooks && find . -mindepth 1) | while read -r hook; do
                if [ -d "/etc/libvirt/hooks/$hook" ]; then
                        mkdir "$d/hooks/$hook"
                else
                        printf '%s\n' '#!/bin/sh' \
                                'exec nsenter --target 1 --mount -- "$0" "$@"' > "$d/hooks/$hook"
                        chmod +x "$d/hooks/$hook"
                fi
        done
}

libvirt_new_run() {
        libvirt_new_usr
        libvirt_new_hooks
        unshare --mount --propagation slave bash -euc '
                mount --bind "$1/hooks" /etc/libvirt/hooks
                # Its libraries are where the loader looks without this.
                mount --bind /dev/null /etc/ld.so.cache
                mount --rbind "$1/usr" /usr
                exec libvirtd --daemon --pid-file /run/libvirtd.pid' bash $d
}
