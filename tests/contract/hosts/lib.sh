# SPDX-License-Identifier: LGPL-2.1-or-later
#
# lib.sh - scripts of the contract suite played on the real driver; to be sourced after common.sh with work= set

# make_player: $work/contract-files, static and for s390x
make_player() {
        local here=$top/tests/contract

        need s390x-linux-gnu-gcc
        s390x-linux-gnu-gcc -std=gnu17 -O2 -Wall -static -D_GNU_SOURCE -o "$work/contract-files" \
                "$here"/{host_files,play,reset,vfio_guest}.c
}

# play_on_kernel SERIES ARGUMENTS SCRIPT PLAYER'S OPTION...: boots with the kernel arguments, prints what the driver answered
play_on_kernel() {
        local share status=0

        share=$(mktemp -d "$work/share.XXXXXX")
        cp "$3" "$share/script"
        # Nothing is to wait for this machine meanwhile: in such a guest that is time for a scan.
        printf '%s\n' 'cp /mnt/contract/script /tmp/script' "contract-files ${*:4} /tmp/script /sys kernel > /tmp/out" \
                'status=$?' 'cp /tmp/out /mnt/contract/out' 'exit $status' > "$share/job"
        # A reset that takes its time shows nothing more.
        "$top/tests/vm/ap-kernel/run.sh" -k "$1" -t 1800 -f -b "$work/contract-files" -s "contract=$share" \
                -a "ap_model.reset_ms=0 $2" "$share/job" >&2 || status=$?
        [ ! -e "$share/out" ] || cat "$share/out"
        rm -rf "$share"
        return $status
}

# count_operations FILE...: of what was played
count_operations() {
        cat "$@" | grep -cvE '^(	|section|boot|uevents)' || :
}

# Only the first lines, of a text that can be long.
show_diff() {
        diff -u --label expected --label got "$1" "$2" > "$work/diff" || :
        sed -n 1,80p "$work/diff"
}
