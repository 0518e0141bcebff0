/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "profile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int translate(const char *argument, FILE *f) {
        static const struct {
                const char *argument, *statement;
        } known[] = {
                { "ap.apmask=", "apmask " },         { "ap.aqmask=", "aqmask " },
                { "ap.domain=", "default-domain " }, { "ap_model.na=255", "max 255 255" }, /* both or none */
                { "ap_model.nd=255", "" },           { "ap_model.present=0", "no ap" },
                { "facilities=!12", "no qci" },      { "novfioap", "no vfio_ap" },
        };

        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
                size_t n = strlen(known[i].argument);

                if (strncmp(argument, known[i].argument, n) != 0)
                        continue;
                (void) fprintf(f, "%s%s\n", known[i].statement, argument + n);
                return 0;
        }
        return -EINVAL;
}

int profile_of(const char *boot, char *buf, size_t size) {
        FILE *lab = fopen(LAB_PROFILE, "re"), *f = fmemopen(buf, size, "w");
        char text[512], *save = NULL;
        int r = lab && f && strlen(boot) < sizeof text ? 0 : -EINVAL;

        if (r == 0) {
                while (fgets(text, sizeof text, lab))
                        (void) fputs(text, f);
                (void) snprintf(text, sizeof text, "%s", boot);
                for (char *a = strtok_r(text, " ", &save); a && r >= 0; a = strtok_r(NULL, " ", &save))
                        r = translate(a, f);
        }
        if (lab)
                (void) fclose(lab);
        if (f && fclose(f) != 0)
                r = -EINVAL;
        return r;
}
