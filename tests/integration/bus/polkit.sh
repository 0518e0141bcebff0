#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# polkit.sh - who may do what: the real polkitd with rules for two users, polkit that hangs, and no polkit at all
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/integration/bus/lib.sh"
in_namespace "$@"

bus_start
sim_start --profile=small
daemon_start
chmod 755 "$b"

call() {
        busctl --address="$address" --timeout=20 --allow-interactive-authorization=no call org.guestcrypt1 /org/guestcrypt1 "$@"
}
# user_call USER METHOD SIGNATURE ARGUMENT...
user_call() {
        local user=$1

        shift
        as "$user" busctl --address="$address" --timeout=20 --allow-interactive-authorization=no call \
                org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager "$@"
}
define=(DefineMatrix 'ssaqaqaqa{sv}')
sets=(1 4 1 6 0 0)

# no polkit: root only, and everybody may read properties
expect 0 '^o "/org/guestcrypt1/matrix/' call org.guestcrypt1.Manager "${define[@]}" root-1 '' "${sets[@]}"
expect 1 'Access denied' user_call daemon "${define[@]}" daemon-1 '' "${sets[@]}"
expect 1 'Access denied' user_call daemon GetMatrix s root-1
expect 0 'as 0' as nobody busctl --address="$address" get-property org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager Problems

# the real one: "daemon" may do all, "games" nothing, others what the actions say
polkit_start
for method in Reload Reconcile; do
        expect 0 '' user_call daemon $method
        expect 1 'Access denied' user_call games $method
        expect 1 'needs authentication' user_call nobody $method
done
expect 0 '^o' user_call daemon "${define[@]}" daemon-1 '' 1 5 1 6 0 0
expect 1 'Access denied' user_call games "${define[@]}" games-1 '' 1 5 1 16 0 0
expect 1 "'org.guestcrypt1.manage-matrix' needs authentication" user_call nobody "${define[@]}" nobody-1 '' 1 5 1 16 0 0
expect 1 "'org.guestcrypt1.manage-mdev' needs" user_call nobody CreateMdev 'sssa(ss)a{sv}' mtty mtty-1 '' 0 0
expect 1 "'org.guestcrypt1.manage-host' needs" user_call nobody SetHostMasks 'aqaqa{sv}' 1 0 1 0 0
expect 1 "'org.guestcrypt1.manage-tpm' needs" user_call nobody DefineTpm 'ssa{sv}' x '' 0
expect 1 'Access denied' user_call games GetTpm s x
# libvirt's hook is root's, whatever polkit says
expect 1 'Access denied' as daemon busctl --address="$address" call org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Hook \
        Event 'sssssa{sv}' prepare begin - vm1 c2010203-0405-0607-0809-0a0b0c0d0eab 0
# mdevctl's definitions are the host's; what its callout calls takes descriptors, and is root's: see the unit tests
mdevctl_call() { # USER METHOD SIGNATURE ARGUMENT...
        as "$1" busctl --address="$address" --allow-interactive-authorization=no call org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Mdevctl "${@:2}"
}
expect 1 "manage-host' needs" mdevctl_call nobody Import 'sa{sv}' c2010203-0405-0607-0809-0a0b0c0d0eab 0
expect 1 "manage-host' needs" mdevctl_call nobody Export 'sa{sv}' root-1 0
expect 0 '^a\(sbaqaqaqs\) 0' mdevctl_call nobody ListDefinitions
expect 1 'Access denied' mdevctl_call games ListDefinitions
expect 0 '^a\(qqss\) 0' user_call nobody CheckMatrix 'aqaqaqa{sv}' 1 5 1 16 0 0
expect 1 'Access denied' user_call games CheckMatrix 'aqaqaqa{sv}' 1 5 1 16 0 0
path=$(user_call nobody GetMatrix s daemon-1 | cut -d'"' -f2)
expect 0 '^u 1$' busctl --address="$address" get-property org.guestcrypt1 "$path" org.guestcrypt1.Matrix UID
for method in Start Stop Undefine; do
        expect 1 "manage-matrix' needs" as nobody busctl --address="$address" --allow-interactive-authorization=no \
                call org.guestcrypt1 "$path" org.guestcrypt1.Matrix $method 'a{sv}' 0
done
# bad arguments are told before anybody is asked
expect 1 'adapter id 4000 is above 255' user_call nobody "${define[@]}" x '' 1 4000 1 6 0 0

# what was authorised late finds the object gone
kill -STOP $polkit_pid
as daemon busctl --address="$address" --timeout=300 call org.guestcrypt1 "$path" org.guestcrypt1.Matrix Start 'a{sv}' 0 \
        > "$b/late" 2>&1 &
late=$!
# others are served meanwhile
expect 0 '^o' timeout 20 busctl --address="$address" call org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager GetMatrix s daemon-1
expect 0 '' busctl --address="$address" call org.guestcrypt1 "$path" org.guestcrypt1.Matrix Undefine 'a{sv}' 0
kill -CONT $polkit_pid
wait $late || :
expect 0 'no matrix|no such matrix|Unknown object|NoSuchMatrix|There is no' cat "$b/late"

# polkit goes away again
kill $polkit_pid
wait $polkit_pid || :
expect 1 'Access denied' user_call daemon Reload
expect 0 '' call org.guestcrypt1.Manager Reload

# a caller that dies in the middle leaves what it asked for, and a daemon that works
for i in 1 2 3 4 5; do
        timeout -s KILL 0.0$i busctl --address="$address" call org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager \
                "${define[@]}" gone-$i '' 1 3 1 6 1 6 0 > /dev/null 2>&1 || :
done
expect 0 '^guestcryptd' ctl status
finish
