#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kernel.sh - a Linux kernel for s390x in which the real AP bus, vfio_ap, mdev core and VFIO run without the hardware:
#             its AP instructions are answered by a model (ap-model.patch)
#
# usage: kernel.sh 7.2|6.12
#
# Prints a directory with bzImage, release (its uname -r), version (of Debian's source package), config, and root: what
# its initramfs starts from, a static busybox and the modules. It is built once, from Debian's source, which takes 15 to 25 minutes on two cores (2 with a
# filled ccache), and cached for this patch and configuration; a newer point release of Debian is no reason to build
# again. When Debian has no such series any more, its newest one that the patch applies to is built and said so.
set -euo pipefail
here=$(cd "${0%/*}" && pwd)
top=${here%/tests/vm/ap-kernel}
. "$top/tests/lib/common.sh"
. "$top/tests/lib/debian.sh"

series=${1:-}
case $series in
7.2) suite=sid ;;
6.12) suite=trixie ;;
*) die "there is no kernel '$series'" ;;
esac

# Prints the suite's source packages, the wanted one first.
list_sources() {
        echo "linux-source-$series"
        debian_apt "$suite" apt-cache pkgnames linux-source- | grep -x 'linux-source-[0-9.]*' |
                grep -vxF "linux-source-$series" | sort -Vr || :
}

# Unpacks the first source package that the patch applies to; sets $source and $version.
get_source() {
        local work=$1

        for source in $(list_sources); do
                version=$(debian_version "$suite" "$source") || :
                [ -n "$version" ] || continue
                echo "kernel.sh: $source $version of Debian's $suite" >&2
                rm -rf "$work"
                mkdir "$work"
                debian_unpack "$suite" "$work" "$source" || continue
                tar -C "$work" -xJf "$work/usr/src/$source.tar.xz" || return 1
                rm -r "${work:?}/usr"
                patch -d "$work/$source" -p1 -sf --no-backup-if-mismatch < "$here/ap-model.patch" >&2 && return 0
                echo "kernel.sh: the model does not apply to it" >&2
        done
        return 1
}

make_kernel() {
        local out=$1 work=$1/work tree option source version modules
        local make=(make -j "$(nproc)" ARCH=s390 KBUILD_BUILD_USER=guestcrypt KBUILD_BUILD_HOST=ap-kernel
                KBUILD_BUILD_TIMESTAMP=@0)

        get_source "$work" || return 1
        tree=$work/$source
        if command -v ccache > /dev/null; then
                make+=("CROSS_COMPILE=ccache s390x-linux-gnu-")
        else
                make+=(CROSS_COMPILE=s390x-linux-gnu-)
        fi
        "${make[@]}" -s -C "$tree" allnoconfig KCONFIG_ALLCONFIG="$here/kernel.config" >&2 || return 1
        for option in AP ZCRYPT KVM S390_AP_MODEL VFIO_AP; do
                grep "^CONFIG_$option=[ym]" "$tree/.config" > /dev/null ||
                        { echo "kernel.sh: CONFIG_$option cannot be set in $version" >&2; return 1; }
        done
        "${make[@]}" -C "$tree" bzImage modules > "$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; return 1; }

        cp "$tree/arch/s390/boot/bzImage" "$tree/.config" "$out/" &&
                cp "$tree/include/config/kernel.release" "$out/release" &&
                echo "$version" > "$out/version" || return 1
        modules=$out/root/lib/modules/$(cat "$out/release")
        mkdir -p "$modules" "$out/root/bin" "$work/busybox" &&
                find "$tree" -name '*.ko' -exec cp -t "$modules" {} + &&
                depmod -b "$out/root" "$(cat "$out/release")" 2> /dev/null &&
                debian_unpack "$suite" "$work/busybox" busybox-static:s390x &&
                find "$work/busybox" -type f -path '*/bin/busybox' -exec cp {} "$out/root/bin/busybox" \; &&
                mv "$out/.config" "$out/config" &&
                rm -rf "$work" &&
                [ -s "$modules/vfio_ap.ko" ] && [ -x "$out/root/bin/busybox" ]
}

dir=$cache/ap-kernel-$series-$(cat "$here/ap-model.patch" "$here/kernel.config" | sha256sum | cut -c 1-8)
if [ ! -d "$dir" ]; then
        need make flex bison bc patch perl xz depmod s390x-linux-gnu-gcc
        need_debian "$suite"
        once "$dir" make_kernel >&2 || die "the kernel could not be built"
fi
echo "$dir"
