# SPDX-License-Identifier: LGPL-2.1-or-later
#
# libvirt-new.sh - libvirtd and QEMU of a newer Debian release on the simulated host; sourced after services.sh
#
# Both see the host's own /etc, /var, /run, /sys and /dev, but another /usr: that of $DEVHOST_LIBVIRT_ROOT. What is in
# /etc/libvirt/hooks is built for this machine's libraries, and so is run where they are.

libvirt_new_run() {
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
        unshare --mount --propagation slave bash -euc '
                mount --bind "$2" /etc/libvirt/hooks
                # Its libraries are where the loader looks without this.
                mount --bind /dev/null /etc/ld.so.cache
                mount --bind "$1/usr" /usr
                exec libvirtd --daemon --pid-file /run/libvirtd.pid' bash "$DEVHOST_LIBVIRT_ROOT" $d/hooks
}
