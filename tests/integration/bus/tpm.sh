#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tpm.sh - guestcryptctl's verbs about TPMs against the daemon, with real swtpm and guestcrypt-tpm as its child processes: made, started,
# seen, saved, forgotten, restored, imported; what is refused and what that leaves; open files across the bus; watching
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
build=${1:?BUILD DIRECTORY}
. "$top/tests/integration/bus/lib.sh"
need swtpm swtpm_setup jq
in_namespace "$@"
PATH=$build/drivers/virtio-tpm:$PATH

json() {
        local filter=$1

        shift
        "$@" > "$b/json" || :
        jq -e "$filter" "$b/json" > /dev/null || { echo "FAILED: $*: not $filter:"; cat "$b/json"; failures=$((failures + 1)); }
}
tpm() {
        ctl --json tpm-show "$1" | jq -r ".$2"
}

bus_start
sim_start --profile=small
daemon_start
cd "$b"

# ---- made ----
expect 0 '^NAME  STATE  MODEL  GUEST  FLAGS$' ctl tpm-list
expect 1 "there is no TPM 'vm1'" ctl tpm-show vm1
expect 0 '^TPM vm1 is defined\.$' ctl tpm-define vm1 --guest vm1 --pcr-banks sha256,sha384 --deny 0x126 --no-certificates
expect 1 "'vm1'" ctl tpm-define vm1 --no-certificates
json '.error.name == "org.guestcrypt1.Error.Exists"' ctl --json tpm-define vm1 --no-certificates
expect 1 'PCR banks are' ctl tpm-define bad --pcr-banks md5
expect 1 'its name has to be' ctl tpm-define 'a name'
expect 1 "key file '$b/key': No such file" ctl tpm-define vm2 --key-file key --no-certificates
head -c 32 /dev/urandom > root/key # paths are below the daemon's root
expect 1 'root alone may read' ctl tpm-define vm2 --key-file /key --no-certificates
chmod 600 root/key
expect 0 'vm2 is defined' ctl tpm-define vm2 --key-file /key --no-certificates
expect 0 'vm3 is defined' ctl tpm-define vm3 --ephemeral --no-certificates
expect 0 '^vm1   defined  -      vm1    -$' ctl tpm-list
expect 0 '^vm2   defined  -      -      encrypted$' ctl tpm-list
expect 0 '^vm3   defined  -      -      ephemeral$' ctl tpm-list
expect 0 '^TPMs +3$' ctl status
json '.n_tpms == 3 and .n_guests == 0' ctl --json status
json '.state == "defined" and .pcr_banks == "sha256,sha384" and .denied == [294] and .own_uid >= 1900000000 and .model == ""' \
        ctl --json tpm-show vm1

# ---- running ----
expect 0 '^TPM vm1 is started\.$' ctl tpm-start vm1
json '.state == "running" and .model == "virtio" and .counters.commands >= 0 and .problems == []' ctl --json tpm-show vm1
[ -S "$b/root$(tpm vm1 device_socket)" ] || die "the device's socket is not there"
expect 0 '^counters$' ctl tpm-show vm1
expect 0 '^TPM vm2 is started\.$' ctl tpm-start vm2 --model crb
json '.state == "running" and .model == "crb" and (has("counters") | not)' ctl --json tpm-show vm2
[ -S "$b/root$(tpm vm2 swtpm_socket)" ] || die "swtpm's socket is not there"
expect 0 '^TPM vm3 is started\.$' ctl tpm-start vm3
expect 1 'runs already' ctl tpm-start vm1 --model tis
expect 1 'while it does not run' ctl tpm-backup vm1 saved
[ ! -e saved ] || die "a backup that was refused is there"
expect 1 'stop it first' ctl tpm-undefine vm1 --wipe
for name in vm1 vm2 vm3; do
        expect 0 "^TPM $name is stopped\.$" ctl tpm-stop $name
done
ctl --json watch > watched &
watch_pid=$!
is_heard() { # it may not listen yet the first time
        ctl tpm-start vm3 > /dev/null && ctl tpm-stop vm3 > /dev/null
        [ "$(jq -r 'select(.object == "tpm" and .name == "vm3") | .properties.state' watched | sort -u | tr '\n' ' ')" = \
                'defined running starting stopping ' ]
}
until_true 20 is_heard || die "this is all that was heard of a TPM that came and went: $(cat watched)"
kill $watch_pid

# ---- saved, forgotten, restored ----
uuid=$(tpm vm1 uuid)
expect 0 'is saved in saved' ctl tpm-backup vm1 saved
[ "$(stat -c %a saved)" = 600 ] || die "everybody can read a backup"
expect 1 "is there already; --force replaces it" ctl tpm-backup vm1 saved
cp saved saved.1
expect 0 'is saved in saved' ctl tpm-backup vm1 saved --force
expect 1 "has state.*--wipe;.*tpm-backup vm1 FILE" ctl tpm-undefine vm1
json '.state == "defined"' ctl --json tpm-show vm1
expect 1 "vm1" ctl tpm-restore saved
expect 0 'is undefined' ctl tpm-undefine vm1 --wipe
[ ! -e "$b/root/var/lib/guestcrypt/tpms/$uuid" ] || die "there is something left of a TPM that was wiped"
expect 0 '^TPM vm1 is restored\.$' ctl tpm-restore saved
json ".uuid == \"$uuid\" and .denied == [294] and .guest == \"vm1\"" ctl --json tpm-show vm1
expect 0 'is started' ctl tpm-start vm1
expect 0 'is stopped' ctl tpm-stop vm1
expect 0 'copy is restored' ctl tpm-restore saved.1 --name copy --uuid 11111111-2222-4333-8444-555555555555
head -c 1000 saved > damaged
json '.error.name == "org.guestcrypt1.Error.BadRecord"' ctl --json tpm-restore damaged --name damaged
json '.error.name == "org.guestcrypt1.Error.BadRecord"' ctl --json tpm-restore root/key --name damaged
expect 1 'regular file or pipe' ctl tpm-restore / --name damaged
expect 1 'regular file or pipe' ctl tpm-restore /dev/zero --name damaged
mkfifo pipe
cat saved > pipe &
expect 0 'piped is restored' ctl tpm-restore pipe --name piped --uuid 11111111-2222-4333-8444-666666666666
expect 0 'is undefined' ctl tpm-undefine vm3 # it has nothing that could be missed

# ---- imported ----
mkdir -p root/old/tpm2
swtpm_setup --tpm2 --tpmstate root/old/tpm2 > setup.log 2>&1 || die "$(cat setup.log)"
expect 1 'there is no state' ctl tpm-import /etc nothing
expect 0 'old is imported' ctl tpm-import /old old --guest old
json '.state == "defined" and .guest == "old"' ctl --json tpm-show old

# ---- a daemon that has gone ----
expect 0 'is started' ctl tpm-start copy
kill -KILL $daemon_pid
wait $daemon_pid || :
expect 1 'guestcryptd does not run' ctl tpm-backup vm1 other
[ "$(echo other*)" = 'other*' ] || die "something is left of a backup"
daemon_start
json '[.[].name] == ["copy", "old", "piped", "vm1", "vm2"]' ctl --json tpm-list
json '.state == "running"' ctl --json tpm-show copy
expect 0 'is stopped' ctl tpm-stop copy
finish
