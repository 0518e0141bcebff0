# SPDX-License-Identifier: LGPL-2.1-or-later
#
# stages.sh - what is tested in the guest; a boot runs some of these
export TPM2TOOLS_TCTI=device:/dev/tpmrm0

pcr() {
        tpm2_pcrread "sha256:$1" | sed -n 's/.*0x//p'
}

# The hash of the bytes that the arguments are the hexadecimal digits of.
sha256_of() {
        echo "$*" | tr -d ' \n' | xxd -r -p | sha256sum | cut -d ' ' -f 1
}

zeros=$(printf '%064d' 0)
# What stands in PCR 9 after the one extend that pcrs() does.
digest=$(sha256_of 01)
extended=$(sha256_of "$zeros" "$digest")

driver() {
        [ ! -e /dev/tpm0 ] || fail "there is a TPM without the driver"
        must "another id" insmod /modules/tpm_virtio.ko device_id=$((id == 62 ? 31 : 62))
        [ ! -e /dev/tpm0 ] || fail "it binds to a device with another id"
        must "unload" rmmod tpm_virtio
        must_not "id 0" insmod /modules/tpm_virtio.ko device_id=0
        must "load" load || return
        [ -c /dev/tpm0 ] && [ -c /dev/tpmrm0 ] || { fail "there is no /dev/tpm0"; dmesg | tail -n 30; return; }
        [ "$(cat /sys/class/tpm/tpm0/tpm_version_major)" = 2 ] || fail "it is no TPM 2.0"
        ok "the driver binds"
}

# The picture in README.md.
show() {
        must "load" load || return
        for command in 'uname -srm' 'cat /sys/bus/virtio/drivers/tpm_virtio/virtio*/device /sys/class/tpm/tpm0/tpm_version_major' \
                'ls -l /dev/tpm0' 'tpm2_getrandom --hex 16; echo' 'tpm2_pcrextend 9:sha256=$(echo boot | sha256sum | cut -c 1-64)' \
                'tpm2_pcrread sha256:9' 'tpm2_createprimary -Q -c key' \
                'echo "a secret" | tpm2_create -Q -C key -i - -c sealed' 'tpm2_unseal -c sealed'; do
                echo "# $command"
                eval "$command" 2>&1 || fail "$command"
        done
}

tools() {
        must "random" tpm2_getrandom --hex 16 && first=$(cat /run/out)
        must "random" tpm2_getrandom --hex 16 && second=$(cat /run/out)
        [ ${#first} = 32 ] && [ "$first" != "$second" ] || fail "no random numbers: '$first' and '$second'"
        ok "getrandom"

        head -c 5000 /dev/urandom > data
        must "hash" tpm2_hash -C n -g sha256 --hex data
        [ "$(cat /run/out)" = "$(sha256sum data | cut -d ' ' -f 1)" ] || fail "5000 bytes are hashed wrongly"
        ok "hash of several long commands"

        must "create primary" tpm2_createprimary -C o -g sha256 -G rsa2048 -c primary.ctx
        ok "create primary"

        echo "a secret" > secret
        must "seal" tpm2_create -C primary.ctx -i secret -u seal.pub -r seal.priv
        must "load" tpm2_load -C primary.ctx -u seal.pub -r seal.priv -c seal.ctx
        must "unseal" tpm2_unseal -c seal.ctx -o unsealed
        cmp -s secret unsealed || fail "what is unsealed is not what was sealed"
        ok "seal, unseal"

        for kind in rsa2048 ecc256; do
                must "key" tpm2_create -C primary.ctx -G $kind -u $kind.pub -r $kind.priv
                must "load" tpm2_load -C primary.ctx -u $kind.pub -r $kind.priv -c $kind.ctx
                must "sign" tpm2_sign -c $kind.ctx -g sha256 -o sig data
                must "verify" tpm2_verifysignature -c $kind.ctx -g sha256 -m data -s sig
                must_not "verify what was not signed" tpm2_verifysignature -c $kind.ctx -g sha256 -m secret -s sig
        done
        ok "sign, verify"

        must "nvdefine" tpm2_nvdefine -C o -s 9 -a 'ownerread|ownerwrite|authread|authwrite' 0x1500016
        must "nvwrite" tpm2_nvwrite -C o -i secret 0x1500016
        must "nvread" tpm2_nvread -C o -s 9 -o nv 0x1500016
        cmp -s secret nv || fail "what is read from NV is not what was written"
        must "nvundefine" tpm2_nvundefine -C o 0x1500016
        must_not "nvread of nothing" tpm2_nvread -C o 0x1500016
        ok "nv"

        must "ek" tpm2_createek -c ek.ctx -G rsa -u ek.pub
        must "ak" tpm2_createak -C ek.ctx -c ak.ctx -u ak.pub -n ak.name
        must "quote" tpm2_quote -c ak.ctx -l sha256:9,10 -q 1234 -m quote.msg -s quote.sig -o quote.pcrs -g sha256
        must "check" tpm2_checkquote -u ak.pub -m quote.msg -s quote.sig -f quote.pcrs -g sha256 -q 1234
        must_not "check with another nonce" \
                tpm2_checkquote -u ak.pub -m quote.msg -s quote.sig -f quote.pcrs -g sha256 -q 4321
        ok "quote"
}

pcrs() {
        [ "$(pcr 9 | tr A-F a-f)" = "$zeros" ] || fail "PCR 9 is not zero after power-on: $(pcr 9)"
        must "extend" tpm2_pcrextend "9:sha256=$digest"
        [ "$(pcr 9 | tr A-F a-f)" = "$extended" ] || fail "PCR 9 is wrong after an extend: $(pcr 9)"
        ok "pcr read, extend"
}

# A driver that comes again finds the TPM as it was.
reload() {
        for n in 1 2 3; do
                must "unload" rmmod tpm_virtio
                [ ! -e /dev/tpm0 ] || fail "/dev/tpm0 is still there"
                must "load" load
        done
        device=$(basename "$(readlink -f /sys/class/tpm/tpm0/device)")
        echo "$device" > /sys/bus/virtio/drivers/tpm_virtio/unbind
        [ ! -e /dev/tpm0 ] || fail "/dev/tpm0 is still there"
        echo "$device" > /sys/bus/virtio/drivers/tpm_virtio/bind
        [ "$(pcr 9 | tr A-F a-f)" = "$extended" ] || fail "PCR 9 has changed: $(pcr 9)"
        ok "module reload and rebind change nothing in the TPM"
}

# The kernel's own tests of TPMs, unchanged.
selftests() {
        cd /selftests
        for name in smoke space async; do
                sh ./test_$name.sh > /run/selftest 2>&1 && grep -q '^OK' /run/selftest ||
                        { fail "selftest $name"; tail -n 40 /run/selftest; }
                ok "selftest $name: $(grep '^Ran' /run/selftest)"
        done
        cd /tmp
}

suspend() {
        grep -q freeze /sys/power/state 2> /dev/null || { echo "not tested: this kernel cannot suspend"; return; }
        echo devices > /sys/power/pm_test
        load_begin
        for n in 1 2; do
                echo freeze > /sys/power/state || fail "it does not suspend"
        done
        echo none > /sys/power/pm_test
        load_end
        [ "$(pcr 9 | tr A-F a-f)" = "$extended" ] || fail "PCR 9 has changed: $(pcr 9)"
        ok "suspend under load: $(cat /run/load)"
}

# load_begin: commands as fast as they go, each looked at; load_end: ends that, with what there is to say about it
load_begin() {
        rm -f /run/stop /run/stop.begun
        python3 /test/load.py 8 /run/stop > /run/load 2>&1 &
        load=$!
        until_true 30 "[ -e /run/stop.begun ]" || fail "no load: $(cat /run/load)"
}

load_end() {
        touch /run/stop
        wait $load || fail "commands fail: $(cat /run/load)"
}

# in_flight PID: waits until the process waits for the device
in_flight() {
        until_true 30 "grep -q tpm_virtio /proc/$1/stack" ||
                fail "no command in flight is seen, but: $(grep State "/proc/$1/status") $(cat "/proc/$1/stack")"
}

# A killed process ends at once. Nothing of what it was about to load stays in the TPM, and the next command waits for
# the buffers.
kill_in_flight() {
        for flags in 0 tpm2.Client.FLAG_SPACE; do
                host swtpm-stop
                (cd /selftests && exec python3 -c "import tpm2; tpm2.Client($flags).create_root_key()") 2> /dev/null &
                victim=$!
                in_flight $victim
                begin=$(seconds)
                kill -9 $victim
                wait $victim
                took=$(($(seconds) - begin))
                [ $took -le 10 ] || fail "it took $took s until it ended"
                (cd /selftests && exec python3 -c "import tpm2; tpm2.Client().read_pcr(9, 11)") &
                next=$!
                in_flight $next
                host swtpm-continue
                wait $next || fail "the next command fails"
                TPM2TOOLS_TCTI=device:/dev/tpm0 must "handles" tpm2_getcap handles-transient
                [ ! -s /run/out ] || fail "a killed command has left objects in the TPM: $(cat /run/out)"
        done
        ok "processes killed with a command in flight"
}

# The kernel cleans up after a process that had sessions while the TPM hangs: the process does not wait for that, and
# yet nothing is forgotten.
kill_with_sessions() {
        mkfifo /run/go
        (cd /selftests && exec python3 -c '
import tpm2
client = tpm2.Client(tpm2.Client.FLAG_SPACE)
for n in range(3):
    client.start_auth_session(tpm2.TPM2_SE_POLICY, tpm2.TPM2_ALG_SHA256)
open("/run/go").read()
client.read_pcr(9, tpm2.TPM2_ALG_SHA256)') 2> /run/victim &
        victim=$!
        exec 3> /run/go # once it reads, which ends with the descriptor
        export TPM2TOOLS_TCTI=device:/dev/tpm0
        must "sessions" tpm2_getcap handles-saved-session
        [ "$(wc -l < /run/out)" = 3 ] || fail "there are not three sessions: $(cat /run/out /run/victim)"
        host swtpm-stop
        exec 3>&-
        in_flight $victim
        begin=$(seconds)
        kill -9 $victim
        wait $victim
        took=$(($(seconds) - begin))
        [ $took -le 5 ] || fail "it took $took s until it ended"
        host swtpm-continue
        for kind in saved-session loaded-session transient; do
                must "handles" tpm2_getcap handles-$kind
                [ ! -s /run/out ] || fail "a killed process has left $kind handles in the TPM: $(cat /run/out)"
        done
        export TPM2TOOLS_TCTI=device:/dev/tpmrm0
        ok "process killed that had sessions, while the TPM hangs"
}

# The driver goes while the TPM is at work.
remove_in_flight() {
        load_begin
        host swtpm-stop
        in_flight $load
        begin=$(seconds)
        must "unload" rmmod tpm_virtio
        took=$(($(seconds) - begin))
        [ $took -le 10 ] || fail "it took $took s"
        wait $load && fail "a command that lost its driver has succeeded"
        host swtpm-continue
        must "load" load
        must "random" tpm2_getrandom --hex 8
        ok "module removed with a command in flight"
}

rebind() {
        device=$(basename "$(readlink -f /sys/class/tpm/tpm0/device)")
        echo "$device" > /sys/bus/virtio/drivers/tpm_virtio/unbind
        echo "$device" > /sys/bus/virtio/drivers/tpm_virtio/bind
        [ -c /dev/tpm0 ] || fail "it does not come back"
}

# A device that lies about its responses (liar.c): no lie is believed, and only the last three, about the ring, cost
# the device its driver.
lies() {
        for n in 33 34 35 36 37 38 39 40; do
                must_not "random, by lie $n" tpm2_getrandom --hex $n
                must "random after lie $n" tpm2_getrandom --hex 8
        done
        for n in 41 42 43; do
                if [ $n = 42 ]; then
                        must "random, returned twice" tpm2_getrandom --hex $n
                        # What the second of them belongs to is the next command, or nothing.
                        tpm2_getrandom --hex 8 > /dev/null 2>&1
                else
                        must_not "random, by lie $n" tpm2_getrandom --hex $n
                        must_not "random from such a ring" tpm2_getrandom --hex 8
                fi
                rebind
                must "random after lie $n" tpm2_getrandom --hex 8
        done
        ok "a device that lies"
}

# A TPM that hangs: the command ends, the device keeps the buffers until the TPM is done with them.
timeout() {
        host swtpm-stop
        begin=$(seconds)
        must_not "random from a TPM that hangs" tpm2_getrandom --hex 8
        took=$(($(seconds) - begin))
        [ $took -ge 9 ] && [ $took -le 60 ] || fail "it took $took s"
        must_not "random while it still hangs" tpm2_getrandom --hex 8
        host swtpm-continue
        until_true 30 "tpm2_getrandom --hex 8" || fail "it does not recover: $(dmesg | tail -n 5)"
        ok "a TPM that hangs for a while"
}

# The device process is replaced again and again while commands run: each is executed exactly once.
restart() {
        load_begin
        host "$2" "$1"
        load_end
        ok "device process: $2, $1 times: $(cat /run/load)"
}

restarts() {
        restart 100 restart
}

crashes() {
        restart 50 kill
}

# The guest is killed from outside, in the midst of commands.
killed() {
        load_begin
        host kill-guest $failed
}

reboot() {
        end=busybox\ reboot
        ok "reboot"
}

# From here on the TPM is beyond repair until the guest is switched on anew; the guest goes on.
swtpm_killed() {
        host swtpm-kill
        begin=$(seconds)
        must_not "random without a TPM" tpm2_getrandom --hex 8
        must "unload" rmmod tpm_virtio
        took=$(($(seconds) - begin))
        [ $took -le 15 ] || fail "it took $took s"
        must "load without a TPM behind the device" load || :
        [ -e /dev/tpm0 ] && rmmod tpm_virtio
        ok "swtpm killed"
}

device_killed() {
        # Over vhost-user nobody tells the guest: each command waits as long as it would for a slow TPM.
        limit=15
        [ "$id" = 62 ] || limit=60
        host device-kill
        begin=$(seconds)
        must_not "random without a device" tpm2_getrandom --hex 8
        must "unload" rmmod tpm_virtio
        took=$(($(seconds) - begin))
        [ $took -le $limit ] || fail "it took $took s"
        # The virtio core looks whether the driver has reset the device, which is not there any more.
        allowed=virtio_dev_remove
        ok "device process killed for good"
}

# The same, and the driver is still there when the guest ends: nothing may wait for the device then.
device_lost() {
        host device-kill
        must_not "random without a device" tpm2_getrandom --hex 8
        ok "device process gone until the end"
}

# The tests of other projects, with /foreign/job saying which. What they say is for foreign.sh on the host.
foreign() {
        mkdir -p /dev/pts /dev/shm
        mount -t devpts devpts /dev/pts
        mount -t tmpfs shm /dev/shm
        ln -sf /proc/self/fd /dev/fd
        # shellcheck disable=SC2046
        bash /test/foreign.sh device $(cat /foreign/job)
}
