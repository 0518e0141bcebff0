#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shuts a real ext4 down without flushing its log, at random moments of a store at work. After mounting it again the
state is that of the last acknowledged commit, or of the one after it. Usage: shutdown.py STORE-TOOL"""

import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile

EXT4_IOC_SHUTDOWN = 0x8004587D
NOLOGFLUSH = 2
ROUNDS = 8


def skip(why):
    print("SKIP:", why)
    sys.exit(77)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True)


def main(tool):
    if os.geteuid() != 0:
        skip("needs root")
    if "GUESTCRYPT_PRIVATE_MOUNTS" not in os.environ:
        if run("unshare", "--mount", "--propagation", "private", "true").returncode != 0:
            skip("no mount namespaces here")
        os.environ["GUESTCRYPT_PRIVATE_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.argv[0], tool])

    random.seed(3)
    failed = 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as tmp:
        image, mnt = tmp + "/image", tmp + "/mnt"
        os.mkdir(mnt)
        with open(image, "wb") as f:
            f.truncate(16 << 20)
        if run("mkfs.ext4", "-q", image).returncode != 0:
            skip("no mkfs.ext4 here")
        mount = ["mount", "-o", "loop,noauto_da_alloc", image, mnt]
        if run(*mount).returncode != 0:
            skip("cannot mount a loop device here")
        try:
            for i in range(ROUNDS):
                state = f"{mnt}/state{i}"
                os.mkdir(state)
                fd = os.open(mnt, os.O_RDONLY)
                os.fsync(fd)
                after = random.randint(1, 60)
                p = subprocess.Popen([tool, state, "cut"], stdout=subprocess.PIPE, text=True)
                last = 0
                while last < after:
                    line = p.stdout.readline()
                    if not line.strip().isdigit():
                        print("the store says", repr(line))
                        return 1
                    last = int(line)
                # Stopped, it has no fsync under way: one that the shutdown meets may well say 0 on some kernels.
                p.send_signal(signal.SIGSTOP)
                os.waitpid(p.pid, os.WUNTRACED)
                try:
                    fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
                except OSError as e:
                    p.kill()
                    p.wait()
                    skip(f"cannot shut the file system down: {e}")
                os.close(fd)
                p.kill()
                # what was acknowledged between our last look and the stop counts too
                for line in p.stdout:
                    if line.strip().isdigit():
                        last = int(line)
                p.wait()
                p.stdout.close()
                run("umount", mnt)
                if run(*mount).returncode != 0:
                    print("cannot mount again")
                    return 1
                check = run(tool, state, "check").stdout.strip()
                good = check in (str(last), str(last + 1))
                failed += not good
                print(f"round {i}: acknowledged {last}, found {check}" + ("" if good else "  BAD"))
        finally:
            run("umount", mnt)
    return 1 if failed else 0


sys.exit(main(sys.argv[1]))
