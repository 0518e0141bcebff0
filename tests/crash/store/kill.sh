#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Kills the store at each of its system calls, and lets each call that changes something fail, one at a time; afterwards
# the state is the old or the new one, the new one if that was acknowledged, and the old one if an error was.
# Usage: kill.sh STORE-TOOL put|checkpoint, the latter says how the old state was made
set -eu
tool=$1 before=$2
d=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" guestcrypt-kill-XXXXXX)
trap 'rm -rf "$d" "$d.trace" "$d.out"' EXIT
strace -f -o /dev/null true 2> /dev/null || { echo 'SKIP: strace cannot trace here'; exit 77; }

n=0 bad=0
export ASAN_OPTIONS=detect_leaks=0 # the leak sanitizer cannot be traced

# the old state: durable, or still in the journal
fresh() {
        rm -rf "$d"
        mkdir "$d"
        "$tool" "$d" "$1" old > /dev/null
}

# What was said is true: ACK is the new state, an error the old one, and nothing said is either.
verdict() {
        now=$("$tool" "$d" check) || true
        n=$((n + 1))
        case $(head -n 1 "$d.out") in
        ACK) want=new;;
        ERR*) want=old;;
        *) want="old new";;
        esac
        case " $want " in
        *" $now "*) ;;
        *) bad=$((bad + 1)); echo "BAD $1: said '$(head -n 1 "$d.out")', state is '$now'";;
        esac
}

for verb in put checkpoint; do
        fresh "$before"
        strace -f -o "$d.trace" "$tool" "$d" "$verb" new > /dev/null
        sed -i 's/^[0-9]* *//' "$d.trace"
        # hit 1 is execve, hit 2 the first use of the directory
        from=$(grep -n "\"$d\"" "$d.trace" | sed -n 2p | cut -d: -f1)
        for c in $(tail -n +"$from" "$d.trace" | sed -n 's/^\([a-z0-9_]*\)(.*/\1/p' | grep -v exit_group | sort -u); do
                first=$(head -n $((from - 1)) "$d.trace" | grep -c "^$c(" || true)
                all=$(grep -c "^$c(" "$d.trace")
                for i in $(seq $((first + 1)) "$all"); do
                        fresh "$before"
                        strace -f -o /dev/null -e inject="$c:signal=KILL:when=$i" "$tool" "$d" "$verb" new > "$d.out" 2> /dev/null || true
                        verdict "$before, $verb: killed at $c #$i"

                        case $c in
                        write | pwrite64) errors="ENOSPC EIO";;
                        fdatasync | fsync) errors=EIO;;
                        renameat | unlinkat | ftruncate | sync_file_range | close) errors=EIO;;
                        openat) errors=EMFILE;;
                        *) errors=;;
                        esac
                        for e in $errors; do
                                fresh "$before"
                                strace -f -o /dev/null -e inject="$c:error=$e:when=$i" "$tool" "$d" "$verb" new > "$d.out" 2> /dev/null || true
                                verdict "$before, $verb: $e at $c #$i"
                        done
                done
        done
done

echo "$n cases, $bad bad"
[ "$n" -gt 100 ] && [ "$bad" -eq 0 ]
