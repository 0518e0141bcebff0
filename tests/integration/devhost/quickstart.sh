#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# quickstart.sh - what newcomers are shown is true; the script looks at that itself
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
. "$top/tests/lib/common.sh"
need_root
exec "$top/tools/quickstart" --no-tpm
