#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# layers_test.sh - the layer table finds what is planted, and nothing in an innocent tree
set -euo pipefail
layers=$(realpath "${0%/*}/layers.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# case FILE INCLUDE EXPECTED-STATUS
try() {
        rm -rf "${work:?}"/*
        mkdir -p "$work/${1%/*}"
        printf '/* SPDX */\n#include %s\n' "$2" > "$work/$1"
        local status=0 out
        out=$("$layers" "$work") || status=$?
        if [ $status != "$3" ] || { [ "$3" = 1 ] && [[ $out != *"$1"* ]]; }; then
                echo "FAILED: $1 with $2: status $status instead of $3: $out"
                failed=1
        fi
}

while read -r file include status; do
        try "$file" "$include" "$status"
done <<'TABLE'
daemon/core/plan.c          <string.h>              0
daemon/core/plan.c          <sys/stat.h>            1
daemon/core/plan.c          <stdio.h>               1
daemon/core/plan.c          "core/ap_mask.h"        0
daemon/core/plan.c          "base/uuid.h"           0
daemon/core/plan.c          "base/file.h"           1
daemon/core/plan.c          "host/host.h"           1
daemon/core/sub/plan.c      "host/host.h"           1
daemon/base/file.c          "core/ap_mask.h"        1
daemon/base/worker.c        <systemd/sd-event.h>    0
daemon/base/log.c           <systemd/sd-bus.h>      1
daemon/store/record.c       <libxml/tree.h>         0
daemon/store/record.c       "engine/engine.h"       1
daemon/store/record.c       "matrix.rng.h"          0
daemon/store/record.c       <systemd/sd-bus.h>      1
daemon/host/scan.c          <libxml/tree.h>         1
daemon/host/scan.c          <linux/netlink.h>       0
daemon/host/scan.c          "store/store.h"         1
daemon/engine/engine.c      "host/host.h"           0
daemon/engine/engine.c      "host/host_scan.h"      1
daemon/engine/engine.c      "bus/bus.h"             1
daemon/engine/engine.c      <systemd/sd-bus.h>      1
daemon/engine/engine.c      <libvirt/libvirt.h>     1
daemon/bus/bus_matrix.c     <systemd/sd-bus.h>      0
daemon/bus/bus_matrix.c     "host/host.h"           1
daemon/main.c               "host/host.h"           0
cli/main.c                  "engine/engine.h"       1
sim/sim_fuse.c              <fuse_lowlevel.h>       0
sim/sim_ap.c                "engine/engine.h"       1
daemon/host/scan.c          <fuse.h>                1
TABLE
exit $failed
