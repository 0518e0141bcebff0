#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the states that a power cut can leave, from a trace of the store at work, and lets the store open each.

What an inode got counts as durable after an fsync of it, what a directory got after an fsync of the directory; at the cut
any subset of the rest is there, the last write perhaps by half. Every state must read as old or new, and as new
once that was acknowledged. To see that this finds anything at all, it is done again as if no fsync had happened: then there
must be bad states. Usage: power_cut.py STORE-TOOL"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

STATES = 250  # per operation, besides all subsets of few


def unescape(text):
    return bytes.fromhex(text.replace("\\x", ""))


class Disk:
    """Names and inodes; directories are inodes whose content is a dict."""

    def __init__(self):
        self.content = {0: {}}

    def load(self, path, inode=0):
        for entry in sorted(os.listdir(path)):
            full = os.path.join(path, entry)
            new = len(self.content)
            self.content[inode][entry.encode()] = new
            if os.path.isdir(full):
                self.content[new] = {}
                self.load(full, new)
            else:
                with open(full, "rb") as f:
                    self.content[new] = f.read()

    def copy(self):
        other = Disk()
        other.content = {i: dict(c) if isinstance(c, dict) else c for i, c in self.content.items()}
        return other

    def apply(self, op, half=False):
        kind, inode, *args = op
        if kind == "write":
            data = args[0][: len(args[0]) // 2] if half else args[0]
            self.content[inode] = self.content.get(inode, b"") + data
        elif kind == "truncate":
            self.content[inode] = self.content.get(inode, b"")[: args[0]].ljust(args[0], b"\0")
        else:
            names = self.content.setdefault(inode, {})
            if kind == "create":
                self.content.setdefault(args[1], b"")
                names[args[0]] = args[1]
            elif kind == "mkdir":
                self.content.setdefault(args[1], {})
                names[args[0]] = args[1]
            elif kind == "rename" and args[0] in names:
                names[args[1]] = names.pop(args[0])
            elif kind == "unlink":
                names.pop(args[0], None)

    def build(self, path, inode=0):
        os.mkdir(path)
        for entry, child in self.content[inode].items():
            full = os.path.join(path, entry.decode())
            if isinstance(self.content[child], dict):
                self.build(full, child)
            else:
                with open(full, "wb") as f:
                    f.write(self.content[child])

    def key(self, inode=0):
        c = self.content[inode]
        if not isinstance(c, dict):
            return c
        return tuple((name, self.key(child)) for name, child in sorted(c.items()))


CALL = re.compile(rb"^(?:\d+ +)?(\w+)\((.*)\)\s+= (-?\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?")
FD = re.compile(rb"^(AT_FDCWD|-?\d+)(?:<.*)?$")


def read_trace(trace, root, disk):
    """The operations below @root, with inodes of @disk, and where ACK was printed."""
    ops = []
    live = disk.copy()
    offset = {}

    def find(path):
        inode = 0
        for part in [p for p in path[len(root):].split(b"/") if p]:
            inode = live.content[inode].get(part)
            if inode is None:
                return None
        return inode

    def below(path):
        return path == root or path.startswith(root + b"/")

    def add(*op):
        ops.append(op)
        live.apply(op)

    fds = {}
    for line in trace.splitlines():
        m = CALL.match(line)
        if not m or int(m[3]) < 0:
            continue
        name, result = m[1].decode(), int(m[3])
        args = [a.strip() for a in m[2].split(b", ")]
        text = [unescape(a[1:-1].decode()) if a.startswith(b'"') else None for a in args]

        def directory(arg):
            f = FD.match(arg)
            return fds.get(int(f[1])) if f and f[1] != b"AT_FDCWD" else None

        if name == "openat":
            path = text[1]
            if path.startswith(b"/"):
                fds[result] = find(path) if below(path) else None
                continue
            parent = directory(args[0])
            if parent is None:
                fds[result] = None
                continue
            if path == b".":
                fds[result] = parent
                continue
            inode = live.content[parent].get(path)
            if inode is None:
                inode = 1 + max(max(live.content), 1000)
                add("create", parent, path, inode)
            elif b"O_TRUNC" in args[2] and live.content[inode]:
                add("truncate", inode, 0)
            fds[result] = inode
        elif name == "write":
            fd = int(FD.match(args[0])[1])
            if fd == 1 and text[1].startswith(b"ACK"):
                ops.append(("ack", 0))
            elif fds.get(fd) is not None:
                add("write", fds[fd], text[1][:result])
        elif name == "ftruncate":
            inode = directory(args[0])
            if inode is not None and len(live.content[inode]) != int(args[1]):
                add("truncate", inode, int(args[1]))
        elif name in ("fsync", "fdatasync"):
            inode = directory(args[0])
            if inode is not None:
                ops.append(("sync", inode))
        elif name in ("renameat", "renameat2"):
            a, b = directory(args[0]), directory(args[2])
            assert a == b, "only renames inside of a directory are understood"
            if a is not None:
                add("rename", a, text[1], text[3])
        elif name == "unlinkat":
            parent = directory(args[0])
            if parent is not None:
                add("unlink", parent, text[1])
        elif name == "mkdirat":
            parent = directory(args[0])
            if parent is not None:
                add("mkdir", parent, text[1], 1 + max(max(live.content), 1000))
        elif name == "close":
            fds.pop(int(FD.match(args[0])[1]), None)
    return ops


def states(disk, ops, with_sync):
    """Yields (disk, acknowledged)."""
    seen = set()
    for cut in range(len(ops) + 1):
        acked, free, durable = False, [], set()
        for i, op in enumerate(ops[:cut]):
            if op[0] == "ack":
                acked = True
            elif op[0] == "sync":
                if with_sync:
                    durable |= {k for k in free if ops[k][1] == op[1]}
            else:
                free.append(i)
        free = [i for i in free if i not in durable]
        done = [i for i, op in enumerate(ops[:cut]) if op[0] not in ("ack", "sync")]

        if len(free) <= 7:
            subsets = [{k for b, k in enumerate(free) if n >> b & 1} for n in range(1 << len(free))]
        else:
            subsets = [set(free)] + [set(free) - {k} for k in free] + [{k} for k in free] + [set()]
            subsets += [{k for k in free if random.random() < 0.5} for _ in range(STATES // 10)]
        for subset in subsets:
            for half in (False, True):
                if half and not any(ops[k][0] == "write" for k in subset):
                    continue
                last = max((k for k in subset if ops[k][0] == "write"), default=None)
                d = disk.copy()
                for i in done:
                    if i in durable or i in subset:
                        d.apply(ops[i], half and i == last)
                key = (d.key(), acked)
                if key not in seen:
                    seen.add(key)
                    yield d, acked


def operation(tool, tmp, name, before, command, old, with_sync, limit):
    state, trace = tmp + "/state", tmp + "/trace"
    shutil.rmtree(state, ignore_errors=True)
    os.mkdir(state)
    for c in before:
        subprocess.run([tool, state, *c], check=True, stdout=subprocess.DEVNULL)
    disk = Disk()
    disk.load(state)
    subprocess.run(["strace", "-y", "-xx", "-s", "1000000", "-o", trace, "-e",
                    "trace=openat,write,ftruncate,fsync,fdatasync,renameat,renameat2,unlinkat,mkdirat,close",
                    tool, state, *command], check=True, stdout=subprocess.DEVNULL)
    with open(trace, "rb") as f:
        ops = read_trace(f.read(), state.encode(), disk)

    found = list(states(disk, ops, with_sync))
    if len(found) > limit:
        found = random.sample(found, limit)
    bad = 0
    for d, acked in found:
        shutil.rmtree(state)
        d.build(state)
        result = subprocess.run([tool, state, "check"], capture_output=True, text=True).stdout.strip()
        if result not in (("new",) if acked else (old, "new")):
            bad += 1
            if with_sync:
                print(f"BAD {name}: acknowledged {acked}, state is {result!r}")
    print(f"{name}{'' if with_sync else ' without its fsyncs'}: {len(ops)} operations, {len(found)} states, {bad} bad")
    return bad


def main(tool):
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
        print("SKIP: strace cannot trace here")
        return 77
    os.environ["ASAN_OPTIONS"] = "detect_leaks=0"  # the leak sanitizer cannot be traced
    random.seed(11)
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shm) as tmp:
        bad = 0
        for name, before, command, old in [
            ("first use", [], ["put", "new"], "0"),
            ("commit after a checkpoint", [["checkpoint", "old"]], ["put", "new"], "old"),
            ("commit after a crash", [["put", "old"]], ["put", "new"], "old"),
            ("commit and checkpoint", [["checkpoint", "old"]], ["checkpoint", "new"], "old"),
        ]:
            bad += operation(tool, tmp, name, before, command, old, True, STATES)
        missed = operation(tool, tmp, "commit after a checkpoint", [["checkpoint", "old"]], ["put", "new"], "old",
                           False, STATES) == 0
        if missed:
            print("a store without fsync would pass: this test is broken")
    return 1 if bad or missed else 0


sys.exit(main(sys.argv[1]))
