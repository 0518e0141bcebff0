/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* virt_meddle - preloaded into guestcryptd-virt: somebody who changes a guest's definition between its being read and
 * its being written. VIRT_MEDDLE=N:COMMAND runs the command before each second reading of a definition, N times. */

#include <dlfcn.h>
#include <libvirt/libvirt.h>
#include <stdlib.h>
#include <string.h>

char *virDomainGetXMLDesc(virDomainPtr domain, unsigned flags) {
        static char *(*real)(virDomainPtr domain, unsigned flags);
        static unsigned reads;
        static long left = -1;
        const char *how = getenv("VIRT_MEDDLE");

        if (!real)
                real = (char *(*) (virDomainPtr, unsigned) ) dlsym(RTLD_NEXT, "virDomainGetXMLDesc");
        if (left < 0)
                left = how ? strtol(how, NULL, 10) : 0;
        if (flags == (VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE) && reads++ % 2 == 1 && left > 0) {
                left--;
                unsetenv("LD_PRELOAD");
                if (system(strchr(how, ':') + 1) != 0)
                        abort();
        }
        return real(domain, flags);
}
