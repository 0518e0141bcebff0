/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "bus/bus_internal.h"

static bool utf8_is_valid(const char *s) {
        for (size_t n; *s; s += n) {
                n = utf8_length(s);
                if (n == 0)
                        return false;
        }

        return true;
}

char *bus_text(const char *s) {
        char *copy = strdup(s);

        if (!copy)
                return NULL;

        for (char *p = copy; *p;) {
                size_t n = utf8_length(p);

                if (n == 0) {
                        *p = '?';
                        n = 1;
                }
                p += n;
        }

        return copy;
}

char *bus_line(const char *s) {
        char *line = bus_text(s);

        for (char *p = line; p && *p; p++)
                if (iscntrl((unsigned char) *p))
                        *p = '?';

        return line;
}

int bus_append_text(sd_bus_message *m, const char *s) {
        CLEANUP(freep) char *clean = NULL;

        if (utf8_is_valid(s))
                return sd_bus_message_append_basic(m, 's', s);

        clean = bus_text(s);
        return clean ? sd_bus_message_append_basic(m, 's', clean) : -ENOMEM;
}

int bus_append_texts(sd_bus_message *m, const char *const *lines) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "s");
        if (r < 0)
                return r;

        for (; lines && *lines; lines++) {
                r = bus_append_text(m, *lines);
                if (r < 0)
                        return r;
        }

        return sd_bus_message_close_container(m);
}

int bus_append_mask(sd_bus_message *m, const ApMask *mask) {
        uint16_t ids[AP_IDS];
        size_t n;

        n = ap_mask_to_ids(mask, ids);
        return sd_bus_message_append_array(m, 'q', ids, n * sizeof *ids);
}

char *bus_path_uuid(const char *kind, Uuid uuid, char buf[static BUS_PATH_SIZE]) {
        char text[UUID_STRING_SIZE];

        (void) uuid_format(uuid, text);
        for (char *p = text; *p; p++)
                if (*p == '-')
                        *p = '_';

        (void) snprintf(buf, BUS_PATH_SIZE, BUS_ROOT "/%s/%s", kind, text);
        return buf;
}

Uuid bus_path_uuid_of(const char *path) {
        char text[UUID_STRING_SIZE];
        const char *last = strrchr(path, '/');
        Uuid uuid;

        if (!last || strlen(last + 1) != UUID_STRING_SIZE - 1)
                return (Uuid) {};

        memcpy(text, last + 1, sizeof text);
        for (char *p = text; *p; p++)
                if (*p == '_')
                        *p = '-';

        return uuid_parse(text, &uuid) < 0 ? (Uuid) {} : uuid;
}

int bus_path_parse_uuid(const char *path, const char *kind, Uuid *ret) {
        char again[BUS_PATH_SIZE];
        Uuid uuid = bus_path_uuid_of(path);

        /* one object has one path: no upper case, nothing between */
        if (strcmp(bus_path_uuid(kind, uuid, again), path) != 0)
                return -EINVAL;

        *ret = uuid;
        return 0;
}

int bus_paths_new(size_t n, char ***ret) {
        *ret = calloc(n + 1, sizeof **ret);
        return *ret ? 0 : -ENOMEM;
}

int bus_paths_set(char **paths, size_t i, const char *path) {
        paths[i] = strdup(path);
        return paths[i] ? 0 : -ENOMEM;
}
