#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kernel.sh - Debian's stock kernel, its mdev modules and its mtty sample driver, none of them installed
#
# usage: kernel.sh        prints a directory that holds vmlinuz, modules/*.ko and modules/order
#
# The packages come from the apt sources of this machine. The directory is cached under its kernel's version.
set -euo pipefail
top=$(cd "${0%/*}/../.." && pwd)
. "$top/tests/lib/common.sh"

# In the order in which they have to be loaded. vfio_virqfd is a part of vfio since 6.2.
modules='irqbypass vfio_virqfd vfio vfio_iommu_type1 mdev mtty'

depends_of() {
        apt-cache depends "$1" 2> /dev/null | sed -n "s/^ *Depends: <\?\($2[^>]*\)>\?\$/\1/p" | sed -n 1p
}

# The version of the package that a meta package stands for today, from the image's name.
image=$(depends_of linux-image-amd64 linux-image-)
[ -n "$image" ] || { apt-get -qq update < /dev/null >&2; image=$(depends_of linux-image-amd64 linux-image-); }
[ -n "$image" ] || skip "apt knows no linux-image-amd64"
release=${image#linux-image-}
package_version=$(apt-cache show --no-all-versions "$image" | sed -n 's/^Version: //p')

make_kernel() {
        local out=$1 work headers kbuild source m file

        work=$out/work
        mkdir -p "$work/debs" "$work/root" "$out/modules"
        headers=linux-headers-$release
        kbuild=$(depends_of "$headers" linux-kbuild-)
        source=linux-source-${kbuild#linux-kbuild-}
        # A package list that is older than the archive names files that are gone: once more with a new list.
        (cd "$work/debs" && apt-get -qq download "$image" "$headers" "$(depends_of "$headers" '.*-common')" \
                "$kbuild" "$source" < /dev/null 2> "$work/log") ||
                { apt-get -qq update; return 1; }
        for file in "$work"/debs/*.deb; do
                dpkg-deb -x "$file" "$work/root"
                rm "$file"
        done

        # The packaged headers name each other by absolute paths.
        find "$work/root/usr/src" -maxdepth 2 -name Makefile -exec \
                sed -i "s#/usr/\(src\|lib\)/linux-#$work/root/usr/\1/linux-#g" {} +
        find "$work/root/usr/src" -maxdepth 2 -type l | while read -r file; do
                case $(readlink "$file") in
                /usr/*) ln -sfn "$work/root$(readlink "$file")" "$file" ;;
                esac
        done

        mkdir "$work/mtty"
        tar -xOf "$work/root/usr/src/$source.tar.xz" --wildcards "$source/samples/vfio-mdev/mtty.c" > "$work/mtty/mtty.c"
        echo 'obj-m := mtty.o' > "$work/mtty/Kbuild"
        make -s -C "$work/root/usr/src/$headers" M="$work/mtty" modules > "$work/log" 2>&1 ||
                { cat "$work/log"; return 1; }

        cp "$work/root/boot/vmlinuz-$release" "$out/vmlinuz"
        for m in $modules; do
                file=$(find "$work/root/lib/modules" "$work/root/usr/lib/modules" "$work/mtty" \
                        -name "$m.ko" -o -name "${m//_/-}.ko" -o -name "$m.ko.xz" -o -name "${m//_/-}.ko.xz" 2> /dev/null |
                        head -n 1) || :
                [ -n "$file" ] || continue
                case $file in
                *.xz) xz -dc "$file" > "$out/modules/$m.ko" ;;
                *) cp "$file" "$out/modules/$m.ko" ;;
                esac
                echo "$m" >> "$out/modules/order"
        done
        rm -rf "$work"
        # Called where "set -e" does nothing, hence this look at the result.
        [ -s "$out/vmlinuz" ] && [ -s "$out/modules/mtty.ko" ] && [ -s "$out/modules/mdev.ko" ]
}

dir=$cache/vm-kernel-$package_version
once "$dir" make_kernel >&2 || once "$dir" make_kernel >&2 || die "the guest's kernel could not be made"
echo "$dir"
