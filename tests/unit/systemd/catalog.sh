#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# catalog.sh - each message id of the log has an entry in the catalog, and the other way round; the settings' file shows the defaults
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"

diff <(sed -n 's/^#define LOG_ID_[A-Z_]* *"\([0-9a-f]*\)".*/\1/p' "$top/daemon/base/log.h" | sort) \
        <(sed -n 's/^-- //p' "$top/systemd/guestcrypt.catalog" | sort)
diff <(sed -n 's/^ *{ "\([A-Za-z]*\)", KEY_.*/\1/p' "$top/daemon/base/conf.c" | sort) \
        <(sed -n 's/^#\([A-Za-z]*\)=.*/\1/p' "$top/systemd/guestcrypt.conf" | sort)
diff <(sed -n 's/^#\([A-Za-z]*=.*\)/\1/p' "$top/systemd/guestcrypt.conf" | sort) \
        <(sed -n 's/^\.B \([A-Z][A-Za-z]*=.*\)/\1/p' "$top/man/guestcrypt.conf.5" | sort)
