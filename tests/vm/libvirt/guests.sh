# SPDX-License-Identifier: LGPL-2.1-or-later
#
# guests.sh - libvirt guests that really boot, on tools/devhost with its newer libvirt; to be sourced after common.sh
#
# They are emulated (TCG), have the stock kernel of Debian sid and this project's driver, and are talked to through
# their console. A test calls guests_enter first; what follows is then run on the simulated host.

guests_suite=sid

# A script that skips has said why as its last line.
guests_make() { # guests_make VARIABLE SCRIPT [ARGUMENT]...
        local status=0 out

        out=$("$top/$2" "${@:3}") || status=$?
        [ $status != 77 ] || { echo "${out##*$'\n'}"; exit 77; }
        [ $status = 0 ] || die "$2 ${*:3}: $out"
        printf -v "$1" %s "$out"
}

# guests_files ARCHITECTURE: makes $work/ARCHITECTURE.kernel and .initrd
guests_files() {
        local arch=$1 kernel root module dir=$work/root-$1

        guests_make kernel tests/vm/tpm/kernel.sh $guests_suite "$arch"
        guests_make root tests/vm/tpm/root.sh $guests_suite "$arch"
        guests_make module tests/vm/tpm/module.sh $guests_suite "$arch"
        cp -a "$root" "$dir"
        # Half of it is what no test of these wants.
        rm -rf "$dir"/usr/lib/python3* "$dir"/usr/bin/*python* "$dir"/usr/bin/*perl*
        mkdir -p "$dir"/{modules,test}
        find "$module/tpm_virtio.ko" "$kernel/modules" -name '*.ko' -exec cp {} "$dir/modules/" \;
        cp "$top/tests/vm/libvirt/obey.sh" "$dir/test/stages.sh"
        install "$top/tests/vm/tpm/guest/init" "$dir/init"
        (cd "$dir" && find . -print0 | cpio --null -o -H newc --quiet) > "$work/$arch.initrd"
        rm -rf "$dir"
        cp "$kernel/vmlinuz" "$work/$arch.kernel"
}

# guests_enter ARCHITECTURE,... SCRIPT [ARGUMENT]...: runs itself again on the simulated host; returns only there, with
# work= set. GUESTS_LIBVIRT: what --libvirt gets; default new.
guests_enter() {
        local arch status=0

        if [ -n "${GUESTS_WORK-}" ]; then
                work=$GUESTS_WORK
                return 0
        fi
        need_root
        need cpio mmdebstrap swtpm
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        for arch in ${1//,/ }; do
                guests_files "$arch"
        done
        GUESTS_WORK=$work "$top/tools/devhost" "--libvirt${GUESTS_LIBVIRT-=new}" --quiet "${GUESTS_OPTIONS[@]}" -- "${@:2}" ||
                status=$?
        exit $status
}

# guest_xml NAME ARCHITECTURE [DEVICES [MORE]]: a guest; DEVICES and MORE are XML for <devices> and <domain>
guest_xml() {
        local name=$1 arch=$2 machine console serial features= feature

        case $arch in
        amd64)
                arch=x86_64 machine=q35 console=ttyS0 features='<features><acpi/><apic/></features>'
                serial="<serial type='pipe'><source path='$work/$name'/></serial>"
                ;;
        s390x)
                machine=s390-ccw-virtio console=ttysclp0
                # What a guest with a matrix needs; the simulated host's QEMU takes it out again.
                features="<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu</model>"
                for feature in ap apft apqci apqi; do
                        features+="<feature policy='require' name='$feature'/>"
                done
                features+='</cpu>'
                serial="<console type='pipe'><source path='$work/$name'/><target type='sclp'/></console>"
                ;;
        esac
        cat <<XML
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>$name</name>
  <memory unit='MiB'>768</memory>
  <memtune><hard_limit unit='KiB'>8192</hard_limit></memtune>
  <vcpu>1</vcpu>
  <os>
    <type arch='$arch' machine='$machine'>hvm</type>
    <kernel>$work/$2.kernel</kernel>
    <initrd>$work/$2.initrd</initrd>
    <cmdline>console=$console quiet loglevel=1 panic=-1 mitigations=off no_timer_check id=62 stages=obey</cmdline>
  </os>
  ${features:+$features
  }<on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-$arch</emulator>
    <controller type='usb' model='none'/>
    $serial
    <memballoon model='none'/>${3:+
    $3}
  </devices>${4:+
  $4}
</domain>
XML
}

declare -A guest_in guest_out guest_part=() guest_number=()

# guest_define NAME ARCHITECTURE [DEVICES [MORE]]
guest_define() {
        mkfifo "$work/$1.in" "$work/$1.out"
        # Open for both, so that neither side ever waits for the other, nor loses what the other has said.
        exec {guest_in[$1]}<> "$work/$1.in" {guest_out[$1]}<> "$work/$1.out"
        guest_xml "$@" > "$work/$1.xml"
        virsh -q define --validate "$work/$1.xml" > /dev/null
}

# guest_line NAME SECONDS: the next line of its console, in line
guest_line() {
        local status=0

        IFS= read -r -t "$2" line <&${guest_out[$1]} || status=$?
        # What came of a line before the time was over is its beginning.
        guest_part[$1]+=$line
        [ $status = 0 ] || return 1
        line=${guest_part[$1]//[^[:print:]]/}
        guest_part[$1]=
        [ -z "${GUESTS_VERBOSE-}" ] || echo "$1| $line" >&2
}

# guest_booted NAME: waits until it has; the id of the boot in boot
guest_booted() {
        local deadline=$((SECONDS + ${GUESTCRYPT_VM_SECONDS:-600})) line

        while [ $SECONDS -lt $deadline ]; do
                guest_line "$1" 5 || continue
                case $line in
                *"== ready "*)
                        boot=${line##* }
                        return 0
                        ;;
                esac
        done
        tail -n 5 "/var/log/libvirt/qemu/$1.log" >&2
        die "guest '$1' does not boot"
}

# guest_send NAME COMMAND
guest_send() {
        guest_number[$1]=$((${guest_number[$1]:-0} + 1))
        printf '%s %s\n' "${guest_number[$1]}" "$2" >&${guest_in[$1]}
}

# guest_do NAME COMMAND: runs it there; what it says in out; the status is its
guest_do() {
        local deadline=$((SECONDS + ${GUESTCRYPT_VM_SECONDS:-600})) line

        guest_send "$1" "$2"
        out=
        while [ $SECONDS -lt $deadline ]; do
                guest_line "$1" 5 || continue
                case $line in
                "== ${guest_number[$1]} "*) return "${line##* }" ;;
                "== "* | '') ;; # of a command that nobody waited for
                *) out+=${out:+$'\n'}$line ;;
                esac
        done
        die "guest '$1' does not answer to '$2': $out"
}

# guest_must NAME COMMAND: it is a failure if the command is one
guest_must() {
        guest_do "$1" "$2" || die "guest '$1': '$2': $out"
}

# guest_load NAME: the driver, and with it a TPM
guest_load() {
        guest_must "$1" 'load && [ -c /dev/tpmrm0 ] || { dmesg | tail -n 20; false; }'
}

is_state() {
        [ "$(virsh -q domstate "$1")" = "$2" ]
}

# The XML of a virtio TPM behind SOCKET, as guest-attach-tpm writes it: guest_tpm_xml ARCHITECTURE SOCKET
guest_tpm_xml() {
        local place=

        [ "$1" != amd64 ] || place='"bus":"pcie.0","addr":"0x1e",'
        cat <<XML
<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value='{"driver":"vfio-user-pci","id":"ua-guestcrypt-tpm",$place"socket":{"type":"unix","path":"$2"}}'/>
  </qemu:commandline>
XML
}

# ---- what guestcryptd says ----

# tpm_field NAME FIELD
tpm_field() {
        guestcryptctl --json tpm-show "$1" | jq -r ".$2"
}

tpm_is() {
        [ "$(tpm_field "$1" state)" = "$2" ]
}

# counter TPM NAME: as anybody on the bus reads it
counter() {
        local path

        path=$(busctl --system -j call org.guestcrypt1 /org/guestcrypt1 org.guestcrypt1.Manager GetTpm s "$1" | jq -r '.data[0]')
        busctl --system -j call org.guestcrypt1 "$path" org.guestcrypt1.Tpm GetCounters | jq -e --arg name "$2" '.data[0][$name]'
}

# expect STATUS TEXT COMMAND...: the status, and the text somewhere in what it says
expect() {
        local status=0 said

        said=$("${@:3}" 2>&1) || status=$?
        [ $status = "$1" ] && [[ $said == *"$2"* ]] || die "'${*:3}': status $status, not $1 with '$2': $said"
}

# ---- a TPM as seen in a guest ----

zeros=$(printf '%064d' 0)
nv=0x1500016

# guest_pcr NAME: of PCR 9, in pcr
guest_pcr() {
        guest_must "$1" 'pcr 9'
        pcr=$out
}

# guest_mark NAME: something that has to be gone after a reset, and something that has to be kept for ever
guest_mark() {
        guest_pcr "$1"
        [ "$pcr" = "$zeros" ] || die "guest '$1': PCR 9 is '$pcr' at first"
        guest_must "$1" "tpm2_pcrextend 9:sha256=$zeros"
        guest_pcr "$1"
        [ "$pcr" != "$zeros" ] || die "guest '$1': PCR 9 cannot be extended"
        marked=$pcr
        guest_do "$1" "tpm2_nvread -C o -s 4 $nv" ||
                guest_must "$1" "tpm2_nvdefine -C o -s 4 -a 'ownerread|ownerwrite' $nv && echo -n kept > keep && tpm2_nvwrite -C o -i keep $nv"
}

# The guest has the same TPM as before, and it has not been reset since guest_mark.
guest_same() {
        guest_pcr "$1"
        [ "$pcr" = "$marked" ] || die "guest '$1': PCR 9 is '$pcr', not '$marked': the TPM was reset"
}

# The guest has the same TPM as before, and it was reset.
guest_reset() {
        guest_pcr "$1"
        [ "$pcr" = "$zeros" ] || die "guest '$1': PCR 9 is '$pcr': the TPM was not reset"
        guest_must "$1" "tpm2_nvread -C o -s 4 $nv"
        [ "$out" = kept ] || die "guest '$1': what its TPM keeps is '$out'"
}
