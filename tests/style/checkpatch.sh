#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# checkpatch.sh - the guest driver is as the kernel's own script wants it, with nothing to be said even strictly
set -euo pipefail
top=$(cd "${0%/*}/../.." && pwd)
. "$top/tests/lib/common.sh"
cd "$top"
need perl

# Whichever version is in the cache will do; getting the newest takes half a minute.
source=$(ls -d "$cache"/source-*/scripts 2> /dev/null | tail -n 1) || :
[ -n "$source" ] || source=$(tests/vm/tpm/source.sh)/scripts || exit

script=("$source/checkpatch.pl" --no-tree --strict --terse --show-types --no-summary --file)
"${script[@]}" drivers/tpm_virtio/{*.[ch],Kbuild,Makefile}
# The interface is our C programs' header, too, whose lines are a little longer.
"${script[@]}" --max-line-length=109 drivers/include/virtio_tpm.h
