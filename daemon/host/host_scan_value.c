/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_scan_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int scan_gone_is_again(int r) {
        return r == -ENOENT || r == -ENODEV || r == -ENXIO || r == -ENOTDIR ? SCAN_AGAIN : r;
}

int scan_value_read(Sysfs *s, const char *path, char *buf, size_t size) {
        char value[SCAN_VALUE_SIZE];
        ssize_t n = s->ops->read(s, path, value, sizeof value);

        if (n < 0)
                return n == -EOVERFLOW ? -EBADMSG : (int) n;

        value[strcspn(value, "\n")] = '\0';
        (void) snprintf(buf, size, "%s", value);
        return 0;
}

int scan_number_read(Sysfs *s, const char *path, unsigned long max, unsigned long *ret) {
        char value[32];
        unsigned long n = 0;
        int r;

        r = scan_value_read(s, path, value, sizeof value);
        if (r < 0)
                return r;
        if (!value[0] || strlen(value) > 10)
                return -EBADMSG;
        for (const char *p = value; *p; p++) {
                if (*p < '0' || *p > '9')
                        return -EBADMSG;
                n = n * 10 + (unsigned long) (*p - '0');
        }
        if (n > max)
                return -EBADMSG;

        *ret = n;
        return 0;
}

int scan_mask_read(Sysfs *s, const char *path, ApMask *ret) {
        char value[SCAN_VALUE_SIZE];
        int r;

        r = scan_value_read(s, path, value, sizeof value);
        if (r < 0)
                return r;
        if (strlen(value) != AP_MASK_STRING_SIZE - 1) /* a short one is none that a kernel prints */
                return -EBADMSG;

        return ap_mask_parse(value, ret) < 0 ? -EBADMSG : 0;
}

int scan_path_join(char *buf, size_t size, const char *a, const char *b, const char *c) {
        int n = snprintf(buf, size, "%s/%s%s%s", a, b, c ? "/" : "", c ? c : "");

        return (size_t) n < size ? 0 : -ENAMETOOLONG;
}

int scan_array_reserve(void **array, size_t n, size_t size) {
        void *bigger;

        if (n > 0 && (n < 16 || (n & (n - 1)) != 0))
                return 0;

        bigger = realloc(*array, (n == 0 ? 16 : 2 * n) * size);
        if (!bigger)
                return -ENOMEM;
        *array = bigger;
        return 0;
}
