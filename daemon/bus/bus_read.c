/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "bus/bus_internal.h"

int bus_read_mask(sd_bus_message *m, const char *what, ApMask *ret, sd_bus_error *error) {
        const void *ids;
        size_t size;
        int r;

        r = sd_bus_message_read_array(m, 'q', &ids, &size);
        if (r < 0)
                return r;

        r = ap_mask_from_ids(ids, size / sizeof(uint16_t), ret);
        switch (r) {
        case -E2BIG:
                return bus_error_invalid(error, "%zu %s ids were given, there are at most %d",
                                         size / sizeof(uint16_t), what, AP_IDS);
        case -ERANGE:
                for (const uint16_t *id = ids; id < (const uint16_t *) ids + size / sizeof *id; id++)
                        if (*id >= AP_IDS)
                                return bus_error_invalid(error, "%s id %u is above %d", what, *id,
                                                         AP_IDS - 1);
                break;
        case -EEXIST:
                return bus_error_invalid(error, "one of the %s ids was given twice", what);
        }

        return r;
}

int bus_read_matrix(sd_bus_message *m, ApMatrix *ret, sd_bus_error *error) {
        int r;

        r = bus_read_mask(m, "adapter", &ret->adapters, error);
        if (r < 0)
                return r;

        r = bus_read_mask(m, "domain", &ret->domains, error);
        if (r < 0)
                return r;

        return bus_read_mask(m, "control domain", &ret->control, error);
}

static int read_text(sd_bus_message *m, size_t max, const char *what, const char **ret,
                     sd_bus_error *error) {
        const char *s;
        size_t n;
        int r;

        r = sd_bus_message_read_basic(m, 's', &s);
        if (r < 0)
                return r;

        n = strlen(s);
        if (n > max)
                return bus_error_invalid(error, "%s is %zu bytes long, at most %zu are allowed", what, n,
                                         max);

        *ret = s;
        return 0;
}

int bus_read_string(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error) {
        return read_text(m, BUS_STRING_MAX, what, ret, error);
}

int bus_read_text(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error) {
        return read_text(m, BUS_TEXT_MAX, what, ret, error);
}

int bus_read_path(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error) {
        const char *s;
        int r;

        r = bus_read_text(m, what, &s, error);
        if (r < 0)
                return r;
        if (*s != '/')
                return bus_error_invalid(error, "%s must be a path that begins with '/', not '%s'", what, s);

        *ret = s;
        return 0;
}

int bus_read_uuid(sd_bus_message *m, Uuid *ret, sd_bus_error *error) {
        Uuid uuid = {};
        const char *s;
        int r;

        r = bus_read_string(m, "uuid", &s, error);
        if (r < 0)
                return r;

        if (*s && uuid_parse(s, &uuid) < 0)
                return bus_error_invalid(error, "'%s' is no UUID", s);
        if (*s && uuid_is_null(uuid))
                return bus_error_invalid(error, "the null UUID names nothing");

        *ret = uuid;
        return 0;
}

static int read_model(sd_bus_message *m, const char *what, TpmModel *ret, sd_bus_error *error) {
        const char *s;
        TpmModel model;
        int r;

        r = bus_read_string(m, what, &s, error);
        if (r < 0)
                return r;

        model = tpm_model_from_name(s);
        if (model == _TPM_MODEL_MAX)
                return bus_error_invalid(error, "%s '%s' is none of virtio, crb and tis", what, s);

        *ret = model;
        return 0;
}

static int read_codes(sd_bus_message *m, const char *what, BusCodes *ret, sd_bus_error *error) {
        const void *codes;
        size_t size;
        int r;

        r = sd_bus_message_read_array(m, 'u', &codes, &size);
        if (r < 0)
                return r;
        if (size / sizeof(uint32_t) > BUS_CODES_MAX)
                return bus_error_invalid(error, "%s has %zu numbers, at most %d are allowed", what,
                                         size / sizeof(uint32_t), BUS_CODES_MAX);

        *ret = (BusCodes) { .codes = codes, .n = size / sizeof(uint32_t) };
        return 0;
}

static int read_uuids(sd_bus_message *m, const char *what, BusUuids *ret, sd_bus_error *error) {
        int r;

        r = sd_bus_message_enter_container(m, 'a', "s");
        if (r < 0)
                return r;

        ret->n = 0;
        while ((r = sd_bus_message_at_end(m, 0)) == 0) {
                if (ret->n == BUS_UUIDS_MAX)
                        return bus_error_invalid(error, "%s has more than %d UUIDs", what, BUS_UUIDS_MAX);

                r = bus_read_uuid(m, &ret->uuids[ret->n], error);
                if (r < 0)
                        return r;
                if (uuid_is_null(ret->uuids[ret->n]))
                        return bus_error_invalid(error, "%s has an empty UUID", what);
                ret->n++;
        }
        if (r < 0)
                return r;

        return sd_bus_message_exit_container(m);
}

int bus_read_fd(sd_bus_message *m, const char *what, int access, int *ret, sd_bus_error *error) {
        struct stat st;
        int fd, flags, r;

        r = sd_bus_message_read_basic(m, 'h', &fd);
        if (r < 0)
                return r;

        if (fstat(fd, &st) < 0)
                return -errno;
        flags = fcntl(fd, F_GETFL);
        if (flags < 0)
                return -errno;
        if (flags & O_PATH || (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode)))
                return bus_error_invalid(error, "%s must be an open regular file or pipe", what);
        if ((flags & O_ACCMODE) != access && (flags & O_ACCMODE) != O_RDWR)
                return bus_error_invalid(error, "%s must be open for %s", what,
                                         access == O_RDONLY ? "reading" : "writing");

        *ret = fd;
        return 0;
}

/* ---- options ---- */

static const struct {
        char type;
        const char *signature, *name;
} types[] = {
        { 'b', "b", "a boolean" },
        { 'q', "q", "a 16-bit number" },
        { 's', "s", "a string" },
        { 't', "s", "a string" },
        { 'p', "s", "a string" },
        { 'U', "s", "a string" },
        { 'M', "s", "a string" },
        { 'C', "au", "an array of 32-bit numbers" },
        { 'D', "as", "an array of strings" },
};

static int read_bool(sd_bus_message *m, bool *ret) {
        int b, r;

        r = sd_bus_message_read_basic(m, 'b', &b);
        if (r > 0)
                *ret = b;
        return r;
}

static int read_typed(sd_bus_message *m, const BusOption *o, sd_bus_error *error) {
        switch (o->type) {
        case 'b':
                return read_bool(m, o->ret);
        case 'q':
                return sd_bus_message_read_basic(m, 'q', o->ret);
        case 's':
                return bus_read_string(m, o->name, o->ret, error);
        case 't':
                return bus_read_text(m, o->name, o->ret, error);
        case 'p':
                return bus_read_path(m, o->name, o->ret, error);
        case 'U':
                return bus_read_uuid(m, o->ret, error);
        case 'M':
                return read_model(m, o->name, o->ret, error);
        case 'C':
                return read_codes(m, o->name, o->ret, error);
        default:
                return read_uuids(m, o->name, o->ret, error);
        }
}

static int read_value(sd_bus_message *m, const BusOption *option, sd_bus_error *error) {
        size_t i = 0;
        int r;

        while (i < ELEMENTS(types) && types[i].type != option->type)
                i++;
        assert(i < ELEMENTS(types));

        r = sd_bus_message_enter_container(m, 'v', types[i].signature);
        if (r == -ENXIO)
                return bus_error_invalid(error, "option '%s' must be %s", option->name, types[i].name);
        if (r < 0)
                return r;

        r = read_typed(m, option, error);
        if (r < 0)
                return r;

        return sd_bus_message_exit_container(m);
}

int bus_read_options(sd_bus_message *m, const BusOption *options, size_t n, sd_bus_error *error) {
        uint32_t seen = 0;
        int r;

        assert(n <= 32);

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (r < 0)
                return r;

        while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                const char *name;
                size_t i = 0;

                r = bus_read_string(m, "an option's name", &name, error);
                if (r < 0)
                        return r;

                while (i < n && strcmp(options[i].name, name) != 0)
                        i++;
                if (i == n)
                        return bus_error_invalid(error, "unknown option '%s'", name);
                if (seen & UINT32_C(1) << i)
                        return bus_error_invalid(error, "option '%s' was given twice", name);
                seen |= UINT32_C(1) << i;

                r = read_value(m, &options[i], error);
                if (r < 0)
                        return r;
                if (options[i].ret_set)
                        *options[i].ret_set = true;

                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;

        return sd_bus_message_exit_container(m);
}
