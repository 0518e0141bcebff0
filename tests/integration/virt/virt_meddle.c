/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* virt_meddle - preloaded into guestcryptd-virt: what somebody else does at the worst moment. The first line of the file
 * VIRT_MEDDLE says what: "N read COMMAND" runs the command before each second reading of a definition, that is between its
 * being read and its being written, N times; "N define COMMAND" right before it is written. */

#include <dlfcn.h>
#include <libvirt/libvirt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void meddle(const char *when) {
        static char last[1024];
        static long done;
        const char *path = getenv("VIRT_MEDDLE");
        char line[1024] = "", word[16] = "";
        int at = 0;
        long n = 0;
        FILE *f;

        f = path ? fopen(path, "re") : NULL;
        if (!f)
                return;
        if (!fgets(line, sizeof line, f))
                *line = '\0';
        (void) fclose(f);
        if (strcmp(line, last) != 0) {
                (void) strcpy(last, line);
                done = 0;
        }
        if (sscanf(line, "%ld %15s %n", &n, word, &at) < 2 || strcmp(word, when) != 0 || done >= n)
                return;
        done++;
        unsetenv("LD_PRELOAD");
        if (system(line + at) != 0)
                abort();
}

char *virDomainGetXMLDesc(virDomainPtr domain, unsigned flags) {
        static char *(*real)(virDomainPtr domain, unsigned flags);
        static unsigned reads;

        if (!real)
                real = (char *(*) (virDomainPtr, unsigned) ) dlsym(RTLD_NEXT, "virDomainGetXMLDesc");
        if (flags == (VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE) && reads++ % 2 == 1)
                meddle("read");
        return real(domain, flags);
}

virDomainPtr virDomainDefineXMLFlags(virConnectPtr c, const char *xml, unsigned flags) {
        static virDomainPtr (*real)(virConnectPtr c, const char *xml, unsigned flags);

        if (!real)
                real = (virDomainPtr(*)(virConnectPtr, const char *,
                                        unsigned)) dlsym(RTLD_NEXT, "virDomainDefineXMLFlags");
        meddle("define");
        return real(c, xml, flags);
}
