# SPDX-License-Identifier: LGPL-2.1-or-later
#
# debian.sh - packages of any Debian release, none of them installed; to be sourced after common.sh
#
# They come from the archive that this machine's apt uses for its own packages: it has the other releases, too. The
# package lists of each release live in the cache, with both architectures that the tests need.

# apt takes a second for each question, of which a test that boots a guest has twenty: the answers are kept.
debian_mirror() {
        local known=$cache/apt-mirror mirror

        if [ -z "$(find /etc/apt -newer "$known" 2>&1)" ]; then
                cat "$known"
                return
        fi
        mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
                sed -n 's/^Debian \([^ ]*\) [a-z]*$/\1/p' | sed -n 1p)
        [ -n "$mirror" ] || skip "apt on this machine has no Debian archive"
        mkdir -p "$cache"
        echo "$mirror" > "$known.$$"
        mv "$known.$$" "$known"
        echo "$mirror"
}

debian_source() {
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $1 main"
}

# debian_apt SUITE apt-get|apt-cache ARGUMENT...: with the package lists of SUITE instead of this machine's
debian_apt() {
        local source dir lock answer

        source=$(debian_source "$1")
        dir=$cache/apt-$1-$(sha256sum <<< "$source" | cut -c 1-8)
        if [ -z "$(find "$dir/fresh" -mmin -1440 2> /dev/null)" ]; then
                mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
                exec {lock}> "$dir/lock"
                flock $lock
                echo "$source" > "$dir/sources.list"
                : > "$dir/status"
                cat > "$dir/apt.conf" <<-CONF
			Dir::State "$dir/state";
			Dir::State::status "$dir/status";
			Dir::Cache "$dir/cache";
			Dir::Etc::sourcelist "$dir/sources.list";
			Dir::Etc::sourceparts "-";
			APT::Architecture "amd64";
			APT::Architectures { "amd64"; "s390x"; };
			APT::Sandbox::User "root";
			Acquire::Check-Valid-Until "false";
			Acquire::Languages "none";
			Acquire::Retries "3";
		CONF
                # Yesterday's lists are better than none.
                if APT_CONFIG=$dir/apt.conf apt-get -qq update < /dev/null >&2; then
                        touch "$dir/fresh"
                elif [ ! -e "$dir/fresh" ]; then
                        exec {lock}>&-
                        return 1
                fi
                exec {lock}>&-
        fi
        if [ "$2" = apt-cache ]; then
                answer=$dir/answers/$(sha256sum <<< "${*:3}" | cut -c 1-16)
                if [ ! "$answer" -nt "$dir/fresh" ]; then
                        mkdir -p "$dir/answers"
                        debian_ask "$dir" "${@:2}" > "$answer.$$" || { rm "$answer.$$"; return 1; }
                        mv "$answer.$$" "$answer"
                fi
                cat "$answer"
        else
                debian_ask "$dir" "${@:2}"
        fi
}

# Some images turn apt's own cache off, where a file cannot turn it on again.
debian_ask() { # debian_ask DIRECTORY apt-get|apt-cache ARGUMENT...
        APT_CONFIG=$1/apt.conf "$2" -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin \
                "${@:3}"
}

# need_debian SUITE: skips the test where its package lists are neither here nor to be had
need_debian() {
        debian_apt "$1" apt-cache stats > /dev/null || skip "the packages of Debian's '$1' cannot be had"
}

# debian_depends SUITE PACKAGE PATTERN: the package that a meta package stands for today
debian_depends() {
        debian_apt "$1" apt-cache depends --important "$2" |
                sed -n "s/^ *\(Pre\)\?Depends: <\?\($3[^>:]*\).*/\2/p" | sed -n 1p
}

# debian_version SUITE PACKAGE
debian_version() {
        debian_apt "$1" apt-cache show --no-all-versions "$2" | sed -n 's/^Version: //p' | sed -n 1p
}

# debian_unpack SUITE DIRECTORY PACKAGE[:ARCHITECTURE]...: what these packages contain, without what they depend on
debian_unpack() {
        local suite=$1 dir=$2 debs file

        debs=$(mktemp -d)
        if ! (cd "$debs" && debian_apt "$suite" apt-get -qq download "${@:3}" < /dev/null >&2); then
                rm -rf "$debs"
                return 1
        fi
        for file in "$debs"/*.deb; do
                dpkg-deb --fsys-tarfile "$file" | tar -C "$dir" -x --keep-directory-symlink || { rm -rf "$debs"; return 1; }
        done
        rm -rf "$debs"
}

# debian_root DIRECTORY SUITE ARCHITECTURE VARIANT PACKAGE,...: a root file system, see mmdebstrap(1). With the variant
# "extract" nothing in it is executed, and so it may be of any architecture.
debian_root() {
        local log=$1.log link

        if ! mmdebstrap --quiet --mode=root --architectures="$3" --variant="$4" --skip=check/qemu --include="$5" \
                --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "3"' \
                --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
                --dpkgopt='path-exclude=/usr/share/locale/*' \
                "$2" "$1" "$(debian_source "$2")" < /dev/null > "$log" 2>&1; then
                cat "$log" >&2
                return 1
        fi
        rm -f "$log"
        # Which a package's script would have made.
        for link in bin sbin lib lib64; do
                [ -e "$1/$link" ] || [ ! -e "$1/usr/$link" ] || ln -s "usr/$link" "$1/$link"
        done
        mkdir -p "$1"/{dev,proc,sys,run,tmp,root}
}
