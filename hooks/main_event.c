/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcrypt-hook-event: what guestcrypt-hook becomes for a guest that may have something of ours. */

#include <unistd.h>

#include "hooks/hook.h"

static int ask_daemon(const Hook *h, const char *xml, size_t size) {
        return hook_event(h, xml, size, hook_send);
}

int main(int argc, char **argv) {
        return hook_run(argc, argv, STDIN_FILENO, stderr, HOOK_HOLDS_DIR, ask_daemon);
}
