# SPDX-License-Identifier: LGPL-2.1-or-later
#
# lib.sh - real mdevctl, of two versions, with our callout on the simulated host; sourced by bash with top= set
#
# Run "on_host" first, with the script's arguments.

. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"

u1=11111111-1111-1111-1111-111111111111
u2=22222222-2222-2222-2222-222222222222
u3=33333333-3333-3333-3333-333333333333
matrix=/sys/devices/vfio_ap/matrix

# get_new DIRECTORY: mdevctl of Debian 13 with the library that it needs; it is run by that one's loader
get_new() {
        debian_unpack trixie "$1" mdevctl libc6 libgcc-s1
}

# on_host "DEVHOST-OPTION..." VERSION|--inside VERSION: runs the script again on a simulated host whose mdevctl is this machine's (1.2),
# or that of Debian 13 (1.4), with our callout where that version looks for it; sets version=
on_host() {
        local options=$1 dir=

        shift
        version=${!#}
        if [ "$1" != --inside ]; then
                need_root
                need mdevctl
                if [ "$version" = 1.4 ]; then
                        [ "$(uname -m)" = x86_64 ] || skip "the packages of Debian 13 are x86-64 ones"
                        need_debian trixie
                        dir=$cache/mdevctl-$(debian_version trixie mdevctl | tr -c 'a-zA-Z0-9.\n' -)
                        once "$dir" get_new
                fi
                MDEVCTL_NEW=$dir exec "$top/tools/devhost" --quiet $options -- "$0" --inside "$version"
        fi

        callouts=/etc/mdevctl.d/scripts.d/callouts
        if [ -n "$MDEVCTL_NEW" ]; then
                printf '#!/bin/sh\nexec %s/usr/lib64/ld-linux-x86-64.so.2 --library-path %s/usr/lib/x86_64-linux-gnu %s/usr/bin/mdevctl "$@"\n' \
                        "$MDEVCTL_NEW" "$MDEVCTL_NEW" "$MDEVCTL_NEW" > /run/.devhost/bin/mdevctl
                chmod +x /run/.devhost/bin/mdevctl
                callouts=/usr/lib/mdevctl/scripts.d/callouts # it is installed there
                mkdir -p $callouts ${callouts%/*}/notifiers
        else
                ln -s /usr/libexec/guestcrypt/guestcrypt-callout $callouts/00-guestcrypt
        fi
        [[ "$(mdevctl --version)" == "mdevctl $version".* ]] || die "this is $(mdevctl --version), not $version"
        [ -x $callouts/00-guestcrypt ] || die "the callout is not installed"
        # The host gives up all its queues, so that they can be had by whom we like.
        printf 0x0 > /sys/bus/ap/apmask
        printf 0x0 > /sys/bus/ap/aqmask
}

# expect STATUS PATTERN COMMAND...: exit status and output (both streams) must be as said
expect() {
        local want=$1 pattern=$2 status=0 out

        shift 2
        out=$("$@" 2>&1) || status=$?
        [ $status = "$want" ] && grep -E -- "$pattern" <<< "$out" > /dev/null ||
                die "'$*': status $status, not $want with /$pattern/: $out"
}

# json START ATTRIBUTE=VALUE...: a definition
json() {
        local start=$1 attrs= attr

        shift
        for attr; do
                attrs+="${attrs:+,}{\"${attr%%=*}\":\"${attr#*=}\"}"
        done
        printf '{"mdev_type":"vfio_ap-passthrough","start":"%s","attrs":[%s]}' "$start" "$attrs"
}

# define_json UUID START ATTRIBUTE=VALUE...
define_json() {
        local uuid=$1

        shift
        json "$@" > /run/definition.json
        mdevctl define -u "$uuid" -p matrix --jsonfile /run/definition.json
}

# what_mdevctl_has [-d] UUID: on one line
what_mdevctl_has() {
        mdevctl list --dumpjson "${@:1:$#-1}" -u "${!#}" | jq -Sc .
}

lock_is_free() {
        [ ! -e /run/lock/s390apconfig.lock ]
}

# no_activation: a daemon that is down stays down
no_activation() {
        rm /usr/share/dbus-1/system-services/org.guestcrypt1.service
        busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig > /dev/null
}
