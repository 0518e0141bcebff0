# SPDX-License-Identifier: LGPL-2.1-or-later
"""power_model - what a power cut can leave of a directory, from a trace of what was done to it; for the tests that cut the power.

What an inode got counts as durable after an fsync of it, what a directory got after an fsync of the directory; at the cut
any subset of the rest is there, the last write perhaps by half, or only its length."""

import os
import random
import re
import subprocess

# one trace of all processes, in order; -y says which file a descriptor is, whoever opened it
STRACE = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-A"]
CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,renameat,renameat2,unlinkat,mkdirat"


def file_of(data, size=None):
    """A file's content: its bytes but for the zeros at its end, of which the journal has many, and its size."""
    return data.rstrip(b"\0"), len(data) if size is None else size


class Disk:
    """Names and inodes; directories are inodes whose content is a dict. The root is inode 0."""

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
                    self.content[new] = file_of(f.read())

    def copy(self):
        other = Disk()
        other.content = {i: dict(c) if isinstance(c, dict) else c for i, c in self.content.items()}
        return other

    def apply(self, op, torn=None):
        kind, inode, *args = op
        if kind == "write":
            (data, length), offset = args
            if torn == "half":
                length //= 2
                data = data[:length]
            elif torn == "zeros":
                data = b""
            old, size = self.content.get(inode, file_of(b""))
            new, end = old[:offset].ljust(offset, b"\0") + data, offset + length
            if len(old) > end:
                new = new.ljust(end, b"\0") + old[end:]
            self.content[inode] = file_of(new, max(size, end))
        elif kind == "truncate":
            self.content[inode] = file_of(self.content.get(inode, file_of(b""))[0][: args[0]], args[0])
        else:
            names = self.content.setdefault(inode, {})
            if kind == "create":
                self.content.setdefault(args[1], file_of(b""))
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
                    f.write(self.content[child][0])
                    f.truncate(self.content[child][1])

    def key(self, inode=0):
        c = self.content[inode]
        if not isinstance(c, dict):
            return c
        return tuple((name, self.key(child)) for name, child in sorted(c.items()))


LINE = re.compile(rb"^(?:(\d+) +)?(.*)$")
RESUMED = re.compile(rb"^<\.\.\. \w+ resumed>(.*)$")
CALL = re.compile(rb"^(\w+)\((.*)\)\s+= (-?\d+)")
FD = re.compile(rb"^(AT_FDCWD|-?\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?")


def unescape(text):
    return bytes.fromhex(text.decode().replace("\\x", ""))


def calls(trace):
    """Yields (name, args, result, whether it has ended); one that another thread interrupts comes twice, first without result."""
    begun = {}
    for line in trace.splitlines():
        pid, text = LINE.match(line).groups()
        resumed = RESUMED.match(text)
        if resumed:
            text = begun.pop(pid, b"") + resumed[1]
        elif text.endswith(b" <unfinished ...>"):
            begun[pid] = text = text[: -len(b" <unfinished ...>")]
            name, bracket, args = text.partition(b"(")
            if bracket:
                yield name.decode(), args, 0, False
            continue
        m = CALL.match(text)
        if m:
            yield m[1].decode(), m[2], int(m[3]), True


def read_trace(trace, root, disk, mark):
    """The operations below @root, with inodes of @disk, which is left as it was. @mark(name, args, result, ended) may put
    something that is not None among them, as ("mark", what): "args" is the call's raw text."""
    ops = []
    live = disk.copy()

    def find(path):
        if path != root and not path.startswith(root + b"/"):
            return None
        inode = 0
        for part in path[len(root):].split(b"/"):
            if part not in (b"", b"."):
                inode = live.content[inode].get(part) if isinstance(live.content[inode], dict) else None
            if inode is None:
                return None
        return inode

    def place(directory, name):
        """The inode of the directory that holds @name, and its last part; None outside of the root."""
        path = name if name.startswith(b"/") else (directory or b"") + b"/" + name
        parent, _, last = path.rpartition(b"/")
        return find(parent), last

    def add(*op):
        ops.append(op)
        live.apply(op)

    def new_inode():
        return 1 + max(max(live.content), 1000)

    for name, raw, result, ended in calls(trace):
        what = mark(name, raw, result, ended)
        if what is not None:
            ops.append(("mark", what))
        if not ended or result < 0 or name not in CALLS.split(","):
            continue
        args = [a.strip() for a in raw.split(b", ")]
        text = [unescape(a[1:-1]) if a.startswith(b'"') else None for a in args]
        fd = [unescape(m[2]) if m and m[2] else None for m in (FD.match(a) for a in args)]

        if name == "openat":
            parent, last = place(fd[0], text[1])
            if parent is None or b"O_CREAT" not in args[2] and b"O_TRUNC" not in args[2]:
                continue
            inode = live.content[parent].get(last)
            if inode is None:
                add("create", parent, last, new_inode())
            elif b"O_TRUNC" in args[2] and live.content[inode][1] > 0:
                add("truncate", inode, 0)
        elif name == "mkdirat":
            parent, last = place(fd[0], text[1])
            if parent is not None:
                add("mkdir", parent, last, new_inode())
        elif name == "unlinkat":
            parent, last = place(fd[0], text[1])
            if parent is not None:
                add("unlink", parent, last)
        elif name in ("renameat", "renameat2"):
            a, old = place(fd[0], text[1])
            b, new = place(fd[2], text[3])
            assert a == b, "only renames inside of a directory are understood"
            if a is not None:
                add("rename", a, old, new)
        else:
            inode = find(fd[0]) if fd[0] else None
            if inode is None:
                continue
            if name == "write": # such files are appended to, or written from their beginning in order
                add("write", inode, file_of(text[1][:result]), live.content[inode][1])
            elif name == "pwrite64":
                add("write", inode, file_of(text[1][:result]), int(args[3]))
            elif name == "ftruncate" and live.content[inode][1] != int(args[1]):
                add("truncate", inode, int(args[1]))
            elif name in ("fsync", "fdatasync"):
                ops.append(("sync", inode, os.path.basename(fd[0])))
    return ops


def subsets(free, some):
    if len(free) <= 3 or 2 ** len(free) <= some:
        return [{k for b, k in enumerate(free) if n >> b & 1} for n in range(1 << len(free))]
    return ([set(), set(free)] + [set(free) - {k} for k in free] + [{k} for k in free] +
            [{k for k in free if random.random() < 0.5} for _ in range(some)])


def states(disk, ops, with_sync, some):
    """Yields (disk, marks before the cut, whether all or nothing of what could be lost is), each once. @with_sync: False: as if no fsync
    did anything. @some: of that many subsets of what may be lost all are tried; of more, all with one lost or one kept, and @some
    others."""
    seen, made = set(), set()
    for cut in range(len(ops) + 1):
        marks = [op[1] for op in ops[:cut] if op[0] == "mark"]
        free = []
        for i, op in enumerate(ops[:cut]):
            if op[0] == "sync" and with_sync:
                free = [k for k in free if ops[k][1] != op[1]]
            elif op[0] not in ("mark", "sync"):
                free.append(i)
        first = free[0] if free else cut
        base = disk.copy()
        for op in ops[:first]:
            if op[0] not in ("mark", "sync"):
                base.apply(op)

        durable = [i for i in range(first, cut) if i not in free and ops[i][0] not in ("mark", "sync")]
        for subset in subsets(free, some):
            applied = sorted(subset.union(durable))
            bits = sum(1 << i for i in applied) | (1 << first) - 1
            last = max((k for k in subset if ops[k][0] == "write"), default=None)
            for torn in (None,) if last is None else (None, "half", "zeros"):
                if (bits, torn, len(marks)) in made:  # at an earlier cut
                    continue
                made.add((bits, torn, len(marks)))
                d = base.copy()
                for i in applied:
                    d.apply(ops[i], torn if i == last else None)
                key = (d.key(), len(marks))
                if key not in seen:
                    seen.add(key)
                    yield d, marks, torn is None and len(subset) in (0, len(free))


def can_trace():
    os.environ["ASAN_OPTIONS"] = "detect_leaks=0"  # the leak sanitizer cannot be traced
    try:
        return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
