# SPDX-License-Identifier: LGPL-2.1-or-later
"""power.py ROOT BUILD STATES: lets guestcryptd work under strace on the simulated host at ROOT, builds the states of /var/lib that a
power cut can leave at each point, boots each on a simulated host of its own (power_boot), and judges what is there then.

Each operation is done or undone as a whole, and done if it was answered; what starts automatically is live with its matrix, the rest is
not; the host's masks are those that are kept, or the boot's; there is no overlap, no problem, nothing was set aside, and the next
operation works. All this is read from the simulator, from the files, and from what the engine shows. To see that this finds what it is to
find, it is done again for each kind of fsync as if there were none of it: then there must be bad states."""

import copy
import glob
import itertools
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import power_model  # noqa: E402

# As power_client reads it. Each list is a life of the daemon. The first ends with SIGKILL, the second too, with a reboot after it, and
# the last as it should. "see": what is late on purpose is to happen now: a definition's file, 20 ms after the disk has come to
# rest; a checkpoint, 5 s after the last commit.
LIVES = [
    [
        "define 1 2 6 17",
        "define 2 3 6,16 - start",
        "see {2}.xml",
        "start 1",
        "modify 2 3 16,27 -",
        "stop 1",
        "modify 1 2 16 17",
        "see journal",
        "autostart 1 yes",
        "define 3 4 6 - start autostart",
        "create 32",
        "autostart 2 yes;define 4 5 6 -;define 5 5 16 - start;modify 1 2 27 -",
        "see {1}.xml",
        "undefine 5 stop",
        "autostart 1 no",
        "see journal",
        "define 6 1 6 - from-host start",
        "masks 0 0-255",
        "start 4",
        "stop 6",
        "masks 0,1 0-255",
        "start 6",
        "undefine 4 stop",
        "undefine 1",
    ],
    [
        "modify 3 4 6,16 -",
        "stop 3",
        "remove 32",
        "undefine 6 stop",
        "masks 0,1 0-255",
        "see journal",
        "define 7 1 16 - from-host start autostart",
    ],
    [
        "settled",
        "stop 2;define 8 4,5 27 - start",
        "undefine 7 stop",
        "modify 2 2,3 6 16",
        "start 2",
        "autostart 3 no",
    ],
]
ENDS = ["kill", "kill and reboot", "term"]
SUBSETS = 8
BOOTS = 4     # at once
REPORTS = 10  # in full
MISSING = 400 # states at most to see that a kind of fsync is missing
BOOT_MASKS = (frozenset((0, 1)), frozenset(range(256)))


def uuid(n):
    return f"00000000-0000-4000-8000-{int(n):012x}"


def ids(text):
    out = set()
    for part in text.split(",") if text != "-" else []:
        first, _, last = part.partition("-")
        out |= set(range(int(first), int(last or first) + 1))
    return frozenset(out)


def mask(text):
    """The ids in a mask as the kernel prints it: id 0 is the most significant bit."""
    bits = bin(int(text, 16))[2:].zfill(256)
    return frozenset(i for i, bit in enumerate(bits) if bit == "1")


def compact(x):
    """For people: ids as ranges."""
    if isinstance(x, frozenset):
        runs = []
        for i in sorted(x):
            if runs and runs[-1][1] == i - 1:
                runs[-1][1] = i
            else:
                runs.append([i, i])
        return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in runs) or "-"
    if isinstance(x, dict):
        return {k[-2:]: compact(v) for k, v in x.items()} if x and all(len(k) == 36 for k in x) else {k: compact(v) for k, v in x.items()}
    return tuple(compact(v) for v in x) if isinstance(x, tuple) else x


# ---- what there is to be ----

class Kept:
    """What is to survive: definitions, and the host masks to keep."""

    def __init__(self):
        self.definitions = {}  # uuid: {matrix, autostart, from_host}
        self.masks = None

    def take(self, adapters):
        """A start from the host: its adapters leave the masks, also those that are kept."""
        if self.masks:
            self.masks = (self.masks[0] - adapters, self.masks[1])

    def apply(self, text):
        verb, *words = text.split()
        if verb == "masks":
            self.masks = (ids(words[0]), ids(words[1]))
            return
        n, words = uuid(words[0]), words[1:]
        if verb == "define":
            matrix = tuple(ids(w) for w in words[:3])
            self.definitions[n] = {"matrix": matrix, "autostart": "autostart" in words, "from_host": "from-host" in words}
            if "from-host" in words and "start" in words:
                self.take(matrix[0])
        elif verb == "modify":
            self.definitions[n]["matrix"] = tuple(ids(w) for w in words[:3])
        elif verb == "undefine":
            del self.definitions[n]
        elif verb == "autostart":
            self.definitions[n]["autostart"] = words[0] == "yes"
        elif verb == "start" and self.definitions[n]["from_host"]:
            self.take(self.definitions[n]["matrix"][0])

    def booted(self):
        """After the boot: (definitions, live matrices, host masks, masks kept)."""
        after = copy.deepcopy(self)
        live = {n: d["matrix"] for n, d in after.definitions.items() if d["autostart"]}
        masks = after.masks or BOOT_MASKS
        for n in live:
            if after.definitions[n]["from_host"]:
                masks = (masks[0] - live[n][0], masks[1])
                after.take(live[n][0])
        return after.definitions, live, masks, after.masks


OPERATIONS = [op for life in LIVES for line in life if not line.startswith("se") for op in line.split(";")]


def allowed(marks):
    """What the definitions and masks may be: with all that was answered, and any part of what was not."""
    called = sum(m[0] == "call" for m in marks)
    answered = {m[1] for m in marks if m[0] == "answer"}
    open_ones = [i for i in range(called) if i not in answered]
    for chosen in itertools.product((False, True), repeat=len(open_ones)):
        done = answered | {i for i, c in zip(open_ones, chosen) if c}
        kept = Kept()
        for i in sorted(done):
            kept.apply(OPERATIONS[i])
        yield kept.booted()


# ---- what there is ----

LIBVIRT_TYPE = {"assign_adapter": 0, "assign_domain": 1, "assign_control_domain": 2}


def read_definition(path):
    device = ET.parse(path).getroot()
    sets = [set(), set(), set()]
    flags = {}
    for e in device.iter():
        name = e.tag.rpartition("}")[2]
        if name == "attr" and e.get("name") in LIBVIRT_TYPE:
            sets[LIBVIRT_TYPE[e.get("name")]].add(int(e.get("value"), 0))
        elif name == "attr":
            assert e.get("name") == "ap_config"
            for s, m in zip(sets, e.get("value").split(",")):
                s |= mask(m)
        elif name == "matrix":
            flags = e.attrib
    return device.find(".//uuid").text, {
        "matrix": tuple(frozenset(s) for s in sets),
        "autostart": flags.get("autostart") == "yes",
        "from_host": flags.get("from-host") == "yes",
    }


def look(lines, var):
    """(what Kept.booted() gives, problems)"""
    problems, masks, live, shown, last = [], {}, {}, {}, None
    for line in lines:
        kind, *words = line.split()
        if kind == "problem":
            problems.append(line)
        elif kind == "matrix":
            shown[words[1]] = {"matrix": tuple(mask(m) for m in words[2].split(",")), "autostart": "autostart" in words[4:],
                               "from_host": "from_host" in words[4:], "started": words[3] == "started"}
            if words[3] not in ("started", "defined"):
                problems.append(line)
        elif kind == "host" and words[0] in ("apmask", "aqmask"):
            masks[words[0]] = mask(words[1])
        elif kind == "host" and words[0] == "mdev":
            last = words[1]
            live[last] = None
        elif kind == "host" and "," in words[0]:
            live[last] = tuple(mask(m) for m in words[0].split(","))

    state = var + "/lib/guestcrypt"
    definitions = dict(read_definition(p) for p in glob.glob(state + "/matrices/*.xml"))
    kept = None
    if os.path.exists(state + "/masks"):
        with open(state + "/masks", encoding="ascii") as f:
            kept = tuple(mask(m) for m in re.fullmatch(r"apmask (0x\w+)\naqmask (0x\w+)\n", f.read()).groups())
    if os.path.exists(state + "/set-aside"):
        problems.append("set aside: " + " ".join(os.listdir(state + "/set-aside")))
    rest = set(os.listdir(state)) - {"version", "matrices", "masks", "journal", "lock", "set-aside", "tpms"}
    if os.path.exists(state + "/tpms"):
        rest |= set(os.listdir(state + "/tpms"))
    rest |= {n for n in os.listdir(state + "/matrices") if not n.endswith(".xml")}
    if rest:
        problems.append("left behind: " + " ".join(rest))

    for n, d in definitions.items():
        if n not in shown or {k: shown[n][k] for k in d} != d:
            problems.append(f"{n} is in its file as {d}, but shown as {shown.get(n)}")
    if set(shown) - set(definitions):
        problems.append(f"shown without file: {set(shown) - set(definitions)}")
    if {n for n, s in shown.items() if s["started"]} != set(live):
        problems.append(f"live is {sorted(live)}, but shown as started {shown}")

    exclusive = [(n, d["matrix"]) for n, d in definitions.items()]
    lives = [(n, m) for n, m in live.items() if m] + [("host", (masks["apmask"], masks["aqmask"]))]
    for group in (exclusive, lives):
        for (a, x), (b, y) in itertools.combinations(group, 2):
            if x[0] & y[0] and x[1] & y[1]:
                problems.append(f"{a} and {b} overlap")
    return (definitions, live, (masks["apmask"], masks["aqmask"]), kept), problems


class Boot:
    """One state after another; several at once, since most of a boot is waiting."""

    def __init__(self, build, var):
        self.var = var
        self.marks = None
        self.process = subprocess.Popen([build + "/tests/crash/daemon/power_boot"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def begin(self, disk, marks):
        self.marks = marks
        shutil.rmtree(self.var, ignore_errors=True)
        os.mkdir(self.var)
        disk.build(self.var + "/lib")
        self.process.stdin.write(self.var + "\n")
        self.process.stdin.flush()

    def verdict(self):
        """None, or what is bad."""
        lines = []
        for line in self.process.stdout:
            if line.startswith("exit "):
                break
            lines.append(line.rstrip("\n"))
        if line != "exit 0\n":
            return f"it does not boot: {line.strip()} {lines}"
        found, problems = look(lines, self.var)
        if problems:
            return "; ".join(problems)
        wanted = list(allowed(self.marks))
        return None if found in wanted else f"found {compact(found)}\n  instead of " + "\n  or ".join(str(compact(w)) for w in wanted)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- the trace ----

class Messages:
    """Finds operations' calls and answers among what the daemon reads and writes: sd-bus reads a message's fixed header first, then
    the rest."""

    IOV = re.compile(rb'iov_base="((?:\\x[0-9a-f]{2})*)"')

    def __init__(self):
        self.header = None
        self.calls = []  # serial, number of the operation or None
        self.n = 0
        self.answered = set()

    def __call__(self, name, args, result, ended):
        if name not in ("recvmsg", "sendmsg") or result < 0 or (name == "recvmsg" and not ended):
            return None
        data = power_model.unescape(b"".join(self.IOV.findall(args)))
        if name == "recvmsg" and self.header:
            serial, self.header = struct.unpack_from("<I", self.header, 8)[0], None
            if b"org.freedesktop.DBus.Properties" in data:
                self.calls.append((serial, None))
                return None
            self.calls.append((serial, self.n))
            self.n += 1
            return ("call", self.n - 1)
        if len(data) < 16 or data[0:1] != b"l" or data[3] != 1:
            return None
        if name == "recvmsg" and data[1] == 1:
            self.header = data
        elif name == "sendmsg" and data[1] in (2, 3):
            serial = struct.unpack("<I", re.search(rb"\x05\x01u\x00(.{4})", data, re.DOTALL)[1])[0]
            n = [n for s, n in self.calls if s == serial][-1]
            assert n is None or data[1] == 2, "an operation is refused"
            if n is not None and n not in self.answered:  # as early as it can be on its way
                self.answered.add(n)
                return ("answer", n)
        return None


def live(root, build, trace, script, end):
    """One life of the daemon, appended to @trace."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(root + "/notify")
    notify.settimeout(60)
    daemon = subprocess.Popen(
        [*power_model.STRACE, "-o", trace, "-e", "trace=recvmsg,sendmsg," + power_model.CALLS, "-e", "signal=none",
         build + "/daemon/guestcryptd", "--root=" + root],
        env={**os.environ, "NOTIFY_SOCKET": root + "/notify"}, stderr=None if os.environ.get("POWER_LOG") else subprocess.DEVNULL)
    while b"READY=1" not in notify.recv(4096):
        pass
    notify.close()
    os.unlink(root + "/notify")
    with open(f"/proc/{daemon.pid}/task/{daemon.pid}/children", encoding="ascii") as f:
        pid = int(f.read().split()[0])

    client = subprocess.Popen([build + "/tests/crash/daemon/power_client", root + "/var/lib/guestcrypt"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    for line in script:
        client.stdin.write(re.sub(r"{(\d+)}", lambda m: uuid(m[1]), line) + "\n")
        client.stdin.flush()
        answer = client.stdout.readline()
        if answer != "done\n":
            sys.exit(f"power.py: '{line}' failed with nobody to disturb it: {answer}")
    client.stdin.close()
    client.wait()

    os.kill(pid, signal.SIGTERM if end == "term" else signal.SIGKILL)
    daemon.wait()
    if "reboot" in end:
        shutil.rmtree(root + "/run/guestcrypt")
        shutil.rmtree(root + "/run/lock")
        with open(root + "/sys/.sim/ctl", "w", encoding="ascii") as f:
            f.write("reboot")


def record(root, build, tmp):
    os.makedirs(root + "/var/lib")
    trace = tmp + "/trace"
    for script, end in zip(LIVES, ENDS):
        live(root, build, trace, script, end)
    with open(trace, "rb") as f:
        ops = power_model.read_trace(f.read(), (root + "/var/lib").encode(), power_model.Disk(), Messages())
    marks = [op[1] for op in ops if op[0] == "mark"]
    assert sorted(marks) == sorted((k, i) for k in ("call", "answer") for i in range(len(OPERATIONS))), marks
    return ops


def verdicts(boots, found):
    """Yields (disk, marks, what is bad)."""
    for some in (found[i:i + len(boots)] for i in range(0, len(found), len(boots))):
        for boot, (disk, marks, _) in zip(boots, some):
            boot.begin(disk, marks)
        for (disk, marks, _), why in [(s, boot.verdict()) for boot, s in zip(boots, some)]:
            yield disk, marks, why


def states(ops):
    return list(power_model.states(power_model.Disk(), ops, True, SUBSETS))


def cut(boots, ops, found, limit):
    random.shuffle(found)
    some = sorted(found, key=lambda s: not s[2])[: limit or len(found)]
    bad = 0
    for disk, marks, why in verdicts(boots, some):
        bad += why is not None
        if why and bad <= REPORTS:
            at = [f"{kind} '{OPERATIONS[i]}'" for kind, i in marks[-2:]]
            print(f"BAD after {at}: {why}\n  state: {disk.key()}")
    extreme = sum(s[2] for s in some)
    print(f"{len(ops)} operations on the disk, {len(some)} of {len(found)} states ({extreme} with all or nothing lost), {bad} bad")
    return bad


def sync_kind(op):
    name = op[2].decode()
    return "a definition" if name.endswith(".xml") else name


def count_unnoticed(boots, ops, good):
    """Takes one kind of fsync after the other away; how many of them nobody would have noticed the lack of."""
    unnoticed = 0
    known = {(d.key(), len(marks)) for d, marks, _ in good}
    for kind in sorted({sync_kind(op) for op in ops if op[0] == "sync"}):
        less = [op for op in ops if op[0] != "sync" or sync_kind(op) != kind]
        found = [s for s in states(less) if (s[0].key(), len(s[1])) not in known]
        random.shuffle(found)
        tried, why = 0, None
        for _, _, why in verdicts(boots, found[:MISSING]):
            tried += 1
            if why:
                break
        print(f"without fsync of {kind}: " + (f"found with {tried} states" if why else f"NOT FOUND with {tried} of {len(found)} states"))
        if why and os.environ.get("POWER_LOG"):
            print(why)
        unnoticed += why is None
    return unnoticed


def main(root, build, limit):
    if not power_model.can_trace():
        print("SKIP: strace cannot trace here")
        return 77
    random.seed(int(os.environ["CRASH_SEED"]))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as tmp:
        ops = record(root, build, tmp)
        boots = [Boot(build, f"{tmp}/var{i}") for i in range(BOOTS)]
        found = states(ops)
        bad = cut(boots, ops, found, limit)
        unnoticed = count_unnoticed(boots, ops, found)
        for boot in boots:
            boot.close()
        if unnoticed:
            print("a daemon without that fsync would pass: either it needs none, or this test is broken")
    return 1 if bad or unnoticed else 0


sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
