/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <string.h>

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

static int check_length(const char *s, size_t max, const char *what, sd_bus_error *error) {
        size_t n = strlen(s);

        if (n > max)
                return bus_error_invalid(error, "%s is %zu bytes long, at most %zu are allowed", what, n,
                                         max);

        return 0;
}

int bus_read_string(sd_bus_message *m, const char *what, const char **ret, sd_bus_error *error) {
        const char *s;
        int r;

        r = sd_bus_message_read_basic(m, 's', &s);
        if (r < 0)
                return r;

        r = check_length(s, BUS_STRING_MAX, what, error);
        if (r < 0)
                return r;

        *ret = s;
        return 0;
}

int bus_read_uuid(sd_bus_message *m, Uuid *ret, sd_bus_error *error) {
        const char *s;
        Uuid uuid = {};
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

static const char *type_name(char type) {
        switch (type) {
        case 'b':
                return "a boolean";
        case 'q':
                return "a 16-bit number";
        default:
                return "a string";
        }
}

static int read_value(sd_bus_message *m, const BusOption *option, sd_bus_error *error) {
        const char signature[] = { option->type, '\0' };
        int b, r;

        r = sd_bus_message_enter_container(m, 'v', signature);
        if (r == -ENXIO)
                return bus_error_invalid(error, "option '%s' must be %s", option->name,
                                         type_name(option->type));
        if (r < 0)
                return r;

        switch (option->type) {
        case 'b':
                r = sd_bus_message_read_basic(m, 'b', &b);
                if (r > 0)
                        *(bool *) option->ret = b;
                break;
        case 'q':
                r = sd_bus_message_read_basic(m, 'q', option->ret);
                break;
        default:
                assert(option->type == 's');
                r = bus_read_string(m, option->name, option->ret, error);
        }
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
