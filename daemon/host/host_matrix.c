/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_matrix.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_paths.h"

#define CONFIG_SIZE 512  /* ap_config has 201 bytes */
#define TEXT_SIZE   8192 /* more than a page: it must be seen when the kernel gives one */
#define READS_MAX   16

static int hex_digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return -1;
}

/* @n hex digits at *p, which moves on. -1: not that; ids above 255 too. */
static int hex_id(const char **p, unsigned n) {
        int id = 0;

        for (unsigned i = 0; i < n; i++) {
                int d = hex_digit((*p)[i]);

                if (d < 0)
                        return -1;
                id = id << 4 | d;
        }
        *p += n;
        return id < AP_IDS ? id : -1;
}

int host_matrix_parse_text(const char *text, ApMask *ret_adapters, ApMask *ret_domains) {
        ApMask adapters = {}, domains = {};
        const char *p = text;

        while (*p) {
                int id;

                if (*p != '.') {
                        id = hex_id(&p, 2);
                        if (id < 0)
                                return HOST_MATRIX_ABSURD;
                        ap_mask_set(&adapters, (uint8_t) id);
                }
                if (*p++ != '.')
                        return HOST_MATRIX_ABSURD;
                if (*p != '\n') {
                        id = hex_id(&p, 4);
                        if (id < 0)
                                return HOST_MATRIX_ABSURD;
                        ap_mask_set(&domains, (uint8_t) id);
                }
                if (*p++ != '\n')
                        return HOST_MATRIX_ABSURD;
        }

        *ret_adapters = adapters;
        *ret_domains = domains;
        return 0;
}

static int control_parse(const char *text, ApMask *ret) {
        ApMask control = {};
        const char *p = text;

        while (*p) {
                int id = hex_id(&p, 4);

                if (id < 0 || *p++ != '\n')
                        return HOST_MATRIX_ABSURD;
                ap_mask_set(&control, (uint8_t) id);
        }

        *ret = control;
        return 0;
}

static int attribute_read(Sysfs *s, const char *mdev_path, const char *name, char *buf, size_t size) {
        char path[HOST_PATH_SIZE];
        ssize_t n;

        if ((size_t) snprintf(path, sizeof path, "%s/%s", mdev_path, name) >= sizeof path)
                return -ENAMETOOLONG;

        n = s->ops->read(s, path, buf, size);
        if (n == -EOVERFLOW)
                return HOST_MATRIX_ABSURD;
        if (n < 0)
                return (int) n;
        if (strlen(buf) != (size_t) n)
                return HOST_MATRIX_ABSURD;
        return 0;
}

int host_matrix_read(Sysfs *s, const char *mdev_path, const ApMatrix *expected, ApMatrix *ret) {
        ApMatrix last = expected ? *expected : (ApMatrix) {};
        bool have_last = expected;

        for (unsigned i = 0; i < READS_MAX; i++) {
                char buf[CONFIG_SIZE];
                ApMatrix now;
                int r;

                r = attribute_read(s, mdev_path, "ap_config", buf, sizeof buf);
                if (r < 0)
                        return r;
                if (ap_matrix_parse(buf, &now) < 0)
                        return HOST_MATRIX_ABSURD;

                if (have_last && ap_matrix_equal(&now, &last)) {
                        *ret = now;
                        return 0;
                }
                last = now;
                have_last = true;
        }

        return -EAGAIN;
}

int host_matrix_read_text(Sysfs *s, const char *mdev_path, ApMatrix *ret) {
        CLEANUP(freep)
        char *buf = malloc(TEXT_SIZE);
        ApMatrix m;
        int r;

        if (!buf)
                return -ENOMEM;

        r = attribute_read(s, mdev_path, "matrix", buf, TEXT_SIZE);
        if (r < 0)
                return r;
        r = host_matrix_parse_text(buf, &m.adapters, &m.domains);
        if (r < 0)
                return r;
        r = attribute_read(s, mdev_path, "control_domains", buf, TEXT_SIZE);
        if (r < 0)
                return r;
        r = control_parse(buf, &m.control);
        if (r < 0)
                return r;

        *ret = m;
        return 0;
}

int host_matrix_read_guest(Sysfs *s, const char *mdev_path, ApMask *ret_adapters, ApMask *ret_domains) {
        CLEANUP(freep)
        char *buf = malloc(TEXT_SIZE);
        int r;

        if (!buf)
                return -ENOMEM;

        r = attribute_read(s, mdev_path, "guest_matrix", buf, TEXT_SIZE);
        if (r < 0)
                return r;

        return host_matrix_parse_text(buf, ret_adapters, ret_domains);
}
