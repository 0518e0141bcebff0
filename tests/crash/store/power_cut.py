#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the states that a power cut can leave, from a trace of the store at work, and lets the store open each.

Every state must read as old or new, and as new once that was acknowledged. To see that this finds anything at all, it is done
again as if no fsync had happened: then there must be bad states. Usage: power_cut.py STORE-TOOL"""

import os
import random
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import power_model  # noqa: E402

STATES = 250  # per operation
SUBSETS = 128


def acknowledgement(name, args, result, ended):
    return "ack" if ended and name == "write" and args.startswith(b"1<") and b'"\\x41\\x43\\x4b' in args else None


def operation(tool, tmp, name, before, command, old, with_sync, limit):
    parent, trace = tmp + "/parent", tmp + "/trace"
    state = parent + "/state"
    shutil.rmtree(parent, ignore_errors=True)
    os.makedirs(state)
    for c in before:
        subprocess.run([tool, state, *c], check=True, stdout=subprocess.DEVNULL)
    disk = power_model.Disk()
    disk.load(parent)
    if os.path.exists(trace):
        os.unlink(trace)
    subprocess.run([*power_model.STRACE, "-o", trace, "-e", "trace=" + power_model.CALLS, tool, state, *command],
                   check=True, stdout=subprocess.DEVNULL)
    with open(trace, "rb") as f:
        ops = power_model.read_trace(f.read(), parent.encode(), disk, acknowledgement)
    assert ("mark", "ack") in ops
    if not before:  # somebody else has just made the directory
        ops.insert(0, ("mkdir", 0, b"state", disk.content[0][b"state"]))
        disk = power_model.Disk()

    found = list(power_model.states(disk, ops, with_sync, SUBSETS))
    if len(found) > limit:
        found = random.sample(found, limit)
    bad = 0
    for d, marks, _ in found:
        acked = bool(marks)
        shutil.rmtree(parent)
        d.build(parent)
        os.makedirs(state, exist_ok=True)
        result = subprocess.run([tool, state, "check"], capture_output=True, text=True).stdout.strip()
        if result not in (("new",) if acked else (old, "new")):
            bad += 1
            if with_sync:
                print(f"BAD {name}: acknowledged {acked}, state is {result!r}")
    print(f"{name}{'' if with_sync else ' without its fsyncs'}: {len(ops)} operations, {len(found)} states, {bad} bad")
    return bad


def main(tool):
    if not power_model.can_trace():
        print("SKIP: strace cannot trace here")
        return 77
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
