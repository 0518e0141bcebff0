/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "sim/sim_profile.h"

#define PROFILE_SIZE_MAX 65536

int sim_profile_load(const char *name, SimProfile *ret, unsigned *reterr_line) {
        static const char *const dirs[] = { SIM_SOURCE_PROFILES, SIM_INSTALLED_PROFILES };
        CLEANUP(fclosep)
        FILE *f = NULL;
        CLEANUP(freep)
        char *text = NULL;
        char path[512];
        size_t n;

        *reterr_line = 0;
        if (strpbrk(name, "/."))
                f = fopen(name, "re");
        else
                for (size_t i = 0; i < ELEMENTS(dirs) && !f; i++) {
                        if ((size_t) snprintf(path, sizeof path, "%s/%s.profile", dirs[i], name) >=
                            sizeof path)
                                return -ENAMETOOLONG;
                        f = fopen(path, "re");
                }
        if (!f)
                return -errno;

        text = malloc(PROFILE_SIZE_MAX + 1);
        if (!text)
                return -ENOMEM;
        n = fread(text, 1, PROFILE_SIZE_MAX + 1, f);
        if (ferror(f))
                return -EIO;
        if (n > PROFILE_SIZE_MAX)
                return -EFBIG;
        text[n] = 0;
        return sim_profile_parse(text, ret, reterr_line);
}
