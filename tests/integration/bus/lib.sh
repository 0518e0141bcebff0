# SPDX-License-Identifier: LGPL-2.1-or-later
#
# lib.sh - guestcryptd on a private system bus with the real polkitd, below a root of its own on a simulated host; sourced by
# bash with top= and build= set
#
# Run "in_namespace" first. Everything is below $b and ends with the test's process namespace.

. "$top/tests/lib/common.sh"

# Starts the script again in namespaces of its own: nothing that it mounts or starts outlives it.
in_namespace() {
        need_root
        need dbus-daemon busctl setpriv unshare fusermount3
        [ -c /dev/fuse ] || skip "/dev/fuse is not there"
        [ -x /usr/lib/polkit-1/polkitd ] || skip "polkitd is not installed"
        [ -z "${IN_NAMESPACE:-}" ] || return 0
        IN_NAMESPACE=1 exec unshare --mount --net --pid --ipc --fork --kill-child --mount-proc --propagation private \
                bash "$0" "$@"
}

has_owner() {
        busctl --address="$address" call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s "$1" |
                grep -q true
}

bus_start() {
        b=$(mktemp -d /tmp/guestcrypt-bus.XXXXXX)
        mount -t tmpfs -o mode=755 tmpfs "$b"
        mkdir -p "$b"/{actions,rules,root/{sys,run/lock,run/guestcrypt,var/lib/guestcrypt,etc/guestcrypt}}
        address=unix:path=$b/bus.sock
        export DBUS_SYSTEM_BUS_ADDRESS=$address

        # the installed policy, inside the smallest bus that can be
        {
                echo "<busconfig><type>system</type><keep_umask/><listen>$address</listen><auth>EXTERNAL</auth><limit name='max_replies_per_connection'>50000</limit>
 <policy context='default'><allow user='*'/><deny own='*'/><deny send_type='method_call'/><allow send_type='signal'/>
  <allow send_requested_reply='true' send_type='method_return'/><allow send_requested_reply='true' send_type='error'/>
  <allow receive_type='method_call'/><allow receive_type='method_return'/><allow receive_type='error'/><allow receive_type='signal'/>
  <allow send_destination='org.freedesktop.DBus'/><allow send_destination='org.freedesktop.PolicyKit1'/></policy>
 <policy user='root'><allow send_destination='*'/><allow own='org.freedesktop.PolicyKit1'/></policy>
 <policy user='polkitd'><allow own='org.freedesktop.PolicyKit1'/></policy>
 <include>$top/dbus/org.guestcrypt1.conf</include></busconfig>"
        } > "$b/bus.conf"
        dbus-daemon --config-file="$b/bus.conf" --fork --nopidfile # returns when it listens
}

polkit_start() {
        cp "$top"/dbus/*.policy "$b/actions"
        cat > "$b/rules/50-test.rules" <<-'X'
	polkit.addRule(function(a, s) { if (a.id.indexOf("org.guestcrypt1.") == 0) {
	  if (s.user == "daemon") return polkit.Result.YES; if (s.user == "games") return polkit.Result.NO; } });
	X
        mount --bind "$b/actions" /usr/share/polkit-1/actions
        mount --bind "$b/rules" /etc/polkit-1/rules.d
        /usr/lib/polkit-1/polkitd --no-debug > "$b/polkitd.log" 2>&1 &
        polkit_pid=$!
        until_true 10 has_owner org.freedesktop.PolicyKit1 || { cat "$b/polkitd.log" >&2; die "polkitd does not start"; }
}

# sim_start [OPTION...]
sim_start() {
        local line

        ip link set lo up 2> /dev/null || :
        exec {ready}< <("$build/sim/guestcrypt-sim" "$@" --uevents=force --ready-fd=3 "$b/root/sys" 3>&1 > "$b/sim.log" 2>&1)
        read -r -t 20 line <&$ready && [ "$line" = ready ] || { cat "$b/sim.log" >&2; die "the simulated host does not start"; }
}

daemon_start() {
        "$build/daemon/guestcryptd" --root="$b/root" >> "$b/daemon.log" 2>&1 &
        daemon_pid=$!
        until_true 20 daemon_is_up && kill -0 $daemon_pid 2> /dev/null || { cat "$b/daemon.log" >&2; die "guestcryptd does not start"; }
}

daemon_is_up() {
        has_owner org.guestcrypt1 || ! kill -0 $daemon_pid 2> /dev/null
}

ctl() {
        "$build/cli/guestcryptctl" "$@"
}

# as USER COMMAND...
as() {
        local user=$1

        shift
        setpriv --reuid="$user" --regid=nogroup --clear-groups "$@"
}

failures=0
# expect STATUS PATTERN COMMAND...: exit status and output (both streams) must be as said
expect() {
        local want=$1 pattern=$2 out status=0

        shift 2
        out=$("$@" 2>&1) || status=$?
        if [ $status != "$want" ] || ! grep -qE -- "$pattern" <<< "$out"; then
                echo "FAILED: $*"
                echo "  wanted status $want and /$pattern/, got status $status and:"
                sed 's/^/  | /' <<< "$out"
                failures=$((failures + 1))
        fi
}

finish() {
        if [ $failures != 0 ]; then
                echo "--- guestcryptd's log:"
                cat "$b/daemon.log"
        fi
        [ $failures = 0 ]
}
