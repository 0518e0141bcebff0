/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

static int from_value(sd_bus_message *m, char type, const char *contents, json_object **ret);

static int from_basic(sd_bus_message *m, char type, json_object **ret) {
        union {
                uint8_t y;
                int b;
                int16_t n;
                uint16_t q;
                int32_t i;
                uint32_t u;
                int64_t x;
                uint64_t t;
                double d;
                const char *s;
        } v;
        int r;

        r = sd_bus_message_read_basic(m, type, &v);
        if (r < 0)
                return r;

        switch (type) {
        case 'y':
                *ret = json_object_new_int(v.y);
                break;
        case 'b':
                *ret = json_object_new_boolean(v.b);
                break;
        case 'n':
                *ret = json_object_new_int(v.n);
                break;
        case 'q':
                *ret = json_object_new_int(v.q);
                break;
        case 'i':
                *ret = json_object_new_int(v.i);
                break;
        case 'u':
                *ret = json_object_new_int64(v.u);
                break;
        case 'x':
                *ret = json_object_new_int64(v.x);
                break;
        case 't':
                *ret = json_object_new_uint64(v.t);
                break;
        case 'd':
                *ret = json_object_new_double(v.d);
                break;
        case 's':
        case 'o':
        case 'g':
                *ret = json_object_new_string(v.s);
                break;
        default:
                return -EBADMSG;
        }

        return *ret ? 0 : -ENOMEM;
}

/* The values up to the end of the container that was entered. */
static int fill(sd_bus_message *m, json_object *array) {
        const char *contents;
        char type;
        int r;

        while ((r = sd_bus_message_peek_type(m, &type, &contents)) > 0) {
                json_object *value;

                r = from_value(m, type, contents, &value);
                if (r < 0)
                        return r;
                if (json_object_array_add(array, value) < 0) {
                        (void) json_object_put(value);
                        return -ENOMEM;
                }
        }

        return r;
}

static int fill_dictionary(sd_bus_message *m, const char *entry, json_object *object) {
        int r;

        while ((r = sd_bus_message_enter_container(m, 'e', entry)) > 0) {
                const char *key, *contents;
                json_object *value;
                char type;

                r = sd_bus_message_read_basic(m, entry[0], &key);
                if (r >= 0)
                        r = sd_bus_message_peek_type(m, &type, &contents);
                if (r >= 0)
                        r = from_value(m, type, contents, &value);
                if (r < 0)
                        return r;
                if (json_object_object_add(object, key, value) < 0) {
                        (void) json_object_put(value);
                        return -ENOMEM;
                }

                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }

        return r;
}

static int from_dictionary(sd_bus_message *m, const char *contents, json_object **ret) {
        CLEANUP(json_putp) json_object *object = json_object_new_object();
        char entry[SD_BUS_MAXIMUM_SIGNATURE_LENGTH + 1];
        int r;

        if (!object)
                return -ENOMEM;

        (void) snprintf(entry, sizeof entry, "%.*s", (int) strlen(contents) - 2,
                        contents + 1); /* without the braces */
        r = sd_bus_message_enter_container(m, 'a', contents);
        if (r < 0)
                return r;
        r = fill_dictionary(m, entry, object);
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;

        *ret = TAKE(object);
        return 0;
}

static int from_sequence(sd_bus_message *m, char type, const char *contents, json_object **ret) {
        CLEANUP(json_putp) json_object *array = json_object_new_array();
        int r;

        if (!array)
                return -ENOMEM;

        r = sd_bus_message_enter_container(m, type, contents);
        if (r < 0)
                return r;
        r = fill(m, array);
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;

        *ret = TAKE(array);
        return 0;
}

static int from_variant(sd_bus_message *m, const char *contents, json_object **ret) {
        const char *inner;
        char type;
        int r;

        r = sd_bus_message_enter_container(m, 'v', contents);
        if (r >= 0)
                r = sd_bus_message_peek_type(m, &type, &inner);
        if (r >= 0)
                r = from_value(m, type, inner, ret);
        if (r < 0)
                return r;

        r = sd_bus_message_exit_container(m);
        if (r < 0)
                json_putp(ret);
        return r;
}

static int from_value(sd_bus_message *m, char type, const char *contents, json_object **ret) {
        if (type == 'v')
                return from_variant(m, contents, ret);
        if (type == 'a' && contents[0] == '{' && (contents[1] == 's' || contents[1] == 'o'))
                return from_dictionary(m, contents, ret);
        if (type == 'a' || type == 'r')
                return from_sequence(m, type, contents, ret);

        return from_basic(m, type, ret);
}

int json_from_message(sd_bus_message *m, json_object **ret) {
        CLEANUP(json_putp) json_object *values = json_object_new_array();
        int r;

        if (!values)
                return -ENOMEM;

        r = fill(m, values);
        if (r < 0)
                return r;

        switch (json_object_array_length(values)) {
        case 0:
                *ret = NULL;
                return 0;
        case 1:
                *ret = json_object_get(json_object_array_get_idx(values, 0));
                return 0;
        default:
                *ret = TAKE(values);
                return 0;
        }
}

char *json_key(const char *property, char buf[static 64]) {
        char *p = buf;

        for (const char *s = property; *s && p < buf + 62; s++) {
                bool starts_word = s > property && isupper((unsigned char) *s) &&
                                   (!isupper((unsigned char) s[-1]) || islower((unsigned char) s[1]));

                if (starts_word)
                        *p++ = '_';
                *p++ = (char) tolower((unsigned char) *s);
        }

        *p = '\0';
        return buf;
}

const char *json_text(json_object *o, const char *key) {
        const char *s = json_object_get_string(json_object_object_get(o, key));

        return s ?: "";
}

bool json_flag(json_object *o, const char *key) {
        return json_object_get_boolean(json_object_object_get(o, key));
}

int64_t json_number(json_object *o, const char *key) {
        return json_object_get_int64(json_object_object_get(o, key));
}

ApMask json_mask(json_object *ids) {
        ApMask mask = {};

        for (size_t i = 0; ids && i < json_object_array_length(ids); i++)
                ap_mask_set(&mask, (uint8_t) json_object_get_int(json_object_array_get_idx(ids, i)));

        return mask;
}

char *json_list(json_object *o, const char *key, char buf[static AP_MASK_LIST_SIZE]) {
        ApMask mask = json_mask(json_object_object_get(o, key));

        if (ap_mask_is_empty(&mask))
                return strcpy(buf, "-");

        return ap_mask_format_list(&mask, buf);
}

bool cli_print_json(Cli *c, json_object *o) {
        if (!c->json)
                return false;

        (void) fprintf(c->out, "%s\n",
                       json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
                                                                 JSON_C_TO_STRING_NOSLASHESCAPE));
        return true;
}
