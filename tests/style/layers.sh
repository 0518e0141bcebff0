#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# layers.sh - who may include whom: prints every include below DIRECTORY (default: the checkout) that the table forbids
#
# The table: a directory; its own headers, a pattern over the name in ""; what it may have of the reserved foreign
# headers in <>, "-" for none of them. After "only:" stands all that it may have.
set -euo pipefail
cd "${1:-${0%/*}/../..}"

reserved='libvirt/|libxml/|systemd/sd-bus|fuse'
table='
daemon/base    base/                                                  libxml/
daemon/core    core/|base/(cleanup|uuid|strv)[.]h                     only:(stdint|stdbool|stddef|stdlib|string|errno|assert)[.]h
daemon/store   (store|base|core)/|[a-z_]+[.]rng[.]h                   libxml/
daemon/host    (host|base|core)/                                      -
daemon/virt    (virt|base|core)/|[a-z_]+[.]rng[.]h                                      libvirt/|libxml/
daemon/vtpm    (vtpm|base|core|store)/                                systemd/sd-bus
daemon/engine  (engine|base|core|store)/|(host/(host|host_rules|mdevctl|sysfs)|virt/virt|vtpm/vtpm)[.]h  -
daemon/bus     (bus|base|core|engine)/                                systemd/sd-bus
daemon         .                                                      .
cli            (cli|base|core)/                                       systemd/sd-bus
hooks          (hooks|base|core)/|virt/virt_xml[.]h|host/(ap_lock|host_paths|mdevctl)[.]h  libxml/|systemd/sd-bus
drivers        (include|drivers|base)/                                -
drivers/tpm_virtio  tpm_core[.]h                                      -
sim            sim/|base/|host/(host|sysfs)[.]h                       fuse
'

{ find daemon cli hooks drivers sim -name '*.[ch]' 2> /dev/null || :; } | sort |
        xargs -r grep -HE '^[ \t]*#[ \t]*include' | awk -v table="${table//$'\n'/;}" -v reserved="$reserved" '
BEGIN {
        n = split(table, rows, ";")
        for (i = 1; i <= n; i++)
                if (split(rows[i], f, " +") == 3) { own[f[1]] = f[2]; foreign[f[1]] = f[3] }
}
{
        file = $0; sub(/:.*/, "", file); dir = file
        do sub(/\/?[^\/]*$/, "", dir); while (dir != "" && !(dir in own))
        name = $0; sub(/^[^"<]*["<]/, "", name); sub(/[">].*/, "", name)
        if ($0 ~ /include[ \t]*"/) ok = name ~ "^(" own[dir] ")"
        else if (foreign[dir] ~ /^only:/) ok = name ~ "^" substr(foreign[dir], 6) "$"
        else ok = name !~ "^(" reserved ")" || name ~ "^(" foreign[dir] ")"
        if (!ok) { print file ": " dir "/ must not include " name; bad = 1 }
}
END { exit bad }'
