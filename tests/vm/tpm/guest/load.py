# SPDX-License-Identifier: LGPL-2.1-or-later
"""load.py PCR FILE: extends a PCR as fast as it can until FILE exists; fails unless each extend was done exactly once.
Makes FILE.begun after the first.

Over /dev/tpm0, each command under the eyes of nobody else. The TPM may say that it does not know whether a command
was executed (TPM_RC_FAILURE): then the PCR tells."""
import hashlib
import os
import struct
import sys
import time

RC_FAILURE = 0x101
pcr, stop = int(sys.argv[1]), sys.argv[2]
tpm = os.open('/dev/tpm0', os.O_RDWR)


def command(tag, code, body):
    os.write(tpm, struct.pack('>HII', tag, 10 + len(body), code) + body)
    response = os.read(tpm, 4096)
    tag, size, rc = struct.unpack('>HII', response[:10])
    if size != len(response):
        sys.exit(f'the response has {len(response)} bytes and says {size}')
    return rc, response[10:]


def read():
    select = bytearray(3)
    select[pcr // 8] = 1 << pcr % 8
    rc, body = command(0x8001, 0x17e, struct.pack('>IHB', 1, 0x0b, 3) + select)
    if rc:
        sys.exit(f'PCR_Read: {rc:#x}')
    return body[-32:]


def extend(digest):
    auth = struct.pack('>IHBH', 0x40000009, 0, 0, 0)
    rc, _ = command(0x8002, 0x182, struct.pack('>II', pcr, len(auth)) + auth + struct.pack('>IH', 1, 0x0b) + digest)
    return rc


def after(value, digest):
    return hashlib.sha256(value + digest).digest()


value, count, unknown, longest = read(), 0, 0, 0
while not os.path.exists(stop):
    digest = hashlib.sha256(str(count).encode()).digest()
    begin = time.monotonic()
    rc = extend(digest)
    longest = max(longest, time.monotonic() - begin)
    if rc == RC_FAILURE:
        unknown += 1
        now = read()
        if now not in (value, after(value, digest)):
            sys.exit(f'after command {count} the PCR is neither extended once nor not at all')
        value = now
    elif rc:
        sys.exit(f'command {count}: {rc:#x}')
    else:
        value = after(value, digest)
    count += 1
    if count == 1:
        open(stop + '.begun', 'w').close()
if read() != value:
    sys.exit(f'after {count} commands the PCR is wrong')
print(f'{count} commands, {unknown} of unknown outcome, longest {longest * 1000:.0f} ms')
