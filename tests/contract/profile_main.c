/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* contract-profile BOOT: prints the profile of the simulated host that is as the tests' kernel when booted so. */

#include <stdio.h>

#include "profile.h"

int main(int argc, char **argv) {
        char text[8192];

        if (argc != 2 || profile_of(argv[1], text, sizeof text) < 0)
                return 2;
        (void) fputs(text, stdout);
        return 0;
}
